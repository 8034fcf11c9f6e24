//! Converts events to Kafka records, in the binary mode of CloudEvents' Kafka binding.

use lantern_cloudevents::format_time;
use lantern_core::{EventRef, Timestamp};
use rdkafka::message::{Header, OwnedHeaders};
use serde_json::{Map, Value};

use crate::config::KeyOf;

/// The maximum number of headers of an event, without those for extension attributes.
const HEADERS: usize = 10;

/// Returns the headers of `event`, followed by `more`.
pub(crate) fn headers(event: &EventRef<'_>, more: &[(&str, &str)]) -> OwnedHeaders {
    let time = match event.time {
        Timestamp::MIN => String::new(),
        time => format_time(time),
    };
    let mut headers = OwnedHeaders::new_with_capacity(HEADERS + more.len());
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", event.id),
        ("ce_source", event.source),
        ("ce_type", event.kind),
        ("ce_subject", event.subject),
        ("ce_time", &time),
        ("ce_tenant", event.tenant),
        ("ce_dataschema", event.dataschema),
        ("content-type", event.datacontenttype),
    ] {
        if !value.is_empty() {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
    }
    for (name, value) in extensions(event) {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        headers = headers.insert(Header { key: &format!("ce_{name}"), value: Some(&text) });
    }
    for (name, value) in more {
        headers = headers.insert(Header { key: name, value: Some(*value) });
    }
    headers
}

fn extensions(event: &EventRef<'_>) -> Map<String, Value> {
    if event.extensions.is_empty() {
        return Map::new();
    }
    // The extension attributes were checked when the event was accepted, so they can be parsed.
    serde_json::from_str(event.extensions).unwrap_or_default()
}

/// Returns the key of the record for `event`: the extension attribute `partitionkey` if the event
/// has one, otherwise the configured attribute. `None` if that is empty.
pub(crate) fn key(event: &EventRef<'_>, of: KeyOf) -> Option<String> {
    if event.extensions.contains("\"partitionkey\"")
        && let Some(Value::String(key)) = extensions(event).remove("partitionkey")
    {
        return Some(key);
    }
    let key = match of {
        KeyOf::Subject => event.subject,
        KeyOf::Source => event.source,
        KeyOf::Type => event.kind,
        KeyOf::Tenant => event.tenant,
        KeyOf::Id => event.id,
        KeyOf::None => "",
    };
    (!key.is_empty()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_core::{Event, Events};

    use super::*;
    use crate::config::KafkaConfig;
    use crate::record::RawRecord;
    use crate::record_decoding::{DecodedRecord, Decoder};

    fn written_and_read(event: &Event) -> Event {
        let headers = headers(&event.as_ref(), &[("note", "1")]);
        let borrowed = Some(headers.as_borrowed());
        let raw = RawRecord {
            topic: "t",
            partition: 0,
            offset: 0,
            time: Timestamp(7_000),
            key: None,
            payload: Some(&event.data),
            headers: &borrowed,
        };
        let mut events = Events::new();
        let config = KafkaConfig { topics: vec!["t".into()], ..KafkaConfig::default() };
        let read = Decoder::new(&config).read(&raw, &mut events);
        assert_eq!(read, DecodedRecord::Event);
        events.get(0).to_owned()
    }

    #[test]
    fn an_event_comes_back_as_it_was_written() {
        let full = Event {
            id: "1".into(),
            source: "/s".into(),
            kind: "t".into(),
            subject: "ü".into(),
            time: Timestamp(1_700_000_000_123_456),
            tenant: "t1".into(),
            dataschema: "urn:x".into(),
            datacontenttype: "text/plain".into(),
            extensions: r#"{"a":"1","traceparent":"00-x"}"#.into(),
            data: b"\xFFx".to_vec(),
        };
        assert_eq!(written_and_read(&full), full);
        let small = Event {
            time: Timestamp::MIN,
            dataschema: String::new(),
            datacontenttype: String::new(),
            extensions: String::new(),
            data: b"{\"a\":1}".to_vec(),
            ..full
        };
        assert_eq!(written_and_read(&small), Event { time: Timestamp(7_000), ..small });
    }

    #[test]
    fn a_partition_key_beats_the_attribute_chosen() {
        let event = Event {
            subject: "s".into(),
            id: "i".into(),
            extensions: r#"{"partitionkey":"p"}"#.into(),
            ..Event::default()
        };
        assert_eq!(key(&event.as_ref(), KeyOf::Subject).unwrap(), "p");
        let event = Event { extensions: String::new(), ..event };
        assert_eq!(key(&event.as_ref(), KeyOf::Subject).unwrap(), "s");
        assert_eq!(key(&event.as_ref(), KeyOf::Id).unwrap(), "i");
        assert_eq!(key(&event.as_ref(), KeyOf::Tenant), None);
        assert_eq!(key(&event.as_ref(), KeyOf::None), None);
    }
}
