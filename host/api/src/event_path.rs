//! The path of an event: what each version of each projection has done with it.

use serde::{Deserialize, Serialize};

use crate::ChangeEvent;

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
