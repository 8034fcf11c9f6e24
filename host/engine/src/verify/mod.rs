//! Folds the log again next to a live state, and compares the results.
//!
//! A shard's state is a function of the log and of the retries and drops of parked events, and of
//! nothing else. So another fold of the whole log, with the same retries and drops at the same
//! offsets, must give the same state. If the states differ, the state or the log is damaged, or the
//! plugin is not deterministic.
//!
//! The log cannot be folded again if its beginning is deleted or limits have changed. The verdict
//! is then `unverifiable`, which means neither `same` nor `differs`.

mod compare;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{Plugin, ReadStore, ShardMeta, VersionId};
use parking_lot::Mutex;

use crate::reference_fold::{EndReason, ReferenceFold, meta_of};
use crate::registry::VersionBuild;
use crate::{Engine, EngineError};

pub use status::{
    FieldDifference, Verdict, VerifiedShard, VerifiedTable, VerifyDifference, VerifyStatus,
};

/// The share of folding in the progress, in percent; the rest is comparing.
const FOLDING_PERCENT: f64 = 90.0;

/// A verification that was started. [`Verification::run`] does the work.
pub struct Verification {
    engine: Arc<Engine>,
    build: Arc<VersionBuild>,
    projection: String,
    published_status: Arc<Mutex<Option<VerifyStatus>>>,
    status: VerifyStatus,
    began: Duration,
}

/// Called between steps; `false` ends the work.
type ContinueFn<'a> = &'a mut dyn FnMut(&VerifyStatus) -> bool;

impl Engine {
    /// Starts to verify a version, and shows the verification in the version's status. If no
    /// version is given, the active one is verified. Only one verification may run at a time.
    ///
    /// # Errors
    /// Returns [`EngineError::Verifying`] if one is running, or the error for a projection or
    /// version that does not exist.
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
    /// Returns the name of the projection.
    #[must_use]
    pub fn projection(&self) -> &str {
        &self.projection
    }

    /// Returns the status of the verification.
    #[must_use]
    pub fn status(&self) -> &VerifyStatus {
        &self.status
    }

    /// Folds and compares every partition. `pace` is called between steps with the progress. `pace`
    /// may block to slow the verification down, and may return `false` to end it.
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
        let live = handle.store.clone();
        let live = live.ok_or_else(|| EndReason::Verdict(Verdict::Failed, handle.halt_reason()))?;
        let scratch = self.engine.ports.stores.temporary()?;
        let mut fold = ReferenceFold::open(&self.engine, &handle, plugin, &scratch, None)?;
        let snapshot = fold.follow(&live, &mut |step| {
            self.status.steps += 1;
            self.status.instances_dropped += u64::from(step.dropped);
            self.status.events += step.events;
            self.record_progress(index, step.next, step.target);
            pace(&self.status)
        })?;
        let actual = meta_of(&*snapshot)?;
        fold.shard.commit(Duration::ZERO)?;
        self.status.partitions[index].next = actual.next.0;
        self.status.partitions[index].decisions = fold.decisions;
        self.compare((index, &fold), &*scratch, &*snapshot, &actual, pace)
    }

    fn compare(
        &mut self,
        (index, fold): (usize, &ReferenceFold),
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
            Some(_) => fold.verdict_of(Some(actual)),
        };
        self.status.rows = before + compared.rows;
        self.status.differences += compared.differences;
        let shard = &mut self.status.partitions[index];
        (shard.verdict, shard.reason) = (verdict, reason);
        shard.tables = compared.tables;
        shard.first = compared.first;
        self.publish_status();
        Ok(())
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
