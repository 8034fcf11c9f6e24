//! Merges the rows that several partitions have under one key into one row.

use lantern_sketch::{Distinct, Percentiles};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::{FieldKind, Merge, TableSpec, parse_rfc3339};

/// Merges `rows`, the rows of one key of `table` in several partitions, by the rule of each field.
/// `rows` are JSON objects in order of partition. Members that are not declared are taken from the
/// first row. A value that does not have its field's kind counts as absent.
///
/// The result depends only on the rows, so it changes only if one of the rows changes. Integers are
/// added exactly; a sum outside of 64 bits is set to the bound.
#[must_use]
pub fn merge_rows(table: &TableSpec, rows: &[&[u8]]) -> Vec<u8> {
    if let [only] = rows {
        return only.to_vec();
    }
    let objects: Vec<Map<String, Value>> =
        rows.iter().map(|row| serde_json::from_slice(row).unwrap_or_default()).collect();
    let newest = table.newest_by.as_ref().and_then(|field| newest(&objects, field));
    let mut merged = objects.first().cloned().unwrap_or_default();
    for field in &table.fields {
        let mut values = objects.iter().filter_map(|o| o.get(&field.name)).filter(|v| !v.is_null());
        let value = match field.merge {
            Merge::Same => values.next().cloned(),
            Merge::Newest => newest.and_then(|row| row.get(&field.name)).cloned(),
            Merge::Sum => values.cloned().reduce(|a, b| add(&a, &b)),
            Merge::Min => {
                values.cloned().reduce(|a, b| if less(field.kind, &b, &a) { b } else { a })
            }
            Merge::Max => {
                values.cloned().reduce(|a, b| if less(field.kind, &a, &b) { b } else { a })
            }
            Merge::Sketch if field.kind == FieldKind::Distinct => union(values, Distinct::merge),
            Merge::Sketch => union(values, Percentiles::merge),
        };
        merged.insert(field.name.clone(), value.unwrap_or(Value::Null));
    }
    serde_json::to_vec(&merged).expect("a JSON object of strings always encodes")
}

/// Returns the row with the latest time in `field`. A row without a time counts as the oldest. If
/// several rows have the latest time, the function returns the row of the highest partition among
/// them.
fn newest<'a>(rows: &'a [Map<String, Value>], field: &str) -> Option<&'a Map<String, Value>> {
    rows.iter().max_by_key(|row| row.get(field).and_then(Value::as_str).and_then(parse_rfc3339))
}

/// Returns the union of those values that are sketches; `None` if no value is a sketch.
fn union<'a, S: Deserialize<'a> + Serialize>(
    values: impl Iterator<Item = &'a Value>,
    merge: fn(&mut S, &S),
) -> Option<Value> {
    let sketches = values.filter_map(|value| S::deserialize(value).ok());
    let union = sketches.reduce(|mut a, b| {
        merge(&mut a, &b);
        a
    })?;
    serde_json::to_value(union).ok()
}

fn add(a: &Value, b: &Value) -> Value {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Value::from(a.saturating_add(b)),
        _ => {
            let sum = a.as_f64().unwrap_or(0.0) + b.as_f64().unwrap_or(0.0);
            Number::from_f64(sum).map_or(Value::Null, Value::Number)
        }
    }
}

fn less(kind: FieldKind, a: &Value, b: &Value) -> bool {
    match (a, b) {
        // Timestamps are compared as times. As texts, a time with a fraction would sort before the
        // same second without one.
        (Value::String(a), Value::String(b)) if kind == FieldKind::Timestamp => {
            parse_rfc3339(a) < parse_rfc3339(b)
        }
        (Value::String(a), Value::String(b)) => a < b,
        (Value::Bool(a), Value::Bool(b)) => a < b,
        _ => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a < b,
            _ => a.as_f64() < b.as_f64(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldSpec;

    fn field(name: &str, merge: Merge) -> FieldSpec {
        FieldSpec { name: name.into(), merge, ..FieldSpec::default() }
    }

    #[test]
    fn each_rule_merges_its_field() {
        let fields = vec![
            field("k", Merge::Same),
            field("n", Merge::Sum),
            field("lo", Merge::Min),
            field("hi", Merge::Max),
        ];
        let table = TableSpec { fields, ..TableSpec::default() };
        let a = br#"{"k":"x","n":9007199254740993,"lo":3,"hi":"a"}"#;
        let b = br#"{"k":"x","n":1,"lo":2.5,"hi":"b"}"#;
        let merged: Value = serde_json::from_slice(&merge_rows(&table, &[a, b])).unwrap();
        let expected = serde_json::json!({"k":"x","n":9_007_199_254_740_994_i64,"lo":2.5,"hi":"b"});
        assert_eq!(merged, expected);
    }

    #[test]
    fn the_extremes_of_timestamps_are_those_of_time() {
        let time = |name, merge| FieldSpec { kind: FieldKind::Timestamp, ..field(name, merge) };
        let fields = vec![time("lo", Merge::Min), time("hi", Merge::Max)];
        let table = TableSpec { fields, ..TableSpec::default() };
        let (early, late) = ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.500Z");
        let row = |at: &str| format!(r#"{{"lo":"{at}","hi":"{at}"}}"#);
        for rows in [[row(early), row(late)], [row(late), row(early)]] {
            let rows: Vec<&[u8]> = rows.iter().map(|row| row.as_bytes()).collect();
            let merged: Value = serde_json::from_slice(&merge_rows(&table, &rows)).unwrap();
            assert_eq!(merged, serde_json::json!({"lo": early, "hi": late}));
        }
    }

    #[test]
    fn sketches_are_merged_to_that_of_all_values() {
        let sketch = |name: &str, kind| FieldSpec { kind, ..field(name, Merge::Sketch) };
        let fields =
            vec![sketch("users", FieldKind::Distinct), sketch("ms", FieldKind::Percentiles)];
        let table = TableSpec { fields, ..TableSpec::default() };
        let row = |values: std::ops::Range<i64>| {
            let (mut users, mut ms) = (Distinct::new(), Percentiles::new());
            for value in values {
                users.add_integer(value);
                ms.add(value);
            }
            serde_json::json!({"users": users, "ms": ms})
        };
        let merged = |rows: &[Value]| -> Value {
            let rows: Vec<Vec<u8>> = rows.iter().map(|row| row.to_string().into()).collect();
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            serde_json::from_slice(&merge_rows(&table, &rows)).unwrap()
        };
        let all = row(0..2_000);
        assert_eq!(merged(&[row(0..1_500), row(1_500..1_700), row(1_700..2_000)])["ms"], all["ms"]);
        assert_eq!(merged(&[row(0..1_500), row(900..2_000)])["users"], all["users"]);
        // A value that is not a sketch counts as absent.
        let wrong = serde_json::json!({"users": 7, "ms": {"count": 1}});
        assert_eq!(merged(&[wrong.clone(), all.clone()]), all);
        let none = serde_json::json!({"users": null, "ms": null});
        assert_eq!(merged(&[wrong, serde_json::json!({})]), none);
    }

    #[test]
    fn the_rows_alone_tell_the_newest_value() {
        let fields = vec![field("at", Merge::Max), field("last", Merge::Newest)];
        let table = TableSpec { fields, newest_by: Some("at".into()), ..TableSpec::default() };
        let last = |rows: &[&str]| {
            let rows: Vec<&[u8]> = rows.iter().map(|row| row.as_bytes()).collect();
            let merged: Value = serde_json::from_slice(&merge_rows(&table, &rows)).unwrap();
            merged["last"].clone()
        };
        let (early, late) = ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z");
        let row = |at: &str, last: &str| format!(r#"{{"at":"{at}","last":{last}}}"#);
        assert_eq!(last(&[&row(late, "1"), &row(early, "2")]), 1);
        assert_eq!(last(&[&row(early, "1"), &row(late, "2")]), 2);
        assert_eq!(last(&[&row(late, "null"), &row(early, "2")]), Value::Null, "not an older one");
        assert_eq!(last(&[&row(late, "1"), &row(late, "2")]), 2, "the higher partition");
        assert_eq!(last(&[&row("2026-03-01T13:00:01+01:00", "1"), &row(late, "2")]), 1);
        assert_eq!(last(&[&row(early, "1"), r#"{"last":2}"#]), 1, "no time is the oldest");
    }
}
