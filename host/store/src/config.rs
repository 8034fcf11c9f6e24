//! Defines the settings of the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How shards' files are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The maximum memory for the pages of one shard's file, in bytes. Pages are cached
    /// when they are used. Default 64 MiB.
    pub cache_bytes: usize,
    /// The intended maximum memory for the pages of all open files, in bytes. When a file is
    /// opened, it gets its share of this memory, at least 8 MiB. Default 512 MiB.
    pub cache_total_bytes: usize,
    /// The intended maximum number of open files. If it is exceeded, files of idle shards are
    /// closed. When such a file is used again, it is opened, which takes a few milliseconds. Files
    /// that are being read are not closed, so the number can be exceeded for a time. Default 256.
    pub open_files_max: usize,
    /// The time after which an unused file of a shard is closed and its memory released, in
    /// milliseconds. Default 60,000.
    pub idle_close_ms: u64,
    /// Whether a file can be opened at once after a crash. This makes each commit a little slower.
    /// If this is off, the whole file is read after a crash. Default true.
    pub quick_repair: bool,
    /// The minimum number of rows in a sorted run. A table with eight times as many rows is stored
    /// as runs instead of a tree: commits append runs, and runs are merged when there are many. A
    /// changed row then costs hundreds of bytes written to disk instead of thousands. With 0,
    /// tables are stored as trees, except those that are stored as runs already. Default 8,192.
    pub run_rows: u64,
    /// The memory for rows of tables that are stored as runs, in bytes. It is divided about evenly
    /// among all states. A row in memory is found about ten times as fast as a row in the file.
    /// Default 1 GiB.
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
