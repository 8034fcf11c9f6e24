//! Explanations of rows: what has changed a row.

use serde::{Deserialize, Serialize};

use crate::RawJson;

/// What has changed a row, found by folding the log again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The version whose row is explained.
    pub version: String,
    /// Whether the log was folded to its end. If not, `changes` has only the changes before the
    /// offset `next` of each partition. `commits` always has the newest commits.
    pub complete: bool,
    /// Why the explanation is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many offsets were folded.
    pub events: u64,
    /// One entry for each partition that was folded. Each partition has its own row under this key;
    /// a read of the table merges these rows.
    pub partitions: Vec<ExplainedPartition>,
    /// The newest changes, newest first. Changes of several partitions are ordered by the
    /// append time of their events.
    pub changes: Vec<RowChange>,
    /// The newest commits in the change log that changed the row, newest first in each
    /// partition. A commit may contain many events.
    pub commits: Vec<CommittedRow>,
}

/// The row of one partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedPartition {
    /// The partition.
    pub partition: u32,
    /// The first offset that was not folded.
    pub next: u64,
    /// How often the row was changed before this offset.
    pub changes: u64,
    /// The row that the fold gives at this offset; `null` if there is none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub row: Option<RawJson>,
    /// Whether the table has the same row at this offset. If `false`, the fold was ended early, or
    /// the table or the log is damaged; `lantern verify` shows which.
    pub agrees: bool,
}

/// One change of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowChange {
    /// The partition.
    pub partition: u32,
    /// The event's offset. For a timer or the end of a retention, this is the first offset that was
    /// not applied at that time.
    pub offset: u64,
    /// What has changed the row.
    pub cause: ChangeCause,
    /// For `retry`: the first offset that was not applied when the event was retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<u64>,
    /// The event; missing for timers and ends of retention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<ChangeEvent>,
    /// The timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<ChangeTimer>,
    /// The row before; `null` if there was none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<RawJson>,
    /// The row after; `null` if it was deleted.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<RawJson>,
    /// What the plugin logged in this call.
    pub logs: Vec<ChangeLog>,
}

/// What has changed a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ChangeCause {
    /// An event.
    Event,
    /// The retry of a parked event.
    Retry,
    /// A timer.
    Timer,
    /// The end of the row's retention.
    Expiry,
}

/// The event that has changed a row, without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeEvent {
    /// The `id`.
    pub id: String,
    /// The `source`.
    pub source: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject; empty if the event has none.
    pub subject: String,
    /// The tenant; empty if the event has none.
    pub tenant: String,
    /// The time, RFC 3339.
    pub time: String,
    /// The append time of the event, RFC 3339; `null` if the log does not know it.
    pub appended: Option<String>,
}

/// The timer that has changed a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeTimer {
    /// The key.
    pub key: String,
    /// The time for which the timer was set, RFC 3339.
    pub time: String,
    /// The offset of the event that set the timer.
    pub set_by: u64,
}

/// A line that the plugin logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeLog {
    /// `debug`, `info`, …
    pub level: String,
    /// The message.
    pub message: String,
}

/// A commit that changed the row, from the change log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommittedRow {
    /// The partition.
    pub partition: u32,
    /// The commit's number in this partition.
    pub commit: u64,
    /// The first offset that the commit does not contain.
    pub next: u64,
    /// The row after the commit; `null` if it was deleted.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub row: Option<RawJson>,
}

/// A line of an explanation in NDJSON: an object with one member. The last line is `explanation` or
/// `problem`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExplainLine {
    /// A commit from the change log. These lines come first, at once.
    Commit(CommittedRow),
    /// How far the fold is.
    Progress {
        /// How many offsets were folded.
        events: u64,
        /// How much of the work is done, 0 to 100.
        percent: f64,
    },
    /// The result. Its `commits` are empty, because earlier lines contain the commits.
    Explanation(Explanation),
    /// Why there is no result.
    Problem(crate::Problem),
}
