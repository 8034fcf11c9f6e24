//! A shard's place in the pool: what may be known and asked of it while its
//! step is running on some thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use lantern_core::{
    Offset, PartitionBounds, Random, ReadStore, ShardId, ShardMeta, ShardStore, Space, Timestamp,
};
use parking_lot::Mutex;

use crate::outbox;
use crate::runner::Usage;
use crate::shard::{Shard, Stop};
use crate::{AheadStatus, ShardStatus};

/// How long a rate is averaged over.
const RATE_WINDOW: Duration = Duration::from_secs(2);

pub(crate) struct Slot {
    pub(crate) id: ShardId,
    pub(crate) store: Option<Arc<dyn ShardStore>>,
    /// [`ShardMeta::born`], drawn here if the state is fresh.
    pub(crate) born: u64,
    /// Opened on first use, on a thread of the pool.
    pub(crate) shard: Mutex<Option<Shard>>,
    /// See [`crate::pool`].
    pub(crate) run: AtomicU8,
    /// How many calls must take little before it is quick; at first one. Changed
    /// by the pool alone, and not while it waits for a turn.
    pub(crate) slow: AtomicU8,
    /// Is to be woken lazily; see [`crate::pool`].
    pub(crate) lazy: AtomicBool,
    /// Serves readers; goes first in the queue.
    pub(crate) active: AtomicBool,
    pub(crate) paused: AtomicBool,
    /// Waits for a pending read of the log, or may in a moment.
    pub(crate) awaits: AtomicBool,
    pub(crate) deleted: AtomicBool,
    /// Has once reached the log's end, or its leader.
    pub(crate) caught_up: AtomicBool,
    /// The shard's position, for those that follow it.
    pub(crate) next: AtomicU64,
    pub(crate) seen: Mutex<Seen>,
}

/// What was last seen of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) meta: ShardMeta,
    pub(crate) usage: Usage,
    pub(crate) idle: bool,
    pub(crate) halted: Option<String>,
    pub(crate) fault: Option<Fault>,
    pub(crate) rate: Rate,
    /// The offset of the last durable commit, and of the last one begun.
    pub(crate) durable: Offset,
    pub(crate) in_commit: Offset,
    pub(crate) outbox: SeenOutbox,
}

/// What was last seen of a shard's outbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenOutbox {
    /// Emitted events that the log has not taken.
    pub(crate) unsent: u64,
    /// Why it takes none now.
    pub(crate) stuck: Option<String>,
    /// Whether the shard folds no further before the log has taken some.
    pub(crate) full: bool,
    /// Events emitted per second.
    pub(crate) rate: Rate,
}

/// A fault of the host that is being waited out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) wait: Duration,
}

/// Events a second: over the last whole window while there is work, and 0 once
/// there was none for as long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// When the window began, and the position then.
    began: Duration,
    from: u64,
    /// The last change of the position, and the position since.
    changed: Duration,
    next: u64,
    per_s: f64,
}

impl Rate {
    /// The rate of a count that is `next` now.
    pub(crate) fn at(now: Duration, next: u64) -> Self {
        Self { began: now, from: next, changed: now, next, per_s: 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) fn count(&mut self, now: Duration, next: u64) {
        if next == self.next {
            return;
        }
        if self.per_s(now) == 0.0 && now.saturating_sub(self.changed) > RATE_WINDOW {
            *self = Self { began: now, from: self.next, per_s: 0.0, ..*self };
        }
        (self.changed, self.next) = (now, next);
        let passed = now.saturating_sub(self.began);
        if passed >= RATE_WINDOW || self.per_s == 0.0 {
            self.per_s = (next - self.from.min(next)) as f64 / passed.as_secs_f64().max(0.1);
        }
        if passed >= RATE_WINDOW {
            (self.began, self.from) = (now, next);
        }
    }

    pub(crate) fn per_s(&self, now: Duration) -> f64 {
        if now.saturating_sub(self.changed) > RATE_WINDOW { 0.0 } else { self.per_s }
    }
}

/// Events a second that a partition of the log takes; not known before its end
/// was seen twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Intake(Option<Rate>);

impl Intake {
    /// Notes that the log ends at `end`.
    pub(crate) fn count(&mut self, now: Duration, end: u64) {
        self.0.get_or_insert_with(|| Rate::at(now, end)).count(now, end);
    }

    pub(crate) fn per_s(&self, now: Duration) -> f64 {
        self.0.map_or(0.0, |rate| rate.per_s(now))
    }
}

impl Slot {
    /// A place for the shard `id`. If its store is damaged it is halted from the
    /// start; if it could not be opened for another reason, that is tried again.
    pub(crate) fn new(
        id: ShardId,
        store: Result<Arc<dyn ShardStore>, Stop>,
        random: &dyn Random,
    ) -> Self {
        let mut seen = Seen::default();
        let read = store.and_then(|store| {
            let read = store.get(Space::Meta, ShardMeta::KEY);
            let read = read.map_err(|error| Stop::Fault(error.to_string()))?;
            seen.meta = ShardMeta::decode(read.as_deref()).map_err(|error| {
                Stop::Halt(format!("the shard's own record is damaged: {error}"))
            })?;
            Ok(store)
        });
        seen.rate.next = seen.meta.next.0;
        seen.outbox.rate.next = seen.meta.emitted;
        (seen.durable, seen.in_commit) = (seen.meta.next, seen.meta.next);
        let store = match read {
            Ok(store) => Some(store),
            Err(Stop::Halt(reason)) => {
                seen.halted = Some(reason);
                None
            }
            Err(Stop::Fault(reason)) => {
                seen.fault = Some(Fault { reason, wait: Duration::ZERO });
                None
            }
        };
        let born = match seen.meta.born {
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
            lazy: AtomicBool::new(false),
            active: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            awaits: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            next: AtomicU64::new(seen.meta.next.0),
            seen: Mutex::new(seen),
        }
    }

    pub(crate) fn next(&self) -> Offset {
        Offset(self.next.load(Ordering::Acquire))
    }

    /// Whether nothing keeps it from running.
    pub(crate) fn may_run(&self) -> bool {
        !self.deleted.load(Ordering::Acquire)
            && !self.paused.load(Ordering::Acquire)
            && self.seen.lock().halted.is_none()
    }

    /// Its shard was dropped with what it had not committed: it continues from its
    /// file.
    pub(crate) fn fall_back(&self) {
        let read = self.store.as_ref().map(|store| read_meta(&**store));
        if let Some(Ok(meta)) = read {
            self.next.store(meta.next.0, Ordering::Release);
            let mut seen = self.seen.lock();
            (seen.durable, seen.in_commit) = (meta.next, meta.next);
            seen.meta = meta;
        }
    }

    /// Notes how far `shard` is.
    pub(crate) fn note(&self, shard: &Shard, now: Duration) {
        self.next.store(shard.state.meta.next.0, Ordering::Release);
        let mut seen = self.seen.lock();
        seen.meta.clone_from(&shard.state.meta);
        seen.usage = shard.runner.usage;
        seen.rate.count(now, shard.state.meta.next.0);
        (seen.durable, seen.in_commit) = (shard.commits.durable(), shard.commits.in_commit());
        seen.outbox.unsent = outbox::unsent(&shard.state);
        seen.outbox.stuck = shard.state.outbox.stuck().map(|fault| fault.reason.clone());
        seen.outbox.rate.count(now, shard.state.meta.emitted);
    }

    /// What it is doing, and why it cannot go on. `behind` says whether the log
    /// has events that it has not applied.
    pub(crate) fn activity(&self, behind: bool) -> (&'static str, Option<String>) {
        let seen = self.seen.lock();
        if let Some(reason) = &seen.halted {
            return ("halted", Some(reason.clone()));
        }
        if self.paused.load(Ordering::Acquire) {
            return ("paused", None);
        }
        match &seen.fault {
            Some(fault) => ("faulted", Some(fault.reason.clone())),
            None if seen.outbox.stuck.is_some() => {
                let why = seen.outbox.stuck.clone().unwrap_or_default();
                ("faulted", Some(format!("emitted events cannot be appended: {why}")))
            }
            // It was when its last step ended; the next one may take long.
            None if seen.idle && !(behind && self.has_turn()) => ("idle", None),
            None => ("running", None),
        }
    }

    /// Whether a step of it is running, or waits for a thread.
    fn has_turn(&self) -> bool {
        self.run.load(Ordering::Acquire) != crate::pool::RESTING
    }

    pub(crate) fn status(&self, now: Duration, bounds: Option<PartitionBounds>) -> ShardStatus {
        let behind = bounds.is_some_and(|bounds| bounds.end > self.next());
        let (activity, reason) = self.activity(behind);
        let seen = self.seen.lock();
        let meta = &seen.meta;
        let known = |time: Timestamp| (time != Timestamp::MIN).then_some(time.0);
        // Events that the log has deleted will not be read any more.
        let lag =
            |bounds: PartitionBounds| bounds.end.0.saturating_sub(meta.next.max(bounds.start).0);
        let behind = |bounds: PartitionBounds| {
            let known = lag(bounds) > 0 && meta.max_time != Timestamp::MIN;
            let behind = bounds.max_time.0.saturating_sub(meta.max_time.0);
            if known { u64::try_from(behind / 1_000).unwrap_or_default() } else { 0 }
        };
        ShardStatus {
            partition: self.id.partition.0,
            activity: activity.into(),
            reason,
            next: meta.next.0,
            committed: seen.in_commit.0,
            durable: seen.durable.0,
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
            emitted_per_s: seen.outbox.rate.per_s(now),
            unsent: seen.outbox.unsent,
            refused: meta.refused_now,
            held_by_unsent: seen.outbox.full,
            emit_depth: meta.emit_depth,
            second_folds: meta.second_folds.batches,
            second_fold_differences: meta.second_folds.differences,
            second_fold_last: meta.second_folds.last.as_ref().map(|found| {
                let nothing = || "nothing".to_owned();
                format!(
                    "the batch at offset {} gave {} under key `{}`: {}, and a second time {}",
                    found.offset,
                    found.what,
                    found.key,
                    found.first.clone().unwrap_or_else(nothing),
                    found.second.clone().unwrap_or_else(nothing)
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
            fuel: seen.usage.fuel,
            apply_us: seen.usage.apply_us,
            memory_bytes: seen.usage.memory_bytes,
            state_bytes: self.store.as_ref().map_or(0, |store| store.disk_bytes()),
        }
    }
}

/// What a shard's file says of it.
pub(crate) fn read_meta(store: &dyn ReadStore) -> Result<ShardMeta, String> {
    let bytes = store.get(Space::Meta, ShardMeta::KEY).map_err(|e| e.to_string())?;
    ShardMeta::decode(bytes.as_deref())
        .map_err(|e| format!("the shard's own record is damaged: {e}"))
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
        let slot = Slot::new(id, Ok(store), &random);
        slot.seen.lock().idle = true;
        assert_eq!(slot.activity(true).0, "idle", "it rests: it will be woken");
        slot.run.store(2, Ordering::Release);
        assert_eq!(slot.activity(true).0, "running");
        assert_eq!(slot.activity(false).0, "idle");
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_falls_to_nothing() {
        let mut rate = Rate::default();
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
