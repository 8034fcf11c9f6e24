//! Reads structured mode, batches and lines.
//!
//! One pass takes the members of an event as raw slices of the input; only strings with
//! escapes are copied before they go into their columns.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern_core::{
    EventRef, Events, HOST_EXTENSION_PREFIX, Timestamp, is_host_source, is_host_type,
};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::quote;
use super::syntax::{is_media_type, is_uri, is_uri_reference, lone_surrogate};
use super::time::not_a_time;
use super::{
    ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, EventLimits, HOST_EXTENSIONS_BYTES,
    HOST_EXTENSIONS_MAX, NAME_CHARS_MAX, TYPE_BYTES_MAX, UNTYPED, is_json, read_time,
};

/// Reads events into columns and checks them.
#[derive(Debug)]
pub struct Reader {
    limits: EventLimits,
    /// The latest time that an event may have.
    time_max: Timestamp,
    /// The time of an event that has none.
    time_default: Timestamp,
    /// Whether the host's own types, sources and extension attributes are accepted.
    host_events: bool,
    /// Whether this reads a log, whose records cannot be sent again.
    pub(super) tolerant: bool,
    /// Extension attributes that were left out since the last [`Self::take_ignored`].
    pub(super) ignored: u64,
    /// The extension attributes of the event being read, as one JSON object.
    pub(super) extensions: String,
}

/// The error in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: EventError,
}

impl Reader {
    /// A reader for which `now` is the current time.
    #[must_use]
    pub fn new(limits: EventLimits, now: Timestamp) -> Self {
        let ahead = limits.time_ahead_s_max.saturating_mul(1_000_000);
        let time_max = now.0.saturating_add(i64::try_from(ahead).unwrap_or(i64::MAX));
        Self {
            limits,
            time_max: Timestamp(time_max),
            time_default: Timestamp::MIN,
            host_events: false,
            tolerant: false,
            ignored: 0,
            extensions: String::new(),
        }
    }

    /// A reader of a log's records: the same bytes always give the same result, so
    /// neither the current time nor a setting has an influence.
    #[must_use]
    pub fn of_log() -> Self {
        let limits = EventLimits { event_bytes_max: usize::MAX, ..EventLimits::default() };
        Self { time_max: Timestamp(i64::MAX), tolerant: true, ..Self::new(limits, Timestamp(0)) }
    }

    /// Sets whether the types and sources of the host are accepted (otherwise refused),
    /// and its extension attributes kept (otherwise stripped). The default is no.
    pub fn set_host_events(&mut self, taken: bool) {
        self.host_events = taken;
    }

    /// How many extension attributes were left out since the last call because they are
    /// not allowed in an event. Only a reader of a log leaves any out.
    pub fn take_ignored(&mut self) -> u64 {
        std::mem::take(&mut self.ignored)
    }

    /// Whether extension attribute `name` is stripped.
    pub(super) fn strips(&self, name: &str) -> bool {
        !self.host_events && name.starts_with(HOST_EXTENSION_PREFIX)
    }

    /// Sets the time for events without one, instead of [`Timestamp::MIN`].
    pub fn set_time_default(&mut self, time: Timestamp) {
        self.time_default = time;
    }

    /// The limits that it enforces.
    #[must_use]
    pub fn limits(&self) -> &EventLimits {
        &self.limits
    }

    /// Reads one event in structured mode. An event without a time gets
    /// [`Timestamp::MIN`].
    ///
    /// [`EventError`]; in this case nothing was added to `into`.
    /// [`EventError`]; nothing was added to `into` then.
    pub fn structured(&mut self, json: &[u8], into: &mut Events) -> Result<(), EventError> {
        self.check_written(json.len())?;
        // A byte order mark is not part of the text.
        let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
        self.structured_text(utf8(json)?, into)
    }

    /// Reads a JSON array of events. `bad` is called for each invalid one with its
    /// index in the array; the others are added.
    ///
    /// # Errors
    /// [`EventError`] if it is not an array; in this case nothing was added.
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
            let read =
                self.check_written(json.len()).and_then(|()| self.structured_text(json, into));
            if let Err(error) = read {
                bad(place, error);
            }
        }
        Ok(())
    }

    /// Reads lines, one event each; empty lines are skipped. `first` is the number of
    /// the first line. `bad` is called for each invalid one and returns whether to
    /// continue; the others are added. Returns how many lines were read.
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
        // If possible, the block is checked as a whole and split as text: that is
        // several times faster than byte by byte.
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
        self.check_written(json.len())?;
        self.structured_text(json, into)
    }

    fn structured_text(&mut self, text: &str, into: &mut Events) -> Result<(), EventError> {
        // The event itself is one level, so that its data may be as deep as in binary
        // mode.
        let max = self.limits.json_depth_max;
        check_depth(text, max.saturating_add(1)).map_err(|_| EventError::TooDeep { max })?;
        if self.is_strict() {
            check_unicode(text)?;
        }
        let mut members = Members { tolerant: self.tolerant, ..Members::default() };
        let read = members.read(text);
        self.ignored += members.ignored;
        let mut extensions = std::mem::take(&mut self.extensions);
        extensions.clear();
        for (name, json) in &members.extensions {
            if !self.strips(name) && (name != UNTYPED || !self.is_import()) {
                add_extension(&mut extensions, name, json);
            }
        }
        if !extensions.is_empty() {
            extensions.push('}');
        }
        let read = read.and_then(|()| self.push(&members, &extensions, into));
        self.extensions = extensions;
        read
    }

    fn push(&self, m: &Members<'_>, extensions: &str, into: &mut Events) -> Result<(), EventError> {
        let optional = |name, raw| optional(name, raw, self.tolerant);
        let specversion = required("specversion", m.specversion)?;
        if specversion != "1.0" {
            return Err(EventError::SpecVersion(quote(&specversion)));
        }
        let id = match m.id.filter(|_| self.tolerant).and_then(|id| scalar(id, i64::MAX)) {
            Some(id) => id,
            None => required("id", m.id)?,
        };
        let source = required("source", m.source)?;
        let kind = required("type", m.kind)?;
        let subject = match m.subject.filter(|_| self.tolerant).and_then(|s| scalar(s, i64::MAX)) {
            Some(subject) => subject,
            None => optional("subject", m.subject)?,
        };
        // For CloudEvents it is an extension attribute, which may be an integer or a
        // boolean; in headers those are text.
        let whole_max = if self.tolerant { i64::MAX } else { i64::from(i32::MAX) };
        let tenant = match m.tenant.and_then(|tenant| scalar(tenant, whole_max)) {
            Some(tenant) => tenant,
            None => optional("tenant", m.tenant)?,
        };
        let dataschema = optional("dataschema", m.dataschema)?;
        let datacontenttype = optional("datacontenttype", m.datacontenttype)?;
        let time = match m.time {
            Some(raw) if self.tolerant && raw.get() == "\"\"" => None,
            Some(raw) if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                return Err(not_a_time(raw.get()));
            }
            Some(raw) => Some(string("time", raw)?),
            None => None,
        };
        let payload = payload(m, &datacontenttype, self.limits.json_depth_max)?;
        if self.is_strict() && m.data_base64.is_some() && is_json(&datacontenttype) {
            check_unicode(&String::from_utf8_lossy(&payload))?;
        }
        let event = EventRef {
            id: &id,
            source: &source,
            kind: &kind,
            subject: &subject,
            time: Timestamp::MIN,
            tenant: &tenant,
            dataschema: &dataschema,
            // A payload of bytes without a type must not count as JSON.
            datacontenttype: match m.data_base64 {
                Some(_) if datacontenttype.is_empty() => "application/octet-stream",
                Some(_) if self.is_import() && m.has_extension(UNTYPED) => "",
                _ => &datacontenttype,
            },
            extensions,
            data: &payload,
        };
        self.add(event, time.as_deref(), into)
    }

    /// Checks an event that was assembled elsewhere, except its payload, and adds it.
    /// `time` is its time as text, if it has one in this form.
    ///
    /// # Errors
    /// [`EventError`]; in this case nothing was added to `into`.
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
        if self.is_strict() {
            check_syntax(&event)?;
        }
        if !self.host_events {
            check_reserved(&event)?;
        }
        let host_bytes = if self.is_import() { HOST_EXTENSIONS_BYTES } else { 0 };
        self.check_size(event_bytes(&event).saturating_sub(host_bytes))?;
        if let Some(text) = time {
            event.time = read_time(text)?;
            if event.time > self.time_max {
                let max_s = self.limits.time_ahead_s_max;
                return Err(EventError::TimeAhead { value: quote(text), max_s });
            }
        } else if event.time == Timestamp::MIN {
            event.time = self.time_default;
        }
        if event.time != Timestamp::MIN && !event.time.is_in_range() {
            return Err(EventError::TimeRange(format!("{} us since 1970", event.time)));
        }
        if into.push(&event) { Ok(()) } else { Err(EventError::TooManyTypes) }
    }

    /// Whether to check syntax that records of a topic may violate: no for records of a
    /// log and for imports from one.
    pub(super) fn is_strict(&self) -> bool {
        !self.tolerant && !self.host_events
    }

    /// Whether it reads the output of [`write_exact`](super::write_exact).
    fn is_import(&self) -> bool {
        !self.tolerant && self.host_events
    }

    /// Refuses JSON that is larger than any event within the limit.
    fn check_written(&self, bytes: usize) -> Result<(), EventError> {
        let max = self.limits.event_bytes_max;
        let too_large = bytes > self.limits.written_bytes_max();
        if too_large { Err(EventError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    pub(super) fn check_size(&self, bytes: usize) -> Result<(), EventError> {
        let max = self.limits.event_bytes_max;
        if bytes > max { Err(EventError::TooLarge { bytes, max }) } else { Ok(()) }
    }
}

fn check_reserved(event: &EventRef<'_>) -> Result<(), EventError> {
    if is_host_type(event.kind) {
        return Err(EventError::Reserved {
            name: "type",
            value: quote(event.kind),
            rule: "types that begin with `lantern.` are reserved for the server",
        });
    }
    if is_host_source(event.source) {
        return Err(EventError::Reserved {
            name: "source",
            value: quote(event.source),
            rule: "`lantern` and `lantern/…` are the sources of the server's own events",
        });
    }
    Ok(())
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
    /// Name and JSON of the extension attributes, each checked.
    extensions: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whether a disallowed extension attribute is left out.
    tolerant: bool,
    ignored: u64,
    error: Option<EventError>,
}

impl<'a> Members<'a> {
    fn has_extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|(known, _)| known == name)
    }

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
        Ok(())
    }

    fn set(&mut self, name: Cow<'a, str>, value: &'a RawValue) -> Result<(), EventError> {
        // An attribute that is null counts as absent, whatever its name.
        if value.get() == "null" && &*name != "data" {
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
            Some(known) if known.get() != value.get() => Err(EventError::Twice(quote(&name))),
            _ => {
                *member = Some(value);
                Ok(())
            }
        }
    }

    fn extend(&mut self, name: Cow<'a, str>, value: &'a RawValue) -> Result<(), EventError> {
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
            (Ok(json), Some(place)) if self.extensions[place].1 == json => {}
            (Ok(_), Some(_)) if !self.tolerant => return Err(EventError::Twice(quote(&name))),
            (Ok(json), Some(place)) => {
                self.extensions[place].1 = json;
                self.ignored += 1;
            }
        }
        Ok(())
    }
}

/// Whether an event with extension attributes `names` is full, so that `name` cannot be
/// added.
pub(super) fn is_full<'n>(names: impl ExactSizeIterator<Item = &'n str>, name: &str) -> bool {
    if names.len() < HOST_EXTENSIONS_MAX {
        return false;
    }
    let of_host = |name: &str| name.starts_with(HOST_EXTENSION_PREFIX);
    let max = if of_host(name) { HOST_EXTENSIONS_MAX } else { EXTENSIONS_MAX };
    names.filter(|known| of_host(known) == of_host(name)).count() >= max
}

/// The JSON of an extension attribute. In a log, a number that is not an integer of
/// CloudEvents becomes a text with the same characters.
fn extension<'a>(
    name: &str,
    value: &'a RawValue,
    tolerant: bool,
) -> Result<Cow<'a, str>, EventError> {
    let json = value.get();
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

/// An integer up to `whole_max` or a boolean in its canonical form.
fn scalar(raw: &RawValue, whole_max: i64) -> Option<Cow<'_, str>> {
    let json = raw.get();
    if matches!(json, "true" | "false") {
        return Some(Cow::Borrowed(json));
    }
    let whole: i64 = json.parse().ok()?;
    (-whole_max - 1..=whole_max).contains(&whole).then(|| Cow::Owned(whole.to_string()))
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

/// A member's name, borrowed if it has no escapes.
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

fn optional<'a>(
    name: &str,
    raw: Option<&'a RawValue>,
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

/// The payload's bytes: JSON unchanged, the content of a string if the media type is
/// not JSON, or decoded base64.
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

/// The size of an event that the limit applies to: its payload and its attributes,
/// however they were sent.
pub(super) fn event_bytes(event: &EventRef<'_>) -> usize {
    let attributes = [
        event.id,
        event.source,
        event.kind,
        event.subject,
        event.tenant,
        event.dataschema,
        event.datacontenttype,
        event.extensions,
    ];
    event.data.len() + attributes.iter().map(|text| text.len()).sum::<usize>()
}

/// Checks that `bytes` are one JSON value, not nested deeper than `depth_max`.
///
/// # Errors
/// [`EventError`] with the reason if they are not.
pub fn check_json(bytes: &[u8], depth_max: usize) -> Result<(), EventError> {
    let text = utf8(bytes)?;
    check_depth(text, depth_max)?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(EventError::DataNotJson(error.to_string())),
    }
}

/// Refuses escapes of half a character: accepted text must be readable by every client.
pub(super) fn check_unicode(json: &str) -> Result<(), EventError> {
    match lone_surrogate(json) {
        Some(escape) => Err(EventError::HalfCharacter(escape.to_owned())),
        None => Ok(()),
    }
}

/// Checks the attributes that are URIs and media types.
fn check_syntax(event: &EventRef<'_>) -> Result<(), EventError> {
    let wrong = |name: &str, value: &str, expected| {
        Err(EventError::Type { name: name.to_owned(), value: quote(value), expected })
    };
    if !is_uri_reference(event.source) {
        return wrong("source", event.source, "a URI reference (RFC 3986), percent-encoded");
    }
    if !event.dataschema.is_empty() && !is_uri(event.dataschema) {
        return wrong("dataschema", event.dataschema, "a URI (RFC 3986), percent-encoded");
    }
    if !event.datacontenttype.is_empty() && !is_media_type(event.datacontenttype) {
        return wrong(
            "datacontenttype",
            event.datacontenttype,
            "a media type, such as `text/plain`",
        );
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), EventError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    if fits { Ok(()) } else { Err(EventError::Name(quote(name))) }
}

/// Checks the length of a text attribute, and that it contains no control character.
///
/// # Errors
/// [`EventError`] that names the attribute.
pub fn check_text(name: &str, value: &str, max: usize) -> Result<(), EventError> {
    if value.len() > max {
        return Err(EventError::TooLong { name: quote(name), bytes: value.len(), max });
    }
    // Test all bytes first without a branch on each: nearly every value is plain ASCII.
    // Without this check a tenant could contain U+0000, which separates tenant and key.
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

/// Refuses nesting deeper than `max`. Most texts have fewer opening brackets than that,
/// so counting them is enough.
fn check_depth(text: &str, max: usize) -> Result<(), EventError> {
    // `[` and `{` differ in one bit. The counts are bytes, over pieces so short that a
    // byte cannot overflow; then the compiler can process 16 or more at a time.
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
