//! Decodes declared members of events' data as the host does. A test compares this decoder with the
//! host's decoder.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Deserialize, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Timestamp;
use crate::bindings::lantern::projection::types as wit;
use crate::row::{FieldKind, Value as _};

/// Decodes the members `members` of the data of a batch's events into columns.
#[doc(hidden)]
#[must_use]
pub fn decode_members(members: &[wit::Member], data: &[&[u8]]) -> Vec<wit::MemberColumn> {
    let found: Vec<Vec<MemberLookup<'_>>> =
        data.iter().map(|payload| look_up(members, payload)).collect();
    let of = |(index, member): (usize, &wit::Member)| {
        column(member.kind, found.iter().map(|event| event[index]).collect())
    };
    members.iter().enumerate().map(of).collect()
}

#[derive(Clone, Copy)]
enum MemberLookup<'a> {
    Missing,
    Null,
    Value(&'a str),
    Mismatched,
}

fn look_up<'a>(members: &[wit::Member], payload: &'a [u8]) -> Vec<MemberLookup<'a>> {
    let mut found = vec![MemberLookup::Missing; members.len()];
    let mut reader = serde_json::Deserializer::from_slice(payload);
    let seen = reader.deserialize_map(ObjectVisitor { members, found: &mut found });
    if seen.and_then(|()| reader.end()).is_err() {
        found.fill(MemberLookup::Mismatched);
    }
    found
}

struct ObjectVisitor<'m, 'f, 'a> {
    members: &'m [wit::Member],
    found: &'f mut [MemberLookup<'a>],
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Visitor<'a> for ObjectVisitor<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            let Some(place) = self.members.iter().position(|member| member.name == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &RawValue = map.next_value()?;
            self.found[place] = match (self.found[place], value.get()) {
                (MemberLookup::Missing, "null") => MemberLookup::Null,
                (MemberLookup::Missing, value) => MemberLookup::Value(value),
                _ => MemberLookup::Mismatched,
            };
        }
        Ok(())
    }
}

fn column(kind: FieldKind, found: Vec<MemberLookup<'_>>) -> wit::MemberColumn {
    let mut validity = Vec::new();
    let mut column =
        wit::MemberColumn { validity: Vec::new(), values: empty(kind), mismatched: Vec::new() };
    for (event, found) in found.into_iter().enumerate() {
        let json = match found {
            MemberLookup::Value(json) => json,
            _ => "null",
        };
        let valid =
            push(&mut column.values, event, json) && matches!(found, MemberLookup::Value(_));
        push_bit(&mut validity, event, valid);
        if !valid && matches!(found, MemberLookup::Value(_) | MemberLookup::Mismatched) {
            column.mismatched.push(event as u32);
        }
    }
    column.validity = validity;
    column
}

fn empty(kind: FieldKind) -> wit::MemberValues {
    let column = || wit::Column { ends: Vec::new(), bytes: Vec::new() };
    match kind {
        FieldKind::Integer => wit::MemberValues::Integers(Vec::new()),
        FieldKind::Timestamp => wit::MemberValues::Timestamps(Vec::new()),
        FieldKind::Number => wit::MemberValues::Numbers(Vec::new()),
        FieldKind::Boolean => wit::MemberValues::Booleans(Vec::new()),
        FieldKind::Text => wit::MemberValues::Texts(column()),
        _ => wit::MemberValues::Jsons(column()),
    }
}

/// Adds the value `json` to a column; `json` is `null` if the event has no value. Returns whether
/// the value has the declared kind.
fn push(values: &mut wit::MemberValues, event: usize, json: &str) -> bool {
    fn add<T: Default>(values: &mut Vec<T>, value: Option<T>) -> bool {
        let valid = value.is_some();
        values.push(value.unwrap_or_default());
        valid
    }
    fn add_text(column: &mut wit::Column, text: Option<&str>) -> bool {
        column.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        column.ends.push(column.bytes.len() as u32);
        text.is_some()
    }
    let text = || read::<Text<'_>>(json).map(|Text(text)| text);
    match values {
        wit::MemberValues::Integers(values) => add(values, json.parse().ok()),
        wit::MemberValues::Numbers(values) => {
            let number = read::<f64>(json).filter(|number| number.is_finite());
            add(values, number)
        }
        wit::MemberValues::Timestamps(values) => {
            let time = text().and_then(|text| text.parse::<Timestamp>().ok());
            add(values, time.filter(|time| time.check("").is_ok()).map(Timestamp::micros))
        }
        wit::MemberValues::Booleans(bits) => {
            let value = read::<bool>(json);
            push_bit(bits, event, value.unwrap_or_default());
            value.is_some()
        }
        wit::MemberValues::Texts(column) => add_text(column, text().as_deref()),
        wit::MemberValues::Jsons(column) => {
            add_text(column, Some(json).filter(|json| *json != "null"))
        }
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}

fn push_bit(bits: &mut Vec<u8>, event: usize, bit: bool) {
    if event.is_multiple_of(8) {
        bits.push(0);
    }
    if let Some(last) = bits.last_mut() {
        *last |= u8::from(bit) << (event % 8);
    }
}
