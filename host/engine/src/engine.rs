//! The engine: all projections, their versions and shards, and the threads that
//! run them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lantern_core::{
    Catalog, Clock, Log, Manifest, Offset, PartitionId, Plugin, ProjectionRecord, Publish, Random,
    ShardId, StateStores, StoreError, TypeFilter, VersionId, VersionRecord, View, ViewError, Views,
};
use parking_lot::{Mutex, RwLock};

use crate::commit::Committers;
use crate::gather::wanted;
use crate::outbox::{self, SendLimits, Sending};
use crate::pool::{CpuMeter, Lane, Pool, Took, Turn};
use crate::quota::EmitQuota;
use crate::runner::LogSink;
use crate::shard::{Shard, ShardParts, Step, StepLimits, Stop};
use crate::slot::{Fault, Intake, Slot};
use crate::{EngineConfig, EngineError, LogLine, VerifyStatus};

/// How many shards commit at the same time at the end.
const LAST_COMMITS: usize = 16;

/// What the engine needs of the world.
#[derive(Clone)]
pub struct Ports {
    /// The event log.
    pub log: Arc<dyn Log>,
    /// The shards' states.
    pub stores: Arc<dyn StateStores>,
    /// The projections and their versions.
    pub catalog: Arc<dyn Catalog>,
    /// Takes commits for readers.
    pub publish: Arc<dyn Publish>,
    /// Time for pacing.
    pub clock: Arc<dyn Clock>,
    /// Draws the random part of epochs.
    pub random: Arc<dyn Random>,
    /// Loads plugins.
    pub plugins: Arc<dyn PluginSource>,
}

/// Why the plugin of a version cannot be loaded, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The machine lacks something now: it is tried again.
    #[error("{0}")]
    Host(String),
    /// The plugin does not fit this host: a person must act.
    #[error("{0}")]
    Unfit(String),
}

impl From<PluginError> for Stop {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Host(reason) => Self::Fault(reason),
            PluginError::Unfit(reason) => Self::Halt(reason),
        }
    }
}

/// Loads the plugin of a version that is in the catalogue.
pub trait PluginSource: Send + Sync {
    /// The plugin, compiled.
    ///
    /// # Errors
    /// [`PluginError`].
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError>;

    /// No version has a plugin of this SHA-256 any more.
    fn forget(&self, _sha256: &str) {}
}

/// Folds the log into every projection's tables. All methods may block; none
/// may be called on a thread that must not.
pub struct Engine {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) ports: Ports,
    pub(crate) pool: Arc<Pool>,
    committers: Arc<Committers>,
    pub(crate) projections: RwLock<BTreeMap<String, Projection>>,
    /// Held while the catalogue changes. Taken before any shard's lock.
    pub(crate) lifecycle: Mutex<()>,
    /// Whether a verification is under way: one at a time.
    pub(crate) verifying: AtomicBool,
    /// How fast each partition of the log grows, while a shard is behind.
    pub(crate) intake: Vec<Mutex<Intake>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// By projection.
    pub(crate) emit_quotas: Mutex<BTreeMap<String, Arc<EmitQuota>>>,
}

/// Why a state could not be opened: damage is for a person, all else may pass.
fn unopened(error: StoreError) -> Stop {
    match error {
        StoreError::Damaged(_) => {
            Stop::Halt(format!("{error}; stop the server and run `lantern doctor`"))
        }
        error => Stop::Fault(error.to_string()),
    }
}

/// What a step of a shard came to.
struct Stepped {
    step: Step,
    sending: Sending,
}

pub(crate) struct Projection {
    pub(crate) record: ProjectionRecord,
    pub(crate) builds: BTreeMap<VersionId, Arc<Build>>,
    pub(crate) logs: Arc<Mutex<VecDeque<LogLine>>>,
    /// See [`crate::verify`].
    pub(crate) verified: Arc<Mutex<Option<VerifyStatus>>>,
}

impl Projection {
    /// The feed's epoch; empty if no version is active.
    pub(crate) fn epoch(&self) -> String {
        let build = self.record.active.as_ref().and_then(|id| self.builds.get(id));
        build.map(|build| build.epoch(&self.record)).unwrap_or_default()
    }
}

/// A version's shards.
pub(crate) struct Build {
    pub(crate) version: VersionRecord,
    pub(crate) manifest: Arc<Manifest>,
    /// The types its shards read.
    wanted: TypeFilter,
    pub(crate) plugin: Mutex<Option<Arc<dyn Plugin>>>,
    pub(crate) slots: Vec<Arc<Slot>>,
}

impl Build {
    /// Changes with the state of any of its shards that begins without a
    /// predecessor.
    pub(crate) fn born(&self) -> u64 {
        self.slots.iter().fold(0, |all, slot| all.rotate_left(7) ^ slot.born)
    }

    /// The feed's epoch while this is the build of the active version of `record`.
    pub(crate) fn epoch(&self, record: &ProjectionRecord) -> String {
        record.epoch(self.born())
    }
}

impl Engine {
    /// Reads the catalogue and opens every shard's state. Nothing runs before
    /// [`Engine::start`]. A shard that cannot be opened is halted with its
    /// reason; the others are not touched by that.
    ///
    /// # Errors
    /// [`EngineError::Store`] where the catalogue cannot be read.
    pub fn open(config: EngineConfig, ports: Ports) -> Result<Arc<Self>, EngineError> {
        let engine = Arc::new(Self {
            config: Arc::new(config),
            pool: Arc::new(Pool::default()),
            committers: Arc::default(),
            projections: RwLock::default(),
            lifecycle: Mutex::default(),
            verifying: AtomicBool::default(),
            intake: (0..ports.log.partitions()).map(|_| Mutex::default()).collect(),
            threads: Mutex::default(),
            emit_quotas: Mutex::default(),
            ports,
        });
        for record in engine.ports.catalog.projections()? {
            let projection = engine.projection_of(record);
            engine.projections.write().insert(projection.record.key(), projection);
        }
        Ok(engine)
    }

    /// Starts the threads; every shard catches up from its committed position.
    pub fn start(self: &Arc<Self>) {
        self.start_with(|| ());
    }

    /// As [`Engine::start`]; each thread that folds what is slow calls
    /// `give_way` first, so that it can lower its priority.
    pub fn start_with(self: &Arc<Self>, give_way: impl Fn() + Clone + Send + 'static) {
        self.attach();
        let threads = match self.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        self.committers.start(threads);
        for number in 0..threads {
            self.spawn(Lane::Quick, format!("fold-{number}"), || ());
            self.spawn(Lane::Slow, format!("fold-slow-{number}"), give_way.clone());
        }
    }

    fn spawn(self: &Arc<Self>, lane: Lane, name: String, first: impl FnOnce() + Send + 'static) {
        let engine = self.clone();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                first();
                engine.run(lane);
            })
            .expect("threads can be spawned at start");
        self.threads.lock().push(thread);
    }

    /// Has the log wake shards, and all shards run once, without threads of its
    /// own: a simulation calls [`Engine::turn_once`] instead.
    pub fn attach(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.ports.log.on_append(Arc::new(move |partition, types| {
            if let Some(engine) = engine.upgrade() {
                engine.wake_partition(partition, types);
            }
        }));
        for slot in self.slots() {
            self.pool.wake(&slot);
        }
    }

    /// Ends the threads and commits nothing, as a crash would: for tests.
    pub fn abandon(&self) {
        self.pool.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a folding thread had panicked");
            }
        }
    }

    /// Commits what is applied, and positions, and ends the threads.
    pub fn shutdown(&self) {
        self.abandon();
        let slots = self.slots();
        // Several at a time: each waits for the disk.
        std::thread::scope(|scope| {
            for share in slots.chunks(slots.len().div_ceil(LAST_COMMITS).max(1)) {
                scope.spawn(move || share.iter().for_each(|slot| self.commit_last(slot)));
            }
        });
    }

    fn commit_last(&self, slot: &Slot) {
        let mut shard = slot.shard.lock();
        let Some(shard) = shard.as_mut() else {
            return;
        };
        if (shard.is_dirty() || shard.has_moved())
            && let Err(error) = shard.commit(self.ports.clock.monotonic())
        {
            // Nothing is lost: the log has it all.
            tracing::warn!(projection = %slot.id.projection, %error, "last commit failed");
        }
    }

    /// Runs one step of one shard that is waiting for a turn, on the caller's
    /// thread; `false` where none is.
    pub fn turn_once(&self) -> bool {
        let Some(slot) = self.pool.try_next(self.ports.clock.monotonic()) else {
            return false;
        };
        self.take_turn(slot, &mut CpuMeter::new(&*self.ports.clock));
        true
    }

    fn run(&self, lane: Lane) {
        let mut meter = CpuMeter::new(&*self.ports.clock);
        while let Some(slot) = self.pool.next(lane, || self.ports.clock.monotonic()) {
            self.take_turn(slot, &mut meter);
        }
    }

    fn take_turn(&self, slot: Arc<Slot>, meter: &mut CpuMeter) {
        let clock = &*self.ports.clock;
        let (began, before) = (clock.monotonic(), slot.seen.lock().usage.fuel);
        let turn = self.turn(&slot);
        let now = clock.monotonic();
        let cpu = meter.step(clock, now.saturating_sub(began));
        let after = slot.seen.lock().usage.fuel;
        // Counted anew where the shard was opened anew.
        let fuel = after.checked_sub(before).unwrap_or(after);
        self.pool.done(slot, turn, now, &Took { cpu, fuel });
    }

    /// One step of one shard, and what follows from it.
    pub(crate) fn turn(&self, slot: &Arc<Slot>) -> Turn {
        if !slot.may_run() {
            return self.rest(slot);
        }
        if slot.store.is_none() {
            return self.open_store(slot);
        }
        let leader = self.leader_of(slot);
        let now = self.ports.clock.monotonic();
        // Before the log is asked: it may wake before this step has ended.
        slot.awaits.store(true, Ordering::Release);
        let mut guard = slot.shard.lock();
        let outcome = self.step(slot, &mut guard, leader.as_ref().map(|l| l.next()), now);
        drop(guard);
        if !matches!(&outcome, Ok(stepped) if stepped.step == Step::Wait) {
            slot.awaits.store(false, Ordering::Release);
        }
        match outcome {
            Ok(stepped) => {
                let turn = self.went_on(slot, stepped.step);
                match (turn, stepped.sending) {
                    (Turn::Rest, Sending::After(wait)) => Turn::After(wait),
                    (turn, _) => turn,
                }
            }
            // Of a version that is being deleted there is nothing to tell.
            Err(_) if slot.deleted.load(Ordering::Acquire) => Turn::Rest,
            Err(Stop::Fault(reason)) => Turn::After(self.note_fault(slot, reason)),
            Err(Stop::Halt(reason)) => {
                tracing::error!(
                    projection = %slot.id.projection, version = %slot.id.version,
                    partition = %slot.id.partition, %reason, "halted"
                );
                metrics::counter!("lantern_engine_halts_total", "projection" => slot.id.projection.clone())
                    .increment(1);
                slot.seen.lock().halted = Some(reason.clone());
                self.note_halt(&slot.id, reason);
                Turn::Rest
            }
        }
    }

    /// Opens a state again that could not be opened for want of something that the
    /// machine may have by now.
    fn open_store(&self, slot: &Slot) -> Turn {
        let opened = self.ports.stores.open(&slot.id).map(drop).map_err(unopened);
        let reason = match opened {
            Ok(()) => {
                let _lifecycle = self.lifecycle.lock();
                match self.open_again(&slot.id.projection) {
                    Ok(()) => {
                        self.slots().iter().for_each(|slot| self.pool.wake(slot));
                        return Turn::Rest;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(Stop::Halt(reason)) => {
                slot.seen.lock().halted = Some(reason);
                return Turn::Rest;
            }
            Err(Stop::Fault(reason)) => reason,
        };
        Turn::After(self.note_fault(slot, reason))
    }

    /// What follows from a step that did not fail.
    fn went_on(&self, slot: &Slot, step: Step) -> Turn {
        let idle = step == Step::Idle;
        {
            let mut seen = slot.seen.lock();
            (seen.fault, seen.idle) = (None, idle);
        }
        if slot.active.load(Ordering::Acquire) {
            self.wake_followers(slot);
        } else if idle && !slot.caught_up.swap(true, Ordering::AcqRel) && !self.caught_up(slot) {
            return Turn::After(Duration::from_millis(self.config.fault_wait_ms));
        }
        match step {
            Step::More => Turn::Again,
            Step::Idle | Step::Wait => Turn::Rest,
        }
    }

    /// Before a shard stands still, readers are shown what it has applied.
    fn rest(&self, slot: &Slot) -> Turn {
        let mut guard = slot.shard.lock();
        let deleted = slot.deleted.load(Ordering::Acquire);
        let Some(shard) = guard.as_mut().filter(|shard| !deleted && shard.is_dirty()) else {
            return Turn::Rest;
        };
        let now = self.ports.clock.monotonic();
        let committed = self.commit(shard, now);
        slot.note(shard, now);
        match committed {
            Ok(()) => Turn::Rest,
            Err(error) => Turn::After(self.note_fault(slot, error.to_string())),
        }
    }

    /// Opens the shard where it is not open yet, and steps it.
    fn step(
        &self,
        slot: &Arc<Slot>,
        guard: &mut Option<Shard>,
        leader: Option<Offset>,
        now: Duration,
    ) -> Result<Stepped, Stop> {
        if slot.deleted.load(Ordering::Acquire) {
            return Ok(Stepped { step: Step::Wait, sending: Sending::Nothing });
        }
        if guard.is_none() {
            *guard = Some(self.open_shard(slot)?);
        }
        let shard = guard.as_mut().expect("just opened");
        let limits = StepLimits { now, before: leader, batch_events: None };
        // Only this projection waits while the log takes what it has emitted.
        let full = shard.state.epoch.is_some()
            && outbox::unsent(&shard.state) >= self.config.emit_unsent_max;
        let outcome = if full { shard.hold(now) } else { shard.step(&*self.ports.log, &limits) };
        self.tell_commits(shard);
        let sending = self.send(slot, shard, now);
        slot.note(shard, now);
        slot.seen.lock().outbox.full = full;
        if matches!(outcome, Ok(Step::More)) {
            self.count_intake(slot.id.partition, now);
        }
        let sending = sending?;
        outcome.map(|step| Stepped { step, sending })
    }

    /// Hands committed events of the shard's outbox to the log.
    fn send(&self, slot: &Arc<Slot>, shard: &mut Shard, now: Duration) -> Result<Sending, Stop> {
        if !outbox::has_outbox(&shard.state) || shard.is_dirty() {
            return Ok(Sending::Nothing);
        }
        let (pool, woken) = (Arc::downgrade(&self.pool), Arc::downgrade(slot));
        let wake = move || {
            if let (Some(pool), Some(slot)) = (pool.upgrade(), woken.upgrade()) {
                pool.wake(&slot);
            }
        };
        let quota = {
            let mut quotas = self.emit_quotas.lock();
            Arc::clone(quotas.entry(slot.id.projection.clone()).or_default())
        };
        let limits = SendLimits { now, wall: self.ports.clock.wall(), quota: &quota };
        Ok(shard.send(&*self.ports.log, &limits, wake)?)
    }

    /// Notes where the log ends, for the time that a fold still takes.
    fn count_intake(&self, partition: PartitionId, now: Duration) {
        let Some(intake) = self.intake.get(partition.0 as usize) else { return };
        if let Ok(bounds) = self.ports.log.bounds(partition) {
            intake.lock().count(now, bounds.end.0);
        }
    }

    /// Commits what a shard has applied, and tells readers.
    pub(crate) fn commit(&self, shard: &mut Shard, now: Duration) -> Result<(), StoreError> {
        let committed = shard.commit(now);
        self.tell_commits(shard);
        committed
    }

    /// Tells readers what was committed.
    fn tell_commits(&self, shard: &mut Shard) {
        for commit in shard.commits.take_unpublished() {
            self.ports.publish.committed(&commit);
        }
    }

    pub(crate) fn open_shard(&self, slot: &Arc<Slot>) -> Result<Shard, Stop> {
        let gone = || Stop::Halt("the version was deleted".into());
        let (build, emit_from, epoch, logs) = {
            let projections = self.projections.read();
            let projection = projections.get(&slot.id.projection).ok_or_else(gone)?;
            let build = projection.builds.get(&slot.id.version).ok_or_else(gone)?.clone();
            let active = projection.record.active.as_ref() == Some(&slot.id.version);
            let epoch = active.then(|| build.epoch(&projection.record));
            // Of the record, since a flip changes it.
            let version = projection.record.version(&slot.id.version);
            let emit_from = version.map(|v| v.emit_from.clone()).unwrap_or_default();
            (build, emit_from, epoch, projection.logs.clone())
        };
        let mut shard = Shard::open(ShardParts {
            id: slot.id.clone(),
            plugin: self.plugin_of(&build)?,
            store: slot.store.clone().ok_or_else(|| {
                let seen = slot.seen.lock();
                match (&seen.halted, &seen.fault) {
                    (None, Some(fault)) => Stop::Fault(fault.reason.clone()),
                    (reason, _) => Stop::Halt(
                        reason.clone().unwrap_or_else(|| "its state could not be opened".into()),
                    ),
                }
            })?,
            config: self.config.clone(),
            logs: self.log_sink(slot, logs),
            committers: Some(self.committers.clone()),
        })?;
        shard.state.epoch = epoch;
        if shard.state.meta.born == 0 {
            shard.state.meta.born = slot.born;
        }
        shard.state.outbox.emits_as = build.version.emits_as();
        let created = build.version.created.0;
        shard.state.outbox.name = format!("{}/{}.{created:x}", slot.id.projection, slot.id.version);
        shard.state.outbox.emit_from =
            emit_from.get(slot.id.partition.0 as usize).copied().unwrap_or_default();
        Ok(shard)
    }

    /// The version's plugin, loaded once for all its shards.
    pub(crate) fn plugin_of(&self, build: &Build) -> Result<Arc<dyn Plugin>, PluginError> {
        let mut plugin = build.plugin.lock();
        if let Some(plugin) = &*plugin {
            return Ok(plugin.clone());
        }
        let loaded = self.ports.plugins.load(&build.version)?;
        if *loaded.manifest() != build.version.manifest {
            return Err(PluginError::Unfit(
                "setup answers another manifest than at upload: rebuild it, or push it again"
                    .into(),
            ));
        }
        *plugin = Some(loaded.clone());
        Ok(loaded)
    }

    fn log_sink(&self, slot: &Slot, lines: Arc<Mutex<VecDeque<LogLine>>>) -> LogSink {
        let (id, clock, most) =
            (slot.id.clone(), self.ports.clock.clone(), self.config.log_lines_max);
        Arc::new(move |offset, level, message| {
            let line = LogLine {
                time_us: clock.wall().0,
                version: id.version.0.clone(),
                partition: id.partition.0,
                offset: offset.0,
                level: format!("{level:?}").to_lowercase(),
                message: message.to_owned(),
            };
            let mut lines = lines.lock();
            if lines.len() >= most {
                lines.pop_front();
            }
            lines.push_back(line);
        })
    }

    fn note_fault(&self, slot: &Slot, reason: String) -> Duration {
        let first = Duration::from_millis(self.config.fault_wait_ms);
        let most = Duration::from_millis(self.config.fault_wait_ms_max);
        let mut seen = slot.seen.lock();
        let wait = seen.fault.as_ref().map_or(first, |fault| (fault.wait * 2).clamp(first, most));
        tracing::warn!(
            projection = %slot.id.projection, version = %slot.id.version,
            partition = %slot.id.partition, %reason, ?wait, "fault, will try again"
        );
        metrics::counter!("lantern_engine_faults_total", "projection" => slot.id.projection.clone())
            .increment(1);
        seen.idle = false;
        seen.fault = Some(Fault { reason, wait });
        wait
    }

    /// The shard of the active version that `slot` must not overtake.
    fn leader_of(&self, slot: &Slot) -> Option<Arc<Slot>> {
        if slot.active.load(Ordering::Acquire) {
            return None;
        }
        let projections = self.projections.read();
        let projection = projections.get(&slot.id.projection)?;
        let active = projection.record.active.as_ref()?;
        if *active == slot.id.version {
            return None;
        }
        let leader = projection.builds.get(active)?.slots.get(slot.id.partition.0 as usize)?;
        // Of one whose state cannot be read nobody knows where it stands.
        leader.store.is_some().then(|| leader.clone())
    }

    fn wake_followers(&self, slot: &Slot) {
        let projections = self.projections.read();
        let Some(projection) = projections.get(&slot.id.projection) else {
            return;
        };
        for (version, build) in &projection.builds {
            if *version != slot.id.version
                && let Some(follower) = build.slots.get(slot.id.partition.0 as usize)
                && follower.next() < slot.next()
            {
                self.pool.wake(follower);
            }
        }
    }

    /// Wakes the shards of `partition`, lazily those that want none of `types`:
    /// they only move their position past them.
    fn wake_partition(&self, partition: PartitionId, types: Option<&[String]>) {
        let now = self.ports.clock.monotonic();
        for projection in self.projections.read().values() {
            for build in projection.builds.values() {
                let Some(slot) = build.slots.get(partition.0 as usize) else {
                    continue;
                };
                let runs = slot.active.load(Ordering::Acquire)
                    || slot.awaits.load(Ordering::Acquire)
                    || projection.record.active.is_none();
                if !runs {
                    continue;
                }
                if types.is_none_or(|types| types.iter().any(|kind| build.wanted.matches(kind))) {
                    self.pool.wake(slot);
                } else {
                    self.pool.wake_lazily(slot, now);
                }
            }
        }
    }

    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        let projections = self.projections.read();
        let builds = projections.values().flat_map(|p| p.builds.values());
        builds.flat_map(|build| build.slots.iter().cloned()).collect()
    }

    /// A projection as its record has it, with every shard's state opened.
    pub(crate) fn projection_of(&self, record: ProjectionRecord) -> Projection {
        let builds = record
            .versions
            .iter()
            .map(|version| (version.id.clone(), Arc::new(self.build_of(&record, version))))
            .collect();
        let active = record.active.as_ref().and_then(|id| record.version(id));
        let kept = active.and_then(|version| version.verified.as_deref());
        // Of another release, it says nothing.
        let verified = kept.and_then(|json| serde_json::from_str(json).ok());
        let verified = Arc::new(Mutex::new(verified));
        Projection { record, builds, logs: Arc::default(), verified }
    }

    pub(crate) fn build_of(&self, record: &ProjectionRecord, version: &VersionRecord) -> Build {
        let active = record.active.as_ref() == Some(&version.id);
        let slots = (0..self.ports.log.partitions()).map(|partition| {
            let id = ShardId {
                projection: record.key(),
                version: version.id.clone(),
                rebuild: version.rebuilds,
                partition: PartitionId(partition),
            };
            let store = self.ports.stores.open(&id).map_err(unopened);
            let slot = Slot::new(id, store, &*self.ports.random);
            slot.active.store(active, Ordering::Release);
            slot.paused.store(record.paused, Ordering::Release);
            if let Some(reason) = &version.halted {
                slot.seen.lock().halted.get_or_insert_with(|| reason.clone());
            }
            Arc::new(slot)
        });
        Build {
            version: version.clone(),
            manifest: Arc::new(version.manifest.clone()),
            wanted: wanted(&version.manifest),
            plugin: Mutex::default(),
            slots: slots.collect(),
        }
    }
}

impl Views for Engine {
    fn view(&self, projection: &str) -> Result<View, ViewError> {
        let (build, epoch) = {
            let projections = self.projections.read();
            let found = projections
                .get(projection)
                .ok_or_else(|| ViewError::NoProjection(projection.into()))?;
            let active = found.record.active.as_ref();
            let build = active
                .and_then(|id| found.builds.get(id))
                .ok_or_else(|| ViewError::NotActive(projection.into()))?;
            (build.clone(), build.epoch(&found.record))
        };
        self.view_of(projection, &build, epoch)
    }

    fn view_version(&self, projection: &str, version: &VersionId) -> Result<View, ViewError> {
        let (build, epoch) = {
            let projections = self.projections.read();
            let found = projections
                .get(projection)
                .ok_or_else(|| ViewError::NoProjection(projection.into()))?;
            let build = found
                .builds
                .get(version)
                .ok_or_else(|| ViewError::NoVersion(projection.into(), version.clone()))?;
            let rebuilds = build.version.rebuilds;
            (build.clone(), format!("shadow.{version}.{rebuilds}.{:016x}", build.born()))
        };
        self.view_of(projection, &build, epoch)
    }
}

impl Engine {
    fn view_of(&self, projection: &str, build: &Build, epoch: String) -> Result<View, ViewError> {
        let mut snapshots = Vec::with_capacity(build.slots.len());
        for slot in &build.slots {
            let store = slot.store.as_ref().ok_or_else(|| {
                let reason = slot.seen.lock().halted.clone().unwrap_or_default();
                lantern_core::StoreError::Damaged(reason)
            })?;
            snapshots.push((slot.id.partition, store.snapshot()?));
        }
        let version = build.version.id.clone();
        let view = View::new(projection.into(), version, epoch, build.manifest.clone(), snapshots)?;
        Ok(view.of_log(self.ports.log.clone()))
    }
}
