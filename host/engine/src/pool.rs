//! A fixed number of threads that run shards' steps, one step at a time each.
//! Shards that serve readers go first; those that catch up in the background
//! get a turn now and then all the same. Shards whose steps take long never
//! have all threads, so that one whose steps are quick need not wait for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::slot::Slot;

/// One turn in so many goes to the background although others are waiting.
const BACKGROUND_EVERY: u32 = 4;

/// A step that takes longer makes its shard a slow one, until one that calls
/// its plugin takes less.
const SLOW: Duration = Duration::from_millis(250);

// The states of `Slot::run`.
const RESTING: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// Running, and woken meanwhile.
const RUNNING_WOKEN: u8 = 3;

/// What is to become of a shard after its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has more to do.
    Again,
    /// It rests until it is woken.
    Rest,
    /// It is woken after this time, if not before.
    After(Duration),
}

/// What a step took.
pub(crate) struct Took {
    pub(crate) time: Duration,
    /// Whether the plugin was called: without that it shows nothing of it.
    pub(crate) called: bool,
}

#[derive(Default)]
pub(crate) struct Pool {
    queues: Mutex<Queues>,
    ready: Condvar,
}

struct Queues {
    live: VecDeque<Arc<Slot>>,
    background: VecDeque<Arc<Slot>>,
    /// Waiting for a time; few, so in no order.
    delayed: Vec<(Duration, Arc<Slot>)>,
    turns: u32,
    closed: bool,
    /// Slow shards running, and the most that may.
    slow: usize,
    slow_max: usize,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            live: VecDeque::new(),
            background: VecDeque::new(),
            delayed: Vec::new(),
            turns: 0,
            closed: false,
            slow: 0,
            slow_max: usize::MAX,
        }
    }
}

impl Pool {
    /// Lets at most so many slow shards run at once.
    pub(crate) fn limit_slow(&self, slow_max: usize) {
        self.queues.lock().slow_max = slow_max;
    }

    /// Has `slot` run soon.
    pub(crate) fn wake(&self, slot: &Arc<Slot>) {
        let woken = slot.run.fetch_update(Ordering::AcqRel, Ordering::Acquire, |run| match run {
            RESTING => Some(QUEUED),
            RUNNING => Some(RUNNING_WOKEN),
            _ => None,
        });
        if woken == Ok(RESTING) {
            self.push(slot.clone());
        }
    }

    /// The next shard to run; waits for one. `None` once the pool is closed.
    pub(crate) fn next(&self, now: impl Fn() -> Duration) -> Option<Arc<Slot>> {
        let mut queues = self.queues.lock();
        loop {
            if queues.closed {
                return None;
            }
            let wait = queues.release(now());
            if let Some(slot) = queues.pop() {
                slot.run.store(RUNNING, Ordering::Release);
                return Some(slot);
            }
            match wait {
                Some(wait) => {
                    self.ready.wait_for(&mut queues, wait);
                }
                None => self.ready.wait(&mut queues),
            }
        }
    }

    /// The next shard to run, if one is waiting.
    pub(crate) fn try_next(&self, now: Duration) -> Option<Arc<Slot>> {
        let mut queues = self.queues.lock();
        queues.release(now);
        let slot = queues.pop()?;
        slot.run.store(RUNNING, Ordering::Release);
        Some(slot)
    }

    /// Puts a shard back after its step.
    pub(crate) fn done(&self, slot: Arc<Slot>, turn: Turn, now: Duration, took: &Took) {
        let before = slot.slow.load(Ordering::Acquire);
        slot.slow.store(took.time > SLOW || before && !took.called, Ordering::Release);
        if before {
            self.queues.lock().slow -= 1;
            self.ready.notify_one();
        }
        if turn == Turn::Again {
            slot.run.store(QUEUED, Ordering::Release);
            return self.push(slot);
        }
        let rests =
            slot.run.compare_exchange(RUNNING, RESTING, Ordering::AcqRel, Ordering::Acquire);
        match turn {
            // What waits for a fault to pass is not hurried by new events.
            Turn::After(wait) => {
                slot.run.store(QUEUED, Ordering::Release);
                self.queues.lock().delayed.push((now + wait, slot));
                self.ready.notify_one();
            }
            _ if rests.is_err() => {
                slot.run.store(QUEUED, Ordering::Release);
                self.push(slot);
            }
            _ => {}
        }
    }

    /// Lets no more shards run and wakes all threads.
    pub(crate) fn close(&self) {
        self.queues.lock().closed = true;
        self.ready.notify_all();
    }

    fn push(&self, slot: Arc<Slot>) {
        self.queues.lock().push(slot);
        self.ready.notify_one();
    }
}

impl Queues {
    fn push(&mut self, slot: Arc<Slot>) {
        if slot.active.load(Ordering::Acquire) {
            self.live.push_back(slot);
        } else {
            self.background.push_back(slot);
        }
    }

    fn pop(&mut self) -> Option<Arc<Slot>> {
        self.turns = self.turns.wrapping_add(1);
        let mut order = [&mut self.live, &mut self.background];
        if self.turns.is_multiple_of(BACKGROUND_EVERY) {
            order.reverse();
        }
        let room = self.slow < self.slow_max;
        let slot = order.into_iter().find_map(|queue| {
            let place = queue.iter().position(|s| room || !s.slow.load(Ordering::Acquire))?;
            queue.remove(place)
        })?;
        self.slow += usize::from(slot.slow.load(Ordering::Acquire));
        Some(slot)
    }

    /// Queues what has waited long enough; says how long the next has to wait.
    fn release(&mut self, now: Duration) -> Option<Duration> {
        let (due, waiting) =
            std::mem::take(&mut self.delayed).into_iter().partition(|d| d.0 <= now);
        let due: Vec<(Duration, Arc<Slot>)> = due;
        self.delayed = waiting;
        for (_, slot) in due {
            self.push(slot);
        }
        self.delayed.iter().map(|(at, _)| at.saturating_sub(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_core::{PartitionId, ShardId, VersionId};

    fn slot(projection: &str) -> Arc<Slot> {
        let version = VersionId("v".into());
        let id = ShardId {
            projection: projection.into(),
            version,
            rebuild: 0,
            partition: PartitionId(0),
        };
        Arc::new(Slot::new(id, Err("a test needs none".into())))
    }

    fn took(ms: u64, called: bool) -> Took {
        Took { time: Duration::from_millis(ms), called }
    }

    #[test]
    fn a_quick_shard_has_its_turn_while_slow_ones_are_running() {
        let pool = Pool::default();
        pool.limit_slow(2);
        let slow = ["a", "b", "c"].map(slot);
        let quick = slot("quick");
        let next = || pool.try_next(Duration::ZERO).map(|slot| slot.id.projection.clone());
        // Whose plugin was not called yet may be slow.
        pool.wake(&quick);
        assert_eq!(next().as_deref(), Some("quick"));
        pool.done(quick.clone(), Turn::Again, Duration::ZERO, &took(1, false));
        assert!(quick.slow.load(Ordering::Acquire));
        assert_eq!(next().as_deref(), Some("quick"));
        pool.done(quick.clone(), Turn::Rest, Duration::ZERO, &took(1, true));
        slow.iter().for_each(|slot| pool.wake(slot));
        assert_eq!((next().as_deref(), next().as_deref()), (Some("a"), Some("b")));
        assert_eq!(next(), None, "the third slow one waits");
        pool.wake(&quick);
        assert_eq!(next().as_deref(), Some("quick"));
        pool.done(slow[0].clone(), Turn::Again, Duration::ZERO, &took(500, true));
        assert_eq!(next().as_deref(), Some("c"));
        assert_eq!(next(), None, "the first one was slow and waits again");
        pool.done(slow[1].clone(), Turn::Rest, Duration::ZERO, &took(500, true));
        assert_eq!(next().as_deref(), Some("a"));
    }
}
