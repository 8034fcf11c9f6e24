//! Implements a shard, which is one version on one partition. A shard reads events, applies them
//! and commits the changes. It knows nothing of threads or other shards. A step depends only on the
//! log, the state and the plugin's answers.
//!
//! A shard only coordinates its parts: [`ShardState`] (rows, parked events, outbox), [`Runner`]
//! (the plugin), [`Gatherer`] (the next batch) and [`CommitPipeline`].

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    Checkpoint, KeyRange, Log, LogError, Offset, Plugin, PublishedCommit, ShardId, ShardMeta,
    ShardStore, Space, StoreError, Writes,
};

use crate::apply::Applier;
use crate::batching::{GatherLimits, Gatherer};
use crate::commit::{Commit, CommitOutcome, CommitPipeline, CommitThreads};
use crate::event_traces::ShardTraces;
use crate::outbox_writer::{self, SendLimits, SendOutcome};
use crate::parked_actions::Decider;
use crate::runner::{LogSink, Runner};
use crate::state::ShardState;
use crate::stop_reason::StopReason;
use crate::sync_policy::{CommitSync, NextCommit};
use crate::ticks::Ticker;
use crate::{EngineConfig, log_check};

/// How far the fold may be ahead of a commit in progress: the next commit is due when
/// `commit_bytes` times this factor are written.
const COMMIT_AHEAD: usize = 4;

/// The parts from which a shard is created.
pub(crate) struct ShardParts {
    pub(crate) id: ShardId,
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) store: Arc<dyn ShardStore>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) logs: LogSink,
    /// The threads that run commits in parallel to the fold; `None` if the fold runs each commit
    /// itself.
    pub(crate) committers: Option<Arc<CommitThreads>>,
    /// Whether readers may have seen a later state than this one before a crash.
    pub(crate) recovers: bool,
}

/// One version on one partition, with its state and its plugin.
pub(crate) struct Shard {
    pub(crate) state: ShardState,
    pub(crate) runner: Runner,
    gatherer: Gatherer,
    pub(crate) commits: CommitPipeline,
    /// Reports the steps of traced events; `None` if no traces are recorded.
    pub(crate) traces: Option<ShardTraces>,
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    /// There are more events to fold.
    More,
    /// All events that may be read are applied and committed.
    Idle,
    /// All events that the log can return now are applied. The log wakes the shard when it can
    /// return more.
    Wait,
}

/// The limits of a step.
pub(crate) struct StepLimits {
    /// The monotonic time, for the interval between commits.
    pub(crate) now: Duration,
    /// Do not read the event at this offset, or later events.
    pub(crate) before: Option<Offset>,
    /// The maximum number of events in a batch, if it differs from the configured one. Only the
    /// determinism check sets it.
    pub(crate) batch_events: Option<usize>,
}

impl Shard {
    /// Opens the shard whose state is `parts.store`.
    ///
    /// # Errors
    /// Returns the errors of [`ShardState::open`].
    pub(crate) fn open(parts: ShardParts) -> Result<Self, StopReason> {
        let ShardParts { id, plugin, store, config, logs, committers, recovers } = parts;
        let manifest = Arc::new(plugin.manifest().clone());
        let gatherer = Gatherer::new(id.partition, manifest.clone(), &config);
        if store.has_unsynced() {
            store.commit(&Writes::new())?;
        }
        let mut state = ShardState::open(id, manifest, store, config)?;
        let commits = CommitPipeline::new(committers, &state.config, &state.meta, recovers);
        if recovers {
            // Readers may have seen commits with these numbers, so the numbers are not used again.
            state.meta.pos = state.meta.pos.max(state.meta.ceiling.commit);
        }
        let runner = Runner::new(plugin, logs, commits.is_live());
        Ok(Self { state, runner, gatherer, commits, traces: None })
    }

    /// Reads and applies the next batch, fires timers that became due, and commits if a
    /// commit is due.
    pub(crate) fn step(
        &mut self,
        log: &dyn Log,
        limits: &StepLimits,
    ) -> Result<StepOutcome, StopReason> {
        let before = self.state.meta.pos;
        if self.commits.has_ended() {
            self.wait_for_commit()?;
        }
        let fuel = self.runner.usage.fuel;
        let outcome = self.advance(log, limits);
        if self.runner.usage.fuel != fuel {
            self.runner.note_used(limits.now);
        }
        let stopped = outcome.is_err();
        let idle = matches!(outcome, Ok(StepOutcome::Idle | StepOutcome::Wait));
        // If something stopped the shard, the changes that were applied before are committed too.
        if idle || stopped || self.commit_is_due(limits.now) {
            self.wait_for_commit()?;
            match self.is_dirty() {
                true if idle && self.may_wait(log, limits.now) => {
                    self.commit_as(CommitSync::Later, limits.now)?;
                }
                true if idle || stopped => self.commit(limits.now)?,
                true => self.commit_in_parallel(limits.now)?,
                false if self.commits.sync.is_due(limits.now) => self.sync(limits.now)?,
                false => {}
            }
        }
        if idle || stopped {
            self.state.buffer.release_memory();
        }
        if self.state.meta.pos > before {
            outcome.and_then(|step| self.check_size(step))
        } else {
            outcome
        }
    }

    /// Returns whether a commit is due although there are more events to fold. It is due if the
    /// write buffer is large enough, or if the last commit was long ago. While a commit is in
    /// progress, the next one is due only when the fold has written [`COMMIT_AHEAD`] times
    /// `commit_bytes`.
    fn commit_is_due(&self, now: Duration) -> bool {
        let (config, bytes) = (&self.state.config, self.state.buffer.bytes());
        let due = self.commits.age(now) >= Duration::from_millis(config.commit_ms);
        let full = bytes >= config.commit_bytes;
        let waits =
            self.commits.is_pending() && bytes < config.commit_bytes.saturating_mul(COMMIT_AHEAD);
        (due || full) && !waits
    }

    /// Returns whether the next commit needs no sync. This is so if the version serves readers, and
    /// nothing outside of the state depends on the commit being durable.
    fn may_wait(&self, log: &dyn Log, now: Duration) -> bool {
        let state = &self.state;
        let serves = self.commits.is_live() && state.epoch.is_some();
        // Emitted events are sent once they are durable, so a commit with emitted events needs a
        // sync.
        if !self.commits.sync.is_on() || !serves || outbox_writer::has_outbox(state) {
            return false;
        }
        let log_start = log.bounds(state.id.partition).ok().map(|bounds| bounds.start);
        let (meta, bytes) = (&state.meta, state.buffer.bytes());
        self.commits.sync.may_wait(&NextCommit { meta, bytes, log_start, now })
    }

    /// Halts the projection if its state has become larger than the limit. All committed changes
    /// are kept, and no event is parked because of this halt.
    fn check_size(&self, step: StepOutcome) -> Result<StepOutcome, StopReason> {
        let bytes = self.state.buffer.store().disk_bytes();
        let limit = self.state.config.state_bytes_max;
        if bytes > limit {
            return Err(StopReason::Halt(format!(
                "the state takes {bytes} bytes on disk, and the limit is {limit} (`engine.state_bytes_max`): raise it and resume, or push a version that keeps less"
            )));
        }
        Ok(step)
    }

    fn advance(&mut self, log: &dyn Log, limits: &StepLimits) -> Result<StepOutcome, StopReason> {
        log_check::check_history(&mut self.state, log)?;
        outbox_writer::clear_sent(&mut self.state)?;
        self.tick()?;
        let due = self.state.next_due()?;
        let batch_events = || self.runner.batch_events(&self.state.config);
        let gather = GatherLimits {
            ticks: self.gatherer.ticks(&self.state.config),
            due,
            events: limits.batch_events.unwrap_or_else(batch_events),
            bytes: self.state.config.batch_bytes_max,
            before: self.read_before(limits.before),
        };
        let blocked = self.state.parking.blocked();
        let mut gathered = self
            .gatherer
            .gather(log, &self.state.meta, blocked, &gather)
            .map_err(|error| match error {
                LogError::OutOfRange { .. } | LogError::Lost { .. } => StopReason::Halt(format!(
                    "{error}; rebuild the projection from what is left (`lantern plugin rebuild`), or delete it"
                )),
                error => StopReason::Fault(error.to_string()),
            })?;
        if gathered.pending && gathered.next == self.state.meta.next {
            return Ok(StepOutcome::Wait);
        }
        if gathered.end && gathered.next == self.state.meta.next {
            log_check::check_end(&self.state, log)?;
        }
        let Self { state, runner, gatherer, traces, .. } = self;
        let traces = traces.as_mut();
        let applied = Applier { state, runner, gatherer, traces }.apply_gathered(&mut gathered);
        // This is done after an error too: a part of the batch is then applied, and will be
        // committed.
        log_check::record_incarnation(&mut self.state, log);
        applied?;
        self.tick()?;
        // If reading stopped at the offset from which a rebuild emits events, and not at the next
        // offset of the leader (the active version's shard), there are more events to fold.
        let emits = gather.before.is_some() && gather.before != limits.before;
        Ok(if gathered.end && !emits { StepOutcome::Idle } else { StepOutcome::More })
    }

    fn tick(&mut self) -> Result<(), StopReason> {
        Ticker { state: &mut self.state, runner: &mut self.runner }.tick()
    }

    /// Returns the offset before which a batch must end, the lower one of two:
    ///
    /// * the next offset of the leader, which the shard must not overtake;
    /// * the offset from which a rebuild emits events, because its batches must not have events on
    ///   both sides of it.
    fn read_before(&self, leader: Option<Offset>) -> Option<Offset> {
        let from = self.state.outbox.emit_from.events;
        let emits = (self.state.meta.next < from).then_some(from);
        leader.into_iter().chain(emits).min()
    }

    /// Returns what retries and drops the parked events of this shard; see [`Decider`].
    pub(crate) fn decider(&mut self) -> Decider<'_> {
        Decider { state: &mut self.state, runner: &mut self.runner }
    }

    /// Pauses the fold until the log has accepted emitted events. Commits the applied changes, so
    /// that their emitted events can be sent.
    pub(crate) fn hold(&mut self, now: Duration) -> Result<StepOutcome, StopReason> {
        self.wait_for_commit()?;
        outbox_writer::clear_sent(&mut self.state)?;
        if self.is_dirty() {
            self.commit(now)?;
        }
        Ok(StepOutcome::Wait)
    }

    /// Appends committed events of the outbox to the log; see [`outbox_writer::send`].
    pub(crate) fn send(
        &mut self,
        log: &dyn Log,
        limits: &SendLimits<'_>,
        wake: impl FnOnce() + Send + 'static,
    ) -> Result<SendOutcome, StoreError> {
        outbox_writer::send(&mut self.state, log, limits, wake)
    }

    /// Drops the plugin's instance if it was not used for `idle`. Returns `false` if nothing was
    /// dropped.
    pub(crate) fn drop_instance_unused(&mut self, now: Duration, idle: Duration) -> bool {
        let dropped = self.runner.drop_unused(now, idle);
        if dropped {
            self.gatherer.release_buffers();
        }
        dropped
    }

    /// Returns whether there are changes that are not committed. A new watermark is a change even
    /// if nothing was due.
    pub(crate) fn is_dirty(&self) -> bool {
        self.commits.is_pending()
            || !self.state.buffer.is_empty()
            || self.commits.is_behind(self.state.meta.watermark)
    }

    /// Writes the applied changes and the next offset in one durable transaction. On an error, the
    /// changes stay in the write buffer for the next commit.
    pub(crate) fn commit(&mut self, now: Duration) -> Result<(), StoreError> {
        let sync = self.commits.sync.durable_sync(now);
        self.commit_as(sync, now)
    }

    /// Makes everything that is applied durable.
    pub(crate) fn sync(&mut self, now: Duration) -> Result<(), StoreError> {
        self.wait_for_commit()?;
        let (is_new, sync) = (self.is_new(), self.commits.sync.durable_sync(now));
        self.run_commit(sync, is_new, now)
    }

    /// Makes all applied changes durable before the shard stops, like [`Shard::sync`]. If the
    /// server then crashes, readers do not have to wait at the next start.
    pub(crate) fn close(&mut self, now: Duration) -> Result<(), StoreError> {
        self.wait_for_commit()?;
        let is_new = self.is_new();
        if !is_new && !self.commits.sync.is_open() {
            return Ok(());
        }
        self.run_commit(CommitSync::Close, is_new, now)
    }

    fn commit_as(&mut self, sync: CommitSync, now: Duration) -> Result<(), StoreError> {
        self.wait_for_commit()?;
        self.run_commit(sync, true, now)
    }

    fn run_commit(
        &mut self,
        sync: CommitSync,
        is_new: bool,
        now: Duration,
    ) -> Result<(), StoreError> {
        let commit = self.begin_commit(sync, is_new);
        let outcome = self.commits.run(commit, now);
        self.end_commit(outcome)
    }

    /// Returns whether the shard has changed since its last commit. A higher next offset is a
    /// change, even if the shard only skipped events to which the plugin does not subscribe. No
    /// commit may be in progress when this is called.
    fn is_new(&self) -> bool {
        !self.state.buffer.is_empty() || self.commits.has_moved(&self.state.meta)
    }

    /// Begins a durable commit in parallel to the fold. No other commit may be in progress. This
    /// commit allows no commit without a sync after it: the next one will probably run in parallel
    /// too, and so be durable.
    fn commit_in_parallel(&mut self, now: Duration) -> Result<(), StoreError> {
        let commit = self.begin_commit(CommitSync::Close, true);
        match self.commits.begin(commit, now) {
            Some(outcome) => self.end_commit(outcome),
            None => Ok(()),
        }
    }

    /// Waits for the commit in progress, if there is one.
    pub(crate) fn wait_for_commit(&mut self) -> Result<(), StoreError> {
        match self.commits.wait() {
            Some(outcome) => self.end_commit(outcome),
            None => Ok(()),
        }
    }

    fn begin_commit(&mut self, sync: CommitSync, is_new: bool) -> Commit {
        let ShardState { manifest, config, epoch, meta, buffer, .. } = &mut self.state;
        let numbered = ShardMeta { pos: meta.pos + u64::from(is_new), ..meta.clone() };
        let serves = self.commits.is_live() && epoch.is_some();
        Commit {
            bytes: buffer.bytes(),
            is_new,
            sync,
            ceiling: self.commits.sync.ceiling(&numbered, sync, serves),
            changes: buffer.begin_commit(),
            store: buffer.store().clone(),
            manifest: manifest.clone(),
            meta: meta.clone(),
            serves: epoch.is_some(),
            changes_bytes_max: config.changes_bytes_max,
            clock: self.traces.as_ref().and_then(ShardTraces::commit_clock),
        }
    }

    fn end_commit(&mut self, outcome: Result<CommitOutcome, StoreError>) -> Result<(), StoreError> {
        let state = &mut self.state;
        state.buffer.end_commit(outcome.is_ok());
        let mut outcome = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                self.commits.failed();
                return Err(error);
            }
        };
        let (meta, tables) = (&outcome.meta, std::mem::take(&mut outcome.tables));
        // Only these members are taken from the commit's record. The others have changed since the
        // commit began.
        state.meta.pos = meta.pos;
        state.meta.ceiling = meta.ceiling;
        state.meta.changes_from = meta.changes_from;
        state.meta.changes_bytes = meta.changes_bytes;
        let projection = &state.id.projection;
        metrics::counter!("lantern_engine_commits_total", "projection" => projection.clone())
            .increment(1);
        let epoch = state.epoch.as_ref().filter(|_| outcome.is_new);
        let published = epoch.map(|epoch| PublishedCommit {
            projection: projection.clone(),
            version: state.id.version.clone(),
            epoch: epoch.clone(),
            partition: state.id.partition,
            pos: meta.pos,
            next: meta.next,
            checkpoint: Checkpoint::of([meta]),
            event_time: meta.max_time,
            durable: outcome.is_durable(),
            tables,
        });
        if let Some(traces) = &mut self.traces {
            let first = self.commits.committed_next();
            traces.committed(&state.id, first, &outcome, published.as_ref());
        }
        self.commits.succeeded(&outcome, published);
        Ok(())
    }

    /// Sets the epoch under which the shard serves readers; with `None`, the shard no longer serves
    /// readers. The function commits first, so that the change log begins at this point.
    pub(crate) fn set_epoch(
        &mut self,
        epoch: Option<String>,
        now: Duration,
    ) -> Result<(), StoreError> {
        self.wait_for_commit()?;
        // The old change log belongs to another epoch, so clients cannot resume from it.
        let store = self.state.buffer.store();
        let entries = store.scan(Space::Changes, &KeyRange::all(), usize::MAX, false)?;
        for (key, _) in entries {
            self.state.buffer.set(Space::Changes, &key, None);
        }
        self.state.epoch = None;
        self.state.meta.changes_bytes = 0;
        self.commit(now)?;
        self.state.epoch = epoch;
        Ok(())
    }
}
