//! Implements the run queues, which decide in which order a fixed number of threads run the steps
//! of shards. Each thread runs one step at a time.
//!
//! There are two classes of shards: quick shards, and slow or new shards. Each class has its own
//! threads, so quick shards never wait for slow ones. Within a class:
//!
//! * Shards that serve readers run first. Every few turns, a shard that catches up in the
//!   background runs first instead.
//! * In the slow class, shards whose plugins use much fuel run after all others, except every few
//!   turns. So a new shard waits for at most one step of such a plugin.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::Clock;
use parking_lot::{Condvar, Mutex};

use crate::shard_handle::{IDLE, QUEUED, RUNNING, RUNNING_WOKEN, ShardHandle};

/// One turn in this number goes to the shards that otherwise run last.
const LAST_EVERY: u32 = 4;

/// The fuel limit of a quick step. If the plugin uses more in a step, the step counts as slow. This
/// amount of fuel takes about ten milliseconds. Unlike time, fuel does not depend on what else the
/// machine is doing.
const SLOW_FUEL: u64 = 1 << 24;

/// The limit for the CPU time of a quick step. A step that takes more is slow as well: its plugin
/// has caused work of the host that fuel does not measure.
///
/// Wall time cannot be used here. On a machine with six busy processes per processor, a step that
/// uses almost no CPU time can take a second.
const SLOW_CPU: Duration = Duration::from_millis(50);

/// The longest time that a shard waits if its only new events are of types to which it does not
/// subscribe.
const LAZY: Duration = Duration::from_millis(250);

/// After this many cheap calls in a row, a shard moves from the slow class to the quick class. A
/// shard that uses much fuel only in some calls therefore stays slow.
const QUICK_CALLS: u8 = 8;

/// When a shard runs again after its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTurn {
    /// At once, because the shard has more to do.
    Again,
    /// When the shard is woken.
    Rest,
    /// After this time has passed.
    After(Duration),
}

/// What a step has cost.
pub(crate) struct StepCost {
    /// The CPU time that the thread has used for the step, in the plugin and the host.
    pub(crate) cpu: Duration,
    /// The fuel that the plugin used. 0 means that the plugin was not called, so the step does not
    /// show how much its calls cost.
    pub(crate) fuel: u64,
}

/// The wall time after which a thread reads its CPU time. A read takes the kernel a microsecond, so
/// several short steps share one read.
const UNMETERED: Duration = Duration::from_millis(5);

/// Measures the CPU time of a thread's steps.
pub(crate) struct CpuMeter {
    /// The CPU time of the thread when it was last read.
    measured_at: Duration,
    /// The wall time of the steps since the CPU time was last read.
    since: Duration,
}

impl CpuMeter {
    /// Creates a meter for the calling thread.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { measured_at: clock.thread_cpu(), since: Duration::ZERO }
    }

    /// Returns the CPU time of a step that has just ended and took `time` of wall time. The result
    /// differs from the true time by less than [`UNMETERED`]. It may be too low after several short
    /// steps: their wall time is subtracted, although their CPU time may be less.
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

/// The class of shards that a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueClass {
    /// The shards whose steps are cheap.
    Quick = 0,
    /// All other shards, and those whose cost is not known yet.
    Slow = 1,
}

#[derive(Default)]
pub(crate) struct RunQueues {
    queues: Mutex<QueueState>,
    /// For each class, the signal that a shard waits for a turn.
    ready: [Condvar; 2],
}

#[derive(Default)]
struct QueueState {
    quick: WaitingShards,
    /// The shards whose cost is not known yet, or whose steps took much CPU time.
    slow: WaitingShards,
    /// The shards whose plugins used much fuel. These shards belong to the slow class too.
    heavy: WaitingShards,
    /// The number of turns of the slow class.
    slow_turns: u32,
    /// The shards that run again at a certain time. They are few, so they are not sorted.
    delayed: Vec<(Duration, Arc<ShardHandle>)>,
    /// The shards whose only new events are of types to which they do not subscribe. All of them
    /// wait for the same time, so the first in the queue is due first.
    lazy: VecDeque<(Duration, Arc<ShardHandle>)>,
    /// The shards that must make their commits durable, sorted by time and by a running number.
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
    /// Wakes `handle`, so that it runs soon.
    pub(crate) fn wake(&self, handle: &Arc<ShardHandle>) {
        if mark_runnable(handle) {
            self.push(handle.clone());
        }
    }

    /// Wakes `handle`, so that it runs within [`LAZY`]. It runs once for all events that arrive
    /// until then.
    pub(crate) fn wake_lazily(&self, handle: &Arc<ShardHandle>, now: Duration) {
        if handle.wakes.lazy.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queues = self.queues.lock();
        queues.lazy.push_back((now + LAZY, handle.clone()));
        if queues.lazy.len() == 1 {
            // The threads of the quick class are never busy for long, so they also wait for shards
            // that become due.
            self.ready[QueueClass::Quick as usize].notify_one();
        }
    }

    /// Queues a run of `handle` at the time `due`, in which the shard makes its commits durable.
    /// Does nothing if such a run is already queued.
    pub(crate) fn wake_to_sync(&self, handle: &Arc<ShardHandle>, due: Duration) {
        if handle.wakes.sync.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queues = self.queues.lock();
        queues.sync_number += 1;
        let key = (due, queues.sync_number);
        queues.syncs.insert(key, handle.clone());
        if queues.syncs.first_key_value().is_some_and(|(first, _)| *first == key) {
            // The threads of the quick class wait for this time, because they are never busy for
            // long.
            self.ready[QueueClass::Quick as usize].notify_one();
        }
    }

    /// Waits until a shard of the class can run, and returns it. Returns `None` once the queues are
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

    /// Returns the next shard of either class that waits for a turn; `None` if none waits.
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

    /// Puts a shard back into the queues after its step.
    pub(crate) fn done(
        &self,
        handle: Arc<ShardHandle>,
        turn: NextTurn,
        now: Duration,
        took: &StepCost,
    ) {
        // No other thread changes `slow` while the shard is running.
        let slow = quick_after(handle.slow.load(Ordering::Acquire), took);
        handle.slow.store(slow, Ordering::Release);
        if turn == NextTurn::Again {
            handle.run.store(QUEUED, Ordering::Release);
            return self.push(handle);
        }
        let rests = handle.run.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        match turn {
            // After a fault the shard waits for the whole time, even if there are new events.
            NextTurn::After(wait) => {
                handle.run.store(QUEUED, Ordering::Release);
                self.queues.lock().delayed.push((now + wait, handle));
                // The threads of the quick class are never busy for long, so they also wait for
                // shards that become due.
                self.ready[QueueClass::Quick as usize].notify_one();
            }
            _ if rests.is_err() => {
                handle.run.store(QUEUED, Ordering::Release);
                self.push(handle);
            }
            _ => {}
        }
    }

    /// Closes the queues: they return no more shards, and all waiting threads are woken.
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

    /// Queues the shards whose time has come. Returns how long the next of the waiting shards still
    /// has to wait.
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

/// Marks `handle` as woken. Returns whether the caller must put it into a queue.
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

/// Returns the next shard from the first of two queues, or from the second if the first is empty.
/// In one turn of every [`LAST_EVERY`], it tries the second queue first.
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

/// Returns how many more cheap calls a shard needs after a step before it belongs to the quick
/// class.
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
    fn quick_threads_never_run_shards_that_use_much_fuel() {
        let pool = RunQueues::default();
        let next = |class| {
            let queues = &mut *pool.queues.lock();
            queues.pop(class).map(|handle| handle.id.projection.clone())
        };
        let endless = ["a", "b", "c", "d", "e", "f"].map(handle);
        // The steps of these shards use so much fuel that they end before their CPU time reaches
        // the limit of a quick step.
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

    /// A clock whose CPU time the test sets.
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
        // After one expensive step, the shard stays slow for a while.
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
    fn in_the_slow_class_shards_that_use_much_fuel_come_last() {
        let pool = RunQueues::default();
        let endless = ["a", "b", "c", "d", "e", "f"].map(handle);
        endless.iter().for_each(|handle| ran(&pool, handle, &ENDLESS));
        endless.iter().for_each(|handle| pool.wake(handle));
        for number in 0..100 {
            // `other` is like a new shard, or like a shard that has caused much work of the host.
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
    fn a_delayed_shard_comes_back_in_its_class() {
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
