//! Determines where runs are stored in the file: the names and types of the redb tables, and the
//! keys of blocks. All of this is part of the file's format.

use lantern_core::TableId;
use redb::{StorageError, TableDefinition};

/// The redb type of the keys and values of blocks.
pub(crate) type BlockBytes = &'static [u8];
pub(crate) type RunError = StorageError;

/// The redb table that contains the list of runs for each table stored in runs. The key is the
/// number of the table; the value is JSON.
pub(crate) const LISTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("runs");

/// Returns the name of the redb table that contains the blocks of a table's runs.
pub(crate) fn runs_name(table: TableId) -> String {
    format!("runs/{table}")
}

/// Returns the name of the redb table that contains the recent rows of a table: those that are in
/// no run yet. The first byte of each value is 1 for a row, and 0 for a deleted row.
pub(crate) fn recent_name(table: TableId) -> String {
    format!("recent/{table}")
}

/// Returns whether `name` is the name of one of the redb tables that this module defines.
pub(crate) fn is_part(name: &str) -> bool {
    name.starts_with("runs/") || name.starts_with("recent/")
}

/// Returns the definition of the redb table `name`, with bytes as keys and values.
pub(crate) fn definition(name: &str) -> TableDefinition<'_, BlockBytes, BlockBytes> {
    TableDefinition::new(name)
}

/// Returns the key of a block: the block of `run` whose first row has the key `key`. The block's
/// key begins with the number of the run, so the blocks of a run are next to each other.
pub(super) fn block_key(run: u64, key: &[u8]) -> Vec<u8> {
    [run.to_be_bytes().as_slice(), key].concat()
}

/// Returns the value of a row that is stored as `value` in the redb table of recent rows; `None` if
/// the row is deleted.
pub(super) fn tagged(value: &[u8]) -> Option<&[u8]> {
    value.split_first().filter(|(tag, _)| **tag != 0).map(|(_, value)| value)
}
