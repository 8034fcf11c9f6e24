//! Finds the members of an event in structured mode in one pass, as slices of the input. Only
//! strings with escapes are copied.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern_core::HOST_EXTENSION_PREFIX;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::checks::{check_json, check_name, check_text, not_json};
use super::error::quote;
use super::{
    ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, HOST_EXTENSIONS_MAX, is_json, json_scan,
};

/// The members of an event in structured mode, as they are written in the JSON.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) specversion: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) subject: Option<&'a str>,
    pub(super) time: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
    pub(super) dataschema: Option<&'a str>,
    pub(super) datacontenttype: Option<&'a str>,
    data: Option<&'a str>,
    pub(super) data_base64: Option<&'a str>,
    /// The name and the JSON of each extension attribute. They were checked.
    pub(super) extensions: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whether an extension attribute that is not allowed is left out, and not refused.
    tolerant: bool,
    pub(super) ignored: u64,
    error: Option<EventError>,
}

impl<'a> Members<'a> {
    pub(super) fn has_extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|(known, _)| known == name)
    }

    /// Finds the members of `text`, which may be nested `depth_max` deep. Returns `None` if the
    /// scanner does not handle `text`. Then [`Members::parse`] must read it; if `text` is invalid,
    /// that returns the error.
    pub(super) fn scan(text: &'a str, depth_max: usize, tolerant: bool) -> Option<Self> {
        let mut members = Self { tolerant, ..Self::default() };
        json_scan::members(text, depth_max, |name, value| {
            members.set(Cow::Borrowed(name), value).is_ok()
        })?;
        Some(members)
    }

    /// Finds the members of any `text`. Also returns an error if they do not make a valid event.
    pub(super) fn parse(text: &'a str, tolerant: bool) -> (Self, Result<(), EventError>) {
        let mut members = Self { tolerant, ..Self::default() };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(MembersVisitor(&mut members)).and_then(|()| json.end());
        let read = read.map_err(|error| {
            members.error.take().unwrap_or_else(|| {
                let start = text.trim_start();
                if start.starts_with('{') || start.is_empty() {
                    EventError::NotJson(error.to_string())
                } else if serde_json::from_str::<&RawValue>(text).is_ok() {
                    EventError::Shape { expected: "a JSON object", value: quote(start) }
                } else {
                    not_json(text)
                }
            })
        });
        (members, read)
    }

    fn set(&mut self, name: Cow<'a, str>, value: &'a str) -> Result<(), EventError> {
        // An attribute whose value is null counts as absent, whatever its name is.
        if value == "null" && &*name != "data" {
            return Ok(());
        }
        let member = match &*name {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "specversion" => &mut self.specversion,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "data" => &mut self.data,
            "tenant" => &mut self.tenant,
            "datacontenttype" => &mut self.datacontenttype,
            "dataschema" => &mut self.dataschema,
            "data_base64" => &mut self.data_base64,
            _ => return self.extend(name, value),
        };
        match member {
            Some(known) if *known != value => Err(EventError::Twice(quote(&name))),
            _ => {
                *member = Some(value);
                Ok(())
            }
        }
    }

    fn extend(&mut self, name: Cow<'a, str>, value: &'a str) -> Result<(), EventError> {
        let known = self.extensions.iter().position(|(known, _)| *known == name);
        let names = self.extensions.iter().map(|(known, _)| &**known);
        let full = known.is_none() && is_full(names, &name);
        let json = check_name(&name).and_then(|()| match full {
            true => Err(EventError::TooManyExtensions { max: EXTENSIONS_MAX }),
            false => extension(&name, value, self.tolerant),
        });
        match (json, known) {
            (Err(error), _) if !self.tolerant => return Err(error),
            (Err(_), _) => self.ignored += 1,
            (Ok(json), None) => self.extensions.push((name, json)),
            (Ok(json), Some(index)) if self.extensions[index].1 == json => {}
            (Ok(_), Some(_)) if !self.tolerant => return Err(EventError::Twice(quote(&name))),
            (Ok(json), Some(index)) => {
                self.extensions[index].1 = json;
                self.ignored += 1;
            }
        }
        Ok(())
    }
}

/// Returns whether an event with the extension attributes `names` has no room for `name`.
/// Attributes of the host and those of the sender are counted separately.
pub(super) fn is_full<'n>(names: impl ExactSizeIterator<Item = &'n str>, name: &str) -> bool {
    if names.len() < HOST_EXTENSIONS_MAX {
        return false;
    }
    let of_host = |name: &str| name.starts_with(HOST_EXTENSION_PREFIX);
    let max = if of_host(name) { HOST_EXTENSIONS_MAX } else { EXTENSIONS_MAX };
    names.filter(|known| of_host(known) == of_host(name)).count() >= max
}

/// Returns the JSON of an extension attribute. CloudEvents allows only certain integers as numbers.
/// In a record of a log, any other number becomes a text with the same characters.
fn extension<'a>(name: &str, value: &'a str, tolerant: bool) -> Result<Cow<'a, str>, EventError> {
    let json = value;
    match json.as_bytes().first() {
        Some(b'"') => check_text(name, &string(name, value)?, ATTRIBUTE_BYTES_MAX)?,
        Some(b't' | b'f') => (),
        Some(b'-' | b'0'..=b'9') if name != "traceparent" && json.parse::<i32>().is_ok() => (),
        Some(b'-' | b'0'..=b'9') if tolerant && json.len() <= ATTRIBUTE_BYTES_MAX => {
            return Ok(Cow::Owned(format!("\"{json}\"")));
        }
        _ => return Err(wrong_type(name, json, "a string, a boolean or a 32-bit integer")),
    }
    Ok(Cow::Borrowed(json))
}

/// Returns the canonical form of a boolean, or of an integer up to `whole_max`; `None` for other
/// values.
pub(super) fn scalar(raw: &str, whole_max: i64) -> Option<Cow<'_, str>> {
    let json = raw;
    if matches!(json, "true" | "false") {
        return Some(Cow::Borrowed(json));
    }
    let whole: i64 = json.parse().ok()?;
    (-whole_max - 1..=whole_max).contains(&whole).then(|| Cow::Owned(whole.to_string()))
}

/// Adds a member to the JSON object `object`, which has no closing bracket yet.
pub(super) fn add_extension(object: &mut String, name: &str, json: &str) {
    object.push(if object.is_empty() { '{' } else { ',' });
    object.push('"');
    object.push_str(name);
    object.push_str("\":");
    object.push_str(json);
}

struct MembersVisitor<'m, 'a>(&'m mut Members<'a>);

impl<'a> Visitor<'a> for MembersVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            if let Err(error) = self.0.set(name, value.get()) {
                self.0.error = Some(error);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// The name of a member. It is borrowed from the JSON text unless it has escapes.
#[derive(Debug)]
pub struct Name<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

pub(super) fn required<'a>(
    name: &'static str,
    raw: Option<&'a str>,
) -> Result<Cow<'a, str>, EventError> {
    let value = string(name, raw.ok_or(EventError::Missing(name))?)?;
    if value.is_empty() { Err(EventError::Empty(name.into())) } else { Ok(value) }
}

pub(super) fn optional<'a>(
    name: &str,
    raw: Option<&'a str>,
    tolerant: bool,
) -> Result<Cow<'a, str>, EventError> {
    match raw {
        None => Ok(Cow::Borrowed("")),
        Some(raw) => match string(name, raw)? {
            value if value.is_empty() && !tolerant => Err(EventError::Empty(name.into())),
            value => Ok(value),
        },
    }
}

pub(super) fn string<'a>(name: &str, raw: &'a str) -> Result<Cow<'a, str>, EventError> {
    let json = raw;
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(wrong_type(name, json, "a string"));
    };
    if inner.contains('\\') {
        let text: String = serde_json::from_str(json)
            .map_err(|_| wrong_type(name, json, "a string of whole Unicode characters"))?;
        Ok(Cow::Owned(text))
    } else {
        Ok(Cow::Borrowed(inner))
    }
}

fn wrong_type(name: &str, json: &str, expected: &'static str) -> EventError {
    EventError::Type { name: quote(name), value: quote(json), expected }
}

/// Returns the bytes of the payload: JSON unchanged, decoded base64, or, if the media type is not
/// JSON, the content of a string.
pub(super) fn payload<'a>(
    m: &Members<'a>,
    datacontenttype: &str,
    depth_max: usize,
) -> Result<Cow<'a, [u8]>, EventError> {
    match (m.data, m.data_base64) {
        (Some(_), Some(_)) => Err(EventError::DataTwice),
        (None, None) => Ok(Cow::Borrowed(&[])),
        (Some(data), None) => {
            if data.starts_with('"') && !is_json(datacontenttype) {
                return Ok(match string("data", data)? {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                });
            }
            Ok(Cow::Borrowed(data.as_bytes()))
        }
        (None, Some(encoded)) => {
            let text = string("data_base64", encoded)?;
            let bytes = BASE64_STANDARD
                .decode(text.as_bytes())
                .map_err(|error| EventError::Base64(error.to_string().to_lowercase()))?;
            if !datacontenttype.is_empty() && is_json(datacontenttype) {
                check_json(&bytes, depth_max)?;
            }
            Ok(Cow::Owned(bytes))
        }
    }
}
