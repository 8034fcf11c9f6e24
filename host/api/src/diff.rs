//! Differences of two versions of a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::RawJson;

/// How the rows of a table differ between two versions that have folded the same offsets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableDiff {
    /// One version.
    pub left: String,
    /// The other version.
    pub right: String,
    /// The next offset of each partition: the first offset that the rows do not contain. It is the
    /// same in both versions.
    pub offsets: BTreeMap<u32, u64>,
    /// How many rows are the same in both.
    pub same: u64,
    /// How many rows only `right` has.
    pub added: u64,
    /// How many rows only `left` has.
    pub removed: u64,
    /// How many rows both have under the same key, with different values.
    pub changed: u64,
    /// Declared fields that only one of the versions has, or that have another kind.
    pub fields: Vec<FieldChange>,
    /// The first differences, in key order.
    pub differences: Vec<RowDifference>,
    /// Whether there are more differences than `differences` contains.
    pub more: bool,
}

/// A declared field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// The field.
    pub name: String,
    /// The field's kind in `left`; `null` if `left` does not declare the field.
    pub left: Option<String>,
    /// The field's kind in `right`; `null` if `right` does not declare the field.
    pub right: Option<String>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowDifference {
    /// The key. In a table by tenant, the tenant, U+0000 and the key.
    pub key: String,
    /// The row in `left`; `null` if `left` has no such row.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub left: Option<RawJson>,
    /// The row in `right`; `null` if `right` has no such row.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub right: Option<RawJson>,
}
