//! What a phase measured, and the median of several.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

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

/// The middle one of `values`.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
