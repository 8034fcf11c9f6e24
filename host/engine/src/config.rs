//! Defines the settings of the engine. Their doc comments are the source of the reference in
//! docs/config.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Section `engine` of `lantern.toml`.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// The number of threads that fold; 0 means one per core. The engine starts the same number of
    /// extra threads with a lower priority. These fold only projections that use much fuel or are
    /// new, so that slow plugins cannot delay the others.
    pub threads: usize,
    /// The maximum number of events in one call of a plugin. A call contains all events that are
    /// waiting, up to this number: few if the projection is up to date, many while it catches up.
    pub batch_events_max: usize,
    /// The maximum size of the events in one call of a plugin, in bytes.
    pub batch_bytes_max: usize,
    /// The maximum number of timers that fire in one call of a plugin.
    pub batch_timers_max: usize,
    /// The maximum number of watermark ticks that one call spans. A call ends earlier
    /// if a timer or the retention of a row is due. 1 ends each call at the next tick.
    /// The tables are the same with any value.
    pub batch_ticks_max: usize,
    /// The fuel limit of one event, about one unit per WebAssembly instruction. A batch with
    /// several events gets half of this limit for all of them together. If that is not enough, the
    /// batch is split into smaller ones, down to single events with the full limit. So whether an
    /// event exceeds the limit does not depend on its batch.
    pub fuel_event: u64,
    /// The longest time between commits while a projection catches up, in milliseconds. A commit
    /// also waits until the one before it has ended.
    pub commit_ms: u64,
    /// The maximum number of changed bytes between commits while a projection catches
    /// up. While the previous commit is in progress, four times as many are allowed.
    pub commit_bytes: usize,
    /// The maximum time from a live commit to its sync to the disk, in milliseconds.
    /// Readers see the commit at once. After a crash, the events of commits without a sync
    /// are folded again from the log, and reads wait for that. 0 syncs every commit.
    /// Default 1,000.
    pub sync_ms: u64,
    /// The maximum number of events and commits of a shard without a sync. At this number the shard
    /// syncs at once. This limits how long reads wait after a crash. Default 16,384.
    pub unsynced_events_max: u64,
    /// How far an event's time may be ahead of its append time, in seconds, and still move the
    /// watermark. In Kafka topics of type `CreateTime`, the time is compared with the times of
    /// earlier events instead. There, an event that is further ahead moves the watermark only if
    /// the next 5 events are as far ahead. Every event is applied; the status counts the events
    /// that are too far ahead and shows the latest one.
    pub ahead_max_s: u64,
    /// The maximum number of emitted events of one projection that are not in the log
    /// yet. At this number, the projection stops folding until the log has accepted
    /// some.
    pub emit_unsent_max: u64,
    /// The maximum number of events per second that one projection may emit into the
    /// log, all its partitions together. Further events wait in its outbox.
    pub emit_per_s_max: u64,
    /// The maximum emit depth of an emitted event (the extension attribute `lanterndepth`). If a
    /// plugin emits a deeper event, the event that caused it is parked. A manifest's
    /// `cycle-depth-max` can lower this limit.
    pub emit_depth_max: u32,
    /// The maximum size of an emitted event, in bytes. If a plugin emits a larger event, the event
    /// that caused it is parked.
    pub emit_bytes_max: usize,
    /// How many live batches are checked for plugins that are not deterministic: one in this
    /// number. A checked batch is folded a second time, by a fresh instance over the same state,
    /// and the results are compared. 0 turns these checks off.
    pub second_fold_every: u64,
    /// Whether a projection halts if the second fold of a batch gives a different
    /// result.
    pub second_fold_halts: bool,
    /// The longest key a plugin may write, in bytes.
    pub key_bytes_max: usize,
    /// The largest value a plugin may write, in bytes.
    pub value_bytes_max: usize,
    /// The maximum number of bytes that one call may write in rows, timers and emitted
    /// events together. Each of them counts with its key and value, plus 64 bytes.
    pub call_write_bytes_max: usize,
    /// The maximum number of events that one call may emit.
    pub call_emit_max: usize,
    /// The maximum size of the messages that one call may log, in bytes.
    pub call_log_bytes_max: usize,
    /// The maximum number of bytes that one scan may return to a plugin.
    pub scan_bytes_max: usize,
    /// The maximum number of timers that are set in a shard.
    pub timers_max: u64,
    /// The maximum number of parked events of a shard. One more parked event halts the projection.
    /// Unreadable records whose type is unknown do not count.
    pub parked_max: u64,
    /// The maximum number of consecutive events that are parked. One more such event halts the
    /// projection, because the plugin probably fails on every event.
    pub parked_in_a_row_max: u64,
    /// The maximum size of a shard's state on disk, in bytes. A larger state halts the
    /// projection.
    pub state_bytes_max: u64,
    /// The maximum size of a shard's change log, in bytes. Subscriptions to the feed
    /// resume from the change log.
    pub changes_bytes_max: u64,
    /// The number of a projection's newest log messages that are kept.
    pub log_lines_max: usize,
    /// The number of events of the log that the determinism check of an upload folds.
    pub check_events: usize,
    /// The maximum fuel that one fold of the determinism check may use. A plugin that uses more is
    /// checked with fewer events. If fewer than 100 events are left, the plugin is refused.
    pub check_fuel: u64,
    /// The wait after the first fault of the host (a full disk, a log that cannot be
    /// read), in milliseconds. Each further fault doubles it, up to
    /// `fault_wait_ms_max`.
    pub fault_wait_ms: u64,
    /// The maximum wait between two tries after faults, in milliseconds.
    pub fault_wait_ms_max: u64,
}

impl EngineConfig {
    /// Returns the value of [`EngineConfig::ahead_max_s`] in microseconds.
    pub(crate) fn ahead_max_us(&self) -> i64 {
        i64::try_from(self.ahead_max_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Returns a number that identifies the limits that decide whether an event is parked; never 0.
    /// If one of these limits changes, the same log may fold to another state.
    pub(crate) fn limits(&self) -> u64 {
        let deciding = [
            self.fuel_event,
            self.key_bytes_max as u64,
            self.value_bytes_max as u64,
            self.call_write_bytes_max as u64,
            self.call_emit_max as u64,
            self.scan_bytes_max as u64,
            self.timers_max,
            self.ahead_max_s,
            self.emit_bytes_max as u64,
            u64::from(self.emit_depth_max),
        ];
        let hash = Sha256::digest(deciding.map(u64::to_be_bytes).as_flattened());
        hash.first_chunk::<8>().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            batch_events_max: 16_384,
            batch_bytes_max: 4 << 20,
            batch_timers_max: 1_024,
            batch_ticks_max: 4_096,
            fuel_event: 2_000_000_000,
            commit_ms: 1_000,
            commit_bytes: 16 << 20,
            sync_ms: 1_000,
            unsynced_events_max: 16_384,
            ahead_max_s: 60,
            emit_unsent_max: 50_000,
            emit_per_s_max: 20_000,
            emit_depth_max: 16,
            emit_bytes_max: 1 << 20,
            second_fold_every: 1_000,
            second_fold_halts: false,
            key_bytes_max: 1_024,
            value_bytes_max: 1 << 20,
            call_write_bytes_max: 32 << 20,
            call_emit_max: 16_384,
            call_log_bytes_max: 64 << 10,
            scan_bytes_max: 8 << 20,
            timers_max: 1_000_000,
            parked_max: 100_000,
            parked_in_a_row_max: 1_000,
            state_bytes_max: 64 << 30,
            changes_bytes_max: 64 << 20,
            log_lines_max: 1_000,
            check_events: 5_000,
            check_fuel: 200_000_000_000,
            fault_wait_ms: 100,
            fault_wait_ms_max: 10_000,
        }
    }
}
