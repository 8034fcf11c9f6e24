//! The settings of the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How shards' files are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The most memory for the pages of one shard's file, in bytes; what a
    /// shard does not touch is not kept. Default 64 MiB.
    pub cache_bytes: usize,
    /// What the pages of all open files should stay below, in bytes: a file that
    /// is opened while many are gets its part of this and no more, but at least
    /// 8 MiB. Default 512 MiB.
    pub cache_total_bytes: usize,
    /// How many files may be open. Past it, those of shards at rest are closed
    /// and opened again when used, which takes some milliseconds; shards that
    /// are being read are never closed, so the number can be passed for a
    /// while. Default 256.
    pub open_files_max: usize,
    /// After how long without use a shard's file is closed, in milliseconds,
    /// and its memory given back. Default 60,000.
    pub idle_close_ms: u64,
    /// Whether a file opens at once after a crash, instead of being read whole
    /// first. It costs a little on each commit. Default true.
    pub quick_repair: bool,
    /// A table with eight times as many rows is no longer stored as a
    /// tree but as sorted runs of at least this many, to which commits append
    /// and which are merged as they become many: a changed row then costs
    /// hundreds of bytes written instead of thousands. 0 leaves all tables
    /// trees, except those that are stored in runs already. Default 8,192.
    pub run_rows: u64,
    /// What the rows of tables in runs may take in memory, of all states
    /// together and about evenly, in bytes: there they are found at once, and in
    /// a file only in ten times as long. Default 1 GiB.
    pub rows_total_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            cache_total_bytes: 512 << 20,
            open_files_max: 256,
            idle_close_ms: 60_000,
            quick_repair: true,
            run_rows: 8_192,
            rows_total_bytes: 1 << 30,
        }
    }
}
