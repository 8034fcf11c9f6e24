//! One version on one partition: reads, applies, commits. Knows nothing of
//! threads or other shards; a step is a function of the log, the state and what
//! the plugin answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    Committed, EmitFrom, Instance, KeyRange, Level, Log, Manifest, NewEvent, Offset, Plugin,
    ShardId, ShardMeta, ShardStore, Space, StoreError, TableChanges, TableId, Timestamp, Writes,
};

use crate::EngineConfig;
use crate::gather::{GatherLimits, Gatherer};
use crate::layers::Overlay;
use crate::outbox::Outbox;

/// Batches in the first calls, before it is known how much fuel an event takes.
const EVENTS_FIRST: usize = 256;
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
    /// Applied and not committed.
    pub(crate) overlay: Overlay,
    /// Empty, with room for what a call writes.
    pub(crate) room: Overlay,
    /// As of what is applied, committed or not.
    pub(crate) meta: ShardMeta,
    /// Subjects with parked events, and how many.
    pub(crate) blocked: BTreeMap<String, u64>,
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
    pub(crate) kept: Option<VecDeque<(String, NewEvent)>>,
    pub(crate) usage: Usage,
    pub(crate) gatherer: Gatherer,
    last_commit: Duration,
    /// When the step began that used the plugin last.
    last_used: Duration,
    /// The position and the watermark of the last commit.
    committed: (Offset, Timestamp),
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
        let ShardParts { id, plugin, store, config, logs } = parts;
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
        let mut blocked = BTreeMap::new();
        for (key, value) in
            store.scan(Space::ParkedSubjects, &KeyRange::all(), usize::MAX, false)?
        {
            let count = value.try_into().map_or(1, u64::from_be_bytes);
            blocked.insert(String::from_utf8_lossy(&key).into_owned(), count);
        }
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
            gatherer: Gatherer::new(id.partition, manifest.clone()),
            id,
            plugin,
            manifest,
            store,
            config,
            logs,
            epoch: None,
            instance: None,
            overlay: Overlay::default(),
            room: Overlay::default(),
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
            committed,
        })
    }

    /// Reads and applies the next batch, fires timers that became due, and
    /// commits when it is time to. A commit, if one was made, is handed back.
    pub(crate) fn step(
        &mut self,
        log: &dyn Log,
        limits: &StepLimits,
    ) -> (Result<Step, Stop>, Option<Arc<Committed>>) {
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
        let committed =
            ((idle || stopped || due || full) && self.is_dirty()).then(|| self.commit(limits.now));
        if idle || stopped {
            // What is at rest holds no room for much.
            self.room = Overlay::default();
            if self.overlay.is_empty() {
                self.overlay = Overlay::default();
            }
        }
        match committed {
            Some(Ok(commit)) => (outcome.and_then(|step| self.check_size(step)), Some(commit)),
            Some(Err(error)) => (Err(error.into()), None),
            None => (outcome, None),
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
        self.clear_sent();
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
        self.tick()?;
        // Stopped only where it begins to emit, it goes on at once.
        let emits = gather.before.is_some() && gather.before != limits.before;
        Ok(if end && !emits { Step::Idle } else { Step::More })
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
        !self.overlay.is_empty() || self.meta.watermark > self.committed.1
    }

    /// Whether the position moved on since the last commit, if only past events
    /// that nobody wants.
    pub(crate) fn has_moved(&self) -> bool {
        self.meta.next > self.committed.0
    }

    /// Writes what was applied, and the position, in one transaction.
    pub(crate) fn commit(&mut self, now: Duration) -> Result<Arc<Committed>, StoreError> {
        let mut meta = self.meta.clone();
        meta.pos += 1;
        let bytes = self.overlay.bytes();
        let mut writes = self.overlay.take_writes();
        let tables = match self.epoch {
            Some(_) => public_changes(&self.manifest, &writes),
            None => Vec::new(),
        };
        let outcome = self.log_changes(&mut meta, &mut writes, &tables).and_then(|()| {
            let record = serde_json::to_vec(&meta).expect("numbers always encode");
            let records = writes.entry(Space::Meta).or_default();
            records.insert(ShardMeta::KEY.to_vec(), Some(record));
            self.store.commit(&writes)
        });
        if let Err(error) = outcome {
            // Decisions stay: they belong to what is kept here.
            if let Some(meta) = writes.get_mut(&Space::Meta) {
                meta.remove(ShardMeta::KEY);
            }
            writes.retain(|space, rows| *space != Space::Changes && !rows.is_empty());
            self.overlay = Overlay::from_writes(writes, bytes);
            return Err(error);
        }
        self.meta = meta;
        self.committed = (self.meta.next, self.meta.watermark);
        self.last_commit = now;
        metrics::counter!("lantern_engine_commits_total", "projection" => self.id.projection.clone())
            .increment(1);
        Ok(Arc::new(Committed {
            projection: self.id.projection.clone(),
            version: self.id.version.clone(),
            epoch: self.epoch.clone().unwrap_or_default(),
            partition: self.id.partition,
            pos: self.meta.pos,
            next: self.meta.next,
            event_time: self.meta.max_time,
            tables,
        }))
    }

    /// Begins (`Some`) or ends (`None`) to serve readers: commits, so that the
    /// change log begins here.
    pub(crate) fn set_epoch(
        &mut self,
        epoch: Option<String>,
        now: Duration,
    ) -> Result<(), StoreError> {
        // The old change log is of another epoch and cannot be resumed from.
        let log = self.store.scan(Space::Changes, &KeyRange::all(), usize::MAX, false)?;
        for (key, _) in log {
            self.overlay.set(Space::Changes, key, None);
        }
        self.epoch = None;
        self.meta.changes_bytes = 0;
        self.commit(now)?;
        self.epoch = epoch;
        Ok(())
    }

    /// Adds the commit to the change log and lets go of its oldest entries.
    fn log_changes(
        &self,
        meta: &mut ShardMeta,
        writes: &mut Writes,
        tables: &[TableChanges],
    ) -> Result<(), StoreError> {
        if self.epoch.is_none() {
            meta.changes_from = meta.pos;
            return Ok(());
        }
        if tables.is_empty() {
            return Ok(());
        }
        let entry = TableChanges::encode(tables);
        meta.changes_bytes += entry.len() as u64;
        let log = writes.entry(Space::Changes).or_default();
        log.insert(meta.pos.to_be_bytes().to_vec(), Some(entry));
        // A page at a time, so that one huge entry does not read all others.
        while meta.changes_bytes > self.config.changes_bytes_max {
            let start = (meta.changes_from + 1).to_be_bytes().to_vec();
            let range = KeyRange { start, end: None };
            let oldest = self.store.scan(Space::Changes, &range, 64, false)?;
            if oldest.is_empty() {
                break;
            }
            for (key, value) in oldest {
                if meta.changes_bytes <= self.config.changes_bytes_max {
                    break;
                }
                meta.changes_bytes = meta.changes_bytes.saturating_sub(value.len() as u64);
                meta.changes_from = key
                    .as_slice()
                    .try_into()
                    .map(u64::from_be_bytes)
                    .map_err(|_| StoreError::Damaged("an entry of the change log".into()))?;
                log.insert(key, None);
            }
        }
        Ok(())
    }

    /// The watermark that follows from the events seen.
    pub(crate) fn watermark_due(&self) -> Option<Timestamp> {
        watermark_due(&self.manifest, &self.meta)
    }
}

/// The watermark that follows from the events a shard has seen, where it has
/// still to tick.
pub(crate) fn watermark_due(manifest: &Manifest, meta: &ShardMeta) -> Option<Timestamp> {
    let time = manifest.event_time?;
    let mark = meta.max_time.watermark(time.allowed_lateness_us, time.tick_us);
    (mark > meta.watermark).then_some(mark)
}

/// What `writes` change in public tables.
fn public_changes(manifest: &Manifest, writes: &Writes) -> Vec<TableChanges> {
    let public = (0..).map(TableId).zip(&manifest.tables).filter(|(_, table)| table.public);
    public
        .filter_map(|(table, _)| {
            let pairs = writes.get(&Space::Table(table))?;
            let mut changes = TableChanges { table, ..TableChanges::default() };
            for (key, value) in pairs {
                let key = String::from_utf8_lossy(key).into_owned();
                match value {
                    Some(value) => changes.up.push((key, value.clone())),
                    None => changes.del.push(key),
                }
            }
            Some(changes)
        })
        .collect()
}
