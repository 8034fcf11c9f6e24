//! Runs the benchmark W1, which folds 5 million shop events. It computes the count and the sum per
//! tenant and minute, and the revenue per product. The state is durable, and every row is checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lantern_cli::generate::{Options as ShopOptions, Shop};
use lantern_core::{KeyRange, Log, View};
use lantern_engine::EngineConfig;
use serde::Deserialize;

use crate::Options;
use crate::folding::{self, Fold, Folding, Prepared, print};
use crate::native::{self, Sums};
use crate::report::{self, Measured, Stopwatch};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Write the log and the file, if they do not exist yet.
    Prepare,
    /// Fold with Lantern, into tables that are empty.
    Fold,
    /// Rebuild with Lantern: fold the log again, and replace the tables of [`Phase::Fold`].
    Rebuild,
    /// Fold with plain Rust.
    Native,
}

/// The options of the benchmark W1.
#[derive(Clone, clap::Args)]
pub(crate) struct W1Options {
    #[command(flatten)]
    common: Options,
    /// The program `bench/simd`: the plain fold with a SIMD parser. It is measured only if
    /// this is given.
    #[arg(long)]
    simd: Option<PathBuf>,
}

/// The measurements that the plain fold with a SIMD parser prints.
#[derive(Deserialize)]
struct SimdFold {
    wall_s: f64,
    cpu_s: f64,
    exact: bool,
}

/// Runs Lantern's fold and the plain fold in turn, and prints medians.
pub(crate) fn run(options: &W1Options) -> Result<()> {
    let W1Options { common: options, simd } = options;
    spawn_prepare(options)?;
    let (mut folds, mut rebuilds, mut natives) = (Vec::new(), Vec::new(), Vec::new());
    let mut simds = Vec::new();
    for round in 0..options.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, options.rounds.max(1));
        folds.push(measured(Phase::Fold, options)?);
        rebuilds.push(measured(Phase::Rebuild, options)?);
        natives.push(measured(Phase::Native, options)?);
        if let Some(program) = simd {
            simds.push(simd_fold(program, options)?);
        }
    }
    let mut result = report::sides("w1", options, &folds, &rebuilds, &natives);
    if !simds.is_empty() {
        let of = |pick: fn(&SimdFold) -> f64| report::median(simds.iter().map(pick).collect());
        let cpu = of(|fold| fold.cpu_s) / options.events as f64 * 1e6;
        let ratio = result["cpu_s_per_million"].as_f64().map(|own| own / cpu);
        let more = serde_json::json!({
            "simd_cpu_s_per_million": cpu,
            "simd_events_per_s": options.events as f64 / of(|fold| fold.wall_s),
            "simd_ratio": ratio,
        });
        report::merge(&mut result, more);
        ensure!(simds.iter().all(|fold| fold.exact), "the SIMD parser found other rows");
    }
    report::print_result(options, &result)
}

/// Runs the plain fold with a SIMD parser.
fn simd_fold(program: &Path, options: &Options) -> Result<SimdFold> {
    let output = Command::new(program)
        .arg(prepared(options).lines())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "the fold with a SIMD parser failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs one phase in this process, and prints its measurements.
pub(crate) fn phase(phase: Phase, options: &Options) -> Result<()> {
    match phase {
        Phase::Prepare => prepare(options),
        Phase::Fold => print(&fold(options, Fold::Empty)?),
        Phase::Rebuild => print(&fold(options, Fold::Again)?),
        Phase::Native => {
            let watch = Stopwatch::start()?;
            let tables = native::fold(&prepared(options).lines())?;
            let mut measured = watch.stop()?;
            measured.exact = !tables.product.is_empty();
            print(&measured)
        }
    }
}

fn spawn(phase: Phase, options: &Options) -> Result<Vec<u8>> {
    folding::spawn("phase", phase, options, &[])
}

/// Runs a phase in a separate process, and returns its measurements.
pub(crate) fn measured(phase: Phase, options: &Options) -> Result<Measured> {
    Ok(serde_json::from_slice(&spawn(phase, options)?)?)
}

/// Writes the events in a separate process, unless the files exist.
pub(crate) fn spawn_prepare(options: &Options) -> Result<()> {
    spawn(Phase::Prepare, options).map(drop)
}

fn prepared(options: &Options) -> Prepared<'_> {
    Prepared { name: "w1", options }
}

fn prepare(options: &Options) -> Result<()> {
    let shop = Shop::new(ShopOptions { events: options.events, ..ShopOptions::default() });
    let mut scratch = Vec::new();
    prepared(options).write(|range, events, lines| {
        range.clone().for_each(|index| shop.write_line(index, lines));
        shop.fill(range, events, &mut scratch);
        Ok(())
    })
}

fn fold(options: &Options, how: Fold) -> Result<Measured> {
    let prepared = prepared(options);
    fold_over(options, how, || prepared.log(), || native::fold(&prepared.lines()))
}

/// Folds all events of the log that `open` opens, and compares the tables with
/// `expected`. The measurement includes opening the log, but not the comparison.
pub(crate) fn fold_over(
    options: &Options,
    how: Fold,
    open: impl FnOnce() -> Result<Arc<dyn Log>>,
    expected: impl FnOnce() -> Result<native::Tables>,
) -> Result<Measured> {
    let folding = Folding {
        options,
        projection: "w1",
        parameters: String::new(),
        config: EngineConfig::default(),
    };
    folding.fold(how, open, |view| is_exact(view, &expected()?))
}

/// Returns whether the tables contain exactly the expected rows.
fn is_exact(view: &View, expected: &native::Tables) -> Result<bool> {
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
