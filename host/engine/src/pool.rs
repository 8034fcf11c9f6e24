//! A fixed number of threads that run shards' steps, one step at a time each.
//! Shards that serve readers go first; those that catch up in the background
//! get a turn now and then all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::slot::Slot;

/// One turn in so many goes to the background although others are waiting.
const BACKGROUND_EVERY: u32 = 4;

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

#[derive(Default)]
pub(crate) struct Pool {
    queues: Mutex<Queues>,
    ready: Condvar,
}

#[derive(Default)]
struct Queues {
    live: VecDeque<Arc<Slot>>,
    background: VecDeque<Arc<Slot>>,
    /// Waiting for a time; few, so in no order.
    delayed: Vec<(Duration, Arc<Slot>)>,
    turns: u32,
    closed: bool,
}

impl Pool {
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
    pub(crate) fn done(&self, slot: Arc<Slot>, turn: Turn, now: Duration) {
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
        if self.turns.is_multiple_of(BACKGROUND_EVERY) {
            self.background.pop_front().or_else(|| self.live.pop_front())
        } else {
            self.live.pop_front().or_else(|| self.background.pop_front())
        }
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
