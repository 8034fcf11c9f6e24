#![allow(clippy::unwrap_used, reason = "tests")]

use lantern_core::Event;
use proptest::prelude::*;

use super::*;
use crate::mapping::{Mapping, TimeUnit};

type Pairs<'a> = &'a [(&'a str, Option<&'a [u8]>)];

fn config(mapping: Option<Mapping>) -> KafkaConfig {
    let mut config = KafkaConfig { topics: vec!["orders".into()], ..KafkaConfig::default() };
    config.json.extend(mapping.map(|mapping| ("orders".to_owned(), mapping)));
    config.check().unwrap();
    config
}

fn read(mapping: Option<Mapping>, key: Option<&str>, headers: Pairs<'_>, payload: &[u8]) -> Event {
    let mut events = Events::new();
    let headers = headers.to_vec();
    let raw = Raw {
        topic: "orders",
        partition: 3,
        offset: 1841,
        time: Timestamp(1_000_000),
        key: key.map(str::as_bytes),
        payload: Some(payload),
        headers: &headers,
    };
    let (fits, reason) = Decoder::new(&config(mapping)).read(&raw, &mut events);
    assert!(fits);
    assert_eq!(events.len(), 1);
    let event = events.get(0).to_owned();
    assert_eq!(reason.is_some(), event.kind == UNREADABLE_TYPE, "{reason:?}");
    event
}

fn reason(event: &Event) -> String {
    let members: serde_json::Value = serde_json::from_str(&event.extensions).unwrap();
    members[UNREADABLE_REASON].as_str().unwrap().to_owned()
}

const BINARY: Pairs<'static> = &[
    ("ce_specversion", Some(b"1.0")),
    ("ce_id", Some(b"7")),
    ("ce_source", Some(b"/shop")),
    ("ce_type", Some(b"order.placed")),
];

#[test]
fn binary_mode_takes_every_attribute_of_its_headers() {
    let more: Pairs<'_> = &[
        ("ce_subject", Some("Jürgen".as_bytes())),
        ("ce_time", Some(b"2026-01-31T23:59:59.5Z")),
        ("ce_tenant", Some(b"t1")),
        ("ce_dataschema", Some(b"urn:x")),
        ("ce_traceparent", Some(b"00-a")),
        ("ce_another", Some(b"1")),
        ("other", Some(b"\xFF")),
        ("content-type", Some(b"application/json")),
    ];
    let event = read(None, Some("k"), &[BINARY, more].concat(), b" {\"a\":1}");
    assert_eq!((event.id.as_str(), event.source.as_str()), ("7", "/shop"));
    assert_eq!((event.kind.as_str(), event.subject.as_str()), ("order.placed", "Jürgen"));
    assert_eq!((event.tenant.as_str(), event.dataschema.as_str()), ("t1", "urn:x"));
    assert_eq!(event.time, Timestamp(1_769_903_999_500_000));
    assert_eq!(event.extensions, r#"{"another":"1","traceparent":"00-a"}"#);
    assert_eq!(event.datacontenttype, "application/json");
    assert_eq!(event.data, b" {\"a\":1}");
}

#[test]
fn an_event_without_a_time_has_that_of_its_record() {
    assert_eq!(read(None, None, BINARY, b"").time, Timestamp(1_000_000));
    let json = br#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    assert_eq!(read(None, None, &[], json).time, Timestamp(1_000_000));
}

#[test]
fn a_payload_nobody_names_is_json_where_it_is_json() {
    assert_eq!(read(None, None, BINARY, b"{}").datacontenttype, "");
    assert_eq!(read(None, None, BINARY, b"\x00x").datacontenttype, "application/octet-stream");
}

#[test]
fn structured_mode_is_told_by_its_media_type_or_by_having_no_headers() {
    let json = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"x":1}}"#;
    let media: Pairs<'_> =
        &[("Content-Type", Some(b"application/cloudevents+json; charset=UTF-8"))];
    for headers in [media, &[]] {
        let event = read(None, None, headers, json);
        assert_eq!((event.kind.as_str(), &*event.data), ("t", &br#"{"x":1}"#[..]));
    }
}

#[test]
fn a_type_of_the_hosts_own_is_taken_from_a_log() {
    let json = br#"{"specversion":"1.0","id":"1","source":"lantern","type":"lantern.heartbeat"}"#;
    assert_eq!(read(None, None, &[], json).kind, "lantern.heartbeat");
}

#[test]
fn what_is_no_event_is_kept_with_its_place_and_the_reason() {
    let check = |headers: Pairs<'_>, payload: &[u8], word: &str| {
        let event = read(None, Some("k1"), headers, payload);
        assert_eq!(event.kind, UNREADABLE_TYPE);
        assert_eq!((event.subject.as_str(), &*event.data), ("k1", payload));
        assert_eq!((event.id.as_str(), event.source.as_str()), ("3-1841", "kafka/orders"));
        let reason = reason(&event);
        assert!(reason.starts_with("record 1841 of orders[3] is no event"), "{reason}");
        assert!(reason.contains(word), "{reason} does not say {word}");
    };
    check(&[], b"not json", "not JSON");
    check(&[], b"\xFF\xFE", "UTF-8");
    check(&[], br#"{"id":"1"}"#, "specversion");
    check(&BINARY[..3], b"", "`type`");
    check(&[BINARY, &[("ce_id", Some(b"8"))]].concat(), b"", "`id`");
    check(&[BINARY, &[("ce_subject", Some(b"\xFF"))]].concat(), b"", "ce_subject");
    check(&[BINARY, &[("ce_data", Some(b"1"))]].concat(), b"", "ce_data");
    let json: Pairs<'_> = &[("content-type", Some(b"application/json"))];
    check(&[BINARY, json].concat(), b"{", "JSON");
    check(&[("content-type", Some(b"application/cloudevents+avro"))], b"x", "avro");
}

#[test]
fn the_name_of_a_header_that_is_not_utf8_harms_nobody() {
    struct Panics;
    impl Header for Panics {
        fn count(&self) -> usize {
            1
        }
        fn at(&self, _: usize) -> (&str, Option<&[u8]>) {
            panic!("as the client library does")
        }
    }
    let raw = Raw {
        topic: "orders",
        partition: 0,
        offset: 1,
        time: Timestamp(0),
        key: None,
        payload: Some(b"{}"),
        headers: &Panics,
    };
    let mut events = Events::new();
    let (fits, reason) = Decoder::new(&config(None)).read(&raw, &mut events);
    assert!(fits && reason.unwrap().contains("header"));
}

#[test]
fn a_mapping_that_says_nothing_takes_topic_key_and_timestamp() {
    let event = read(Some(Mapping::default()), Some("k1"), &[], br#"[1]"#);
    assert_eq!((event.kind.as_str(), event.subject.as_str()), ("orders", "k1"));
    assert_eq!((event.id.as_str(), event.source.as_str()), ("3-1841", "kafka/orders"));
    assert_eq!((event.time, &*event.data), (Timestamp(1_000_000), &b"[1]"[..]));
}

#[test]
fn a_mapping_picks_fields_headers_and_constants() {
    let mapping = Mapping {
        kind: "field:event.kind".into(),
        subject: "field:order".into(),
        id: "header:id".into(),
        source: "constant:/legacy".into(),
        tenant: "field:shop.name".into(),
        time: "field:at".into(),
        data: "field:event".into(),
        ..Mapping::default()
    };
    let headers: Pairs<'_> = &[("id", Some(b"old")), ("id", Some(b"h1"))];
    let json = br#"{"order":12,"event":{"kind":"placed","n":1},"at":1700000000123,"shop":{"name":"a\"b"}}"#;
    let event = read(Some(mapping.clone()), None, headers, json);
    assert_eq!((event.kind.as_str(), event.subject.as_str()), ("placed", "12"));
    assert_eq!((event.id.as_str(), event.source.as_str()), ("h1", "/legacy"));
    assert_eq!((event.tenant.as_str(), event.time), ("a\"b", Timestamp(1_700_000_000_123_000)));
    assert_eq!(event.data, br#"{"kind":"placed","n":1}"#);

    let missing = read(Some(mapping.clone()), None, headers, br#"{"event":{"n":1}}"#);
    assert!(reason(&missing).contains("`type`"), "{missing:?}");
    let wrong = read(Some(mapping), None, headers, br#"{"event":{"kind":[]}}"#);
    assert!(reason(&wrong).contains("type"), "{wrong:?}");
}

#[test]
fn times_are_text_or_numbers_of_a_unit() {
    let time = |unit: TimeUnit, json: &str| {
        let mapping = Mapping { time: "field:t".into(), time_unit: unit, ..Mapping::default() };
        read(Some(mapping), None, &[], format!(r#"{{"t":{json}}}"#).as_bytes()).time.0
    };
    assert_eq!(time(TimeUnit::S, "1.5"), 1_500_000);
    assert_eq!(time(TimeUnit::Ms, "2"), 2_000);
    assert_eq!(time(TimeUnit::Us, "2"), 2);
    assert_eq!(time(TimeUnit::Ns, "2500"), 2);
    assert_eq!(time(TimeUnit::Ms, "\"1970-01-01T00:00:02Z\""), 2_000_000);
    assert_eq!(time(TimeUnit::Ms, "null"), 1_000_000);
}

#[test]
fn cloudevents_stay_cloudevents_in_a_mapped_topic() {
    assert_eq!(read(Some(Mapping::default()), None, BINARY, b"{}").kind, "order.placed");
}

#[test]
fn a_record_without_a_value_is_an_event_only_in_binary_mode() {
    let headers: Vec<(&str, Option<&[u8]>)> = BINARY.to_vec();
    let mut events = Events::new();
    let mut raw = Raw {
        topic: "orders",
        partition: 0,
        offset: 0,
        time: Timestamp(0),
        key: None,
        payload: None,
        headers: &None,
    };
    let (_, reason) = Decoder::new(&config(None)).read(&raw, &mut events);
    assert!(reason.unwrap().contains("value"));
    raw.headers = &headers;
    let (_, reason) = Decoder::new(&config(None)).read(&raw, &mut events);
    assert_eq!((reason, events.kind(1)), (None, "order.placed"));
}

proptest! {
    #[test]
    fn any_record_is_one_event(
        payload in prop::collection::vec(any::<u8>(), 0..60),
        names in prop::collection::vec("(ce_)?[a-z]{0,8}|content-type", 0..6),
        value in prop::collection::vec(any::<u8>(), 0..20),
        mapped in any::<bool>(),
    ) {
        let headers: Vec<(&str, Option<&[u8]>)> =
            names.iter().map(|name| (name.as_str(), Some(&*value))).collect();
        let mapping = mapped.then(|| Mapping { kind: "field:a".into(), ..Mapping::default() });
        read(mapping, None, &headers, &payload);
    }
}
