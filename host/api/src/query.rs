//! Defines the query of a table, which is the body of `POST /v1/tables/{projection}/{table}/query`.
//! Also defines the answer of queries whose result is an ordered list.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RawJson;
use crate::feed::Field;

/// A query of a table. Each member means the same as the parameter of this name of `GET
/// /v1/tables/{projection}/{table}`.
// Long because its members are the parameters of one request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryBody {
    /// Rows whose keys begin with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Rows from this key on, including it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Rows before this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Conditions that must all hold, each as `[FIELD, OPERATOR, VALUE]`: `["cents", ">=", 100]`.
    /// The value of `in` is an array.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Vec<serde_json::Value>>))]
    pub conditions: Vec<(String, String, RawJson)>,
    /// The fields in the answer; all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<Vec<String>>,
    /// The order: a field, `-FIELD`, `key` or `-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The maximum number of rows or groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether to send the whole result from one committed state, without pages.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub export: bool,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The timestamp field to which `start`, `end` and `bucket` refer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Rows at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Rows before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The length of a roll-up's buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The fields by which rows are grouped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// The aggregates of each group, by the names of their columns: `{"n": ["count"], "revenue":
    /// ["sum", "cents"]}`.
    #[serde(rename = "agg", skip_serializing_if = "Aggregates::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub aggregates: Aggregates,
    /// What buckets without rows contain: `zero`, `null` or `previous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<String>,
    /// The time zone of buckets and of times without an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Offsets whose events the answer must contain: `PARTITION:OFFSET`, several separated by
    /// commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_offset: Option<String>,
    /// How long to wait for `min_offset`: `5s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// The version to read; the active one if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Aggregates in the order of their columns. Each has a name, a function and, if the function needs
/// one, a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregates(pub Vec<(String, Vec<String>)>);

impl Aggregates {
    /// Whether there are no aggregates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The aggregates with these names, functions and fields.
impl<'a> FromIterator<(&'a str, &'a [&'a str])> for Aggregates {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [&'a str])>>(aggregates: I) -> Self {
        let call = |call: &[&str]| call.iter().map(|part| (*part).to_owned()).collect();
        Self(aggregates.into_iter().map(|(name, of)| (name.to_owned(), call(of))).collect())
    }
}

impl Serialize for Aggregates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, call) in &self.0 {
            map.serialize_entry(name, call)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Aggregates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AggregatesVisitor)
    }
}

struct AggregatesVisitor;

impl<'de> Visitor<'de> for AggregatesVisitor {
    type Value = Aggregates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"n\": [\"count\"], \"revenue\": [\"sum\", \"cents\"]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Aggregates, A::Error> {
        let mut aggregates = Vec::new();
        while let Some(entry) = map.next_entry()? {
            aggregates.push(entry);
        }
        Ok(Aggregates(aggregates))
    }
}

/// The answer of a query in the order of a field, or of a roll-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryPage {
    /// Identifies one history of the table. Commits of different epochs cannot be compared.
    pub epoch: String,
    /// The number of the commit that was read.
    pub commit: u64,
    /// The next offset of each partition: the first offset that the rows do not contain.
    pub offsets: BTreeMap<u32, u64>,
    /// The fields of the rows, or the columns of the groups.
    pub fields: Vec<Field>,
    /// The rows or groups, in order. A row is `{"key": …, "value": {…}}`. In a table by tenant, a
    /// row also has the member `tenant`. A group is an object with a member for each column.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub rows: Vec<RawJson>,
    /// Pass this as `cursor` to get the next page; `null` on the last page.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_keep_their_order() {
        let text = r#"{"where":[["cents",">=",1e2]],"agg":{"z":["count"],"a":["sum","cents"]}}"#;
        let body: QueryBody = serde_json::from_str(text).unwrap();
        let names: Vec<_> = body.aggregates.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        assert!(serde_json::from_str::<QueryBody>(r#"{"wher":[]}"#).is_err());
    }
}
