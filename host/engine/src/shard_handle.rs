//! Implements the handle of a shard. The scheduler and status queries use it while a thread runs a
//! step of the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use lantern_core::{
    Offset, PartitionBounds, Random, ReadStore, ShardId, ShardMeta, ShardStore, Space, StoreError,
    Timestamp,
};
use parking_lot::Mutex;

use crate::outbox_writer;
use crate::runner::Usage;
use crate::shard::Shard;
use crate::stop_reason::{Fault, StopReason};
use crate::sync_policy::RecoveryTarget;
use crate::{AheadStatus, ShardStatus};

/// The time over which the rate of events is averaged.
const RATE_WINDOW: Duration = Duration::from_secs(2);

// These are the values of `ShardHandle::run`.
/// The shard waits to be woken.
pub(crate) const IDLE: u8 = 0;
/// The shard waits for a thread.
pub(crate) const QUEUED: u8 = 1;
/// A thread runs a step of the shard.
pub(crate) const RUNNING: u8 = 2;
/// A thread runs a step of the shard, and the shard was woken in the meantime.
pub(crate) const RUNNING_WOKEN: u8 = 3;

pub(crate) struct ShardHandle {
    pub(crate) id: ShardId,
    pub(crate) store: Option<Arc<dyn ShardStore>>,
    /// The value of [`ShardMeta::born`]. For a new state it is drawn when the handle is created.
    pub(crate) born: u64,
    /// The shard. Its first step opens it, on a thread of the scheduler.
    pub(crate) shard: Mutex<Option<Shard>>,
    /// One of [`IDLE`], [`QUEUED`], [`RUNNING`] and [`RUNNING_WOKEN`].
    pub(crate) run: AtomicU8,
    /// The number of further cheap calls in a row after which the shard belongs to the quick class
    /// of the run queues; 1 at first. Only the run queues change it, and never while the shard is
    /// queued.
    pub(crate) slow: AtomicU8,
    /// The delayed runs of the shard that are queued.
    pub(crate) wakes: Wakes,
    /// Whether the shard serves readers. If so, it goes first in the queue.
    pub(crate) active: AtomicBool,
    pub(crate) paused: AtomicBool,
    /// Whether the shard waits for a pending read of the log, or is about to.
    pub(crate) awaits_log: AtomicBool,
    pub(crate) deleted: AtomicBool,
    /// Whether the shard has ever reached the log's end, or its leader's next offset.
    pub(crate) caught_up: AtomicBool,
    /// The shard's next offset, which its followers must not overtake.
    pub(crate) next: AtomicU64,
    pub(crate) snapshot: Mutex<ShardSnapshot>,
    pub(crate) recovery: Recovery,
}

/// Which delayed runs of a shard are queued, so that no run is queued twice. Only
/// [`crate::run_queues`] changes these flags.
#[derive(Default)]
pub(crate) struct Wakes {
    pub(crate) lazy: AtomicBool,
    pub(crate) sync: AtomicBool,
}

/// Whether a shard must still fold events again after a crash. Readers may have seen the results of
/// these events before the crash.
pub(crate) struct Recovery {
    pub(crate) target: RecoveryTarget,
    pub(crate) pending: AtomicBool,
}

impl Recovery {
    fn of(meta: &ShardMeta) -> Self {
        let pending = AtomicBool::new(meta.may_be_behind());
        Self { target: RecoveryTarget::of(meta), pending }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }
}

/// What status queries report about a shard. It is copied from the shard after each step.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardSnapshot {
    pub(crate) meta: ShardMeta,
    pub(crate) usage: Usage,
    pub(crate) idle: bool,
    /// When the shard had last read the whole log.
    pub(crate) read_all_at: Option<Duration>,
    pub(crate) halted: Option<String>,
    pub(crate) fault: Option<Fault>,
    pub(crate) rate: EventRate,
    /// The next offset of the last durable commit.
    pub(crate) durable: Offset,
    /// The next offset of the last commit that was begun.
    pub(crate) in_commit: Offset,
    pub(crate) outbox: OutboxSnapshot,
}

/// What status queries report about a shard's outbox. It is copied from the shard after each step.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutboxSnapshot {
    /// The number of emitted events that the log does not have.
    pub(crate) unsent: u64,
    /// Why the log does not accept emitted events now.
    pub(crate) fault: Option<String>,
    /// Whether the shard does not fold until the log has accepted emitted events.
    pub(crate) full: bool,
    /// The number of events emitted per second.
    pub(crate) rate: EventRate,
}

/// The rate at which a count of events grows, per second. It is measured over the last full
/// [`RATE_WINDOW`]. If the count has not changed for longer than that, the rate is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventRate {
    /// The time at which the window began, and the count at that time.
    started: Duration,
    from: u64,
    /// The time at which the count last changed, and its value since then.
    changed: Duration,
    next: u64,
    per_s: f64,
}

impl EventRate {
    /// Creates a rate of 0 for a count that is `next` at the time `now`.
    pub(crate) fn at(now: Duration, next: u64) -> Self {
        Self { started: now, from: next, changed: now, next, per_s: 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) fn count(&mut self, now: Duration, next: u64) {
        if next == self.next {
            return;
        }
        if self.per_s(now) == 0.0 && now.saturating_sub(self.changed) > RATE_WINDOW {
            *self = Self { started: now, from: self.next, per_s: 0.0, ..*self };
        }
        (self.changed, self.next) = (now, next);
        let passed = now.saturating_sub(self.started);
        if passed >= RATE_WINDOW || self.per_s == 0.0 {
            self.per_s = (next - self.from.min(next)) as f64 / passed.as_secs_f64().max(0.1);
        }
        if passed >= RATE_WINDOW {
            (self.started, self.from) = (now, next);
        }
    }

    pub(crate) fn per_s(&self, now: Duration) -> f64 {
        if now.saturating_sub(self.changed) > RATE_WINDOW { 0.0 } else { self.per_s }
    }
}

/// The number of events per second that are appended to a partition of the log. The rate is unknown
/// until the end of the partition was read twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IntakeRate(Option<EventRate>);

impl IntakeRate {
    /// Notes that the log ends at `end` at the time `now`.
    pub(crate) fn count(&mut self, now: Duration, end: u64) {
        self.0.get_or_insert_with(|| EventRate::at(now, end)).count(now, end);
    }

    pub(crate) fn per_s(&self, now: Duration) -> f64 {
        self.0.map_or(0.0, |rate| rate.per_s(now))
    }
}

impl ShardHandle {
    /// Creates the handle of the shard `id`. If the state is damaged, the shard is halted from the
    /// start. If the state cannot be opened for another reason, the shard tries again later.
    pub(crate) fn new(
        id: ShardId,
        store: Result<Arc<dyn ShardStore>, StopReason>,
        random: &dyn Random,
    ) -> Self {
        let mut snapshot = ShardSnapshot::default();
        let read = store.and_then(|store| {
            let read = store.get(Space::Meta, ShardMeta::KEY);
            let read = read.map_err(|error| StopReason::Fault(error.to_string()))?;
            snapshot.meta = ShardMeta::decode(read.as_deref()).map_err(|error| {
                StopReason::Halt(format!("the shard's own record is damaged: {error}"))
            })?;
            Ok(store)
        });
        snapshot.rate.next = snapshot.meta.next.0;
        snapshot.outbox.rate.next = snapshot.meta.emitted;
        (snapshot.durable, snapshot.in_commit) = (snapshot.meta.next, snapshot.meta.next);
        let store = match read {
            Ok(store) => Some(store),
            Err(StopReason::Halt(reason)) => {
                snapshot.halted = Some(reason);
                None
            }
            Err(StopReason::Fault(reason)) => {
                snapshot.fault = Some(Fault { reason, wait: Duration::ZERO });
                None
            }
        };
        let born = match snapshot.meta.born {
            0 => random.draw().max(1),
            born => born,
        };
        Self {
            id,
            store,
            born,
            shard: Mutex::new(None),
            slow: AtomicU8::new(1),
            run: AtomicU8::new(0),
            wakes: Wakes::default(),
            active: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            awaits_log: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            next: AtomicU64::new(snapshot.meta.next.0),
            recovery: Recovery::of(&snapshot.meta),
            snapshot: Mutex::new(snapshot),
        }
    }

    pub(crate) fn next(&self) -> Offset {
        Offset(self.next.load(Ordering::Acquire))
    }

    /// Returns the reason why the shard is halted; empty if it is not halted.
    pub(crate) fn halt_reason(&self) -> String {
        self.snapshot.lock().halted.clone().unwrap_or_default()
    }

    /// Returns whether the shard may run: it is not deleted, paused or halted.
    pub(crate) fn may_run(&self) -> bool {
        !self.deleted.load(Ordering::Acquire)
            && !self.paused.load(Ordering::Acquire)
            && self.snapshot.lock().halted.is_none()
    }

    /// Resets the next offset to the stored one. This is called after the shard was dropped with
    /// its uncommitted changes.
    pub(crate) fn reset_to_stored(&self) {
        let Some(store) = &self.store else { return };
        if let Ok(meta) = read_meta(&**store) {
            self.next.store(meta.next.0, Ordering::Release);
            let mut snapshot = self.snapshot.lock();
            snapshot.in_commit = meta.next;
            if !store.has_unsynced() {
                snapshot.durable = meta.next;
            }
            snapshot.meta = meta;
        }
    }

    /// Copies the progress of `shard` for status queries.
    pub(crate) fn record_step(&self, shard: &Shard, now: Duration) {
        self.next.store(shard.state.meta.next.0, Ordering::Release);
        let mut snapshot = self.snapshot.lock();
        snapshot.meta.clone_from(&shard.state.meta);
        snapshot.usage = shard.runner.usage;
        snapshot.rate.count(now, shard.state.meta.next.0);
        (snapshot.durable, snapshot.in_commit) =
            (shard.commits.sync.durable(), shard.commits.in_commit());
        snapshot.outbox.unsent = outbox_writer::unsent(&shard.state);
        snapshot.outbox.fault = shard.state.outbox.fault().map(|fault| fault.reason.clone());
        snapshot.outbox.rate.count(now, shard.state.meta.emitted);
    }

    /// Returns what the shard is doing and, if it cannot continue, why. `behind` tells whether the
    /// log has events that the shard has not applied.
    pub(crate) fn activity(&self, behind: bool) -> (&'static str, Option<String>) {
        let snapshot = self.snapshot.lock();
        if let Some(reason) = &snapshot.halted {
            return ("halted", Some(reason.clone()));
        }
        if self.paused.load(Ordering::Acquire) {
            return ("paused", None);
        }
        match &snapshot.fault {
            Some(fault) => ("faulted", Some(fault.reason.clone())),
            None if snapshot.outbox.fault.is_some() => {
                let why = snapshot.outbox.fault.clone().unwrap_or_default();
                ("faulted", Some(format!("emitted events cannot be appended: {why}")))
            }
            // The snapshot was copied at the end of the last step. If another step is running or
            // queued, the shard may apply new events for a long time before the snapshot changes.
            None if snapshot.idle && !(behind && self.has_turn()) => ("idle", None),
            None => ("running", None),
        }
    }

    /// Returns whether a step of the shard is running or queued.
    fn has_turn(&self) -> bool {
        self.run.load(Ordering::Acquire) != IDLE
    }

    pub(crate) fn status(&self, now: Duration, bounds: Option<PartitionBounds>) -> ShardStatus {
        let behind = bounds.is_some_and(|bounds| bounds.end > self.next());
        let (activity, reason) = self.activity(behind);
        let snapshot = self.snapshot.lock();
        let meta = &snapshot.meta;
        let known = |time: Timestamp| (time != Timestamp::MIN).then_some(time.0);
        // Events that the log has deleted are not counted, because they cannot be read any more.
        let lag =
            |bounds: PartitionBounds| bounds.end.0.saturating_sub(meta.next.max(bounds.start).0);
        let behind = |bounds: PartitionBounds| {
            let known = lag(bounds) > 0 && meta.max_time != Timestamp::MIN;
            if !known {
                return 0;
            }
            let behind = bounds.max_time.0.saturating_sub(meta.max_time.0);
            let behind = u64::try_from(behind / 1_000).unwrap_or_default();
            // The newest event that the shard has applied may be old, if few events are of a type
            // to which the plugin subscribes. But the events that it has not read are at most as
            // old as the time at which it last had read the whole log.
            snapshot.read_all_at.map_or(behind, |read_all_at| {
                behind.min(
                    u64::try_from(now.saturating_sub(read_all_at).as_millis()).unwrap_or(u64::MAX),
                )
            })
        };
        ShardStatus {
            partition: self.id.partition.0,
            activity: activity.into(),
            reason,
            next: meta.next.0,
            committed: snapshot.in_commit.0,
            durable: snapshot.durable.0,
            end: bounds.map(|bounds| bounds.end.0),
            lag_events: bounds.map(lag),
            lag_ms: bounds.map(behind),
            commit: meta.pos,
            applied: meta.applied,
            late: meta.late,
            parked: meta.parked_now + meta.refused_now,
            waiting: meta.waiting_now,
            unreadable_left_out: meta.unreadable_left_out,
            timers_fired: meta.timers_fired,
            emitted: meta.emitted,
            emitted_per_s: snapshot.outbox.rate.per_s(now),
            unsent: snapshot.outbox.unsent,
            refused: meta.refused_now,
            held_by_unsent: snapshot.outbox.full,
            emit_depth: meta.emit_depth,
            second_folds: meta.second_folds.batches,
            second_fold_differences: meta.second_folds.differences,
            second_fold_last: meta.second_folds.last.as_ref().map(|difference| {
                let nothing = || "nothing".to_owned();
                format!(
                    "the batch at offset {} gave {} under key `{}`: {}, and a second time {}",
                    difference.offset,
                    difference.what,
                    difference.key,
                    difference.first.clone().unwrap_or_else(nothing),
                    difference.second.clone().unwrap_or_else(nothing)
                )
            }),
            ahead: meta.ahead.count,
            ahead_last: meta.ahead.last.as_ref().map(|event| AheadStatus {
                offset: event.offset.0,
                id: event.id.clone(),
                source: event.source.clone(),
                time_us: event.time.0,
            }),
            watermark_us: known(meta.watermark),
            event_time_us: known(meta.max_time),
            fuel: snapshot.usage.fuel,
            apply_us: snapshot.usage.apply_us,
            memory_bytes: snapshot.usage.memory_bytes,
            state_bytes: self.store.as_ref().map_or(0, |store| store.disk_bytes()),
        }
    }
}

/// Reads the shard's record from its file.
///
/// # Errors
/// Returns [`StoreError::Damaged`] if it cannot be decoded, or another error of the store.
pub(crate) fn read_meta(store: &dyn ReadStore) -> Result<ShardMeta, StoreError> {
    let bytes = store.get(Space::Meta, ShardMeta::KEY)?;
    ShardMeta::decode(bytes.as_deref())
        .map_err(|e| StoreError::Damaged(format!("the shard's own record: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_whose_step_takes_long_is_not_idle_while_it_is_behind() {
        let id = ShardId {
            projection: "p".into(),
            version: lantern_core::VersionId("v".into()),
            rebuild: 0,
            partition: lantern_core::PartitionId(0),
        };
        let store = Arc::new(lantern_core::fake::MemoryShard::default());
        let random = lantern_core::fake::CountingRandom::default();
        let handle = ShardHandle::new(id, Ok(store), &random);
        handle.snapshot.lock().idle = true;
        assert_eq!(handle.activity(true).0, "idle", "it rests: it will be woken");
        handle.run.store(2, Ordering::Release);
        assert_eq!(handle.activity(true).0, "running");
        assert_eq!(handle.activity(false).0, "idle");
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_falls_to_nothing() {
        let mut rate = EventRate::default();
        let at = |tenths: u64| Duration::from_millis(60_000 + tenths * 100);
        for tenth in 0..50 {
            rate.count(at(tenth), tenth * 10);
        }
        assert!((90.0..=110.0).contains(&rate.per_s(at(50))), "{}", rate.per_s(at(50)));
        assert_eq!(rate.per_s(at(100)), 0.0);
        rate.count(at(100), 1_000);
        assert!(rate.per_s(at(100)) > 0.0);
    }
}
