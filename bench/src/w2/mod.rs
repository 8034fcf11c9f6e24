//! Runs the benchmark W2, which computes hourly final windows per group and sessions per key, over
//! 5 million events in 90 days of event time. The state is durable, and every final row is checked.
//! W1 is measured in the same run, because the cost of windows is stated as a ratio to W1.

mod native;
mod visits;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lantern_core::{KeyRange, View};
use lantern_engine::EngineConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Options;
use crate::folding::{self, Fold, Folding, Prepared, print};
use crate::report::{self, Measured, Stopwatch, median};
use crate::w1;
use native::{Counts, Late, Sums, Tables};

/// The options of the benchmark W2.
#[derive(Clone, clap::Args)]
pub(crate) struct W2Options {
    #[command(flatten)]
    pub(crate) common: Options,
    /// The tick of event time, in seconds.
    #[arg(long, default_value_t = 60)]
    tick: u32,
    /// The maximum number of ticks in a call, as `engine.batch_ticks_max`; 1 ends each call at the
    /// next tick.
    #[arg(long)]
    batch_ticks: Option<usize>,
    /// The guest of W1, for the measurement of W1 in the same run.
    #[arg(long, default_value = "target/guests/w1.wasm")]
    w1_plugin: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Write the log and the file, unless they are there.
    Prepare,
    /// Fold with Lantern.
    Fold,
    /// Compute with plain Rust.
    Native,
}

/// The measurements of the plain computation, and counts of its input and output.
#[derive(Serialize, Deserialize)]
struct Native {
    measured: Measured,
    counts: Counts,
    windows: usize,
    sessions: usize,
    keys: usize,
}

/// Runs W2, the plain computation and W1 in turn, and prints medians.
pub(crate) fn run(options: &W2Options) -> Result<()> {
    let w1_options = Options { plugin: options.w1_plugin.clone(), ..options.common.clone() };
    w1::spawn_prepare(&w1_options)?;
    spawn(Phase::Prepare, options)?;
    let (mut folds, mut natives, mut w1s) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = None;
    let rounds = options.common.rounds.max(1);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        folds.push(serde_json::from_slice(&spawn(Phase::Fold, options)?)?);
        let native: Native = serde_json::from_slice(&spawn(Phase::Native, options)?)?;
        natives.push(native.measured.clone());
        found = Some(native);
        w1s.push(w1::measured(w1::Phase::Fold, &w1_options)?);
    }
    let Native { counts, windows, sessions, keys, .. } = found.context("there is a round")?;
    let mut result = report::sides("w2", &options.common, &folds, &[], &natives);
    let w1_cpu = median(w1s.iter().map(|w1| w1.cpu_s).collect());
    let cpu = median(folds.iter().map(|fold: &Measured| fold.cpu_s).collect());
    let more = serde_json::json!({
        "tick_s": options.tick,
        "batch_ticks_max": config(options).batch_ticks_max,
        "w1_cpu_s_per_million": w1_cpu / (options.common.events as f64 / 1e6),
        "ratio_to_w1": cpu / w1_cpu,
        "windows": windows,
        "sessions": sessions,
        "keys": keys,
        "late_share": counts.late as f64 / options.common.events as f64,
        "ticks": counts.ticks,
        "due_ticks_share": counts.due_ticks as f64 / counts.ticks as f64,
        "exact": result["exact"] == true && w1s.iter().all(|w1| w1.exact),
    });
    report::merge(&mut result, more);
    report::print_result(&options.common, &result)
}

/// Runs one phase in this process, and prints its measurements.
pub(crate) fn phase(phase: Phase, options: &W2Options) -> Result<()> {
    let prepared = Prepared { name: "w2", options: &options.common };
    match phase {
        Phase::Prepare => prepared.write(visits::fill),
        Phase::Fold => print(&fold(&prepared, options)?),
        Phase::Native => {
            let watch = Stopwatch::start()?;
            let done = native::fold(&prepared.lines(), options.tick)?;
            let mut measured = watch.stop()?;
            let Tables { group_hour, sessions, .. } = &done.tables;
            measured.exact = !group_hour.is_empty() && !sessions.is_empty();
            let keys: HashSet<&String> = sessions.keys().map(|(_, key)| key).collect();
            print(&Native {
                measured,
                counts: done.counts,
                windows: group_hour.len(),
                sessions: sessions.len(),
                keys: keys.len(),
            })
        }
    }
}

fn spawn(phase: Phase, options: &W2Options) -> Result<Vec<u8>> {
    let tick = options.tick.to_string();
    let ticks = config(options).batch_ticks_max.to_string();
    let more = ["--tick", &tick, "--batch-ticks", &ticks];
    folding::spawn("w2-phase", phase, &options.common, &more)
}

fn config(options: &W2Options) -> EngineConfig {
    let config = EngineConfig::default();
    let batch_ticks_max = options.batch_ticks.unwrap_or(config.batch_ticks_max);
    EngineConfig { batch_ticks_max, ..config }
}

fn fold(prepared: &Prepared<'_>, options: &W2Options) -> Result<Measured> {
    let folding = Folding {
        options: &options.common,
        projection: "w2",
        parameters: serde_json::json!({ "tick_s": options.tick }).to_string(),
        config: config(options),
    };
    folding.fold(
        Fold::Empty,
        || prepared.log(),
        |view| {
            let expected = native::fold(&prepared.lines(), options.tick)?.tables;
            Ok(same(view, "group_hour", timed, sums, &expected.group_hour)?
                && same(view, "sessions", timed, session, &expected.sessions)?
                && same(view, "late", |key| Some(key.to_owned()), late, &expected.late)?)
        },
    )
}

/// Returns whether the table `name` contains exactly the rows `expected`.
fn same<K: Eq + Hash, V: PartialEq + std::fmt::Debug>(
    view: &View,
    name: &str,
    key: impl Fn(&str) -> Option<K>,
    value: impl Fn(&Value) -> Option<V>,
    expected: &HashMap<K, V>,
) -> Result<bool> {
    let (table, _) = view.manifest().table(name).context("no such table")?;
    let rows = view.scan(table, &KeyRange::all(), usize::MAX, false)?;
    if rows.len() != expected.len() {
        eprintln!("{name}: {} rows, expected {}", rows.len(), expected.len());
        return Ok(false);
    }
    for row in rows {
        let found = value(&serde_json::from_slice(&row.value)?);
        let wanted = key(&row.key).and_then(|key| expected.get(&key));
        if found.is_none() || found.as_ref() != wanted {
            eprintln!("{name}: row `{}` is {found:?}, expected {wanted:?}", row.key);
            return Ok(false);
        }
    }
    Ok(true)
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

/// Splits a key that begins with a time into the time, in microseconds, and the rest.
fn timed(key: &str) -> Option<(i64, String)> {
    let (time, rest) = key.split_once('/')?;
    Some((micros(time)?, rest.to_owned()))
}

fn sums(row: &Value) -> Option<Sums> {
    Some(Sums { events: row["events"].as_u64()?, cents: row["cents"].as_i64()? })
}

fn session(row: &Value) -> Option<(i64, Sums)> {
    Some((micros(row["end"].as_str()?)?, sums(row)?))
}

fn late(row: &Value) -> Option<Late> {
    Some(Late { windows: row["windows"].as_u64()?, sessions: row["sessions"].as_u64()? })
}
