//! Tests the limits of a query. At each limit the query ends with an error that names the setting.
//! It also ends when it is cancelled. A query that cannot run is refused with an error that names
//! the parameter and says what to do.
#![allow(clippy::unwrap_used, reason = "tests")]

use lantern_core::{FieldKind, FieldSpec, FieldValue, KeyRange, RowSource, StoreError, TableSpec};
use lantern_query::{
    AggregateRequest, Budget, Cancel, ConditionRequest, PageSize, Plan, QueryConfig, QueryError,
    QueryRequest,
};

/// A source of `count` rows, which are generated while they are read. The time of row `i` is `i`
/// minutes after 2026-03-01.
struct Generated(u32);

impl RowSource for Generated {
    fn each_row(
        &self,
        _: &KeyRange,
        _: bool,
        take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for i in 0..self.0 {
            let (day, hour, minute) = (1 + i / 1_440, i / 60 % 24, i % 60);
            let row = format!(
                "{{\"n\":{i},\"big\":9223372036854775807,\"huge\":1e308,\"wide\":18446744073709551615,\"name\":\"name {i}\",\"at\":\"2026-03-{day:02}T{hour:02}:{minute:02}:00Z\"}}"
            );
            if !take(format!("{i:08}").as_bytes(), row.as_bytes()) {
                break;
            }
        }
        Ok(())
    }
}

fn table() -> TableSpec {
    let field = |name: &str, kind| FieldSpec { name: name.into(), kind, ..FieldSpec::default() };
    let fields = vec![
        field("n", FieldKind::Integer),
        field("big", FieldKind::Integer),
        field("huge", FieldKind::Number),
        field("wide", FieldKind::Integer),
        field("name", FieldKind::Text),
        field("at", FieldKind::Timestamp),
        field("doc", FieldKind::Json),
    ];
    TableSpec { fields, ..TableSpec::default() }
}

const SIZE: PageSize = PageSize { rows: 100_000, bytes: usize::MAX };

fn by(field: &str, call: &str) -> QueryRequest {
    QueryRequest {
        by: vec![field.into()],
        aggregates: AggregateRequest::parse_all(call).unwrap(),
        ..QueryRequest::default()
    }
}

fn run(
    request: &QueryRequest,
    rows: u32,
    config: &QueryConfig,
    cancel: Cancel,
) -> Result<usize, QueryError> {
    let plan = Plan::new(&table(), request).unwrap();
    let mut budget = Budget::new(config, cancel);
    let (source, range) = (Generated(rows), KeyRange::all());
    if plan.is_roll_up() {
        plan.groups(&source, &range, None, SIZE, &mut budget).map(|page| page.groups.len())
    } else {
        plan.rows(&source, &range, None, SIZE, &mut budget).map(|page| page.rows.len())
    }
}

#[test]
fn a_query_ends_at_its_limit_and_names_the_setting() {
    let config = QueryConfig {
        rows_scanned_max: 5_000,
        groups_max: 100,
        memory_bytes_max: 48 << 10,
        ..QueryConfig::default()
    };
    let sketches = by("at", "distinct(name),p50(n)");
    let minutes = QueryRequest {
        bucket: Some("1s".into()),
        fill: Some("zero".into()),
        aggregates: AggregateRequest::parse_all("count()").unwrap(),
        ..QueryRequest::default()
    };
    let filtered = QueryRequest {
        conditions: vec![ConditionRequest::Text("n < 0".into())],
        ..QueryRequest::default()
    };
    let ordered = QueryRequest { order: Some("-n".into()), ..QueryRequest::default() };
    let one = QueryRequest { by: Vec::new(), ..by("name", "distinct(name)") };
    for (request, rows, setting) in [
        (&filtered, 5_001, Some("rows_scanned_max")),
        (&filtered, 5_000, None),
        (&by("name", "count()"), 101, Some("groups_max")),
        (&by("name", "count()"), 100, None),
        (&sketches, 100, Some("memory_bytes_max")),
        (&ordered, 2_000, Some("memory_bytes_max")),
        (&minutes, 3, Some("groups_max")),
        (&one, 5_000, None),
    ] {
        match (run(request, rows, &config, Cancel::default()), setting) {
            (Ok(_), None) => {}
            (Err(QueryError::Limit { setting: found, .. }), Some(setting)) => {
                assert_eq!(found, setting, "{request:?}");
            }
            (other, setting) => panic!("{request:?}: {other:?} and not {setting:?}"),
        }
    }
    let error = run(&filtered, 5_001, &config, Cancel::default()).unwrap_err().to_string();
    assert!(error.contains("5000") && error.contains("query.rows_scanned_max"), "{error}");
}

#[test]
fn a_query_ends_when_its_time_is_over_or_it_is_cancelled() {
    let request = by("name", "count()");
    let config = QueryConfig { run_ms_max: 1, groups_max: 10_000_000, ..QueryConfig::default() };
    let error = run(&request, 3_000_000, &config, Cancel::default()).unwrap_err();
    assert!(matches!(error, QueryError::Limit { setting: "run_ms_max", .. }), "{error}");
    let cancel = Cancel::default();
    cancel.cancel();
    let error = run(&request, 100_000, &QueryConfig::default(), cancel).unwrap_err();
    assert!(matches!(error, QueryError::Cancelled), "{error}");
}

#[test]
fn sums_are_exact_or_an_error() {
    let config = QueryConfig::default();
    let total = QueryRequest {
        aggregates: AggregateRequest::parse_all("sum(big) as total").unwrap(),
        ..QueryRequest::default()
    };
    // 2^64 - 2 can be written, but the sum of three such numbers cannot.
    let plan = Plan::new(&table(), &total).unwrap();
    let mut budget = Budget::new(&config, Cancel::default());
    let page = plan.groups(&Generated(2), &KeyRange::all(), None, SIZE, &mut budget).unwrap();
    assert_eq!(page.groups, [[Some(FieldValue::Integer(2 * i128::from(i64::MAX)))]]);
    let error = run(&total, 3, &config, Cancel::default()).unwrap_err().to_string();
    assert!(error.contains("`total` does not fit"), "{error}");
    let percentile = QueryRequest {
        aggregates: AggregateRequest::parse_all("count(),p50(wide) as w").unwrap(),
        ..QueryRequest::default()
    };
    let error = run(&percentile, 1, &config, Cancel::default()).unwrap_err().to_string();
    assert!(error.contains("`w` does not fit: percentiles take integers below 2^63"), "{error}");
    let numbers = QueryRequest {
        aggregates: AggregateRequest::parse_all("sum(huge)").unwrap(),
        ..QueryRequest::default()
    };
    assert!(matches!(
        run(&numbers, 3, &config, Cancel::default()),
        Err(QueryError::OutOfRange { .. })
    ));
}

#[test]
fn empty_buckets_are_filled() {
    let fill = |fill: &str, start: &str, end: &str| {
        let request = QueryRequest {
            conditions: vec![ConditionRequest::Text("n in 1,121".into())],
            start: Some(start.into()),
            end: Some(end.into()),
            bucket: Some("1h".into()),
            aggregates: AggregateRequest::parse_all("count(),sum(n) as s,max(n) as m").unwrap(),
            fill: Some(fill.into()),
            tz: Some("Europe/Berlin".into()),
            ..QueryRequest::default()
        };
        let plan = Plan::new(&table(), &request).unwrap();
        let config = QueryConfig::default();
        let mut budget = Budget::new(&config, Cancel::default());
        let page = plan.groups(&Generated(200), &KeyRange::all(), None, SIZE, &mut budget).unwrap();
        let mut out = Vec::new();
        page.groups.iter().for_each(|group| plan.write_group(group, &mut out));
        String::from_utf8(out).unwrap()
    };
    let (start, end) = ("2026-03-01T00:00:00Z", "2026-03-01T03:00:00Z");
    assert_eq!(
        fill("zero", start, end),
        r#"{"at":"2026-03-01T01:00:00+01:00","count":1,"s":1,"m":1}{"at":"2026-03-01T02:00:00+01:00","count":0,"s":0,"m":null}{"at":"2026-03-01T03:00:00+01:00","count":1,"s":121,"m":121}"#
    );
    assert!(fill("null", start, end).contains(r#""count":null,"s":null,"m":null"#));
    assert!(fill("previous", start, end).contains(
        r#""count":1,"s":1,"m":1}{"at":"2026-03-01T02:00:00+01:00","count":1,"s":1,"m":1}"#
    ));
    // Before the first value, there is no previous value.
    assert!(fill("previous", "2026-02-28", "2026-02-28T01:00").contains(r#""count":null"#));
    assert!(
        fill("zero", "2026-02-28", "2026-02-28T02:00").contains(r#"01:00:00+01:00","count":0"#)
    );
}

#[test]
fn a_wrong_query_names_the_parameter_and_the_fix() {
    let text = |text: &str| Some(text.to_owned());
    let empty = QueryRequest::default;
    for (request, words) in [
        (
            QueryRequest { columns: Some(vec!["nam".into()]), ..empty() },
            &["`cols`", "did you mean `name`?"][..],
        ),
        (
            QueryRequest { columns: Some(vec!["n".into(), "n".into()]), ..empty() },
            &["`cols`", "`n` twice"],
        ),
        (
            QueryRequest { order: text("-cents"), ..empty() },
            &["`order`", "no field `cents`; it has `n`"],
        ),
        (QueryRequest { order: text("doc"), ..empty() }, &["`order`", "`json`", "no order"]),
        (
            QueryRequest { conditions: vec![ConditionRequest::Text("n = x".into())], ..empty() },
            &["`where`", "`x`", "`n`"],
        ),
        (QueryRequest { time: text("n"), ..empty() }, &["`time`", "`integer`", "`timestamp`"]),
        (QueryRequest { start: text("soon"), ..empty() }, &["`start`", "`soon`", "RFC 3339"]),
        (
            QueryRequest { start: text("2026-03-02"), end: text("2026-03-01"), ..empty() },
            &["`end`", "before `start`"],
        ),
        (QueryRequest { bucket: text("5"), ..empty() }, &["`bucket`", "`5`", "`15m`"]),
        (QueryRequest { tz: text("Mars"), ..empty() }, &["`tz`", "`Mars`", "Europe/Berlin"]),
        (QueryRequest { fill: text("zero"), ..empty() }, &["`fill`", "needs `bucket`"]),
        (
            QueryRequest { fill: text("nil"), bucket: text("1h"), ..empty() },
            &["`fill`", "`nil`", "`previous`"],
        ),
        (by("doc", "count()"), &["`by`", "`doc`", "`json`"]),
        (by("n", "median(n)"), &["`agg`", "`median`", "`p1` to `p99`"]),
        (by("n", "sum()"), &["`agg`", "needs a field", "`sum(n)`"]),
        (by("n", "sum(name)"), &["`agg`", "`name`", "`text`", "`integer` and `number`"]),
        (by("n", "p100(n)"), &["`agg`", "`p100`"]),
        (by("n", "count() as n"), &["`agg`", "two columns `n`"]),
        (
            QueryRequest { order: text("-coun"), ..by("n", "count()") },
            &["`order`", "did you mean `count`?", "`n`, `count`"],
        ),
        (
            QueryRequest { columns: Some(vec!["n".into()]), ..by("n", "count()") },
            &["`cols`", "leave `cols` out"],
        ),
    ] {
        let error = Plan::new(&table(), &request).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{request:?}: {error} lacks {word}");
        }
    }
    let many: Vec<String> = (0..64).map(|index| format!("count() as c{index}")).collect();
    let error = Plan::new(&table(), &by("n", &many.join(","))).unwrap_err().to_string();
    assert!(error.contains("65 columns: the limit is 64"), "{error}");
    let two = TableSpec {
        fields: ["a", "b"]
            .map(|name| FieldSpec {
                name: name.into(),
                kind: FieldKind::Timestamp,
                ..FieldSpec::default()
            })
            .into(),
        ..TableSpec::default()
    };
    let error = Plan::new(&two, &QueryRequest { bucket: text("1h"), ..empty() }).unwrap_err();
    assert!(error.to_string().contains("name one with `time`, such as `a` or `b`"), "{error}");
}
