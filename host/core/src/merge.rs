//! Makes one row of the rows that several partitions hold under one key.

use serde_json::{Map, Number, Value};

use crate::{Field, Merge};

/// Merges `rows`, JSON objects in order of partition, by the rule of each
/// field. `newest` is the place in `rows` of the partition whose event time is
/// furthest on. Fields that are not declared are taken from the first row; a
/// value that is not of its field's kind counts as absent.
///
/// Integers are added exactly and saturate at the bounds of 64 bits.
#[must_use]
pub fn merge_rows(fields: &[Field], rows: &[&[u8]], newest: usize) -> Vec<u8> {
    if let [only] = rows {
        return only.to_vec();
    }
    let objects: Vec<Map<String, Value>> =
        rows.iter().map(|row| serde_json::from_slice(row).unwrap_or_default()).collect();
    let mut merged = objects.first().cloned().unwrap_or_default();
    for field in fields {
        let mut values = objects.iter().filter_map(|o| o.get(&field.name)).filter(|v| !v.is_null());
        let value = match field.merge {
            Merge::Same => values.next().cloned(),
            Merge::Newest => objects
                .get(newest)
                .and_then(|o| o.get(&field.name))
                .or_else(|| values.next())
                .cloned(),
            Merge::Sum => values.cloned().reduce(|a, b| add(&a, &b)),
            Merge::Min => values.cloned().reduce(|a, b| if less(&b, &a) { b } else { a }),
            Merge::Max => values.cloned().reduce(|a, b| if less(&a, &b) { b } else { a }),
        };
        merged.insert(field.name.clone(), value.unwrap_or(Value::Null));
    }
    serde_json::to_vec(&merged).expect("a JSON object of strings always encodes")
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

fn less(a: &Value, b: &Value) -> bool {
    match (a, b) {
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

    #[test]
    fn each_rule_merges_its_field() {
        let field = |name: &str, merge| Field { name: name.into(), merge, ..Field::default() };
        let fields = [
            field("k", Merge::Same),
            field("n", Merge::Sum),
            field("lo", Merge::Min),
            field("hi", Merge::Max),
            field("last", Merge::Newest),
        ];
        let a = br#"{"k":"x","n":9007199254740993,"lo":3,"hi":"a","last":1}"#;
        let b = br#"{"k":"x","n":1,"lo":2.5,"hi":"b","last":2}"#;
        let merged: Value = serde_json::from_slice(&merge_rows(&fields, &[a, b], 1)).unwrap();
        let expected =
            serde_json::json!({"k":"x","n":9_007_199_254_740_994_i64,"lo":2.5,"hi":"b","last":2});
        assert_eq!(merged, expected);
    }
}
