//! Tests tables: it has no visible effect which rows are in memory.

use std::collections::BTreeMap;

use lantern_sdk::RowError;
use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, TestEvent, check_determinism};
use proptest::prelude::*;
use serde::Deserialize;

/// Makes the changes to a table that the events describe.
#[derive(Tables)]
struct Ledger {
    /// Kept small, so that rows are dropped from memory all the time.
    #[table(cache = 4)]
    amounts: Table<Amount>,
    #[table(private, name = "scan_results")]
    scans: Table<Json<Vec<(String, i64)>>>,
    #[table(private)]
    large: Table<i64>,
}

#[derive(Row, Default)]
struct Amount {
    #[row(unit = "EUR", merge = sum)]
    cents: i64,
    share: f64,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
enum Act {
    Add(String, i64),
    Put(String, i64),
    Delete(String),
    Take(String),
    Scan(String, String, usize, bool),
    Prefetch(Vec<String>),
}

impl Projection for Ledger {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["act"]))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event.data()? {
            Act::Add(key, cents) => {
                let row = self.amounts.row(&key)?;
                row.cents += cents;
                row.share = row.cents as f64 / 7.0;
            }
            Act::Put(key, cents) => self.amounts.put(&key, Amount { cents, share: 0.1 })?,
            Act::Delete(key) => self.amounts.delete(&key)?,
            Act::Take(key) => {
                let taken = self.amounts.take(&key)?;
                *self.large.row("taken")? += taken.map_or(0, |amount| amount.cents);
            }
            Act::Scan(start, end, limit, reverse) => {
                let mut scan = Scan::range(&start, &end).limit(limit);
                if reverse {
                    scan = scan.newest_first();
                }
                let rows = self.amounts.scan(&scan)?;
                let rows = rows.into_iter().map(|(key, row)| (key, row.cents));
                self.scans.put(event.offset(), Json(rows.collect()))?;
            }
            Act::Prefetch(keys) => self.amounts.prefetch(&keys)?,
        }
        Ok(())
    }
}

/// Makes the same changes to a map.
#[derive(Default)]
struct Model {
    amounts: BTreeMap<String, i64>,
    scans: BTreeMap<u64, Vec<(String, i64)>>,
    taken: i64,
}

impl Model {
    fn act(&mut self, offset: u64, act: &Act) {
        match act {
            Act::Add(key, cents) => *self.amounts.entry(key.clone()).or_default() += cents,
            Act::Put(key, cents) => {
                self.amounts.insert(key.clone(), *cents);
            }
            Act::Delete(key) => {
                self.amounts.remove(key);
            }
            Act::Take(key) => self.taken += self.amounts.remove(key).unwrap_or_default(),
            Act::Scan(start, end, limit, reverse) => {
                let within = |key: &String| key >= start && (end.is_empty() || key < end);
                let mut rows: Vec<_> = self.amounts.iter().filter(|(key, _)| within(key)).collect();
                if *reverse {
                    rows.reverse();
                }
                let rows = rows.into_iter().take(*limit);
                let rows = rows.map(|(key, cents)| (key.clone(), *cents));
                self.scans.insert(offset, rows.collect());
            }
            Act::Prefetch(_) => {}
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let key = || "[a-e][a-c]?";
    prop_oneof![
        4 => (key(), -9..9_i64).prop_map(|(key, cents)| Act::Add(key, cents)),
        1 => (key(), -9..9_i64).prop_map(|(key, cents)| Act::Put(key, cents)),
        1 => key().prop_map(Act::Delete),
        1 => key().prop_map(Act::Take),
        1 => ("[a-e]?", "[a-e]?", 0..6_usize, any::<bool>())
            .prop_map(|(start, end, limit, reverse)| Act::Scan(start, end, limit, reverse)),
        1 => prop::collection::vec(key(), 0..6).prop_map(Act::Prefetch),
    ]
}

fn events(acts: &[Act]) -> Vec<TestEvent> {
    let event = |act| TestEvent::new("act").json(act);
    acts.iter().map(event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn tables_are_what_a_plain_map_would_be(acts in prop::collection::vec(act(), 0..80)) {
        let mut model = Model::default();
        for (offset, act) in (0..).zip(&acts) {
            model.act(offset, act);
        }
        let outcome = check_determinism::<Ledger>("", &events(&acts));
        prop_assert_eq!(outcome.parked, vec![]);
        let amounts = &outcome.tables["amounts"];
        prop_assert!(amounts.keys().eq(model.amounts.keys()));
        for (key, row) in amounts {
            let row: serde_json::Value = serde_json::from_slice(row).unwrap();
            prop_assert_eq!(row["cents"].as_i64(), model.amounts.get(key).copied());
        }
        let scans = &outcome.tables["scan_results"];
        for (row, expected) in scans.values().zip(model.scans.values()) {
            let row: Vec<(String, i64)> = serde_json::from_slice(row).unwrap();
            prop_assert_eq!(&row, expected);
        }
        prop_assert_eq!(scans.len(), model.scans.len());
        let taken = outcome.tables["large"].get("taken").cloned().unwrap_or(b"0".to_vec());
        prop_assert_eq!(taken, model.taken.to_string().into_bytes());
    }
}

#[test]
fn a_scan_returns_more_rows_than_one_page() {
    let mut acts: Vec<Act> = (0..1_000_u32).map(|number| Act::Add(number.to_key(), 1)).collect();
    acts.push(Act::Scan(String::new(), String::new(), usize::MAX, false));
    acts.push(Act::Scan("0000000100".into(), String::new(), 300, true));
    let mut host = Harness::<Ledger>::new();
    host.feed(events(&acts));
    let scans = host.typed_rows::<Json<Vec<(String, i64)>>>("scan_results");
    let lengths: Vec<_> = scans.values().map(|rows| rows.0.len()).collect();
    assert_eq!(lengths, [1_000, 300]);
    let Json(reverse) = &scans[&1_001_u64.to_key()];
    assert_eq!((&*reverse[0].0, &*reverse[299].0), ("0000000999", "0000000700"));
}

#[test]
fn a_hot_key_costs_no_host_call() {
    let acts = vec![Act::Add("hot".into(), 1); 1_000];
    let mut host = Harness::<Ledger>::new();
    host.feed(events(&acts));
    // The row is read once at first, and written once at the end of the call.
    assert_eq!(host.host_calls(), 2);
    host.feed(events(&acts));
    assert_eq!(host.host_calls(), 3);
    assert_eq!(host.row("amounts", "hot").unwrap()["cents"], 2_000);
}

#[test]
fn keys_that_a_table_cannot_have_are_refused() {
    for (key, why) in [("", "a key cannot be empty"), ("a\0b", "U+0000 cannot be part")] {
        for act in [Act::Add(key.into(), 1), Act::Put(key.into(), 1), Act::Delete(key.into())] {
            let mut host = Harness::<Ledger>::new();
            host.feed(events(&[act]));
            let reason = &host.parked()[0].reason;
            assert!(reason.contains("table `amounts`") && reason.contains(why), "{reason}");
        }
    }
}

#[test]
fn a_row_that_cannot_be_written_parks_its_event_alone() {
    #[derive(Tables)]
    struct Ratios {
        ratios: Table<Ratio>,
    }

    #[derive(Row, Default)]
    struct Ratio {
        ratio: f64,
    }

    impl Projection for Ratios {
        fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
            Ok(lantern_sdk::manifest!().subscribe(["*"]).on_failure(OnFailure::ParkEvent))
        }

        fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
            let (a, b): (f64, f64) = event.data()?;
            self.ratios.row(event.offset())?.ratio = a / b;
            Ok(())
        }
    }

    let mut host = Harness::<Ratios>::new();
    host.feed(["[1, 2]", "[1, 0]", "[3, 4]"].map(|data| TestEvent::new("pair").data(data)));
    assert_eq!(host.rows("ratios").len(), 2);
    assert_eq!(host.parked().len(), 1);
    assert_eq!(host.parked()[0].offset, 1);
    let reason = &host.parked()[0].reason;
    assert!(reason.contains("field `ratio` is inf"), "{reason}");
}

#[derive(Tables)]
struct PerTenant {
    /// Rows of tenants.
    #[table(per_tenant, retention = "7d")]
    counts: Table<Count>,
}

#[derive(Row, Default)]
struct Count {
    count: u64,
}

impl Projection for PerTenant {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["*"])
            .attributes([Attribute::Tenant, Attribute::Subject])
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let (tenant, subject) = (event.tenant()?, event.subject()?);
        let row = match event.kind() {
            "wrong" => self.counts.row(subject)?,
            _ => self.counts.row(InTenant(tenant, subject))?,
        };
        row.count += 1;
        Ok(())
    }
}

#[test]
fn rows_of_tenants_need_a_tenant() {
    let event = |kind: &str, tenant: &str, subject: &str| {
        TestEvent::new(kind).tenant(tenant).subject(subject)
    };
    let mut host = Harness::<PerTenant>::new();
    host.feed([
        event("right", "t1", "u1"),
        event("right", "t1", "u1"),
        event("right", "", "u1"),
        event("right", "t1", ""),
        event("right", "t1", "t2\0u1"),
        event("wrong", "t1", "u1"),
        // A text that equals the bytes of a tenant's key in memory is not that key.
        event("wrong", "t1", "t1\0u1"),
    ]);
    assert_eq!(host.rows("counts").into_keys().collect::<Vec<_>>(), ["t1\0u1"]);
    let reasons: Vec<_> = host.parked().iter().map(|parked| &*parked.reason).collect();
    for (reason, why) in reasons.iter().zip([
        "the tenant is empty",
        "a key cannot be empty",
        "U+0000 cannot be part of a key",
        "use `InTenant(tenant, key)`",
        "use `InTenant(tenant, key)`",
    ]) {
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(reasons.len(), 5);
}

/// Rows with values of every kind that cannot always be stored.
#[derive(Tables)]
struct Fallible {
    rows: Table<FallibleRow>,
    #[table(private)]
    open: lantern_sdk::window::OpenSessions<PrivateNumbers>,
}

#[derive(Row, Default)]
struct FallibleRow {
    number: f64,
    maybe: Option<f64>,
    list: Vec<f64>,
    at: Option<Timestamp>,
    json: Json<serde_json::Value>,
}

#[derive(Row, Default, Clone)]
struct PrivateNumbers {
    number: f64,
}

impl lantern_sdk::window::Combine for PrivateNumbers {
    fn combine(&mut self, later: Self) {
        self.number += later.number;
    }
}

impl Projection for Fallible {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["*"])
            .event_time(Duration::ZERO, Duration::from_secs(1))
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let row = self.rows.row("row")?;
        match event.kind() {
            "number" => row.number = f64::NAN,
            "maybe" => row.maybe = Some(f64::INFINITY),
            "list" => row.list.push(f64::NEG_INFINITY),
            "at" => row.at = Some(Timestamp::MAX),
            "deep" => {
                let mut value = serde_json::Value::Null;
                for _ in 0..65 {
                    value = serde_json::Value::Array(vec![value]);
                }
                row.json.0 = value;
            }
            "window" => {
                let nan = |row: &mut PrivateNumbers| row.number = f64::NAN;
                self.open.add(event, Duration::from_secs(9), "key", nan)?;
            }
            _ => row.number += 1.0,
        }
        Ok(())
    }
}

#[test]
fn an_event_that_leaves_a_row_which_cannot_be_stored_fails_itself_for_every_cut() {
    let kinds = ["good", "number", "good", "maybe", "list", "good", "at", "deep", "window", "good"];
    let events: Vec<TestEvent> = kinds.map(TestEvent::new).into();
    let outcome = check_determinism::<Fallible>("", &events);
    let parked: Vec<_> =
        outcome.parked.iter().map(|parked| kinds[parked.offset as usize]).collect();
    assert_eq!(parked, ["number", "maybe", "list", "at", "deep", "window"]);
    let reasons = outcome.parked.iter().map(|parked| &*parked.reason);
    for (reason, why) in reasons.zip([
        "field `number` is NaN",
        "field `maybe` is inf",
        "field `list` is -inf",
        "field `at` is",
        "field `json`: arrays and objects are nested more than 64 deep",
        "field `number` is NaN",
    ]) {
        assert!(reason.contains(why), "{reason}");
    }
}

/// Rows whose errors appear only when the rows are sent to the host.
#[derive(Tables)]
struct Lazy {
    #[table(private)]
    lazy: Table<LazyRow>,
    maps: Table<Mapped>,
}

struct LazyRow(bool);

impl lantern_sdk::Stored for LazyRow {
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.push(b'x');
        if self.0 { Ok(()) } else { Err(RowError::Malformed("it cannot be written")) }
    }

    fn decode(_: &[u8]) -> Result<Self, RowError> {
        Ok(Self(true))
    }
}

#[derive(Row, Default)]
struct Mapped {
    by_pair: Json<std::collections::BTreeMap<(u8, u8), u8>>,
}

impl Projection for Lazy {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        let manifest = lantern_sdk::manifest!().subscribe(["*"]).attributes([Attribute::Subject]);
        Ok(manifest.event_time(Duration::ZERO, Duration::from_secs(1)))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event.kind() {
            "map" => drop(self.maps.row("pairs")?.by_pair.0.insert((1, 2), 3)),
            "timer" => event.set_timer(event.time(), "alarm")?,
            kind => self.lazy.put(event.subject()?, LazyRow(kind == "good"))?,
        }
        Ok(())
    }

    fn on_timer(&mut self, _: &Timer<'_>) -> Result<(), Error> {
        self.lazy.put("rung", LazyRow(false))
    }
}

#[test]
fn a_row_that_cannot_be_sent_at_the_end_of_a_call_names_its_event_table_key_and_field() {
    for batch_size in [1, 3, 1_000] {
        let mut host = Harness::<Lazy>::new().batch_size(batch_size);
        let kinds = ["good", "bad", "good", "map", "good"];
        let subjects = ["s0", "s1", "s2", "s3", "s4"];
        let events = kinds.into_iter().zip(subjects);
        host.feed(events.map(|(kind, subject)| TestEvent::new(kind).subject(subject)));
        let parked: Vec<_> = host.parked().iter().map(|p| (p.offset, &*p.reason)).collect();
        let [(1, bad), (3, map)] = parked[..] else { panic!("{parked:?}") };
        assert!(bad.contains("`bad` at offset 1: table `lazy`: row \"s1\": it cannot"), "{bad}");
        assert!(map.contains("table `maps`: row \"pairs\": field `by_pair`: "), "{map}");
        let rows: Vec<_> = host.raw_rows("lazy").into_keys().collect();
        assert_eq!(rows, ["s0", "s2", "s4"]);
        // A timer can be the cause of a change too.
        let time = "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap();
        host.feed([TestEvent::new("timer").time(time)]);
        host.advance_to(time + Duration::from_secs(9));
        let [failure] = host.timer_failures() else { panic!("{:?}", host.timer_failures()) };
        assert!(
            failure.contains("alarm") && failure.contains("table `lazy`: row \"rung\""),
            "{failure}"
        );
    }
}

/// A row with sketches as its fields.
#[derive(Tables)]
struct Sketches {
    rows: Table<SketchRow>,
}

#[derive(Row, Default)]
struct SketchRow {
    users: Distinct,
    #[row(unit = "ms")]
    delay: Percentiles,
}

impl Projection for Sketches {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["*"]).attributes([Attribute::Subject]))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let row = self.rows.row("all")?;
        row.users.add(event.subject()?);
        row.delay.add(event.data()?);
        Ok(())
    }
}

#[test]
fn distinct_counts_and_percentiles_are_fields() {
    use lantern_sdk::{FieldKind, Merge};
    let [users, delay] = SketchRow::FIELDS else { panic!() };
    assert_eq!((users.kind, users.merge), (FieldKind::Distinct, Merge::Sketch));
    assert_eq!((delay.kind, delay.merge), (FieldKind::Percentiles, Merge::Sketch));

    let event = |n: u32| TestEvent::new("x").subject(format!("u{}", n % 70)).json(&n);
    let events: Vec<TestEvent> = (1..=100).map(event).collect();
    check_determinism::<Sketches>("", &events);
    let mut host = Harness::<Sketches>::new();
    host.feed(events);
    let row = host.row("rows", "all").unwrap();
    assert_eq!(row["users"]["estimate"], 70);
    assert_eq!((&row["delay"]["p50"], &row["delay"]["max"]), (&50.into(), &100.into()));
}
