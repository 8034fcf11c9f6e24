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
    /// The intended maximum memory for the pages of all open files, in bytes. It is
    /// divided among the open files when a file is opened, and each file gets at least
    /// 8 MiB. Default 512 MiB.
    pub cache_total_bytes: usize,
    /// The intended maximum number of open files. If it is exceeded, files of idle
    /// shards are closed, and opened again when they are used, which takes a few
    /// milliseconds. Files that are being read are not closed, so the number can be
    /// exceeded for a time. Default 256.
    pub open_files_max: usize,
    /// A shard's file that is not used for this time is closed, and its memory is
    /// released, in milliseconds. Default 60,000.
    pub idle_close_ms: u64,
    /// Whether a file can be opened at once after a crash. If not, the whole file is
    /// read first. It makes each commit a little slower. Default true.
    pub quick_repair: bool,
    /// The minimum number of rows in a sorted run. A table with eight times as many
    /// rows is stored as runs instead of a tree: commits append runs, and runs are
    /// merged when there are many. A changed row then costs hundreds of bytes written
    /// to disk instead of thousands. 0 stores tables as trees, except those that are
    /// stored as runs already. Default 8,192.
    pub run_rows: u64,
    /// The memory for rows of tables that are stored as runs, in bytes, divided about
    /// evenly among all states. A row in memory is found about ten times as fast as one
    /// in the file. Default 1 GiB.
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
