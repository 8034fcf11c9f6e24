//! W1: 5 million shop events; count and sum per tenant and minute, revenue per
//! product; state durable, result exact.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_cli::generate::{Options as ShopOptions, Shop};
use lantern_core::{
    Clock, Committed, Events, KeyRange, Log, Plugin, Publish, Timestamp, VersionId, VersionRecord,
    View, Views,
};
use lantern_engine::{Activation, Engine, EngineConfig, PluginSource, Ports, Upload};
use lantern_log::{EmbeddedLog, LogConfig};
use lantern_plugin::{PluginConfig, PluginHost};
use lantern_store::{CatalogFile, StateDir, StoreConfig};

use crate::Options;
use crate::native::{self, Sums};
use crate::report::{self, Measured, Stopwatch};
use crate::server;

/// How many events one append has.
const APPEND_EVENTS: u64 = 10_000;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Write the log and the file, where they are not there yet.
    Prepare,
    /// Fold with Lantern, into tables that are empty.
    Fold,
    /// Fold once more with Lantern, in place of what [`Phase::Fold`] left.
    Rebuild,
    /// Fold with plain Rust.
    Native,
}

/// Runs both sides in turn and prints medians.
pub(crate) fn run(options: &Options) -> Result<()> {
    spawn(Phase::Prepare, options)?;
    let (mut folds, mut rebuilds, mut natives) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, options.rounds.max(1));
        folds.push(measured(Phase::Fold, options)?);
        rebuilds.push(measured(Phase::Rebuild, options)?);
        natives.push(measured(Phase::Native, options)?);
    }
    report::print_sides("w1", options, &folds, &rebuilds, &natives)
}

/// Runs one phase in this process, and prints what it measured.
pub(crate) fn phase(phase: Phase, options: &Options) -> Result<()> {
    match phase {
        Phase::Prepare => prepare(options),
        Phase::Fold => print(&fold(options, Fold::Empty)?),
        Phase::Rebuild => print(&fold(options, Fold::Again)?),
        Phase::Native => {
            let watch = Stopwatch::start()?;
            let tables = native::fold(&events_file(options))?;
            let mut measured = watch.stop()?;
            measured.exact = !tables.product.is_empty();
            print(&measured)
        }
    }
}

pub(crate) fn print(measured: &Measured) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}

fn spawn(phase: Phase, options: &Options) -> Result<Vec<u8>> {
    let name = clap::ValueEnum::to_possible_value(&phase).context("every phase has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["phase", name.get_name(), "--events", &options.events.to_string()])
        .arg("--dir")
        .arg(&options.dir)
        .arg("--plugin")
        .arg(&options.plugin)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "phase {} failed: {}", name.get_name(), output.status);
    Ok(output.stdout)
}

fn measured(phase: Phase, options: &Options) -> Result<Measured> {
    Ok(serde_json::from_slice(&spawn(phase, options)?)?)
}

fn shop(options: &Options) -> Shop {
    Shop::new(ShopOptions { events: options.events, ..ShopOptions::default() })
}

fn log_file(options: &Options) -> PathBuf {
    options.dir.join(format!("w1-{}.redb", options.events))
}

fn events_file(options: &Options) -> PathBuf {
    options.dir.join(format!("w1-{}.ndjson", options.events))
}

fn prepare(options: &Options) -> Result<()> {
    let done = options.dir.join(format!("w1-{}.done", options.events));
    if done.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&options.dir)?;
    std::fs::remove_file(log_file(options)).ok();
    let shop = shop(options);
    let log = EmbeddedLog::open(log_file(options), LogConfig::default())?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(events_file(options))?);
    let (mut lines, mut scratch) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for first in (0..options.events).step_by(APPEND_EVENTS as usize) {
        let last = (first + APPEND_EVENTS).min(options.events);
        lines.clear();
        (first..last).for_each(|index| shop.write_line(index, &mut lines));
        file.write_all(&lines)?;
        let mut events = Events::new();
        shop.fill(first..last, &mut events, &mut scratch);
        let (send, done) = mpsc::channel();
        log.append(events, Box::new(move |outcome| drop(send.send(outcome))));
        done.recv()??;
    }
    file.flush()?;
    log.close();
    eprintln!("{} events prepared in {:.1?}", options.events, started.elapsed());
    File::create(done)?;
    Ok(())
}

fn fold(options: &Options, how: Fold) -> Result<Measured> {
    let open = || {
        let log = EmbeddedLog::open(log_file(options), LogConfig::default())?;
        Ok(Arc::new(log) as Arc<dyn Log>)
    };
    fold_over(options, how, open, || native::fold(&events_file(options)))
}

/// Into what a log is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// A state made for it.
    Empty,
    /// Tables that hold what an earlier fold left; they are rebuilt in place.
    Again,
}

/// Folds all events of the log that `open` opens, which is measured with the
/// fold, and compares the tables with `expected`.
pub(crate) fn fold_over(
    options: &Options,
    how: Fold,
    open: impl FnOnce() -> Result<Arc<dyn Log>>,
    expected: impl FnOnce() -> Result<native::Tables>,
) -> Result<Measured> {
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
    let plugin = host.load(&wasm, "")?;
    let watch = Stopwatch::start()?;
    let ports = Ports {
        log: open()?,
        stores: Arc::new(StateDir::open(dir.join("state"), StoreConfig::default())?),
        catalog: Arc::new(CatalogFile::open(dir.join("catalog.redb"))?),
        publish: Arc::new(Nobody),
        clock: Arc::new(SystemClock(Instant::now())),
        random: Arc::new(NoRandom),
        plugins: Arc::new(Loaded(plugin.clone())),
    };
    let engine = Engine::open(EngineConfig::default(), ports)?;
    engine.start();
    match how {
        Fold::Empty => drop(engine.upload(Upload {
            plugin,
            sha256: "w1".into(),
            parameters: String::new(),
            name: None,
            activate: Activation::Checked,
            check: false,
        })?),
        Fold::Again => {
            let active = engine.status_of("w1")?.active.context("no fold was there before")?;
            engine.rebuild("w1", &VersionId(active))?;
        }
    }
    wait_until_active(&engine, options.events)?;
    engine.shutdown();
    let mut measured = watch.stop()?;
    measured.state_bytes = server::bytes_below(&dir.join("state"))?;
    let view = engine.view("w1")?;
    measured.exact = is_exact(&view, &expected()?)?;
    Ok(measured)
}

/// Waits until the active version has applied all events, whatever partitions
/// they are in.
fn wait_until_active(engine: &Engine, events: u64) -> Result<()> {
    loop {
        let status = engine.status_of("w1")?;
        let version = &status.versions[0];
        if let Some(reason) = &version.reason {
            bail!("{}: {reason}", version.activity);
        }
        let applied: u64 = version.shards.iter().map(|shard| shard.applied).sum();
        if status.active.is_some() && applied >= events {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the tables hold just these rows.
pub(crate) fn is_exact(view: &View, expected: &native::Tables) -> Result<bool> {
    let tables = [
        ("tenant_minute", "count", &expected.tenant_minute),
        ("product", "orders", &expected.product),
    ];
    for (name, count, sums) in tables {
        if !same(view, name, count, sums)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same(view: &View, name: &str, count: &str, expected: &Sums) -> Result<bool> {
    let (table, _) = view.manifest().table(name).context("no such table")?;
    let rows = view.scan(table, &KeyRange::all(), usize::MAX, false)?;
    if rows.len() != expected.len() {
        eprintln!("{name}: {} rows, expected {}", rows.len(), expected.len());
        return Ok(false);
    }
    for row in rows {
        let value: serde_json::Value = serde_json::from_slice(&row.value)?;
        let found = (value[count].as_u64(), value["cents"].as_i64());
        let wanted = expected.get(&row.key).map(|(n, cents)| (Some(*n), Some(*cents)));
        if Some(found) != wanted {
            eprintln!("{name}: row `{}` is {found:?}, expected {wanted:?}", row.key);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nobody reads.
struct Nobody;

impl Publish for Nobody {
    fn committed(&self, _: &Arc<Committed>) {}

    fn activated(&self, _: &str, _: Option<&str>) {}
}

/// The one plugin there is.
struct Loaded(Arc<dyn Plugin>);

impl PluginSource for Loaded {
    fn load(&self, _: &VersionRecord) -> Result<Arc<dyn Plugin>, lantern_engine::PluginError> {
        Ok(self.0.clone())
    }
}

struct SystemClock(Instant);

/// Nothing here asks what epoch it is.
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
