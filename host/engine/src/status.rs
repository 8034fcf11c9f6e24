//! Defines the types of the engine's status, which the API, the command line and the metrics show.

use crate::VerifyStatus;

/// A projection with all its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionStatus {
    /// The name of the projection.
    pub name: String,
    /// Whether an operator paused the projection.
    pub paused: bool,
    /// The id of the active version.
    pub active: Option<String>,
    /// The id of the version that a rollback activates.
    pub previous: Option<String>,
    /// The feed's epoch; empty if no version is active.
    pub epoch: String,
    /// All versions, oldest first.
    pub versions: Vec<VersionStatus>,
    /// The running verification of one of the versions against the log. If none is running, the
    /// last one; `null` if there was none. The last result for the active version is kept when the
    /// server restarts.
    pub verified: Option<VerifyStatus>,
}

/// One version of a projection.
// Long because it has a field for each member of a version's status in the HTTP API.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// The id of the version.
    pub id: String,
    /// The SHA-256 of the plugin as uploaded.
    pub sha256: String,
    /// The parameters that are passed to `setup`.
    pub parameters: String,
    /// The source code that the plugin runs, if it is an interpreter.
    pub source: Option<SourceStatus>,
    /// The version number that the author gave the plugin.
    pub plugin_version: String,
    /// The description of the projection in the manifest.
    pub description: String,
    /// `backfilling`, `ready`, `active` or `retired`.
    pub state: String,
    /// What the version is doing: `running`, `idle` (caught up), `paused`, `halted` (an operator
    /// must act) or `faulted` (a fault of the host; it tries again).
    pub activity: String,
    /// Why the version is halted or faulted.
    pub reason: Option<String>,
    /// When the version was uploaded, in microseconds since 1970.
    pub created_us: i64,
    /// How much of the log the version has folded, 0 to 100.
    pub percent: f64,
    /// The number of events applied per second over the last seconds.
    pub events_per_s: f64,
    /// The number of events appended to the log per second over the last seconds.
    pub intake_per_s: f64,
    /// The number of seconds until the version has caught up, at the rates `events_per_s` and
    /// `intake_per_s`; `null` if it is unknown, or if the version falls further behind.
    pub eta_s: Option<f64>,
    /// The number of events that are parked now on all partitions, including those that wait.
    pub parked: u64,
    /// How many of the parked events wait behind a failed event of their subject.
    pub waiting: u64,
    /// The number of applied events that were late: older than the watermark.
    pub late: u64,
    /// Why the version did not become active by itself although it has caught up.
    pub not_activated: Option<String>,
    /// Why the version's tables may differ from the result of folding the log, with one sentence
    /// for each finding. A finding is a second fold of a batch that gave another result, or a
    /// verification that found a difference. The findings are kept when the server restarts.
    pub differs: Vec<String>,
    /// The tables of the version.
    pub tables: Vec<TableStatus>,
    /// The event types to which the version subscribes.
    pub subscribes: Vec<String>,
    /// The shards of the version, one for each partition.
    pub shards: Vec<ShardStatus>,
}

/// The source code of a version, described without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// The name of the file with the source code.
    pub name: String,
    /// The size of the source code in bytes.
    pub bytes: u64,
    /// The SHA-256 of the source code, in hexadecimal.
    pub sha256: String,
}

/// A table of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// The name of the table.
    pub name: String,
    /// The description of the table in the manifest.
    pub description: String,
    /// Whether clients can read the table and subscribe to it.
    pub public: bool,
    /// Whether each row belongs to a tenant.
    pub per_tenant: bool,
    /// The fields of the table's rows.
    pub fields: Vec<FieldStatus>,
}

/// A field of a public table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldStatus {
    /// The name of the field: a key of the JSON object.
    pub name: String,
    /// The kind of the field's values: `integer`, `number`, `text`, `boolean`, `timestamp`, `json`,
    /// `distinct` or `percentiles`.
    pub kind: String,
    /// The unit of the values; may be empty.
    pub unit: String,
}

/// A shard: one version on one partition.
// Long because it has a field for each member of a partition's status in the HTTP API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStatus {
    /// The partition.
    pub partition: u32,
    /// What the shard is doing: `running`, `idle`, `paused`, `halted` or `faulted`.
    pub activity: String,
    /// Why the shard is halted or faulted.
    pub reason: Option<String>,
    /// The offset of the next event that the shard will read. All events before it are applied,
    /// possibly only in memory.
    pub next: u64,
    /// The next offset of the last commit, durable or in progress.
    pub committed: u64,
    /// The next offset of the last durable commit. The retention of the log and the offsets of
    /// Kafka consumer groups follow this offset.
    pub durable: u64,
    /// The log's end; `null` while it is not known.
    pub end: Option<u64>,
    /// The number of events that the shard has not read yet; `null` while the log's end is not
    /// known. If offsets have gaps, this is an upper bound.
    pub lag_events: Option<u64>,
    /// How far the shard's event time is behind that of the log, in milliseconds. This delay is at
    /// most the time since the shard had read the whole log. 0 if the shard has caught up, `null`
    /// while the log's end is not known.
    pub lag_ms: Option<u64>,
    /// The number of commits that the shard has made.
    pub commit: u64,
    /// The number of events applied.
    pub applied: u64,
    /// The number of applied events that were late: older than the watermark.
    pub late: u64,
    /// The number of events that are parked now, including those that wait.
    pub parked: u64,
    /// How many of the parked events wait behind a failed event of their subject.
    pub waiting: u64,
    /// The number of unreadable records that were not parked, because 10,000 of unknown type are
    /// parked already. Only records of unknown type are left out.
    pub unreadable_left_out: u64,
    /// The number of timers that have fired.
    pub timers_fired: u64,
    /// The number of events emitted.
    pub emitted: u64,
    /// The number of events emitted per second over the last seconds.
    pub emitted_per_s: f64,
    /// The number of emitted events that the log does not have yet.
    pub unsent: u64,
    /// The number of emitted events that the log has refused permanently, for example because they
    /// are too large for a topic. They count as parked, and can be retried or dropped.
    pub refused: u64,
    /// Whether the shard waits until the log has accepted some of its emitted events
    /// (`engine.emit_unsent_max`). Until then the shard does not fold.
    pub held_by_unsent: bool,
    /// The highest emit depth of the events that the shard has emitted (`engine.emit_depth_max` is
    /// the limit).
    pub emit_depth: u32,
    /// The number of batches that were folded a second time (`engine.second_fold_every`).
    pub second_folds: u64,
    /// The number of batches whose second fold gave another result. If this number is not 0, the
    /// plugin is not deterministic.
    pub second_fold_differences: u64,
    /// The last difference that a second fold found, as text.
    pub second_fold_last: Option<String>,
    /// The number of events whose time was too far ahead of their append time to move the watermark
    /// (`engine.ahead_max_s`).
    pub ahead: u64,
    /// The last of the events that `ahead` counts.
    pub ahead_last: Option<AheadStatus>,
    /// The watermark in microseconds since 1970; `null` before the first one.
    pub watermark_us: Option<i64>,
    /// The highest event time applied, without events too far in the future, in microseconds since
    /// 1970.
    pub event_time_us: Option<i64>,
    /// The fuel that the plugin has used since the process started.
    pub fuel: u64,
    /// The time that the plugin's calls have taken since the process started, in microseconds.
    pub apply_us: u64,
    /// The linear memory of the plugin's instance, in bytes; 0 if there is no instance.
    pub memory_bytes: u64,
    /// The size of the state on disk, in bytes.
    pub state_bytes: u64,
}

/// An event whose time is too far in the future to move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AheadStatus {
    /// The offset of the event.
    pub offset: u64,
    /// The event's CloudEvents `id`.
    pub id: String,
    /// The event's CloudEvents `source`.
    pub source: String,
    /// The event's CloudEvents `time`, in microseconds since 1970.
    pub time_us: i64,
}

/// A parked event in an answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedStatus {
    /// The partition.
    pub partition: u32,
    /// The offset of the event.
    pub offset: u64,
    /// What is parked: `event`, `waiting` (an event behind another parked event of its subject),
    /// `timer`, or `emitted` (an event that the log has refused; `offset` is that of the event that
    /// caused it).
    pub kind: String,
    /// The event's CloudEvents `id`; for a timer, its key.
    pub id: String,
    /// The event's CloudEvents `source`.
    pub source: String,
    /// The event's CloudEvents `type`.
    pub event_type: String,
    /// The tenant of the event; empty if it has none.
    pub tenant: String,
    /// The event's CloudEvents `subject`.
    pub subject: String,
    /// The event's CloudEvents `time`, in microseconds since 1970.
    pub time_us: i64,
    /// The event's payload as text; bytes that are not UTF-8 are replaced.
    pub data: String,
    /// Why the event or timer could not be applied.
    pub reason: String,
    /// The plugin's call stack; may be empty.
    pub backtrace: String,
    /// How many times the event or timer was tried.
    pub attempts: u32,
}

/// A page of parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedPage {
    /// The number of events that are parked now in this version.
    pub total: u64,
    /// How many of the parked events wait behind a failed event of their subject.
    pub waiting: u64,
    /// The events of this page, by partition and offset.
    pub parked: Vec<ParkedStatus>,
    /// The `cursor` of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// Selects the parked events that a retry or drop applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedSelection {
    /// Whether all parked events are selected.
    pub all: bool,
    /// Selects the events at these offsets of the partition `partition`.
    pub offsets: Vec<u64>,
    /// The partition to which `offsets` belong.
    pub partition: u32,
    /// Selects only events of this tenant; an empty text means events without a tenant. If neither
    /// `offsets` nor `subject` is given, selects all events of the tenant.
    pub tenant: Option<String>,
    /// Selects the events of this subject.
    pub subject: Option<String>,
}

/// The result of a retry or a drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedOutcome {
    /// The number of parked events that were selected.
    pub selected: u64,
    /// The number of events for which the retry or drop succeeded: they are now applied, or
    /// removed.
    pub done: u64,
    /// The number of events that were tried and are still parked, with a new reason.
    pub failed: u64,
    /// The number of events that were not tried, because they wait behind an event that failed.
    pub waiting: u64,
}

impl ParkedOutcome {
    /// Returns the number of events that were removed or tried.
    pub(crate) fn handled(&self) -> u64 {
        self.done + self.failed + self.waiting
    }
}

/// A message that a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The time at which the message was logged, by the host's clock, in microseconds since 1970.
    pub time_us: i64,
    /// The version whose plugin logged the message.
    pub version: String,
    /// The partition that the plugin was folding.
    pub partition: u32,
    /// The offset of the event to which the message belongs. If the event is not known, this is the
    /// offset of the batch.
    pub offset: u64,
    /// The severity: `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The text of the message.
    pub message: String,
}

/// The result of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The name of the projection.
    pub projection: String,
    /// The id of the version.
    pub version: String,
    /// Whether this version existed before. If so, nothing was changed.
    pub existed: bool,
    /// The number of events of the log that the determinism check folded.
    pub checked_events: u64,
    /// Warnings for the person who uploaded the plugin, if the sample of the log does not match the
    /// manifest.
    pub warnings: Vec<String>,
}
