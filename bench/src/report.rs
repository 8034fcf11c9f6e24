//! What a phase measured, and the median of several.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::Options;

/// What a phase took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) wall_s: f64,
    /// User and system time of all threads.
    pub(crate) cpu_s: f64,
    /// The process's highest resident memory.
    pub(crate) peak_rss_mib: f64,
    /// Whether the outcome was what it had to be.
    pub(crate) exact: bool,
    /// Bytes written to state files.
    pub(crate) state_bytes: u64,
}

/// Measures from its making to [`Stopwatch::stop`].
pub(crate) struct Stopwatch {
    started: Instant,
    cpu: cpu_time::ProcessTime,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_time::ProcessTime::now() }
    }

    pub(crate) fn stop(&self) -> Result<Measured> {
        Ok(Measured {
            wall_s: self.started.elapsed().as_secs_f64(),
            cpu_s: self.cpu.elapsed().as_secs_f64(),
            peak_rss_mib: peak_rss_mib()?,
            exact: false,
            state_bytes: 0,
        })
    }
}

fn peak_rss_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Prints medians of both sides, as a JSON object.
///
/// # Errors
/// Where an outcome was not what it had to be.
pub(crate) fn print(
    benchmark: &str,
    options: &Options,
    folds: &[Measured],
    natives: &[Measured],
) -> Result<()> {
    let million = options.events as f64 / 1e6;
    let of = |all: &[Measured], pick: fn(&Measured) -> f64| median(all.iter().map(pick).collect());
    let exact = folds.iter().chain(natives).all(|m| m.exact);
    let cpu = of(folds, |m| m.cpu_s) / million;
    let native_cpu = of(natives, |m| m.cpu_s) / million;
    let rate = options.events as f64 / of(folds, |m| m.wall_s);
    let result = serde_json::json!({
        "benchmark": benchmark,
        "events": options.events,
        "cpu_s_per_million": cpu,
        "native_cpu_s_per_million": native_cpu,
        "ratio": cpu / native_cpu,
        "events_per_s": rate,
        "native_events_per_s": options.events as f64 / of(natives, |m| m.wall_s),
        "peak_rss_mib": of(folds, |m| m.peak_rss_mib),
        "native_peak_rss_mib": of(natives, |m| m.peak_rss_mib),
        "state_bytes_per_event":
            folds[0].state_bytes as f64 / options.events as f64,
        "exact": exact,
    });
    if options.json {
        println!("{result}");
    } else {
        println!("{}", serde_json::to_string_pretty(&result)?);
    }
    ensure!(exact, "the tables are not what they must be");
    Ok(())
}

/// The middle one of `values`.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
