//! Decodes the declared members of the events' JSON payloads into columns, in Apache Arrow's
//! layout.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Column, FieldKind, Member, parse_rfc3339};

/// The values that one member of the payload has in all events of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberColumn {
    /// One bit for each event. The bit is 1 if the event has the member with a value of the
    /// declared kind. The bit of event `i` is bit `i % 8` of byte `i / 8`, counted from the least
    /// significant bit.
    pub validity: Vec<u8>,
    /// A value for each event. If event `i` has no valid value, its value here is 0, false or
    /// empty.
    pub values: MemberValues,
    /// The indexes, in order, of the events from which the member cannot be read. This is so if:
    ///
    /// * the payload is not a JSON object;
    /// * the payload has the member more than once;
    /// * the value is of another kind.
    pub mismatched: Vec<u32>,
}

/// The values of a [`MemberColumn`], by the member's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberValues {
    /// Whole numbers that fit 64 bits with a sign, written without fraction and exponent.
    Integers(Vec<i64>),
    /// RFC 3339 times, as microseconds since 1970.
    Timestamps(Vec<i64>),
    /// Numbers, each as the nearest double.
    Numbers(Vec<f64>),
    /// The values of a boolean member, as a bitmap like [`MemberColumn::validity`].
    Booleans(Vec<u8>),
    /// Strings with escapes decoded.
    Texts(Column),
    /// JSON text as it was sent.
    Jsons(Column),
}

/// Decodes the declared `members` in each payload of `data`, in one pass.
///
/// # Panics
/// Panics if `data` has 2^32 values or more; callers limit it far below.
#[must_use]
pub fn decode_members(members: &[Member], data: &Column) -> Vec<MemberColumn> {
    let mut columns: Vec<MemberColumn> =
        members.iter().map(|member| MemberColumn::with_capacity(member.kind, data.len())).collect();
    if members.is_empty() {
        return columns;
    }
    let mut lookup: Vec<MemberLookup<'_>> = vec![MemberLookup::Missing; members.len()];
    for (index, payload) in data.iter().enumerate() {
        let event = u32::try_from(index).expect("a batch holds fewer than 2^32 events");
        lookup.fill(MemberLookup::Missing);
        let mut payload = serde_json::Deserializer::from_slice(payload);
        let parsed = payload.deserialize_map(ObjectVisitor { members, lookup: &mut lookup });
        if parsed.and_then(|()| payload.end()).is_err() {
            lookup.fill(MemberLookup::Mismatched);
        }
        for (column, lookup) in columns.iter_mut().zip(&lookup) {
            column.push(event, *lookup);
        }
    }
    columns
}

/// What was found when one payload was searched for a member.
#[derive(Clone, Copy)]
enum MemberLookup<'a> {
    /// The event's data does not have the member.
    Missing,
    /// The member is `null`, which counts as missing.
    Null,
    /// The member has this value, as JSON text.
    Value(&'a str),
    /// The member occurs more than once, or the payload is not an object.
    Mismatched,
}

struct ObjectVisitor<'m, 'f, 'a> {
    members: &'m [Member],
    lookup: &'f mut [MemberLookup<'a>],
}

impl<'a> Visitor<'a> for ObjectVisitor<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(BorrowedName(name)) = map.next_key()? {
            let Some(index) = self.members.iter().position(|member| member.name == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &RawValue = map.next_value()?;
            self.lookup[index] = match (self.lookup[index], value.get()) {
                (MemberLookup::Missing, "null") => MemberLookup::Null,
                (MemberLookup::Missing, value) => MemberLookup::Value(value),
                _ => MemberLookup::Mismatched,
            };
        }
        Ok(())
    }
}

/// The name of a member. It is borrowed from the JSON text unless it has escapes.
#[derive(serde::Deserialize)]
struct BorrowedName<'a>(#[serde(borrow)] Cow<'a, str>);

impl MemberColumn {
    fn with_capacity(kind: FieldKind, events: usize) -> Self {
        let bytes = events.div_ceil(8);
        let values = match kind {
            FieldKind::Integer => MemberValues::Integers(Vec::with_capacity(events)),
            FieldKind::Timestamp => MemberValues::Timestamps(Vec::with_capacity(events)),
            FieldKind::Number => MemberValues::Numbers(Vec::with_capacity(events)),
            FieldKind::Boolean => MemberValues::Booleans(Vec::with_capacity(bytes)),
            FieldKind::Text => MemberValues::Texts(Column::with_capacity(events, 0)),
            FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
                MemberValues::Jsons(Column::with_capacity(events, 0))
            }
        };
        Self { validity: Vec::with_capacity(bytes), values, mismatched: Vec::new() }
    }

    fn push(&mut self, event: u32, lookup: MemberLookup<'_>) {
        let json = match lookup {
            MemberLookup::Value(json) => Some(json),
            MemberLookup::Missing | MemberLookup::Null | MemberLookup::Mismatched => None,
        };
        let valid = match &mut self.values {
            MemberValues::Integers(values) => push(values, json.and_then(integer)),
            MemberValues::Timestamps(values) => push(values, json.and_then(timestamp)),
            MemberValues::Numbers(values) => push(values, json.and_then(number)),
            MemberValues::Booleans(bits) => {
                let value = json.and_then(|json| json.parse().ok());
                push_bit(bits, event, value.unwrap_or(false));
                value.is_some()
            }
            MemberValues::Texts(values) => {
                let text = json.and_then(text);
                values.push(text.as_deref().unwrap_or_default().as_bytes());
                text.is_some()
            }
            MemberValues::Jsons(values) => {
                values.push(json.unwrap_or_default().as_bytes());
                json.is_some()
            }
        };
        push_bit(&mut self.validity, event, valid);
        if !valid && matches!(lookup, MemberLookup::Value(_) | MemberLookup::Mismatched) {
            self.mismatched.push(event);
        }
    }
}

fn push<T: Default>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let valid = value.is_some();
    values.push(value.unwrap_or_default());
    valid
}

fn push_bit(bits: &mut Vec<u8>, index: u32, bit: bool) {
    if index.is_multiple_of(8) {
        bits.push(0);
    }
    if let Some(last) = bits.last_mut() {
        *last |= u8::from(bit) << (index % 8);
    }
}

fn integer(json: &str) -> Option<i64> {
    // `parse` also accepts a leading plus sign, but JSON has none.
    json.parse().ok()
}

fn number(json: &str) -> Option<f64> {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let value: f64 = is_number.then(|| json.parse().ok()).flatten()?;
    value.is_finite().then_some(value)
}

fn text(json: &str) -> Option<Cow<'_, str>> {
    let BorrowedName(text) = serde_json::from_str(json).ok()?;
    Some(text)
}

fn timestamp(json: &str) -> Option<i64> {
    let time = parse_rfc3339(&text(json)?)?;
    time.is_in_range().then_some(time.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const KINDS: [FieldKind; 8] = [
        FieldKind::Integer,
        FieldKind::Number,
        FieldKind::Text,
        FieldKind::Boolean,
        FieldKind::Timestamp,
        FieldKind::Json,
        FieldKind::Distinct,
        FieldKind::Percentiles,
    ];

    fn bit(bits: &[u8], index: usize) -> bool {
        bits[index / 8] >> (index % 8) & 1 == 1
    }

    /// Returns the value that the column has for event `index`; `None` if it has no valid value.
    fn value(column: &MemberColumn, index: usize) -> Option<Value> {
        let (value, empty) = match &column.values {
            MemberValues::Integers(values) => (values[index].into(), values[index] == 0),
            MemberValues::Timestamps(values) => (values[index].into(), values[index] == 0),
            MemberValues::Numbers(values) => (values[index].into(), values[index] == 0.0),
            MemberValues::Booleans(bits) => (bit(bits, index).into(), !bit(bits, index)),
            MemberValues::Texts(values) => {
                let text = std::str::from_utf8(values.get(index)).unwrap_or("not UTF-8");
                (text.into(), text.is_empty())
            }
            MemberValues::Jsons(values) => {
                let json = std::str::from_utf8(values.get(index)).unwrap_or("not UTF-8");
                (json.into(), json.is_empty())
            }
        };
        if bit(&column.validity, index) {
            return Some(value);
        }
        assert!(empty, "a value that is not valid is 0, false or empty");
        None
    }

    /// Returns what a correct decoder returns for `value` in a member of `kind`.
    fn expected(kind: FieldKind, value: &Value) -> Option<Value> {
        match kind {
            FieldKind::Integer => value.as_i64().map(Value::from),
            FieldKind::Number => value.as_f64().map(Value::from),
            FieldKind::Text => value.as_str().map(Value::from),
            FieldKind::Boolean => value.as_bool().map(Value::from),
            FieldKind::Timestamp => Some(parse_rfc3339(value.as_str()?)?.0.into()),
            _ => Some(value.to_string().into()),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
            Just("2026-03-01T12:00:00.5+01:00".into()),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Generates a payload: an object whose names may occur twice, or a value that is not an
    /// object.
    fn payload() -> impl Strategy<Value = (Vec<(String, Value)>, String)> {
        let members = prop::collection::vec(("[a-eä\n]", any_value()), 0..5);
        let ends = prop_oneof![9 => Just(""), 1 => Just(","), 1 => Just("}"), 1 => Just("nope")];
        (members, ends, any::<bool>()).prop_map(|(members, end, spaced)| {
            let space = if spaced { " " } else { "" };
            let text: Vec<String> = members
                .iter()
                .map(|(name, value)| {
                    format!("{space}{}{space}:{value}", Value::from(name.as_str()))
                })
                .collect();
            (members, format!("{{{}{end}}}{space}", text.join(",")))
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_json_parser_finds(
            payloads in prop::collection::vec(payload(), 0..20),
            kinds in prop::collection::vec(prop::sample::select(KINDS.as_slice()), 5),
        ) {
            let members: Vec<Member> = ["a", "b", "c", "ä", "\n"]
                .into_iter()
                .zip(kinds)
                .map(|(name, kind)| Member { name: name.into(), kind })
                .collect();
            let data: Column = payloads.iter().map(|(_, text)| text.as_bytes()).collect();
            let columns = decode_members(&members, &data);
            for (member, column) in members.iter().zip(&columns) {
                prop_assert_eq!(column.validity.len(), payloads.len().div_ceil(8));
                let mut mismatched = Vec::new();
                for (index, (pairs, text)) in payloads.iter().enumerate() {
                    let is_json = serde_json::from_str::<Value>(text).is_ok();
                    let values: Vec<_> = pairs
                        .iter()
                        .filter(|(name, _)| *name == member.name)
                        .map(|(_, value)| value)
                        .collect();
                    let (expected, absent) = match values.as_slice() {
                        _ if !is_json => (None, false),
                        [] | [Value::Null] => (None, true),
                        [value] => (expected(member.kind, value), false),
                        _ => (None, false),
                    };
                    prop_assert_eq!(value(column, index), expected.clone(), "{}", text);
                    if expected.is_none() && !absent {
                        mismatched.push(index as u32);
                    }
                }
                prop_assert_eq!(&column.mismatched, &mismatched);
            }
        }
    }

    #[test]
    fn numbers_are_decoded_as_they_are_written() {
        let decode = |kind, json: &str| {
            let members = [Member { name: "n".into(), kind }];
            let text = format!("{{\"n\":{json}}}");
            let data: Column = [text.as_bytes()].into_iter().collect();
            value(&decode_members(&members, &data)[0], 0)
        };
        use FieldKind::{Integer, Json, Number, Text};
        assert_eq!(decode(Integer, "-9223372036854775808"), Some(i64::MIN.into()));
        assert_eq!(decode(Integer, "9223372036854775808"), None);
        assert_eq!(decode(Integer, "1.0"), None);
        assert_eq!(decode(Integer, "1e3"), None);
        assert_eq!(decode(Integer, "-0"), Some(0.into()));
        assert_eq!(decode(Number, "0.1"), Some(0.1.into()));
        assert_eq!(decode(Number, "18446744073709551615"), Some(1.844_674_407_370_955_2e19.into()));
        assert_eq!(decode(Number, "1e400"), None, "no double is near it");
        assert_eq!(decode(Text, r#""\ud800""#), None, "half a character");
        assert_eq!(decode(Json, "[ 1 ]"), Some("[ 1 ]".into()));
    }

    #[test]
    fn a_payload_that_is_not_an_object_mismatches_every_member() {
        let members = [Member { name: "n".into(), kind: FieldKind::Json }];
        let data: Column =
            [b"".as_slice(), b"[1]", b"7", b"{}x", b"{", b"{\"n\":1}", b"{}"].into_iter().collect();
        let columns = decode_members(&members, &data);
        assert_eq!(columns[0].mismatched, [0, 1, 2, 3, 4]);
        assert_eq!(columns[0].validity, [0b10_0000]);
    }
}
