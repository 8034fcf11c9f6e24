//! Tests how a projection reads events, and the errors of invalid reads.

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, TestEvent};
use serde::Deserialize;

#[derive(Tables)]
struct Reader {
    #[table(private)]
    seen: Table<String>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Projection for Reader {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["read.*"])
            .attributes([
                Attribute::Id,
                Attribute::Source,
                Attribute::Subject,
                Attribute::Extensions,
            ])
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let seen = match event.kind() {
            "read.name" => event.data::<Named<'_>>()?.name.into_owned(),
            "read.tenant" => event.tenant()?.to_owned(),
            _ => format!(
                "{} {} {} {} {} {}",
                event.id()?,
                event.source()?,
                event.subject()?,
                event.extensions()?,
                event.time(),
                event.offset()
            ),
        };
        self.seen.put(event.offset(), seen)
    }
}

fn feed(events: impl IntoIterator<Item = TestEvent>) -> Harness<Reader> {
    let mut host = Harness::new();
    host.feed(events);
    host
}

#[test]
fn text_is_read_with_and_without_escapes() {
    let host = feed([
        TestEvent::new("read.name").data(r#"{"name": "café"}"#),
        TestEvent::new("read.name").data(r#"{"name": "caf\u00e9 \"x\""}"#),
    ]);
    let seen: Vec<_> = host.typed_rows::<String>("seen").into_values().collect();
    assert_eq!(seen, ["café", "café \"x\""]);
}

#[test]
fn malformed_data_is_parked_with_location_and_reason() {
    for (data, why) in [
        (&b"{"[..], "EOF while parsing"),
        (b"{\"nom\": 1}", "missing field `name`"),
        (b"{\"name\": 1}", "invalid type: integer `1`"),
        (b"{\"name\": \"\xff\"}", "invalid utf-8"),
        (b"", "EOF while parsing"),
    ] {
        let good = || TestEvent::new("read.name").data(r#"{"name": "ü"}"#);
        let host = feed([good(), TestEvent::new("read.name").data(data), good()]);
        assert_eq!(host.typed_rows::<String>("seen").len(), 2);
        let [parked] = host.parked() else { panic!("{data:?}") };
        assert_eq!(parked.offset, 1);
        assert!(parked.reason.starts_with("`read.name` at offset 1: data: "), "{}", parked.reason);
        assert!(parked.reason.contains(why), "{}", parked.reason);
    }
}

#[test]
fn an_attribute_that_was_not_requested_is_an_error() {
    let host = feed([TestEvent::new("read.tenant").tenant("t1")]);
    assert_eq!(
        host.parked()[0].reason,
        "`read.tenant` at offset 0: the attribute `tenant` was not requested; add \
         `.attributes([Attribute::Tenant])` to the manifest"
    );
}

#[test]
fn cloud_events_are_read_with_all_they_have() {
    let mut host = Harness::<Reader>::new();
    host.feed_ndjson(
        r#"
        {"specversion":"1.0","id":"7","source":"shop","type":"other","time":"2026-03-01T12:00:00Z"}
        {"specversion":"1.0","id":"8","source":"shop","type":"read.all","subject":"u1","time":"2026-03-01T12:00:00.25Z","datacontenttype":"application/json","data":{"a":1},"tenant":"t0","traceparent":"00-1"}
        "#,
    );
    let seen = host.typed_rows::<String>("seen");
    assert_eq!(
        seen[&1_u64.to_key()],
        r#"8 shop u1 {"traceparent":"00-1"} 2026-03-01T12:00:00.250Z 1"#
    );
}
