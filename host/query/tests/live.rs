//! Checks live roll-ups: after random changes of rows, a roll-up always has the groups that a query
//! of the same rows returns. The roll-ups are random too. Prints its seed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rows;

use std::collections::BTreeMap;

use fastrand::Rng;
use lantern_core::{
    FieldKind, FieldSpec, KeyRange, RollUp, RollUpError, RollUpRequest, RollUps as _, TableSpec,
};
use lantern_query::{
    AggregateRequest, Budget, Cancel, ConditionRequest, LiveRollUps, PageSize, Plan, QueryConfig,
    QueryRequest,
};
use rows::Rows;
use serde_json::json;

fn table() -> TableSpec {
    let field = |name: &str, kind| FieldSpec { name: name.into(), kind, ..FieldSpec::default() };
    let fields = vec![
        field("country", FieldKind::Text),
        field("n", FieldKind::Integer),
        field("x", FieldKind::Number),
        field("at", FieldKind::Timestamp),
        field("ok", FieldKind::Boolean),
    ];
    TableSpec { fields, ..TableSpec::default() }
}

/// A random row. Fields may be missing, and values occur several times.
fn row(rng: &mut Rng) -> String {
    let mut members = Vec::new();
    let has = |rng: &mut Rng| rng.u8(..8) != 0;
    if has(rng) {
        members.push(format!("\"country\":\"{}\"", ["DE", "FR", "é\\\"", ""][rng.usize(..4)]));
    }
    if has(rng) {
        members.push(format!("\"n\":{}", rng.i64(-5..5)));
    }
    if has(rng) {
        let x = ["0.1", "-0.0", "0", "1e300", "-1e300", "2.5", "1e-310", "0.30000000000000004"];
        members.push(format!("\"x\":{}", x[rng.usize(..8)]));
    }
    if has(rng) {
        let (day, hour) = (rng.u8(27..30), rng.u8(..24));
        members.push(format!("\"at\":\"2026-03-{day}T{hour:02}:00:00Z\""));
    }
    if has(rng) {
        members.push(format!("\"ok\":{}", rng.bool()));
    }
    format!("{{{}}}", members.join(","))
}

fn request(rng: &mut Rng) -> RollUpRequest {
    let mut request = RollUpRequest::default();
    if rng.bool() {
        let field = ["country", "n", "x", "ok", "at"][rng.usize(..5)];
        request.by.push(field.into());
        if rng.u8(..4) == 0 && field != "ok" {
            request.by.push("ok".into());
        }
    }
    if rng.bool() && !request.by.contains(&"at".to_owned()) {
        request.bucket = Some(["6h", "1d", "1w"][rng.usize(..3)].into());
        request.tz = rng.bool().then(|| "Europe/Berlin".into());
        let fill = ["zero", "null", "previous"][rng.usize(..3)];
        request.fill = (rng.u8(..3) == 0).then(|| fill.into());
        if rng.u8(..4) == 0 {
            request.start = Some("2026-03-28".into());
            request.end = Some("2026-03-29T12:00:00Z".into());
        }
    } else if rng.bool() {
        request.time = Some("at".into());
    }
    if rng.u8(..3) == 0 {
        let conditions = [("n", ">=", json!(0)), ("country", "in", json!(["DE", "FR"]))];
        let (field, operator, value) = conditions[rng.usize(..2)].clone();
        request.conditions.push((field.into(), operator.into(), value));
    }
    let aggregates = [
        "count",
        "count n",
        "sum n",
        "sum x",
        "avg n",
        "avg x",
        "min n",
        "max x",
        "min country",
        "max at",
        "first n",
        "last country",
        "distinct country",
        "distinct x",
        "p50 n",
        "p95 n",
    ];
    for (place, aggregate) in aggregates.iter().enumerate() {
        if rng.u8(..4) == 0 {
            let call = aggregate.split(' ').map(str::to_owned).collect();
            request.aggregates.push((format!("a{place}"), call));
        }
    }
    if request.by.is_empty() && request.bucket.is_none() && request.aggregates.is_empty() {
        request.aggregates.push(("n".into(), vec!["count".into()]));
    }
    request
}

/// The groups that a query of `rows` returns, as JSON.
fn queried(request: &RollUpRequest, rows: &Rows) -> Vec<String> {
    let conditions = request.conditions.iter().cloned();
    let json = |(field, operator, value)| ConditionRequest::Json { field, operator, value };
    let aggregates = request.aggregates.iter().map(|(name, call)| AggregateRequest {
        name: Some(name.clone()),
        function: call[0].clone(),
        field: call.get(1).cloned(),
    });
    let query = QueryRequest {
        conditions: conditions.map(json).collect(),
        time: request.time.clone(),
        start: request.start.clone(),
        end: request.end.clone(),
        bucket: request.bucket.clone(),
        by: request.by.clone(),
        aggregates: aggregates.collect(),
        fill: request.fill.clone(),
        tz: request.tz.clone(),
        ..QueryRequest::default()
    };
    let config = QueryConfig::default();
    let plan = Plan::new(&table(), &query).unwrap();
    let mut budget = Budget::new(&config, Cancel::default());
    let size = PageSize { rows: usize::MAX, bytes: usize::MAX };
    let page = plan.groups(rows, &KeyRange::all(), None, size, &mut budget).unwrap();
    let text = |group: &Vec<_>| {
        let mut out = Vec::new();
        plan.write_group(group, &mut out);
        String::from_utf8(out).unwrap()
    };
    page.groups.iter().map(text).collect()
}

#[test]
fn a_live_roll_up_has_the_groups_that_a_query_returns() {
    let mut stale = 0;
    for seed in 0..600 {
        let mut rng = Rng::with_seed(seed);
        let request = request(&mut rng);
        let context = format!("seed {seed}: {request:?}");
        let live = LiveRollUps::new(QueryConfig::default());
        let mut live = live.roll_up(&table(), &request).unwrap();
        let mut rows = Rows::default();
        for key in 0..rng.usize(..40) {
            rows.0.insert(key.to_string(), row(&mut rng));
        }
        live.restart(&rows).unwrap();
        // The groups as a reader knows them, from the published changes alone.
        let mut shown: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..30 {
            let changes = live.publish().unwrap();
            for (key, row) in changes.up {
                let row = String::from_utf8(row).unwrap();
                assert_ne!(shown.insert(key, row.clone()), Some(row), "{context}");
            }
            for key in &changes.del {
                assert!(shown.remove(key).is_some(), "{context}");
            }
            let mut expected = queried(&request, &rows);
            let mut found: Vec<String> = shown.values().cloned().collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{context}");
            assert_eq!(shown.len(), live.groups().len());
            for _ in 0..rng.usize(..8) {
                let key = rng.u8(..50).to_string();
                let after = (rng.u8(..4) != 0).then(|| row(&mut rng));
                let before = match &after {
                    Some(after) => rows.0.insert(key, after.clone()),
                    None => rows.0.remove(&key),
                };
                let bytes = |row: &'_ Option<String>| row.clone().map(String::into_bytes);
                let (before, after) = (bytes(&before), bytes(&after));
                live.change(before.as_deref(), after.as_deref()).unwrap();
            }
            if rng.u8(..20) == 0 {
                live.restart(&rows).unwrap();
            }
            if live.is_stale() {
                stale += 1;
                live.read_stale(&rows).unwrap();
            }
        }
    }
    assert!(stale > 100, "only {stale} roll-ups had to read the rows again");
}

fn live(request: &RollUpRequest, config: QueryConfig) -> Box<dyn RollUp> {
    LiveRollUps::new(config).roll_up(&table(), request).unwrap()
}

fn by(field: &str, aggregate: &[&str]) -> RollUpRequest {
    let call = aggregate.iter().map(|part| (*part).to_owned()).collect();
    RollUpRequest {
        by: vec![field.into()],
        aggregates: vec![("a".into(), call)],
        ..RollUpRequest::default()
    }
}

#[test]
fn counts_sums_and_values_that_grow_need_no_second_read() {
    for call in [&["count"][..], &["sum", "x"], &["avg", "n"], &["max", "n"], &["distinct", "n"]] {
        let mut live = live(&by("country", call), QueryConfig::default());
        live.restart(&Rows::default()).unwrap();
        let row = |n: u32| format!("{{\"country\":\"DE\",\"n\":{n},\"x\":0.{n}}}").into_bytes();
        for n in 0..50 {
            live.change(None, Some(&row(n))).unwrap();
        }
        assert!(!live.is_stale(), "{call:?}");
        live.change(Some(&row(49)), Some(&row(50))).unwrap();
        assert_eq!(live.is_stale(), call[0] == "distinct", "{call:?}");
    }
}

#[test]
fn a_live_roll_up_ends_at_its_limits_and_names_the_setting() {
    let limited = |config: QueryConfig| {
        let mut live = live(&by("n", &["count"]), config);
        live.restart(&Rows::default()).unwrap();
        (0..200).find_map(|n| {
            let changed = live.change(None, Some(format!("{{\"n\":{n}}}").as_bytes()));
            match changed.and_then(|()| live.publish()) {
                Err(RollUpError::Limit { setting, detail }) => Some((setting, detail)),
                _ => None,
            }
        })
    };
    let config = QueryConfig { groups_max: 100, ..QueryConfig::default() };
    let (setting, detail) = limited(config).unwrap();
    assert_eq!(setting, "query.groups_max");
    assert!(detail.contains("100") && detail.contains("query.groups_max"), "{detail}");
    let config = QueryConfig { memory_bytes_max: 10_000, ..QueryConfig::default() };
    assert_eq!(limited(config).unwrap().0, "query.memory_bytes_max");
    assert_eq!(limited(QueryConfig::default()), None);
}

#[test]
fn memory_of_groups_that_went_is_given_back() {
    let mut live = live(&by("n", &["distinct", "country"]), QueryConfig::default());
    live.restart(&Rows::default()).unwrap();
    live.publish().unwrap();
    let empty = live.memory_bytes();
    for _ in 0..3 {
        for n in 0..100 {
            let row = format!("{{\"n\":{n},\"country\":\"DE\"}}");
            live.change(None, Some(row.as_bytes())).unwrap();
        }
        live.publish().unwrap();
        assert!(live.memory_bytes() > empty + 10_000);
        for n in 0..100 {
            let row = format!("{{\"n\":{n},\"country\":\"DE\"}}");
            live.change(Some(row.as_bytes()), None).unwrap();
        }
        assert_eq!(live.publish().unwrap().del.len(), 100);
        assert_eq!(live.memory_bytes(), empty);
    }
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_and_fits_again_after_a_deletion() {
    let mut live = live(&by("country", &["sum", "n"]), QueryConfig::default());
    let row = b"{\"country\":\"DE\",\"n\":18446744073709551615}";
    live.restart(&Rows::default()).unwrap();
    live.change(None, Some(row)).unwrap();
    live.change(None, Some(row)).unwrap();
    assert!(
        matches!(live.publish(), Err(RollUpError::OutOfRange(detail)) if detail.contains("`a`"))
    );
}

#[test]
fn keys_are_the_bucket_and_the_values_of_by() {
    let request = RollUpRequest {
        bucket: Some("1d".into()),
        tz: Some("Europe/Berlin".into()),
        ..by("country", &["count"])
    };
    let mut live = live(&request, QueryConfig::default());
    live.restart(&Rows::default()).unwrap();
    live.change(None, Some(b"{\"country\":\"a\\\"b\",\"at\":\"2026-03-01T23:30:00Z\"}")).unwrap();
    live.change(None, Some(b"{\"at\":\"2026-03-01T00:30:00Z\"}")).unwrap();
    let changes = live.publish().unwrap();
    let mut keys: Vec<_> = changes.up.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["[\"2026-03-01T00:00:00+01:00\",null]", "[\"2026-03-02T00:00:00+01:00\",\"a\\\"b\"]"]
    );
    let error = LiveRollUps::new(QueryConfig::default());
    let Err(error) = error.roll_up(&table(), &RollUpRequest::default()) else { panic!() };
    assert_eq!(error.parameter, "rollup");
}
