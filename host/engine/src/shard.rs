//! One version on one partition: reads, applies, commits. Knows nothing of
//! threads or other shards; a step is a function of the log, the state and what
//! the plugin answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    Checkpoint, Committed, EmitFrom, Instance, KeyRange, Level, Log, Manifest, Offset, OutboxEvent,
    Plugin, ShardId, ShardMeta, ShardStore, Space, StoreError, Timestamp,
};

use crate::EngineConfig;
use crate::blocked::BlockedSubjects;
use crate::commit::{Commit, Committers, Done, UnderWay};
use crate::gather::{GatherLimits, Gatherer};
use crate::layers::{Frozen, Layer, Overlay};
use crate::outbox::Outbox;

/// Batches in the first calls, before it is known how much fuel an event takes.
const EVENTS_FIRST: usize = 256;
/// While a commit is under way so many times the bytes of one may be applied
/// before the next one is due.
const COMMIT_AHEAD: usize = 4;
/// A batch is cut so that it should need at most one part in so many of its fuel.
const FUEL_HEADROOM: f64 = 2.0;

/// Takes what a plugin logs: position, level, message.
pub(crate) type LogSink = Arc<dyn Fn(Offset, Level, &str) + Send + Sync>;

/// What a shard is made of.
pub(crate) struct ShardParts {
    pub(crate) id: ShardId,
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) store: Arc<dyn ShardStore>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) logs: LogSink,
    /// Has commits carried out beside the fold; `None` for a fold that carries
    /// out its own.
    pub(crate) committers: Option<Arc<Committers>>,
}

pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) store: Arc<dyn ShardStore>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) logs: LogSink,
    /// The feed's epoch while this version is active; `None` while it is not:
    /// then nothing is published and nothing emitted.
    pub(crate) epoch: Option<String>,
    pub(crate) instance: Option<Box<dyn Instance>>,
    /// Being committed; empty where no commit is under way.
    pub(crate) committing: Arc<Frozen>,
    under_way: Option<UnderWay>,
    committers: Option<Arc<Committers>>,
    /// Commits that readers are still to be told of.
    commits: Vec<Arc<Committed>>,
    /// Applied since.
    pub(crate) overlay: Overlay,
    /// Empty, with room for what a call writes.
    pub(crate) room: Overlay,
    /// Empty, with room for what is applied.
    spare: Overlay,
    /// As of what is applied, committed or not.
    pub(crate) meta: ShardMeta,
    pub(crate) blocked: BlockedSubjects,
    /// Events parked since the last that was applied.
    pub(crate) parked_in_a_row: u64,
    /// The most fuel it may use in all; only a check has such a limit.
    pub(crate) fuel_max: Option<u64>,
    pub(crate) outbox: Outbox,
    /// What is emitted before this is in the log already.
    pub(crate) emit_from: EmitFrom,
    /// What the ids of emitted events begin with.
    pub(crate) emits_as: String,
    /// Names the outbox of this upload of the version.
    pub(crate) outbox_name: String,
    /// The newest emitted events with their ids, for whoever compares them.
    pub(crate) kept: Option<VecDeque<(String, OutboxEvent)>>,
    pub(crate) usage: Usage,
    pub(crate) gatherer: Gatherer,
    last_commit: Duration,
    /// When the step began that used the plugin last.
    last_used: Duration,
    /// The position and the watermark of the last commit.
    committed: (Offset, Timestamp),
    /// The offset up to which events are in a commit, durable or not yet.
    frozen: Offset,
}

/// What the plugin has used since the shard was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) fuel: u64,
    pub(crate) apply_us: u64,
    pub(crate) memory_bytes: u64,
    fuel_per_event: Option<f64>,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// All that may be read is applied and committed.
    Idle,
    /// All that the log has at hand is applied; it wakes the shard for more.
    Wait,
}

/// Why a shard cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The host's fault; to be tried again.
    Fault(String),
    /// A person must act.
    Halt(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.to_string())
    }
}

/// What a step may do.
pub(crate) struct StepLimits {
    /// The time, for commits.
    pub(crate) now: Duration,
    /// Do not read at or past this offset.
    pub(crate) before: Option<Offset>,
    /// Fewer events a batch than configured; for the determinism check.
    pub(crate) batch_events: Option<usize>,
}

impl Shard {
    pub(crate) fn open(parts: ShardParts) -> Result<Self, Stop> {
        let ShardParts { id, plugin, store, config, logs, committers } = parts;
        let record = store.get(Space::Meta, ShardMeta::KEY)?;
        let fresh = record.is_none();
        let mut meta = ShardMeta::decode(record.as_deref())
            .map_err(|e| Stop::Halt(format!("the shard's own record is damaged: {e}")))?;
        if meta.format != ShardMeta::FORMAT {
            return Err(Stop::Halt(format!(
                "the shard's state has format {}, this release reads {}",
                meta.format,
                ShardMeta::FORMAT
            )));
        }
        let blocked = BlockedSubjects::open(&*store)?;
        let limits = config.limits();
        if meta.pos == 0 {
            meta.limits = limits;
        } else if meta.limits != 0 && meta.limits != limits {
            (meta.limits, meta.limits_changed) = (limits, true);
        }
        if fresh {
            meta.outbox_of = id.rebuild;
        }
        let outbox = Outbox::open(&*store, &meta)?;
        let committed = (meta.next, meta.watermark);
        let manifest = Arc::new(plugin.manifest().clone());
        Ok(Self {
            gatherer: Gatherer::new(id.partition, manifest.clone(), &config),
            id,
            plugin,
            manifest,
            store,
            config,
            logs,
            epoch: None,
            instance: None,
            committing: Arc::default(),
            under_way: None,
            committers,
            commits: Vec::new(),
            overlay: Overlay::default(),
            room: Overlay::default(),
            spare: Overlay::default(),
            meta,
            blocked,
            parked_in_a_row: 0,
            fuel_max: None,
            outbox,
            emit_from: EmitFrom::default(),
            emits_as: String::new(),
            outbox_name: String::new(),
            kept: None,
            usage: Usage::default(),
            last_commit: Duration::ZERO,
            last_used: Duration::ZERO,
            frozen: committed.0,
            committed,
        })
    }

    /// Reads and applies the next batch, fires timers that became due, and
    /// commits when it is time to.
    pub(crate) fn step(&mut self, log: &dyn Log, limits: &StepLimits) -> Result<Step, Stop> {
        let before = self.meta.pos;
        if self.under_way.as_ref().is_some_and(UnderWay::has_ended) {
            self.settle()?;
        }
        let fuel = self.usage.fuel;
        let outcome = self.advance(log, limits);
        if self.usage.fuel != fuel {
            self.last_used = limits.now;
        }
        let stopped = outcome.is_err();
        let idle = matches!(outcome, Ok(Step::Idle | Step::Wait));
        // What was applied before something stopped the shard counts all the same.
        let due = limits.now.saturating_sub(self.last_commit)
            >= Duration::from_millis(self.config.commit_ms);
        let full = self.overlay.bytes() >= self.config.commit_bytes;
        // One at a time: where the one before takes long, the fold goes on for a
        // while.
        let ahead = self.config.commit_bytes.saturating_mul(COMMIT_AHEAD);
        let waits = self.under_way.is_some() && self.overlay.bytes() < ahead;
        if idle || stopped || ((due || full) && !waits) {
            self.settle()?;
            match self.is_dirty() {
                true if idle || stopped => self.commit(limits.now)?,
                true => self.commit_beside(limits.now)?,
                false => {}
            }
        }
        if idle || stopped {
            // What is at rest holds no room for much.
            (self.room, self.spare) = (Overlay::default(), Overlay::default());
            if self.overlay.is_empty() {
                self.overlay = Overlay::default();
            }
        }
        if self.meta.pos > before {
            outcome.and_then(|step| self.check_size(step))
        } else {
            outcome
        }
    }

    /// Halts a projection whose state has grown over the limit. What is
    /// committed stays, so that this decides over no event.
    fn check_size(&self, step: Step) -> Result<Step, Stop> {
        let (bytes, limit) = (self.store.disk_bytes(), self.config.state_bytes_max);
        if bytes > limit {
            return Err(Stop::Halt(format!(
                "the state takes {bytes} bytes on disk, and the limit is {limit} (`engine.state_bytes_max`): raise it and resume, or push a version that keeps less"
            )));
        }
        Ok(step)
    }

    fn advance(&mut self, log: &dyn Log, limits: &StepLimits) -> Result<Step, Stop> {
        self.check_identity(log)?;
        self.check_incarnation(log)?;
        self.clear_sent()?;
        self.tick()?;
        let gather = GatherLimits {
            events: limits.batch_events.unwrap_or_else(|| self.batch_events()),
            bytes: self.config.batch_bytes_max,
            before: self.read_before(limits.before),
        };
        let gathered = self
            .gatherer
            .gather(log, &self.meta, &self.blocked, &gather)
            .map_err(|e| match e {
                lantern_core::LogError::OutOfRange { .. }
                | lantern_core::LogError::Lost { .. } => Stop::Halt(format!(
                    "{e}; rebuild the projection from what is left (`lantern plugin rebuild`), or delete it"
                )),
                e => Stop::Fault(e.to_string()),
            })?;
        let (end, pending) = (gathered.end, gathered.pending);
        if pending && gathered.next == self.meta.next {
            return Ok(Step::Wait);
        }
        if end && gathered.next == self.meta.next {
            self.check_log(log)?;
        }
        self.apply_gathered(gathered)?;
        if let Some(incarnation) = log.incarnation_at(self.id.partition, self.meta.next) {
            self.meta.incarnation = if self.meta.next == Offset(0) { 0 } else { incarnation };
        }
        self.tick()?;
        // Stopped only where it begins to emit, it goes on at once.
        let emits = gather.before.is_some() && gather.before != limits.before;
        Ok(if end && !emits { Step::Idle } else { Step::More })
    }

    /// A log that was copied back and continued differently has other events at
    /// the offsets that were folded.
    fn check_incarnation(&self, log: &dyn Log) -> Result<(), Stop> {
        let (was, next) = (self.meta.incarnation, self.meta.next);
        match log.incarnation_at(self.id.partition, next) {
            Some(is) if was != 0 && next > Offset(0) && is != was => {
                self.check_log(log)?;
                Err(Stop::Halt(format!(
                    "the log has other events before offset {next} than the state was folded from: it was restored from a copy and continued differently; rebuild the projection (`lantern plugin rebuild`), or delete it"
                )))
            }
            _ => Ok(()),
        }
    }

    /// A partition that was made anew is another log: its offsets say nothing of
    /// what was folded.
    fn check_identity(&mut self, log: &dyn Log) -> Result<(), Stop> {
        let Some(is) = log.identity(self.id.partition) else { return Ok(()) };
        match &self.meta.folded {
            Some(was) if **was == *is => Ok(()),
            Some(was) => {
                let number = || self.id.partition.to_string();
                let name = log.partition_name(self.id.partition).unwrap_or_else(number);
                Err(Stop::Halt(format!(
                    "partition {name} is another one than what was folded up to offset {}: it was deleted and made anew (its id was {was} and is {is}); rebuild the projection from what is there now (`lantern plugin rebuild`), or delete it",
                    self.meta.next
                )))
            }
            None => {
                self.meta.folded = Some(is.to_string());
                Ok(())
            }
        }
    }

    /// A log that ends before what was folded from it has lost events, and new
    /// ones will get offsets that this shard has passed: it would skip them.
    fn check_log(&self, log: &dyn Log) -> Result<(), Stop> {
        let end = log.bounds(self.id.partition).map_err(|e| Stop::Fault(e.to_string()))?.end;
        let next = self.meta.next;
        if end < next {
            return Err(Stop::Halt(format!(
                "the state has folded up to offset {next}, and the log ends at {end}: it has lost events; stop the server and run `lantern doctor`"
            )));
        }
        Ok(())
    }

    /// Where reading stops: at the leader's position, and where a rebuild
    /// begins to emit, so that no batch crosses it.
    fn read_before(&self, leader: Option<Offset>) -> Option<Offset> {
        let from = self.emit_from.events;
        let emits = (self.meta.next < from).then_some(from);
        leader.into_iter().chain(emits).min()
    }

    /// So many events that their fuel should do.
    fn batch_events(&self) -> usize {
        let most = self.config.batch_events_max;
        let Some(each) = self.usage.fuel_per_event else {
            return most.min(EVENTS_FIRST);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, clamped"
        )]
        let fitting =
            (self.config.fuel_event as f64 / 2.0 / FUEL_HEADROOM / each.max(1.0)) as usize;
        fitting.clamp(1, most)
    }

    pub(crate) fn count_usage(&mut self, events: usize, fuel: u64, apply: Duration, memory: u64) {
        self.usage.fuel += fuel;
        self.usage.apply_us += u64::try_from(apply.as_micros()).unwrap_or(u64::MAX);
        self.usage.memory_bytes = memory;
        if events > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let each = fuel as f64 / events as f64;
            // Rises at once and falls slowly: a batch that runs out is costly.
            let known = self.usage.fuel_per_event.unwrap_or(each);
            self.usage.fuel_per_event =
                Some(if each > known { each } else { known * 0.9 + each * 0.1 });
        }
    }

    /// Applies nothing until the log has taken emitted events, but commits what is
    /// applied, so that they can be sent.
    pub(crate) fn hold(&mut self, now: Duration) -> Result<Step, Stop> {
        self.settle()?;
        self.clear_sent()?;
        if self.is_dirty() {
            self.commit(now)?;
        }
        Ok(Step::Wait)
    }

    /// Lets go of an instance that was not used for `idle`.
    pub(crate) fn drop_instance_unused(&mut self, now: Duration, idle: Duration) -> bool {
        if self.instance.is_none() || now.saturating_sub(self.last_used) < idle {
            return false;
        }
        self.instance = None;
        self.gatherer.rest();
        self.usage.memory_bytes = 0;
        true
    }

    /// Whether something is applied that is not committed; a watermark that
    /// moved on counts, although nothing was due by it.
    pub(crate) fn is_dirty(&self) -> bool {
        self.under_way.is_some()
            || !self.overlay.is_empty()
            || self.meta.watermark != self.committed.1
    }

    /// Whether the position moved on since the last commit, if only past events
    /// that nobody wants.
    pub(crate) fn has_moved(&self) -> bool {
        self.meta.next > self.committed.0
    }

    /// Whether it is a shard of the engine, and not the fold of a check or a
    /// verification.
    pub(crate) fn is_live(&self) -> bool {
        self.committers.is_some()
    }

    /// The offset up to which events are durable in the state.
    pub(crate) fn durable(&self) -> Offset {
        self.committed.0
    }

    /// The offset up to which events are handed to a commit.
    pub(crate) fn in_commit(&self) -> Offset {
        self.frozen.max(self.committed.0)
    }

    /// Writes what was applied, and the position, in one transaction. Where that
    /// fails, what could not be written is still to be.
    pub(crate) fn commit(&mut self, now: Duration) -> Result<(), StoreError> {
        self.settle()?;
        let commit = self.freeze(now);
        self.end_commit(commit.run())
    }

    /// Begins a commit beside the fold; carries it out where that cannot be.
    /// None may be under way.
    fn commit_beside(&mut self, now: Duration) -> Result<(), StoreError> {
        let commit = self.freeze(now);
        let begun = self.committers.as_ref().and_then(|committers| committers.begin(&commit));
        match begun {
            Some(under_way) => {
                self.under_way = Some(under_way);
                Ok(())
            }
            None => self.end_commit(commit.run()),
        }
    }

    /// Waits for the commit that is under way, if one is.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        match self.under_way.take() {
            Some(under_way) => self.end_commit(under_way.wait()),
            None => Ok(()),
        }
    }

    /// Takes what is applied, to be committed.
    fn freeze(&mut self, now: Duration) -> Commit {
        let room = std::mem::take(&mut self.spare);
        let overlay = std::mem::replace(&mut self.overlay, room);
        self.committing = Arc::new(overlay.freeze());
        self.last_commit = now;
        self.frozen = self.meta.next;
        Commit {
            store: self.store.clone(),
            manifest: self.manifest.clone(),
            changes: self.committing.clone(),
            meta: self.meta.clone(),
            serves: self.epoch.is_some(),
            changes_bytes_max: self.config.changes_bytes_max,
        }
    }

    /// Notes what became of a commit.
    fn end_commit(&mut self, outcome: Result<Done, StoreError>) -> Result<(), StoreError> {
        let changes = std::mem::take(&mut self.committing);
        let Done { meta, tables } = match outcome {
            Ok(done) => done,
            Err(error) => {
                self.overlay.put_back(&changes);
                self.frozen = self.committed.0;
                return Err(error);
            }
        };
        // A shard that never commits beside its fold needs one room, not two.
        if let Ok(changes) = Arc::try_unwrap(changes) {
            let room = if self.overlay.is_empty() { &mut self.overlay } else { &mut self.spare };
            *room = changes.into_room();
        }
        // The rest has moved on since.
        self.meta.pos = meta.pos;
        self.meta.changes_from = meta.changes_from;
        self.meta.changes_bytes = meta.changes_bytes;
        self.committed = (meta.next, meta.watermark);
        metrics::counter!("lantern_engine_commits_total", "projection" => self.id.projection.clone())
            .increment(1);
        if let Some(epoch) = &self.epoch {
            self.commits.push(Arc::new(Committed {
                projection: self.id.projection.clone(),
                version: self.id.version.clone(),
                epoch: epoch.clone(),
                partition: self.id.partition,
                pos: meta.pos,
                next: meta.next,
                checkpoint: Checkpoint::of([&meta]),
                event_time: meta.max_time,
                tables,
            }));
        }
        Ok(())
    }

    /// The commits since this was last asked that readers are to be told of, in
    /// order.
    pub(crate) fn take_commits(&mut self) -> Vec<Arc<Committed>> {
        std::mem::take(&mut self.commits)
    }

    /// What lies over the store, the topmost first.
    pub(crate) fn layers(&self) -> [&dyn Layer; 2] {
        [&self.overlay, &*self.committing]
    }

    /// Begins (`Some`) or ends (`None`) to serve readers: commits, so that the
    /// change log begins here.
    pub(crate) fn set_epoch(
        &mut self,
        epoch: Option<String>,
        now: Duration,
    ) -> Result<(), StoreError> {
        self.settle()?;
        // The old change log is of another epoch and cannot be resumed from.
        let log = self.store.scan(Space::Changes, &KeyRange::all(), usize::MAX, false)?;
        for (key, _) in log {
            self.overlay.set(Space::Changes, &key, None);
        }
        self.epoch = None;
        self.meta.changes_bytes = 0;
        self.commit(now)?;
        self.epoch = epoch;
        Ok(())
    }

    /// The watermark that follows from the events seen.
    pub(crate) fn watermark_due(&self) -> Option<Timestamp> {
        watermark_due(&self.manifest, &self.meta)
    }
}

/// The watermark that follows from the events a shard has seen, if that is not
/// the one it has: it has still to tick.
pub(crate) fn watermark_due(manifest: &Manifest, meta: &ShardMeta) -> Option<Timestamp> {
    let time = manifest.event_time?;
    let mark = meta.max_time.watermark(time.allowed_lateness_us, time.tick_us);
    (mark != meta.watermark).then_some(mark)
}
