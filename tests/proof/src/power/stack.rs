//! Tests everything that Lantern stores on a simulated disk: the log, the catalogue and the shards'
//! states, with an engine that folds the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lantern_core::fake::{CountingRandom, ManualClock, RecordingSink};
use lantern_core::{
    AppendDone, Catalog, CloseLog as _, Event, Events, KeyRange, Log, LogRead, Offset, Pairs,
    PartitionId, ProjectionRecord, ReadStore, ShardId, ShardMeta, ShardStore, Space, StateStores,
    StoreError, Timestamp, TypeFilter, VersionId, Writes,
};
use lantern_engine::{Engine, EngineConfig, PluginSource, Ports, Upload, version_id};
use lantern_log::{EmbeddedLog, LogConfig, OpenDatabase};
use lantern_store::{CatalogFile, StateDir, StoreConfig};
use parking_lot::{Condvar, Mutex};
use redb::{Builder, Database, DatabaseError};

use super::disk::{Image, SimDisk};
use crate::engine::KINDS;
use crate::forward_log::forward_log;
use crate::model::{Model, meta_of};
use crate::test_projection::{self, CLOSED, Flaws, Kind, NAME, Reading, SECOND, Shelf};

const P0: PartitionId = PartitionId(0);
const LOG: &str = "data/log.redb";
const CATALOG: &str = "data/catalog.redb";
const STATE: &str = "data/state";
/// How many times a recovery is interrupted before it may finish.
const RECOVERIES_MAX: u32 = 2;
/// The host continues to the end of the log and beyond for one image in this number.
const GOES_ON: u32 = 8;
/// The maximum time that an append may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The reports of the host to others, which must stay true after a power loss.
#[derive(Clone, Debug)]
pub(super) enum Acknowledged {
    /// The log acknowledged an append. It has this many events now.
    Appended(u64),
    /// The host is about to save or delete a record of the catalogue. `None` means that it deletes
    /// the record.
    Saving(Option<ProjectionRecord>),
    /// The host has saved or deleted the record.
    Saved(Option<ProjectionRecord>),
    /// The commit of a shard with this number is durable.
    Committed(ShardId, u64),
    /// Readers see a commit that is not durable, with this next offset and number.
    Shown(ShardId, Offset, u64),
}

type Disk = SimDisk<Acknowledged>;

/// The bugs that are planted in the host or the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flawed {
    /// A sync of a file has no effect if the file's name ends with this text.
    pub sync_skipped: Option<&'static str>,
    /// Whether syncs of folders have no effect.
    pub folders_unsynced: bool,
    /// Whether the log acknowledges appends before they are durable.
    pub acked_early: bool,
    /// Whether the store writes the next offset before the rows.
    pub position_first: bool,
}

/// A recorded history: the disk with its journal, and the log at the end.
#[derive(Debug)]
pub struct Recorded {
    disk: Disk,
    steps: usize,
    log: Vec<Event>,
    /// The number of events in the log after each append.
    ends: Vec<u64>,
    flawed: Flawed,
}

/// Counts of the findings when an image is checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObservedState {
    pub(super) events: u64,
    pub(super) recoveries: u32,
    pub(super) went_on: bool,
}

/// The host's log, catalogue, states and engine, without its server.
struct Stack {
    log: Arc<RecordingLog>,
    stores: Arc<RecordingStores>,
    catalog: Arc<RecordingCatalog>,
    clock: Arc<ManualClock>,
    shelf: Arc<Shelf>,
    engine: Option<Arc<Engine>>,
}

/// Runs a history on a fresh host.
///
/// # Errors
/// Fails if the host fails without any fault.
pub fn record(rng: &mut Rng, flawed: Flawed) -> Result<Recorded> {
    let disk = Disk::new(Image::default());
    *disk.false_syncs().sync_skipped.lock() = flawed.sync_skipped;
    disk.false_syncs().folder_sync_skipped.store(flawed.folders_unsynced, Ordering::SeqCst);
    let mut stack = Stack::open(&disk, flawed)?;
    stack.start(rng)?;
    let (mut sent, mut time, mut ends) = (0, 0, Vec::new());
    stack.push(KINDS[0])?;
    for _ in 0..rng.u32(4..14) {
        match rng.u8(..16) {
            0 => stack.push(KINDS[rng.usize(..KINDS.len())])?,
            1 => drop(stack.engine()?.rollback(NAME)),
            2 => drop(stack.engine()?.rebuild(NAME, &version(KINDS[0]))),
            3 => drop(stack.engine()?.delete_version(NAME, &version(KINDS[1]))),
            4 => {
                ends.append(&mut stack.log.ends.lock());
                // All files must be closed before they are opened again, because this disk has no
                // locks.
                drop(stack);
                stack = Stack::open(&disk, flawed)?;
                stack.start(rng)?;
            }
            5 => drop(stack.engine()?.turn_once()),
            _ => {
                let events = (0..rng.u64(1..7)).map(|_| {
                    sent += 1;
                    time += rng.i64(-SECOND..2 * SECOND);
                    let reading = match rng.u8(..12) {
                        0 => Reading::Bad,
                        1 => Reading::BadTimer,
                        _ => Reading::Value(rng.i64(0..20)),
                    };
                    let subject = format!("s{}", rng.u8(..4));
                    test_projection::event(&format!("e{sent}"), "a", &subject, time.max(0), reading)
                });
                stack.append(events.collect())?;
                if rng.bool() {
                    stack.settle()?;
                }
            }
        }
    }
    stack.settle()?;
    let log = stack.events()?;
    ends.append(&mut stack.log.ends.lock());
    // Power is lost while all files are open. So the history ends before the writes that happen
    // when the files are closed.
    let steps = disk.steps();
    drop(stack);
    Ok(Recorded { disk, steps, log, ends, flawed })
}

impl Recorded {
    /// Returns the number of events that were written to the log.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.log.len() as u64
    }

    /// Simulates a power loss at a random step of the history, and sometimes further ones
    /// during the recovery. Then starts the host, and checks everything.
    pub(super) fn check(&self, rng: &mut Rng) -> Result<ObservedState> {
        let at = rng.usize(..=self.steps);
        let marks = self.disk.marks(at);
        let mut image = self.disk.cut(at, rng);
        let mut seen = ObservedState::default();
        for _ in 0..rng.u32(..=RECOVERIES_MAX) {
            let disk = Disk::new(image.clone());
            let stack = Stack::open(&disk, Flawed::default())
                .with_context(|| format!("recovering from power lost at step {at}"))?;
            stack.shards()?;
            image = disk.cut(rng.usize(..=disk.steps()), rng);
            drop(stack);
            seen.recoveries += 1;
        }
        let disk = Disk::new(image);
        let mut stack = Stack::open(&disk, Flawed::default())
            .with_context(|| format!("starting after power was lost at step {at}"))?;
        let found = stack.events()?;
        seen.events = found.len() as u64;
        self.check_log(&found, &marks)?;
        let record = stack.record()?;
        check_catalog(record.as_ref(), &marks)?;
        stack.check_shards(record.as_ref(), &found, &marks)?;
        if rng.u32(..GOES_ON) == 0 {
            stack.start(rng)?;
            stack.settle()?;
            let next = found.len() as i64 * SECOND;
            stack.append(vec![test_projection::event(
                "after",
                "a",
                "s0",
                next,
                Reading::Value(1),
            )])?;
            stack.settle()?;
            let found = stack.events()?;
            let record = stack.record()?;
            stack.check_shards(record.as_ref(), &found, &[])?;
            check_ids(&found)?;
            seen.went_on = true;
        }
        stack.close();
        Ok(seen)
    }

    /// Checks that the log contains all acknowledged events, and that each append is in the log
    /// completely or not at all.
    fn check_log(&self, found: &[Event], marks: &[Acknowledged]) -> Result<()> {
        let acknowledged = marks
            .iter()
            .filter_map(|t| if let Acknowledged::Appended(n) = t { Some(*n) } else { None });
        let acknowledged = acknowledged.max().unwrap_or(0);
        let len = found.len() as u64;
        ensure!(
            len >= acknowledged,
            "{len} events are there, and {acknowledged} were acknowledged"
        );
        ensure!(
            self.flawed.acked_early || len == 0 || self.ends.contains(&len),
            "{len} events are there: an append is there in part"
        );
        for (offset, (found, written)) in found.iter().zip(&self.log).enumerate() {
            ensure!(found == written, "the event at offset {offset} is {found:?}, not {written:?}");
        }
        Ok(())
    }
}

/// Checks that the catalogue contains the record that was saved last, or the one that
/// was being saved.
fn check_catalog(found: Option<&ProjectionRecord>, marks: &[Acknowledged]) -> Result<()> {
    let mut right: Vec<Option<&ProjectionRecord>> = vec![None];
    for mark in marks {
        match mark {
            Acknowledged::Saving(record) => right.push(record.as_ref()),
            Acknowledged::Saved(record) => right = vec![record.as_ref()],
            Acknowledged::Appended(_) | Acknowledged::Committed(..) | Acknowledged::Shown(..) => (),
        }
    }
    ensure!(right.contains(&found), "the catalogue holds {found:?}, and should one of {right:?}");
    Ok(())
}

/// Checks that readers have seen nothing later than this state. If they may have seen something
/// later, the state must record this, so that the engine makes readers wait.
fn check_shown(id: &ShardId, meta: &ShardMeta, marks: &[Acknowledged]) -> Result<()> {
    let last = marks.iter().rev().find_map(|mark| match mark {
        Acknowledged::Shown(shard, next, pos) if shard == id => Some(Some((*next, *pos))),
        Acknowledged::Committed(shard, _) if shard == id => Some(None),
        _ => None,
    });
    let Some(Some((next, pos))) = last else { return Ok(()) };
    ensure!(
        (meta.next.max(meta.ceiling.next) >= next) && (meta.pos.max(meta.ceiling.commit) >= pos),
        "readers saw commit {pos} up to offset {next}, and need not wait at commit {} up to {}",
        meta.pos,
        meta.next
    );
    Ok(())
}

/// Checks that no emitted event is in the log twice.
fn check_ids(log: &[Event]) -> Result<()> {
    let mut ids = BTreeMap::new();
    for event in log.iter().filter(|event| event.kind == CLOSED) {
        // The ids of emitted events begin with the version, and a version uses each of its numbers
        // once.
        let other = ids.insert(event.id.clone(), event.subject.clone());
        ensure!(other.is_none(), "emitted event `{}` is there twice", event.id);
    }
    Ok(())
}

impl Stack {
    /// Opens all files of the host, and creates the missing ones.
    fn open(disk: &Disk, flawed: Flawed) -> Result<Self> {
        let folder = Path::new("data");
        lantern_store::Disk::create_folder(disk, folder).or_else(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(e),
        })?;
        disk.sync_names(Path::new(""));
        let config = LogConfig {
            chunk_events_max: 8,
            chunk_bytes: 4096,
            page_cache_bytes: 1 << 20,
            ..LogConfig::default()
        };
        let log = EmbeddedLog::open_with(opener(disk), config).context("the log")?;
        let on: Arc<dyn lantern_store::Disk> = Arc::new(disk.clone());
        let catalog = CatalogFile::open_on(Arc::clone(&on), CATALOG).context("the catalogue")?;
        // Tables of eight or more rows are stored in runs.
        let config = StoreConfig { run_rows: 1, ..StoreConfig::default() };
        let stores = StateDir::open_on(on, STATE, config).context("the states")?;
        Ok(Self {
            log: Arc::new(RecordingLog::new(log, disk.clone(), flawed.acked_early)),
            stores: Arc::new(RecordingStores { inner: stores, disk: disk.clone(), flawed }),
            catalog: Arc::new(RecordingCatalog { inner: catalog, disk: disk.clone() }),
            clock: Arc::new(ManualClock::at(Timestamp(1_000 * SECOND + disk.steps() as i64))),
            shelf: Arc::new(Shelf::default()),
            engine: None,
        })
    }

    /// Starts the engine over the open files. Half of the starts sync every commit.
    fn start(&mut self, rng: &mut Rng) -> Result<()> {
        // The clock of these histories advances by some milliseconds in each step.
        let sync_ms = if rng.bool() { 100 } else { 0 };
        for kind in KINDS {
            self.shelf.put(
                &test_projection::sha256(kind),
                test_projection::plugin(kind, Flaws::default()),
            );
        }
        let ports = Ports {
            log: self.log.clone(),
            stores: self.stores.clone(),
            catalog: self.catalog.clone(),
            publish: Arc::new(RecordingSink::new()),
            clock: self.clock.clone(),
            random: Arc::new(CountingRandom::default()),
            plugins: self.shelf.clone(),
            traces: None,
        };
        let config = EngineConfig {
            batch_events_max: 3,
            commit_ms: 0,
            sync_ms,
            unsynced_events_max: 20,
            ..EngineConfig::default()
        };
        let engine = Engine::open(config, ports)?;
        engine.attach();
        self.engine = Some(engine);
        Ok(())
    }

    fn close(&mut self) {
        self.engine = None;
        self.log.inner.close();
    }

    fn engine(&self) -> Result<&Arc<Engine>> {
        self.engine.as_ref().context("the engine is not started")
    }

    fn push(&self, kind: Kind) -> Result<()> {
        let sha256 = test_projection::sha256(kind);
        let record = lantern_core::VersionRecord { sha256: sha256.clone(), ..Default::default() };
        let plugin = self.shelf.load(&record).map_err(anyhow::Error::msg)?;
        self.clock.advance(Duration::from_micros(1));
        let upload = Upload { check: false, ..Upload::new(plugin, sha256) };
        self.engine()?.upload(upload)?;
        self.settle()
    }

    fn append(&self, events: Vec<Event>) -> Result<()> {
        let mut batch = Events::new();
        for event in &events {
            ensure!(batch.push(&event.as_ref()), "a batch of few events has room");
        }
        let (send, receive) = std::sync::mpsc::channel();
        self.log.append(batch, Box::new(move |outcome| drop(send.send(outcome))));
        receive.recv_timeout(PATIENCE)??;
        Ok(())
    }

    /// Lets the engine fold and emit until nothing is left to do.
    fn settle(&self) -> Result<()> {
        let engine = self.engine()?;
        loop {
            while engine.turn_once() {}
            self.clock.advance(Duration::from_millis(10));
            if !self.log.wait()? && !engine.turn_once() {
                return Ok(());
            }
        }
    }

    fn events(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let everything = TypeFilter::everything();
        loop {
            match self.log.read(P0, Offset(events.len() as u64), &everything)? {
                LogRead::End => return Ok(events),
                LogRead::Pending => ensure!(false, "the embedded log never has one wait"),
                LogRead::Skipped { next } => ensure!(false, "events up to {next} are missing"),
                LogRead::Chunk(chunk) => {
                    let from = chunk.index_of(Offset(events.len() as u64));
                    events
                        .extend((from..chunk.events.len()).map(|i| chunk.events.get(i).to_owned()));
                }
            }
        }
    }

    fn record(&self) -> Result<Option<ProjectionRecord>> {
        Ok(self.catalog.projections()?.into_iter().find(|record| record.name == NAME))
    }

    /// Opens the state of every version in the catalogue.
    fn shards(&self) -> Result<Vec<(ShardId, Arc<dyn ShardStore>)>> {
        let versions = self.record()?.map(|record| record.versions).unwrap_or_default();
        let shard = |version: lantern_core::VersionRecord| {
            let id = ShardId {
                projection: NAME.into(),
                version: version.id,
                rebuild: version.rebuilds,
                partition: P0,
            };
            let store = self.stores.inner.open(&id)?;
            Ok((id, store))
        };
        versions.into_iter().map(shard).collect()
    }

    /// Checks that every state is the fold of the log up to its next offset, that no
    /// acknowledged commit is lost, and that the file is undamaged.
    fn check_shards(
        &self,
        record: Option<&ProjectionRecord>,
        log: &[Event],
        marks: &[Acknowledged],
    ) -> Result<()> {
        let versions = record.map(|record| record.versions.as_slice()).unwrap_or_default();
        for ((id, store), version) in self.shards()?.into_iter().zip(versions) {
            let meta = meta_of(&*store)?;
            let mut committed = marks.iter().filter_map(|mark| match mark {
                Acknowledged::Committed(shard, pos) if *shard == id => Some(*pos),
                _ => None,
            });
            check_shown(&id, &meta, marks)?;
            // A version with this id may have been deleted and created again, so its numbers may
            // start again.
            let committed = committed.next_back().unwrap_or(0);
            let context = || format!("shard {id:?} at {}", meta.next);
            ensure!(
                meta.pos >= committed,
                "{}: commit {committed} is gone, {} is the last",
                context(),
                meta.pos
            );
            let kind =
                KINDS.into_iter().find(|kind| test_projection::sha256(*kind) == version.sha256);
            let mut model = Model::new(
                kind.context("a version of no kind")?,
                EngineConfig::default().emit_depth_max,
            );
            model.advance(log, meta.next).with_context(context)?;
            model.compare(&*store, &meta).with_context(context)?;
            drop(store);
            self.stores.inner.check(&id).with_context(context)?;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.close();
    }
}

fn version(kind: Kind) -> VersionId {
    version_id(&test_projection::sha256(kind), "", None)
}

/// Opens the log's file as [`EmbeddedLog::open`] does: a new file is created under another
/// name, and then renamed.
fn opener(disk: &Disk) -> OpenDatabase {
    let disk = disk.clone();
    Arc::new(move || -> Result<Database, DatabaseError> {
        let (path, aside) = (Path::new(LOG), PathBuf::from(LOG).with_extension("redb.new"));
        let open = |file| Builder::new().set_cache_size(1 << 20).create_with_backend(file);
        if disk.file(path).is_none() {
            if disk.file(&aside).is_some() {
                disk.remove(&aside);
            }
            drop(open(disk.new_file(&aside)?)?);
            disk.rename_to(&aside, path)?;
            disk.sync_names(Path::new("data"));
        }
        let gone = || DatabaseError::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        open(disk.file(path).ok_or_else(gone)?)
    })
}

/// A log that marks each acknowledgement on the simulated disk.
struct RecordingLog {
    inner: EmbeddedLog,
    disk: Disk,
    early: bool,
    ends: Arc<Mutex<Vec<u64>>>,
    /// The number of pending appends, and whether any ended since the last check.
    under_way: Arc<(Mutex<(u64, bool)>, Condvar)>,
    next: AtomicU64,
}

impl RecordingLog {
    fn new(inner: EmbeddedLog, disk: Disk, early: bool) -> Self {
        let next = inner.bounds(P0).map_or(0, |bounds| bounds.end.0);
        let (ends, under_way) = (Arc::default(), Arc::default());
        Self { inner, disk, early, ends, under_way, next: AtomicU64::new(next) }
    }

    /// Waits until no append is pending. Returns whether any was.
    fn wait(&self) -> Result<bool> {
        let (lock, ended) = &*self.under_way;
        let mut state = lock.lock();
        while state.0 > 0 {
            ensure!(!ended.wait_for(&mut state, PATIENCE).timed_out(), "an append never ends");
        }
        Ok(std::mem::take(&mut state.1))
    }
}

impl Log for RecordingLog {
    forward_log!(partitions, bounds, read, offset_at, on_append);

    fn append(&self, events: Events, done: AppendDone) {
        let (disk, ends) = (self.disk.clone(), Arc::clone(&self.ends));
        let under_way = Arc::clone(&self.under_way);
        under_way.0.lock().0 += 1;
        if self.early {
            let len = events.len() as u64;
            let end = self.next.fetch_add(len, Ordering::SeqCst) + len;
            disk.mark(Acknowledged::Appended(end));
        }
        self.inner.append(
            events,
            Box::new(move |outcome| {
                if let Ok(appended) = &outcome
                    && let Some(last) = appended.events.iter().map(|e| e.offset.0 + 1).max()
                {
                    ends.lock().push(last);
                    disk.mark(Acknowledged::Appended(last));
                }
                done(outcome);
                let mut state = under_way.0.lock();
                *state = (state.0 - 1, true);
                under_way.1.notify_all();
            }),
        );
    }
}

/// States that mark each commit on the simulated disk.
struct RecordingStores {
    inner: StateDir,
    disk: Disk,
    flawed: Flawed,
}

struct RecordingShard {
    id: ShardId,
    inner: Arc<dyn ShardStore>,
    disk: Disk,
    flawed: Flawed,
}

impl StateStores for RecordingStores {
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError> {
        let inner = self.inner.open(shard)?;
        let (id, disk) = (shard.clone(), self.disk.clone());
        Ok(Arc::new(RecordingShard { id, inner, disk, flawed: self.flawed }))
    }

    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.inner.scratch()
    }

    fn remove(
        &self,
        projection: &str,
        version: &VersionId,
        rebuild: u64,
    ) -> Result<(), StoreError> {
        let (projection, version) = (projection.to_owned(), version.clone());
        let id = ShardId { projection, version, rebuild, partition: P0 };
        self.disk.mark(Acknowledged::Committed(id.clone(), 0));
        self.inner.remove(&id.projection, &id.version, rebuild)
    }
}

impl ReadStore for RecordingShard {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        self.inner.scan(space, range, limit, reverse)
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.inner.spaces()
    }
}

impl ShardStore for RecordingShard {
    fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        if self.flawed.position_first {
            let (position, rows): (Writes, Writes) =
                writes.clone().into_iter().partition(|(space, _)| *space == Space::Meta);
            self.inner.commit(&position)?;
            self.inner.commit(&rows)?;
        } else {
            self.inner.commit(writes)?;
        }
        let pos = meta_of(&*self.inner).map_or(0, |meta| meta.pos);
        self.disk.mark(Acknowledged::Committed(self.id.clone(), pos));
        Ok(())
    }

    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError> {
        self.inner.commit_unsynced(writes)?;
        let meta = ShardMeta::of(&*self.inner)?;
        self.disk.mark(Acknowledged::Shown(self.id.clone(), meta.next, meta.pos));
        Ok(())
    }

    fn has_unsynced(&self) -> bool {
        self.inner.has_unsynced()
    }

    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError> {
        self.inner.snapshot()
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

/// A catalogue that marks each saved record on the simulated disk.
struct RecordingCatalog {
    inner: CatalogFile,
    disk: Disk,
}

impl Catalog for RecordingCatalog {
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError> {
        self.inner.projections()
    }

    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError> {
        self.disk.mark(Acknowledged::Saving(Some(record.clone())));
        self.inner.save(record)?;
        self.disk.mark(Acknowledged::Saved(Some(record.clone())));
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.disk.mark(Acknowledged::Saving(None));
        self.inner.delete(name)?;
        self.disk.mark(Acknowledged::Saved(None));
        Ok(())
    }
}
