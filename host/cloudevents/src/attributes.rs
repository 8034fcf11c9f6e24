//! Binary modes: attributes one by one, whatever carries them, the payload
//! beside them.

use std::borrow::Cow;

use lantern_core::{EventRef, Events, Timestamp};

use super::error::quote;
use super::read::{add_extension, check_name, check_text};
use super::{ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, EventError, Reader};

/// The attributes of one event, as its carrier has them.
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
}

impl<'a> Attributes<'a> {
    /// Adds the attribute `name`.
    ///
    /// # Errors
    /// [`EventError`] where it cannot be one, or is there already.
    pub fn set(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), EventError> {
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
        if slot.is_some() {
            return Err(EventError::Twice(name.to_owned()));
        }
        *slot = Some(value);
        self.bytes += bytes;
        Ok(())
    }

    fn extend(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), EventError> {
        check_name(name)?;
        if self.extensions.iter().any(|(known, _)| *known == name) {
            return Err(EventError::Twice(name.to_owned()));
        }
        if self.extensions.len() >= EXTENSIONS_MAX {
            return Err(EventError::TooManyExtensions { max: EXTENSIONS_MAX });
        }
        self.bytes += name.len() + value.len();
        self.extensions.push((name, value));
        Ok(())
    }

    /// The bytes of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In headers every extension attribute is a string. By name, so that their
    /// order on the way does not matter.
    fn write_extensions(&mut self, object: &mut String) -> Result<(), EventError> {
        self.extensions.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in &self.extensions {
            check_text(name, value, ATTRIBUTE_BYTES_MAX)?;
            let json = serde_json::to_string(value).expect("a string always encodes");
            add_extension(object, name, &json);
        }
        if !object.is_empty() {
            object.push('}');
        }
        Ok(())
    }
}

impl Reader {
    /// Reads an event in a binary mode: checks `attributes`, and adds it with
    /// `payload`, which is not checked.
    ///
    /// # Errors
    /// [`EventError`]; nothing was added to `into` then.
    pub fn attributes(
        &mut self,
        mut attributes: Attributes<'_>,
        datacontenttype: &str,
        payload: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let mut extensions = std::mem::take(&mut self.extensions);
        extensions.clear();
        let read = attributes.write_extensions(&mut extensions).and_then(|()| {
            let a = &attributes;
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
                extensions: &extensions,
                data: payload,
            };
            self.add(event, a.time.as_deref(), into)
        });
        self.extensions = extensions;
        read
    }
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, EventError> {
    match value {
        None => Err(EventError::Missing(name)),
        Some("") => Err(EventError::Empty(name.into())),
        Some(value) => Ok(value),
    }
}
