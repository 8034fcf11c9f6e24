//! Represents a query as its caller requests it, before it is checked against a table.

use lantern_core::FieldKind;
use serde_json::Value;

use crate::RequestError;

/// A request for a query. All members may be left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryRequest {
    /// The conditions of the filter. A row must fulfil all of them.
    pub conditions: Vec<ConditionRequest>,
    /// The names of the fields in the result; all fields if it is `None`.
    pub columns: Option<Vec<String>>,
    /// The order of the result: `key`, a field, or a column of a roll-up. A `-` before the name
    /// reverses the order.
    pub order: Option<String>,
    /// The timestamp field to which `start`, `end` and `bucket` refer.
    pub time: Option<String>,
    /// Only rows at or after this time are read.
    pub start: Option<String>,
    /// Only rows before this time are read.
    pub end: Option<String>,
    /// The length of a roll-up's buckets.
    pub bucket: Option<String>,
    /// The fields by which rows are grouped.
    pub by: Vec<String>,
    /// The aggregates that each group has.
    pub aggregates: Vec<AggregateRequest>,
    /// What buckets without rows contain: `zero`, `null` or `previous`.
    pub fill: Option<String>,
    /// The time zone of buckets and of times without an offset.
    pub tz: Option<String>,
}

/// A condition, in one of two forms.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionRequest {
    /// The condition as text: `FIELD OPERATOR VALUE`.
    Text(String),
    /// The three parts of the condition.
    Json {
        /// The name of the field.
        field: String,
        /// The operator of the condition, as text.
        operator: String,
        /// The value with which the condition compares, as JSON.
        value: Value,
    },
}

/// An aggregate that a query requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregateRequest {
    /// The name of the column in the result. With `None`, it is composed of the function and the
    /// field: `sum_cents`.
    pub name: Option<String>,
    /// The name of the function.
    pub function: String,
    /// The name of the field, if the function needs one.
    pub field: Option<String>,
}

/// A column of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    /// The name of the column.
    pub name: String,
    /// The kind of the column's values.
    pub kind: FieldKind,
    /// The unit of the values; an empty text if there is none.
    pub unit: String,
}

impl QueryRequest {
    /// Returns whether the request groups rows.
    #[must_use]
    pub fn is_roll_up(&self) -> bool {
        self.bucket.is_some() || !self.by.is_empty() || !self.aggregates.is_empty()
    }
}

impl AggregateRequest {
    /// Parses aggregates, each as `FUNCTION(FIELD)`, `count()` or `FUNCTION(FIELD) as NAME`.
    /// Several aggregates are separated by commas.
    ///
    /// # Errors
    /// Returns a [`RequestError`] that shows the correct form.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, RequestError> {
        text.split(',').map(|part| Self::parse(part.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self, RequestError> {
        let wrong = || {
            let text: String = text.chars().take(128).collect();
            let detail = format!(
                "`{text}` is no aggregate: write a function and a field, such as `sum(cents)`, `count()` or `p95(ms) as slow`"
            );
            RequestError::new("agg", detail)
        };
        let (call, name) = match text.split_once(" as ") {
            Some((call, name)) => (call.trim(), Some(name.trim().to_owned())),
            None => (text, None),
        };
        let (function, field) =
            call.strip_suffix(')').and_then(|call| call.split_once('(')).ok_or_else(wrong)?;
        let (function, field) = (function.trim(), field.trim());
        if function.is_empty() || name.as_deref().is_some_and(str::is_empty) {
            return Err(wrong());
        }
        let field = (!field.is_empty()).then(|| field.to_owned());
        Ok(Self { name, function: function.to_owned(), field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_are_parsed_with_their_names() {
        let aggregate =
            |name: Option<&str>, function: &str, field: Option<&str>| AggregateRequest {
                name: name.map(str::to_owned),
                function: function.into(),
                field: field.map(str::to_owned),
            };
        assert_eq!(
            AggregateRequest::parse_all("sum(cents), count() as n,p95( ms )").unwrap(),
            [
                aggregate(None, "sum", Some("cents")),
                aggregate(Some("n"), "count", None),
                aggregate(None, "p95", Some("ms")),
            ]
        );
        for bad in ["", "sum", "sum(cents", "(cents)", "sum(a),", "sum(a) as "] {
            let error = AggregateRequest::parse_all(bad).unwrap_err();
            assert!(error.to_string().contains("sum(cents)"), "{bad}: {error}");
        }
    }
}
