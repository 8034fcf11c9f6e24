//! Represents values of fields after decoding, and defines how they are compared.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{FieldKind, parse_rfc3339};

/// The maximum number of digits that [`FieldValue::decode`] reads without a general parser. Every
/// whole number with at most this many digits fits 64 bits with a sign.
const SAFE_DIGITS: usize = 18;

/// The value of a field in a row, after decoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FieldValue<'a> {
    /// A whole number from -2^63 to 2^64 - 1.
    Integer(i128),
    /// A finite number, as the nearest double.
    Number(f64),
    /// A text, with escapes decoded.
    Text(Cow<'a, str>),
    /// The value is `true` or `false`.
    Boolean(bool),
    /// A time in microseconds since 1970.
    Timestamp(i64),
}

impl<'a> FieldValue<'a> {
    /// Decodes the text of a value in a row. Returns `None` if the text is not of `kind`. Kinds
    /// without an order (`json` and the sketches) are not decoded, so they also give `None`.
    #[must_use]
    pub fn decode(kind: FieldKind, json: &'a [u8]) -> Option<Self> {
        match kind {
            FieldKind::Integer => integer(json).map(Self::Integer),
            FieldKind::Number => number(json).map(Self::Number),
            FieldKind::Text => text(json).map(Self::Text),
            FieldKind::Boolean => match json {
                b"true" => Some(Self::Boolean(true)),
                b"false" => Some(Self::Boolean(false)),
                _ => None,
            },
            FieldKind::Timestamp => parse_rfc3339(&text(json)?).map(|time| Self::Timestamp(time.0)),
            FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => None,
        }
    }

    /// Returns whether `value` is within the range of the kind `integer`.
    #[must_use]
    pub fn is_integer(value: i128) -> bool {
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value)
    }

    /// Compares two values of one field: numbers and times by size, text by its bytes in
    /// UTF-8, `false` before `true`.
    #[must_use]
    pub fn compare(&self, other: &FieldValue<'_>) -> Ordering {
        match (self, other) {
            (Self::Integer(a), FieldValue::Integer(b)) => a.cmp(b),
            (Self::Number(a), FieldValue::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Text(a), FieldValue::Text(b)) => a.as_ref().cmp(b.as_ref()),
            (Self::Boolean(a), FieldValue::Boolean(b)) => a.cmp(b),
            (Self::Timestamp(a), FieldValue::Timestamp(b)) => a.cmp(b),
            // Values of one field have one kind.
            _ => Ordering::Equal,
        }
    }

    /// Returns a copy of the value that owns its text.
    #[must_use]
    pub fn into_owned(self) -> FieldValue<'static> {
        match self {
            Self::Integer(value) => FieldValue::Integer(value),
            Self::Number(value) => FieldValue::Number(value),
            Self::Text(text) => FieldValue::Text(Cow::Owned(text.into_owned())),
            Self::Boolean(value) => FieldValue::Boolean(value),
            Self::Timestamp(value) => FieldValue::Timestamp(value),
        }
    }
}

#[inline]
fn integer(json: &[u8]) -> Option<i128> {
    let digits = json.strip_prefix(b"-").unwrap_or(json);
    if !(1..=SAFE_DIGITS).contains(&digits.len()) {
        return long_integer(json);
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(i128::from(if digits.len() < json.len() { -value } else { value }))
}

fn long_integer(json: &[u8]) -> Option<i128> {
    let value: i128 = std::str::from_utf8(json).ok()?.parse().ok()?;
    FieldValue::is_integer(value).then_some(value)
}

#[inline]
fn number(json: &[u8]) -> Option<f64> {
    // Short whole numbers need no general parser.
    if json.len() <= SAFE_DIGITS
        && let Some(whole) = integer(json)
    {
        #[expect(clippy::cast_precision_loss, reason = "the nearest double")]
        return Some(whole as i64 as f64);
    }
    // `parse` also accepts words such as `inf`, and a leading plus sign.
    let is_number = matches!(json.first(), Some(b'-' | b'0'..=b'9'));
    let value: f64 = is_number.then(|| std::str::from_utf8(json).ok()?.parse().ok())??;
    value.is_finite().then_some(value)
}

#[inline]
fn text(json: &[u8]) -> Option<Cow<'_, str>> {
    let text = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if text.contains(&b'\\') {
        return serde_json::from_slice(json).ok().map(Cow::Owned);
    }
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_by_their_kind() {
        let decode = |kind, json: &'static str| FieldValue::decode(kind, json.as_bytes());
        use FieldKind::{Boolean, Integer, Json, Number, Text, Timestamp};
        assert_eq!(decode(Integer, "-7"), Some(FieldValue::Integer(-7)));
        for (json, value) in [
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("18446744073709551616", None),
            ("-9223372036854775808", Some(i128::from(i64::MIN))),
            ("-9223372036854775809", None),
            ("1.0", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(decode(Integer, json), value.map(FieldValue::Integer), "{json}");
        }
        assert_eq!(decode(Number, "3"), Some(FieldValue::Number(3.0)));
        assert_eq!(decode(Number, "-0.25e1"), Some(FieldValue::Number(-2.5)));
        assert_eq!(decode(Number, "1e400"), None);
        assert_eq!(decode(Number, "inf"), None);
        let text = |text: &'static str| Some(FieldValue::Text(text.into()));
        assert_eq!(decode(Text, r#""a\u00e4\"""#), text("aä\""));
        assert_eq!(decode(Text, "\"plain\""), text("plain"));
        assert_eq!(decode(Boolean, "false"), Some(FieldValue::Boolean(false)));
        let time = decode(Timestamp, "\"1970-01-01T00:00:01.5Z\"");
        assert_eq!(time, Some(FieldValue::Timestamp(1_500_000)));
        assert_eq!(decode(Json, "1"), None);
        assert_eq!(decode(Boolean, "1"), None);
    }
}
