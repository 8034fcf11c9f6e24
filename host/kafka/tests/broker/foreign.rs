//! Tests records of other producers: tombstones, unusual headers, and times.

use lantern_core::{Chunk, Timestamp, UNREADABLE_TYPE};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::reading::structured;
use super::*;

const P0: PartitionId = PartitionId(0);
/// The time 2001-09-09 in milliseconds since 1970.
const OLD_MS: i64 = 1_000_000_000_000;

/// Sends records with the key `k` and with a timestamp that the producer sets. For the value
/// `None`, a tombstone is sent.
fn produce(fixture: &Fixture, values: &[Option<&str>]) {
    let producer = fixture.producer("none");
    for value in values {
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to(&fixture.topic).key("k").timestamp(OLD_MS);
        if let Some(value) = value {
            record = record.payload(*value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn first_chunk(log: &KafkaLog) -> std::sync::Arc<Chunk> {
    match read_or_wait(log, P0, Offset(0), &TypeFilter::everything()).unwrap() {
        LogRead::Chunk(chunk) => chunk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tombstones_are_passed_wherever_they_are() {
    let Some(fixture) = Fixture::new("tombstones") else { return };
    let log = fixture.open(1);
    produce(&fixture, &[None; 1_001]);
    assert!(all_from(&log, P0, 0).is_empty(), "only tombstones");
    produce(&fixture, &[Some(&structured(1)), None, Some(&structured(2)), None, None]);
    let found = all_from(&log, P0, 0);
    let offsets: Vec<_> =
        found.iter().map(|(offset, event)| (*offset, event.id.as_str())).collect();
    assert_eq!(offsets, [(1_001, "1"), (1_003, "2")]);
    // A record with an empty value is not a tombstone.
    produce(&fixture, &[Some("")]);
    let found = all_from(&log, P0, 1_004);
    assert_eq!((found[0].0, found[0].1.kind.as_str()), (1_006, UNREADABLE_TYPE));
    log.close();
    drop(log);
    // Reading can also begin at the offset of a tombstone.
    let log = fixture.open(1);
    assert_eq!(all_from(&log, P0, 500).len(), 3);
}

#[test]
fn a_topic_that_lantern_creates_has_the_brokers_time() {
    let Some(fixture) = Fixture::new("stamped") else { return };
    let log = fixture.open(1);
    assert_eq!(log.warnings(), Vec::<String>::new());
    produce(&fixture, &[Some(&structured(1))]);
    let chunk = first_chunk(&log);
    let appended = chunk.appended(0).unwrap();
    assert!(appended > Timestamp(OLD_MS * 1_000 + 1));
    assert_eq!(chunk.events.times()[0], appended, "an event without a time has its record's");
    assert_eq!(log.offset_at(P0, appended).unwrap(), Offset(0));
    assert_eq!(log.offset_at(P0, Timestamp(appended.0 + 1_000)).unwrap(), Offset(1));
}

#[test]
fn the_time_of_a_producer_is_no_append_time_and_is_warned_of() {
    let Some(fixture) = Fixture::new("unstamped") else { return };
    fixture.create(&[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")]);
    let log = fixture.open(1);
    let warnings = log.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(&fixture.topic), "{warnings:?}");
    produce(&fixture, &[Some(&structured(1))]);
    let chunk = first_chunk(&log);
    assert_eq!((chunk.appended(0), chunk.events.times()[0]), (None, Timestamp(OLD_MS * 1_000)));
}

#[test]
fn odd_headers_and_heartbeats_of_others_are_read_as_documented() {
    let Some(fixture) = Fixture::new("odd") else { return };
    let log = fixture.open(1);
    let send = |source: &str, kind: &str, id: &str, more: &[(&str, Option<&[u8]>)]| {
        let mut headers = OwnedHeaders::new();
        let core =
            [("ce_specversion", "1.0"), ("ce_id", id), ("ce_source", source), ("ce_type", kind)];
        let core = core.map(|(name, value)| (name, Some(value.as_bytes())));
        for (key, value) in core.iter().chain(more) {
            headers = headers.insert(Header { key, value: *value });
        }
        let producer = fixture.producer("none");
        let record: BaseRecord<'_, str, str> =
            BaseRecord::to(&fixture.topic).key("").payload("{}").headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    };
    let far: &[u8] = b"9998-01-01T00:00:00Z";
    send("/s", "t", "1", &[("ce_trace_id", Some(b"x")), ("ce_null", None), ("", None)]);
    send("/s", "t", "2", &[("ce_id", Some(b"2")), ("ce_bytes", Some(b"\xFF")), ("ce_time", None)]);
    send("/s", "t", "3", &[("content-type", Some(b"application/json; charset=\"utf-8\""))]);
    send("lantern", "lantern.heartbeat", "0/0/0", &[("ce_time", Some(far))]);
    send("/s", "lantern.heartbeat", "5", &[("ce_time", Some(far))]);
    send("/s", "lantern.unreadable", "6", &[("ce_reason", Some(b"of the sender"))]);
    let all = all_from(&log, P0, 0);
    let kinds: Vec<&str> = all.iter().map(|(_, event)| event.kind.as_str()).collect();
    assert_eq!(kinds, ["t", "t", "t", "lantern.heartbeat", UNREADABLE_TYPE, UNREADABLE_TYPE]);
    assert!(all[3].1.time < Timestamp::LAST && all[3].1.time >= all[2].1.time);
    assert!(!all[5].1.extensions.contains("of the sender"), "{:?}", all[5]);
    assert!(log.bounds(P0).unwrap().max_time < Timestamp(253_000_000_000_000_000));
}
