//! Implements rows whose columns are known only after `setup`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lantern_sdk::window::Combine;
use lantern_sdk::{
    Distinct, Error, FieldKind, Percentiles, RowError, Stored, Timestamp, Value as FieldValue,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The columns that the rows of a table have.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) columns: Vec<ColumnLayout>,
    /// The index of the column with the time of the first event, if a column needs this time.
    pub(crate) first_at: Option<usize>,
    /// The index of the column with the time of the last event, if a column needs this time.
    pub(crate) last_at: Option<usize>,
}

/// A column in the rows of a table.
#[derive(Debug)]
pub(crate) struct ColumnLayout {
    pub(crate) name: &'static str,
    /// The name of the column as JSON, followed by a colon.
    pub(crate) prefix: Box<str>,
    pub(crate) kind: FieldKind,
    pub(crate) combine: Combining,
}

/// The rule by which the values of a column in two sessions become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combining {
    Same,
    Sum,
    Min,
    Max,
    /// Each session remembers the time of its first event. The value of the session whose first
    /// event is earlier is used.
    First,
    /// Each session remembers the time of its last event. The value of the session whose last event
    /// is later is used.
    Last,
    Sketch,
}

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(Box<str>),
    Timestamp(Timestamp),
    Distinct(Box<Distinct>),
    Percentiles(Box<Percentiles>),
}

/// A row. Its bytes are decoded only when the row is used, because decoding requires the
/// declaration of the table.
#[derive(Debug, Clone, Default)]
pub(crate) enum DeclaredRow {
    /// A new row, which has no values.
    #[default]
    Empty,
    Bytes(Vec<u8>),
    Slots(&'static Layout, Box<[Slot]>),
    /// The rows of several sessions that an event has joined, in order of time.
    Joined(Vec<DeclaredRow>),
}

impl DeclaredRow {
    /// Returns whether the row has no values yet.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Returns the values of the row, which the caller may change.
    ///
    /// # Errors
    /// Fails if the bytes are not those of a row with this layout, or if the sum of joined rows
    /// does not fit 64 bits.
    pub(crate) fn slots(&mut self, layout: &'static Layout) -> Result<&mut [Slot], Error> {
        if !matches!(self, Self::Slots(..)) {
            let slots = match std::mem::take(self) {
                Self::Empty => vec![Slot::Null; layout.columns.len()].into(),
                Self::Bytes(bytes) => decode(layout, &bytes)?,
                Self::Slots(_, slots) => slots,
                Self::Joined(rows) => joined(layout, rows)?,
            };
            *self = Self::Slots(layout, slots);
        }
        match self {
            Self::Slots(_, slots) => Ok(slots),
            _ => Err(Error::new("the row has no values")),
        }
    }
}

fn joined(layout: &'static Layout, rows: Vec<DeclaredRow>) -> Result<Box<[Slot]>, Error> {
    let mut rows = rows.into_iter();
    let mut all = rows.next().unwrap_or_default();
    let slots = all.slots(layout)?;
    for mut row in rows {
        combine(layout, slots, row.slots(layout)?)?;
    }
    match all {
        DeclaredRow::Slots(_, slots) => Ok(slots),
        _ => Err(Error::new("the row has no values")),
    }
}

/// Adds the values of `other`, which belong to a later session, to `slots`.
fn combine(layout: &Layout, slots: &mut [Slot], other: &mut [Slot]) -> Result<(), Error> {
    let time = |slots: &[Slot], at: Option<usize>| match at.map(|at| &slots[at]) {
        Some(Slot::Timestamp(time)) => Some(*time),
        _ => None,
    };
    let older = time(other, layout.first_at) < time(slots, layout.first_at);
    let newer = time(other, layout.last_at) >= time(slots, layout.last_at);
    for (column, (slot, other)) in layout.columns.iter().zip(slots.iter_mut().zip(other)) {
        let other = std::mem::replace(other, Slot::Null);
        match column.combine {
            Combining::First if older => *slot = other,
            Combining::Last if newer => *slot = other,
            Combining::First | Combining::Last => {}
            _ => slot.absorb(column, other)?,
        }
    }
    Ok(())
}

impl Slot {
    /// Adds a value by the rule of its column. Null changes nothing.
    ///
    /// # Errors
    /// Fails if a sum does not fit 64 bits.
    pub(crate) fn absorb(&mut self, column: &ColumnLayout, other: Self) -> Result<(), Error> {
        match (&mut *self, other) {
            (_, Self::Null) => {}
            (Self::Null, other) => *self = other,
            (Self::Integer(sum), Self::Integer(more)) if column.combine == Combining::Sum => {
                *sum = add(column.name, *sum, more)?;
            }
            (Self::Distinct(all), Self::Distinct(more)) => all.merge(&more),
            (Self::Percentiles(all), Self::Percentiles(more)) => all.merge(&more),
            (this, other) => match column.combine {
                Combining::Min if less(&other, this) => *this = other,
                Combining::Max if less(this, &other) => *this = other,
                _ => {}
            },
        }
        Ok(())
    }
}

/// Adds a value to the sum in a column.
///
/// # Errors
/// Fails if the sum does not fit 64 bits.
#[inline]
pub(crate) fn add(column: &str, sum: i64, more: i64) -> Result<i64, Error> {
    sum.checked_add(more).ok_or_else(|| {
        Error::new(format!("column `{column}`: {sum} + {more} is outside of 64 bits"))
    })
}

fn less(a: &Slot, b: &Slot) -> bool {
    match (a, b) {
        (Slot::Integer(a), Slot::Integer(b)) => a < b,
        (Slot::Number(a), Slot::Number(b)) => a < b,
        (Slot::Text(a), Slot::Text(b)) => a < b,
        (Slot::Timestamp(a), Slot::Timestamp(b)) => a < b,
        _ => false,
    }
}

impl Combine for DeclaredRow {
    fn combine(&mut self, later: Self) {
        match self {
            Self::Joined(rows) => rows.push(later),
            _ => *self = Self::Joined(vec![std::mem::take(self), later]),
        }
    }
}

impl Stored for DeclaredRow {
    // Each value is checked when it is set, so rows need no check.
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Slots(layout, slots) => {
                let mut before = b'{';
                for (column, slot) in layout.columns.iter().zip(slots) {
                    out.push(before);
                    before = b',';
                    out.extend_from_slice(column.prefix.as_bytes());
                    write(column.name, slot, out)?;
                }
                out.push(b'}');
            }
            Self::Empty | Self::Joined(_) => {
                return Err(RowError::Malformed("the row has no values"));
            }
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        Ok(Self::Bytes(bytes.to_vec()))
    }
}

fn write(name: &'static str, slot: &Slot, out: &mut Vec<u8>) -> Result<(), RowError> {
    match slot {
        Slot::Null => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        Slot::Boolean(value) => value.write(name, out),
        Slot::Integer(value) => value.write(name, out),
        Slot::Number(value) => value.write(name, out),
        Slot::Text(value) => {
            if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                out.push(b'"');
                out.extend_from_slice(value.as_bytes());
                out.push(b'"');
                Ok(())
            } else {
                Ok(serde_json::to_writer(out, value)?)
            }
        }
        Slot::Timestamp(value) => value.write(name, out),
        Slot::Distinct(value) => value.write(name, out),
        Slot::Percentiles(value) => value.write(name, out),
    }
}

fn decode(layout: &Layout, bytes: &[u8]) -> Result<Box<[Slot]>, Error> {
    let slots = decode_exact(layout, bytes).or_else(|| decode_any(layout, bytes));
    slots.ok_or_else(|| Error::new("a stored row is not one of this declaration"))
}

/// Reads a row that is exactly as [`write`] writes it. Returns `None` for every other row, and also
/// for rows with long integers or with texts that have escapes.
fn decode_exact(layout: &Layout, bytes: &[u8]) -> Option<Box<[Slot]>> {
    let mut rest = bytes;
    let mut slots = Vec::with_capacity(layout.columns.len());
    let mut before = b"{".as_slice();
    for column in &layout.columns {
        rest = rest.strip_prefix(before)?.strip_prefix(column.prefix.as_bytes())?;
        before = b",";
        slots.push(if let Some(after) = rest.strip_prefix(b"null") {
            rest = after;
            Slot::Null
        } else {
            match column.kind {
                FieldKind::Boolean => Slot::Boolean(bool::read(&mut rest)?),
                FieldKind::Integer => Slot::Integer(i64::read(&mut rest)?),
                FieldKind::Number => Slot::Number(f64::read(&mut rest)?),
                FieldKind::Timestamp => Slot::Timestamp(Timestamp::read(&mut rest)?),
                FieldKind::Distinct => Slot::Distinct(Box::new(Distinct::read(&mut rest)?)),
                FieldKind::Percentiles => {
                    Slot::Percentiles(Box::new(Percentiles::read(&mut rest)?))
                }
                _ => Slot::Text(String::read(&mut rest)?.into()),
            }
        });
    }
    (rest == b"}").then(|| slots.into())
}

fn decode_any(layout: &Layout, bytes: &[u8]) -> Option<Box<[Slot]>> {
    #[derive(Deserialize)]
    struct Members<'a>(#[serde(borrow)] BTreeMap<Cow<'a, str>, &'a RawValue>);

    let text = std::str::from_utf8(bytes).ok()?;
    let Members(members) = serde_json::from_str(text).ok()?;
    fn parse<T: DeserializeOwned>(json: &str) -> Option<T> {
        serde_json::from_str(json).ok()
    }
    let columns = layout.columns.iter();
    columns
        .map(|column| {
            let json = members.get(column.name).map_or("null", |json| json.get());
            Some(match column.kind {
                _ if json == "null" => Slot::Null,
                FieldKind::Boolean => Slot::Boolean(parse(json)?),
                FieldKind::Integer => Slot::Integer(parse(json)?),
                FieldKind::Number => Slot::Number(parse(json)?),
                FieldKind::Timestamp => Slot::Timestamp(parse(json)?),
                FieldKind::Distinct => Slot::Distinct(Box::new(parse(json)?)),
                FieldKind::Percentiles => Slot::Percentiles(Box::new(parse(json)?)),
                _ => Slot::Text(parse::<String>(json)?.into()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn layout(columns: &[(&'static str, FieldKind, Combining)]) -> &'static Layout {
        let columns = columns.iter().map(|(name, kind, combine)| ColumnLayout {
            name,
            prefix: format!("{name:?}:").into(),
            kind: *kind,
            combine: *combine,
        });
        Box::leak(Box::new(Layout { columns: columns.collect(), first_at: None, last_at: None }))
    }

    #[test]
    fn a_row_read_back_is_the_row_written() {
        let layout = layout(&[
            ("i", FieldKind::Integer, Combining::Sum),
            ("t", FieldKind::Text, Combining::Same),
            ("n", FieldKind::Number, Combining::Max),
            ("b", FieldKind::Boolean, Combining::Same),
            ("at", FieldKind::Timestamp, Combining::Max),
            ("d", FieldKind::Distinct, Combining::Sketch),
            ("p", FieldKind::Percentiles, Combining::Sketch),
            ("none", FieldKind::Text, Combining::Same),
        ]);
        let mut users = Distinct::new();
        users.add("ann");
        let mut delays = Percentiles::new();
        delays.add(7);
        for (number, text) in [(7, "plain"), (i64::MIN, "quote \" and\nline"), (i64::MAX, "ü")] {
            let slots = vec![
                Slot::Integer(number),
                Slot::Text(text.into()),
                Slot::Number(0.1),
                Slot::Boolean(true),
                Slot::Timestamp(Timestamp::from_micros(1)),
                Slot::Distinct(Box::new(users.clone())),
                Slot::Percentiles(Box::new(delays.clone())),
                Slot::Null,
            ];
            let row = DeclaredRow::Slots(layout, slots.clone().into());
            let mut bytes = Vec::new();
            row.encode(&mut bytes).unwrap();
            let mut back = DeclaredRow::decode(&bytes).unwrap();
            assert_eq!(back.slots(layout).unwrap(), &*slots);
        }
    }

    #[test]
    fn joined_rows_are_combined_by_the_rule_of_each_column() {
        let layout = layout(&[
            ("sum", FieldKind::Integer, Combining::Sum),
            ("min", FieldKind::Integer, Combining::Min),
            ("max", FieldKind::Integer, Combining::Max),
        ]);
        let row = |numbers: [i64; 3]| DeclaredRow::Slots(layout, numbers.map(Slot::Integer).into());
        let mut all = row([1, 5, 5]);
        all.combine(row([2, 3, 9]));
        all.combine(row([4, 4, 1]));
        let wanted = [7, 3, 9].map(Slot::Integer);
        assert_eq!(all.slots(layout).unwrap(), wanted);
        let mut all = row([i64::MAX, 0, 0]);
        all.combine(row([1, 0, 0]));
        let error = all.slots(layout).unwrap_err();
        assert!(error.to_string().contains("column `sum`"), "{error}");
    }
}
