//! Tests invariant 15 of `docs/proof.md`: a token, cursor or `ETag` of one history is accepted
//! while that history continues, and never in another.
//!
//! A *history* is the sequence of the log's events, together with one creation of the projection's
//! state. It continues as long as the log begins with these events, and the state is neither
//! deleted nor rebuilt.
//!
//! The experiment runs an engine over real files: a log, a catalogue and states. Its steps open the
//! files again, back them up, restore a backup and then append other events than before. They
//! delete, rebuild and create the projection, and remove the catalogue or the states. A reader
//! keeps the content of tokens, cursors and ETags: the epoch and the checkpoint. A model keeps the
//! events of each history, and so determines which checkpoints must be accepted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use lantern_core::fake::{ManualClock, RecordingSink};
use lantern_core::{
    ChangesSince, Checkpoint, CloseLog as _, Events, KeyRange, Log, PartitionId, Random, TableId,
    Timestamp, Views as _,
};
use lantern_engine::{Engine, EngineConfig, Ports, Upload};
use lantern_log::{EmbeddedLog, LogConfig};
use lantern_store::{CatalogFile, StateDir, StoreConfig};
use tempfile::TempDir;

use crate::engine::KINDS;
use crate::planted::{BadLog, Logs};
use crate::test_projection::{self, Flaws, NAME, Reading, SECOND, Shelf};
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 15,
    name: "histories",
    holds: "a token, cursor or ETag of one history is accepted while it continues, and never in another",
    counts: Counts { ci: 40, longer: 5_000, of: "histories" },
    experiment: |run| {
        histories(run, Flawed::default());
        Ok(())
    },
};

/// The maximum number of steps of a case.
const STEPS_MAX: usize = 24;
/// The maximum time that an append may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bugs that are planted in the ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flawed {
    /// Whether epochs lack their random part: the same number is drawn each time.
    pub same_numbers: bool,
    /// The bug of the log.
    pub log: Option<Logs>,
}

/// Tries random histories.
pub fn histories(run: &mut Run<'_>, flawed: Flawed) {
    run.cases(|run, seed| {
        let counted = one(seed, flawed)?;
        run.add("kept checkpoints looked at", f64::from(counted.looked_at));
        run.add("honoured", f64::from(counted.honoured));
        Ok(())
    });
}

#[derive(Default)]
struct Counted {
    looked_at: u32,
    honoured: u32,
}

fn one(seed: u64, flawed: Flawed) -> Result<Counted> {
    let mut rng = Rng::with_seed(seed);
    // The files may be in memory here, because other experiments test that files survive a crash.
    let memory = Path::new("/dev/shm");
    let root = match memory.is_dir() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    };
    let mut world = World::new(root, flawed)?;
    let mut counted = Counted::default();
    let mut steps = Vec::new();
    for _ in 0..rng.usize(6..=STEPS_MAX) {
        let step = rng.u8(..20);
        steps.push(step);
        world.step(step, &mut rng).with_context(|| format!("steps {steps:?}"))?;
        world.check(&mut counted).with_context(|| format!("after steps {steps:?}"))?;
    }
    Ok(counted)
}

/// The model of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct History {
    /// The events that the log contains in this history.
    events: Vec<Logged>,
    /// The number of the creation of the state that folds these events.
    creation: u64,
}

/// An event of the log in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Logged {
    /// A number that no other event of this case has, not even an event of another history.
    number: u64,
    tenant: &'static str,
    id: String,
    subject: String,
    time: i64,
    value: i64,
}

/// The content of a reader's token, and the history from which the reader got the token.
struct KeptToken {
    epoch: String,
    checkpoint: Checkpoint,
    rows: Rows,
    history: History,
}

type Rows = BTreeMap<(TableId, String), Vec<u8>>;

/// A backup of the data folder.
struct Backup {
    folder: PathBuf,
    history: History,
}

struct World {
    root: TempDir,
    flawed: Flawed,
    clock: Arc<ManualClock>,
    open: Option<Open>,
    history: History,
    /// The last number that was given to an event or to a creation.
    numbers: u64,
    kept: Vec<KeptToken>,
    backups: Vec<Backup>,
}

/// The opened files, and the engine that runs over them.
struct Open {
    log: Arc<EmbeddedLog>,
    /// The log as the engine sees it.
    port: Arc<dyn Log>,
    engine: Arc<Engine>,
}

/// A source of random numbers that returns the same number each time.
struct Same;

impl Random for Same {
    fn draw(&self) -> u64 {
        7
    }
}

/// A source of random numbers that returns a different number each time.
struct Fresh;

impl Random for Fresh {
    fn draw(&self) -> u64 {
        fastrand::u64(..)
    }
}

impl World {
    fn new(root: TempDir, flawed: Flawed) -> Result<Self> {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000 * SECOND)));
        let mut world = Self {
            root,
            flawed,
            clock,
            open: None,
            history: History::default(),
            numbers: 0,
            kept: Vec::new(),
            backups: Vec::new(),
        };
        std::fs::create_dir_all(world.folder())?;
        world.start()?;
        world.upload()?;
        Ok(world)
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn start(&mut self) -> Result<()> {
        let folder = self.folder();
        let log = LogConfig { page_cache_bytes: 1 << 20, ..LogConfig::default() };
        let log = Arc::new(EmbeddedLog::open(folder.join("log.redb"), log)?);
        let shelf = Arc::new(Shelf::default());
        shelf.put(
            &test_projection::sha256(KINDS[0]),
            test_projection::plugin(KINDS[0], Flaws::default()),
        );
        let port = BadLog::over(log.clone(), self.flawed.log);
        let ports = Ports {
            log: Arc::clone(&port),
            stores: Arc::new(StateDir::open(folder.join("state"), StoreConfig::default())?),
            catalog: Arc::new(CatalogFile::open(folder.join("catalog.redb"))?),
            publish: Arc::new(RecordingSink::new()),
            clock: self.clock.clone(),
            random: if self.flawed.same_numbers { Arc::new(Same) } else { Arc::new(Fresh) },
            plugins: shelf,
            traces: None,
        };
        let config = EngineConfig { commit_ms: 0, ..EngineConfig::default() };
        let engine = Engine::open(config, ports)?;
        engine.attach();
        self.open = Some(Open { log, port, engine });
        self.settle()
    }

    fn stop(&mut self) {
        if let Some(Open { log, port, engine }) = self.open.take() {
            drop((engine, port));
            log.close();
        }
    }

    fn opened(&self) -> Result<&Open> {
        self.open.as_ref().context("nothing is open")
    }

    /// Uploads the projection, which folds the whole log.
    fn upload(&mut self) -> Result<()> {
        self.history.creation = self.number();
        self.clock.advance(Duration::from_micros(1));
        let plugin = test_projection::plugin(KINDS[0], Flaws::default());
        let upload =
            Upload { check: false, ..Upload::new(plugin, test_projection::sha256(KINDS[0])) };
        self.opened()?.engine.upload(upload)?;
        self.settle()
    }

    fn settle(&self) -> Result<()> {
        let engine = &self.opened()?.engine;
        for _ in 0..4 {
            while engine.turn_once() {}
            self.clock.advance(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Appends events to the log. Some events were sent before. Some have the id of another
    /// tenant's event; these are not duplicates, because ids are unique per tenant.
    fn append(&mut self, rng: &mut Rng) -> Result<()> {
        let mut batch = Events::new();
        let mut expected = Vec::new();
        for _ in 0..rng.u64(1..5) {
            let number = self.number();
            let events = &self.history.events;
            let mut sent = Logged {
                number,
                tenant: ["a", "b"][rng.usize(..2)],
                id: number.to_string(),
                subject: format!("s{}", rng.u8(..3)),
                time: (events.len() as i64 + 1) * SECOND / 4,
                value: rng.i64(1..50),
            };
            if !events.is_empty() && rng.u8(..3) == 0 {
                let earlier = events[rng.usize(..events.len())].clone();
                let (tenant, value) = (sent.tenant, sent.value);
                sent = Logged { number, tenant, ..earlier };
                sent.value = if rng.bool() { sent.value } else { value };
            }
            let known = events.iter().find(|e| (e.tenant, &e.id) == (sent.tenant, &sent.id));
            let differs = known.is_some_and(|known| Logged { number, ..known.clone() } != sent);
            expected.push((known.is_some(), differs));
            let reading = Reading::Value(sent.value);
            let event =
                test_projection::event(&sent.id, sent.tenant, &sent.subject, sent.time, reading);
            ensure!(batch.push(&event.as_ref()), "a batch of few events has room");
            if !expected.last().is_some_and(|(known, _)| *known) {
                self.history.events.push(sent);
            }
        }
        let (send, receive) = std::sync::mpsc::channel();
        let port = &self.opened()?.port;
        port.append(batch, Box::new(move |outcome| drop(send.send(outcome))));
        let appended = receive.recv_timeout(PATIENCE)??;
        let reported: Vec<_> = appended.events.iter().map(|e| (e.duplicate, e.differs)).collect();
        ensure!(
            reported == expected,
            "of the events sent, {reported:?} are known, and not {expected:?}"
        );
        let end = port.bounds(PartitionId(0))?.end;
        let count = self.history.events.len() as u64;
        ensure!(end.0 == count, "the log ends at {end}, and has taken {count} events");
        self.settle()
    }

    fn step(&mut self, step: u8, rng: &mut Rng) -> Result<()> {
        match step {
            0..6 => self.append(rng),
            6..10 => self.keep(),
            10..13 => {
                self.stop();
                self.start()
            }
            13..15 => self.back_up(),
            15..17 => self.restore(rng),
            17 => {
                self.opened()?.engine.delete(NAME)?;
                self.upload()
            }
            18 => self.lose("catalog.redb"),
            _ => {
                let active = self.opened()?.engine.status_of(NAME)?.active;
                let active = active.context("no version is active")?;
                self.opened()?.engine.rebuild(NAME, &lantern_core::VersionId(active))?;
                self.history.creation = self.number();
                self.settle()
            }
        }
    }

    /// Makes a reader keep the current epoch and checkpoint.
    fn keep(&mut self) -> Result<()> {
        let view = self.opened()?.engine.view(NAME)?;
        let kept = KeptToken {
            epoch: view.epoch().to_owned(),
            checkpoint: view.checkpoint(),
            rows: rows(&view)?,
            history: self.history.clone(),
        };
        self.kept.push(kept);
        Ok(())
    }

    fn back_up(&mut self) -> Result<()> {
        self.stop();
        let folder = self.root.path().join(format!("backup-{}", self.backups.len()));
        copy(&self.folder(), &folder)?;
        self.backups.push(Backup { folder, history: self.history.clone() });
        self.start()
    }

    fn restore(&mut self, rng: &mut Rng) -> Result<()> {
        if self.backups.is_empty() {
            return Ok(());
        }
        let backup = &self.backups[rng.usize(..self.backups.len())];
        let (from, history) = (backup.folder.clone(), backup.history.clone());
        self.stop();
        std::fs::remove_dir_all(self.folder())?;
        copy(&from, &self.folder())?;
        self.history = history;
        self.start()
    }

    /// Deletes the file `name`, starts the server again, and uploads the projection again.
    fn lose(&mut self, name: &str) -> Result<()> {
        self.stop();
        std::fs::remove_file(self.folder().join(name))?;
        std::fs::remove_dir_all(self.folder().join("state"))?;
        self.start()?;
        self.upload()
    }

    /// Computes the rows that a reader has after it has applied the changes since its checkpoint.
    /// Returns `None` if the checkpoint is not accepted.
    fn after(view: &lantern_core::View, kept: &KeptToken) -> Result<Option<Rows>> {
        match view.changes_since(&kept.checkpoint)? {
            ChangesSince::Commits(commits) => {
                let changes = commits.into_iter().flat_map(|commit| commit.tables);
                Ok(Some(changed(kept.rows.clone(), changes)))
            }
            ChangesSince::TooOld => bail!("the change log is too short"),
            _ => Ok(None),
        }
    }

    /// Checks that a checkpoint is accepted if and only if its history continues.
    fn check(&self, counted: &mut Counted) -> Result<()> {
        let view = self.opened()?.engine.view(NAME)?;
        let now = rows(&view)?;
        for (number, kept) in self.kept.iter().enumerate() {
            let goes_on = kept.history.creation == self.history.creation
                && self.history.events.starts_with(&kept.history.events);
            counted.looked_at += 1;
            let honoured = match view.epoch() == kept.epoch {
                true => Self::after(&view, kept).with_context(|| format!("checkpoint {number}"))?,
                false => None,
            };
            // A state that has no commit draws a new random number at the next start.
            let empty = kept.history.events.is_empty();
            ensure!(
                honoured.is_some() == goes_on || (empty && goes_on),
                "checkpoint {number} is honoured: {}, and its history goes on: {goes_on}; \
                 it was kept after {} events, and there are {}",
                honoured.is_some(),
                kept.history.events.len(),
                self.history.events.len()
            );
            if let Some(rows) = honoured {
                counted.honoured += 1;
                ensure!(rows == now, "checkpoint {number} leads to {rows:?}, and not to {now:?}");
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads the rows of the public table that a client shows.
fn rows(view: &lantern_core::View) -> Result<Rows> {
    let mut rows = Rows::new();
    for table in [test_projection::TOTALS, test_projection::RECENT] {
        for row in view.scan(table, &KeyRange::all(), usize::MAX, false)? {
            rows.insert((table, row.key), row.value);
        }
    }
    Ok(rows)
}

fn changed(mut rows: Rows, changes: impl Iterator<Item = lantern_core::TableChanges>) -> Rows {
    for change in changes {
        for (key, value) in change.up {
            rows.insert((change.table, key), value);
        }
        for key in change.del {
            rows.remove(&(change.table, key));
        }
    }
    rows
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
