//! Converts Kafka records to events in columns. The same record always gives the same event.
//!
//! * A record is a CloudEvent in one of the two modes of CloudEvents' Kafka binding, or is
//!   converted by a mapping.
//! * A record that is not an event becomes an event of [`UNREADABLE_TYPE`].
//! * A record without a value is a tombstone of a compacted topic, and is skipped.
//!
//! Anyone who may write to a topic can write any headers, so nothing in a record proves that this
//! server wrote it. The description of [`Decoder::binary`] says which records are accepted as
//! written by the host.

use std::borrow::Cow;
use std::collections::HashMap;

use lantern_cloudevents::{
    Attributes, EventError, EventLimits, Reader, TYPE_BYTES_MAX, check_json, check_text, is_json,
    read_time,
};
use lantern_core::{
    EventRef, Events, HEARTBEAT_TYPE, HOST_SOURCE, Timestamp, UNREADABLE_KIND, UNREADABLE_REASON,
    UNREADABLE_TYPE, has_emitted_form, is_host_type,
};
use serde::Deserialize;

use crate::config::KafkaConfig;
use crate::mapping::CompiledMapping;
use crate::record::{RawRecord, not_text, without_mark};

/// The prefix of the headers that contain attributes.
const PREFIX: &str = "ce_";
/// The headers that show that a record is in binary mode. Such a record has at least one of them.
/// Other headers that begin with `ce_` do not decide the mode.
const BINARY: [&str; 4] = ["ce_specversion", "ce_id", "ce_source", "ce_type"];
/// The attributes that must be text. If one is not text, the record is unreadable.
const CORE: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "tenant", "dataschema"];
/// The media type of events in structured mode that are written as JSON.
const STRUCTURED: &str = "application/cloudevents+json";
/// The prefix of all media types of structured mode.
const ANY_STRUCTURED: &str = "application/cloudevents";
/// The maximum length of the key that is stored with an unreadable record, in bytes.
const KEY_BYTES_MAX: usize = 4_096;
/// The extension attribute that contains the key of an unreadable record.
pub(crate) const UNREADABLE_KEY: &str = "kafkakey";

/// The result of decoding a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodedRecord {
    /// The record is an event, which was added.
    Event,
    /// The record is unreadable for this reason. It was added as an unreadable record.
    Unreadable(String),
    /// The record is a tombstone, which has no value. Nothing was added.
    Tombstone,
    /// Nothing was added, because the chunk has no room for another event type. The caller must
    /// begin a new chunk.
    Full,
}

/// Decodes the records of all topics.
pub(crate) struct Decoder {
    reader: Reader,
    mappings: HashMap<String, CompiledMapping>,
    /// The event type that the current record claims to have; empty if it is not known.
    kind: String,
}

impl Decoder {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        let topics = config.topics.iter();
        let mappings =
            topics.filter_map(|topic| Some((topic.clone(), config.mapping(topic)?.compile())));
        Self { reader: Reader::of_log(), mappings: mappings.collect(), kind: String::new() }
    }

    /// Decodes `raw` and adds it to `into`, as an event or as an unreadable record with the reason.
    pub(crate) fn read(&mut self, raw: &RawRecord<'_>, into: &mut Events) -> DecodedRecord {
        self.reader.set_time_default(raw.time);
        self.reader.set_host_events(false);
        self.kind.clear();
        let count = into.len();
        let reason = match self.event(raw, into) {
            Ok(true) => return DecodedRecord::Event,
            Ok(false) => return DecodedRecord::Tombstone,
            Err(EventError::TooManyTypes) => return DecodedRecord::Full,
            Err(error) => error.to_string(),
        };
        assert_eq!(into.len(), count, "a refused event is not added");
        match unreadable(raw, &reason, &self.kind, into) {
            true => DecodedRecord::Unreadable(reason),
            false => DecodedRecord::Full,
        }
    }

    /// Returns the number of extension attributes that were left out since the last call.
    pub(crate) fn take_ignored(&mut self) -> u64 {
        self.reader.take_ignored()
    }

    /// Adds the event in `raw`. Returns `false` if the record is a tombstone: it has no value and
    /// is not a CloudEvent in binary mode.
    fn event(&mut self, raw: &RawRecord<'_>, into: &mut Events) -> Result<bool, EventError> {
        let (mut binary, mut media) = (false, None);
        for (name, value) in raw.all() {
            if name.starts_with(PREFIX) {
                binary |= BINARY.contains(&name);
            } else if name.eq_ignore_ascii_case("content-type") {
                media = value;
            }
        }
        let media = media.and_then(|media| std::str::from_utf8(media).ok());
        let structured = media.filter(|media| starts_with(media, ANY_STRUCTURED));
        match (structured, raw.payload) {
            (None, _) if binary => self.binary(media, raw, into)?,
            (_, None) => return Ok(false),
            (Some(media), Some(payload)) => self.structured(media, payload, into)?,
            (None, Some(payload)) => match self.mappings.get(raw.topic) {
                Some(mapping) => mapping.read(raw, &mut self.reader, &mut self.kind, into)?,
                None => self.structured(STRUCTURED, payload, into)?,
            },
        }
        Ok(true)
    }

    fn structured(
        &mut self,
        media: &str,
        payload: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(STRUCTURED) {
            let value = media.chars().take(80).flat_map(char::escape_default).collect();
            return Err(EventError::Shape { expected: "`application/cloudevents+json`", value });
        }
        let read = self.reader.structured(payload, into);
        if read.is_err() {
            let claimed: Option<TypeProbe<'_>> = serde_json::from_slice(without_mark(payload)).ok();
            self.kind.push_str(claimed.and_then(|claimed| claimed.kind).as_deref().unwrap_or(""));
        }
        read
    }

    /// Reads a record in binary mode, the only mode in which this server writes events.
    ///
    /// An event whose `source` is `lantern` or begins with `lantern/` must have exactly one of the
    /// two forms that the host writes:
    ///
    /// * A heartbeat. Its time is limited to the time of the record.
    /// * An emitted event. Its type must not be one of the host's own types.
    ///
    /// Every other record that claims to come from the host is unreadable. A forged record in one
    /// of these forms can do no more than any other event of the topic.
    fn binary(
        &mut self,
        media: Option<&str>,
        raw: &RawRecord<'_>,
        into: &mut Events,
    ) -> Result<(), EventError> {
        let (mut attributes, mut media) = (Attributes::of_log(), media);
        for (name, value) in raw.all() {
            let (Some(attribute), Some(value)) = (name.strip_prefix(PREFIX), value) else {
                continue;
            };
            match (attribute, std::str::from_utf8(value)) {
                // The media type is in the header `content-type`. Some producers write it here too.
                ("datacontenttype", Ok(value)) => media = media.or(Some(value)),
                // Headers with attributes must not have these names.
                ("datacontenttype" | "data" | "data_base64", _) => attributes.leave_out(),
                (_, Ok(value)) => attributes.set(attribute, Cow::Borrowed(value))?,
                (core, Err(_)) if CORE.contains(&core) => return Err(not_text(name, value)),
                (_, Err(_)) => attributes.leave_out(),
            }
        }
        let [source, kind, id] = attributes.names();
        self.kind.push_str(kind);
        if source == HOST_SOURCE && kind == HEARTBEAT_TYPE {
            return heartbeat(raw, id, attributes.time().unwrap_or_default(), into);
        }
        self.reader.set_host_events(has_emitted_form(source, id) && !is_host_type(kind));
        let mut payload = raw.payload.unwrap_or_default();
        let depth_max = EventLimits::default().json_depth_max;
        let media = match media {
            Some(media) => {
                if is_json(media) && !payload.is_empty() {
                    payload = without_mark(payload);
                    check_json(payload, depth_max)?;
                }
                media
            }
            // If there is no media type and the payload can be parsed as JSON, it is JSON.
            None if payload.is_empty() || check_json(payload, depth_max).is_ok() => "",
            None => "application/octet-stream",
        };
        self.reader.attributes(attributes, media, payload, into)
    }
}

/// The member of an event in structured mode that contains its type.
#[derive(Deserialize)]
struct TypeProbe<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

/// Adds a heartbeat. Its time is limited to the time of its record.
fn heartbeat(
    raw: &RawRecord<'_>,
    id: &str,
    time: &str,
    into: &mut Events,
) -> Result<(), EventError> {
    check_text("id", id, KEY_BYTES_MAX)?;
    let event = EventRef {
        id,
        source: HOST_SOURCE,
        kind: HEARTBEAT_TYPE,
        time: read_time(time)?.min(in_range(raw.time)),
        data: b"{}",
        ..EventRef::default()
    };
    if into.push(&event) { Ok(()) } else { Err(EventError::TooManyTypes) }
}

/// Limits `time` to the range of allowed times, because a producer can write any time.
fn in_range(time: Timestamp) -> Timestamp {
    time.clamp(Timestamp::FIRST, Timestamp::LAST)
}

/// Adds `raw` as an unreadable record. Returns `false` if `into` has no room for another event
/// type.
fn unreadable(raw: &RawRecord<'_>, reason: &str, kind: &str, into: &mut Events) -> bool {
    let RawRecord { topic, partition, offset, .. } = raw;
    let key = raw.key_text().filter(|key| check_text("key", key, KEY_BYTES_MAX).is_ok());
    let short = key.filter(|key| key.len() <= 80 && !key.is_empty());
    let named = short.map_or_else(String::new, |key| format!(" (key `{key}`)"));
    let reason = format!("record {offset} of {topic}[{partition}]{named} is no event: {reason}");
    let mut extensions = serde_json::json!({
        UNREADABLE_REASON: reason,
        "kafkatopic": topic,
        "kafkapartition": partition,
        "kafkaoffset": offset.to_string(),
    });
    if let Some(key) = key {
        extensions[UNREADABLE_KEY] = key.into();
    }
    // A record with a claimed type affects only projections that subscribe to this type. If the
    // claimed type is reserved for the host, it is not stored, so the record affects all
    // projections.
    let clean = !kind.is_empty() && check_text("type", kind, TYPE_BYTES_MAX).is_ok();
    if clean && !is_host_type(kind) {
        extensions[UNREADABLE_KIND] = kind.into();
    }
    into.push(&EventRef {
        id: &format!("{partition}-{offset}"),
        source: &format!("kafka/{topic}"),
        kind: UNREADABLE_TYPE,
        time: in_range(raw.time),
        datacontenttype: "application/octet-stream",
        extensions: &extensions.to_string(),
        data: raw.payload.unwrap_or_default(),
        ..EventRef::default()
    })
}

fn starts_with(media: &str, front: &str) -> bool {
    media.as_bytes().get(..front.len()).is_some_and(|m| m.eq_ignore_ascii_case(front.as_bytes()))
}

#[cfg(test)]
#[path = "record_decoding_tests.rs"]
mod tests;
