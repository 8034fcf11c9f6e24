//! Dry runs of uploads: what a version would write.

use serde::{Deserialize, Serialize};

use crate::{CheckResult, FieldChange, LogLine, ParkedStatus, RowDifference};

/// What a version would write, and what the active version writes for the same events. Both
/// begin with empty tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DryRun {
    /// The projection.
    pub projection: String,
    /// The result of the check that an upload makes.
    pub check: CheckResult,
    /// The events that were folded: the newest ones of each partition.
    pub sample: Vec<SampleRange>,
    /// How many events there are in the sample.
    pub events: u64,
    /// The fold of the new version.
    pub new: DryFold,
    /// The fold of the active version; missing if no version is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<DryFold>,
    /// The public tables of the new version.
    pub tables: Vec<DryTable>,
}

/// Events of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SampleRange {
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
}

/// The fold of a sample by one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DryFold {
    /// The version.
    pub version: String,
    /// Events applied.
    pub applied: u64,
    /// The number of emitted events. These events are not appended to the log.
    pub emitted: u64,
    /// How many events would be parked.
    pub parked: u64,
    /// The first events that would be parked.
    pub first_parked: Vec<ParkedStatus>,
    /// The first messages of the plugin.
    pub logs: Vec<LogLine>,
    /// If the fold stopped before the end of the sample: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Fuel used.
    pub fuel: u64,
}

/// A table after the fold of a sample. `left` is the active version, `right` the new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DryTable {
    /// The name.
    pub name: String,
    /// Rows that are the same in both versions.
    pub same: u64,
    /// Rows that only the new version has.
    pub added: u64,
    /// Rows that only the active version has.
    pub removed: u64,
    /// Rows that both have under the same key, with different values.
    pub changed: u64,
    /// Declared fields that differ.
    pub fields: Vec<FieldChange>,
    /// The first rows that differ.
    pub differences: Vec<RowDifference>,
    /// Whether there are more differences than `differences` contains.
    pub more: bool,
}

/// A line of a dry run in NDJSON, an object with one member. The last line is `dry_run` or
/// `problem`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DryRunLine {
    /// How far the folds are. There is none during the checks, which come first.
    Progress {
        /// How many events were folded, by both versions together.
        events: u64,
        /// How much of the work is done, 0 to 100.
        percent: f64,
    },
    /// The result.
    DryRun(Box<DryRun>),
    /// Why there is no result.
    Problem(crate::Problem),
}
