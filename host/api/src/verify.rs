//! Defines what the API reports about verifications. A verification compares a version's state with
//! a second fold of the log.

use serde::{Deserialize, Serialize};

/// How a version's state compares with a second fold of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The comparison is running.
    #[default]
    Running,
    /// Folding the log again gives the same state.
    Same,
    /// Folding the log again gives another state: the state or the log is damaged, or the plugin is
    /// not deterministic.
    Differs,
    /// There is no verdict, for the given reason.
    Unverifiable,
    /// The host could not fold or read; the reason says why.
    Failed,
    /// The verification was ended before it had a result.
    Stopped,
}

/// A verification of one version, running or ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyStatus {
    /// The version.
    pub version: String,
    /// The worst verdict of all partitions; `running` until the verification ends.
    pub verdict: Verdict,
    /// The reason for the verdict, if it needs an explanation.
    pub reason: Option<String>,
    /// When the verification began, in microseconds since 1970.
    pub started_us: i64,
    /// How long the verification has taken, in milliseconds, including pauses.
    pub took_ms: u64,
    /// How much of the work is done, 0 to 100.
    pub percent: f64,
    /// Offsets that were folded again.
    pub events: u64,
    /// Steps of the second fold, in batches of at most 1, 7, 64 and 1,024 events.
    #[serde(default)]
    pub steps: u64,
    /// After how many of the steps the plugin's instance was replaced by a new one.
    #[serde(default)]
    pub instances_dropped: u64,
    /// Rows, timers, parked events and counters that were compared.
    pub rows: u64,
    /// How many of these differ.
    pub differences: u64,
    /// One entry per partition.
    pub partitions: Vec<VerifiedShard>,
}

/// One partition of a verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifiedShard {
    /// The partition.
    pub partition: u32,
    /// How the partition's state compares with the second fold.
    pub verdict: Verdict,
    /// The reason for the verdict, in a sentence.
    pub reason: Option<String>,
    /// The next offset at which both states were compared.
    pub next: u64,
    /// Retries and drops of parked events that were repeated during the fold.
    pub decisions: u64,
    /// One entry per table, and one each for timers, parked events and counters.
    pub tables: Vec<VerifiedTable>,
    /// The first difference.
    pub first: Option<VerifyDifference>,
}

/// A compared table of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifiedTable {
    /// The name.
    pub name: String,
    /// How many rows the state has.
    pub rows: u64,
    /// How many rows differ, including those that only one side has.
    pub differences: u64,
    /// SHA-256 over the rows that the log gives.
    pub expected: String,
    /// SHA-256 over the rows that the state has.
    pub found: String,
}

/// A row that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyDifference {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// The value that the fold of the log gives; `null` if the fold gives no row. Long values are
    /// cut.
    pub expected: Option<String>,
    /// The value in the state; `null` if the state has no row. Long values are cut.
    pub found: Option<String>,
    /// The fields that differ, if both values are JSON objects.
    pub fields: Vec<FieldDifference>,
}

/// A field that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldDifference {
    /// The field.
    pub name: String,
    /// The value that the fold of the log gives, as JSON; `null` if its row lacks the field.
    pub expected: Option<String>,
    /// The value in the state, as JSON; `null` if its row lacks the field.
    pub found: Option<String>,
}
