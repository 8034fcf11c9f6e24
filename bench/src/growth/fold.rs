//! Measures a fold of a log by one projection: events per second and CPU time, after the
//! table has all its rows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lantern_tests::Server;
use serde_json::Value;

use super::Options;
use crate::keyed::KeyedLog;
use crate::process::Usage;
use crate::report::{Figures, Point, in_turn};
use crate::server;

/// The time between two checks of how far the fold is.
const LOOK: Duration = Duration::from_millis(10);
/// The number of keys in benchmarks in which something else grows.
const KEYS: u64 = 10_000;
/// The maximum time that a fold may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// One point of the growth benchmarks, which measures a fold.
#[derive(Clone)]
pub(super) struct Fold {
    /// The name of the parameter that grows, and its value at this point.
    pub(super) name: &'static str,
    pub(super) size: u64,
    pub(super) log: KeyedLog,
    pub(super) parameters: String,
    pub(super) settings: Vec<String>,
}

impl Fold {
    pub(super) fn new(options: &Options, name: &'static str, size: u64) -> Self {
        let log = KeyedLog {
            keys: KEYS,
            filled: true,
            events: options.events,
            skewed: false,
            partitions: 1,
        };
        Self { name, size, log, parameters: String::new(), settings: Vec::new() }
    }
}

/// Measures all `folds` in turn. The function `one` measures each of them.
pub(super) async fn measure(
    options: &Options,
    folds: &[Fold],
    one: impl AsyncFn(&Options, &Fold) -> Result<Figures>,
) -> Result<Vec<Point>> {
    let name = |fold: &Fold| format!("{} {}", fold.size, fold.name);
    let rounds =
        in_turn(options.rounds, folds, name, async |fold| one(options, fold).await).await?;
    let lines = folds.iter().zip(&rounds);
    let point = |(fold, rounds): (&Fold, &Vec<Figures>)| {
        Point::new(fold.name)
            .with("size", fold.size)
            .with("events", fold.log.events)
            .with_medians(rounds)
    };
    Ok(lines.map(point).collect())
}

/// Measures how long a projection takes to fold an existing log.
pub(super) async fn one(options: &Options, fold: &Fold) -> Result<Figures> {
    let log = fold.log.prepare(&options.dir)?;
    let wasm = std::fs::read(server::guest(&options.guests, "keyed")?)?;
    let data = options.dir.join("data");
    let settings = settings(options, &fold.settings);
    if options.restart {
        empty(&data)?;
        let mut server = start(&data, &settings)?;
        server::push(&server, "keyed", &wasm, &fold.parameters, "").await?;
        server::stop(&mut server)?;
    } else {
        empty(&data)?;
    }
    lay(&log, &data)?;
    let mut server = start(&data, &settings)?;
    if !options.restart {
        // The determinism check folds a sample several times, which is not part of this
        // measurement.
        server::push(&server, "keyed", &wasm, &fold.parameters, "?check=false").await?;
    }
    let begun = reach(&server, fold.log.fill()).await?;
    let ended = reach(&server, fold.log.total()).await?;
    // The version becomes active a moment after it has folded the log.
    server.caught_up("keyed").await?;
    let figures = figures(&server, &data, fold, begun, ended).await?;
    server::stop(&mut server)?;
    Ok(figures)
}

/// The position of the fold at some moment, and the resources that the server had used by then.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Instant,
    position: u64,
    pub(super) usage: Usage,
}

/// Waits until the fold has reached `position`, and returns the first check that shows this.
pub(super) async fn reach(server: &Server, position: u64) -> Result<Moment> {
    let started = Instant::now();
    loop {
        let now = server::position(server, "keyed").await?;
        if now >= position {
            return Ok(Moment { at: Instant::now(), position: now, usage: server::usage(server)? });
        }
        ensure!(started.elapsed() < PATIENCE, "`keyed` is at {now} of {position}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn figures(
    server: &Server,
    data: &Path,
    fold: &Fold,
    begun: Moment,
    ended: Moment,
) -> Result<Figures> {
    let events = (ended.position - begun.position) as f64;
    ensure!(events * 2.0 > fold.log.events as f64, "too few events are left: raise `--events`");
    check(server, fold).await?;
    let cpu_s = ended.usage.cpu_s - begun.usage.cpu_s;
    let state = server::bytes_below(&data.join("state"))?;
    Ok(vec![
        ("events_per_s", events / (ended.at - begun.at).as_secs_f64()),
        ("cpu_s_per_million", cpu_s / (events / 1e6)),
        ("fill_cpu_s", begun.usage.cpu_s),
        ("peak_rss_mib", ended.usage.peak_rss_mib()),
        ("state_bytes_per_key", state as f64 / fold.log.keys as f64),
    ])
}

/// Checks that a row matches the log's events of its key: no event was lost, and none was folded
/// twice.
pub(super) async fn check(server: &Server, fold: &Fold) -> Result<()> {
    let wide = fold.parameters.contains("wide");
    let (table, field) = if wide { ("wide", "cents") } else { ("total", "count") };
    let key = fold.log.key(fold.log.total() - 1);
    let row = server.get(&format!("/v1/tables/keyed/{table}?key=k{key:08}")).await?;
    let row = row["rows"].as_object().and_then(|rows| rows.values().next()).cloned();
    let found = row.as_ref().and_then(|row| row[field].as_u64()).context("no row")?;
    if !wide {
        let count = (0..fold.log.total()).filter(|index| fold.log.key(*index) == key).count();
        ensure!(found == count as u64, "key {key} has {found} events instead of {count}");
    }
    Ok(())
}

/// Returns the settings of a server that folds existing events and appends none itself.
pub(super) fn settings(options: &Options, more: &[String]) -> Vec<String> {
    let mut settings = vec!["upkeep.heartbeats=false".to_owned()];
    settings.extend_from_slice(more);
    settings.extend_from_slice(&options.common.set);
    settings
}

/// Deletes everything in the data folder.
pub(super) fn empty(data: &Path) -> Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data)?;
    }
    Ok(std::fs::create_dir_all(data)?)
}

/// Replaces the log in `data` by a link to the file `log`, which the server reads and does
/// not change.
pub(super) fn lay(log: &Path, data: &Path) -> Result<()> {
    let link: PathBuf = data.join("log.redb");
    if link.exists() {
        std::fs::remove_file(&link)?;
    }
    std::fs::hard_link(log, &link)
        .with_context(|| format!("linking `{}` to `{}`", log.display(), link.display()))
}

pub(super) fn start(data: &Path, settings: &[String]) -> Result<Server> {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Server::start_in(data, "127.0.0.1:0", &settings)
}

/// Returns whether the server reports that it is ready.
pub(super) async fn is_ready(server: &Server) -> bool {
    server.get("/readyz").await.is_ok_and(|answer| answer["ready"] == Value::Bool(true))
}
