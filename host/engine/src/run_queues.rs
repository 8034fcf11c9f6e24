//! A fixed number of threads that run shards' steps, one step at a time each.
//! There are two classes of shards with threads of their own: quick shards, and slow
//! or new ones, so that quick shards never wait for slow ones. In each class shards
//! that serve readers go first; every few turns a shard that catches up in the
//! background is taken. In the slow class, shards whose plugins use much fuel come
//! last in the same way, so that a new shard waits for one of them and not for all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::Clock;
use parking_lot::{Condvar, Mutex};

use crate::shard_handle::{IDLE, QUEUED, RUNNING, RUNNING_WOKEN, ShardHandle};

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

/// What is to become of a shard after its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTurn {
    /// It has more to do.
    Again,
    /// It rests until it is woken.
    Rest,
    /// It is woken after this time, if not before.
    After(Duration),
}

/// What a step took.
pub(crate) struct StepCost {
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
    measured_at: Duration,
    /// How long the steps since then took on the clock.
    since: Duration,
}

impl CpuMeter {
    /// Of the calling thread.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { measured_at: clock.thread_cpu(), since: Duration::ZERO }
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
        let cpu = now.saturating_sub(self.measured_at).saturating_sub(before);
        (self.measured_at, self.since) = (now, Duration::ZERO);
        cpu
    }
}

/// Which shards a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueClass {
    /// Those whose steps take little.
    Quick = 0,
    /// The others, and those that are not known yet.
    Slow = 1,
}

#[derive(Default)]
pub(crate) struct RunQueues {
    queues: Mutex<QueueState>,
    /// For each class: something is waiting.
    ready: [Condvar; 2],
}

#[derive(Default)]
struct QueueState {
    quick: WaitingShards,
    /// Those that are not known yet, or whose steps took much CPU time.
    slow: WaitingShards,
    /// Those whose plugins used much fuel; in the slow class as well.
    heavy: WaitingShards,
    /// Turns of the slow class.
    slow_turns: u32,
    /// Waiting for a time; few, so in no order.
    delayed: Vec<(Duration, Arc<ShardHandle>)>,
    /// Woken when their time comes, all after the same wait, so the first first.
    lazy: VecDeque<(Duration, Arc<ShardHandle>)>,
    /// Woken when their commits must become durable, by time and a running number.
    syncs: BTreeMap<(Duration, u64), Arc<ShardHandle>>,
    sync_number: u64,
    turns: u32,
    closed: bool,
}

/// Shards that wait for a turn.
#[derive(Default)]
struct WaitingShards {
    live: VecDeque<Arc<ShardHandle>>,
    background: VecDeque<Arc<ShardHandle>>,
    turns: u32,
}

impl RunQueues {
    /// Has `handle` run soon.
    pub(crate) fn wake(&self, handle: &Arc<ShardHandle>) {
        if mark_runnable(handle) {
            self.push(handle.clone());
        }
    }

    /// Has `handle` run within a while, together with whatever comes until then.
    pub(crate) fn wake_lazily(&self, handle: &Arc<ShardHandle>, now: Duration) {
        if handle.wakes.lazy.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queues = self.queues.lock();
        queues.lazy.push_back((now + LAZY, handle.clone()));
        if queues.lazy.len() == 1 {
            // The threads of this class are never away for long.
            self.ready[QueueClass::Quick as usize].notify_one();
        }
    }

    /// Has `handle` run at `due`, unless that is queued already for an earlier time: it
    /// commits then what is to be durable.
    pub(crate) fn wake_to_sync(&self, handle: &Arc<ShardHandle>, due: Duration) {
        if handle.wakes.sync.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queues = self.queues.lock();
        queues.sync_number += 1;
        let key = (due, queues.sync_number);
        queues.syncs.insert(key, handle.clone());
        if queues.syncs.first_key_value().is_some_and(|(first, _)| *first == key) {
            // The threads of this class are never away for long.
            self.ready[QueueClass::Quick as usize].notify_one();
        }
    }

    /// The next shard of a lane to run; waits for one. `None` once the pool is
    /// closed.
    pub(crate) fn next(
        &self,
        class: QueueClass,
        now: impl Fn() -> Duration,
    ) -> Option<Arc<ShardHandle>> {
        let mut queues = self.queues.lock();
        loop {
            if queues.closed {
                return None;
            }
            let wait = self.release(&mut queues, now());
            if let Some(handle) = queues.pop(class) {
                handle.run.store(RUNNING, Ordering::Release);
                return Some(handle);
            }
            let ready = &self.ready[class as usize];
            match (wait, class) {
                (Some(wait), QueueClass::Quick) => {
                    ready.wait_for(&mut queues, wait);
                }
                _ => ready.wait(&mut queues),
            }
        }
    }

    /// The next shard of either class to run, if one is waiting.
    pub(crate) fn try_next(&self, now: Duration) -> Option<Arc<ShardHandle>> {
        let mut queues = self.queues.lock();
        self.release(&mut queues, now);
        queues.turns = queues.turns.wrapping_add(1);
        let mut classes = [QueueClass::Slow, QueueClass::Quick];
        if queues.turns.is_multiple_of(2) {
            classes.reverse();
        }
        let handle = classes.into_iter().find_map(|class| queues.pop(class))?;
        handle.run.store(RUNNING, Ordering::Release);
        Some(handle)
    }

    /// Puts a shard back after its step.
    pub(crate) fn done(
        &self,
        handle: Arc<ShardHandle>,
        turn: NextTurn,
        now: Duration,
        took: &StepCost,
    ) {
        // No other thread changes it while the shard is running.
        let slow = quick_after(handle.slow.load(Ordering::Acquire), took);
        handle.slow.store(slow, Ordering::Release);
        if turn == NextTurn::Again {
            handle.run.store(QUEUED, Ordering::Release);
            return self.push(handle);
        }
        let rests = handle.run.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        match turn {
            // What waits for a fault to pass is not hurried by new events.
            NextTurn::After(wait) => {
                handle.run.store(QUEUED, Ordering::Release);
                self.queues.lock().delayed.push((now + wait, handle));
                // The threads of this class are never away for long.
                self.ready[QueueClass::Quick as usize].notify_one();
            }
            _ if rests.is_err() => {
                handle.run.store(QUEUED, Ordering::Release);
                self.push(handle);
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

    fn push(&self, handle: Arc<ShardHandle>) {
        let class = self.queues.lock().push(handle);
        self.ready[class as usize].notify_one();
    }

    /// Queues what has waited long enough; says how long the next has to wait.
    fn release(&self, queues: &mut QueueState, now: Duration) -> Option<Duration> {
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut queues.delayed).into_iter().partition(|d| d.0 <= now);
        queues.delayed = waiting;
        for (_, handle) in due {
            let class = queues.push(handle);
            self.ready[class as usize].notify_one();
        }
        while let Some((_, handle)) = queues.lazy.pop_front_if(|(at, _)| *at <= now) {
            handle.wakes.lazy.store(false, Ordering::Release);
            if mark_runnable(&handle) {
                let class = queues.push(handle);
                self.ready[class as usize].notify_one();
            }
        }
        while let Some(first) = queues.syncs.first_entry().filter(|first| first.key().0 <= now) {
            let handle = first.remove();
            handle.wakes.sync.store(false, Ordering::Release);
            if mark_runnable(&handle) {
                let class = queues.push(handle);
                self.ready[class as usize].notify_one();
            }
        }
        let times = queues.delayed.iter().map(|(at, _)| at);
        let times = times.chain(queues.lazy.front().map(|(at, _)| at));
        let times = times.chain(queues.syncs.first_key_value().map(|((at, _), _)| at));
        times.map(|at| at.saturating_sub(now)).min()
    }
}

/// Notes that `handle` is to run; whether it must be queued for that.
fn mark_runnable(handle: &ShardHandle) -> bool {
    let woken = handle.run.fetch_update(Ordering::AcqRel, Ordering::Acquire, |run| match run {
        IDLE => Some(QUEUED),
        RUNNING => Some(RUNNING_WOKEN),
        _ => None,
    });
    woken == Ok(IDLE)
}

impl QueueState {
    fn push(&mut self, handle: Arc<ShardHandle>) -> QueueClass {
        let (class, waiting) = match handle.slow.load(Ordering::Acquire) {
            0 => (QueueClass::Quick, &mut self.quick),
            1 => (QueueClass::Slow, &mut self.slow),
            _ => (QueueClass::Slow, &mut self.heavy),
        };
        if handle.active.load(Ordering::Acquire) {
            waiting.live.push_back(handle);
        } else {
            waiting.background.push_back(handle);
        }
        class
    }

    fn pop(&mut self, class: QueueClass) -> Option<Arc<ShardHandle>> {
        if class == QueueClass::Quick {
            return self.quick.pop();
        }
        in_turn(&mut self.slow_turns, [&mut self.slow, &mut self.heavy], WaitingShards::pop)
    }
}

impl WaitingShards {
    fn pop(&mut self) -> Option<Arc<ShardHandle>> {
        let order = [&mut self.live, &mut self.background];
        in_turn(&mut self.turns, order, VecDeque::pop_front)
    }
}

/// Pops from the first of two queues, or from the second if the first is empty; now
/// and then in the other order.
fn in_turn<Q>(
    turns: &mut u32,
    mut queues: [&mut Q; 2],
    pop: impl Fn(&mut Q) -> Option<Arc<ShardHandle>>,
) -> Option<Arc<ShardHandle>> {
    *turns = turns.wrapping_add(1);
    if turns.is_multiple_of(LAST_EVERY) {
        queues.reverse();
    }
    queues.into_iter().find_map(pop)
}

/// How many calls must take little before a shard is quick, after a step.
fn quick_after(before: u8, took: &StepCost) -> u8 {
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
    use crate::stop_reason::StopReason;
    use lantern_core::fake::CountingRandom;
    use lantern_core::{PartitionId, ShardId, VersionId};

    fn handle(projection: &str) -> Arc<ShardHandle> {
        let version = VersionId("v".into());
        let id = ShardId {
            projection: projection.into(),
            version,
            rebuild: 0,
            partition: PartitionId(0),
        };
        Arc::new(ShardHandle::new(
            id,
            Err(StopReason::Halt("a test needs none".into())),
            &CountingRandom::default(),
        ))
    }

    const ENDLESS: StepCost = StepCost { cpu: Duration::from_millis(45), fuel: 100_000_000 };
    const SMALL: StepCost = StepCost { cpu: Duration::from_millis(45), fuel: 50_000 };
    const NO_CALL: StepCost = StepCost { cpu: Duration::from_millis(1), fuel: 0 };

    fn ran(pool: &RunQueues, handle: &Arc<ShardHandle>, took: &StepCost) {
        pool.wake(handle);
        assert!(pool.try_next(Duration::ZERO).is_some_and(|next| next.id == handle.id));
        pool.done(handle.clone(), NextTurn::Rest, Duration::ZERO, took);
    }

    #[test]
    fn the_quick_lane_is_never_given_to_shards_that_use_much_fuel() {
        let pool = RunQueues::default();
        let next = |class| {
            let queues = &mut *pool.queues.lock();
            queues.pop(class).map(|handle| handle.id.projection.clone())
        };
        let endless = ["a", "b", "c", "d", "e", "f"].map(handle);
        // Their steps end before one is slow by its CPU time.
        endless.iter().for_each(|handle| ran(&pool, handle, &ENDLESS));
        let quick = handle("quick");
        ran(&pool, &quick, &SMALL);
        endless.iter().for_each(|handle| pool.wake(handle));
        pool.wake(&quick);
        assert_eq!(next(QueueClass::Quick).as_deref(), Some("quick"));
        assert_eq!(next(QueueClass::Quick), None);
        for handle in &endless {
            assert_eq!(next(QueueClass::Slow), Some(handle.id.projection.clone()));
        }
        assert_eq!(next(QueueClass::Slow), None);
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
        let pool = RunQueues::default();
        let slow = |handle: &ShardHandle| handle.slow.load(Ordering::Acquire) > 0;
        let shard = handle("a");
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
        ran(&pool, &shard, &StepCost { cpu: SLOW_CPU * 2, fuel: 1 });
        assert!(slow(&shard), "the host worked long for it");
        ran(&pool, &shard, &SMALL);
        assert!(!slow(&shard));
    }

    #[test]
    fn in_the_slow_lane_those_that_use_much_fuel_let_others_go_first() {
        let pool = RunQueues::default();
        let endless = ["a", "b", "c", "d", "e", "f"].map(handle);
        endless.iter().for_each(|handle| ran(&pool, handle, &ENDLESS));
        endless.iter().for_each(|handle| pool.wake(handle));
        for number in 0..100 {
            // A shard that is not known yet, and one for which the host worked long.
            let other = handle("other");
            pool.wake(&other);
            let turns = (1..).find(|_| {
                let next = pool.queues.lock().pop(QueueClass::Slow).expect("some wait");
                let came = Arc::ptr_eq(&next, &other);
                if !came {
                    pool.queues.lock().push(next);
                }
                came
            });
            assert!(turns <= Some(2), "it came after {turns:?} turns, the time {number}");
        }
        let heavy = (0..LAST_EVERY).filter(|_| {
            pool.wake(&handle("other"));
            let next = pool.queues.lock().pop(QueueClass::Slow).expect("some wait");
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
        let pool = RunQueues::default();
        let shard = handle("a");
        pool.wake(&shard);
        let accepted = pool.next(QueueClass::Slow, || Duration::ZERO);
        let wait = NextTurn::After(Duration::from_secs(1));
        pool.done(accepted.expect("it was woken"), wait, Duration::ZERO, &SMALL);
        assert!(pool.try_next(Duration::ZERO).is_none());
        let due = || Duration::from_secs(1);
        assert!(pool.next(QueueClass::Quick, due).is_some_and(|next| next.id == shard.id));
    }
}
