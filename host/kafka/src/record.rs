//! From a record of Kafka to an event in columns: CloudEvents' Kafka binding in
//! both modes, and what a mapping makes of others. A record that is no event
//! becomes one of [`UNREADABLE_TYPE`], never nothing. Pure: the same record reads
//! the same whenever and wherever it is read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lantern_cloudevents::{
    Attributes, EventError, EventLimits, Reader, check_json, check_text, is_json,
};
use lantern_core::{EventRef, Events, Timestamp, UNREADABLE_REASON, UNREADABLE_TYPE};
use rdkafka::message::{BorrowedHeaders, Headers};

use crate::config::KafkaConfig;
use crate::mapping::Compiled;

/// What the headers of attributes begin with.
const PREFIX: &str = "ce_";
/// The media type of events in structured mode, as JSON.
const STRUCTURED: &str = "application/cloudevents+json";
/// What media types of all events in structured mode begin with.
const ANY_STRUCTURED: &str = "application/cloudevents";
/// The longest subject of an unreadable record, in bytes.
const KEY_BYTES_MAX: usize = 4_096;

/// A record as it lies in its topic.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    /// The record's own timestamp; 1970 where it has none.
    pub(crate) time: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) headers: &'a dyn Header,
}

/// The headers of a record, by place.
pub(crate) trait Header {
    /// How many there are.
    fn count(&self) -> usize;

    /// Name and value of header `place`. May panic where a name is not UTF-8, as
    /// the client library does.
    fn at(&self, place: usize) -> (&str, Option<&[u8]>);
}

impl Header for Option<&BorrowedHeaders> {
    fn count(&self) -> usize {
        self.map_or(0, Headers::count)
    }

    fn at(&self, place: usize) -> (&str, Option<&[u8]>) {
        self.map_or(("", None), |headers| {
            let header = headers.get(place);
            (header.key, header.value)
        })
    }
}

#[cfg(test)]
impl Header for Vec<(&str, Option<&[u8]>)> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> (&str, Option<&[u8]>) {
        self[place]
    }
}

fn all(headers: &dyn Header) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    (0..headers.count()).map(move |place| headers.at(place))
}

/// The value of the last header of this name, which is the one that counts in
/// Kafka. May panic as [`Header::at`] does.
pub(crate) fn last<'a>(headers: &'a dyn Header, name: &str) -> Option<&'a [u8]> {
    all(headers).filter(|(known, _)| *known == name).last().and_then(|(_, value)| value)
}

impl<'a> Raw<'a> {
    fn all(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        all(self.headers)
    }

    /// The text of the last header of this name, which is the one that counts in
    /// Kafka.
    ///
    /// # Errors
    /// [`EventError::Header`] where it is not text.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, EventError> {
        last(self.headers, name).map(|value| text(name, value)).transpose()
    }

    /// The key, where it is text.
    pub(crate) fn key_text(&self) -> Option<&'a str> {
        self.key.and_then(|key| std::str::from_utf8(key).ok())
    }
}

/// Reads records of all topics.
pub(crate) struct Decoder {
    reader: Reader,
    mappings: HashMap<String, Compiled>,
}

impl Decoder {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        let topics = config.topics.iter();
        let mappings =
            topics.filter_map(|topic| Some((topic.clone(), config.mapping(topic)?.compile())));
        Self { reader: Reader::of_log(), mappings: mappings.collect() }
    }

    /// Adds the event that `raw` is, or in its place why it is none, which is
    /// handed back too. `false` where `into` takes no more types: begin another.
    pub(crate) fn read(&mut self, raw: &Raw<'_>, into: &mut Events) -> (bool, Option<String>) {
        self.reader.set_time_default(raw.time);
        let count = into.len();
        // Names of headers that are not UTF-8 make the client library panic, and
        // anyone may write them.
        let read = catch_unwind(AssertUnwindSafe(|| self.event(raw, into)));
        let reason = match read {
            Ok(Ok(())) => return (true, None),
            Ok(Err(EventError::TooManyTypes)) => return (false, None),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the name of a header is not UTF-8".into(),
        };
        assert_eq!(into.len(), count, "what was refused was not added");
        (unreadable(raw, &reason, into), Some(reason))
    }

    fn event(&mut self, raw: &Raw<'_>, into: &mut Events) -> Result<(), EventError> {
        let (mut binary, mut media) = (false, None);
        for (name, value) in raw.all() {
            if name.starts_with(PREFIX) {
                binary = true;
            } else if name.eq_ignore_ascii_case("content-type") {
                media = value;
            }
        }
        let media = media.map(|value| text("content-type", value)).transpose()?;
        if media.is_some_and(|media| starts_with(media, ANY_STRUCTURED)) {
            return self.structured(media.unwrap_or_default(), raw, into);
        }
        if binary {
            return self.binary(media, raw, into);
        }
        if let Some(mapping) = self.mappings.get(raw.topic) {
            return mapping.read(raw, &mut self.reader, into);
        }
        self.structured(STRUCTURED, raw, into)
    }

    fn structured(
        &mut self,
        media: &str,
        raw: &Raw<'_>,
        into: &mut Events,
    ) -> Result<(), EventError> {
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(STRUCTURED) {
            let value = media.chars().take(80).collect();
            return Err(EventError::Shape { expected: "`application/cloudevents+json`", value });
        }
        match raw.payload {
            Some(payload) => self.reader.structured(payload, into),
            None => Err(EventError::Missing("value (the record has none)")),
        }
    }

    fn binary(
        &mut self,
        media: Option<&str>,
        raw: &Raw<'_>,
        into: &mut Events,
    ) -> Result<(), EventError> {
        let mut attributes = Attributes::default();
        for (name, value) in raw.all() {
            let Some(attribute) = name.strip_prefix(PREFIX) else { continue };
            if attribute == "datacontenttype" || attribute == "data" {
                return Err(EventError::Name(format!("{name} (use `content-type` and the value)")));
            }
            let value = text(name, value.unwrap_or_default())?;
            attributes.set(attribute, Cow::Borrowed(value))?;
        }
        let payload = raw.payload.unwrap_or_default();
        let depth_max = EventLimits::default().json_depth_max;
        let media = match media {
            Some(media) => {
                if is_json(media) && !payload.is_empty() {
                    check_json(payload, depth_max)?;
                }
                media
            }
            // Nobody says what it is: JSON where it is JSON.
            None if payload.is_empty() || check_json(payload, depth_max).is_ok() => "",
            None => "application/octet-stream",
        };
        self.reader.attributes(attributes, media, payload, into)
    }
}

/// Adds why `raw` is no event; `false` where `into` takes no more types.
fn unreadable(raw: &Raw<'_>, reason: &str, into: &mut Events) -> bool {
    let Raw { topic, partition, offset, .. } = raw;
    let reason = format!("record {offset} of {topic}[{partition}] is no event: {reason}");
    let extensions = serde_json::json!({
        UNREADABLE_REASON: reason,
        "kafkatopic": topic,
        "kafkapartition": partition,
        "kafkaoffset": offset.to_string(),
    })
    .to_string();
    let clean = |key: &&str| check_text("key", key, KEY_BYTES_MAX).is_ok();
    into.push(&EventRef {
        id: &format!("{partition}-{offset}"),
        source: &format!("kafka/{topic}"),
        kind: UNREADABLE_TYPE,
        subject: raw.key_text().filter(clean).unwrap_or_default(),
        time: raw.time,
        datacontenttype: "application/octet-stream",
        extensions: &extensions,
        data: raw.payload.unwrap_or_default(),
        ..EventRef::default()
    })
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, EventError> {
    std::str::from_utf8(value).map_err(|_| EventError::Header {
        name: name.chars().take(80).collect(),
        value: String::from_utf8_lossy(value).chars().take(80).collect(),
    })
}

fn starts_with(media: &str, front: &str) -> bool {
    media.as_bytes().get(..front.len()).is_some_and(|m| m.eq_ignore_ascii_case(front.as_bytes()))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
