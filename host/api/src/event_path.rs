//! The path of an event: what each version of each projection has done with it, and the rows that it
//! has changed.

use serde::{Deserialize, Serialize};

use crate::{ChangeEvent, RawJson};

/// An event and what was done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPath {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The event, without its payload.
    pub event: ChangeEvent,
    /// One entry per version of each projection, by projection, the oldest version first.
    pub versions: Vec<EventStep>,
}

/// What one version has done with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventStep {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// `backfilling`, `ready`, `active` or `retired`.
    pub state: String,
    /// The first offset of the event's partition that the version has not folded. If this offset is
    /// greater than the event's offset, the version has folded the event.
    pub next: u64,
    /// What the version has done with the event.
    pub outcome: EventOutcome,
    /// Why the event is skipped or parked; why the state cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a parked event: how many times the version has tried to apply it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// For `applied-or-dropped`: the first offset that was not folded at the drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_at: Option<u64>,
}

/// What a version has done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventOutcome {
    /// The version has not reached the event yet.
    Pending,
    /// The version does not receive the event.
    Skipped,
    /// The version has applied the event.
    Applied,
    /// The version has parked the event, because it could not apply it.
    Parked,
    /// The version has parked the event, because the event waits behind a parked event of its
    /// subject.
    Waiting,
    /// The version has either applied the event, or has parked it and dropped it later. A drop of
    /// parked events has selected this event, and nothing shows whether it was parked.
    AppliedOrDropped,
    /// The version's state cannot be read.
    Unreadable,
}

/// The rows that a version changed when it applied an event, found by folding the log again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventChanges {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The event's partition.
    pub partition: u32,
    /// The event's offset.
    pub offset: u64,
    /// Whether the fold reached the event, or the end of the version's state. If not, `reason` says
    /// why.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many offsets were folded.
    pub events: u64,
    /// Whether the version has applied the event.
    pub applied: bool,
    /// How many rows of public tables the event has changed.
    pub changed: u64,
    /// The first of these rows, by table and key.
    pub rows: Vec<ChangedRow>,
}

/// A row that an event has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangedRow {
    /// The table.
    pub table: String,
    /// The key. In a table by tenant, the tenant, U+0000 and the key.
    pub key: String,
    /// If the event was parked at first: the first offset that was not applied when it was retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<u64>,
    /// The row before the event; `null` if there was none. It is the row of the event's partition.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<RawJson>,
    /// The row after it; `null` if the event deleted it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<RawJson>,
}

/// A line of the changes of an event in NDJSON, an object with one member. The last line is
/// `changes` or `problem`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventChangesLine {
    /// How far the fold is.
    Progress {
        /// How many offsets were folded.
        events: u64,
        /// How much of the work is done, 0 to 100.
        percent: f64,
    },
    /// The result.
    Changes(EventChanges),
    /// Why there is no result.
    Problem(crate::Problem),
}
