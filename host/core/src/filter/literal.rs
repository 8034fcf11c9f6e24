//! Represents the values with which conditions compare fields.

use std::cmp::Ordering;

use serde_json::Value;

use super::FilterError;
use crate::{FieldKind, FieldSpec, FieldValue, parse_rfc3339};

/// The number of characters of a value that an error shows.
const SHOWN_CHARS_MAX: usize = 64;

/// A value with which a condition compares a field. It has the field's kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Integer(i128),
    Number(f64),
    Text(String),
    Boolean(bool),
    Timestamp(i64),
}

impl Literal {
    /// Parses a value as a user writes it in a condition. A text may be in quotes, as in JSON.
    pub(super) fn parse(field: &FieldSpec, text: &str) -> Result<Self, FilterError> {
        let unquoted = text.starts_with('"').then(|| serde_json::from_str::<String>(text));
        let unquoted = match unquoted {
            None => text.to_owned(),
            Some(Ok(unquoted)) => unquoted,
            Some(Err(_)) => return Err(wrong(field, text, "its closing quote is missing")),
        };
        let literal = match field.kind {
            FieldKind::Integer => {
                text.parse().ok().filter(|v| FieldValue::is_integer(*v)).map(Self::Integer)
            }
            FieldKind::Number => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Self::Number)
            }
            FieldKind::Text => Some(Self::Text(unquoted)),
            FieldKind::Boolean => text.parse().ok().map(Self::Boolean),
            FieldKind::Timestamp => parse_rfc3339(&unquoted).map(|time| Self::Timestamp(time.0)),
            FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => None,
        };
        literal.ok_or_else(|| wrong(field, text, advice(field.kind)))
    }

    /// Reads the value from JSON.
    pub(super) fn of_json(field: &FieldSpec, json: &Value) -> Result<Self, FilterError> {
        let literal = match (field.kind, json) {
            (FieldKind::Integer | FieldKind::Number, Value::Number(number)) => {
                return Self::parse(field, &number.to_string());
            }
            (FieldKind::Text, Value::String(text)) => Some(Self::Text(text.clone())),
            (FieldKind::Boolean, Value::Bool(value)) => Some(Self::Boolean(*value)),
            (FieldKind::Timestamp, Value::String(text)) => {
                parse_rfc3339(text).map(|time| Self::Timestamp(time.0))
            }
            _ => None,
        };
        literal.ok_or_else(|| wrong(field, &json.to_string(), advice(field.kind)))
    }

    /// Compares this value with a field's value in a row.
    pub(super) fn compare(&self, value: &FieldValue<'_>) -> Ordering {
        match (self, value) {
            (Self::Integer(a), FieldValue::Integer(b)) => a.cmp(b),
            (Self::Number(a), FieldValue::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Text(a), FieldValue::Text(b)) => a.as_str().cmp(b.as_ref()),
            (Self::Boolean(a), FieldValue::Boolean(b)) => a.cmp(b),
            (Self::Timestamp(a), FieldValue::Timestamp(b)) => a.cmp(b),
            // Both values have the field's kind, so no other pair occurs.
            _ => Ordering::Equal,
        }
    }

    /// Compares two literals of one field.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }

    /// Returns whether the field's value `value` is a text that begins with this text.
    pub(super) fn is_prefix_of(&self, value: &FieldValue<'_>) -> bool {
        match (self, value) {
            (Self::Text(prefix), FieldValue::Text(text)) => text.starts_with(prefix.as_str()),
            _ => false,
        }
    }
}

fn wrong(field: &FieldSpec, value: &str, advice: &'static str) -> FilterError {
    let mut shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    FilterError::Value { field: field.name.clone(), kind: field.kind.name(), value: shown, advice }
}

fn advice(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Integer => "write a whole number from -2^63 to 2^64 - 1",
        FieldKind::Number => "write a number, such as `1.5`",
        FieldKind::Text => "write a text",
        FieldKind::Boolean => "write `true` or `false`",
        FieldKind::Timestamp => "write a time in RFC 3339, such as `2026-03-01T12:00:00Z`",
        FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
            "only `= null` and `!= null` apply"
        }
    }
}
