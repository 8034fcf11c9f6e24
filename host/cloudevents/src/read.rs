//! Reads events in structured mode, in batches and in lines.
//!
//! One pass takes the members of an event as slices of the input. Only strings with escapes are
//! copied before they go into their columns.

use lantern_core::{EventRef, Events, HOST_EXTENSION_PREFIX, Timestamp};
use serde_json::value::RawValue;

use super::checks::{
    check_depth, check_reserved, check_syntax, check_text, check_unicode, event_bytes, not_json,
    utf8,
};
use super::error::quote;
use super::members::{Members, add_extension, optional, payload, required, scalar, string};
use super::time::not_a_time;
use super::{
    ATTRIBUTE_BYTES_MAX, EventError, EventLimits, HOST_EXTENSIONS_BYTES, TYPE_BYTES_MAX, UNTYPED,
    is_json, json_scan, read_time,
};

/// Reads events into columns and checks them.
#[derive(Debug)]
pub struct Reader {
    limits: EventLimits,
    /// The latest time that an event may have.
    time_max: Timestamp,
    /// The time that an event without a time gets.
    time_default: Timestamp,
    /// Whether the host's own types, sources and extension attributes are accepted.
    host_events: bool,
    /// Whether this reader reads records of a log. Such records cannot be sent again, so some
    /// faults in them are accepted.
    pub(super) tolerant: bool,
    /// The number of extension attributes that were left out since the last [`Self::take_ignored`].
    pub(super) ignored: u64,
    /// The extension attributes of the event that is being read, as one JSON object.
    pub(super) extensions: String,
}

/// An error in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, counted from 1.
    pub line: u64,
    /// What is wrong with the line.
    pub error: EventError,
}

impl Reader {
    /// Creates a reader. `now` is the current time.
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

    /// Creates a reader for records of a log. The same bytes always give the same result: it
    /// depends neither on the current time nor on a setting.
    #[must_use]
    pub fn of_log() -> Self {
        let limits = EventLimits { event_bytes_max: usize::MAX, ..EventLimits::default() };
        Self { time_max: Timestamp(i64::MAX), tolerant: true, ..Self::new(limits, Timestamp(0)) }
    }

    /// Sets whether events of the host are accepted.
    ///
    /// * With `true`, reserved types and sources are accepted, and the host's extension attributes
    ///   are kept.
    /// * With `false`, the default, events with reserved types or sources are refused, and the
    ///   host's extension attributes are removed.
    pub fn set_host_events(&mut self, taken: bool) {
        self.host_events = taken;
    }

    /// Returns how many extension attributes were left out since the last call, because an event
    /// may not have them. Only a reader for records of a log leaves attributes out.
    pub fn take_ignored(&mut self) -> u64 {
        std::mem::take(&mut self.ignored)
    }

    /// Returns whether the reader removes the extension attribute `name`.
    pub(super) fn strips(&self, name: &str) -> bool {
        !self.host_events && name.starts_with(HOST_EXTENSION_PREFIX)
    }

    /// Sets the time that events without a time get. By default it is [`Timestamp::MIN`].
    pub fn set_time_default(&mut self, time: Timestamp) {
        self.time_default = time;
    }

    /// Returns the limits that the reader enforces.
    #[must_use]
    pub fn limits(&self) -> &EventLimits {
        &self.limits
    }

    /// Reads one event in structured mode. An event without a time gets
    /// [`Timestamp::MIN`].
    ///
    /// # Errors
    /// Returns [`EventError`] if the event is invalid. Then nothing was added to `into`.
    pub fn structured(&mut self, json: &[u8], into: &mut Events) -> Result<(), EventError> {
        self.check_written(json.len())?;
        // A byte order mark is not part of the text.
        let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
        self.structured_text(utf8(json)?, into)
    }

    /// Reads a JSON array of events. `bad` is called for each invalid event with its index in
    /// the array; the other events are added.
    ///
    /// # Errors
    /// Returns [`EventError`] if `json` is not an array. Then nothing was added.
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
        let elements = match json_scan::elements(text, self.depth_max().saturating_add(1)) {
            Some(elements) => elements,
            None => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(shape)?;
                elements.into_iter().map(RawValue::get).collect()
            }
        };
        for (index, json) in elements.into_iter().enumerate() {
            let read =
                self.check_written(json.len()).and_then(|()| self.structured_text(json, into));
            if let Err(error) = read {
                bad(index, error);
            }
        }
        Ok(())
    }

    /// Reads lines, each with one event, and adds the events to `into`. Empty lines are skipped.
    /// `first` is the number of the first line. `bad` is called for each invalid line, and returns
    /// whether to continue. Returns the number of lines read.
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
        // If a whole block is UTF-8, it is split as text without further checks. This is several
        // times faster than a check of each line.
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
        let (members, read) = match Members::scan(text, self.depth_max(), self.tolerant) {
            Some(members) => {
                if self.is_strict() {
                    check_unicode(text)?;
                }
                (members, Ok(()))
            }
            None => self.parse(text)?,
        };
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

    /// Returns the maximum depth of nesting for the JSON of an event. The event itself is one
    /// level, so its data may be nested as deep as in binary mode.
    fn depth_max(&self) -> usize {
        self.limits.json_depth_max.saturating_add(1)
    }

    /// Parses `text` if [`Members::scan`] does not handle it. Returns its members and, if they do
    /// not make a valid event, an error.
    fn parse<'a>(
        &self,
        text: &'a str,
    ) -> Result<(Members<'a>, Result<(), EventError>), EventError> {
        let max = self.limits.json_depth_max;
        check_depth(text, self.depth_max()).map_err(|_| EventError::TooDeep { max })?;
        if self.is_strict() {
            check_unicode(text)?;
        }
        Ok(Members::parse(text, self.tolerant))
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
        // In CloudEvents `tenant` is an extension attribute, so in JSON it can be an integer or a
        // boolean. It is converted to the text that a header would have.
        let whole_max = if self.tolerant { i64::MAX } else { i64::from(i32::MAX) };
        let tenant = match m.tenant.and_then(|tenant| scalar(tenant, whole_max)) {
            Some(tenant) => tenant,
            None => optional("tenant", m.tenant)?,
        };
        let dataschema = optional("dataschema", m.dataschema)?;
        let datacontenttype = optional("datacontenttype", m.datacontenttype)?;
        let time = match m.time {
            Some(raw) if self.tolerant && raw == "\"\"" => None,
            Some(raw) if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                return Err(not_a_time(raw));
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
            // A payload of bytes without a media type must not count as JSON.
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

    /// Adds an event whose attributes and payload the caller has read. It checks all attributes,
    /// but not the payload. `time` is the time as text, if the event has it as text.
    ///
    /// # Errors
    /// Returns [`EventError`] if the event is invalid. Then nothing was added to `into`.
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

    /// Returns whether to check the rules of syntax that records of a topic may violate. They are
    /// not checked for records of a log, nor for imported events, which may come from such a log.
    pub(super) fn is_strict(&self) -> bool {
        !self.tolerant && !self.host_events
    }

    /// Returns whether this reads events that [`write_exact`](super::write_exact) has written.
    fn is_import(&self) -> bool {
        !self.tolerant && self.host_events
    }

    /// Refuses JSON that is larger than the JSON of any event within the limit.
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
