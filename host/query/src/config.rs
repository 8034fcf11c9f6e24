//! Defines the settings of queries. Their doc comments are the source of the reference in
//! docs/config.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Section `query` of `lantern.toml`, for filters, orders by a field and roll-ups of tables. Reads
/// by key, prefix and range alone are not queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// The number of queries that run at a time; 0 means half the number of cores, at
    /// least 1. Default 0.
    pub threads: usize,
    /// The number of queries that wait until another one ends; more get 503. Default 64.
    pub waiting_max: usize,
    /// The maximum number of rows that a query reads, including rows that its filter leaves out.
    /// Default 10,000,000.
    pub rows_scanned_max: u64,
    /// The most groups of a roll-up, filled ones included. Default 100,000.
    pub groups_max: usize,
    /// The most memory of a query for its groups or rows, in bytes. Default 64 MiB.
    pub memory_bytes_max: usize,
    /// The maximum time that a query runs, in milliseconds. The wait for other queries is not
    /// counted. Default 10,000.
    pub run_ms_max: u64,
    /// The maximum number of exports (`export=1`) that run at a time; further ones get 503. Each
    /// runs on a thread of its own. Default 4.
    pub exports_max: usize,
    /// The maximum time of an export, in milliseconds. An export that is not complete by then ends
    /// with an error. The limit exists because an export keeps the disk space of overwritten rows
    /// in use until it ends. Default 300,000.
    pub export_ms_max: u64,
    /// The most sets of labels of an answer with `format=prometheus`. Default 10,000.
    pub prometheus_rows_max: usize,
    /// The most named queries (`/v1/queries`). Default 1,000.
    pub named_max: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            waiting_max: 64,
            rows_scanned_max: 10_000_000,
            groups_max: 100_000,
            memory_bytes_max: 64 << 20,
            run_ms_max: 10_000,
            exports_max: 4,
            export_ms_max: 300_000,
            prometheus_rows_max: 10_000,
            named_max: 1_000,
        }
    }
}

impl QueryConfig {
    /// Checks the settings for rules that their types cannot express.
    ///
    /// # Errors
    /// Returns a sentence that names the first setting that is out of bounds.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, least) in [
            ("rows_scanned_max", self.rows_scanned_max, 1),
            ("groups_max", self.groups_max as u64, 1),
            ("memory_bytes_max", self.memory_bytes_max as u64, 1 << 10),
            ("run_ms_max", self.run_ms_max, 1),
            ("exports_max", self.exports_max as u64, 1),
            ("prometheus_rows_max", self.prometheus_rows_max as u64, 1),
            ("export_ms_max", self.export_ms_max, 1),
        ] {
            if value < least {
                return Err(format!("`{key}` is {value}; it must be at least {least}"));
            }
        }
        Ok(())
    }

    /// Returns the number of queries that run at the same time on a machine with `cores` cores.
    #[must_use]
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads == 0 { (cores / 2).max(1) } else { self.threads }
    }
}
