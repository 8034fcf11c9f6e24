#![allow(clippy::unwrap_used, reason = "tests")]

use lantern_core::Event;
use proptest::prelude::*;

use super::*;
use crate::mapping::{Mapping, TimeUnit};
use crate::record::Header;

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
    let raw = RawRecord {
        topic: "orders",
        partition: 3,
        offset: 1841,
        time: Timestamp(1_000_000),
        key: key.map(str::as_bytes),
        payload: Some(payload),
        headers: &headers,
    };
    let decoded = Decoder::new(&config(mapping)).read(&raw, &mut events);
    assert_eq!(events.len(), 1);
    let event = events.get(0).to_owned();
    match decoded {
        DecodedRecord::Event => assert_ne!(event.kind, UNREADABLE_TYPE),
        DecodedRecord::Unreadable(_) => assert_eq!(event.kind, UNREADABLE_TYPE),
        other => panic!("{other:?}"),
    }
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
fn a_payload_without_a_media_type_is_json_if_it_parses_as_json() {
    assert_eq!(read(None, None, BINARY, b"{}").datacontenttype, "");
    assert_eq!(read(None, None, BINARY, b"\x00x").datacontenttype, "application/octet-stream");
}

#[test]
fn structured_mode_is_recognized_by_its_media_type_or_by_missing_headers() {
    let json = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"x":1}}"#;
    let media: Pairs<'_> =
        &[("Content-Type", Some(b"application/cloudevents+json; charset=UTF-8"))];
    for headers in [media, &[]] {
        let event = read(None, None, headers, json);
        assert_eq!((event.kind.as_str(), &*event.data), ("t", &br#"{"x":1}"#[..]));
    }
}

/// Creates a record in binary mode with a source, a type and an id, and with the additional headers
/// `more`.
fn binary<'a>(source: &'a str, kind: &'a str, id: &'a str, more: Pairs<'a>) -> Event {
    let headers = [
        ("ce_specversion", Some(b"1.0".as_slice())),
        ("ce_id", Some(id.as_bytes())),
        ("ce_source", Some(source.as_bytes())),
        ("ce_type", Some(kind.as_bytes())),
    ];
    read(None, None, &[&headers, more].concat(), b"{}")
}

#[test]
fn a_heartbeat_counts_up_to_the_time_of_its_record() {
    for (time, us) in [("1970-01-01T00:00:00.5Z", 500_000), ("9998-01-01T00:00:00Z", 1_000_000)] {
        let time: Pairs<'_> = &[("ce_time", Some(time.as_bytes()))];
        let event = binary("lantern", "lantern.heartbeat", "0/5/0", time);
        assert_eq!((event.kind.as_str(), event.time), ("lantern.heartbeat", Timestamp(us)));
    }
    let event = binary("lantern", "lantern.heartbeat", "0/5/0", &[]);
    assert!(reason(&event).contains("`time`"), "{event:?}");
}

#[test]
fn a_type_of_the_hosts_own_from_outside_is_unreadable() {
    for event in [
        binary("/s", "lantern.heartbeat", "1", &[]),
        binary("lantern", "lantern.unreadable", "1", &[("ce_reason", Some(b"of the sender"))]),
        binary("lantern/p", "lantern.heartbeat", "v/0/1/2", &[]),
        binary("lantern", "order.placed", "1", &[]),
        binary("lantern/p", "order.placed", "1", &[]),
    ] {
        let reason = reason(&event);
        assert!(reason.contains("the server") && !reason.contains("of the sender"), "{reason}");
        assert!(event.subject.is_empty());
    }
    for (source, kind) in [("lantern", "lantern.heartbeat"), ("/s", "lantern.unreadable")] {
        let json = format!(
            r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"{kind}","time":"9998-01-01T00:00:00Z","subject":"u1","reason":"\u202etext of the sender"}}"#
        );
        let reason = reason(&read(None, None, &[], json.as_bytes()));
        assert!(reason.contains("the server") && !reason.contains("sender"), "{reason}");
    }
    let mapping = Mapping { source: "field:s".into(), ..Mapping::default() };
    let event = read(Some(mapping), None, &[], br#"{"s":"lantern/p"}"#);
    assert!(reason(&event).contains("the server"), "{event:?}");
}

#[test]
fn an_emitted_event_is_known_by_its_form_and_keeps_the_hosts_attributes() {
    let more: Pairs<'_> = &[("ce_lanterndepth", Some(b"3")), ("ce_other", Some(b"x"))];
    let event = binary("lantern/p", "order.paid", "v1.58f.0/0/17/2", more);
    assert_eq!(event.kind, "order.paid");
    assert_eq!(event.extensions, r#"{"lanterndepth":"3","other":"x"}"#);
    let event = binary("/s", "order.paid", "v1.58f.0/0/17/2", more);
    assert_eq!(event.extensions, r#"{"other":"x"}"#);
    let json = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","lanterndepth":3,"b":1}"#;
    assert_eq!(read(None, None, &[], json).extensions, r#"{"b":1}"#);
}

#[test]
fn no_extension_attribute_makes_a_record_unreadable() {
    let long = "y".repeat(5_000);
    let more: Pairs<'_> = &[
        ("ce_id", Some(b"7")),
        ("ce_trace_id", Some(b"a")),
        ("ce_Camel", Some(b"a")),
        ("ce_", Some(b"a")),
        ("ce_bytes", Some(b"\xFF")),
        ("ce_control", Some(b"a\nb")),
        ("ce_long", Some(long.as_bytes())),
        ("ce_null", None),
        ("ce_empty", Some(b"")),
        ("ce_subject", None),
        ("ce_data", Some(b"1")),
        ("ce_iodebeziumtransactiondatacollectionorder", Some(b"1")),
        ("ce_twice", Some(b"a")),
        ("ce_twice", Some(b"b")),
        ("ce_same", Some(b"a")),
        ("ce_same", Some(b"a")),
        ("", Some(b"x")),
        ("content-type", Some(b"\xFF")),
    ];
    let event = read(None, None, &[BINARY, more].concat(), b"{}");
    assert_eq!((event.kind.as_str(), event.subject.as_str()), ("order.placed", ""));
    assert_eq!(
        event.extensions,
        r#"{"iodebeziumtransactiondatacollectionorder":"1","same":"a","twice":"b"}"#
    );
    let many: Vec<(String, Option<&[u8]>)> =
        (0..100).map(|n| (format!("ce_n{n}"), Some(b"1".as_slice()))).collect();
    let many: Vec<(&str, Option<&[u8]>)> = many.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(read(None, None, &[BINARY, &many].concat(), b"").kind, "order.placed");
}

#[test]
fn members_that_no_attribute_may_be_are_left_out_of_a_structured_event() {
    let json = br#"{"specversion":"1.0","id":7,"source":"s","type":"t","subject":-5,"tenant":true,
        "time":null,"Big":"x","trace_id":"a","object":{"a":1},"list":[1],"gone":null,
        "big":3000000000,"part":1.50,"whole":-5,"flag":true,"whole":-5,"data":{"n":1}}"#;
    let event = read(None, None, &[], &[b"\xEF\xBB\xBF", json.as_slice()].concat());
    assert_eq!(event.kind, "t");
    assert_eq!((event.id.as_str(), event.subject.as_str()), ("7", "-5"));
    assert_eq!((event.tenant.as_str(), &*event.data), ("true", &br#"{"n":1}"#[..]));
    let expected = r#"{"big":"3000000000","part":"1.50","whole":-5,"flag":true}"#;
    assert_eq!(event.extensions, expected);
}

#[test]
fn a_client_may_send_every_event_that_a_log_accepts() {
    let json = br#"{"specversion":"1.0","id":7,"source":"s","type":"t","big":3000000000,
        "subject":"","iodebeziumtransactiontotalorder":"1","tenant":99999999999}"#;
    let event = read(None, None, &[], json);
    let mut written = Vec::new();
    lantern_cloudevents::write_event(&event.as_ref(), &mut written);
    let mut events = Events::new();
    let mut reader = Reader::new(EventLimits::default(), Timestamp(0));
    reader.structured(&written, &mut events).unwrap();
    assert_eq!(events.get(0).to_owned(), event);
}

#[test]
fn a_stray_header_does_not_make_binary_mode() {
    let headers: Pairs<'_> = &[("ce_version", Some(b"3"))];
    assert_eq!(read(Some(Mapping::default()), None, headers, b"{}").kind, "orders");
}

#[test]
fn an_unreadable_record_names_the_type_it_claims() {
    let kind = |event: &Event| {
        let members: serde_json::Value = serde_json::from_str(&event.extensions).unwrap();
        members[lantern_core::UNREADABLE_KIND].as_str().map(str::to_owned)
    };
    let claims = |event: &Event, claimed: Option<&str>| {
        assert_eq!(event.kind, UNREADABLE_TYPE);
        assert_eq!(kind(event).as_deref(), claimed, "{event:?}");
    };
    let time: Pairs<'_> = &[("ce_time", Some(b"now"))];
    claims(&read(None, None, &[BINARY, time].concat(), b""), Some("order.placed"));
    claims(&read(None, None, &[], br#"{"type":"a.b"}"#), Some("a.b"));
    claims(&read(None, None, &[], br#"{"type":5}"#), None);
    claims(&read(None, None, &[], br#"{"type":"lantern.x"}"#), None);
    claims(&read(None, None, &[], b"junk"), None);
    claims(&read(Some(Mapping::default()), None, &[], b"junk"), Some("orders"));
    let mapping =
        || Mapping { kind: "field:k".into(), time: "field:t".into(), ..Mapping::default() };
    claims(&read(Some(mapping()), None, &[], br#"{"k":"x","t":"now"}"#), Some("x"));
    claims(&read(Some(mapping()), None, &[], b"{}"), None);
}

#[test]
fn an_unreadable_record_is_kept_with_its_offset_and_the_reason() {
    let check = |headers: Pairs<'_>, payload: &[u8], word: &str| {
        let event = read(None, Some("k1"), headers, payload);
        assert_eq!(event.kind, UNREADABLE_TYPE);
        // The subject of the record is unknown and therefore empty, so no other event waits for it.
        assert_eq!((event.subject.as_str(), &*event.data), ("", payload));
        assert_eq!((event.id.as_str(), event.source.as_str()), ("3-1841", "kafka/orders"));
        let reason = reason(&event);
        assert!(reason.starts_with("record 1841 of orders[3] (key `k1`) is no event"), "{reason}");
        assert!(reason.contains(word), "{reason} does not say {word}");
    };
    check(&[], b"not json", "not JSON");
    check(&[], b"\xFF\xFE", "UTF-8");
    check(&[], br#"{"id":"1"}"#, "specversion");
    check(&BINARY[..3], b"", "`type`");
    check(&[BINARY, &[("ce_id", Some(b"8"))]].concat(), b"", "`id`");
    check(&[BINARY, &[("ce_subject", Some(b"\xFF"))]].concat(), b"", "ce_subject");
    check(&[BINARY, &[("ce_time", Some(b"0000-01-01T00:00:00Z"))]].concat(), b"", "0001-01-01");
    check(&[BINARY, &[("ce_time", Some(b"1767225600"))]].concat(), b"", "2026-01-01T00:00:00Z");
    let json: Pairs<'_> = &[("content-type", Some(b"application/json"))];
    check(&[BINARY, json].concat(), b"{", "JSON");
    check(&[("content-type", Some(b"application/cloudevents+avro"))], b"x", "avro");
}

#[test]
fn a_header_whose_name_is_not_utf8_is_passed() {
    struct Nameless(Vec<(&'static str, Option<&'static [u8]>)>);
    impl Header for Nameless {
        fn count(&self) -> usize {
            self.0.len() + 1
        }
        fn at(&self, index: usize) -> Option<(&str, Option<&[u8]>)> {
            Some(self.0[index.checked_sub(1)?])
        }
    }
    let raw = RawRecord {
        topic: "orders",
        partition: 0,
        offset: 1,
        time: Timestamp(0),
        key: None,
        payload: Some(b"{}"),
        headers: &Nameless(BINARY.to_vec()),
    };
    let mut events = Events::new();
    assert_eq!(Decoder::new(&config(None)).read(&raw, &mut events), DecodedRecord::Event);
    assert_eq!(events.kind(0), "order.placed");
}

#[test]
fn a_record_whose_own_time_is_out_of_range_is_unreadable_only_if_the_time_is_needed() {
    let headers = BINARY.to_vec();
    let with_time = [BINARY, &[("ce_time", Some(b"2026-01-01T00:00:00Z".as_slice()))]].concat();
    for (headers, readable) in [(headers, false), (with_time, true)] {
        let raw = RawRecord {
            topic: "orders",
            partition: 0,
            offset: 1,
            time: Timestamp(i64::MAX),
            key: None,
            payload: None,
            headers: &headers,
        };
        let mut events = Events::new();
        let decoded = Decoder::new(&config(None)).read(&raw, &mut events);
        assert_eq!(decoded == DecodedRecord::Event, readable, "{decoded:?}");
        assert!(events.times()[0].is_in_range());
    }
}

#[test]
fn an_empty_mapping_uses_topic_key_and_timestamp() {
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
    assert_eq!(time(TimeUnit::S, "1767225600.5"), 1_767_225_600_500_000);
    assert_eq!(time(TimeUnit::Ms, "1767225600001"), 1_767_225_600_001_000);
    assert_eq!(time(TimeUnit::Us, "1767225600000001"), 1_767_225_600_000_001);
    assert_eq!(time(TimeUnit::Ns, "1767225600000001999"), 1_767_225_600_000_001);
    assert_eq!(time(TimeUnit::Ms, "\"1767225600001\""), 1_767_225_600_001_000);
    assert_eq!(time(TimeUnit::Ms, "\"1970-01-01T00:00:02Z\""), 2_000_000);
    assert_eq!(time(TimeUnit::Ms, "null"), 1_000_000);
}

#[test]
fn a_time_of_another_unit_is_unreadable_and_the_reason_names_the_unit_that_fits() {
    let mapping = Mapping { time: "field:at".into(), ..Mapping::default() };
    for (at, words) in [
        ("1767225600", "in seconds (`s`) it is 2026-01-01T00:00:00Z"),
        ("1767225600000000", "in microseconds (`us`) it is 2026-01-01T00:00:00Z"),
        ("-1", "`ms`"),
        ("0", "`ms`"),
        ("1e300", "`ms`"),
        ("\"10000-01-01T00:00:00Z\"", "RFC 3339"),
    ] {
        let event = read(Some(mapping.clone()), None, &[], format!("{{\"at\":{at}}}").as_bytes());
        assert!(reason(&event).contains(words), "{at}: {event:?}");
    }
}

#[test]
fn cloudevents_stay_cloudevents_in_a_mapped_topic() {
    assert_eq!(read(Some(Mapping::default()), None, BINARY, b"{}").kind, "order.placed");
}

#[test]
fn a_record_without_a_value_is_a_tombstone_unless_it_is_an_event_in_binary_mode() {
    let headers: Vec<(&str, Option<&[u8]>)> = BINARY.to_vec();
    let media: Vec<(&str, Option<&[u8]>)> =
        vec![("content-type", Some(b"application/cloudevents+json"))];
    for mapping in [None, Some(Mapping::default())] {
        let mut decoder = Decoder::new(&config(mapping));
        let mut events = Events::new();
        let mut raw = RawRecord {
            topic: "orders",
            partition: 0,
            offset: 0,
            time: Timestamp(0),
            key: Some(b"k"),
            payload: None,
            headers: &None,
        };
        assert_eq!(decoder.read(&raw, &mut events), DecodedRecord::Tombstone);
        raw.headers = &media;
        assert_eq!(decoder.read(&raw, &mut events), DecodedRecord::Tombstone);
        assert!(events.is_empty());
        raw.headers = &headers;
        assert_eq!(decoder.read(&raw, &mut events), DecodedRecord::Event);
        assert_eq!(events.kind(0), "order.placed");
    }
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
