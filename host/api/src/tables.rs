//! Defines the answer of `GET /v1/tables/{projection}/{table}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::RawJson;
use crate::feed::Field;

/// A page of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TablePage {
    /// Identifies one history of the table. Commits of different epochs cannot be compared.
    pub epoch: String,
    /// The number of the commit that was read.
    pub commit: u64,
    /// The next offset of each partition: the first offset that the rows do not contain.
    pub offsets: BTreeMap<u32, u64>,
    /// The fields of the rows.
    pub fields: Vec<PageField>,
    /// Whether each row belongs to a tenant.
    pub per_tenant: bool,
    /// The rows by key, as the feed sends them. In a per-tenant table, each tenant has an object
    /// with its rows by key. The JSON text has the rows in the requested order, but some JSON
    /// parsers do not keep the order of members. NDJSON and CSV always keep it.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub rows: BTreeMap<String, RawJson>,
    /// Pass this as `cursor` to get the next page; `null` on the last page.
    pub next: Option<String>,
}

/// A field of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PageField {
    /// The JSON key.
    pub name: String,
    /// `integer`, `number`, `text`, `boolean`, `timestamp` or `json`, or a sketch:
    /// `distinct` or `percentiles`.
    pub kind: String,
    /// A unit for people; missing if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// How the values of several partitions are merged.
    pub merge: String,
}

impl From<PageField> for Field {
    fn from(PageField { name, kind, unit, .. }: PageField) -> Self {
        Self { name, kind, unit }
    }
}
