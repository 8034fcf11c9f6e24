//! Runs an experiment, which consists of cases with consecutive seeds. It ends after the planned
//! number of cases, after the planned time, or after too many failures.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;

/// The number of failures after which an experiment ends, because the first failures are enough.
const FAILURES_MAX: usize = 5;

/// A claim about Lantern, and the experiment that tests it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The number of the invariant in `docs/proof.md` to which the claim belongs.
    pub invariant: u32,
    /// The experiment's name on the command line, such as `power-loss`.
    pub name: &'static str,
    /// The claim in one sentence.
    pub holds: &'static str,
    /// The number of cases in each kind of run, and the name of a case.
    pub counts: Counts,
    /// The experiment. It reports its cases to [`Run`]. If it returns an error, it could not run,
    /// which also counts as a failure of the claim.
    pub experiment: fn(&mut Run<'_>) -> Result<()>,
}

/// How many cases an experiment runs.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// The number of cases in CI.
    pub ci: u64,
    /// The number of cases in the longer run.
    pub longer: u64,
    /// The name of a case, in the plural, such as `images`.
    pub of: &'static str,
}

/// How many cases to run, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of cases to run.
    pub cases: u64,
    /// The seed of the first case. Each further case takes the next number.
    pub seed: u64,
    /// The time at which the experiment stops, even if cases are left.
    pub deadline: Option<Instant>,
}

/// The result of an experiment.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// The number of cases that were tried.
    pub cases: u64,
    /// The cases that failed.
    pub failures: Vec<Failure>,
    /// Other counts and measurements. Their names contain the unit.
    pub figures: BTreeMap<String, f64>,
    /// How long the experiment took, in seconds.
    pub seconds: f64,
}

/// A case that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The seed of the failed case.
    pub seed: u64,
    /// A description of the failure.
    pub what: String,
}

/// A running experiment, which counts its cases and failures.
#[derive(Debug)]
pub struct Run<'a> {
    plan: Plan,
    progress: &'a ProgressBar,
    outcome: Outcome,
    started: Instant,
    failures_max: usize,
    quiet: bool,
}

impl Claim {
    /// Runs the experiment of a claim.
    #[must_use]
    pub fn try_out(&self, plan: Plan, progress: &ProgressBar) -> Outcome {
        progress.set_length(plan.cases);
        let mut run = Run {
            plan,
            progress,
            outcome: Outcome::default(),
            started: Instant::now(),
            failures_max: FAILURES_MAX,
            quiet: false,
        };
        let ended = catch_unwind(AssertUnwindSafe(|| (self.experiment)(&mut run)));
        match ended {
            Ok(Ok(())) => (),
            Ok(Err(error)) => run.fail(plan.seed, format!("{error:#}")),
            Err(panic) => run.fail(plan.seed, message(&*panic)),
        }
        if run.outcome.cases == 0 && run.outcome.failures.is_empty() {
            run.fail(plan.seed, "nothing was tried".into());
        }
        run.outcome.seconds = run.started.elapsed().as_secs_f64();
        run.outcome
    }
}

impl Run<'_> {
    /// Runs an experiment that is expected to fail, up to its first failure, without
    /// reporting it.
    pub fn until_failure(
        plan: Plan,
        progress: &ProgressBar,
        experiment: impl FnOnce(&mut Run<'_>),
    ) -> Outcome {
        let started = Instant::now();
        let outcome = Outcome::default();
        let mut run = Run { plan, progress, outcome, started, failures_max: 1, quiet: true };
        experiment(&mut run);
        run.outcome.seconds = started.elapsed().as_secs_f64();
        run.outcome
    }

    /// Returns the number of cases to run.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.plan.cases
    }

    /// Returns the number of cases that were run so far.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.outcome.cases
    }

    /// Runs one case after the other, each with its own seed. An error or a panic is
    /// a failure of the claim.
    pub fn cases(&mut self, mut one: impl FnMut(&mut Self, u64) -> Result<()>) {
        while self.goes_on() {
            let seed = self.plan.seed.wrapping_add(self.outcome.cases);
            let ended = catch_unwind(AssertUnwindSafe(|| one(self, seed)));
            match ended {
                Ok(Ok(())) => (),
                Ok(Err(error)) => self.fail(seed, format!("{error:#}")),
                Err(panic) => self.fail(seed, message(&*panic)),
            }
            self.count(1);
        }
    }

    /// Returns whether more cases are left.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.outcome.cases < self.plan.cases
            && self.outcome.failures.len() < self.failures_max
            && self.plan.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Adds cases that [`Run::cases`] did not count.
    pub fn count(&mut self, cases: u64) {
        self.outcome.cases += cases;
        self.progress.set_position(self.outcome.cases);
    }

    /// Reports a failed case.
    pub fn fail(&mut self, seed: u64, what: String) {
        if !self.quiet {
            self.progress.suspend(|| eprintln!("seed {seed}: {what}"));
        }
        self.outcome.failures.push(Failure { seed, what });
    }

    /// Adds `much` to a figure of the outcome.
    pub fn add(&mut self, name: &str, much: f64) {
        *self.outcome.figures.entry(name.into()).or_default() += much;
    }

    /// Keeps the larger of `much` and the previous value of a figure.
    pub fn most(&mut self, name: &str, much: f64) {
        let held = self.outcome.figures.entry(name.into()).or_insert(much);
        *held = held.max(much);
    }

    /// Returns the number of cases to run.
    #[must_use]
    pub fn requested_cases(&self) -> u64 {
        self.plan.cases
    }

    /// Returns the seed of the first case.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// Returns the time since the run began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Extracts the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without a message".into())
}
