//! A fixed number of threads that run shards' steps, one step at a time each.
//! There are two lanes with threads of their own: one for shards whose steps
//! take little, one for those that take much or are not known yet, so that the
//! former never wait for the latter, however many these are. In each lane shards
//! that serve readers go first; those that catch up in the background get a turn
//! now and then all the same. In the slow lane those whose plugins use much fuel
//! let the others go first in the same way: who is new, or got there by the
//! host's work for it, waits for one of them and not for all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::Clock;
use parking_lot::{Condvar, Mutex};

use crate::slot::Slot;

/// One turn in this many goes to the shards that come last, although others wait.
const LAST_EVERY: u32 = 4;

/// A step whose plugin uses more fuel, some ten milliseconds' worth, is a slow
/// one. Fuel does not depend on what else the machine is doing.
const SLOW_FUEL: u64 = 1 << 24;

/// A step that takes more CPU time is slow too: its plugin had the host do what
/// fuel does not count. What passes on the clock says nothing of a plugin: with
/// six processes for a processor, steps of a second are seen that use next to
/// nothing.
const SLOW_CPU: Duration = Duration::from_millis(50);

/// How long a shard rests at most that lags behind by events it does not want.
const LAZY: Duration = Duration::from_millis(250);

/// How many calls in a row must take little before a shard whose plugin used
/// much fuel is quick again: one that does so now and then stays slow.
const QUICK_CALLS: u8 = 8;

// The states of `Slot::run`.
pub(crate) const RESTING: u8 = 0;
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
    /// CPU time of the thread that ran it, the plugin's and the host's.
    pub(crate) cpu: Duration,
    /// What the plugin used; 0 where it was not called, which shows nothing of
    /// it.
    pub(crate) fuel: u64,
}

/// Steps take no longer on the clock than this, in all, before the thread is
/// asked for its CPU time: the kernel takes a microsecond to say it.
const UNMETERED: Duration = Duration::from_millis(5);

/// What CPU time a thread's steps take.
pub(crate) struct CpuMeter {
    /// The thread's, when it was asked last.
    asked: Duration,
    /// How long the steps since then took on the clock.
    since: Duration,
}

impl CpuMeter {
    /// Of the calling thread.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { asked: clock.thread_cpu(), since: Duration::ZERO }
    }

    /// The CPU time of a step that has just ended and took `time` on the clock, exact
    /// to [`UNMETERED`]; for a long step it may be less.
    pub(crate) fn step(&mut self, clock: &dyn Clock, time: Duration) -> Duration {
        let before = self.since;
        self.since += time;
        if self.since < UNMETERED {
            return time;
        }
        let now = clock.thread_cpu();
        let cpu = now.saturating_sub(self.asked).saturating_sub(before);
        (self.asked, self.since) = (now, Duration::ZERO);
        cpu
    }
}

/// Which shards a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Those whose steps take little.
    Quick = 0,
    /// The others, and those that are not known yet.
    Slow = 1,
}

#[derive(Default)]
pub(crate) struct Pool {
    queues: Mutex<Queues>,
    /// For each lane: something is waiting.
    ready: [Condvar; 2],
}

#[derive(Default)]
struct Queues {
    quick: Waiting,
    /// Those that are not known yet, or whose steps took much CPU time.
    slow: Waiting,
    /// Those whose plugins used much fuel; in the slow lane as well.
    heavy: Waiting,
    /// Turns of the slow lane.
    slow_turns: u32,
    /// Waiting for a time; few, so in no order.
    delayed: Vec<(Duration, Arc<Slot>)>,
    /// Woken when their time comes, all after the same wait, so the first first.
    lazy: VecDeque<(Duration, Arc<Slot>)>,
    turns: u32,
    closed: bool,
}

/// Shards that wait for a turn.
#[derive(Default)]
struct Waiting {
    live: VecDeque<Arc<Slot>>,
    background: VecDeque<Arc<Slot>>,
    turns: u32,
}

impl Pool {
    /// Has `slot` run soon.
    pub(crate) fn wake(&self, slot: &Arc<Slot>) {
        if rouse(slot) {
            self.push(slot.clone());
        }
    }

    /// Has `slot` run within a while, together with whatever comes until then.
    pub(crate) fn wake_lazily(&self, slot: &Arc<Slot>, now: Duration) {
        if slot.lazy.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queues = self.queues.lock();
        queues.lazy.push_back((now + LAZY, slot.clone()));
        if queues.lazy.len() == 1 {
            // The threads of this lane are never away for long.
            self.ready[Lane::Quick as usize].notify_one();
        }
    }

    /// The next shard of a lane to run; waits for one. `None` once the pool is
    /// closed.
    pub(crate) fn next(&self, lane: Lane, now: impl Fn() -> Duration) -> Option<Arc<Slot>> {
        let mut queues = self.queues.lock();
        loop {
            if queues.closed {
                return None;
            }
            let wait = self.release(&mut queues, now());
            if let Some(slot) = queues.pop(lane) {
                slot.run.store(RUNNING, Ordering::Release);
                return Some(slot);
            }
            let ready = &self.ready[lane as usize];
            match (wait, lane) {
                (Some(wait), Lane::Quick) => {
                    ready.wait_for(&mut queues, wait);
                }
                _ => ready.wait(&mut queues),
            }
        }
    }

    /// The next shard of either lane to run, if one is waiting.
    pub(crate) fn try_next(&self, now: Duration) -> Option<Arc<Slot>> {
        let mut queues = self.queues.lock();
        self.release(&mut queues, now);
        queues.turns = queues.turns.wrapping_add(1);
        let mut lanes = [Lane::Slow, Lane::Quick];
        if queues.turns.is_multiple_of(2) {
            lanes.reverse();
        }
        let slot = lanes.into_iter().find_map(|lane| queues.pop(lane))?;
        slot.run.store(RUNNING, Ordering::Release);
        Some(slot)
    }

    /// Puts a shard back after its step.
    pub(crate) fn done(&self, slot: Arc<Slot>, turn: Turn, now: Duration, took: &Took) {
        // No other thread changes it while the shard is running.
        let slow = after(slot.slow.load(Ordering::Acquire), took);
        slot.slow.store(slow, Ordering::Release);
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
                // The threads of this lane are never away for long.
                self.ready[Lane::Quick as usize].notify_one();
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
        for ready in &self.ready {
            ready.notify_all();
        }
    }

    fn push(&self, slot: Arc<Slot>) {
        let lane = self.queues.lock().push(slot);
        self.ready[lane as usize].notify_one();
    }

    /// Queues what has waited long enough; says how long the next has to wait.
    fn release(&self, queues: &mut Queues, now: Duration) -> Option<Duration> {
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut queues.delayed).into_iter().partition(|d| d.0 <= now);
        queues.delayed = waiting;
        for (_, slot) in due {
            let lane = queues.push(slot);
            self.ready[lane as usize].notify_one();
        }
        while let Some((_, slot)) = queues.lazy.pop_front_if(|(at, _)| *at <= now) {
            slot.lazy.store(false, Ordering::Release);
            if rouse(&slot) {
                let lane = queues.push(slot);
                self.ready[lane as usize].notify_one();
            }
        }
        let times =
            queues.delayed.iter().map(|(at, _)| at).chain(queues.lazy.front().map(|l| &l.0));
        times.map(|at| at.saturating_sub(now)).min()
    }
}

/// Notes that `slot` is to run; whether it must be queued for that.
fn rouse(slot: &Slot) -> bool {
    let woken = slot.run.fetch_update(Ordering::AcqRel, Ordering::Acquire, |run| match run {
        RESTING => Some(QUEUED),
        RUNNING => Some(RUNNING_WOKEN),
        _ => None,
    });
    woken == Ok(RESTING)
}

impl Queues {
    fn push(&mut self, slot: Arc<Slot>) -> Lane {
        let (lane, waiting) = match slot.slow.load(Ordering::Acquire) {
            0 => (Lane::Quick, &mut self.quick),
            1 => (Lane::Slow, &mut self.slow),
            _ => (Lane::Slow, &mut self.heavy),
        };
        if slot.active.load(Ordering::Acquire) {
            waiting.live.push_back(slot);
        } else {
            waiting.background.push_back(slot);
        }
        lane
    }

    fn pop(&mut self, lane: Lane) -> Option<Arc<Slot>> {
        if lane == Lane::Quick {
            return self.quick.pop();
        }
        in_turn(&mut self.slow_turns, [&mut self.slow, &mut self.heavy], Waiting::pop)
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Arc<Slot>> {
        let order = [&mut self.live, &mut self.background];
        in_turn(&mut self.turns, order, VecDeque::pop_front)
    }
}

/// Pops from the first of two queues, or from the second if the first is empty; now
/// and then in the other order.
fn in_turn<Q>(
    turns: &mut u32,
    mut queues: [&mut Q; 2],
    pop: impl Fn(&mut Q) -> Option<Arc<Slot>>,
) -> Option<Arc<Slot>> {
    *turns = turns.wrapping_add(1);
    if turns.is_multiple_of(LAST_EVERY) {
        queues.reverse();
    }
    queues.into_iter().find_map(pop)
}

/// How many calls must take little before a shard is quick, after a step.
fn after(before: u8, took: &Took) -> u8 {
    if took.fuel > SLOW_FUEL {
        QUICK_CALLS
    } else if took.cpu > SLOW_CPU {
        before.max(1)
    } else {
        before.saturating_sub(u8::from(took.fuel > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Stop;
    use lantern_core::fake::CountingRandom;
    use lantern_core::{PartitionId, ShardId, VersionId};

    fn slot(projection: &str) -> Arc<Slot> {
        let version = VersionId("v".into());
        let id = ShardId {
            projection: projection.into(),
            version,
            rebuild: 0,
            partition: PartitionId(0),
        };
        Arc::new(Slot::new(
            id,
            Err(Stop::Halt("a test needs none".into())),
            &CountingRandom::default(),
        ))
    }

    const ENDLESS: Took = Took { cpu: Duration::from_millis(45), fuel: 100_000_000 };
    const SMALL: Took = Took { cpu: Duration::from_millis(45), fuel: 50_000 };
    const NO_CALL: Took = Took { cpu: Duration::from_millis(1), fuel: 0 };

    fn ran(pool: &Pool, slot: &Arc<Slot>, took: &Took) {
        pool.wake(slot);
        assert!(pool.try_next(Duration::ZERO).is_some_and(|next| next.id == slot.id));
        pool.done(slot.clone(), Turn::Rest, Duration::ZERO, took);
    }

    #[test]
    fn the_quick_lane_is_never_given_to_shards_that_use_much_fuel() {
        let pool = Pool::default();
        let next = |lane| {
            let queues = &mut *pool.queues.lock();
            queues.pop(lane).map(|slot| slot.id.projection.clone())
        };
        let endless = ["a", "b", "c", "d", "e", "f"].map(slot);
        // Their steps end before one is slow by its CPU time.
        endless.iter().for_each(|slot| ran(&pool, slot, &ENDLESS));
        let quick = slot("quick");
        ran(&pool, &quick, &SMALL);
        endless.iter().for_each(|slot| pool.wake(slot));
        pool.wake(&quick);
        assert_eq!(next(Lane::Quick).as_deref(), Some("quick"));
        assert_eq!(next(Lane::Quick), None);
        for slot in &endless {
            assert_eq!(next(Lane::Slow), Some(slot.id.projection.clone()));
        }
        assert_eq!(next(Lane::Slow), None);
    }

    /// A thread whose CPU time is said.
    struct Cpu(Mutex<Duration>);

    impl Clock for Cpu {
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn thread_cpu(&self) -> Duration {
            *self.0.lock()
        }

        fn wall(&self) -> lantern_core::Timestamp {
            lantern_core::Timestamp(0)
        }
    }

    #[test]
    fn a_step_that_waits_takes_no_cpu_time_and_one_that_works_does() {
        let ms = Duration::from_millis;
        let cpu = Cpu(Mutex::new(ms(1_000)));
        let mut meter = CpuMeter::new(&cpu);
        let mut step = |used: Duration, time: Duration| {
            *cpu.0.lock() += used;
            meter.step(&cpu, time)
        };
        assert_eq!(step(ms(1), ms(2_000)), ms(1), "it waited for a processor");
        assert_eq!(step(ms(200), ms(210)), ms(200));
        for _ in 0..1_000 {
            assert!(step(ms(0), ms(1)) <= ms(1), "short ones are taken for work, but are short");
        }
        let long = step(ms(200), ms(4_000));
        assert!((ms(200) - UNMETERED..=ms(200)).contains(&long), "{long:?}");
    }

    #[test]
    fn a_shard_is_quick_once_its_calls_take_little() {
        let pool = Pool::default();
        let slow = |slot: &Slot| slot.slow.load(Ordering::Acquire) > 0;
        let shard = slot("a");
        ran(&pool, &shard, &NO_CALL);
        assert!(slow(&shard), "its plugin was not called yet");
        ran(&pool, &shard, &SMALL);
        assert!(!slow(&shard));
        // One burst is not forgotten at once.
        ran(&pool, &shard, &ENDLESS);
        for _ in 1..QUICK_CALLS {
            ran(&pool, &shard, &SMALL);
            ran(&pool, &shard, &NO_CALL);
            assert!(slow(&shard));
        }
        ran(&pool, &shard, &SMALL);
        assert!(!slow(&shard));
        ran(&pool, &shard, &Took { cpu: SLOW_CPU * 2, fuel: 1 });
        assert!(slow(&shard), "the host worked long for it");
        ran(&pool, &shard, &SMALL);
        assert!(!slow(&shard));
    }

    #[test]
    fn in_the_slow_lane_those_that_use_much_fuel_let_others_go_first() {
        let pool = Pool::default();
        let endless = ["a", "b", "c", "d", "e", "f"].map(slot);
        endless.iter().for_each(|slot| ran(&pool, slot, &ENDLESS));
        endless.iter().for_each(|slot| pool.wake(slot));
        for number in 0..100 {
            // A shard that is not known yet, and one for which the host worked long.
            let other = slot("other");
            pool.wake(&other);
            let turns = (1..).find(|_| {
                let next = pool.queues.lock().pop(Lane::Slow).expect("some wait");
                let came = Arc::ptr_eq(&next, &other);
                if !came {
                    pool.queues.lock().push(next);
                }
                came
            });
            assert!(turns <= Some(2), "it came after {turns:?} turns, the time {number}");
        }
        let heavy = (0..LAST_EVERY).filter(|_| {
            pool.wake(&slot("other"));
            let next = pool.queues.lock().pop(Lane::Slow).expect("some wait");
            let heavy = next.slow.load(Ordering::Acquire) > 1;
            if heavy {
                pool.queues.lock().push(next);
            }
            heavy
        });
        assert_eq!(heavy.count(), 1, "who uses much comes all the same");
    }

    #[test]
    fn what_waits_for_a_time_comes_back_in_its_lane() {
        let pool = Pool::default();
        let shard = slot("a");
        pool.wake(&shard);
        let taken = pool.next(Lane::Slow, || Duration::ZERO);
        let wait = Turn::After(Duration::from_secs(1));
        pool.done(taken.expect("it was woken"), wait, Duration::ZERO, &SMALL);
        assert!(pool.try_next(Duration::ZERO).is_none());
        let due = || Duration::from_secs(1);
        assert!(pool.next(Lane::Quick, due).is_some_and(|next| next.id == shard.id));
    }
}
