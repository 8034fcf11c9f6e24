//! Defines the types of rows, and how they become bytes.
//!
//! A row that is read must be equal to the row that was written. Otherwise the tables would depend
//! on when the host drops an instance.

use lantern_sketch::{Distinct, Percentiles};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::error::RowError;
use crate::key::push_bytes;

pub use crate::bindings::lantern::projection::types::{FieldKind, Merge};

/// The maximum depth of arrays and objects in a JSON field. It is the same as for the data of an
/// event that is sent over HTTP.
pub const JSON_DEPTH_MAX: usize = 64;

/// The first time that both RFC 3339 and readers support: 0001-01-01T00:00:00Z.
const TIME_MIN_S: i64 = -62_135_596_800;
/// The time 9999-12-30T22:00:00Z. After it, the year is 10000 in some time zone.
const TIME_END_S: i64 = 253_402_207_200;

/// A type whose values can be stored under a key.
///
/// `#[derive(Row)]` implements this trait for structs. Private tables also accept numbers, text,
/// [`Timestamp`], `Vec<u8>` and, through [`Json`], every type that serde can write and read.
pub trait Stored: Sized {
    /// Appends the bytes of the value to `out`.
    ///
    /// # Errors
    /// Returns [`RowError`] if the bytes could not be read again.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError>;

    /// Reads a value from the bytes that [`Self::encode`] has written.
    ///
    /// # Errors
    /// Returns [`RowError`] if `bytes` are not those of a value.
    fn decode(bytes: &[u8]) -> Result<Self, RowError>;

    /// Whether [`Self::check`] can fail. If it cannot fail, rows of this type need no check.
    const FALLIBLE: bool = true;

    /// Checks that the value can be stored. This is called at the end of the event that changed the
    /// row. If it fails, this event fails. If the check came later, at a flush, its result would
    /// depend on where batches end.
    ///
    /// # Errors
    /// Returns the errors of [`Self::encode`].
    fn check(&self) -> Result<(), RowError> {
        self.encode(&mut Vec::new())
    }
}

/// The row of a public table: a JSON object with declared fields.
///
/// Derive this trait. Each field must be a [`Value`]. A field can have the attribute `#[row(…)]`
/// with:
///
/// * `unit = "EUR"`: the unit that is displayed,
/// * `merge = sum`: how the values of one key are combined if several partitions have a
///   row under it: `same` (the default: they are equal, as parts of the key are),
///   `sum`, `min`, `max`, `newest` (then the table needs `#[table(newest_by = "…")]`),
///   or `sketch` (of [`Distinct`] and [`Percentiles`], whose default it is),
/// * `kind = json`: the declared kind, if it differs from that of the type.
///
/// ```
/// use lantern_sdk::{FieldKind, Merge, Row};
///
/// #[derive(Row, Default)]
/// struct Product {
///     product: String,
///     #[row(unit = "EUR", merge = sum)]
///     cents: i64,
/// }
/// let [product, cents] = Product::FIELDS else { panic!() };
/// assert_eq!((product.name, product.kind), ("product", FieldKind::Text));
/// assert_eq!((cents.unit, cents.merge), ("EUR", Merge::Sum));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the row of a public table",
    note = "derive `Row` for it, or mark the table `#[table(private)]`"
)]
pub trait Row: Stored {
    /// The fields of the rows, in the order of the struct.
    const FIELDS: &'static [Field];
}

/// A declared field of a public table's rows.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name of the field in the JSON object.
    pub name: &'static str,
    /// The kind of the field's values.
    pub kind: FieldKind,
    /// The unit that is displayed; empty if there is none.
    pub unit: &'static str,
    /// How the values of one key are combined if several partitions have a row under
    /// it.
    pub merge: Merge,
}

/// A type that a field of a row can have.
pub trait Value: DeserializeOwned {
    /// The kind with which fields of this type are declared.
    const KIND: FieldKind;

    /// How the values of several partitions are combined, unless the field has a `merge` of its
    /// own.
    const MERGE: Merge = Merge::Same;

    /// Whether [`Self::check`] can return an error.
    const FALLIBLE: bool = true;

    /// Checks that the value can be stored; see [`Stored::check`].
    ///
    /// # Errors
    /// Returns the errors of [`Self::write`].
    fn check(&self, field: &'static str) -> Result<(), RowError> {
        self.write(field, &mut Vec::new())
    }

    /// Appends the value as JSON to `out`. `field` is the field's name for the error.
    ///
    /// # Errors
    /// Returns [`RowError`] if the JSON could not be read again.
    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError>;

    /// Reads a value at the beginning of `text` and removes it from `text`. If the value is not
    /// written exactly as [`Self::write`] writes it, the function returns `None`, and serde reads
    /// the row. The default implementation always returns `None`.
    #[inline]
    fn read(text: &mut &[u8]) -> Option<Self> {
        let _ = text;
        None
    }
}

/// Removes `what` from the beginning of `text`.
#[doc(hidden)]
#[inline]
pub fn take(text: &mut &[u8], what: &[u8]) -> Option<()> {
    *text = text.strip_prefix(what)?;
    Some(())
}

/// Reads an integer of at most 18 digits at the beginning of `text` and removes it.
#[inline]
fn take_integer(text: &mut &[u8]) -> Option<i64> {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut end, mut number) = (start, 0_i64);
    while let Some(digit @ b'0'..=b'9') = text.get(end) {
        number = number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        end += 1;
    }
    let zero_first = text.get(start) == Some(&b'0') && (end - start > 1 || negative);
    if end == start || end - start > 18 || zero_first {
        return None;
    }
    *text = &text[end..];
    Some(if negative { -number } else { number })
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Value for $integer {
            const KIND: FieldKind = FieldKind::Integer;
            const FALLIBLE: bool = false;

            #[inline]
            fn write(&self, _field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
                push_bytes(out, itoa::Buffer::new().format(*self));
                Ok(())
            }

            #[inline]
            fn read(text: &mut &[u8]) -> Option<Self> {
                Self::try_from(take_integer(text)?).ok()
            }
        }

        impl Stored for $integer {
            const FALLIBLE: bool = false;

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
                Value::write(self, "", out)
            }

            fn decode(bytes: &[u8]) -> Result<Self, RowError> {
                let mut rest = bytes;
                match Value::read(&mut rest) {
                    Some(value) if rest.is_empty() => Ok(value),
                    _ => from_json(bytes),
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Value for f64 {
    const KIND: FieldKind = FieldKind::Number;

    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        if !self.is_finite() {
            return Err(RowError::NotFinite { field, value: *self });
        }
        Ok(serde_json::to_writer(out, self)?)
    }

    fn check(&self, field: &'static str) -> Result<(), RowError> {
        if self.is_finite() { Ok(()) } else { Err(RowError::NotFinite { field, value: *self }) }
    }

    fn read(text: &mut &[u8]) -> Option<Self> {
        let within = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = text.iter().position(|byte| !within(byte)).unwrap_or(text.len());
        take_json(text, end)
    }
}

impl Value for bool {
    const KIND: FieldKind = FieldKind::Boolean;
    const FALLIBLE: bool = false;

    fn write(&self, _field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
        Ok(())
    }

    #[inline]
    fn read(text: &mut &[u8]) -> Option<Self> {
        let value = text.first() == Some(&b't');
        take(text, if value { b"true" } else { b"false" })?;
        Some(value)
    }
}

impl Value for String {
    const KIND: FieldKind = FieldKind::Text;
    const FALLIBLE: bool = false;

    #[inline]
    fn write(&self, _field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        if self.bytes().all(is_plain) {
            out.push(b'"');
            push_bytes(out, self);
            out.push(b'"');
            Ok(())
        } else {
            Ok(serde_json::to_writer(out, self)?)
        }
    }

    #[inline]
    fn read(text: &mut &[u8]) -> Option<Self> {
        let inner = text.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| !is_plain(*byte))?;
        let (value, rest) = inner.split_at(end);
        *text = rest.strip_prefix(b"\"")?;
        Some(std::str::from_utf8(value).ok()?.to_owned())
    }
}

/// Reads the JSON in the first `bytes` bytes of `text`, and removes it.
fn take_json<T: DeserializeOwned>(text: &mut &[u8], bytes: usize) -> Option<T> {
    let (value, rest) = text.split_at_checked(bytes)?;
    *text = rest;
    from_json(value).ok()
}

/// Returns whether a byte of a JSON string needs no escape.
#[inline]
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

impl Value for Timestamp {
    const KIND: FieldKind = FieldKind::Timestamp;

    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        Value::check(self, field)?;
        Ok(serde_json::to_writer(out, self)?)
    }

    fn check(&self, field: &'static str) -> Result<(), RowError> {
        let range = Self::from_seconds(TIME_MIN_S)..Self::from_seconds(TIME_END_S);
        if range.contains(self) { Ok(()) } else { Err(RowError::TimeRange { field, time: *self }) }
    }

    fn read(text: &mut &[u8]) -> Option<Self> {
        let inner = text.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        take_json(text, end + 2)
    }
}

impl<V: Value> Value for Option<V> {
    const KIND: FieldKind = V::KIND;
    const MERGE: Merge = V::MERGE;
    const FALLIBLE: bool = V::FALLIBLE;

    fn check(&self, field: &'static str) -> Result<(), RowError> {
        self.as_ref().map_or(Ok(()), |value| value.check(field))
    }

    /// Writes `null` if there is no value.
    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        match self {
            Some(value) => value.write(field, out),
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    #[inline]
    fn read(text: &mut &[u8]) -> Option<Self> {
        match take(text, b"null") {
            Some(()) => Some(None),
            None => V::read(text).map(Some),
        }
    }
}

impl<V: Value> Value for Vec<V> {
    const KIND: FieldKind = FieldKind::Json;
    const FALLIBLE: bool = V::FALLIBLE;

    fn check(&self, field: &'static str) -> Result<(), RowError> {
        self.iter().try_for_each(|value| value.check(field))
    }

    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.push(b'[');
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            value.write(field, out)?;
        }
        out.push(b']');
        Ok(())
    }
}

/// Reads JSON. It always reads from text and never from bytes, so a plugin contains the parser only
/// once.
#[doc(hidden)]
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RowError::Malformed("not UTF-8"))?;
    Ok(serde_json::from_str(text)?)
}

/// A value of any type that serde can write as JSON and read again. It can be a field of a row, or
/// the whole row of a private table.
///
/// Do not put a `HashMap` in it: a `HashMap` does not iterate in the order of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json<T>(
    /// The value.
    pub T,
);

impl<T: Serialize + DeserializeOwned> Value for Json<T> {
    const KIND: FieldKind = FieldKind::Json;

    fn write(&self, field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
        serde_json::to_writer(out, &self.0).map_err(|source| match field {
            // The row consists of this value alone.
            "" => RowError::Json(source),
            field => RowError::Field { field, source },
        })
    }

    fn check(&self, field: &'static str) -> Result<(), RowError> {
        let mut json = Vec::new();
        self.write(field, &mut json)?;
        match crate::json_check::check(&json, JSON_DEPTH_MAX) {
            Ok(()) => Ok(()),
            Err(why) => Err(RowError::Nested { field, why }),
        }
    }
}

macro_rules! sketches {
    ($($sketch:ident),*) => {$(
        impl Value for $sketch {
            const KIND: FieldKind = FieldKind::$sketch;
            const MERGE: Merge = Merge::Sketch;
            const FALLIBLE: bool = false;

            fn write(&self, _field: &'static str, out: &mut Vec<u8>) -> Result<(), RowError> {
                Ok(serde_json::to_writer(out, self)?)
            }

            fn read(text: &mut &[u8]) -> Option<Self> {
                let end = text.iter().position(|byte| *byte == b'}')?;
                take_json(text, end + 1)
            }
        }
    )*};
}

sketches!(Distinct, Percentiles);

impl<T: Serialize + DeserializeOwned> Stored for Json<T> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        Ok(serde_json::to_writer(out, &self.0)?)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        Ok(Self(from_json(bytes)?))
    }
}

impl Stored for Vec<u8> {
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        Ok(bytes.to_vec())
    }
}

impl Stored for String {
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        Self::from_utf8(bytes.to_vec()).map_err(|_| RowError::Malformed("not UTF-8"))
    }
}

impl Stored for Timestamp {
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        self.micros().encode(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        Ok(Self::from_micros(i64::decode(bytes)?))
    }
}

/// A row without content. It is useful for a set, whose members are the keys.
impl Stored for () {
    const FALLIBLE: bool = false;

    fn encode(&self, _out: &mut Vec<u8>) -> Result<(), RowError> {
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        bytes.is_empty().then_some(()).ok_or(RowError::Malformed("not empty"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_sdk_macros::Row;
    use proptest::prelude::*;

    use super::*;

    #[derive(Row, Debug, Clone, PartialEq)]
    struct Everything {
        integer: i64,
        number: f64,
        text: String,
        flag: bool,
        at: Timestamp,
        maybe: Option<f64>,
        list: Vec<u32>,
        #[row(kind = json)]
        r#type: Json<(String, u8)>,
    }

    fn encoded<T: Stored>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn a_row_read_back_is_the_row_written(
            integer: i64,
            number in any::<f64>().prop_filter("finite", |number| number.is_finite()),
            text: String,
            flag: bool,
            micros in -62_167_219_200_000_000_i64..253_402_300_799_000_000,
            list: Vec<u32>,
            small: u8,
        ) {
            let row = Everything {
                integer,
                number,
                text: text.clone(),
                flag,
                at: Timestamp::from_micros(micros),
                maybe: flag.then_some(number),
                list,
                r#type: Json((text, small)),
            };
            let bytes = encoded(&row);
            let object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(object.as_object().unwrap().len(), Everything::FIELDS.len());
            let back = Everything::decode(&bytes).unwrap();
            prop_assert_eq!(back.number.to_bits(), row.number.to_bits());
            prop_assert_eq!(back, row);
        }
    }

    #[derive(Row, Debug, PartialEq, Deserialize)]
    struct Few {
        a: i64,
        b: u8,
        c: Option<bool>,
        d: String,
        e: f64,
        f: Timestamp,
    }

    proptest! {
        /// Tests texts that are exactly what `write` writes, or nearly so.
        #[test]
        fn a_row_is_what_serde_reads_or_refused(
            a in r"-?0?[0-9]{0,2}[0-9]{0,18}(\.0|e1)?",
            b in r"-?[0-2]?[0-9]{0,2}",
            c in "true|false|null|nul|1",
            d in r#"[a-ü\u{0}\u{1f} ]{0,9}(\\n|"|\\u0041)?"#,
            e in r"-?0?[0-9]{0,17}\.?[0-9]{0,17}(e-?[0-9]{1,2})?",
            f in r"2026-0[1-9]-[0-3][0-9]T00:00:0[0-9](\.[0-9]{1,6})?Z",
            space in " ?",
            end in "}|}}|,",
        ) {
            let text =
                format!(r#"{{"a":{a},"b":{b},{space}"c":{c},"d":"{d}","e":{e},"f":"{f}"{end}"#);
            let read = Few::decode(text.as_bytes()).ok();
            prop_assert_eq!(read, serde_json::from_str(&text).ok(), "{}", text);
        }
    }

    #[test]
    fn a_number_that_json_lacks_is_refused_by_name() {
        let mut row = Everything::decode(
            br#"{"integer":1,"number":1,"text":"","flag":true,"at":"1970-01-01T00:00:00Z","maybe":null,"list":[],"type":["",0]}"#,
        )
        .unwrap();
        row.maybe = Some(f64::NAN);
        let error = row.encode(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "field `maybe` is NaN; only finite numbers can be stored");
    }

    #[test]
    fn rows_without_fields_are_empty_objects() {
        #[derive(Row, Default)]
        struct Nothing {}
        assert_eq!(encoded(&Nothing {}), b"{}");
    }

    #[test]
    fn private_values_are_read_back() {
        assert_eq!(u64::decode(&encoded(&7_u64)).unwrap(), 7);
        assert_eq!(Vec::<u8>::decode(&encoded(&vec![0, 255_u8])).unwrap(), [0, 255]);
        assert_eq!(String::decode(&encoded(&"ü".to_owned())).unwrap(), "ü".to_owned());
        assert!(<()>::decode(b"x").is_err());
        assert!(String::decode(&[255]).is_err());
    }
}
