//! Reads members of events' data as typed columns, which the host has decoded.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::lantern::projection::types::{MemberColumn, MemberValues};
use crate::column::Texts;
use crate::error::Error;
use crate::row::{FieldKind, Json};
use crate::time::Timestamp;

/// A member of the JSON object in the data of events. The host decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The name of the member in the object.
    pub name: &'static str,
    /// The kind that the member's value must have.
    pub kind: FieldKind,
}

/// A struct with typed members of events' data. Derive this trait.
///
/// The host decodes the members that manifests name, once for all projections. A plugin then reads
/// columns instead of JSON:
///
/// ```
/// # use lantern_sdk::prelude::*;
/// # use lantern_sdk::EventData;
/// # #[derive(Tables)] struct Revenue { #[table(private)] cents: Table<i64> }
/// #[derive(EventData)]
/// struct Order<'a> {
///     product: &'a str,
///     cents: i64,
///     note: Option<&'a str>,
/// }
///
/// # impl Projection for Revenue {
/// fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
///     Ok(lantern_sdk::manifest!().subscribe(["order.placed"]).members::<Order>())
/// }
///
/// fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
///     let order: Order<'_> = event.members()?;
///     *self.cents.row(order.product)? += order.cents;
///     # let _ = order.note;
///     Ok(())
/// }
/// # }
/// ```
///
/// Fields are integers, `f64`, `bool`, [`Timestamp`], text (`&str`, `String`, `Cow<str>`) or any
/// [`Json`]. If a member is missing, null, of another kind or present more than once, the event
/// fails with an error that names the member. If the field is an `Option`, a missing member and
/// null are `None`. If the member's name is not a Rust identifier, use `#[member(name = "…")]` on
/// the field.
#[diagnostic::on_unimplemented(note = "derive `EventData` for it")]
pub trait EventData<'a>: Sized {
    /// The members that the struct needs, in the order of its fields.
    const MEMBERS: &'static [Member];

    #[doc(hidden)]
    fn read(members: &Members<'a, '_>) -> Result<Self, Error>;
}

/// A type that a field of an [`EventData`] struct can have.
pub trait MemberValue<'a>: Sized {
    /// The kind that the member must have.
    const KIND: FieldKind;

    /// Returns the value that the field gets if the member is missing or null; `None` if this is an
    /// error.
    #[must_use]
    fn missing() -> Option<Self> {
        None
    }

    /// Converts a value that the host has decoded.
    ///
    /// # Errors
    /// Fails if the value does not fit this type.
    fn from_scalar(scalar: Scalar<'a>) -> Result<Self, String>;
}

/// The value of a member, as the host has decoded it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Scalar<'a> {
    /// A value of the kind `integer`.
    Integer(i64),
    /// A value of the kind `number`.
    Number(f64),
    /// A value of the kind `boolean`.
    Boolean(bool),
    /// A value of the kind `timestamp`.
    Timestamp(Timestamp),
    /// A value of the kind `text`.
    Text(&'a str),
    /// A value of the kind `json`, `distinct` or `percentiles`. Contains the JSON as it was sent.
    Json(&'a str),
}

fn another_kind<T>() -> Result<T, String> {
    Err("was decoded as a different kind".to_owned())
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl<'a> MemberValue<'a> for $integer {
            const KIND: FieldKind = FieldKind::Integer;

            fn from_scalar(scalar: Scalar<'a>) -> Result<Self, String> {
                let Scalar::Integer(value) = scalar else {
                    return another_kind();
                };
                let limits = (Self::MIN, Self::MAX);
                Self::try_from(value)
                    .map_err(|_| format!("is {value}, not from {} to {}", limits.0, limits.1))
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! scalars {
    ($($type:ty: $kind:ident, $value:ident => $read:expr;)*) => {$(
        impl<'a> MemberValue<'a> for $type {
            const KIND: FieldKind = FieldKind::$kind;

            fn from_scalar(scalar: Scalar<'a>) -> Result<Self, String> {
                match scalar {
                    Scalar::$kind($value) => Ok($read),
                    _ => another_kind(),
                }
            }
        }
    )*};
}

scalars! {
    f64: Number, value => value;
    bool: Boolean, value => value;
    Timestamp: Timestamp, value => value;
    &'a str: Text, value => value;
    String: Text, value => value.to_owned();
    Cow<'a, str>: Text, value => Cow::Borrowed(value);
}

impl<'a, T: Serialize + DeserializeOwned> MemberValue<'a> for Json<T> {
    const KIND: FieldKind = FieldKind::Json;

    fn from_scalar(scalar: Scalar<'a>) -> Result<Self, String> {
        match scalar {
            Scalar::Json(json) => match serde_json::from_str(json) {
                Ok(value) => Ok(Self(value)),
                Err(error) => Err(format!("cannot be read: {error}")),
            },
            _ => another_kind(),
        }
    }
}

impl<'a, V: MemberValue<'a>> MemberValue<'a> for Option<V> {
    const KIND: FieldKind = V::KIND;

    fn missing() -> Option<Self> {
        Some(None)
    }

    fn from_scalar(scalar: Scalar<'a>) -> Result<Self, String> {
        V::from_scalar(scalar).map(Some)
    }
}

/// The value that an event has under the name of a declared member.
#[derive(Debug, Clone, Copy)]
pub enum MemberLookup<'a> {
    /// The event has a value of the declared kind.
    Value(Scalar<'a>),
    /// The member is missing or null.
    Missing,
    /// The value has another kind, the member occurs more than once, or the data is not a JSON
    /// object.
    Mismatched,
}

/// One member of all events of a batch. It is checked once, so that reading it cannot fail.
#[derive(Clone, Copy)]
pub(crate) struct MemberView<'a> {
    validity: &'a [u8],
    values: ValuesView<'a>,
    mismatched: &'a [u32],
}

#[derive(Clone, Copy)]
enum ValuesView<'a> {
    Integers(&'a [i64]),
    Timestamps(&'a [i64]),
    Numbers(&'a [f64]),
    Booleans(&'a [u8]),
    Texts(Texts<'a>),
    Jsons(Texts<'a>),
}

impl<'a> MemberView<'a> {
    /// Checks `column`, which must have a value for each of `count` events.
    ///
    /// # Errors
    /// Returns [`Error::Batch`] if it has not.
    pub(crate) fn new(column: &'a MemberColumn, count: usize) -> Result<Self, Error> {
        let bitmap = count.div_ceil(8);
        let (values, length, expected) = match &column.values {
            MemberValues::Integers(values) => (ValuesView::Integers(values), values.len(), count),
            MemberValues::Timestamps(values) => {
                (ValuesView::Timestamps(values), values.len(), count)
            }
            MemberValues::Numbers(values) => (ValuesView::Numbers(values), values.len(), count),
            MemberValues::Booleans(bits) => (ValuesView::Booleans(bits), bits.len(), bitmap),
            MemberValues::Texts(column) => {
                (ValuesView::Texts(Texts::new(column, count)?), column.ends.len(), count)
            }
            MemberValues::Jsons(column) => {
                (ValuesView::Jsons(Texts::new(column, count)?), column.ends.len(), count)
            }
        };
        if length != expected || column.validity.len() != bitmap {
            return Err(Error::Batch("a member does not have one value per event"));
        }
        Ok(Self { validity: &column.validity, values, mismatched: &column.mismatched })
    }

    /// Looks up the member in the event at `place`.
    #[inline]
    pub(crate) fn look_up(&self, place: usize) -> MemberLookup<'a> {
        match self.get(place) {
            Some(value) => MemberLookup::Value(value),
            None if self.mismatched.binary_search(&(place as u32)).is_ok() => {
                MemberLookup::Mismatched
            }
            None => MemberLookup::Missing,
        }
    }

    /// Returns the value of the member in the event at `place`; `None` if it has none.
    #[inline]
    fn get(&self, place: usize) -> Option<Scalar<'a>> {
        bit(self.validity, place).then(|| match self.values {
            ValuesView::Integers(values) => Scalar::Integer(values[place]),
            ValuesView::Timestamps(values) => {
                Scalar::Timestamp(Timestamp::from_micros(values[place]))
            }
            ValuesView::Numbers(values) => Scalar::Number(values[place]),
            ValuesView::Booleans(bits) => Scalar::Boolean(bit(bits, place)),
            ValuesView::Texts(texts) => Scalar::Text(texts.get(place)),
            ValuesView::Jsons(texts) => Scalar::Json(texts.get(place)),
        })
    }
}

#[inline]
fn bit(bits: &[u8], place: usize) -> bool {
    bits[place / 8] >> (place % 8) & 1 == 1
}

/// Reads the members of one event.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Members<'a, 'm> {
    pub(crate) declared: &'m [Member],
    pub(crate) columns: &'m [MemberView<'a>],
    pub(crate) place: usize,
}

impl<'a> Members<'a, '_> {
    /// Returns the value of `member`. The declared member at `index` is tried first, because it is
    /// probably this member.
    #[inline]
    pub fn get<V: MemberValue<'a>>(&self, index: usize, member: &Member) -> Result<V, Error> {
        let index = match self.declared.get(index) {
            Some(declared) if declared == member => index,
            _ => self.find(member)?,
        };
        let Some(column) = self.columns.get(index) else {
            return Err(Error::Batch("a declared member is missing in the batch"));
        };
        let name = member.name;
        match column.get(self.place) {
            Some(scalar) => V::from_scalar(scalar).map_err(|why| Error::Member { name, why }),
            None if column.mismatched.binary_search(&(self.place as u32)).is_ok() => {
                let why = format!(
                    "is not {}, or present more than once, or the data are not a JSON object",
                    words(member.kind)
                );
                Err(Error::Member { name, why })
            }
            None => V::missing()
                .ok_or_else(|| Error::Member { name, why: "is missing or null".to_owned() }),
        }
    }

    #[cold]
    fn find(&self, member: &Member) -> Result<usize, Error> {
        self.declared
            .iter()
            .position(|declared| declared == member)
            .ok_or(Error::MemberNotDeclared(member.name))
    }
}

fn words(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Integer => "an integer of 64 bits without fraction and exponent",
        FieldKind::Number => "a number",
        FieldKind::Text => "text",
        FieldKind::Boolean => "true or false",
        FieldKind::Timestamp => "an RFC 3339 timestamp",
        FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => "JSON",
    }
}
