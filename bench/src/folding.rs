//! Measures a fold of a whole log by Lantern. This module also has the code that all
//! folding benchmarks share: it prepares events as a log and as a file, and runs phases in
//! separate processes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_core::{
    Clock, CloseLog as _, CommitSink, Events, Log, Plugin, PublishedCommit, Timestamp, VersionId,
    VersionRecord, View, Views,
};
use lantern_engine::{Engine, EngineConfig, PluginSource, Ports, Upload};
use lantern_log::{EmbeddedLog, LogConfig};
use lantern_plugin::{PluginConfig, PluginHost};
use lantern_store::{CatalogFile, StateDir, StoreConfig};

use crate::Options;
use crate::report::{Measured, Stopwatch};
use crate::server;

/// The number of events that one append writes.
const APPEND_EVENTS: u64 = 10_000;

/// The state into which a fold writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// The fold begins with a new, empty state.
    Empty,
    /// The fold begins with the state of an earlier fold, and rebuilds the tables of this state in
    /// place.
    Again,
}

/// The events of a benchmark, as a log and as a file of lines. Both are kept between runs of the
/// benchmark.
pub(crate) struct Prepared<'a> {
    pub(crate) name: &'a str,
    pub(crate) options: &'a Options,
}

impl Prepared<'_> {
    fn path(&self, ending: &str) -> PathBuf {
        self.options.dir.join(format!("{}-{}.{ending}", self.name, self.options.events))
    }

    /// Returns the path of the file with the events as lines of JSON.
    pub(crate) fn lines(&self) -> PathBuf {
        self.path("ndjson")
    }

    /// Opens the log.
    pub(crate) fn log(&self) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(EmbeddedLog::open(self.path("redb"), LogConfig::default())?))
    }

    /// Writes the log and the file, unless they exist. `fill` adds a range of events to
    /// both.
    pub(crate) fn write(
        &self,
        mut fill: impl FnMut(Range<u64>, &mut Events, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let done = self.path("done");
        if done.exists() {
            return Ok(());
        }
        let (all, started) = (self.options.events, Instant::now());
        std::fs::create_dir_all(&self.options.dir)?;
        std::fs::remove_file(self.path("redb")).ok();
        let log = EmbeddedLog::open(self.path("redb"), LogConfig::default())?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.lines())?);
        let mut lines = Vec::new();
        for first in (0..all).step_by(APPEND_EVENTS as usize) {
            lines.clear();
            let mut events = Events::new();
            fill(first..(first + APPEND_EVENTS).min(all), &mut events, &mut lines)?;
            file.write_all(&lines)?;
            let (send, appended) = mpsc::channel();
            log.append(events, Box::new(move |outcome| drop(send.send(outcome))));
            appended.recv()??;
        }
        file.flush()?;
        log.close();
        eprintln!("{all} events of {} prepared in {:.1?}", self.name, started.elapsed());
        File::create(done)?;
        Ok(())
    }
}

/// Runs a phase of the hidden command `command` in a separate process, with the
/// additional arguments `more`. Returns its standard output.
pub(crate) fn spawn(
    command: &str,
    phase: impl clap::ValueEnum,
    options: &Options,
    more: &[&str],
) -> Result<Vec<u8>> {
    let name = phase.to_possible_value().context("every phase has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args([command, name.get_name(), "--events", &options.events.to_string()])
        .args(more)
        .arg("--dir")
        .arg(&options.dir)
        .arg("--plugin")
        .arg(&options.plugin)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "phase {} failed: {}", name.get_name(), output.status);
    Ok(output.stdout)
}

/// Prints the measurements of a phase as JSON, for the process that started the phase.
pub(crate) fn print(measured: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}

/// The options with which Lantern folds the events of a benchmark.
pub(crate) struct Folding<'a> {
    pub(crate) options: &'a Options,
    /// The name of the projection that folds.
    pub(crate) projection: &'static str,
    pub(crate) parameters: String,
    pub(crate) config: EngineConfig,
}

impl Folding<'_> {
    /// Folds all events of the log that `open` opens. The measurement includes opening
    /// the log. Afterwards `exact` checks the tables.
    pub(crate) fn fold(
        &self,
        how: Fold,
        open: impl FnOnce() -> Result<Arc<dyn Log>>,
        exact: impl FnOnce(&View) -> Result<bool>,
    ) -> Result<Measured> {
        let Self { options, projection, parameters, config } = self;
        let dir = options.dir.join("state");
        if how == Fold::Empty {
            std::fs::remove_dir_all(&dir).ok();
            std::fs::create_dir_all(&dir)?;
        }
        let wasm = std::fs::read(&options.plugin)
            .with_context(|| format!("no guest at `{}`", options.plugin.display()))?;
        let host = PluginHost::new(PluginConfig {
            cache_dir: Some(options.dir.join("cache")),
            ..PluginConfig::default()
        })?;
        let plugin = host.load(&wasm, parameters)?;
        let watch = Stopwatch::start()?;
        let ports = Ports {
            log: open()?,
            stores: Arc::new(StateDir::open(dir.join("state"), StoreConfig::default())?),
            catalog: Arc::new(CatalogFile::open(dir.join("catalog.redb"))?),
            publish: Arc::new(NoReader),
            clock: Arc::new(SystemClock(Instant::now())),
            random: Arc::new(NoRandom),
            plugins: Arc::new(Loaded(plugin.clone())),
            traces: None,
        };
        let engine = Engine::open(config.clone(), ports)?;
        engine.start();
        match how {
            Fold::Empty => {
                let parameters = parameters.clone();
                let upload = Upload::new(plugin, *projection);
                engine.upload(Upload { parameters, check: false, ..upload })?;
            }
            Fold::Again => {
                let active = engine.status_of(projection)?.active;
                let active = active.context("no fold was there before")?;
                engine.rebuild(projection, &VersionId(active))?;
            }
        }
        self.wait_until_active(&engine)?;
        engine.shutdown();
        let mut measured = watch.stop()?;
        measured.state_bytes = server::bytes_below(&dir.join("state"))?;
        measured.exact = exact(&engine.view(projection)?)?;
        Ok(measured)
    }

    /// Waits until the active version has applied the events of all partitions.
    fn wait_until_active(&self, engine: &Engine) -> Result<()> {
        loop {
            let status = engine.status_of(self.projection)?;
            let version = &status.versions[0];
            if let Some(reason) = &version.reason {
                bail!("{}: {reason}", version.activity);
            }
            let applied: u64 = version.shards.iter().map(|shard| shard.applied).sum();
            if status.active.is_some() && applied >= self.options.events {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Receives the commits of the engine and ignores them, because no reader is subscribed.
struct NoReader;

impl CommitSink for NoReader {
    fn committed(&self, _: &Arc<PublishedCommit>) {}

    fn activated(&self, _: &str, _: Option<&str>) {}
}

/// A source of plugins that returns the same plugin for every version.
struct Loaded(Arc<dyn Plugin>);

impl PluginSource for Loaded {
    fn load(&self, _: &VersionRecord) -> Result<Arc<dyn Plugin>, lantern_engine::PluginError> {
        Ok(self.0.clone())
    }
}

struct SystemClock(Instant);

/// A source of random numbers that returns a constant, because the benchmarks do not depend on
/// epochs.
struct NoRandom;

impl lantern_core::Random for NoRandom {
    fn draw(&self) -> u64 {
        1
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(0)
    }
}
