//! Defines the answers of `POST /v1/events` and `GET /v1/events`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::RawJson;

/// The result of sending events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppendResult {
    /// How many events were appended.
    pub appended: u64,
    /// How many were in the log already, by tenant, `source` and `id`.
    pub duplicates: u64,
    /// How many of the duplicates differ in content from the event in the log. In this case a
    /// sender has used the same `id` for two events, and the second event is lost.
    pub differs: u64,
    /// How many were refused.
    pub rejected: u64,
    /// For NDJSON: the number of the line up to which every event is in the log, or was refused and
    /// is named in `errors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// The offsets of the events, by partition.
    pub partitions: BTreeMap<u32, OffsetRange>,
    /// The partition and offset of each event, in the order sent; not for NDJSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<AppendedLocation>>,
    /// What is wrong with the refused events; at most `ingest.errors_max` of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EventRejection>,
}

/// A range of offsets; events of other senders may be between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OffsetRange {
    /// The offset of the first event.
    pub first: u64,
    /// The offset of the last event.
    pub last: u64,
}

/// Where one event is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum AppendedLocation {
    /// The event is in the log.
    InLog {
        /// The partition.
        partition: u32,
        /// The offset; for a duplicate, the offset of the first copy.
        offset: u64,
        /// Whether the log had the event before.
        duplicate: bool,
        /// For a duplicate: whether the event in the log has other content.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        differs: bool,
    },
    /// The event was refused.
    Refused {
        /// The error code, which `errors` explains.
        code: String,
    },
}

/// Why one event was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventRejection {
    /// The index in the batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The stable code.
    pub code: String,
    /// What is wrong, quoting the value.
    pub detail: String,
}

/// Events of a partition, from one offset on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventsPage {
    /// The partition.
    pub partition: u32,
    /// The oldest retained offset.
    pub start: u64,
    /// The offset that the next appended event gets.
    pub end: u64,
    /// Where to continue: pass it as `from`.
    pub next: u64,
    /// The number of retries and drops of parked events. This server's tables depend on them, but
    /// they are not events of the log. So another server that folds an export of the log can get
    /// different tables.
    pub decisions: u64,
    /// The events, in order.
    pub events: Vec<LoggedEvent>,
}

/// An event in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoggedEvent {
    /// The offset.
    pub offset: u64,
    /// The append time of the event, if the log knows it.
    pub appended: Option<String>,
    /// The event in structured mode.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub event: RawJson,
}
