//! Implements an engine over fake ports, and a model of every version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lantern_core::fake::{
    AppendClock, CountingRandom, ManualClock, MemoryCatalog, MemoryLog, MemoryStores,
};
use lantern_core::{
    Catalog, CommitSink, Event, HEARTBEAT_TYPE, KeyRange, LogError, Offset, PartitionId,
    ProjectionRecord, PublishedCommit, ReadStore, ShardId, ShardMeta, ShardPoint, ShardStore as _,
    Space, StoreError, TableId, Timestamp, UNREADABLE_KIND, UNREADABLE_REASON, UNREADABLE_TYPE,
    VersionId, VersionRecord, Views as _, emitted_id,
};
use lantern_engine::{
    Activation, Engine, EngineConfig, EngineError, ParkedSelection, Ports, Upload, version_id,
};
use parking_lot::Mutex;
use serde_json::json;

use super::emitted::{Account, Answers, ById, Refused};
use super::history::{Actor, CLAIMED, HistoryAction, Input, KINDS, Setting, TENANTS};
use super::limited::LimitedLog;
use crate::echo;
use crate::model::{Choice, Flaw, Model, meta_of};
use crate::planted::{BadLog, BadPublish, BadStores};
use crate::test_projection::{self, Flaky, Flaws, NAME, Reading, SECOND, Shelf};

const P0: PartitionId = PartitionId(0);
/// The limit on the emit depth that applies if there is no second projection.
const DEPTH_MAX: u32 = 16;
/// The maximum number of turns of the engine until it has nothing left to do. No history needs
/// that many.
const TURNS_MAX: u32 = 20_000;

/// The bugs that are planted in the ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// The flaws of the plugin.
    pub flaws: Flaws,
    /// The bug of the stores.
    pub stores: Option<crate::planted::Stores>,
    /// The bug of the log.
    pub log: Option<crate::planted::Logs>,
    /// Whether the sink for commits loses some of them.
    pub unpublished: bool,
    /// The bug of the model.
    pub model: Option<Flaw>,
}

/// Identifies a *build*: the tables of a version between two rebuilds. It consists of the version,
/// and of the number of rebuilds before.
type BuildId = (String, u64);

/// Something that the engine published to the readers.
#[derive(Debug)]
enum Published {
    Committed(Arc<PublishedCommit>),
    /// Readers now get other tables: those of another version, or rebuilt ones. Contains the epoch
    /// of these tables (`None` if no version is active any more), their next offset at that moment,
    /// and the rows that a client sees first.
    Activated(Option<String>, Offset, Shown),
}

/// Records everything that the engine publishes, each with the next offsets of the shards at that
/// moment.
struct Watch {
    stores: Arc<MemoryStores>,
    calls: Mutex<Vec<Published>>,
}

impl CommitSink for Watch {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        self.calls.lock().push(Published::Committed(Arc::clone(commit)));
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        if projection != NAME {
            return;
        }
        let epoch = epoch.map(str::to_owned);
        let build = epoch.as_deref().and_then(build_of_epoch);
        let store = build.map(|build| self.stores.shard(&shard_id(&build)).peek());
        let next = store.as_ref().and_then(|store| meta_of(&**store).ok()).map(|meta| meta.next);
        let shown =
            store.and_then(|store| Shown::of(epoch.clone().unwrap_or_default(), &*store).ok());
        let (next, shown) = (next.unwrap_or_default(), shown.unwrap_or_default());
        self.calls.lock().push(Published::Activated(epoch, next, shown));
    }
}

/// A client of the feed, with the rows of the public tables that it shows.
#[derive(Debug, Default)]
struct Shown {
    epoch: String,
    pos: u64,
    rows: BTreeMap<(TableId, String), Vec<u8>>,
}

/// The state that a client of the feed showed before a crash.
#[derive(Debug)]
struct Before {
    epoch: String,
    pos: u64,
    point: ShardPoint,
}

/// The engine with its ports, and the models of the state that the engine must reach.
pub struct World {
    log: Arc<MemoryLog>,
    limited: Arc<LimitedLog>,
    stores: Arc<MemoryStores>,
    catalog: Arc<MemoryCatalog>,
    clock: Arc<ManualClock>,
    watch: Arc<Watch>,
    shelf: Arc<Shelf>,
    ports: Ports,
    config: EngineConfig,
    engine: Arc<Engine>,
    call_faults: Arc<AtomicU32>,
    time: i64,
    /// The log's clock. Events get their append times from it.
    log_time: i64,
    appended: u64,
    held: bool,
    models: BTreeMap<BuildId, Model>,
    /// The models at the last durable commit. A crash undoes everything after that commit.
    durable_models: BTreeMap<BuildId, Model>,
    serving: Option<BuildId>,
    /// The prefixes with which the ids of emitted events begin.
    names: BTreeMap<BuildId, String>,
    /// The events that were emitted by versions, or before rebuilds, whose tables are deleted now.
    emitted_before: ById,
    /// The events that the log may or may not contain.
    perhaps: ById,
    /// The emitted events that can no longer reach the log. Either the log refused them and an
    /// operator then dropped them, or they were deleted with their version.
    gone: BTreeSet<String>,
    /// The prefix with which the ids of the second projection's events begin, if there is one.
    echo: Option<String>,
    shown: Shown,
    /// The state that the client showed before a crash. It is set until the client can read again.
    reconnects: Option<Before>,
    /// How often the projection was deleted.
    creation: u64,
    /// For each epoch that a reader saw, the history that it identified: the tables, and the number
    /// of times that the projection had been deleted before.
    epochs: BTreeMap<String, (u64, BuildId)>,
    /// The bug that is planted in models.
    flaw: Option<Flaw>,
}

/// Returns the engine's settings in a history with the settings `setting`.
fn engine_config(setting: &Setting) -> EngineConfig {
    EngineConfig {
        batch_events_max: setting.batch_events,
        batch_timers_max: setting.batch_timers,
        commit_ms: setting.commit_ms,
        sync_ms: setting.sync_ms,
        unsynced_events_max: setting.unsynced_events,
        changes_bytes_max: setting.changes_bytes,
        parked_in_a_row_max: u64::MAX,
        ahead_max_s: test_projection::AHEAD_S,
        emit_depth_max: setting.echo_depth.unwrap_or(DEPTH_MAX),
        ..EngineConfig::default()
    }
}

impl World {
    /// Creates a new engine over an empty log.
    ///
    /// # Panics
    /// Never: an empty catalogue can be read.
    #[must_use]
    pub fn new(setting: &Setting, planted: Planted) -> Self {
        let config = engine_config(setting);
        let log = Arc::new(MemoryLog::new(1, setting.chunk_events));
        log.begin_incarnation();
        let stores = Arc::new(MemoryStores::new());
        let limited = Arc::new(LimitedLog::new(Arc::clone(&log), Arc::clone(&stores)));
        let catalog = Arc::new(MemoryCatalog::new());
        let clock = Arc::new(ManualClock::at(Timestamp(1_000 * SECOND)));
        let watch = Arc::new(Watch { stores: Arc::clone(&stores), calls: Mutex::default() });
        let shelf = Arc::new(Shelf::default());
        let call_faults = Arc::new(AtomicU32::new(0));
        for kind in KINDS {
            let plugin = test_projection::plugin(kind, planted.flaws);
            let flaky = Flaky::new(plugin, Arc::clone(&call_faults));
            shelf.put(&test_projection::sha256(kind), Arc::new(flaky));
        }
        let ports = Ports {
            log: BadLog::over(limited.clone(), planted.log),
            stores: BadStores::over(stores.clone(), planted.stores),
            catalog: catalog.clone(),
            publish: BadPublish::over(watch.clone(), planted.unpublished),
            clock: clock.clone(),
            random: Arc::new(CountingRandom::default()),
            plugins: shelf.clone(),
            traces: None,
        };
        let engine = Engine::open(config.clone(), ports.clone()).expect("the catalogue is empty");
        engine.attach();
        let mut world = Self {
            log,
            limited,
            stores,
            catalog,
            clock,
            watch,
            shelf,
            ports,
            config,
            engine,
            call_faults,
            time: 0,
            log_time: 0,
            appended: 0,
            held: false,
            models: BTreeMap::new(),
            durable_models: BTreeMap::new(),
            serving: None,
            names: BTreeMap::new(),
            emitted_before: ById::new(),
            perhaps: ById::new(),
            gone: BTreeSet::new(),
            echo: None,
            shown: Shown::default(),
            reconnects: None,
            creation: 0,
            epochs: BTreeMap::new(),
            flaw: planted.model.map(|flaw| match flaw {
                Flaw::ParkedAsOfBatch(_) => Flaw::ParkedAsOfBatch(setting.batch_events as u64),
                other => other,
            }),
        };
        if setting.echo_depth.is_some() {
            world.start_echo();
        }
        world
    }

    /// Uploads the second projection, which serves readers from the start of the log.
    fn start_echo(&mut self) {
        let sha256 = echo::NAME.to_owned();
        self.shelf.put(&sha256, echo::plugin());
        let upload = Upload { check: false, ..Upload::new(echo::plugin(), sha256) };
        self.engine.upload(upload).expect("nothing else is there");
        self.settle().expect("there is nothing to fold");
        let record = self.record_of(echo::NAME).expect("it was just uploaded");
        self.echo = Some(record.versions[0].emits_as());
    }

    /// Executes `step`, and compares everything with the model.
    ///
    /// # Errors
    /// The error describes the difference.
    pub fn step(&mut self, step: &HistoryAction) -> Result<()> {
        match step {
            HistoryAction::Append(inputs) => self.append(inputs),
            HistoryAction::Turns(turns) => {
                for _ in 0..*turns {
                    self.engine.turn_once();
                }
            }
            HistoryAction::Settle => self.settle()?,
            HistoryAction::Restart => self.restart()?,
            HistoryAction::Wait(ms) => self.clock.advance(Duration::from_millis((*ms).into())),
            HistoryAction::FailCommit(behind) => {
                let error = StoreError::Io("told to fail".into());
                self.serving_shard().fail_commit((*behind).into(), error);
            }
            HistoryAction::FailStateRead => {
                self.serving_shard().fail_next_read(StoreError::Io("told to fail".into()));
            }
            HistoryAction::FailLogRead => {
                self.log.fail_next_read(LogError::Unavailable("told to fail".into()));
            }
            HistoryAction::FailAppend => {
                self.log.fail_next_append(LogError::Unavailable("told to fail".into()));
            }
            HistoryAction::FailCatalog => {
                self.catalog.fail_next_write(StoreError::Io("told to fail".into()));
            }
            HistoryAction::FailCalls(calls) => {
                self.call_faults.store((*calls).into(), Ordering::SeqCst)
            }
            HistoryAction::Hold => {
                self.log.hold_appends();
                self.held = true;
            }
            HistoryAction::Release => {
                self.log.release_appends();
                self.held = false;
            }
            HistoryAction::Limit(limited) => self.limited.limit(*limited),
            HistoryAction::Retry(choice) => return self.decide(choice, true),
            HistoryAction::Discard(choice) => return self.decide(choice, false),
            lifecycle => self.lifecycle(lifecycle)?,
        }
        self.check()
    }

    fn lifecycle(&mut self, step: &HistoryAction) -> Result<()> {
        let outcome = match step {
            HistoryAction::Upload(kind, activate) => {
                let sha256 = test_projection::sha256(KINDS[usize::from(*kind)]);
                let record = VersionRecord { sha256: sha256.clone(), ..VersionRecord::default() };
                let plugin = lantern_engine::PluginSource::load(&*self.shelf, &record);
                let plugin = plugin.map_err(anyhow::Error::msg)?;
                // The time of the upload is part of the version's identity, so it must differ.
                self.clock.advance(Duration::from_micros(1));
                let activate = Activation::checked(*activate);
                let upload = Upload { activate, check: false, ..Upload::new(plugin, sha256) };
                self.engine.upload(upload).map(drop)
            }
            HistoryAction::Activate(kind) => self.engine.activate(NAME, &id_of(*kind), true),
            HistoryAction::Rollback => self.engine.rollback(NAME).map(drop),
            HistoryAction::Delete(kind) => {
                let version = id_of(*kind).0;
                let refused = self.refused_of(Some(&version))?;
                let deleted = self.engine.delete_version(NAME, &id_of(*kind));
                if deleted.is_ok() {
                    self.gone.extend(refused.into_iter().map(|refused| refused.id));
                    self.check()?;
                    let gone: Vec<_> =
                        self.models.keys().filter(|b| b.0 == version).cloned().collect();
                    gone.iter().for_each(|build| self.bury(build));
                }
                deleted
            }
            HistoryAction::DeleteAll => self.delete_all()?,
            HistoryAction::Rebuild(kind) => self.rebuild(&id_of(*kind)),
            HistoryAction::Pause => self.engine.pause(NAME),
            HistoryAction::Resume => {
                let resumed = self.engine.resume(NAME);
                if resumed.is_ok() {
                    self.check()?;
                }
                resumed
            }
            other => bail!("`{other:?}` is no step of a life cycle"),
        };
        match outcome {
            Err(error @ EngineError::Halted(..)) if !error.to_string().contains("told to") => {
                bail!("{error}")
            }
            _ => Ok(()),
        }
    }

    /// Removes the faults that were injected into the states.
    fn mend(&self) {
        for shard in self.stores.shards() {
            self.stores.shard(&shard).clear_faults();
        }
    }

    /// Deletes the projection. Its emitted events stay in the log.
    fn delete_all(&mut self) -> Result<Result<(), EngineError>> {
        if let Err(error) = self.engine.delete(NAME) {
            return Ok(Err(error));
        }
        let events = self.events();
        let gone: Vec<_> = self.models.keys().cloned().collect();
        for build in gone {
            self.bury(&build);
        }
        // The outboxes may also have contained events that were emitted before a rebuild.
        let all = std::mem::take(&mut self.emitted_before);
        self.take_account(all, &events);
        self.creation += 1;
        Ok(Ok(()))
    }

    /// Records which of the events `all` are in the log. The tables of the versions that emitted
    /// them are deleted.
    fn take_account(&mut self, all: ById, events: &[Event]) {
        for (id, what) in all {
            if events.iter().any(|event| event.id == id) {
                self.emitted_before.insert(id, what);
            } else {
                // The event is still being sent, or it was deleted together with the state.
                self.perhaps.insert(id, what);
            }
        }
    }

    fn rebuild(&mut self, version: &VersionId) -> Result<(), EngineError> {
        // Unsent events of a state are kept if the state can be read, so no read may fail here.
        self.mend();
        let half = self.half_ticked(version);
        self.engine.rebuild(NAME, version)?;
        if let Some((build, model)) = half {
            self.models.insert(build, model);
        }
        Ok(())
    }

    /// Returns the model of `version`, if the version is active and a fault interrupted it in the
    /// middle of a tick; otherwise `None`. The model has the events that the version had emitted by
    /// then.
    fn half_ticked(&mut self, version: &VersionId) -> Option<(BuildId, Model)> {
        let build = self.serving.clone().filter(|build| build.0 == version.0)?;
        let meta = meta_of(&*self.stores.shard(&shard_id(&build)).peek()).ok()?;
        if !Model::in_between(&meta) {
            return None;
        }
        let events = self.events();
        let mut model = self.model(&build).clone();
        model.advance(&events, meta.next).ok()?;
        model.emitted.truncate(usize::try_from(meta.emitted).ok()?);
        model.half_tick = Some(meta.tick_emitted);
        Some((build, model))
    }

    fn append(&mut self, inputs: &[Input]) {
        for input in inputs {
            self.appended += 1;
            let id = format!("e{}", self.appended);
            let mut event = match input {
                Input::Read(who, ms, reading) => {
                    self.time = (self.time + i64::from(*ms) * 1_000).max(0);
                    reading_of(*who, self.time, *reading)
                }
                Input::Ahead(who, seconds) => {
                    let time = self.log_time + i64::from(*seconds) * SECOND;
                    reading_of(*who, time, Reading::Value(1))
                }
                Input::Heartbeat(ms) => {
                    self.time += i64::from(*ms) * 1_000;
                    Event { kind: HEARTBEAT_TYPE.into(), ..Event::default() }
                }
                Input::Unreadable(claimed) => unreadable(CLAIMED[usize::from(*claimed)]),
                Input::Other => Event { kind: "x.other".into(), ..Event::default() },
            };
            if !matches!(input, Input::Ahead(..)) {
                event.time = Timestamp(self.time);
            }
            self.log_time = self.log_time.max(self.time);
            if event.kind != UNREADABLE_TYPE {
                event.extensions = json!({ test_projection::APPENDED: self.log_time }).to_string();
            }
            (event.id, event.source) = (id, "test".into());
            self.log.set_append_clock(AppendClock::At(Timestamp(self.log_time)));
            self.log.append_to(P0, [event]);
        }
    }

    /// Lets the engine take turns until nothing is left to do, even if faults interrupt it.
    fn settle(&mut self) -> Result<()> {
        let mut turns = 0;
        for _ in 0..40 {
            while self.engine.turn_once() {
                turns += 1;
                ensure!(turns < TURNS_MAX, "the engine never comes to rest");
            }
            self.clock.advance(Duration::from_secs(20));
        }
        Ok(())
    }

    /// Restarts the engine. Everything that existed only in memory is lost.
    fn restart(&mut self) -> Result<()> {
        self.check()?;
        if let Some(build) = &self.serving
            && self.reconnects.is_none()
        {
            let meta = meta_of(&*self.stores.shard(&shard_id(build)).peek())?;
            let (epoch, pos) = (self.shown.epoch.clone(), self.shown.pos);
            self.reconnects = Some(Before { epoch, pos, point: ShardPoint::of(&meta) });
        }
        self.stores.crash();
        self.log.begin_incarnation();
        self.models.clone_from(&self.durable_models);
        self.engine = Engine::open(self.config.clone(), self.ports.clone())?;
        self.engine.attach();
        Ok(())
    }

    /// After a crash, lets the client read again as soon as the engine allows it. The state that
    /// the client then reads must not be older than the state that it showed before the crash.
    fn reconnect(&mut self) -> Result<()> {
        let Some(before) = &self.reconnects else { return Ok(()) };
        let Ok(view) = self.engine.view(NAME) else { return Ok(()) };
        let same = view.epoch() == before.epoch;
        let point = view.checkpoint().points.first().copied().unwrap_or_default();
        ensure!(
            !same || (point.reaches(&before.point) && view.pos() >= before.pos),
            "a client shows {before:?}, and reads an older state after a crash: {} at {point:?}",
            view.pos()
        );
        if let Some(build) = &self.serving {
            let store = self.stores.shard(&shard_id(build)).peek();
            self.shown = Shown::of(view.epoch().to_owned(), &*store)?;
        }
        self.reconnects = None;
        Ok(())
    }

    /// Checks that everything that the engine has reported to others is durable.
    fn check_durable(&self, record: &ProjectionRecord) -> Result<()> {
        if let Some(id) = self.limited.sent_too_early() {
            bail!("event {id} was sent before it was durable");
        }
        for version in self.engine.status_of(NAME)?.versions {
            let rebuilds = record.versions.iter().find(|v| v.id.0 == version.id);
            let build = (version.id.clone(), rebuilds.map_or(0, |version| version.rebuilds));
            let shard = self.stores.shard(&shard_id(&build));
            let durable = meta_of(&*shard.peek_durable())?.next;
            let reported = version.shards.first().map_or(0, |shard| shard.durable);
            ensure!(
                reported <= durable.0,
                "durable up to {reported} is reported, and {durable} is"
            );
            let parked = |store: &dyn ReadStore| {
                store.scan(Space::Parked, &KeyRange::all(), usize::MAX, false)
            };
            ensure!(
                parked(&*shard.peek())? == parked(&*shard.peek_durable())?,
                "parked events of version {} are not durable",
                version.id
            );
        }
        Ok(())
    }

    /// Retries or drops parked events, in the engine and in the model.
    fn decide(&mut self, choice: &Choice, retry: bool) -> Result<()> {
        // If a retry or drop fails in the middle, it may or may not have had its effect. Both are
        // correct.
        self.call_faults.store(0, Ordering::SeqCst);
        self.mend();
        self.settle()?;
        self.check()?;
        let mut selection = ParkedSelection::default();
        match choice {
            Choice::All => selection.all = true,
            Choice::Subject(tenant, subject) => {
                selection.tenant = Some(tenant.clone());
                selection.subject = Some(subject.clone());
            }
            Choice::Offset(offset) => selection.offsets.push(*offset),
        }
        let record = self.record();
        let chosen = record.as_ref().and_then(|record| {
            let newest = record.versions.last().map(|v| v.id.clone());
            record.active.clone().or(newest).and_then(|id| record.version(&id).cloned())
        });
        let before = chosen.as_ref().map(|v| (v.id.0.clone(), v.rebuilds));
        let version = chosen.as_ref().map(|v| v.id.0.as_str());
        let mut refused = version.map_or(Ok(Vec::new()), |id| self.refused_of(Some(id)))?;
        refused.retain(|refused| refused.is_chosen(choice));
        let decided = match retry {
            true => self.engine.retry(NAME, None, &selection),
            false => self.engine.drop_parked(NAME, None, &selection),
        };
        let outcome = match (decided, before) {
            (Ok(outcome), Some(build)) => (outcome, build),
            (Err(EngineError::NoProjection(_) | EngineError::NotActive(_)), _) => return Ok(()),
            // The engine could not open the state at its last start.
            (Err(EngineError::Halted(.., reason)), _) if reason.contains("told to") => {
                return Ok(());
            }
            (Err(error), _) => bail!("the decision failed: {error}"),
            (Ok(_), None) => bail!("a decision over no projection was taken"),
        };
        let (outcome, build) = outcome;
        let meta = meta_of(&*self.stores.shard(&shard_id(&build)).peek())?;
        let events = self.events();
        let model = self.models.get_mut(&build).context("there is no model of the version")?;
        model.advance(&events, meta.next)?;
        let done = if retry { model.retry(choice) } else { model.discard(choice) };
        let done = done + refused.len() as u64;
        if !retry {
            self.gone.extend(refused.into_iter().map(|refused| refused.id));
        }
        ensure!(outcome.done == done, "{} were done, and should be {done}", outcome.done);
        self.check()
    }

    /// Compares everything that was committed, published and emitted.
    fn check(&mut self) -> Result<()> {
        let events = self.events();
        let calls = std::mem::take(&mut *self.watch.calls.lock());
        for call in calls {
            match call {
                // A client that reconnects gets these commits with its first read.
                Published::Committed(_) if self.reconnects.is_some() => (),
                Published::Committed(commit) => self.shown.commit(&commit)?,
                Published::Activated(epoch, next, shown) => {
                    self.activated(epoch, next)?;
                    self.shown = shown;
                    self.reconnects.take_if(|before| before.epoch != self.shown.epoch);
                }
            }
        }
        self.reconnect()?;
        let Some(record) = self.record() else { return Ok(()) };
        for version in &record.versions {
            let build = (version.id.0.clone(), version.rebuilds);
            let stale: Vec<_> =
                self.models.keys().filter(|b| b.0 == build.0 && b.1 != build.1).cloned().collect();
            for stale in stale {
                self.bury(&stale);
            }
            let name = format!("{}.{:x}.{}", version.id, version.created.0, version.rebuilds);
            self.names.insert(build.clone(), name);
            let store = self.stores.shard(&shard_id(&build)).peek();
            let meta = meta_of(&*store)?;
            let model = self.model(&build);
            if Model::in_between(&meta) {
                continue;
            }
            let context =
                || format!("version {}, rebuilt {} times, at {}", build.0, build.1, meta.next);
            // If a shard has only skipped events to which the projection does not subscribe, it
            // need not commit.
            if !only_passed(&events, meta.next, model.next) {
                model.advance(&events, meta.next).with_context(context)?;
            }
            model.compare(&*store, &meta).with_context(context)?;
            let model = model.clone();
            if !self.stores.shard(&shard_id(&build)).has_unsynced() {
                self.durable_models.insert(build, model);
            }
        }
        self.check_durable(&record)?;
        self.check_shown()?;
        self.check_emitted(&events, false)
    }

    fn model(&mut self, build: &BuildId) -> &mut Model {
        let kind = KINDS.into_iter().find(|kind| version_of(*kind).0 == build.0);
        let kind = kind.unwrap_or(KINDS[0]);
        let (flaw, depth_max) = (self.flaw, self.config.emit_depth_max);
        let new = || Model::new(kind, depth_max).with(flaw);
        let model = self.models.entry(build.clone()).or_insert_with(new);
        self.durable_models.entry(build.clone()).or_insert_with(|| model.clone());
        model
    }

    /// Records that readers get other tables, whose next offset is `next`.
    fn activated(&mut self, epoch: Option<String>, next: Offset) -> Result<()> {
        let Some(epoch) = epoch else {
            self.serving = None;
            return Ok(());
        };
        let build = build_of_epoch(&epoch).with_context(|| format!("epoch `{epoch}`"))?;
        let named = (self.creation, build.clone());
        let seen = self.epochs.entry(epoch.clone()).or_insert_with(|| named.clone());
        ensure!(*seen == named, "epoch `{epoch}` named {seen:?}, and names {named:?} now");
        let before = self.serving.replace(build.clone());
        let changed = [Some(build.clone()), before.clone()];
        match before {
            // The engine could not open the state at first, and has opened it now.
            Some(old) if old == build => (),
            // A rebuild starts from scratch, and emits only the events that were not emitted before
            // it.
            Some(old) if old.0 == build.0 => {
                let old = self.model(&old);
                let (from, sent) = match old.next.cmp(&old.emit_from) {
                    std::cmp::Ordering::Less => (old.emit_from, old.tick_sent),
                    std::cmp::Ordering::Equal => (old.next, old.half_tick.max(old.tick_sent)),
                    std::cmp::Ordering::Greater => (old.next, old.half_tick),
                };
                let model = self.model(&build);
                (model.emit_from, model.tick_sent) = (from, sent);
                model.serve(Offset(0), true);
            }
            before => {
                let mut emit_from = (Offset(0), None);
                if let Some(old) = before {
                    // If the state of the previous version could not be opened, that version
                    // has stopped before offset `next`.
                    let store = self.stores.shard(&shard_id(&old)).peek();
                    let stopped = meta_of(&*store)?.next.min(next);
                    let model = self.model(&old);
                    model.serve(stopped, false);
                    emit_from = (model.emit_from, model.tick_sent);
                }
                let model = self.model(&build);
                (model.emit_from, model.tick_sent) = emit_from;
                model.serve(next, true);
            }
        }
        // The engine must make an activation durable, and all commits before it.
        for build in changed.into_iter().flatten() {
            let model = self.model(&build).clone();
            self.durable_models.insert(build, model);
        }
        Ok(())
    }

    /// Removes the model of tables that are deleted, but keeps the events that were emitted with
    /// them.
    fn bury(&mut self, build: &BuildId) {
        self.durable_models.remove(build);
        if let Some(model) = self.models.remove(build) {
            let live = self.emitted_of(build, &model);
            self.emitted_before.extend(live);
        }
    }

    /// Returns the events that were emitted to the log according to `model`, by id.
    fn emitted_of(&self, build: &BuildId, model: &Model) -> ById {
        let name = self.names.get(build).cloned().unwrap_or_default();
        let numbered = (0_u64..).zip(&model.emitted).filter(|(_, emitted)| emitted.live);
        numbered.map(|(n, e)| (emitted_id(&name, 0, e.cause, n), e.into())).collect()
    }

    /// Returns the events that the log refused to accept from the given version, or from all
    /// versions.
    fn refused_of(&self, version: Option<&str>) -> Result<Vec<Refused>> {
        let mut refused = Vec::new();
        for record in self.record().into_iter().flat_map(|record| record.versions) {
            if version.is_none_or(|version| record.id.0 == version) {
                let store = self.stores.shard(&shard_id(&(record.id.0, record.rebuilds)));
                refused.extend(Refused::of(&*store.peek())?);
            }
        }
        Ok(refused)
    }

    /// Checks that a client of the feed shows the rows of the tables.
    fn check_shown(&self) -> Result<()> {
        let Some(build) = self.serving.as_ref().filter(|_| self.reconnects.is_none()) else {
            return Ok(());
        };
        let store = self.stores.shard(&shard_id(build)).peek();
        let now = Shown::of(self.shown.epoch.clone(), &*store)?;
        ensure!(
            self.shown.pos == now.pos,
            "commit {} was published last, and {} is the last",
            self.shown.pos,
            now.pos
        );
        ensure!(
            self.shown.rows == now.rows,
            "a client shows {:?}, the tables {:?}",
            self.shown.rows,
            now.rows
        );
        Ok(())
    }

    /// Checks that no emitted event is in two places and, if `whole`, that each is in one place.
    fn check_emitted(&self, events: &[Event], whole: bool) -> Result<()> {
        let mut expected = self.emitted_before.clone();
        for (build, model) in &self.models {
            expected.extend(self.emitted_of(build, model));
        }
        let account = Account {
            expected,
            perhaps: Some(&self.perhaps),
            refused: self.refused_of(None)?,
            gone: Some(&self.gone),
        };
        account.check(events, whole)?;
        let Some(name) = &self.echo else { return Ok(()) };
        let answers = Answers::to(events, name, self.config.emit_depth_max);
        answers.check(events, whole)?;
        if whole {
            let parked = self.engine.parked(echo::NAME, None, None, None, usize::MAX)?.parked;
            let parked: Vec<_> = parked.iter().map(|parked| parked.offset).collect();
            ensure!(
                parked == answers.parked,
                "the second projection parked {parked:?}, and should have {:?}",
                answers.parked
            );
        }
        Ok(())
    }

    /// Runs the engine until nothing is left to do, and compares everything with the model.
    ///
    /// # Errors
    /// The error describes the difference.
    pub fn end(&mut self) -> Result<()> {
        self.call_faults.store(0, Ordering::SeqCst);
        self.log.release_appends();
        self.mend();
        if self.record().is_some() {
            // The catalogue's fault may still be pending, so the first attempt may fail.
            self.engine.resume(NAME).or_else(|_| self.engine.resume(NAME))?;
            self.check()?;
        }
        self.settle()?;
        self.check()?;
        ensure!(self.reconnects.is_none(), "a client never reads again: {:?}", self.reconnects);
        let events = self.events();
        let Some(record) = self.record() else { return Ok(()) };
        for version in &record.versions {
            let build = (version.id.0.clone(), version.rebuilds);
            let meta = meta_of(&*self.stores.shard(&shard_id(&build)).peek())?;
            ensure!(!Model::in_between(&meta), "version {} has not ticked", version.id);
        }
        // If a shard has only skipped events to which the projection does not subscribe, it need
        // not commit its next offset.
        for version in self.engine.status_of(NAME)?.versions {
            let shard = version.shards.first().context("a version without a shard")?;
            ensure!(
                shard.next == events.len() as u64 && shard.activity == "idle",
                "version {} is at {} of {}, {}: {:?}",
                version.id,
                shard.next,
                events.len(),
                shard.activity,
                shard.reason
            );
        }
        self.check_emitted(&events, true)?;
        if self.limited.is_limited() {
            return Ok(());
        }
        // At this point the log accepts large events again.
        self.decide(&Choice::All, true)?;
        self.settle()?;
        let active = record.active.as_ref().map(|active| active.0.as_str());
        let refused = active.map_or(Ok(Vec::new()), |active| self.refused_of(Some(active)))?;
        ensure!(refused.is_empty(), "{refused:?} are set aside, and were retried");
        self.check()?;
        self.check_emitted(&self.events(), true)
    }

    fn record(&self) -> Option<ProjectionRecord> {
        self.record_of(NAME)
    }

    fn record_of(&self, name: &str) -> Option<ProjectionRecord> {
        self.catalog.projections().ok()?.into_iter().find(|record| record.name == name)
    }

    /// Returns all events in the log. Events of projections have an append time, too.
    fn events(&self) -> Vec<Event> {
        let times = self.log.append_times(P0);
        let events = self.log.events(P0).into_iter().map(|(_, event)| event);
        events.zip(times).map(|(event, appended)| with_append_time(event, appended)).collect()
    }

    /// Returns the shard whose operations fail. It belongs to the version that serves readers, or
    /// to any version if none serves readers.
    fn serving_shard(&self) -> Arc<lantern_core::fake::MemoryShard> {
        let build = self.serving.clone().unwrap_or_else(|| (id_of(0).0, 0));
        self.stores.shard(&shard_id(&build))
    }
}

impl Shown {
    /// Reads the rows that a new client shows.
    fn of(epoch: String, store: &dyn ReadStore) -> Result<Self> {
        let meta: ShardMeta = meta_of(store)?;
        let mut rows = BTreeMap::new();
        for table in [test_projection::TOTALS, test_projection::RECENT] {
            for (key, value) in
                store.scan(Space::Table(table), &KeyRange::all(), usize::MAX, false)?
            {
                rows.insert((table, String::from_utf8(key)?), value);
            }
        }
        Ok(Self { epoch, pos: meta.pos, rows })
    }

    fn commit(&mut self, commit: &PublishedCommit) -> Result<()> {
        // The commit may have been published before these tables became the active ones. Then it
        // has another epoch.
        if commit.epoch != self.epoch {
            return Ok(());
        }
        ensure!(commit.pos == self.pos + 1, "commit {} follows {}", commit.pos, self.pos);
        self.pos = commit.pos;
        for changes in &commit.tables {
            for (key, value) in &changes.up {
                self.rows.insert((changes.table, key.clone()), value.clone());
            }
            for key in &changes.del {
                self.rows.remove(&(changes.table, key.clone()));
            }
        }
        Ok(())
    }
}

fn reading_of((tenant, subject): Actor, time: i64, reading: Reading) -> Event {
    test_projection::event("", TENANTS[usize::from(tenant)], &format!("s{subject}"), time, reading)
}

fn with_append_time(mut event: Event, appended: Timestamp) -> Event {
    if echo::is_answer(&event) {
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&event.extensions).unwrap_or_default();
        let mut members = members;
        members.insert(test_projection::APPENDED.into(), appended.0.into());
        event.extensions = serde_json::Value::from(members).to_string();
    }
    event
}

/// Creates a record that is not an event. The record claims to have an event type, or none.
fn unreadable(claimed: &str) -> Event {
    let mut members = json!({ UNREADABLE_REASON: "no JSON" });
    if !claimed.is_empty() {
        members[UNREADABLE_KIND] = claimed.into();
    }
    Event { kind: UNREADABLE_TYPE.into(), extensions: members.to_string(), ..Event::default() }
}

/// Extracts the version and the number of its rebuilds from an epoch.
fn build_of_epoch(epoch: &str) -> Option<BuildId> {
    let mut parts = epoch.split('.').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
}

/// Returns whether `to` is after `from`, and the meter subscribes to none of the events between
/// them.
fn only_passed(events: &[Event], from: Offset, to: Offset) -> bool {
    let index = |offset: Offset| usize::try_from(offset.0).unwrap_or(usize::MAX);
    from < to
        && events.get(index(from)..index(to)).is_some_and(|events| {
            events
                .iter()
                .all(|event| event.kind != test_projection::READ && event.kind != HEARTBEAT_TYPE)
        })
}

fn version_of(kind: test_projection::Kind) -> VersionId {
    version_id(&test_projection::sha256(kind), "", None)
}

fn id_of(kind: u8) -> VersionId {
    version_of(KINDS[usize::from(kind)])
}

fn shard_id(build: &BuildId) -> ShardId {
    ShardId {
        projection: NAME.into(),
        version: VersionId(build.0.clone()),
        rebuild: build.1,
        partition: P0,
    }
}
