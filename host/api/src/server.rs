//! Defines what the API reports about the server itself: readiness, status, error codes and
//! problems.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::projections::AheadStatus;

/// Whether the server is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Whether the server accepts events and every active version keeps up.
    pub ready: bool,
    /// Why the server is not ready.
    pub reasons: Vec<String>,
    /// Conditions that need attention although the server is ready, such as parked events or
    /// versions that were not activated.
    pub warnings: Vec<String>,
}

/// The server and its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatus {
    /// The release.
    pub version: Cow<'static, str>,
    /// The log's partitions.
    pub partitions: Vec<PartitionStatus>,
    /// What is wrong with the log, one sentence each; empty if nothing is.
    pub troubles: Vec<String>,
    /// Sessions of the feed.
    pub feed_sessions: usize,
}

/// A partition of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionStatus {
    /// The number.
    pub partition: u32,
    /// The name of the partition in Kafka, such as `orders[3]`; `null` for the embedded log.
    pub name: Option<String>,
    /// The oldest retained offset; `null` if unknown.
    pub start: Option<u64>,
    /// The offset that the next appended event gets; `null` if unknown.
    pub end: Option<u64>,
    /// The highest event time in microseconds since 1970, if there is one. It leaves out events
    /// whose time is far ahead of their append time.
    pub event_time_us: Option<i64>,
    /// The latest event that could not move the watermark of some projection, because its time was
    /// too far ahead of its append time (`engine.ahead_max_s`); `null` if there was none.
    pub ahead: Option<AheadStatus>,
}

/// An error code. Its page in the documentation is generated from this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorCode {
    /// The stable code: `LAN-` and four digits.
    pub code: Cow<'static, str>,
    /// The HTTP status of answers with this code; 0 if no answer has it.
    pub status: u16,
    /// What went wrong, in a few words.
    pub title: Cow<'static, str>,
    /// What to do about the error.
    pub help: Cow<'static, str>,
}

/// The answer to a request that failed (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Problem {
    /// Where this kind of error is explained, relative to this server.
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong, in a few words; the same for every error of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong in this case, quoting the value.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// What to do about the error.
    pub help: String,
    /// Further members of some errors.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub more: Map<String, Value>,
}
