//! Tests invariant 5 of `docs/proof.md`: state is the fold of the log up to the next offset.
//!
//! The engine runs on one thread, and all its ports are fakes. A random history consists of events,
//! faults, restarts, versions, and an operator's retries and drops. After each step everything that
//! the engine committed, published and emitted is compared with the model.

mod cases;
mod emitted;
mod history;
mod limited;
mod world;

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

pub use history::{History, HistoryAction, KINDS, Setting};
pub use world::{Planted, World};

use crate::{Claim, Counts, Run};

/// The maximum number of steps in a history.
const STEPS_MAX: usize = 50;
/// The maximum number of attempts to make a failing history smaller.
const SHRINKS_MAX: u32 = 3_000;

/// The claim that this experiment tests: invariant 5.
pub const CLAIM: Claim = Claim {
    invariant: 5,
    name: "fold",
    holds: "a shard's state is the fold of the log up to its next offset, whatever happens to the host",
    counts: Counts { ci: 500, longer: 50_000, of: "histories" },
    experiment: |run| {
        for (name, setting, steps) in cases::all() {
            if let Err(error) = replay(&setting, &steps, Planted::default()) {
                run.fail(0, format!("case `{name}`: {error:#}"));
            }
        }
        histories(run, Planted::default());
        Ok(())
    },
};

/// Tries random histories on an engine with the bugs in `planted`.
pub fn histories(run: &mut Run<'_>, planted: Planted) {
    run.cases(|run, seed| {
        let (steps, outcome) = random(seed, planted);
        run.add("steps", f64::from(steps));
        outcome
    });
}

/// Plays the random history of `seed`. If it fails, returns the failure of the smallest history
/// that still fails.
fn random(seed: u64, planted: Planted) -> (u32, Result<()>) {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = History::sequential_strategy(1..STEPS_MAX);
    let mut taken = 0;
    let counted = &std::cell::Cell::new(0);
    let outcome = runner.run(&strategy, |(setting, steps, seen)| {
        let mut world = World::new(&setting, planted);
        for step in &steps {
            if let Some(seen) = &seen {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            counted.set(counted.get() + 1);
            world.step(step).map_err(|e| TestCaseError::fail(format!("{step:?}: {e:#}")))?;
        }
        world.end().map_err(|e| TestCaseError::fail(format!("at the end: {e:#}")))
    });
    taken += counted.get();
    match outcome {
        Ok(()) => (taken, Ok(())),
        Err(TestError::Fail(reason, (setting, steps, _))) => {
            (taken, Err(anyhow::anyhow!("{reason}; smallest: {setting:?} {steps:?}")))
        }
        Err(TestError::Abort(reason)) => (taken, Err(anyhow::anyhow!("{reason}"))),
    }
}

/// Plays one history.
///
/// # Errors
/// The error describes what is wrong after the first step that fails.
pub fn replay(setting: &Setting, steps: &[HistoryAction], planted: Planted) -> Result<()> {
    let mut world = World::new(setting, planted);
    for (number, step) in steps.iter().enumerate() {
        if let Err(error) = world.step(step) {
            bail!("step {number}, {step:?}: {error:#}");
        }
    }
    world.end()
}
