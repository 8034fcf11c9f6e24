//! Defines what the API reports about projections, their versions and shards: the answers under
//! `/v1/projections`, and the results of an upload.

use serde::{Deserialize, Serialize};

use crate::RawJson;
use crate::verify::VerifyStatus;

/// All projections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Projections {
    /// By name.
    pub projections: Vec<ProjectionStatus>,
}

/// A projection with all its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectionStatus {
    /// The name.
    pub name: String,
    /// Whether an operator has paused the projection.
    pub paused: bool,
    /// The version that serves readers.
    pub active: Option<String>,
    /// The version that a rollback activates.
    pub previous: Option<String>,
    /// The feed's epoch; empty if no version is active.
    pub epoch: String,
    /// All versions, oldest first.
    pub versions: Vec<VersionStatus>,
    /// The running verification of one of the versions against the log. If none is running, the
    /// last one; `null` if there was none. The last result for the active version is kept when the
    /// server restarts.
    #[serde(default)]
    pub verified: Option<VerifyStatus>,
}

/// A version.
// Long because its members are those of one JSON object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionStatus {
    /// The id.
    pub id: String,
    /// SHA-256 of the plugin as uploaded.
    pub sha256: String,
    /// The text that is passed to `setup`.
    pub parameters: String,
    /// The script or declaration that the plugin runs, if the plugin is an interpreter.
    #[serde(default)]
    pub source: Option<SourceStatus>,
    /// The plugin's own semantic version.
    pub plugin_version: String,
    /// A sentence for people, from the manifest.
    pub description: String,
    /// `backfilling`, `ready`, `active` or `retired`.
    pub state: String,
    /// `running`, `idle` (caught up), `paused`, `halted` (an operator must act) or
    /// `faulted` (an error of the host, which retries).
    pub activity: String,
    /// Why the version is halted or faulted.
    pub reason: Option<String>,
    /// When the version was uploaded, in microseconds since 1970.
    pub created_us: i64,
    /// How much of the log the version has folded, 0 to 100.
    pub percent: f64,
    /// Events applied per second over the last seconds.
    pub events_per_s: f64,
    /// Events per second that were appended to the log over the last seconds.
    #[serde(default)]
    pub intake_per_s: f64,
    /// The number of seconds until the version has caught up, at the rates `events_per_s`
    /// and `intake_per_s`; `null` if it is unknown, or if the version falls behind.
    pub eta_s: Option<f64>,
    /// Events that are parked now on all partitions, including those that wait.
    #[serde(default)]
    pub parked: u64,
    /// Parked events that wait behind a failed event of their subject.
    #[serde(default)]
    pub waiting: u64,
    /// Events that were older than the watermark when they were applied.
    #[serde(default)]
    pub late: u64,
    /// Why the version did not become active by itself although it has caught up.
    #[serde(default)]
    pub not_activated: Option<String>,
    /// Why the version's tables may differ from the log, one sentence for each finding. A finding
    /// is a batch that was folded a second time with another result, or a verification that found a
    /// difference. Findings are kept when the server restarts.
    #[serde(default)]
    pub differs: Vec<String>,
    /// The tables.
    pub tables: Vec<TableStatus>,
    /// The event types that the version subscribes to.
    pub subscribes: Vec<String>,
    /// One shard per partition.
    pub shards: Vec<ShardStatus>,
}

/// The source of a version, without its text. `GET /v1/projections/{name}/versions/{id}/source`
/// returns the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceStatus {
    /// The name of the source's file.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// SHA-256 of the source's text, in hexadecimal.
    pub sha256: String,
}

/// A table of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableStatus {
    /// The name.
    pub name: String,
    /// A sentence for people.
    pub description: String,
    /// Whether clients can read the table and subscribe to it.
    pub public: bool,
    /// Whether each row belongs to a tenant.
    pub per_tenant: bool,
    /// The fields of the table's rows.
    pub fields: Vec<FieldStatus>,
}

/// A field of a public table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldStatus {
    /// The JSON key.
    pub name: String,
    /// `integer`, `number`, `text`, `boolean`, `timestamp` or `json`, or a sketch:
    /// `distinct` or `percentiles`.
    pub kind: String,
    /// A unit for people; empty if there is none.
    pub unit: String,
}

/// A version on one partition.
// Long because its members are those of one JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShardStatus {
    /// The partition.
    pub partition: u32,
    /// `running`, `idle`, `paused`, `halted` or `faulted`.
    pub activity: String,
    /// Why the shard is halted or faulted.
    pub reason: Option<String>,
    /// The next offset: events before it are applied, at least in memory.
    pub next: u64,
    /// Events before this offset are part of a commit, which may be pending.
    pub committed: u64,
    /// Events before this offset are durable in the state. Retention and the offsets of Kafka
    /// consumer groups follow this offset.
    pub durable: u64,
    /// The log's end; `null` while it is unknown.
    pub end: Option<u64>,
    /// The number of events that the shard has not read yet; `null` while the log's end is unknown.
    /// If offsets have gaps, this is an upper bound.
    pub lag_events: Option<u64>,
    /// How far the shard's event time is behind that of the log, in milliseconds. This delay is at
    /// most the time since the shard had read the whole log. 0 if the shard has caught up, `null`
    /// while the log's end is unknown.
    pub lag_ms: Option<u64>,
    /// The number of the last commit.
    pub commit: u64,
    /// Events applied.
    pub applied: u64,
    /// Events that were older than the watermark when they were applied.
    pub late: u64,
    /// Events that are parked now, including those that wait.
    pub parked: u64,
    /// Parked events that wait behind a failed event of their subject.
    #[serde(default)]
    pub waiting: u64,
    /// Unreadable records of the log that were not parked, because 10,000 of them are parked
    /// already. Only records of unknown type are left out.
    #[serde(default)]
    pub unreadable_left_out: u64,
    /// Timers fired.
    pub timers_fired: u64,
    /// Events emitted.
    pub emitted: u64,
    /// Events emitted per second over the last seconds.
    pub emitted_per_s: f64,
    /// Emitted events that the log has not taken yet.
    pub unsent: u64,
    /// Emitted events that the log has refused permanently, for example because they
    /// are too large for a topic. They count as parked and can be retried or dropped.
    pub refused: u64,
    /// Whether the shard waits until the log has accepted some of its emitted events
    /// (`engine.emit_unsent_max`). Until then the shard does not fold.
    pub held_by_unsent: bool,
    /// The highest emit depth of the events that the shard has emitted (`engine.emit_depth_max` is
    /// the limit).
    pub emit_depth: u32,
    /// Batches that were folded a second time (`engine.second_fold_every`).
    pub second_folds: u64,
    /// How many of the batches folded a second time gave another result. If this number is not 0,
    /// the plugin is not deterministic.
    pub second_fold_differences: u64,
    /// The last difference, for people.
    pub second_fold_last: Option<String>,
    /// Events whose time was too far ahead of their append time to move the watermark
    /// (`engine.ahead_max_s`).
    pub ahead: u64,
    /// The latest of the events that `ahead` counts.
    pub ahead_last: Option<AheadStatus>,
    /// The watermark in microseconds since 1970; `null` before the first.
    pub watermark_us: Option<i64>,
    /// The highest event time applied, in microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Fuel used since the process started.
    pub fuel: u64,
    /// Time in the plugin since the process started, in microseconds.
    pub apply_us: u64,
    /// Linear memory of the instance in bytes; 0 without an instance.
    pub memory_bytes: u64,
    /// The size of the state on disk, in bytes.
    pub state_bytes: u64,
}

/// An event whose time is too far ahead to move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AheadStatus {
    /// The offset.
    pub offset: u64,
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `time`, in microseconds since 1970.
    pub time_us: i64,
}

/// Names a version to activate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ActivateBody {
    /// The version's id.
    pub version: String,
    /// Like `force` of `…/versions/{id}/activate`.
    #[serde(default)]
    pub force: bool,
}

/// The log messages of a projection's plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Logs {
    /// The newest messages, oldest first.
    pub logs: Vec<LogLine>,
}

/// A message of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// When, in microseconds since 1970, by the host's clock.
    pub time_us: i64,
    /// The version.
    pub version: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the batch in which the message was logged.
    pub offset: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The message.
    pub message: String,
}

/// The result of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Uploaded {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// Whether this version existed before; if so, nothing was changed.
    pub existed: bool,
    /// How many events of the log the determinism check folded.
    pub checked_events: u64,
    /// Warnings from a comparison of the manifest with a sample of the log. For example, the
    /// manifest declares a member of the data that no event has.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The result of a check of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckResult {
    /// Always `true`: the answer for a plugin that does not pass is a problem.
    pub ok: bool,
    /// SHA-256 of the plugin.
    pub sha256: String,
    /// The version that an upload would create.
    pub version: String,
    /// How many events of the log the determinism check folded.
    pub checked_events: u64,
    /// Warnings, as in the answer to an upload.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The plugin's manifest.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub manifest: RawJson,
}
