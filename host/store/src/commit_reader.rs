//! Reads one commit of a shard's file, and writes the next commit.

use std::collections::BTreeMap;
use std::ops::Bound;

use lantern_core::{KeyRange, PairBuffer, Pairs, Space, SpaceWrites, TableId, Writes};
use lantern_redb_file::begin_durable_write;
use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    Table, TableError, TableHandle, WriteTransaction,
};

use crate::file::{self, STATE};
use crate::runs::{self, BlockBytes, RunError, Runs, definition};
use crate::table_names::{space_of, table_name};

/// A table is stored in runs once it has enough rows for this many small runs.
const TREE_RUNS: u64 = 8;

/// Options for writing commits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommitOptions {
    /// Whether redb can open the file after a crash without reading all of it.
    pub(crate) quick_repair: bool,
    /// The number of rows in a small run (a sorted run of rows of a table). If it is 0, all tables
    /// are stored as trees.
    pub(crate) run_rows: u64,
}

/// When a commit becomes durable: as soon as it has ended, or with the next durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Now,
    Later,
}

/// One commit of a file, with its tables opened for reading.
pub(crate) struct CommitReader {
    spaces: BTreeMap<Space, RowStorage>,
}

/// How the rows of a space are stored in the file.
enum RowStorage {
    Tree(ReadOnlyTable<BlockBytes, BlockBytes>),
    Runs(Runs),
}

impl CommitReader {
    /// Opens the last commit of `db`.
    pub(crate) fn new(db: &Database) -> Result<Self, redb::Error> {
        let txn = db.begin_read()?;
        let mut tables = BTreeMap::new();
        for table in txn.list_tables()? {
            let name = table.name();
            if space_of(name).is_some() || runs::is_part(name) {
                tables.insert(name.to_owned(), txn.open_table(definition(name))?);
            }
        }
        let mut spaces = BTreeMap::new();
        match txn.open_table(runs::LISTS) {
            Ok(lists) => {
                for list in lists.iter()? {
                    let (table, list) = list?;
                    let table = TableId(table.value());
                    let recent = tables.remove(&runs::recent_name(table));
                    let blocks = tables.remove(&runs::runs_name(table));
                    let rows = Runs::new(list.value(), recent, blocks)?;
                    spaces.insert(Space::Table(table), RowStorage::Runs(rows));
                }
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        for (name, table) in tables {
            if let Some(space) = space_of(&name) {
                spaces.entry(space).or_insert(RowStorage::Tree(table));
            }
        }
        Ok(Self { spaces })
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        match self.spaces.get(&space) {
            Some(RowStorage::Tree(tree)) => Ok(tree.get(key)?.map(|value| value.value().to_vec())),
            Some(RowStorage::Runs(runs)) => runs.get(key),
            None => Ok(None),
        }
    }

    pub(crate) fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, RunError> {
        if limit == 0 || range.is_empty() {
            return Ok(Pairs::new());
        }
        match self.spaces.get(&space) {
            Some(RowStorage::Tree(tree)) => scan(tree, range, limit, reverse),
            Some(RowStorage::Runs(runs)) => runs.scan(range, limit, reverse),
            None => Ok(Pairs::new()),
        }
    }

    /// Adds pairs of `range` to `pairs` until `pairs` is full or the range ends.
    pub(crate) fn scan_into(
        &self,
        space: Space,
        range: &KeyRange,
        reverse: bool,
        pairs: &mut PairBuffer,
    ) -> Result<(), RunError> {
        if range.is_empty() {
            return Ok(());
        }
        match self.spaces.get(&space) {
            Some(RowStorage::Tree(tree)) => scan_tree_into(tree, range, reverse, pairs),
            Some(RowStorage::Runs(runs)) => runs.scan_into(range, reverse, pairs),
            None => Ok(()),
        }
    }

    /// Returns the spaces that contain at least one pair.
    pub(crate) fn spaces(&self) -> Result<Vec<Space>, RunError> {
        let mut spaces = Vec::new();
        for (space, rows) in &self.spaces {
            let empty = match rows {
                RowStorage::Tree(tree) => tree.is_empty()?,
                RowStorage::Runs(runs) => runs.scan(&KeyRange::all(), 1, false)?.is_empty(),
            };
            if !empty {
                spaces.push(*space);
            }
        }
        Ok(spaces)
    }

    /// Returns the runs of the table `space`; `None` if the table is stored as a tree.
    pub(crate) fn runs(&self, space: Space) -> Option<&Runs> {
        match self.spaces.get(&space) {
            Some(RowStorage::Runs(runs)) => Some(runs),
            _ => None,
        }
    }

    /// Writes all of `writes` in one transaction on top of this commit. This commit must be the
    /// last one of `db`. Returns the number of bytes of keys and values written.
    pub(crate) fn write(
        &self,
        db: &Database,
        writes: &Writes,
        writing: CommitOptions,
        sync: Sync,
    ) -> Result<u64, redb::Error> {
        let txn = match sync {
            Sync::Now => begin_durable_write(db, writing.quick_repair)?,
            Sync::Later => {
                let mut txn = db.begin_write()?;
                // The commit is only in memory, so after a crash there is nothing to recover.
                txn.set_durability(Durability::None)?;
                txn
            }
        };
        let mut bytes = 0;
        for (space, changes) in writes {
            if !changes.is_empty() {
                self.write_space(&txn, *space, changes, writing.run_rows)?;
                bytes += changes.iter().map(size).sum::<u64>();
            }
        }
        txn.commit()?;
        Ok(bytes)
    }

    fn write_space(
        &self,
        txn: &WriteTransaction,
        space: Space,
        changes: &SpaceWrites,
        run_rows: u64,
    ) -> Result<(), redb::Error> {
        let rows = self.spaces.get(&space);
        let tree = match (space, rows) {
            (Space::Table(table), Some(RowStorage::Runs(runs))) => {
                return runs.write(txn, table, changes, run_rows);
            }
            (_, Some(RowStorage::Tree(tree))) => Some(tree),
            _ => None,
        };
        let name = table_name(space);
        if let Space::Table(table) = space
            && run_rows > 0
            && tree.map_or(Ok(0), |tree| tree.len())? + changes.len() as u64 >= TREE_RUNS * run_rows
        {
            runs::write_run(txn, table, tree, changes)?;
            if tree.is_some() {
                txn.delete_table(definition(&name))?;
            }
            return file::set_format(txn, STATE.format);
        }
        let mut tree = txn.open_table(definition(&name))?;
        write_rows(&mut tree, changes)
    }
}

fn scan(
    tree: &ReadOnlyTable<BlockBytes, BlockBytes>,
    range: &KeyRange,
    limit: usize,
    reverse: bool,
) -> Result<Pairs, RunError> {
    let mut pairs = Pairs::new();
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = tree.range::<&[u8]>((Bound::Included(range.start.as_slice()), end))?;
    while pairs.len() < limit {
        let Some(pair) = (if reverse { rows.next_back() } else { rows.next() }) else {
            break;
        };
        let (key, value) = pair?;
        pairs.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(pairs)
}

fn scan_tree_into(
    tree: &ReadOnlyTable<BlockBytes, BlockBytes>,
    range: &KeyRange,
    reverse: bool,
    pairs: &mut PairBuffer,
) -> Result<(), RunError> {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = tree.range::<&[u8]>((Bound::Included(range.start.as_slice()), end))?;
    while !pairs.is_full()
        && let Some(pair) = if reverse { rows.next_back() } else { rows.next() }
    {
        let (key, value) = pair?;
        pairs.push(key.value(), value.value());
    }
    Ok(())
}

/// Writes `changes` in key order.
fn write_rows(
    tree: &mut Table<'_, BlockBytes, BlockBytes>,
    changes: &SpaceWrites,
) -> Result<(), redb::Error> {
    // A key after the last key of the tree can be appended by a cursor, without a search.
    let last = tree.last()?.map(|(key, _)| key.value().to_vec());
    let (within, after) = match &last {
        Some(last) => changes.split_after(last),
        // The empty key comes before all keys, and no row has it.
        None => changes.split_after(&[]),
    };
    for (key, value) in within {
        match value {
            Some(value) => drop(tree.insert(key, value)?),
            None => drop(tree.remove(key)?),
        }
    }
    let mut cursor = tree.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    for (key, value) in after {
        if let Some(value) = value {
            cursor.insert_before(key, value)?;
        }
    }
    Ok(cursor.close()?)
}

fn size((key, value): (&[u8], Option<&[u8]>)) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len)) as u64
}
