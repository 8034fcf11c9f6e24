//! The threads that run shards' steps, and the pool that hands them out.

use std::sync::Arc;
use std::thread::JoinHandle;

use lantern_core::Clock;
use parking_lot::Mutex;

use crate::commit::Committers;
use crate::pool::{CpuMeter, Lane, Pool, Took, Turn};
use crate::slot::Slot;

/// Runs one step of a shard; the result tells when it runs again.
pub(crate) type RunTurn = Arc<dyn Fn(&Arc<Slot>) -> Turn + Send + Sync>;

/// The pool and its threads.
#[derive(Default)]
pub(crate) struct Scheduler {
    pub(crate) pool: Arc<Pool>,
    pub(crate) committers: Arc<Committers>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Scheduler {
    /// Starts `threads` threads for each lane. Each thread of the slow lane calls
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
            self.spawn(Lane::Quick, format!("fold-{number}"), clock, turn, || ());
            let name = format!("fold-slow-{number}");
            self.spawn(Lane::Slow, name, clock, turn, give_way.clone());
        }
    }

    fn spawn(
        &self,
        lane: Lane,
        name: String,
        clock: &Arc<dyn Clock>,
        turn: &RunTurn,
        first: impl FnOnce() + Send + 'static,
    ) {
        let (pool, clock, turn) = (self.pool.clone(), clock.clone(), turn.clone());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                first();
                let mut meter = CpuMeter::new(&*clock);
                while let Some(slot) = pool.next(lane, || clock.monotonic()) {
                    take_turn(&pool, &*clock, &turn, slot, &mut meter);
                }
            })
            .expect("threads can be spawned at start");
        self.threads.lock().push(thread);
    }

    /// Runs one step of one shard that waits for a turn, on the caller's thread;
    /// `false` if none does.
    pub(crate) fn turn_once(&self, clock: &dyn Clock, turn: &RunTurn) -> bool {
        let Some(slot) = self.pool.try_next(clock.monotonic()) else {
            return false;
        };
        take_turn(&self.pool, clock, turn, slot, &mut CpuMeter::new(clock));
        true
    }

    /// Ends the threads once their present steps have ended.
    pub(crate) fn stop(&self) {
        self.pool.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a folding thread had panicked");
            }
        }
    }
}

fn take_turn(
    pool: &Pool,
    clock: &dyn Clock,
    turn: &RunTurn,
    slot: Arc<Slot>,
    meter: &mut CpuMeter,
) {
    let (began, before) = (clock.monotonic(), slot.seen.lock().usage.fuel);
    let turn = turn(&slot);
    let now = clock.monotonic();
    let cpu = meter.step(clock, now.saturating_sub(began));
    let after = slot.seen.lock().usage.fuel;
    // A shard that was opened again counts from 0.
    let fuel = after.checked_sub(before).unwrap_or(after);
    pool.done(slot, turn, now, &Took { cpu, fuel });
}
