//! Parses conditions that are written as text or as JSON.

use serde_json::Value;

use super::literal::Literal;
use super::{Condition, FILTER_VALUES_MAX, FilterError, Operator, Test, field_named};
use crate::FieldSpec;

/// The word with which a condition names a missing value.
const NULL: &str = "null";

impl Condition {
    /// Parses a condition `FIELD OPERATOR VALUE`, such as `cents >= 100`, `country in DE,FR` or
    /// `name = "a, b"`. Spaces around the operator may be left out, except with `in` and `prefix`.
    ///
    /// # Errors
    /// Returns [`FilterError`] if the text is not a valid condition on one of `fields`.
    pub fn parse(fields: &[FieldSpec], text: &str) -> Result<Self, FilterError> {
        let form = || FilterError::Form(text.chars().take(128).collect());
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
            .ok_or_else(form)?;
        let (name, rest) = trimmed.split_at(end);
        if name.is_empty() {
            return Err(form());
        }
        let (operator, value) = split_operator(rest).ok_or_else(form)?;
        let index = field_named(fields, name)?;
        let field = &fields[index];
        if value == NULL
            && let Some(test) = null_test(operator)
        {
            return Ok(Self { field: index, test });
        }
        operator.check(field)?;
        let test = match operator {
            Operator::In if value.starts_with('[') => {
                let json = serde_json::from_str(value).map_err(|_| form())?;
                return Self::of_json(fields, name, operator.text(), &json);
            }
            Operator::In => {
                let parts = split_values(value);
                let values = parts.iter().map(|part| Literal::parse(field, part.trim()));
                in_test(field, values.collect::<Result<_, _>>()?)?
            }
            _ => Test::Compare(operator, Literal::parse(field, value)?),
        };
        Ok(Self { field: index, test })
    }

    /// Creates a condition from a value in JSON. With the operator `in` the value is an array.
    ///
    /// # Errors
    /// Returns [`FilterError`] if the condition is not valid for one of `fields`.
    pub fn of_json(
        fields: &[FieldSpec],
        name: &str,
        operator: &str,
        value: &Value,
    ) -> Result<Self, FilterError> {
        let form = || {
            let text = format!("[\"{name}\",\"{operator}\",{value}]");
            FilterError::Form(text.chars().take(128).collect())
        };
        let index = field_named(fields, name)?;
        let field = &fields[index];
        let operator = Operator::from_text(operator).ok_or_else(form)?;
        if value.is_null()
            && let Some(test) = null_test(operator)
        {
            return Ok(Self { field: index, test });
        }
        operator.check(field)?;
        let test = match (operator, value) {
            (Operator::In, Value::Array(values)) => {
                let values = values.iter().map(|value| Literal::of_json(field, value));
                in_test(field, values.collect::<Result<_, _>>()?)?
            }
            (Operator::In, _) => return Err(form()),
            _ => Test::Compare(operator, Literal::of_json(field, value)?),
        };
        Ok(Self { field: index, test })
    }
}

fn null_test(operator: Operator) -> Option<Test> {
    match operator {
        Operator::Equal => Some(Test::Absent),
        Operator::NotEqual => Some(Test::Present),
        _ => None,
    }
}

fn in_test(field: &FieldSpec, mut values: Vec<Literal>) -> Result<Test, FilterError> {
    if !(1..=FILTER_VALUES_MAX).contains(&values.len()) {
        return Err(FilterError::Values { field: field.name.clone(), count: values.len() });
    }
    values.sort_by(Literal::order);
    Ok(Test::In(values))
}

/// Splits `text` into the operator at its start and the value after the operator.
fn split_operator(text: &str) -> Option<(Operator, &str)> {
    let rest = text.trim_start();
    let spaced = rest.len() < text.len();
    Operator::ALL.into_iter().find_map(|operator| {
        let value = rest.strip_prefix(operator.text())?;
        let word = matches!(operator, Operator::In | Operator::Prefix);
        let separate = spaced && value.starts_with([' ', '[', '"', '\t']);
        (!word || separate).then_some((operator, value.trim()))
    })
}

/// Splits `text` at commas that are not within quotes.
fn split_values(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted || text[start..at].trim().is_empty() => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(&text[start..]);
    parts
}
