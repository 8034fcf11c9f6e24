//! Binary mode: attributes in `ce-*` headers, the payload as the body.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lantern_core::{EventRef, Events, Timestamp};

use super::error::quote;
use super::read::{add_extension, check_json, check_name, check_text};
use super::{ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, Reader, is_json};

/// What the headers of attributes begin with.
const PREFIX: &str = "ce-";

impl Reader {
    /// Reads one event in binary mode. An event without a time gets
    /// [`Timestamp::MIN`].
    ///
    /// # Errors
    /// [`EventError`]; nothing was added to `into` then.
    pub fn binary(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let mut attributes = attributes(headers)?;
        let bytes = body.len() + attributes.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        self.check_size(bytes)?;
        let datacontenttype = match headers.get(CONTENT_TYPE) {
            Some(value) => {
                let text = String::from_utf8_lossy(value.as_bytes());
                value.to_str().map_err(|_| header_error("content-type", &text))?
            }
            // Without a type, bytes must not pass for JSON that nobody checked.
            None if body.is_empty() => "",
            None => "application/octet-stream",
        };
        if is_json(datacontenttype) && !body.is_empty() {
            check_json(body, self.limits().json_depth_max)?;
        }

        let mut take = |name: &str| attributes.remove(name);
        let required = |name, value: Option<String>| match value {
            None => Err(EventError::Missing(name)),
            Some(value) if value.is_empty() => Err(EventError::Empty(name.into())),
            Some(value) => Ok(value),
        };
        let specversion = required("specversion", take("specversion"))?;
        if specversion != "1.0" {
            return Err(EventError::SpecVersion(quote(&specversion)));
        }
        let id = required("id", take("id"))?;
        let source = required("source", take("source"))?;
        let kind = required("type", take("type"))?;
        let [subject, tenant, dataschema] =
            ["subject", "tenant", "dataschema"].map(|name| take(name).unwrap_or_default());
        let time = take("time");
        let event = EventRef {
            id: &id,
            source: &source,
            kind: &kind,
            subject: &subject,
            time: Timestamp::MIN,
            tenant: &tenant,
            dataschema: &dataschema,
            datacontenttype,
            extensions: &extensions(&attributes)?,
            data: body,
        };
        self.add(event, time.as_deref(), into)
    }
}

fn attributes(headers: &HeaderMap) -> Result<BTreeMap<String, String>, EventError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        check_name(attribute)?;
        if attribute == "datacontenttype" {
            return Err(EventError::Name("ce-datacontenttype (use `content-type`)".into()));
        }
        // Written in structured mode it would stand beside the payload.
        if attribute == "data" {
            return Err(EventError::Name("ce-data (the body is the data)".into()));
        }
        let decoded = percent_decode(value.as_bytes()).ok_or_else(|| {
            header_error(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))
        })?;
        if attributes.insert(attribute.to_owned(), decoded).is_some() {
            return Err(EventError::Twice(attribute.to_owned()));
        }
    }
    Ok(attributes)
}

/// In headers every extension attribute is a string.
fn extensions(attributes: &BTreeMap<String, String>) -> Result<String, EventError> {
    if attributes.len() > EXTENSIONS_MAX {
        return Err(EventError::TooManyExtensions { max: EXTENSIONS_MAX });
    }
    let mut object = String::new();
    for (name, value) in attributes {
        check_text(name, value, ATTRIBUTE_BYTES_MAX)?;
        let json = serde_json::to_string(value).expect("a string always encodes");
        add_extension(&mut object, name, &json);
    }
    if !object.is_empty() {
        object.push('}');
    }
    Ok(object)
}

fn header_error(name: &str, value: &str) -> EventError {
    EventError::Header { name: quote(name), value: quote(value) }
}

/// Percent-decoded UTF-8; also without the quotes that an earlier version of
/// the binding put around values.
fn percent_decode(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    };
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let digit = |d: u8| char::from(d).to_digit(16);
            let byte = digit(digits[0])? * 16 + digit(digits[1])?;
            decoded.push(u8::try_from(byte).ok()?);
            rest = tail;
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok()
}
