//! Converts JSON records that are not CloudEvents to events, by a configured mapping.

use std::borrow::Cow;
use std::fmt;

use lantern_cloudevents::{
    EventError, EventLimits, Name, Reader, check_json, is_json, time_of_number,
};
use lantern_core::{EventRef, Events, Timestamp};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::record::{RawRecord, without_mark};

/// The attributes that a mapping sets, in the order of [`CompiledMapping::sources`].
const ATTRIBUTES: [&str; 7] = ["type", "subject", "id", "source", "tenant", "time", "dataschema"];
const DATA: usize = ATTRIBUTES.len();

/// How records that are not CloudEvents become events.
///
/// Each value names where an attribute comes from:
///
/// * `field:a.b`: a member of the record's JSON;
/// * `header:NAME`: a header of the record;
/// * `key`: the record's key;
/// * `topic`: the record's topic;
/// * `constant:TEXT`: this text.
///
/// An empty value means the default, which is documented below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// The event's type. Default `topic`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject. Default `key`, if that is text.
    pub subject: String,
    /// The id. Default partition and offset, as `3-1841`.
    pub id: String,
    /// The source. Default the topic, as `kafka/orders`.
    pub source: String,
    /// The tenant. Default none.
    pub tenant: String,
    /// The time, as RFC 3339 or as a number of `time_unit` since 1970. If a record has no such
    /// value, its own timestamp is used, which is also the default.
    pub time: String,
    /// The unit of a number in `time`: `s`, `ms`, `us` or `ns`. If the number is a time
    /// before 1971 or after 9999 in this unit, the record is unreadable. Default `ms`.
    pub time_unit: TimeUnit,
    /// The schema of the payload. Default none.
    pub dataschema: String,
    /// The payload: a `field:`. Default the record's value, unchanged.
    pub data: String,
    /// The media type of the payload. The payload is parsed only if it is JSON.
    /// Default `application/json`.
    pub datacontenttype: String,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            kind: String::new(),
            subject: String::new(),
            id: String::new(),
            source: String::new(),
            tenant: String::new(),
            time: String::new(),
            time_unit: TimeUnit::Ms,
            dataschema: String::new(),
            data: String::new(),
            datacontenttype: "application/json".into(),
        }
    }
}

/// The unit of a time that is a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl From<TimeUnit> for lantern_cloudevents::TimeUnit {
    fn from(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::S => Self::Seconds,
            TimeUnit::Ms => Self::Millis,
            TimeUnit::Us => Self::Micros,
            TimeUnit::Ns => Self::Nanos,
        }
    }
}

/// Where the value of an attribute comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AttributeSource {
    Default,
    Key,
    Topic,
    Header(String),
    Constant(String),
    /// A member of the record's JSON. Contains an index into [`CompiledMapping::paths`].
    Field(usize),
}

/// A mapping whose texts were parsed.
pub(crate) struct CompiledMapping {
    sources: Vec<AttributeSource>,
    paths: Vec<Vec<String>>,
    unit: lantern_cloudevents::TimeUnit,
    datacontenttype: String,
    json: bool,
}

impl Mapping {
    fn texts(&self) -> [&str; DATA + 1] {
        [
            &self.kind,
            &self.subject,
            &self.id,
            &self.source,
            &self.tenant,
            &self.time,
            &self.dataschema,
            &self.data,
        ]
    }

    /// Checks the texts of the mapping. The error describes the first wrong text: its name, its
    /// value and the rule that it breaks.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String, String)> {
        let names = ATTRIBUTES.into_iter().chain(["data"]);
        for (name, text) in names.zip(self.texts()) {
            let wrong = |rule: &str| Err((name, text.to_owned(), rule.to_owned()));
            let source = parse_source(text, &mut Vec::new());
            match source {
                None => {
                    return wrong(
                        "write `field:NAME`, `header:NAME`, `key`, `topic` or `constant:TEXT`",
                    );
                }
                Some(AttributeSource::Default | AttributeSource::Field(_)) => {}
                Some(_) if name == "data" => return wrong("the payload must be a `field:NAME`"),
                Some(_) => {}
            }
            if matches!(source, Some(AttributeSource::Field(_))) && !is_json(&self.datacontenttype)
            {
                return wrong("`field:` needs a JSON record, but `datacontenttype` is not JSON");
            }
        }
        Ok(())
    }

    pub(crate) fn compile(&self) -> CompiledMapping {
        let mut paths = Vec::new();
        let sources = self
            .texts()
            .map(|text| parse_source(text, &mut paths).unwrap_or(AttributeSource::Default));
        CompiledMapping {
            sources: sources.into(),
            paths,
            unit: self.time_unit.into(),
            datacontenttype: self.datacontenttype.clone(),
            json: is_json(&self.datacontenttype),
        }
    }
}

/// Parses `text`, which says where an attribute's value comes from; `None` if it has no known form.
fn parse_source(text: &str, paths: &mut Vec<Vec<String>>) -> Option<AttributeSource> {
    Some(match text.split_once(':') {
        None => match text {
            "" => AttributeSource::Default,
            "key" => AttributeSource::Key,
            "topic" => AttributeSource::Topic,
            _ => return None,
        },
        Some(("field", path)) => {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                return None;
            }
            paths.push(path);
            AttributeSource::Field(paths.len() - 1)
        }
        Some(("header", name)) if !name.is_empty() => AttributeSource::Header(name.to_owned()),
        Some(("constant", text)) if !text.is_empty() => AttributeSource::Constant(text.to_owned()),
        Some(_) => return None,
    })
}

impl CompiledMapping {
    /// Converts `raw` to an event by this mapping, and adds the event. As soon as the event's type
    /// is known, it is stored in `kind`.
    ///
    /// # Errors
    /// Returns [`EventError`] if `raw` cannot be converted to an event. Then nothing was added.
    pub(crate) fn read(
        &self,
        raw: &RawRecord<'_>,
        reader: &mut Reader,
        kind: &mut String,
        into: &mut Events,
    ) -> Result<(), EventError> {
        let mut payload = raw.payload.unwrap_or_default();
        if self.json {
            payload = without_mark(payload);
        }
        if !matches!(self.sources[0], AttributeSource::Field(_)) {
            kind.push_str(&self.value(0, raw, &[])?);
        }
        let mut found = [None; DATA + 1];
        if self.json {
            check_json(payload, EventLimits::default().json_depth_max)?;
            if !self.paths.is_empty() {
                // The caller has checked that the payload is UTF-8.
                let text = std::str::from_utf8(payload).unwrap_or_default();
                find_all_fields(text, &self.paths, &mut found)?;
            }
        }
        let mut values = [const { Cow::Borrowed("") }; DATA];
        for (index, value) in values.iter_mut().enumerate() {
            *value = self.value(index, raw, &found)?;
            if index == 0 && kind.is_empty() {
                kind.push_str(value);
            }
        }
        // The time can also be a number in a JSON string.
        let (time, text) = match &*values[5] {
            "" => (Timestamp::MIN, None),
            number if number.parse::<f64>().is_ok() => (time_of_number(number, self.unit)?, None),
            text => (Timestamp::MIN, Some(text)),
        };
        let data = match self.sources[DATA] {
            AttributeSource::Field(field) => match found[field] {
                Some(json) => json.get().as_bytes(),
                None => return Err(EventError::Missing("data")),
            },
            _ => payload,
        };
        let event = EventRef {
            id: &values[2],
            source: &values[3],
            kind: &values[0],
            subject: &values[1],
            time,
            tenant: &values[4],
            dataschema: &values[6],
            datacontenttype: &self.datacontenttype,
            extensions: "",
            data,
        };
        reader.add(event, text, into)
    }

    fn value<'a>(
        &'a self,
        index: usize,
        raw: &RawRecord<'a>,
        found: &[Option<&'a RawValue>],
    ) -> Result<Cow<'a, str>, EventError> {
        let name = ATTRIBUTES[index];
        // The type, the id and the source are required, and there is no other value for them.
        let needed = |value: Option<Cow<'a, str>>| match value {
            Some(value) if !value.is_empty() => Ok(value),
            _ if matches!(name, "type" | "id" | "source") => Err(EventError::Missing(name)),
            _ => Ok(Cow::Borrowed("")),
        };
        match &self.sources[index] {
            AttributeSource::Default => Ok(match name {
                "type" => Cow::Borrowed(raw.topic),
                "id" => Cow::Owned(format!("{}-{}", raw.partition, raw.offset)),
                "source" => Cow::Owned(format!("kafka/{}", raw.topic)),
                // If the key is not text, the subject is empty. This is not an error.
                "subject" => Cow::Borrowed(raw.key_text().unwrap_or_default()),
                _ => Cow::Borrowed(""),
            }),
            AttributeSource::Key => {
                needed(Some(Cow::Borrowed(raw.key_text().ok_or_else(|| EventError::Header {
                    name: "key".into(),
                    value: "(not text)".into(),
                })?)))
            }
            AttributeSource::Topic => Ok(Cow::Borrowed(raw.topic)),
            AttributeSource::Constant(text) => Ok(Cow::Borrowed(text)),
            AttributeSource::Header(header) => needed(raw.header(header)?.map(Cow::Borrowed)),
            AttributeSource::Field(field) => match found[*field] {
                None => needed(None),
                Some(value) => needed(scalar(name, value.get())?),
            },
        }
    }
}

/// Returns the text of a JSON string without its quotes, or a number or boolean as it is written;
/// `None` for null.
fn scalar<'a>(name: &str, json: &'a str) -> Result<Option<Cow<'a, str>>, EventError> {
    let wrong = || EventError::Type {
        name: name.into(),
        value: json.chars().take(80).collect(),
        expected: "a string, a number or a boolean",
    };
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') if json.contains('\\') => serde_json::from_str(json)
            .map(|text: String| Some(Cow::Owned(text)))
            .map_err(|_| wrong()),
        Some(b'"') => Ok(Some(Cow::Borrowed(&json[1..json.len() - 1]))),
        Some(b'{' | b'[') | None => Err(wrong()),
        Some(_) => Ok(Some(Cow::Borrowed(json))),
    }
}

/// Finds the members that `paths` name. It reads `text` only once.
fn find_all_fields<'a>(
    text: &'a str,
    paths: &[Vec<String>],
    found: &mut [Option<&'a RawValue>],
) -> Result<(), EventError> {
    let paths: Vec<(usize, &[String])> = (0..).zip(paths).map(|(i, p)| (i, p.as_slice())).collect();
    find_fields(text, &paths, found)
}

fn find_fields<'a>(
    text: &'a str,
    paths: &[(usize, &[String])],
    found: &mut [Option<&'a RawValue>],
) -> Result<(), EventError> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(FieldVisitor { paths, found }).map_err(|_| EventError::Shape {
        expected: "a JSON object",
        value: text.chars().take(80).collect(),
    })
}

struct FieldVisitor<'p, 'a> {
    paths: &'p [(usize, &'p [String])],
    found: &'p mut [Option<&'a RawValue>],
}

impl<'a> Visitor<'a> for FieldVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            let here = |(_, path): &&(usize, &[String])| path.first().is_some_and(|p| *p == *name);
            let mut deeper = Vec::new();
            for (index, path) in self.paths.iter().filter(here) {
                if path.len() == 1 {
                    self.found[*index] = Some(value);
                } else {
                    deeper.push((*index, &path[1..]));
                }
            }
            // If a member is not an object, it has no members, so longer paths find nothing.
            if !deeper.is_empty() && value.get().starts_with('{') {
                find_fields(value.get(), &deeper, self.found).map_err(de::Error::custom)?;
            }
        }
        Ok(())
    }
}
