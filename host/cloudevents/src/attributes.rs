//! Reads events in a binary mode. In such a mode, an HTTP request or a Kafka record carries each
//! attribute of the event in a header, and the payload in its body.

use std::borrow::Cow;

use lantern_core::{EventRef, Events, Timestamp};

use super::checks::{check_name, check_text};
use super::error::quote;
use super::members::{add_extension, is_full};
use super::{ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, Reader};

/// The attributes of one event, as they were in the headers.
#[derive(Debug, Default)]
pub struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    extensions: Vec<(&'a str, Cow<'a, str>)>,
    bytes: usize,
    tolerant: bool,
    ignored: u64,
}

impl<'a> Attributes<'a> {
    /// Creates a reader of attributes with the tolerant rules for records of a log. An extension
    /// attribute that is not allowed is left out, and an empty attribute counts as absent.
    #[must_use]
    pub fn of_log() -> Self {
        Self { tolerant: true, ..Self::default() }
    }

    /// Returns the values of `source`, `type` and `id`. A missing value is empty.
    #[must_use]
    pub fn names(&self) -> [&str; 3] {
        [&self.source, &self.kind, &self.id].map(|text| text.as_deref().unwrap_or_default())
    }

    /// Returns the time of the event as text, if it has one.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// Counts an extension attribute that the caller has left out.
    pub fn leave_out(&mut self) {
        self.ignored += 1;
    }

    /// Adds the attribute `name`.
    ///
    /// # Errors
    /// Returns [`EventError`] if the name or the value is not allowed, or if the attribute already
    /// has another value.
    pub fn set(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), EventError> {
        if self.tolerant && value.is_empty() {
            return Ok(());
        }
        let bytes = name.len() + value.len();
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "tenant" => &mut self.tenant,
            "dataschema" => &mut self.dataschema,
            _ => return self.extend(name, value),
        };
        match slot {
            Some(known) if *known == value => {}
            Some(_) => return Err(EventError::Twice(name.to_owned())),
            None => {
                *slot = Some(value);
                self.bytes += bytes;
            }
        }
        Ok(())
    }

    fn extend(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), EventError> {
        let known = self.extensions.iter().position(|(known, _)| *known == name);
        let names = self.extensions.iter().map(|(known, _)| *known);
        let full = known.is_none() && is_full(names, name);
        let fits = match full {
            true => Err(EventError::TooManyExtensions { max: EXTENSIONS_MAX }),
            false => check_name(name).and_then(|()| check_text(name, &value, ATTRIBUTE_BYTES_MAX)),
        };
        match (fits, known) {
            (Err(error), _) if !self.tolerant => return Err(error),
            (Err(_), _) => self.ignored += 1,
            (Ok(()), Some(place)) if self.extensions[place].1 == value => {}
            (Ok(()), Some(_)) if !self.tolerant => return Err(EventError::Twice(quote(name))),
            (Ok(()), Some(place)) => {
                // If a Kafka record has several headers with the same name, the last one is used.
                self.extensions[place].1 = value;
                self.ignored += 1;
            }
            (Ok(()), None) => {
                self.bytes += name.len() + value.len();
                self.extensions.push((name, value));
            }
        }
        Ok(())
    }

    /// Returns the number of bytes of all names and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the extension attributes as a JSON object. They are sorted by name, so the order in
    /// the request does not matter. Headers have no types, so all values are JSON strings.
    fn write_extensions(&mut self, strips: impl Fn(&str) -> bool, object: &mut String) {
        self.extensions.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in self.extensions.iter().filter(|(name, _)| !strips(name)) {
            let json = serde_json::to_string(value).expect("a string always encodes");
            add_extension(object, name, &json);
        }
        if !object.is_empty() {
            object.push('}');
        }
    }
}

impl Reader {
    /// Reads an event in a binary mode: checks `attributes`, and adds the event. `payload` becomes
    /// its data and is not checked.
    ///
    /// # Errors
    /// Returns [`EventError`] if the event is invalid. Then nothing was added to `into`.
    pub fn attributes(
        &mut self,
        mut attributes: Attributes<'_>,
        datacontenttype: &str,
        payload: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let mut extensions = std::mem::take(&mut self.extensions);
        extensions.clear();
        attributes.write_extensions(|name| self.strips(name), &mut extensions);
        self.ignored += attributes.ignored;
        let read = self.checked(&attributes, &extensions, datacontenttype, payload, into);
        self.extensions = extensions;
        read
    }

    fn checked(
        &self,
        a: &Attributes<'_>,
        extensions: &str,
        datacontenttype: &str,
        payload: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let specversion = required("specversion", a.specversion.as_deref())?;
        if specversion != "1.0" {
            return Err(EventError::SpecVersion(quote(specversion)));
        }
        let event = EventRef {
            id: required("id", a.id.as_deref())?,
            source: required("source", a.source.as_deref())?,
            kind: required("type", a.kind.as_deref())?,
            subject: a.subject.as_deref().unwrap_or_default(),
            time: Timestamp::MIN,
            tenant: a.tenant.as_deref().unwrap_or_default(),
            dataschema: a.dataschema.as_deref().unwrap_or_default(),
            datacontenttype,
            extensions,
            data: payload,
        };
        self.add(event, a.time.as_deref(), into)
    }
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, EventError> {
    match value {
        None => Err(EventError::Missing(name)),
        Some("") => Err(EventError::Empty(name.into())),
        Some(value) => Ok(value),
    }
}
