//! Reads structured mode, batches and lines.
//!
//! The members of an event are taken as raw slices of the input in one pass;
//! only strings with escapes are copied before they go into their columns.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern_core::{EventRef, Events, Timestamp};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::quote;
use super::{
    ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, EventLimits, NAME_CHARS_MAX, RESERVED_PREFIX,
    TYPE_BYTES_MAX, is_json, parse_time,
};

/// Reads events into columns and checks them.
#[derive(Debug)]
pub struct Reader {
    limits: EventLimits,
    /// The latest time an event may have.
    time_max: Timestamp,
    /// The time of an event that has none.
    time_default: Timestamp,
    /// Whether the host's own types are taken.
    reserved: bool,
    /// The extension attributes of the event being read, as one JSON object.
    pub(super) extensions: String,
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: EventError,
}

impl Reader {
    /// A reader that takes `now` as the time of day.
    #[must_use]
    pub fn new(limits: EventLimits, now: Timestamp) -> Self {
        let ahead = limits.time_ahead_s_max.saturating_mul(1_000_000);
        let time_max = now.0.saturating_add(i64::try_from(ahead).unwrap_or(i64::MAX));
        Self {
            limits,
            time_max: Timestamp(time_max),
            time_default: Timestamp::MIN,
            reserved: false,
            extensions: String::new(),
        }
    }

    /// A reader of what stands in a log: the same bytes must always read the
    /// same, so that no time of day decides over them, nor a setting; and the
    /// host's own types belong there.
    #[must_use]
    pub fn of_log() -> Self {
        let limits = EventLimits { event_bytes_max: usize::MAX, ..EventLimits::default() };
        Self { time_max: Timestamp(i64::MAX), reserved: true, ..Self::new(limits, Timestamp(0)) }
    }

    /// Gives events without a time `time` from now on, and not
    /// [`Timestamp::MIN`].
    pub fn set_time_default(&mut self, time: Timestamp) {
        self.time_default = time;
    }

    /// The limits it keeps.
    #[must_use]
    pub fn limits(&self) -> &EventLimits {
        &self.limits
    }

    /// Reads one event in structured mode. An event without a time gets
    /// [`Timestamp::MIN`].
    ///
    /// # Errors
    /// [`EventError`]; nothing was added to `into` then.
    pub fn structured(&mut self, json: &[u8], into: &mut Events) -> Result<(), EventError> {
        self.check_size(json.len())?;
        self.structured_text(utf8(json)?, into)
    }

    /// Reads a JSON array of events. Bad ones are told by `bad`, with their
    /// place in the array; the others are added.
    ///
    /// # Errors
    /// [`EventError`] where it is no array at all; nothing was added then.
    pub fn batch(
        &mut self,
        json: &[u8],
        into: &mut Events,
        mut bad: impl FnMut(usize, EventError),
    ) -> Result<(), EventError> {
        let text = utf8(json)?;
        let shape = |_| match text.trim_start() {
            t if t.starts_with('[') => not_json(text),
            t => EventError::Shape { expected: "a JSON array of events", value: quote(t) },
        };
        let members: Vec<&RawValue> = serde_json::from_str(text).map_err(shape)?;
        for (place, member) in members.into_iter().enumerate() {
            let json = member.get();
            let read = self.check_size(json.len()).and_then(|()| self.structured_text(json, into));
            if let Err(error) = read {
                bad(place, error);
            }
        }
        Ok(())
    }

    /// Reads lines, one event each; empty lines are passed over. `first` is the
    /// number of the first line. Bad ones are told by `bad`, which says whether
    /// to go on; the others are added. Returns how many lines were read.
    pub fn lines(
        &mut self,
        block: &[u8],
        first: u64,
        into: &mut Events,
        mut bad: impl FnMut(LineError) -> bool,
    ) -> u64 {
        let mut line = first;
        let block = block.strip_suffix(b"\n").unwrap_or(block);
        let mut read = |json: Result<&str, &[u8]>, reader: &mut Self| {
            let read = match json {
                Ok(json) => reader.line(json, into),
                Err(bytes) => utf8(bytes).and_then(|json| reader.line(json, into)),
            };
            line += 1;
            read.map_or_else(|error| bad(LineError { line: line - 1, error }), |()| true)
        };
        // Checked whole and cut as text where possible: that is several times
        // faster than byte by byte.
        match std::str::from_utf8(block) {
            Ok(text) => text.split('\n').all(|json| read(Ok(json), self)),
            Err(_) => block.split(|&b| b == b'\n').all(|json| read(Err(json), self)),
        };
        line - first
    }

    fn line(&mut self, json: &str, into: &mut Events) -> Result<(), EventError> {
        let json = json.trim_ascii();
        if json.is_empty() {
            return Ok(());
        }
        self.check_size(json.len())?;
        self.structured_text(json, into)
    }

    fn structured_text(&mut self, text: &str, into: &mut Events) -> Result<(), EventError> {
        check_depth(text, self.limits.json_depth_max)?;
        let mut extensions = std::mem::take(&mut self.extensions);
        extensions.clear();
        let mut members = Members { extensions, ..Members::default() };
        let read = members.read(text).and_then(|()| self.push(&members, into));
        self.extensions = members.extensions;
        read
    }

    fn push(&self, m: &Members<'_>, into: &mut Events) -> Result<(), EventError> {
        let specversion = required("specversion", m.specversion)?;
        if specversion != "1.0" {
            return Err(EventError::SpecVersion(quote(&specversion)));
        }
        let id = required("id", m.id)?;
        let source = required("source", m.source)?;
        let kind = required("type", m.kind)?;
        let subject = optional("subject", m.subject)?;
        let tenant = optional("tenant", m.tenant)?;
        let dataschema = optional("dataschema", m.dataschema)?;
        let datacontenttype = optional("datacontenttype", m.datacontenttype)?;
        let time = match m.time {
            Some(raw) => Some(string("time", raw)?),
            None => None,
        };
        let payload = payload(m, &datacontenttype, self.limits.json_depth_max)?;
        let event = EventRef {
            id: &id,
            source: &source,
            kind: &kind,
            subject: &subject,
            time: Timestamp::MIN,
            tenant: &tenant,
            dataschema: &dataschema,
            // A payload of bytes without a type must not pass for JSON.
            datacontenttype: match m.data_base64 {
                Some(_) if datacontenttype.is_empty() => "application/octet-stream",
                _ => &datacontenttype,
            },
            extensions: &m.extensions,
            data: &payload,
        };
        self.add(event, time.as_deref(), into)
    }

    /// Checks an event put together elsewhere, all but its payload, and adds it.
    /// `time` is its time as text, where it has one that way.
    ///
    /// # Errors
    /// [`EventError`]; nothing was added to `into` then.
    pub fn add(
        &self,
        mut event: EventRef<'_>,
        time: Option<&str>,
        into: &mut Events,
    ) -> Result<(), EventError> {
        for (name, value, max) in [
            ("id", event.id, ATTRIBUTE_BYTES_MAX),
            ("source", event.source, ATTRIBUTE_BYTES_MAX),
            ("type", event.kind, TYPE_BYTES_MAX),
            ("subject", event.subject, ATTRIBUTE_BYTES_MAX),
            ("tenant", event.tenant, ATTRIBUTE_BYTES_MAX),
            ("dataschema", event.dataschema, ATTRIBUTE_BYTES_MAX),
            ("datacontenttype", event.datacontenttype, ATTRIBUTE_BYTES_MAX),
        ] {
            check_text(name, value, max)?;
        }
        if !self.reserved && event.kind.starts_with(RESERVED_PREFIX) {
            return Err(EventError::Reserved(quote(event.kind)));
        }
        if event.time == Timestamp::MIN {
            event.time = self.time_default;
        }
        if let Some(text) = time {
            event.time = parse_time(text).ok_or_else(|| EventError::Time(quote(text)))?;
            if event.time > self.time_max {
                let max_s = self.limits.time_ahead_s_max;
                return Err(EventError::TimeAhead { value: quote(text), max_s });
            }
        }
        if into.push(&event) { Ok(()) } else { Err(EventError::TooManyTypes) }
    }

    pub(super) fn check_size(&self, bytes: usize) -> Result<(), EventError> {
        let max = self.limits.event_bytes_max;
        if bytes > max { Err(EventError::TooLarge { bytes, max }) } else { Ok(()) }
    }
}

/// The members of an event in structured mode, raw.
#[derive(Default)]
struct Members<'a> {
    specversion: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    subject: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    tenant: Option<&'a RawValue>,
    dataschema: Option<&'a RawValue>,
    datacontenttype: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    data_base64: Option<&'a RawValue>,
    extensions: String,
    names: Vec<Cow<'a, str>>,
    error: Option<EventError>,
}

impl<'a> Members<'a> {
    fn read(&mut self, text: &'a str) -> Result<(), EventError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(MembersVisitor(&mut *self)).and_then(|()| json.end());
        if let Err(error) = read {
            return Err(self.error.take().unwrap_or_else(|| {
                let start = text.trim_start();
                if start.starts_with('{') || start.is_empty() {
                    EventError::NotJson(error.to_string())
                } else if serde_json::from_str::<&RawValue>(text).is_ok() {
                    EventError::Shape { expected: "a JSON object", value: quote(start) }
                } else {
                    not_json(text)
                }
            }));
        }
        if !self.extensions.is_empty() {
            self.extensions.push('}');
        }
        Ok(())
    }

    fn set(&mut self, name: Cow<'a, str>, value: &'a RawValue) -> Result<(), EventError> {
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
        if member.is_some() {
            return Err(EventError::Twice(name.into_owned()));
        }
        // An attribute that is null is one that is not there.
        if value.get() != "null" || &*name == "data" {
            *member = Some(value);
        }
        Ok(())
    }

    fn extend(&mut self, name: Cow<'a, str>, value: &'a RawValue) -> Result<(), EventError> {
        check_name(&name)?;
        if self.names.contains(&name) {
            return Err(EventError::Twice(name.into_owned()));
        }
        if self.names.len() >= EXTENSIONS_MAX {
            return Err(EventError::TooManyExtensions { max: EXTENSIONS_MAX });
        }
        let json = value.get();
        match json.as_bytes().first() {
            Some(b'"') => check_text(&name, &string(&name, value)?, ATTRIBUTE_BYTES_MAX)?,
            Some(b't' | b'f') => (),
            Some(b'n') => return Ok(()),
            _ if name != "traceparent" && json.parse::<i32>().is_ok() => (),
            _ => return Err(wrong_type(&name, json, "a string, a boolean or a 32-bit integer")),
        }
        add_extension(&mut self.extensions, &name, json);
        self.names.push(name);
        Ok(())
    }
}

/// Adds a member to a JSON object that is not closed yet.
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
            if let Err(error) = self.0.set(name, value) {
                self.0.error = Some(error);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed where it has no escapes.
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

fn required<'a>(name: &'static str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, EventError> {
    let value = string(name, raw.ok_or(EventError::Missing(name))?)?;
    if value.is_empty() { Err(EventError::Empty(name.into())) } else { Ok(value) }
}

fn optional<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, EventError> {
    match raw {
        None => Ok(Cow::Borrowed("")),
        Some(raw) => match string(name, raw)? {
            value if value.is_empty() => Err(EventError::Empty(name.into())),
            value => Ok(value),
        },
    }
}

fn string<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    let json = raw.get();
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

/// The payload's bytes: JSON as it came, a string's content where the media
/// type is not JSON, or decoded base64.
fn payload<'a>(
    m: &Members<'a>,
    datacontenttype: &str,
    depth_max: usize,
) -> Result<Cow<'a, [u8]>, EventError> {
    match (m.data, m.data_base64) {
        (Some(_), Some(_)) => Err(EventError::DataTwice),
        (None, None) => Ok(Cow::Borrowed(&[])),
        (Some(data), None) => {
            if data.get().starts_with('"') && !is_json(datacontenttype) {
                return Ok(match string("data", data)? {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                });
            }
            Ok(Cow::Borrowed(data.get().as_bytes()))
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

/// Checks that `bytes` are one JSON value, not nested deeper than `depth_max`.
///
/// # Errors
/// [`EventError`] that says what they are instead.
pub fn check_json(bytes: &[u8], depth_max: usize) -> Result<(), EventError> {
    let text = utf8(bytes)?;
    check_depth(text, depth_max)?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(EventError::DataNotJson(error.to_string())),
    }
}

pub(super) fn check_name(name: &str) -> Result<(), EventError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    if fits { Ok(()) } else { Err(EventError::Name(quote(name))) }
}

/// Checks the length of a text attribute, and that no control character is in it.
///
/// # Errors
/// [`EventError`] that names the attribute.
pub fn check_text(name: &str, value: &str, max: usize) -> Result<(), EventError> {
    if value.len() > max {
        return Err(EventError::TooLong { name: quote(name), bytes: value.len(), max });
    }
    // Bytes first, without a branch on each: nearly every value is plain ASCII.
    // Without the check, U+0000 could stand in a tenant, where it parts tenant
    // and key.
    let suspicious = value.bytes().fold(false, |found, b| found | !(0x20..0x7F).contains(&b));
    if suspicious && value.chars().any(char::is_control) {
        return Err(EventError::Control { name: quote(name), value: quote(value) });
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, EventError> {
    std::str::from_utf8(bytes).map_err(|error| EventError::NotUtf8 { at: error.valid_up_to() })
}

fn not_json(text: &str) -> EventError {
    match serde_json::from_str::<&RawValue>(text) {
        Err(error) => EventError::NotJson(error.to_string()),
        Ok(_) => EventError::NotJson("an element cannot be read".into()),
    }
}

/// Refuses nesting deeper than `max`. Text with fewer opening brackets than
/// that, which is nearly all, is told by counting alone.
fn check_depth(text: &str, max: usize) -> Result<(), EventError> {
    // `[` and `{` differ in one bit. Counting in bytes, in pieces that cannot
    // overflow one, lets the compiler do 16 or more at a time.
    let opening = |piece: &[u8]| piece.iter().fold(0, |n, b| n + u8::from(b | 0x20 == b'{'));
    let open: usize = text.as_bytes().chunks(255).map(|piece| usize::from(opening(piece))).sum();
    if open <= max {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return Err(EventError::TooDeep { max });
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    Ok(())
}
