//! The engine's status types: for the API, the command line and metrics.

use crate::VerifyStatus;

/// A projection with all its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionStatus {
    /// The name.
    pub name: String,
    /// Whether an operator paused it.
    pub paused: bool,
    /// The version that serves readers.
    pub active: Option<String>,
    /// The version that a rollback activates.
    pub previous: Option<String>,
    /// The feed's epoch; empty if no version is active.
    pub epoch: String,
    /// All versions, oldest first.
    pub versions: Vec<VersionStatus>,
    /// The last verification against the log, or the one in progress; `null` if there is
    /// none. The result of the active version is kept over restarts.
    pub verified: Option<VerifyStatus>,
}

/// One version.
// Long because it has a field for each member of a version's status in the HTTP API.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// The id.
    pub id: String,
    /// SHA-256 of the plugin as uploaded.
    pub sha256: String,
    /// The parameters that are passed to `setup`.
    pub parameters: String,
    /// The source code that the plugin runs, if it is an interpreter.
    pub source: Option<SourceStatus>,
    /// The plugin's own semantic version.
    pub plugin_version: String,
    /// The description in the manifest.
    pub description: String,
    /// `backfilling`, `ready`, `active` or `retired`.
    pub state: String,
    /// What it is doing: `running`, `idle` (caught up), `paused`, `halted` (an operator
    /// must act) or `faulted` (a fault of the host; it tries again).
    pub activity: String,
    /// Why it is halted or faulted.
    pub reason: Option<String>,
    /// When it was uploaded, microseconds since 1970.
    pub created_us: i64,
    /// How much of the log it has folded, 0 to 100.
    pub percent: f64,
    /// Events a second over the last seconds.
    pub events_per_s: f64,
    /// Events a second that the log has taken over the last seconds.
    pub intake_per_s: f64,
    /// The number of seconds until the version has caught up, at the two rates above;
    /// `null` if it is unknown, or if the version falls behind.
    pub eta_s: Option<f64>,
    /// Events parked now on all partitions, those that wait included.
    pub parked: u64,
    /// The parked events that wait behind a failed event of their subject.
    pub waiting: u64,
    /// Events applied that were late: older than the watermark.
    pub late: u64,
    /// Why it did not become active by itself, although it has caught up.
    pub not_activated: Option<String>,
    /// Why its tables may differ from the result of folding the log, one sentence for
    /// each finding: a second fold of a batch gave another result, or the last
    /// verification found a difference. Kept over restarts.
    pub differs: Vec<String>,
    /// The tables.
    pub tables: Vec<TableStatus>,
    /// Event types that it subscribes to.
    pub subscribes: Vec<String>,
    /// One entry for each partition.
    pub shards: Vec<ShardStatus>,
}

/// The source code of a version, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// The name of its file.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
}

/// A table of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// The name.
    pub name: String,
    /// The description in the manifest.
    pub description: String,
    /// Whether it can be read and subscribed to.
    pub public: bool,
    /// Whether each row belongs to a tenant.
    pub per_tenant: bool,
    /// The fields of its rows.
    pub fields: Vec<FieldStatus>,
}

/// A field of a public table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldStatus {
    /// The JSON key.
    pub name: String,
    /// `integer`, `number`, `text`, `boolean`, `timestamp`, `json`, `distinct` or
    /// `percentiles`.
    pub kind: String,
    /// The unit; may be empty.
    pub unit: String,
}

/// One version on one partition.
// Long because it has a field for each member of a partition's status in the HTTP API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStatus {
    /// The partition.
    pub partition: u32,
    /// `running`, `idle`, `paused`, `halted` or `faulted`.
    pub activity: String,
    /// Why it is halted or faulted.
    pub reason: Option<String>,
    /// The next offset it will read. All events before it are applied, possibly only in
    /// memory.
    pub next: u64,
    /// The next offset of the last commit, durable or in progress.
    pub committed: u64,
    /// The next offset of the last durable commit. Retention and Kafka group offsets
    /// follow it.
    pub durable: u64,
    /// The log's end; `null` while it is not known.
    pub end: Option<u64>,
    /// Events it has not read yet; `null` while the log's end is not known. An upper
    /// bound if offsets have gaps.
    pub lag_events: Option<u64>,
    /// How far the shard's event time is behind that of the log, in milliseconds; 0 when it
    /// has caught up, `null` while the log's end is not known.
    pub lag_ms: Option<u64>,
    /// Commits made.
    pub commit: u64,
    /// Events applied.
    pub applied: u64,
    /// The applied events that were late: older than the watermark.
    pub late: u64,
    /// Events parked now, those that wait included.
    pub parked: u64,
    /// The parked events that wait behind a failed event of their subject.
    pub waiting: u64,
    /// Unreadable records of the log that were skipped and not parked, because 10,000 are
    /// parked already. Only records of unknown type are skipped.
    pub unreadable_left_out: u64,
    /// Timers fired.
    pub timers_fired: u64,
    /// Events emitted.
    pub emitted: u64,
    /// Events emitted per second over the last seconds.
    pub emitted_per_s: f64,
    /// Emitted events that the log has not taken yet.
    pub unsent: u64,
    /// Emitted events that the log has refused for good (too large for a topic, for
    /// example). They count as parked and can be retried or dropped like those.
    pub refused: u64,
    /// Whether the shard does not fold until the log has accepted some of its emitted
    /// events (`engine.emit_unsent_max`).
    pub held_by_unsent: bool,
    /// The highest emit depth of an event that the shard has emitted
    /// (`engine.emit_depth_max` is the limit).
    pub emit_depth: u32,
    /// Batches that were folded a second time (`engine.second_fold_every`).
    pub second_folds: u64,
    /// How many of them gave another result: the plugin is not deterministic.
    pub second_fold_differences: u64,
    /// The last difference, as text.
    pub second_fold_last: Option<String>,
    /// Events whose time was too far ahead of their append time to move the watermark
    /// (`engine.ahead_max_s`).
    pub ahead: u64,
    /// The latest of them.
    pub ahead_last: Option<AheadStatus>,
    /// The watermark, microseconds since 1970; `null` before the first.
    pub watermark_us: Option<i64>,
    /// The highest event time applied, without events too far ahead, in microseconds
    /// since 1970.
    pub event_time_us: Option<i64>,
    /// Fuel used since the process started.
    pub fuel: u64,
    /// Time in the plugin since the process started, in microseconds.
    pub apply_us: u64,
    /// Linear memory of the instance; 0 without one.
    pub memory_bytes: u64,
    /// Bytes of the state on disk.
    pub state_bytes: u64,
}

/// An event whose time is too far ahead to move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AheadStatus {
    /// The offset.
    pub offset: u64,
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `time`, microseconds since 1970.
    pub time_us: i64,
}

/// A parked event in an answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedStatus {
    /// The partition.
    pub partition: u32,
    /// The event's offset.
    pub offset: u64,
    /// `event`, `waiting` (behind another parked event of its subject), `timer`, or
    /// `emitted` (an event that the log has refused; `offset` is that of the event that
    /// caused it).
    pub kind: String,
    /// CloudEvents `id`; for a timer, its key.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    pub event_type: String,
    /// The tenant; empty if it has none.
    pub tenant: String,
    /// CloudEvents `subject`.
    pub subject: String,
    /// CloudEvents `time`, microseconds since 1970.
    pub time_us: i64,
    /// The payload as text; bytes that are not UTF-8 are replaced.
    pub data: String,
    /// Why it could not be applied.
    pub reason: String,
    /// The guest's stack; may be empty.
    pub backtrace: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// A page of parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedPage {
    /// How many events are parked now in this version.
    pub total: u64,
    /// The parked events that wait behind a failed event of their subject.
    pub waiting: u64,
    /// Some of them, by partition and offset.
    pub parked: Vec<ParkedStatus>,
    /// The `cursor` of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// Selects parked events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedSelection {
    /// Selects all of them.
    pub all: bool,
    /// Selects those at these offsets of partition `partition`.
    pub offsets: Vec<u64>,
    /// The partition of `offsets`.
    pub partition: u32,
    /// Selects only events of this tenant. If neither `offsets` nor `subject` is given,
    /// selects all events of this tenant. An empty text means events without a tenant.
    pub tenant: Option<String>,
    /// Selects those of this subject.
    pub subject: Option<String>,
}

/// The result of a retry or a drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedOutcome {
    /// Parked events that were selected.
    pub selected: u64,
    /// Events that are now in the tables (retry) or removed (drop).
    pub done: u64,
    /// Events that were tried and are still parked, with a new reason.
    pub failed: u64,
    /// Events that were not tried, because they wait behind one that failed.
    pub waiting: u64,
}

impl ParkedOutcome {
    /// How many were removed or tried.
    pub(crate) fn handled(&self) -> u64 {
        self.done + self.failed + self.waiting
    }
}

/// A message that a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was logged by the host's clock, in microseconds since 1970.
    pub time_us: i64,
    /// The version.
    pub version: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the event that it belongs to, or else of its batch.
    pub offset: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The message.
    pub message: String,
}

/// The result of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// Whether this version existed before; then nothing was changed.
    pub existed: bool,
    /// How many events of the log the determinism check folded.
    pub checked_events: u64,
    /// What the sample of the log says against the manifest, for the uploader.
    pub warnings: Vec<String>,
}
