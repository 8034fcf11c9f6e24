//! Implements filters. A filter has conditions on declared fields. A row fulfils a filter if all
//! conditions of the filter hold. Filters act on merged rows.
//!
//! A condition compares a field with a value: `cents >= 100`.
//!
//! | operators | kinds |
//! |---|---|
//! | `=`, `!=`, `in` | all except `json` and sketches |
//! | `<`, `<=`, `>`, `>=` | all except `boolean`, `json` and sketches |
//! | `prefix` | `text` |
//! | `= null`, `!= null` | all |
//!
//! A field that is missing or `null` has no value. A condition on such a field does not hold, with
//! any operator: `country != DE` finds no row without a country. There are two exceptions: `= null`
//! finds the rows without a value, and `!= null` the rows with a value.
//!
//! Times are compared as times and numbers as doubles. Text is compared by its bytes in UTF-8.

mod literal;
mod parse;

use std::cmp::Ordering;
use std::fmt;

use thiserror::Error;

use self::literal::Literal;
use crate::{FieldKind, FieldSpec, FieldValue, RowFields};

/// The maximum number of conditions in a filter.
pub const FILTER_CONDITIONS_MAX: usize = 64;
/// The maximum number of values after the operator `in`.
pub const FILTER_VALUES_MAX: usize = 1_000;

/// A list of conditions. A row fulfils the filter if all conditions hold. The default has no
/// conditions, so every row fulfils it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    conditions: Vec<Condition>,
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    field: usize,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// The field has no value.
    Absent,
    /// The field has a value.
    Present,
    Compare(Operator, Literal),
    /// The field has one of these values, which are sorted.
    In(Vec<Literal>),
}

/// An operator of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The operator `=`.
    Equal,
    /// The operator `!=`.
    NotEqual,
    /// The operator `<`.
    Less,
    /// The operator `<=`.
    LessOrEqual,
    /// The operator `>`.
    Greater,
    /// The operator `>=`.
    GreaterOrEqual,
    /// `in`: equal to one of several values.
    In,
    /// `prefix`: the field's text begins with the value.
    Prefix,
}

/// Why a condition or a filter was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The text does not consist of a field, an operator and a value.
    #[error(
        "`{0}` is no condition: write a field, an operator (`=`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `prefix`) and a value, such as `cents >= 100`"
    )]
    Form(String),
    /// The table does not declare the field.
    #[error(transparent)]
    Field(#[from] UnknownField),
    /// The operator cannot be used with fields of this kind.
    #[error("`{operator}` does not apply to the field `{field}` of kind `{kind}`: {advice}")]
    Operator {
        /// The name of the field.
        field: String,
        /// The kind of the field.
        kind: &'static str,
        /// The operator that cannot be used.
        operator: Operator,
        /// A hint for the user: what to use instead.
        advice: &'static str,
    },
    /// The value does not have the field's kind.
    #[error("`{value}` is no value for the field `{field}` of kind `{kind}`: {advice}")]
    Value {
        /// The name of the field.
        field: String,
        /// The kind of the field.
        kind: &'static str,
        /// The value, as it was written.
        value: String,
        /// A hint for the user: how a value of this kind is written.
        advice: &'static str,
    },
    /// The operator `in` has no value, or too many values.
    #[error(
        "`in` of the field `{field}` has {count} values: it must have 1 to {FILTER_VALUES_MAX}"
    )]
    Values {
        /// The name of the field.
        field: String,
        /// The number of values that the condition lists.
        count: usize,
    },
    /// The filter has too many conditions.
    #[error("the filter has {0} conditions: the limit is {FILTER_CONDITIONS_MAX}")]
    Conditions(usize),
}

/// The error for the name of a field that the table does not declare.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the table has no field `{name}`{}; it has {}", similar.as_ref().map(|similar| format!(": did you mean `{similar}`?")).unwrap_or_default(), listed(fields))]
pub struct UnknownField {
    /// The name that the table does not declare.
    pub name: String,
    /// The declared name that is most similar to the unknown name, if one is similar.
    pub similar: Option<String>,
    /// The names of the declared fields.
    pub fields: Vec<String>,
}

fn listed(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
    fields.join(", ")
}

/// Returns the index of the declared field `name`.
///
/// # Errors
/// Returns [`UnknownField`] if the table does not declare the field.
pub fn field_named(fields: &[FieldSpec], name: &str) -> Result<usize, UnknownField> {
    fields.iter().position(|field| field.name == name).ok_or_else(|| UnknownField {
        name: name.chars().take(64).collect(),
        similar: similar(name, fields.iter().map(|field| field.name.as_str())).map(str::to_owned),
        fields: fields.iter().map(|field| field.name.clone()).collect(),
    })
}

/// Returns the name in `known` that is most similar to `name`, for the case that a user has
/// misspelled it. `None` if every known name differs in more than a third of the characters or in
/// more than three.
pub fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    known
        .filter(|known| known.len().abs_diff(name.len()) <= 4 * most)
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

impl Filter {
    /// Creates a filter of these conditions.
    ///
    /// # Errors
    /// Returns [`FilterError::Conditions`] if there are more than [`FILTER_CONDITIONS_MAX`]
    /// conditions.
    pub fn new(conditions: Vec<Condition>) -> Result<Self, FilterError> {
        if conditions.len() > FILTER_CONDITIONS_MAX {
            return Err(FilterError::Conditions(conditions.len()));
        }
        Ok(Self { conditions })
    }

    /// Returns whether the filter has no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Adds a condition.
    pub fn push(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// Returns the indexes of the fields that the conditions name. A [`crate::FieldReader`] must
    /// read these fields.
    pub fn fields(&self) -> impl Iterator<Item = usize> + '_ {
        self.conditions.iter().map(|condition| condition.field)
    }

    /// Returns whether all conditions hold for `row`.
    #[must_use]
    pub fn matches(&self, row: &RowFields<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.matches(row))
    }
}

impl Condition {
    /// Returns the condition that the field with the index `field` has a value.
    #[must_use]
    pub fn present(field: usize) -> Self {
        Self { field, test: Test::Present }
    }

    /// Returns the conditions for a range of times: the time in the timestamp field with the index
    /// `field` must be at or after `start` and before `end`, in microseconds.
    pub fn times(field: usize, start: Option<i64>, end: Option<i64>) -> impl Iterator<Item = Self> {
        let bounds = [(Operator::GreaterOrEqual, start), (Operator::Less, end)];
        bounds.into_iter().filter_map(move |(operator, time)| {
            Some(Self { field, test: Test::Compare(operator, Literal::Timestamp(time?)) })
        })
    }

    fn matches(&self, row: &RowFields<'_>) -> bool {
        let compare = |operator: &Operator, literal: &Literal| {
            let Some(value) = row.value(self.field) else { return false };
            let order = || literal.compare(&value).reverse();
            match operator {
                Operator::Equal | Operator::In => order() == Ordering::Equal,
                Operator::NotEqual => order() != Ordering::Equal,
                Operator::Less => order() == Ordering::Less,
                Operator::LessOrEqual => order() != Ordering::Greater,
                Operator::Greater => order() == Ordering::Greater,
                Operator::GreaterOrEqual => order() != Ordering::Less,
                Operator::Prefix => literal.is_prefix_of(&value),
            }
        };
        match &self.test {
            Test::Absent => row.json(self.field).is_none(),
            Test::Present => row.json(self.field).is_some(),
            Test::Compare(operator, literal) => compare(operator, literal),
            Test::In(literals) => row.value(self.field).is_some_and(|value: FieldValue<'_>| {
                literals.binary_search_by(|literal| literal.compare(&value)).is_ok()
            }),
        }
    }
}

impl Operator {
    const ALL: [Self; 8] = [
        Self::NotEqual,
        Self::LessOrEqual,
        Self::GreaterOrEqual,
        Self::Equal,
        Self::Less,
        Self::Greater,
        Self::In,
        Self::Prefix,
    ];

    /// Returns the operator as a user writes it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Prefix => "prefix",
        }
    }

    /// Returns the operator that a user writes as `text`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.text() == text)
    }

    /// Refuses `field` if the operator cannot be used with its kind.
    fn check(self, field: &FieldSpec) -> Result<(), FilterError> {
        let advice = match field.kind {
            FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
                "only `= null` and `!= null` do"
            }
            FieldKind::Boolean if self.is_order() => "use `=` or `!=`",
            kind if self == Self::Prefix && kind != FieldKind::Text => {
                "it is for text; use `=`, `!=`, `<`, `<=`, `>`, `>=` or `in`"
            }
            _ => return Ok(()),
        };
        let (name, kind) = (field.name.clone(), field.kind.name());
        Err(FilterError::Operator { field: name, kind, operator: self, advice })
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests;
