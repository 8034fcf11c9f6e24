//! Folds the log of one shard again, in a separate state.
//!
//! A shard's state is a function of the log and of the retries and drops of parked events. So this
//! fold repeats the retries and drops that the live state has stored, at the same offsets.
//!
//! The live shard continues meanwhile, and is only read. The fold follows the committed offset of
//! the live shard. Once it is close to that offset, it takes a snapshot of the live state and folds
//! up to the snapshot's next offset. It takes the snapshot that late because a snapshot keeps old
//! pages of the state file in use.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{
    DecisionRecord, Log, LogError, Offset, Plugin, ReadStore, ShardMeta, ShardStore, Space,
    StoreError,
};

use crate::determinism_check::{DROP_EVERY, VARIED_EVENTS_MAX, next_pattern, varied_batch};
use crate::row_watch::RowWatch;
use crate::runner::LogSink;
use crate::shard::{Shard, ShardParts, StepLimits, StepOutcome};
use crate::shard_handle::ShardHandle;
use crate::stop_reason::StopReason;
use crate::{Engine, Verdict};

/// The fold takes a snapshot once it is this close to the live shard, in events.
const CLOSE_EVENTS: u64 = 4 * VARIED_EVENTS_MAX as u64;
/// How many times the fold tries to get close to the live shard, which moves ahead of it.
const ROUNDS_MAX: u32 = 64;
/// How many faults of the host at one offset the fold tolerates. It waits after each of them.
const FAULTS_MAX: u32 = 20;
/// How many times the fold waits for a pending read of the log, for [`WAIT`] each time.
const WAITS_MAX: u32 = 60;
const WAIT: Duration = Duration::from_secs(1);

/// The most likely cause of a difference.
const FIRST_SUSPECT: &str = "the first suspect is a plugin that is not deterministic: state outside of its tables, randomness or map order; else the log or the state is damaged (`lantern doctor`). A rebuild alone does not cure a plugin";

/// Why a fold ended early.
pub(crate) enum EndReason {
    Verdict(Verdict, String),
    Stopped,
}

impl EndReason {
    /// Returns the sentence for a client. `stopped` is the reason for which the caller has stopped
    /// the fold.
    pub(crate) fn reason(self, stopped: Option<String>) -> String {
        match self {
            Self::Verdict(_, reason) => reason,
            Self::Stopped => stopped.unwrap_or_default(),
        }
    }
}

impl From<StoreError> for EndReason {
    fn from(error: StoreError) -> Self {
        Self::Verdict(Verdict::Failed, error.to_string())
    }
}

/// One step of a fold.
pub(crate) struct FoldStep {
    /// Offsets that the step has folded.
    pub(crate) events: u64,
    /// The next offset after the step.
    pub(crate) next: u64,
    /// The offset up to which the fold goes.
    pub(crate) target: u64,
    /// Whether the plugin's instance was dropped before the step.
    pub(crate) dropped: bool,
}

/// Called after each step; `false` ends the fold.
pub(crate) type FoldPace<'a> = &'a mut dyn FnMut(&FoldStep) -> bool;

/// Another fold of one shard.
pub(crate) struct ReferenceFold {
    pub(crate) shard: Shard,
    /// How many retries and drops were repeated.
    pub(crate) decisions: u64,
    log: Arc<dyn Log>,
    handle: Arc<ShardHandle>,
    faults: u32,
    /// How many reads of the log in a row were pending.
    waits: u32,
    /// Determines batch sizes and dropped instances; the same in every run.
    pattern: u64,
    batch_events_max: usize,
    /// Identifies the engine's limits; see [`ShardMeta::limits`].
    limits: u64,
}

impl ReferenceFold {
    /// Opens a fold of the shard of `handle` in the empty state `scratch`. The limits that could
    /// halt the fold are off, because an operator may have resumed the live shard after such a
    /// halt. If there is a `watch`, it records the changes of a row.
    pub(crate) fn open(
        engine: &Engine,
        handle: &Arc<ShardHandle>,
        plugin: &Arc<dyn Plugin>,
        scratch: &Arc<dyn ShardStore>,
        watch: Option<RowWatch>,
    ) -> Result<Self, EndReason> {
        let mut config = (*engine.config).clone();
        config.parked_max = u64::MAX;
        config.parked_in_a_row_max = u64::MAX;
        config.state_bytes_max = u64::MAX;
        let logs: LogSink = Arc::new(|_, _, _| ());
        let parts = ShardParts {
            id: handle.id.clone(),
            plugin: Arc::clone(plugin),
            store: Arc::clone(scratch),
            config: Arc::new(config),
            logs,
            committers: None,
            recovers: false,
        };
        let mut shard = Shard::open(parts).map_err(|stop| {
            let (StopReason::Fault(reason) | StopReason::Halt(reason)) = stop;
            EndReason::Verdict(Verdict::Failed, reason)
        })?;
        shard.state.outbox.retained = Some(VecDeque::new());
        shard.state.watch = watch.map(Box::new);
        Ok(Self {
            shard,
            decisions: 0,
            log: Arc::clone(&engine.ports.log),
            handle: Arc::clone(handle),
            faults: 0,
            waits: 0,
            pattern: handle.id.partition.0.into(),
            batch_events_max: engine.config.batch_events_max,
            limits: engine.config.limits(),
        })
    }

    /// Folds up to the committed offset of the live shard, and returns a snapshot of its
    /// state there.
    pub(crate) fn follow(
        &mut self,
        live: &Arc<dyn ShardStore>,
        pace: FoldPace<'_>,
    ) -> Result<Box<dyn ReadStore>, EndReason> {
        let start = self.log_start()?;
        if start.0 > 0 && meta_of(&**live)?.next.0 > 0 {
            return Err(trimmed_error(start));
        }
        for round in 0.. {
            let meta = meta_of(&**live)?;
            let near = meta.next.0.saturating_sub(self.shard.state.meta.next.0) <= CLOSE_EVENTS;
            if near || round >= ROUNDS_MAX {
                break;
            }
            self.fold_to(meta.next, &**live, pace)?;
        }
        let snapshot = live.snapshot()?;
        let meta = meta_of(&*snapshot)?;
        self.fold_to(meta.next, &*snapshot, pace)?;
        if meta.decisions > self.decisions {
            let reason = match self.decisions {
                retained @ DecisionRecord::KEPT_MAX.. => {
                    format!(
                        "of {} retries and drops of parked events, {retained} are kept: rebuild the projection to verify it again",
                        meta.decisions
                    )
                }
                _ => "a record of a retry or drop of parked events is missing".into(),
            };
            return Err(EndReason::Verdict(Verdict::Unverifiable, reason));
        }
        Ok(snapshot)
    }

    /// Folds up to `target`, and repeats the retries and drops that `live` has stored for offsets
    /// up to `target`.
    fn fold_to(
        &mut self,
        target: Offset,
        live: &dyn ReadStore,
        pace: FoldPace<'_>,
    ) -> Result<(), EndReason> {
        loop {
            let key = DecisionRecord::key(self.decisions);
            let decision = match live.get(Space::Meta, &key)? {
                Some(bytes) => Some(DecisionRecord::decode(&bytes).ok_or_else(|| {
                    let what = "the state's record of a retry or drop of parked events is damaged";
                    EndReason::Verdict(Verdict::Differs, what.into())
                })?),
                None => None,
            };
            let decision = decision.filter(|decision| decision.next <= target);
            let until = decision.as_ref().map_or(target, |decision| decision.next);
            self.step_to(until, target, pace)?;
            let Some(decision) = decision else {
                return Ok(());
            };
            let unlike = || {
                let reason = format!(
                    "a retry or drop of parked events at offset {} cannot be repeated: the projection was in the middle of a step then, or had other limits",
                    decision.next
                );
                EndReason::Verdict(Verdict::Unverifiable, reason)
            };
            let meta = &self.shard.state.meta;
            if (meta.next, meta.watermark) != (decision.next, decision.watermark) {
                return Err(unlike());
            }
            match self.shard.decider().replay_decision(&decision) {
                Ok(true) => self.decisions += 1,
                Ok(false) => return Err(unlike()),
                Err(StopReason::Fault(reason) | StopReason::Halt(reason)) => {
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
            }
        }
    }

    fn step_to(
        &mut self,
        until: Offset,
        target: Offset,
        pace: FoldPace<'_>,
    ) -> Result<(), EndReason> {
        while self.shard.state.meta.next < until {
            let (size, dropped) = self.next_batch();
            let limits = StepLimits {
                now: Duration::ZERO,
                before: Some(until),
                batch_events: Some(size.min(self.batch_events_max)),
            };
            if dropped {
                self.shard.runner.drop_instance();
            }
            let before = self.shard.state.meta.next;
            let outcome = self.shard.step(&*self.log, &limits);
            let next = self.shard.state.meta.next;
            let events = next.0 - before.0;
            let goes_on = pace(&FoldStep { events, next: next.0, target: target.0, dropped });
            if self.handle.deleted.load(Ordering::Acquire) {
                let reason = "the version was rebuilt or deleted meanwhile".into();
                return Err(EndReason::Verdict(Verdict::Unverifiable, reason));
            }
            if !goes_on {
                return Err(EndReason::Stopped);
            }
            match outcome {
                Ok(StepOutcome::Idle) if next < until => {
                    let reason = format!(
                        "the state has folded up to offset {until}, and the log ends at {next}: it has lost events"
                    );
                    return Err(EndReason::Verdict(Verdict::Differs, reason));
                }
                Ok(StepOutcome::Wait) if self.waits < WAITS_MAX => {
                    self.waits += 1;
                    self.log.wait(self.handle.id.partition, next, WAIT);
                }
                Ok(StepOutcome::Wait) => {
                    let reason = format!("the log returned no events from offset {next} on");
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
                Ok(_) => (self.faults, self.waits) = (0, 0),
                Err(StopReason::Fault(_)) if self.faults < FAULTS_MAX => self.faults += 1,
                Err(StopReason::Fault(reason)) => {
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
                Err(StopReason::Halt(reason)) => return Err(self.halted(reason)),
            }
        }
        Ok(())
    }

    /// Returns the maximum number of events in the next batch, and whether the instance is dropped
    /// before that batch.
    fn next_batch(&mut self) -> (usize, bool) {
        if let Some(watch) = &mut self.shard.state.watch {
            return (watch.next_batch(), false);
        }
        // Vary batch sizes and drop instances, as the determinism check of an upload does.
        // A plugin that keeps state in its memory, or depends on where batches end, gives a
        // different result.
        self.pattern = next_pattern(self.pattern);
        (varied_batch(self.pattern), self.pattern.is_multiple_of(DROP_EVERY))
    }

    /// Returns the reason to end if this fold is halted but the live shard was not.
    fn halted(&self, reason: String) -> EndReason {
        match self.log_start() {
            Err(ended) => ended,
            Ok(start) if start > self.shard.state.meta.next => trimmed_error(start),
            Ok(_) => {
                let next = self.shard.state.meta.next;
                let verdict = self.verdict_of(None);
                let reason = format!("the second fold halted at offset {next}: {reason}");
                EndReason::Verdict(verdict.0, verdict.1.unwrap_or(reason))
            }
        }
    }

    /// The verdict if the states differ: `differs`, or `unverifiable` if the difference has a known
    /// cause other than damage.
    pub(crate) fn verdict_of(&self, actual: Option<&ShardMeta>) -> (Verdict, Option<String>) {
        let live = self.handle.store.as_ref().and_then(|store| meta_of(&**store).ok());
        let actual = actual.or(live.as_ref());
        let snapshot = self.handle.snapshot.lock();
        match actual {
            Some(meta)
                if meta.limits_changed || (meta.limits != 0 && meta.limits != self.limits) =>
            {
                let reason = "it differs, but the limits in section `engine` were changed since it was folded, which can have the same effect: rebuild the projection to be sure";
                (Verdict::Unverifiable, Some(reason.into()))
            }
            Some(meta)
                if meta.watermark < self.shard.state.meta.watermark
                    && (snapshot.halted.is_some() || snapshot.fault.is_some()) =>
            {
                let reason = "the projection has fired only a part of its due timers: verify it again once it goes on";
                (Verdict::Unverifiable, Some(reason.into()))
            }
            Some(meta) if meta.decisions == 0 && meta.parked_total != meta.parked_now => {
                let reason = "parked events were retried or dropped before such decisions were kept: rebuild the projection to verify it";
                (Verdict::Unverifiable, Some(reason.into()))
            }
            _ => (Verdict::Differs, Some(FIRST_SUSPECT.into())),
        }
    }

    fn log_start(&self) -> Result<Offset, EndReason> {
        let bounds = self.log.bounds(self.handle.id.partition);
        let failed = |error: LogError| EndReason::Verdict(Verdict::Failed, error.to_string());
        Ok(bounds.map_err(failed)?.start)
    }
}

fn trimmed_error(start: Offset) -> EndReason {
    let reason = format!(
        "the log begins at offset {start}: retention has deleted events that the state was folded from"
    );
    EndReason::Verdict(Verdict::Unverifiable, reason)
}

pub(crate) fn meta_of(store: &dyn ReadStore) -> Result<ShardMeta, EndReason> {
    ShardMeta::decode(store.get(Space::Meta, ShardMeta::KEY)?.as_deref()).map_err(|error| {
        let reason = format!("the shard's own record is damaged: {error}");
        EndReason::Verdict(Verdict::Differs, reason)
    })
}
