//! Defines the answers and bodies for parked events under `/v1/projections/{name}/parked` and
//! `/v1/dead-letters`.

use serde::{Deserialize, Serialize};

/// A parked event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedStatus {
    /// The partition.
    pub partition: u32,
    /// The event's offset.
    pub offset: u64,
    /// What is parked: `event`, `waiting` (an event behind another one of its subject), `timer`, or
    /// `emitted` (an event that the log has refused; `offset` is that of the event that caused it).
    pub kind: String,
    /// CloudEvents `id`; for a timer, its key.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The tenant; empty if the event has none.
    #[serde(default)]
    pub tenant: String,
    /// CloudEvents `subject`.
    pub subject: String,
    /// CloudEvents `time`, in microseconds since 1970.
    pub time_us: i64,
    /// The payload as text; bytes that are not UTF-8 are replaced.
    pub data: String,
    /// Why the event could not be applied.
    pub reason: String,
    /// The place in the plugin, as a call stack.
    pub backtrace: String,
    /// How many times the plugin was called with the event.
    pub attempts: u32,
}

/// A page of parked events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedPage {
    /// All events of this version that are parked now.
    pub total: u64,
    /// Parked events that wait behind a failed event of their subject.
    #[serde(default)]
    pub waiting: u64,
    /// The page's events, by partition and offset.
    pub parked: Vec<ParkedStatus>,
    /// Pass this as `cursor` to get the next page.
    pub next: Option<String>,
}

/// Which parked events to retry or drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ParkedSelection {
    /// All parked events.
    pub all: bool,
    /// The events at these offsets of partition `partition`.
    pub offsets: Vec<u64>,
    /// The partition that `offsets` are of.
    pub partition: u32,
    /// Selects only events of this tenant. If no other member is given, selects all events of the
    /// tenant. An empty text means events without a tenant.
    pub tenant: Option<String>,
    /// The events of this subject.
    pub subject: Option<String>,
}

/// The result of a retry or a drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedOutcome {
    /// Parked events that were selected.
    pub selected: u64,
    /// How many of the selected events are now in the tables (retry) or deleted (drop).
    pub done: u64,
    /// How many of the selected events were tried and stay parked, with a new reason.
    pub failed: u64,
    /// How many of the selected events were not tried, because an event before them failed.
    pub waiting: u64,
}

/// The parked events of a version, in groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedSummary {
    /// All events that are parked now.
    pub total: u64,
    /// How many of the parked events, and timers, failed.
    pub failed: u64,
    /// How many of the parked events wait behind a failed event of their subject.
    pub waiting: u64,
    /// Groups by reason, the largest first; at most 100.
    pub reasons: Vec<ParkedReason>,
    /// Groups that were left out.
    pub more_reasons: u64,
}

/// Parked events with the same reason, apart from the numbers in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedReason {
    /// The reason of the first event of the group.
    pub reason: String,
    /// The number of events and timers that failed for this reason.
    pub failed: u64,
    /// The number of events that wait behind the failed ones.
    pub waiting: u64,
    /// The partition of the first event of the group.
    pub partition: u32,
    /// The offset of the first event of the group.
    pub offset: u64,
}

/// The result of retrying dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResendResult {
    /// The number of dead letters that were read.
    pub letters: u64,
    /// How many of the dead letters read are not copies of parked events of this log.
    pub foreign: u64,
    /// Parked events that are now applied to the tables.
    pub applied: u64,
    /// Events that were retried and failed again. They stay parked with a new reason.
    pub failed: u64,
    /// Events that were not retried, because an event before them failed.
    pub waiting: u64,
    /// Events that are not parked, or no longer parked, in the active version.
    pub gone: u64,
}
