//! Selects rows of a table and the fields that readers get: a filter and a choice of fields.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::{
    Condition, FieldReader, FieldSpans, FieldSpec, Filter, FilterError, RowFields, UnknownField,
    field_named,
};

/// A parameter of a query that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The parameter.
    pub parameter: &'static str,
    /// What is wrong with the parameter, and how to correct it.
    pub detail: String,
}

impl RequestError {
    /// Creates the error that `parameter` is wrong for the reason `detail`.
    pub fn new(parameter: &'static str, detail: impl Into<String>) -> Self {
        Self { parameter, detail: detail.into() }
    }

    /// Returns a function that converts an error about a field to an error of `parameter`.
    pub fn field(parameter: &'static str) -> impl Fn(UnknownField) -> Self {
        move |error| Self::new(parameter, error.to_string())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.parameter, self.detail)
    }
}

impl std::error::Error for RequestError {}

impl From<FilterError> for RequestError {
    fn from(error: FilterError) -> Self {
        Self::new("where", error.to_string())
    }
}

/// Chosen fields of a table, in the order of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChoice {
    /// The index of each field, and the start of its member: `"name":`.
    fields: Vec<(usize, Box<str>)>,
}

impl FieldChoice {
    /// Chooses the fields with these `names`.
    ///
    /// # Errors
    /// [`RequestError`] if the table does not have a field, or a name occurs twice.
    pub fn new(fields: &[FieldSpec], names: &[String]) -> Result<Self, RequestError> {
        let mut chosen: Vec<(usize, Box<str>)> = Vec::with_capacity(names.len());
        for name in names {
            let field = field_named(fields, name).map_err(RequestError::field("cols"))?;
            if chosen.iter().any(|(known, _)| *known == field) {
                return Err(RequestError::new("cols", format!("it names `{name}` twice")));
            }
            // A field's name has no character that JSON requires to be escaped.
            chosen.push((field, format!("\"{name}\":").into()));
        }
        Ok(Self { fields: chosen })
    }

    /// The indexes of the fields.
    pub fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        self.fields.iter().map(|(field, _)| *field)
    }

    /// Returns the row with only the chosen fields. Fields without a value are left out.
    #[must_use]
    pub fn of(&self, row: &RowFields<'_>) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (field, member) in &self.fields {
            let Some(json) = row.json(*field) else { continue };
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(json);
        }
        out.push(b'}');
        out
    }
}

/// A filter and a choice of fields, checked against a table.
#[derive(Clone, Debug)]
pub struct RowShape {
    filter: Filter,
    choice: Option<FieldChoice>,
    reader: FieldReader,
}

impl RowShape {
    /// Selects the rows that fulfil all `conditions` (field, operator and value), and of these rows
    /// the fields `columns`. `None` selects all fields.
    ///
    /// # Errors
    /// [`RequestError`] that names the field and the fix.
    pub fn new(
        fields: &[FieldSpec],
        conditions: &[(String, String, Value)],
        columns: Option<&[String]>,
    ) -> Result<Self, RequestError> {
        let conditions = conditions
            .iter()
            .map(|(field, operator, value)| Condition::of_json(fields, field, operator, value));
        let filter = Filter::new(conditions.collect::<Result<_, _>>()?)?;
        let choice = columns.map(|names| FieldChoice::new(fields, names)).transpose()?;
        let mut chosen: Vec<usize> = filter.fields().collect();
        chosen.extend(choice.iter().flat_map(FieldChoice::indexes));
        Ok(Self { filter, choice, reader: FieldReader::new(fields, chosen) })
    }

    /// The indexes of the fields that rows contain.
    #[must_use]
    pub fn fields(&self, all: usize) -> Vec<usize> {
        self.choice.as_ref().map_or_else(|| (0..all).collect(), |choice| choice.indexes().collect())
    }

    /// Returns the selected fields of `row`, or `None` if the row does not fulfil the filter.
    /// `spans` is a buffer to be reused for many rows.
    pub fn apply<'r>(&self, row: &'r [u8], spans: &mut FieldSpans) -> Option<Cow<'r, [u8]>> {
        if self.filter.is_empty() && self.choice.is_none() {
            return Some(Cow::Borrowed(row));
        }
        let fields = self.reader.read(row, spans);
        self.filter.matches(&fields).then(|| match &self.choice {
            None => Cow::Borrowed(row),
            Some(choice) => Cow::Owned(choice.of(&fields)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FieldKind;

    fn fields() -> Vec<FieldSpec> {
        let field = |name: &str, kind| FieldSpec { name: name.into(), kind, ..Default::default() };
        vec![field("country", FieldKind::Text), field("cents", FieldKind::Integer)]
    }

    fn shape(conditions: Value, columns: Option<&[&str]>) -> Result<RowShape, RequestError> {
        let conditions: Vec<_> = serde_json::from_value(conditions).unwrap();
        let columns =
            columns.map(|names| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        RowShape::new(&fields(), &conditions, columns.as_deref())
    }

    fn applied(shape: &RowShape, row: &str) -> Option<String> {
        let row = shape.apply(row.as_bytes(), &mut FieldSpans::default());
        row.map(|row| String::from_utf8(row.into_owned()).unwrap())
    }

    #[test]
    fn rows_that_match_have_the_chosen_fields_in_the_chosen_order() {
        let row = r#"{"country":"DE","cents":7}"#;
        let shown = |shape: &RowShape| applied(shape, row);
        assert_eq!(shown(&shape(json!([]), None).unwrap()).as_deref(), Some(row));
        let both = shape(json!([["cents", ">=", 7]]), Some(&["cents", "country"])).unwrap();
        assert_eq!(shown(&both).as_deref(), Some(r#"{"cents":7,"country":"DE"}"#));
        assert_eq!(both.fields(2), [1, 0]);
        let none = shape(json!([["cents", ">", 7]]), Some(&["cents"])).unwrap();
        assert_eq!(shown(&none), None);
        // The filter may read a field that is not chosen, and a field may have no value.
        let other = shape(json!([["country", "=", "DE"]]), Some(&["cents"])).unwrap();
        assert_eq!(applied(&other, r#"{"country":"DE"}"#).as_deref(), Some("{}"));
        let empty = shape(json!([]), Some(&[])).unwrap();
        assert_eq!(shown(&empty).as_deref(), Some("{}"));
    }

    #[test]
    fn errors_name_the_parameter_and_the_field() {
        for (result, text) in [
            (shape(json!([["cent", "=", 1]]), None), "`where`: the table has no field `cent`"),
            (shape(json!([["cents", "prefix", "1"]]), None), "`where`: `prefix` does not apply"),
            (shape(json!([["cents", "=", "x"]]), None), "`where`: `\"x\"` is no value"),
            (shape(json!([]), Some(&["cents", "cents"])), "`cols`: it names `cents` twice"),
            (
                shape(json!([]), Some(&["county"])),
                "`cols`: the table has no field `county`: did you mean `country`?",
            ),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
