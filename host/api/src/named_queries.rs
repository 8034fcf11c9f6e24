//! Named queries, which are stored on the server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::QueryBody;

/// A query of a table with parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryDefinition {
    /// `PROJECTION/TABLE`.
    #[cfg_attr(feature = "openapi", schema(example = "revenue/by_product"))]
    pub table: String,
    /// What the query returns, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, QueryParameter>,
    /// The query. A value of a condition, and the members `prefix`, `from`, `to`, `start`, `end`,
    /// `bucket`, `order` and `tz`, may be `"$NAME"`, which means the value of the parameter `NAME`.
    /// A text that begins with a dollar sign must be written with two of them.
    #[serde(default)]
    pub query: QueryBody,
}

/// A parameter of a named query. Without `default` and `optional`, a request must contain the
/// parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryParameter {
    /// The kind of the parameter's values.
    pub kind: ParameterKind,
    /// Whether the parameter has several values, separated by commas, for the operator `in`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
    /// The value if a request does not give one, written as in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether the parameter may be left out or empty. In that case, the conditions and members
    /// that use it are left out too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What the parameter is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// The kind of a parameter's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ParameterKind {
    /// Any text.
    #[default]
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A time in RFC 3339, or a date.
    Timestamp,
}

impl ParameterKind {
    /// The name as it is written in a definition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
}

/// A named query, as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedQuery {
    /// The name of the query.
    pub name: String,
    /// `PROJECTION/TABLE`.
    pub table: String,
    /// What the query returns, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, QueryParameter>,
    /// The query, as [`QueryDefinition`] describes it.
    #[serde(default)]
    pub query: QueryBody,
}

impl NamedQuery {
    /// Creates the entry of the query `name` in a list.
    #[must_use]
    pub fn new(name: String, definition: QueryDefinition) -> Self {
        let QueryDefinition { table, description, parameters, query } = definition;
        Self { name, table, description, parameters, query }
    }
}

/// All named queries, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedQueries {
    /// The queries.
    pub queries: Vec<NamedQuery>,
}
