//! Compares the results of random queries over random rows with those of SQLite.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rows;

use std::collections::BTreeMap;

use fastrand::Rng;
use lantern_core::{FieldKind, FieldSpec, FieldValue, KeyRange, TableSpec};
use lantern_query::{
    AggregateRequest, Budget, Cancel, ConditionRequest, GroupValue, PageSize, Plan, QueryConfig,
    QueryRequest,
};
use rows::Rows;
use rusqlite::Connection;
use rusqlite::types::Value;

const FIELDS: [(&str, FieldKind); 6] = [
    ("n", FieldKind::Integer),
    ("small", FieldKind::Integer),
    ("x", FieldKind::Number),
    ("name", FieldKind::Text),
    ("paid", FieldKind::Boolean),
    ("at", FieldKind::Timestamp),
];

fn table() -> TableSpec {
    let fields =
        FIELDS.map(|(name, kind)| FieldSpec { name: name.into(), kind, ..FieldSpec::default() });
    TableSpec { fields: fields.into(), ..TableSpec::default() }
}

/// The time 2026-03-01T00:00:00Z in seconds since 1970.
const START_S: i64 = 1_772_323_200;

fn time_text(seconds: i64) -> String {
    let day = (seconds - START_S).div_euclid(86_400);
    let second = (seconds - START_S).rem_euclid(86_400);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("2026-03-{:02}T{hour:02}:{minute:02}:{:02}Z", day + 1, second % 60)
}

const NAMES: [&str; 7] = ["DE", "FR", "De", "a \"b\"", "ä", "DEU", ""];

/// Creates random rows, in a map and in SQLite. Numbers are multiples of 1/4, so that sums are
/// exact in any order.
fn fill(rng: &mut Rng) -> (Rows, Connection) {
    let db = Connection::open_in_memory().unwrap();
    db.execute(
        "create table t (key text, n integer, small integer, x real, name text, paid integer, at integer)",
        [],
    )
    .unwrap();
    let mut rows = BTreeMap::new();
    for _ in 0..rng.usize(0..120) {
        let key = format!("k{:03}", rng.u32(0..1_000));
        let (mut members, mut values) = (Vec::new(), vec![Value::Text(key.clone())]);
        for (field, kind) in FIELDS {
            if rng.u8(0..6) == 0 {
                if rng.bool() {
                    members.push(format!("\"{field}\":null"));
                }
                values.push(Value::Null);
                continue;
            }
            let (json, value) = match kind {
                FieldKind::Integer if field == "small" => {
                    let value = rng.i64(-100..100);
                    (value.to_string(), Value::Integer(value))
                }
                FieldKind::Integer => {
                    let value = rng.i64(-5..5) * rng.i64(1..1_000_000_000_000);
                    (value.to_string(), Value::Integer(value))
                }
                FieldKind::Number => {
                    let value = f64::from(rng.i32(-40..40)) / 4.0;
                    let text = if rng.bool() { format!("{value}") } else { format!("{value:e}") };
                    (text, Value::Real(value))
                }
                FieldKind::Text => {
                    let name = NAMES[rng.usize(0..NAMES.len())];
                    (serde_json::to_string(name).unwrap(), Value::Text(name.into()))
                }
                FieldKind::Boolean => {
                    let value = rng.bool();
                    (value.to_string(), Value::Integer(value.into()))
                }
                _ => {
                    let seconds = START_S + rng.i64(0..20 * 86_400);
                    (format!("\"{}\"", time_text(seconds)), Value::Integer(seconds))
                }
            };
            members.push(format!("\"{field}\":{json}"));
            values.push(value);
        }
        if rows.contains_key(&key) {
            continue;
        }
        if rng.u8(0..5) == 0 {
            rng.shuffle(&mut members);
        }
        db.execute("insert into t values (?,?,?,?,?,?,?)", rusqlite::params_from_iter(values))
            .unwrap();
        rows.insert(key, format!("{{{}}}", members.join(",")));
    }
    (Rows(rows), db)
}

/// Creates a random condition, and the same condition in SQL.
fn condition(rng: &mut Rng) -> (ConditionRequest, String) {
    let (field, kind) = FIELDS[rng.usize(0..FIELDS.len())];
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let value = |rng: &mut Rng| match kind {
        FieldKind::Integer => {
            let value = rng.i64(-100..100).to_string();
            (value.clone(), value)
        }
        FieldKind::Number => {
            let value = (f64::from(rng.i32(-40..40)) / 4.0).to_string();
            (value.clone(), value)
        }
        FieldKind::Text => {
            let name = NAMES[rng.usize(0..NAMES.len())];
            (serde_json::to_string(name).unwrap(), quote(name))
        }
        FieldKind::Boolean => {
            let value = rng.bool();
            (value.to_string(), i32::from(value).to_string())
        }
        _ => {
            let seconds = START_S + rng.i64(0..20 * 86_400);
            (time_text(seconds), seconds.to_string())
        }
    };
    let null = rng.u8(0..8) == 0;
    let (text, sql) = match rng.u8(0..8) {
        _ if null && rng.bool() => (format!("{field} = null"), format!("{field} is null")),
        _ if null => (format!("{field} != null"), format!("{field} is not null")),
        0 => {
            let values: Vec<_> = (0..rng.usize(1..4)).map(|_| value(rng)).collect();
            let (texts, sqls): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            (format!("{field} in {}", texts.join(",")), format!("{field} in ({})", sqls.join(",")))
        }
        1 if kind == FieldKind::Text => {
            (format!("{field} prefix \"D\""), format!("substr({field}, 1, 1) = 'D'"))
        }
        other => {
            let operators: &[&str] = match kind {
                FieldKind::Boolean => &["=", "!="],
                _ => &["=", "!=", "<", "<=", ">", ">="],
            };
            let operator = operators[usize::from(other) % operators.len()];
            let (text, sql) = value(rng);
            (format!("{field}{operator}{text}"), format!("{field} {operator} {sql}"))
        }
    };
    (ConditionRequest::Text(text), sql)
}

fn conditions(rng: &mut Rng) -> (Vec<ConditionRequest>, String) {
    let (conditions, sqls): (Vec<_>, Vec<String>) =
        (0..rng.usize(0..3)).map(|_| condition(rng)).unzip();
    let sql = std::iter::once("1".to_owned()).chain(sqls).collect::<Vec<_>>().join(" and ");
    (conditions, sql)
}

fn answers(db: &Connection, sql: &str, columns: usize) -> Vec<Vec<Value>> {
    let mut statement = db.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = statement.query_map([], |row| (0..columns).map(|index| row.get(index)).collect());
    rows.unwrap().collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Returns whether SQLite's value equals ours.
fn same(ours: &GroupValue, sqlite: &Value) -> bool {
    match (ours, sqlite) {
        (None, Value::Null) => true,
        (Some(FieldValue::Integer(a)), Value::Integer(b)) => *a == i128::from(*b),
        (Some(FieldValue::Number(a)), Value::Real(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
        (Some(FieldValue::Text(a)), Value::Text(b)) => a == b,
        (Some(FieldValue::Boolean(a)), Value::Integer(b)) => i64::from(*a) == *b,
        (Some(FieldValue::Timestamp(a)), Value::Integer(b)) => *a == *b * 1_000_000,
        _ => false,
    }
}

/// Runs `check` with many seeds.
fn cases(count: u64, check: impl Fn(&mut Rng)) {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = first.unwrap_or_else(|| fastrand::u64(..));
    for case in 0..count {
        let seed = seed.wrapping_add(case);
        println!("SEED={seed}");
        check(&mut Rng::with_seed(seed));
    }
}

#[test]
fn pages_of_rows_are_those_of_sqlite() {
    cases(400, |rng| {
        let (rows, db) = fill(rng);
        let (conditions, sql) = conditions(rng);
        let by_key = rng.u8(0..4) == 0;
        let field = if by_key { "key" } else { FIELDS[rng.usize(0..FIELDS.len())].0 };
        let descending = rng.bool();
        let (sign, direction) = if descending { ("-", "desc") } else { ("", "asc") };
        let sql =
            format!("select key from t where {sql} order by {field} {direction} nulls last, key");
        let expected: Vec<String> = answers(&db, &sql, 1)
            .into_iter()
            .map(|row| match &row[0] {
                Value::Text(key) => key.clone(),
                other => panic!("a key is {other:?}"),
            })
            .collect();
        let request = QueryRequest {
            conditions,
            order: Some(format!("{sign}{field}")),
            ..QueryRequest::default()
        };
        let plan = Plan::new(&table(), &request).unwrap();
        let size = PageSize { rows: rng.usize(1..20), bytes: rng.usize(1..10_000) };
        let config = QueryConfig::default();
        let (mut found, mut after, mut range) = (Vec::new(), None, KeyRange::all());
        loop {
            let mut budget = Budget::new(&config, Cancel::default());
            let page = plan.rows(&rows, &range, after.as_ref(), size, &mut budget).unwrap();
            assert!(page.rows.len() <= size.rows);
            for row in &page.rows {
                assert_eq!(row.value, rows.0[&row.key].as_bytes());
            }
            found.extend(page.rows.into_iter().map(|row| row.key));
            let Some(next) = page.next else { break };
            if by_key && descending {
                range.end = Some(next.key.clone().into_bytes());
            } else if by_key {
                range.start = format!("{}\0", next.key).into_bytes();
            }
            after = Some(next);
        }
        assert_eq!(found, expected, "{request:?} {sql}");
    });
}

/// Creates a random aggregate, and the same aggregate in SQL over the rows `g` of one group.
fn aggregate(rng: &mut Rng, by: &[&str], bucketed: bool) -> (AggregateRequest, String) {
    let call = |function: &str, field: Option<&str>| AggregateRequest {
        name: None,
        function: function.into(),
        field: field.map(str::to_owned),
    };
    let any = FIELDS[rng.usize(0..FIELDS.len())].0;
    let number = ["n", "small", "x"][rng.usize(0..3)];
    // A condition that selects the rows of the same group. It is needed for aggregates for which
    // SQLite has no function.
    let mut group: Vec<String> = by.iter().map(|field| format!("g.{field} is f.{field}")).collect();
    if bucketed {
        group.push("g.bucket = f.bucket".into());
    }
    group.push("1".into());
    let group = group.join(" and ");
    match rng.u8(0..9) {
        0 => (call("count", None), "count(*)".into()),
        1 => (call("count", Some(any)), format!("count({any})")),
        2 => (call("sum", Some(number)), format!("sum({number})")),
        3 => (call("avg", Some(number)), format!("avg({number})")),
        4 => (call("min", Some(any)), format!("min({any})")),
        5 => (call("max", Some(any)), format!("max({any})")),
        6 => (call("distinct", Some(any)), format!("count(distinct {any})")),
        7 => {
            let (function, direction) =
                if rng.bool() { ("first", "asc") } else { ("last", "desc") };
            let sql = format!(
                "(select {any} from filtered g where {group} and {any} is not null order by at {direction}, key {direction} limit 1)"
            );
            (call(function, Some(any)), sql)
        }
        _ => {
            let percent = rng.u8(1..100);
            let sql = format!(
                "(select small from (select small, row_number() over (order by small) as place, count(*) over () as total from filtered g where {group} and small is not null) where place = max(1, (total * {percent} + 99) / 100))"
            );
            (call(&format!("p{percent}"), Some("small")), sql)
        }
    }
}

/// Returns all groups of a query, read in pages of `page` groups each.
fn all_groups(rows: &Rows, request: &QueryRequest, page: usize) -> Vec<Vec<GroupValue>> {
    let plan = Plan::new(&table(), request).unwrap();
    let size = PageSize { rows: page, bytes: usize::MAX };
    let config = QueryConfig::default();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut budget = Budget::new(&config, Cancel::default());
        let page = plan.groups(rows, &KeyRange::all(), after.as_ref(), size, &mut budget).unwrap();
        found.extend(page.groups);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn roll_ups_are_those_of_sqlite() {
    cases(600, |rng| {
        let (rows, db) = fill(rng);
        let (conditions, filter) = conditions(rng);
        let bucket = rng.bool().then(|| {
            let lengths =
                [("30s", 30), ("15m", 900), ("1h", 3_600), ("7h", 25_200), ("1d", 86_400)];
            lengths[rng.usize(0..lengths.len())]
        });
        let mut fields: Vec<&str> = FIELDS.map(|(name, _)| name).into();
        rng.shuffle(&mut fields);
        // The column of the bucket has the name of the time field, so this field cannot be a column
        // of its own.
        fields.retain(|field| *field != "at" || bucket.is_none());
        let by: Vec<&str> = fields.into_iter().take(rng.usize(0..3)).collect();
        let (mut aggregates, mut columns) =
            (Vec::new(), by.iter().map(|f| f.to_string()).collect::<Vec<_>>());
        for index in 0..rng.usize(1..4) {
            let (mut aggregate, sql) = aggregate(rng, &by, bucket.is_some());
            aggregate.name = Some(format!("a{index}"));
            aggregates.push(aggregate);
            columns.push(format!("{sql} as a{index}"));
        }
        let start = rng.bool().then(|| START_S + rng.i64(0..10 * 86_400));
        let end = rng.bool().then(|| START_S + rng.i64(10..20) * 86_400);
        let mut filter = format!("{filter} and at is not null");
        filter += &start.map(|start| format!(" and at >= {start}")).unwrap_or_default();
        filter += &end.map(|end| format!(" and at < {end}")).unwrap_or_default();
        let seconds = bucket.map_or(1, |(_, seconds)| seconds);
        let mut groups: Vec<String> = by.iter().map(|field| format!("f.{field}")).collect();
        if bucket.is_some() {
            columns.insert(0, "f.bucket".into());
            groups.insert(0, "f.bucket".into());
        }
        let column = rng.usize(0..columns.len());
        let descending = rng.bool();
        let (sign, direction) = if descending { ("-", "desc") } else { ("", "asc") };
        let mut order = vec![format!("{} {direction} nulls last", column + 1)];
        order.extend((1..=groups.len()).map(|place| format!("{place} nulls last")));
        let group_by = if groups.is_empty() {
            String::new()
        } else {
            format!("group by {}", groups.join(","))
        };
        let sql = format!(
            "with filtered as (select *, at / {seconds} * {seconds} as bucket from t where {filter}) select {}, count(*) from filtered f {group_by} order by {}",
            columns.join(","),
            order.join(","),
        );
        // `count(*)` is not compared. It is there because it makes SQLite group rows even if there
        // is no other aggregate.
        let expected = answers(&db, &sql, columns.len());
        let mut request = QueryRequest {
            conditions,
            time: Some("at".into()),
            start: start.map(time_text),
            end: end.map(time_text),
            bucket: bucket.map(|(text, _)| text.into()),
            by: by.iter().map(|field| (*field).to_owned()).collect(),
            aggregates,
            ..QueryRequest::default()
        };
        let plan = Plan::new(&table(), &request).unwrap();
        request.order = Some(format!("{sign}{}", plan.columns()[column].name));
        let found = all_groups(&rows, &request, rng.usize(1..30));
        assert_eq!(found.len(), expected.len(), "{request:?}\n{sql}\n{found:?}\n{expected:?}");
        for (ours, sqlite) in found.iter().zip(&expected) {
            let equal = ours.iter().zip(sqlite).all(|(ours, sqlite)| same(ours, sqlite));
            assert!(equal, "{request:?}\n{sql}\n{ours:?}\n{sqlite:?}");
        }
    });
}
