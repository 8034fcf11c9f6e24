//! What can be set about folding. The doc comments are the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Section `engine` of `lantern.toml`.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Threads that fold; 0 takes one a core. As many more fold, at a lower
    /// priority, only what takes much fuel or is new, so that slow plugins cannot
    /// hold up the others.
    pub threads: usize,
    /// The most events in one call of a plugin. Batches are as large as what is
    /// waiting, up to this: small when live, large when behind.
    pub batch_events_max: usize,
    /// The most bytes of events in one call of a plugin.
    pub batch_bytes_max: usize,
    /// The most timers fired in one call of a plugin.
    pub batch_timers_max: usize,
    /// The most ticks of the watermark that one call spans, as long as no timer and
    /// no end of a row's retention is due in between. 1 ends each call at the next
    /// tick. The tables are the same with any value.
    pub batch_ticks_max: usize,
    /// Fuel for one event: about one unit a WebAssembly instruction. A batch
    /// gets half as much in all; where that does not do, it is split, so that
    /// the verdict over an event is always that of the event alone.
    pub fuel_event: u64,
    /// While catching up, the longest time between commits, in milliseconds, or
    /// until the commit before has ended if that takes longer.
    pub commit_ms: u64,
    /// While catching up, the most changed bytes between commits; four times as many
    /// while the commit before is in progress.
    pub commit_bytes: usize,
    /// The longest time that a live commit waits for its sync, in milliseconds. Readers
    /// see it at once. After a crash its events are folded again from the log, and reads
    /// wait until they are. 0 syncs every commit. Default 1,000.
    pub sync_ms: u64,
    /// The most events and commits of a shard that wait for a sync; more make it come
    /// earlier. It bounds how long reads wait after a crash.
    pub unsynced_events_max: u64,
    /// How far ahead of its append an event's time may be, in seconds, and still
    /// move the watermark; over Kafka topics of type `CreateTime`, how far ahead of
    /// the events before it, unless the next 5 are as well. An event that is further
    /// ahead is applied, counted, and named in the status.
    pub ahead_max_s: u64,
    /// How many emitted events one projection may have that the log has not taken
    /// yet; with more it folds on once the log has taken some.
    pub emit_unsent_max: u64,
    /// How many events one projection may emit into the log per second, all its
    /// partitions together; more wait in its outbox.
    pub emit_per_s_max: u64,
    /// How many emitted events may have caused each other in a row (the extension
    /// attribute `lanterndepth`); an event whose plugin emits a deeper one is
    /// parked. A manifest's `cycle-depth-max` can lower it.
    pub emit_depth_max: u32,
    /// The most bytes of an emitted event; an event whose plugin emits a larger one
    /// is parked.
    pub emit_bytes_max: usize,
    /// One batch in this many is folded a second time, by a fresh instance over the
    /// same state, and compared, so that a plugin that is not deterministic is
    /// noticed. 0 turns that off.
    pub second_fold_every: u64,
    /// Whether a projection halts if a second fold of a batch comes to something
    /// else.
    pub second_fold_halts: bool,
    /// The longest key a plugin may write, in bytes.
    pub key_bytes_max: usize,
    /// The largest value a plugin may write, in bytes.
    pub value_bytes_max: usize,
    /// The most bytes one call may write, rows, timers and emitted events
    /// together: their keys and values, and 64 for each.
    pub call_write_bytes_max: usize,
    /// The most events one call may emit.
    pub call_emit_max: usize,
    /// The most bytes one call may log.
    pub call_log_bytes_max: usize,
    /// The most bytes one scan hands to a plugin.
    pub scan_bytes_max: usize,
    /// The most timers a shard may have set.
    pub timers_max: u64,
    /// The most parked events of a shard; one more halts the projection. Unreadable
    /// records of unknown type do not count.
    pub parked_max: u64,
    /// The most events that are parked one after another; one more halts the
    /// projection, which seems to fail on everything.
    pub parked_in_a_row_max: u64,
    /// The most bytes a shard's state may take on disk; more halts the
    /// projection.
    pub state_bytes_max: u64,
    /// The most bytes of a shard's change log, from which feeds resume.
    pub changes_bytes_max: u64,
    /// How many of a projection's log messages are kept.
    pub log_lines_max: usize,
    /// How many events of the log an upload's determinism check folds.
    pub check_events: usize,
    /// The most fuel one of the check's folds may take; a plugin that takes more
    /// is refused.
    pub check_fuel: u64,
    /// The first wait after a fault of the host (a full disk, a log that cannot
    /// be read), in milliseconds; doubled up to `fault_wait_ms_max`.
    pub fault_wait_ms: u64,
    /// The longest wait between two tries after faults, in milliseconds.
    pub fault_wait_ms_max: u64,
}

impl EngineConfig {
    /// [`EngineConfig::ahead_max_s`] in microseconds.
    pub(crate) fn ahead_max_us(&self) -> i64 {
        i64::try_from(self.ahead_max_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// A number that identifies the limits which affect the verdict on an event; never 0.
    /// If these limits change, the same log may fold to another state.
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
