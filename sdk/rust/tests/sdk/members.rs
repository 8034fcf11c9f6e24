//! Tests members of data as typed columns.

use std::borrow::Cow;

use lantern_core::{Column, MemberValues as HostValues};
use lantern_sdk::EventData;
use lantern_sdk::bindings::lantern::projection::types as wit;
use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, TestEvent, check_determinism, decode_members};
use proptest::prelude::*;

#[derive(EventData)]
struct Order<'a> {
    product: &'a str,
    cents: i64,
    quantity: u32,
    #[member(name = "sent-at")]
    sent_at: Option<Timestamp>,
    note: Option<Cow<'a, str>>,
    express: Option<bool>,
    weight: Option<f64>,
    r#type: Option<Json<Vec<u8>>>,
}

/// Has some members of the other type, with another kind, and one more member.
#[derive(EventData)]
struct Refund {
    cents: i64,
    reason: String,
}

#[derive(Tables)]
struct Revenue {
    #[table(private)]
    cents: Table<i64>,
    #[table(private)]
    seen: Table<String>,
}

impl Projection for Revenue {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["*"])
            .members::<Order>()
            .members::<Refund>()
            .without_data()
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event.kind() {
            "refund" => {
                let refund: Refund = event.members()?;
                *self.cents.row(&refund.reason)? -= refund.cents;
            }
            "data" => {
                event.data::<serde_json::Value>()?;
            }
            "other" => {
                event.members::<Other>()?;
            }
            _ => {
                let order: Order<'_> = event.members()?;
                *self.cents.row(order.product)? += order.cents * i64::from(order.quantity);
                let Order { sent_at, note, express, weight, r#type, .. } = order;
                let rest = format!("{sent_at:?} {note:?} {express:?} {weight:?} {type:?}");
                self.seen.put(order.product, rest)?;
            }
        }
        Ok(())
    }
}

#[derive(EventData)]
#[expect(dead_code, reason = "the manifest does not declare it")]
struct Other {
    other: i64,
}

#[test]
fn declared_members_are_read_without_json() {
    let event = |data: &str| TestEvent::new("order").data(data);
    let events = [
        event(r#"{"product":"a","cents":5,"quantity":2,"more":[1]}"#),
        event(
            r#"{"quantity":1,"type":[1,2],"weight":1.5,"express":true,"note":"caf\u00e9","sent-at":"2026-03-01T12:00:00Z","cents":7,"product":"b"}"#,
        ),
        event(r#"{"product":"a","cents":1,"quantity":3,"note":null}"#),
        TestEvent::new("refund").data(r#"{"cents":4,"reason":"a"}"#),
    ];
    let outcome = check_determinism::<Revenue>("", &events);
    assert_eq!(outcome.parked, vec![]);
    let mut host = Harness::<Revenue>::new();
    host.feed(events);
    let cents = host.typed_rows::<i64>("cents");
    assert_eq!((cents["a"], cents["b"]), (9, 7));
    let seen = host.typed_rows::<String>("seen");
    assert_eq!(seen["a"], "None None None None None");
    assert!(seen["b"].contains(r#"Some("café") Some(true) Some(1.5) Some(Json([1, 2]))"#));
}

#[test]
fn a_member_that_does_not_fit_parks_its_event_by_name() {
    let cases = [
        ("order", r#"{"cents":5,"quantity":2}"#, "member `product` is missing or null"),
        ("order", r#"{"product":"a","cents":"5","quantity":2}"#, "`cents` is not an integer"),
        ("order", r#"{"product":"a","cents":5,"quantity":-1}"#, "`quantity` is -1, not from 0"),
        ("order", r#"{"product":"a","cents":5,"cents":5,"quantity":1}"#, "`cents` is not"),
        ("order", r#"{"product":"a","cents":5,"quantity":1,"sent-at":"x"}"#, "`sent-at` is not"),
        (
            "order",
            r#"{"product":"a","cents":5,"quantity":1,"type":["x"]}"#,
            "`type` cannot be read",
        ),
        ("order", "[1]", "`product` is not text"),
        ("data", "{}", "remove `.without_data()`"),
        ("other", "{}", "the member `other` was not declared"),
    ];
    let mut host = Harness::<Revenue>::new();
    host.feed(cases.map(|(kind, data, _)| TestEvent::new(kind).data(data)));
    assert_eq!(host.parked().len(), cases.len());
    for (parked, (_, data, why)) in host.parked().iter().zip(cases) {
        assert!(parked.reason.contains(why), "{data}: {}", parked.reason);
    }
}

#[derive(Tables)]
struct TwoKinds {
    #[table(private)]
    none: Table<u64>,
}

#[derive(EventData)]
#[expect(dead_code, reason = "only declared")]
struct TextCents {
    cents: String,
}

impl Projection for TwoKinds {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["*"]).members::<Order>().members::<TextCents>())
    }

    fn apply(&mut self, _: &Event<'_>) -> Result<(), Error> {
        *self.none.row("none")? += 1;
        Ok(())
    }
}

#[test]
fn a_member_of_two_kinds_is_refused() {
    let error = Harness::<TwoKinds>::try_with_parameters("").err().unwrap();
    assert!(error.contains("the member `cents` is declared with two kinds"), "{error}");
}

const KINDS: [(wit::FieldKind, lantern_core::FieldKind); 6] = [
    (wit::FieldKind::Integer, lantern_core::FieldKind::Integer),
    (wit::FieldKind::Number, lantern_core::FieldKind::Number),
    (wit::FieldKind::Text, lantern_core::FieldKind::Text),
    (wit::FieldKind::Boolean, lantern_core::FieldKind::Boolean),
    (wit::FieldKind::Timestamp, lantern_core::FieldKind::Timestamp),
    (wit::FieldKind::Json, lantern_core::FieldKind::Json),
];

fn payload() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "7",
        "1.0",
        "1e3",
        "1e400",
        "9223372036854775808",
        "-9223372036854775808",
        "0.1",
        r#""""#,
        r#""x""#,
        r#""caf\u00e9""#,
        r#""\ud800""#,
        r#""\u0000""#,
        "[ 1 ]",
        r#"{"a":1}"#,
        r#""2026-03-01T12:00:00.5+01:00""#,
        r#""2026-02-30T12:00:00Z""#,
        r#""0000-01-01T00:00:00Z""#,
        r#""0001-01-01T00:00:00Z""#,
        r#""9999-12-31T00:00:00Z""#,
        r#""2026-03-01T23:59:60Z""#,
        r#""2026-03-01 12:00:00z""#,
        r#""2026-03-01T12:00:00""#,
        "nope",
        "+1",
        "01",
    ]);
    let member = (prop::sample::select(vec!["a", "b", "c", "\\u0061"]), value);
    let end = prop_oneof![8 => Just("}"), 1 => Just(",}"), 1 => Just("}x"), 1 => Just("} ")];
    (prop::collection::vec(member, 0..4), end).prop_map(|(members, end)| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}{end}", members.join(","))
    })
}

proptest! {
    #[test]
    fn the_native_host_decodes_members_as_the_host_does(
        payloads in prop::collection::vec(payload(), 0..20),
        kinds in prop::collection::vec(0..KINDS.len(), 2),
    ) {
        let names = ["a", "b"];
        let ours: Vec<wit::Member> = names.iter().zip(&kinds)
            .map(|(name, kind)| wit::Member { name: (*name).to_owned(), kind: KINDS[*kind].0 })
            .collect();
        let theirs: Vec<lantern_core::Member> = names.iter().zip(&kinds)
            .map(|(name, kind)| lantern_core::Member { name: (*name).into(), kind: KINDS[*kind].1 })
            .collect();
        let data: Vec<&[u8]> = payloads.iter().map(String::as_bytes).collect();
        let column: Column = data.iter().copied().collect();
        let expected = lantern_core::decode_members(&theirs, &column);
        for (ours, theirs) in decode_members(&ours, &data).iter().zip(&expected) {
            prop_assert_eq!(&ours.validity, &theirs.validity, "{:?}", payloads);
            prop_assert_eq!(&ours.mismatched, &theirs.mismatched, "{:?}", payloads);
            prop_assert!(same(&ours.values, &theirs.values, data.len()), "{:?}", payloads);
        }
    }
}

fn same(ours: &wit::MemberValues, theirs: &HostValues, events: usize) -> bool {
    let column = |ours: &wit::Column, theirs: &Column| {
        let mut start = 0;
        ours.ends.len() == events
            && ours.ends.iter().enumerate().all(|(index, end)| {
                let value = &ours.bytes[start as usize..*end as usize];
                start = *end;
                value == theirs.get(index)
            })
    };
    match (ours, theirs) {
        (wit::MemberValues::Integers(ours), HostValues::Integers(theirs)) => ours == theirs,
        (wit::MemberValues::Timestamps(ours), HostValues::Timestamps(theirs)) => ours == theirs,
        (wit::MemberValues::Numbers(ours), HostValues::Numbers(theirs)) => ours == theirs,
        (wit::MemberValues::Booleans(ours), HostValues::Booleans(theirs)) => ours == theirs,
        (wit::MemberValues::Texts(ours), HostValues::Texts(theirs)) => column(ours, theirs),
        (wit::MemberValues::Jsons(ours), HostValues::Jsons(theirs)) => column(ours, theirs),
        _ => false,
    }
}
