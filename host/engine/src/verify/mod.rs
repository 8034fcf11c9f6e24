//! Folds the log again next to a live state, and compares the results.
//!
//! A shard's state is a function of the log and of the retries and drops of parked events,
//! and of nothing else. So another fold of the whole log, with the same decisions at the
//! same offsets, must give the same state. If the states differ, the state or the log is
//! damaged, or the plugin is not deterministic. If the log cannot be folded again (its
//! beginning is deleted, or limits have changed), the verdict is `unverifiable`, which is
//! neither `same` nor `differs`.
//!
//! The live shard continues meanwhile. The verification's fold follows the committed offset
//! of the live shard. When the fold is close to that offset, the verification takes a
//! snapshot of the live state and folds up to the snapshot's next offset. It takes the
//! snapshot no earlier, because snapshots keep old pages in use.

mod compare;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{
    DecisionRecord, Offset, Plugin, ReadStore, ShardMeta, ShardStore, Space, StoreError, VersionId,
};
use parking_lot::Mutex;

use crate::determinism_check::{DROP_EVERY, VARIED_EVENTS_MAX, next_pattern, varied_batch};
use crate::registry::VersionBuild;
use crate::shard::{Shard, ShardParts, StepLimits, StepOutcome};
use crate::shard_handle::ShardHandle;
use crate::stop_reason::StopReason;
use crate::{Engine, EngineError};

pub use status::{
    FieldDifference, Verdict, VerifiedShard, VerifiedTable, VerifyDifference, VerifyStatus,
};

/// The fold takes a snapshot once it is this close to the live shard, in events.
const CLOSE_EVENTS: u64 = 4 * VARIED_EVENTS_MAX as u64;
/// How many times the fold tries to get close to a shard that moves ahead of it.
const ROUNDS_MAX: u32 = 64;
/// How many faults of the host at one offset are waited out.
const FAULTS_MAX: u32 = 20;
/// How many times, and how long each time, the fold waits for a pending read of the log.
const WAITS_MAX: u32 = 60;
const WAIT: Duration = Duration::from_secs(1);
/// The share of folding in the progress, in percent; the rest is comparing.
const FOLDING_PERCENT: f64 = 90.0;

/// A verification that was started: [`Verification::run`] does the work.
pub struct Verification {
    engine: Arc<Engine>,
    build: Arc<VersionBuild>,
    projection: String,
    published_status: Arc<Mutex<Option<VerifyStatus>>>,
    status: VerifyStatus,
    began: Duration,
}

/// The most likely cause of a difference.
const FIRST_SUSPECT: &str = "the first suspect is a plugin that is not deterministic: state outside of its tables, randomness or map order; else the log or the state is damaged (`lantern doctor`). A rebuild alone does not cure a plugin";

/// Why a shard's comparison ended early.
enum EndReason {
    Verdict(Verdict, String),
    Stopped,
}

impl From<StoreError> for EndReason {
    fn from(error: StoreError) -> Self {
        Self::Verdict(Verdict::Failed, error.to_string())
    }
}

/// Called between steps; `false` ends the work.
type ContinueFn<'a> = &'a mut dyn FnMut(&VerifyStatus) -> bool;

impl Engine {
    /// Starts to verify a version (the active one if `None`), and shows the verification in
    /// the version's status. Only one may run at a time.
    ///
    /// # Errors
    /// [`EngineError::Verifying`], or the error for a projection or version that does not
    /// exist.
    pub fn verify(
        self: &Arc<Self>,
        projection: &str,
        version: Option<&VersionId>,
    ) -> Result<Verification, EngineError> {
        let build = self.chosen(projection, version)?;
        let published = {
            let projections = self.registry.read();
            let entry = projections.get(projection);
            let entry = entry.ok_or_else(|| EngineError::NoProjection(projection.into()))?;
            entry.verified.clone()
        };
        if self.verifying.swap(true, Ordering::AcqRel) {
            return Err(EngineError::Verifying);
        }
        let partitions = build.handles.iter().map(|handle| VerifiedShard {
            partition: handle.id.partition.0,
            ..VerifiedShard::default()
        });
        let status = VerifyStatus {
            version: build.version.id.0.clone(),
            started_us: self.ports.clock.wall().0,
            partitions: partitions.collect(),
            ..VerifyStatus::default()
        };
        *published.lock() = Some(status.clone());
        Ok(Verification {
            began: self.ports.clock.monotonic(),
            engine: Arc::clone(self),
            build,
            projection: projection.into(),
            published_status: published,
            status,
        })
    }
}

impl Verification {
    /// The projection.
    #[must_use]
    pub fn projection(&self) -> &str {
        &self.projection
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> &VerifyStatus {
        &self.status
    }

    /// Folds and compares every partition. `pace` is called between steps with the
    /// progress. It may block to slow the verification down, and ends it by returning
    /// `false`.
    #[must_use]
    pub fn run(mut self, pace: ContinueFn<'_>) -> VerifyStatus {
        match self.engine.plugin_of(&self.build) {
            Ok(plugin) => {
                for index in 0..self.build.handles.len() {
                    let ended = self.shard(index, &plugin, pace);
                    let shard = &mut self.status.partitions[index];
                    if let Err(ended) = ended {
                        let (verdict, reason) = match ended {
                            EndReason::Verdict(verdict, reason) => (verdict, reason),
                            EndReason::Stopped => (Verdict::Stopped, "it was ended".into()),
                        };
                        (shard.verdict, shard.reason) = (verdict, Some(reason));
                    }
                }
                self.status.set_overall_verdict();
            }
            Err(error) => {
                let reason = Some(error.to_string());
                (self.status.verdict, self.status.reason) = (Verdict::Failed, reason);
            }
        }
        self.status.percent = 100.0;
        self.publish_status();
        if matches!(self.status.verdict, Verdict::Same | Verdict::Differs) {
            self.engine.keep_verified(&self.projection, &self.status);
        }
        self.status.clone()
    }

    fn publish_status(&mut self) {
        let took = self.engine.ports.clock.monotonic().saturating_sub(self.began);
        self.status.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        *self.published_status.lock() = Some(self.status.clone());
    }

    fn shard(
        &mut self,
        index: usize,
        plugin: &Arc<dyn Plugin>,
        pace: ContinueFn<'_>,
    ) -> Result<(), EndReason> {
        let handle = Arc::clone(&self.build.handles[index]);
        let live = handle.store.clone().ok_or_else(|| {
            let reason = handle.snapshot.lock().halted.clone().unwrap_or_default();
            EndReason::Verdict(Verdict::Failed, reason)
        })?;
        let start = self.start(&handle)?;
        if start.0 > 0 && meta_of(&*live)?.next.0 > 0 {
            return Err(trimmed_error(start));
        }
        let scratch = self.engine.ports.stores.temporary()?;
        let shard = self.open(&handle, plugin, &scratch)?;
        let (pattern, handle) = (handle.id.partition.0.into(), &handle);
        let mut fold =
            ReferenceFold { shard, decisions: 0, faults: 0, waits: 0, pattern, index, handle };
        let snapshot = self.follow(&mut fold, &live, pace)?;
        let actual = meta_of(&*snapshot)?;
        fold.shard.commit(Duration::ZERO)?;
        self.status.partitions[index].next = actual.next.0;
        self.status.partitions[index].decisions = fold.decisions;
        self.compare(&fold, &*scratch, &*snapshot, &actual, pace)
    }

    /// Opens the shard of the verification's fold, without the limits that could halt it:
    /// an operator may have resumed the live shard after such a halt.
    fn open(
        &self,
        handle: &ShardHandle,
        plugin: &Arc<dyn Plugin>,
        scratch: &Arc<dyn ShardStore>,
    ) -> Result<Shard, EndReason> {
        let mut config = (*self.engine.config).clone();
        config.parked_max = u64::MAX;
        config.parked_in_a_row_max = u64::MAX;
        config.state_bytes_max = u64::MAX;
        let parts = ShardParts {
            id: handle.id.clone(),
            plugin: Arc::clone(plugin),
            store: Arc::clone(scratch),
            config: Arc::new(config),
            logs: Arc::new(|_, _, _| ()),
            committers: None,
            recovers: false,
        };
        let mut shard = Shard::open(parts).map_err(|stop| {
            let (StopReason::Fault(reason) | StopReason::Halt(reason)) = stop;
            EndReason::Verdict(Verdict::Failed, reason)
        })?;
        shard.state.outbox.retained = Some(VecDeque::new());
        Ok(shard)
    }

    /// Folds up to the committed offset of the live shard, and returns a snapshot of its
    /// state there.
    fn follow(
        &mut self,
        fold: &mut ReferenceFold<'_>,
        live: &Arc<dyn ShardStore>,
        pace: ContinueFn<'_>,
    ) -> Result<Box<dyn ReadStore>, EndReason> {
        for round in 0.. {
            let meta = meta_of(&**live)?;
            let near = meta.next.0.saturating_sub(fold.shard.state.meta.next.0) <= CLOSE_EVENTS;
            if near || round >= ROUNDS_MAX {
                break;
            }
            self.fold_to(fold, meta.next, &**live, pace)?;
        }
        let snapshot = live.snapshot()?;
        let meta = meta_of(&*snapshot)?;
        self.fold_to(fold, meta.next, &*snapshot, pace)?;
        if meta.decisions > fold.decisions {
            let reason = match fold.decisions {
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

    /// Folds up to `target`, and repeats the decisions that `live` has stored for offsets
    /// up to `target`.
    fn fold_to(
        &mut self,
        fold: &mut ReferenceFold<'_>,
        target: Offset,
        live: &dyn ReadStore,
        pace: ContinueFn<'_>,
    ) -> Result<(), EndReason> {
        loop {
            let key = DecisionRecord::key(fold.decisions);
            let decision = match live.get(Space::Meta, &key)? {
                Some(bytes) => Some(DecisionRecord::decode(&bytes).ok_or_else(|| {
                    let what = "the state's record of a retry or drop of parked events is damaged";
                    EndReason::Verdict(Verdict::Differs, what.into())
                })?),
                None => None,
            };
            let decision = decision.filter(|decision| decision.next <= target);
            let until = decision.as_ref().map_or(target, |decision| decision.next);
            self.step_to(fold, until, target, pace)?;
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
            let meta = &fold.shard.state.meta;
            if (meta.next, meta.watermark) != (decision.next, decision.watermark) {
                return Err(unlike());
            }
            match fold.shard.decider().replay_decision(&decision) {
                Ok(true) => fold.decisions += 1,
                Ok(false) => return Err(unlike()),
                Err(StopReason::Fault(reason) | StopReason::Halt(reason)) => {
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
            }
        }
    }

    fn step_to(
        &mut self,
        fold: &mut ReferenceFold<'_>,
        until: Offset,
        target: Offset,
        pace: ContinueFn<'_>,
    ) -> Result<(), EndReason> {
        while fold.shard.state.meta.next < until {
            // Vary batch sizes and drop instances, as the determinism check of an upload
            // does. A plugin that keeps state in its memory, or depends on where batches
            // end, gives a different result.
            fold.pattern = next_pattern(fold.pattern);
            let size = varied_batch(fold.pattern);
            let limits = StepLimits {
                now: Duration::ZERO,
                before: Some(until),
                batch_events: Some(size.min(self.engine.config.batch_events_max)),
            };
            self.status.steps += 1;
            if fold.pattern.is_multiple_of(DROP_EVERY) {
                fold.shard.runner.drop_instance();
                self.status.instances_dropped += 1;
            }
            let before = fold.shard.state.meta.next;
            let log = Arc::clone(&self.engine.ports.log);
            let outcome = fold.shard.step(&*log, &limits);
            let next = fold.shard.state.meta.next;
            self.status.events += next.0 - before.0;
            self.record_progress(fold.index, next.0, target.0);
            if fold.handle.deleted.load(Ordering::Acquire) {
                let reason = "the version was rebuilt or deleted meanwhile".into();
                return Err(EndReason::Verdict(Verdict::Unverifiable, reason));
            }
            if !pace(&self.status) {
                return Err(EndReason::Stopped);
            }
            match outcome {
                Ok(StepOutcome::Idle) if next < until => {
                    let reason = format!(
                        "the state has folded up to offset {until}, and the log ends at {next}: it has lost events"
                    );
                    return Err(EndReason::Verdict(Verdict::Differs, reason));
                }
                Ok(StepOutcome::Wait) if fold.waits < WAITS_MAX => {
                    fold.waits += 1;
                    log.wait(fold.handle.id.partition, next, WAIT);
                }
                Ok(StepOutcome::Wait) => {
                    let reason = format!("the log returned no events from offset {next} on");
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
                Ok(_) => (fold.faults, fold.waits) = (0, 0),
                Err(StopReason::Fault(_)) if fold.faults < FAULTS_MAX => fold.faults += 1,
                Err(StopReason::Fault(reason)) => {
                    return Err(EndReason::Verdict(Verdict::Failed, reason));
                }
                Err(StopReason::Halt(reason)) => return Err(self.halted(fold, reason)),
            }
        }
        Ok(())
    }

    /// The reason to end if the second fold is halted and the live shard was not.
    fn halted(&self, fold: &ReferenceFold<'_>, reason: String) -> EndReason {
        match self.start(fold.handle) {
            Err(ended) => ended,
            Ok(start) if start > fold.shard.state.meta.next => trimmed_error(start),
            Ok(_) => {
                let next = fold.shard.state.meta.next;
                let verdict = self.verdict_of(fold, None);
                let reason = format!("the second fold halted at offset {next}: {reason}");
                EndReason::Verdict(verdict.0, verdict.1.unwrap_or(reason))
            }
        }
    }

    fn compare(
        &mut self,
        fold: &ReferenceFold<'_>,
        scratch: &dyn ReadStore,
        snapshot: &dyn ReadStore,
        actual: &ShardMeta,
        pace: ContinueFn<'_>,
    ) -> Result<(), EndReason> {
        let manifest = Arc::clone(&self.build.manifest);
        let before = self.status.rows;
        let status = &mut self.status;
        let mut paced = |rows| {
            status.rows += rows;
            pace(status)
        };
        let compared = compare::compare(&manifest, scratch, snapshot, &mut paced)?;
        let mut compared = compared.ok_or(EndReason::Stopped)?;
        if compared.first.is_none() {
            let none = VecDeque::new();
            compared.first = compare::outbox(
                snapshot,
                fold.shard.state.outbox.retained.as_ref().unwrap_or(&none),
            )?;
            compared.differences += u64::from(compared.first.is_some());
        }
        let (verdict, reason) = match &compared.first {
            None => (Verdict::Same, None),
            Some(_) => self.verdict_of(fold, Some(actual)),
        };
        self.status.rows = before + compared.rows;
        self.status.differences += compared.differences;
        let shard = &mut self.status.partitions[fold.index];
        (shard.verdict, shard.reason) = (verdict, reason);
        shard.tables = compared.tables;
        shard.first = compared.first;
        self.publish_status();
        Ok(())
    }

    /// The verdict for a difference: `differs`, or `unverifiable` if the difference has a
    /// known cause that is no damage.
    fn verdict_of(
        &self,
        fold: &ReferenceFold<'_>,
        actual: Option<&ShardMeta>,
    ) -> (Verdict, Option<String>) {
        let live = fold.handle.store.as_ref().and_then(|store| meta_of(&**store).ok());
        let actual = actual.or(live.as_ref());
        let limits = self.engine.config.limits();
        let snapshot = fold.handle.snapshot.lock();
        match actual {
            Some(meta) if meta.limits_changed || (meta.limits != 0 && meta.limits != limits) => {
                let reason = "it differs, but the limits in section `engine` were changed since it was folded, which can have the same effect: rebuild the projection to be sure";
                (Verdict::Unverifiable, Some(reason.into()))
            }
            Some(meta)
                if meta.watermark < fold.shard.state.meta.watermark
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

    fn start(&self, handle: &ShardHandle) -> Result<Offset, EndReason> {
        let bounds = self.engine.ports.log.bounds(handle.id.partition);
        let failed =
            |error: lantern_core::LogError| EndReason::Verdict(Verdict::Failed, error.to_string());
        Ok(bounds.map_err(failed)?.start)
    }

    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    fn record_progress(&mut self, index: usize, next: u64, target: u64) {
        let shards = self.status.partitions.len().max(1) as f64;
        let part = if target == 0 { 1.0 } else { next as f64 / target as f64 };
        self.status.percent = FOLDING_PERCENT * (index as f64 + part.min(1.0)) / shards;
        self.publish_status();
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        if self.status.verdict == Verdict::Running {
            self.status.verdict = Verdict::Stopped;
            self.publish_status();
        }
        self.engine.verifying.store(false, Ordering::Release);
    }
}

/// A second fold of one shard.
struct ReferenceFold<'a> {
    shard: Shard,
    /// How many decisions were taken again.
    decisions: u64,
    faults: u32,
    /// How many reads of the log in a row were pending.
    waits: u32,
    /// Determines batch sizes and dropped instances; the same in every run.
    pattern: u64,
    index: usize,
    handle: &'a Arc<ShardHandle>,
}

fn trimmed_error(start: Offset) -> EndReason {
    let reason = format!(
        "the log begins at offset {start}: retention has deleted events that the state was folded from"
    );
    EndReason::Verdict(Verdict::Unverifiable, reason)
}

fn meta_of(store: &dyn ReadStore) -> Result<ShardMeta, EndReason> {
    ShardMeta::decode(store.get(Space::Meta, ShardMeta::KEY)?.as_deref()).map_err(|error| {
        let reason = format!("the shard's own record is damaged: {error}");
        EndReason::Verdict(Verdict::Differs, reason)
    })
}
