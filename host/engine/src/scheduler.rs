//! Implements the threads that run the steps of shards, with their run queues.

use std::sync::Arc;
use std::thread::JoinHandle;

use lantern_core::Clock;
use parking_lot::Mutex;

use crate::commit::CommitThreads;
use crate::run_queues::{CpuMeter, NextTurn, QueueClass, RunQueues, StepCost};
use crate::shard_handle::ShardHandle;

/// A function that runs one step of a shard. Its result tells when the shard runs again.
pub(crate) type RunTurn = Arc<dyn Fn(&Arc<ShardHandle>) -> NextTurn + Send + Sync>;

/// The run queues and their threads.
#[derive(Default)]
pub(crate) struct Scheduler {
    pub(crate) queues: Arc<RunQueues>,
    pub(crate) committers: Arc<CommitThreads>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Scheduler {
    /// Starts `threads` threads for each class of shards. Each thread of the slow class calls
    /// `give_way` first.
    pub(crate) fn start(
        &self,
        threads: usize,
        clock: &Arc<dyn Clock>,
        turn: &RunTurn,
        give_way: impl Fn() + Clone + Send + 'static,
    ) {
        self.committers.start(threads);
        for number in 0..threads {
            self.spawn(QueueClass::Quick, format!("fold-{number}"), clock, turn, || ());
            let name = format!("fold-slow-{number}");
            self.spawn(QueueClass::Slow, name, clock, turn, give_way.clone());
        }
    }

    fn spawn(
        &self,
        class: QueueClass,
        name: String,
        clock: &Arc<dyn Clock>,
        turn: &RunTurn,
        first: impl FnOnce() + Send + 'static,
    ) {
        let (queues, clock, turn) = (self.queues.clone(), clock.clone(), turn.clone());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                first();
                let mut meter = CpuMeter::new(&*clock);
                while let Some(handle) = queues.next(class, || clock.monotonic()) {
                    take_turn(&queues, &*clock, &turn, handle, &mut meter);
                }
            })
            .expect("threads can be spawned at start");
        self.threads.lock().push(thread);
    }

    /// Runs one step of a shard that waits for a turn, on the caller's thread. Returns `false` if
    /// no shard waits.
    pub(crate) fn turn_once(&self, clock: &dyn Clock, turn: &RunTurn) -> bool {
        let Some(handle) = self.queues.try_next(clock.monotonic()) else {
            return false;
        };
        take_turn(&self.queues, clock, turn, handle, &mut CpuMeter::new(clock));
        true
    }

    /// Ends each thread after its current step.
    pub(crate) fn stop(&self) {
        self.queues.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a folding thread panicked");
            }
        }
    }
}

fn take_turn(
    queues: &RunQueues,
    clock: &dyn Clock,
    turn: &RunTurn,
    handle: Arc<ShardHandle>,
    meter: &mut CpuMeter,
) {
    let (began, before) = (clock.monotonic(), handle.snapshot.lock().usage.fuel);
    let turn = turn(&handle);
    let now = clock.monotonic();
    let cpu = meter.step(clock, now.saturating_sub(began));
    let after = handle.snapshot.lock().usage.fuel;
    // If the shard was opened again, its fuel is counted from 0 again.
    let fuel = after.checked_sub(before).unwrap_or(after);
    queues.done(handle, turn, now, &StepCost { cpu, fuel });
}
