//! Stores a large table as a few sorted runs of rows. Small tables are stored as trees.
//!
//! In a large tree, each changed row modifies another page. So kilobytes are written for a row of
//! fifty bytes. With runs, a commit adds its changes to a small tree of recent rows. If that tree
//! is full, the commit writes its rows and the changes as a new run, which is a sequence of blocks.
//! Runs are merged as their number grows, so each row is written about four times in total.
//!
//! If several runs have a row under the same key, the newest run counts. It may also mark the row
//! as deleted. This is the log-structured merge-tree of O'Neil et al., 1996.
//!
//! Runs and trees are both stored in redb. So a commit is still one transaction, and a view still
//! has the runs that existed at its commit. The names of the tables ([`runs_name`],
//! [`recent_name`], [`LISTS`]), [`RunList`] and the blocks are part of the file's format.

mod block;
mod layout;
mod merge;
#[cfg(test)]
mod tests;

use lantern_core::{KeyRange, PairBuffer, Pairs, SpaceWrites, TableId};
use redb::{ReadOnlyTable, ReadableTableMetadata, StorageError, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use block::Builder;
use layout::{block_key, tagged};
use merge::{ChangesCursor, Merge, RunCursor, SortedRows, TreeCursor};

pub(crate) use layout::{BlockBytes, LISTS, RunError, definition, is_part, recent_name, runs_name};

/// The number of runs of similar size that are merged into one run.
const FAN: usize = 8;
/// The maximum size of a block in bytes, unless a single row is larger. redb's pages have powers of
/// two as sizes. A page also contains the key and a header, so the block must be a little smaller.
const BLOCK_BYTES: usize = (32 << 10) - 2_048;

/// The list of runs of a table, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RunList {
    /// The number that the next run gets.
    next: u64,
    runs: Vec<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// The number of the run. The key of a block consists of this number (8 bytes, big-endian) and
    /// the key of the block's first row.
    id: u64,
    /// The number of rows in the run, including deleted rows.
    rows: u64,
}

/// A table that is stored in runs, in the state of one commit.
pub(crate) struct Runs {
    list: RunList,
    recent: Option<ReadOnlyTable<BlockBytes, BlockBytes>>,
    blocks: Option<ReadOnlyTable<BlockBytes, BlockBytes>>,
}

impl Runs {
    pub(crate) fn new(
        list: &[u8],
        recent: Option<ReadOnlyTable<BlockBytes, BlockBytes>>,
        blocks: Option<ReadOnlyTable<BlockBytes, BlockBytes>>,
    ) -> Result<Self, RunError> {
        let list: RunList = serde_json::from_slice(list)
            .map_err(|e| StorageError::Corrupted(format!("a list of runs is damaged: {e}")))?;
        if blocks.is_none() && !list.runs.is_empty() {
            return Err(StorageError::Corrupted("the blocks of a table are missing".into()));
        }
        Ok(Self { list, recent, blocks })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        if let Some(recent) = &self.recent
            && let Some(value) = recent.get(key)?
        {
            return Ok(tagged(value.value()).map(<[u8]>::to_vec));
        }
        let Some(blocks) = &self.blocks else { return Ok(None) };
        for run in self.list.runs.iter().rev() {
            let (first, last) = (block_key(run.id, &[]), block_key(run.id, key));
            let last = blocks.range::<&[u8]>(first.as_slice()..=last.as_slice())?.next_back();
            if let Some((_, block)) = last.transpose()?
                && let Some(value) = block::find(block.value(), key)?
            {
                return Ok(value.map(<[u8]>::to_vec));
            }
        }
        Ok(None)
    }

    pub(crate) fn scan(
        &self,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, RunError> {
        let mut rows = Merge::new(self.sources(0, range, reverse)?, reverse);
        let mut pairs = Pairs::new();
        while pairs.len() < limit
            && let Some((key, value)) = rows.row()
        {
            if let Some(value) = value {
                pairs.push((key.to_vec(), value.to_vec()));
            }
            rows.advance()?;
        }
        Ok(pairs)
    }

    /// Adds rows of `range` to `pairs` until `pairs` is full or the range ends.
    pub(crate) fn scan_into(
        &self,
        range: &KeyRange,
        reverse: bool,
        pairs: &mut PairBuffer,
    ) -> Result<(), RunError> {
        let mut rows = Merge::new(self.sources(0, range, reverse)?, reverse);
        while !pairs.is_full()
            && let Some((key, value)) = rows.row()
        {
            if let Some(value) = value {
                pairs.push(key, value);
            }
            rows.advance()?;
        }
        Ok(())
    }

    /// Returns the recent rows, and the runs from index `from` on. The newest source is first.
    fn sources(
        &self,
        from: usize,
        range: &KeyRange,
        reverse: bool,
    ) -> Result<Vec<SortedRows<'static>>, RunError> {
        let mut sources = Vec::new();
        if let Some(recent) = &self.recent {
            sources.push(SortedRows::Tree(TreeCursor::new(recent, true, range, reverse)?));
        }
        for run in self.list.runs[from..].iter().rev() {
            if let Some(blocks) = &self.blocks {
                sources.push(SortedRows::Run(RunCursor::new(blocks, run.id, range, reverse)?));
            }
        }
        Ok(sources)
    }

    /// Returns an upper bound for the number of rows. Each run that contains a row counts it, and
    /// so do the recent rows, even if the row is deleted there.
    pub(crate) fn rows_most(&self) -> Result<u64, RunError> {
        Ok(self.recent_rows()? + self.list.runs.iter().map(|run| run.rows).sum::<u64>())
    }

    fn recent_rows(&self) -> Result<u64, RunError> {
        self.recent.as_ref().map_or(Ok(0), ReadableTableMetadata::len)
    }

    /// Passes each row to `take` in key order, until `take` returns `false`.
    pub(crate) fn each(&self, mut take: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), RunError> {
        let mut rows = Merge::new(self.sources(0, &KeyRange::all(), false)?, false);
        while let Some((key, value)) = rows.row() {
            if value.is_some_and(|value| !take(key, value)) {
                break;
            }
            rows.advance()?;
        }
        Ok(())
    }

    /// Writes `changes` to the table. `self` must be the state of the last commit. `run_rows` is
    /// the maximum number of recent rows, which are in no run yet.
    pub(crate) fn write(
        &self,
        txn: &WriteTransaction,
        table: TableId,
        changes: &SpaceWrites,
        run_rows: u64,
    ) -> Result<(), redb::Error> {
        let rows = self.recent_rows()? + changes.len() as u64;
        if rows <= run_rows {
            return add_recent(txn, table, changes);
        }
        let from = self.list.merged_from(rows, run_rows);
        let mut sources = vec![SortedRows::Changes(ChangesCursor::new(changes.iter()))];
        sources.extend(self.sources(from, &KeyRange::all(), false)?);
        if self.recent.is_some() {
            txn.delete_table(definition(&recent_name(table)))?;
        }
        self.list.append(txn, table, from, sources)
    }
}

/// Converts a table from a tree to runs, and applies `changes` to it. `tree` is `None` if the table
/// does not exist yet.
pub(crate) fn write_run(
    txn: &WriteTransaction,
    table: TableId,
    tree: Option<&ReadOnlyTable<BlockBytes, BlockBytes>>,
    changes: &SpaceWrites,
) -> Result<(), redb::Error> {
    let mut sources = vec![SortedRows::Changes(ChangesCursor::new(changes.iter()))];
    if let Some(tree) = tree {
        sources.push(SortedRows::Tree(TreeCursor::new(tree, false, &KeyRange::all(), false)?));
    }
    RunList::default().append(txn, table, 0, sources)
}

fn add_recent(
    txn: &WriteTransaction,
    table: TableId,
    changes: &SpaceWrites,
) -> Result<(), redb::Error> {
    let mut recent = txn.open_table(definition(&recent_name(table)))?;
    let mut tagged = Vec::new();
    for (key, value) in changes {
        tagged.clear();
        tagged.push(u8::from(value.is_some()));
        tagged.extend_from_slice(value.unwrap_or_default());
        recent.insert(key, tagged.as_slice())?;
    }
    Ok(())
}

impl RunList {
    /// Returns the index of the first run that is merged with a new run of `rows` rows; all later
    /// runs are merged too. `run_rows` is the number of rows in a small run.
    fn merged_from(&self, rows: u64, run_rows: u64) -> usize {
        // The approximate size of a run, as an exponent of `FAN`.
        let size = |rows: u64| (rows / run_rows.max(1)).max(1).ilog(FAN as u64);
        let (mut from, mut merged) = (self.runs.len(), rows);
        loop {
            let like = self.runs[..from].iter().rev();
            let like = like.take_while(|run| size(run.rows) <= size(merged)).count();
            if like + 1 < FAN {
                break;
            }
            merged += self.runs[from - like..from].iter().map(|run| run.rows).sum::<u64>();
            from -= like;
        }
        // All newer runs together stay smaller than the oldest run. This limits the space of rows
        // that were replaced by newer ones.
        let newer: u64 = self.runs.iter().skip(1).map(|run| run.rows).sum();
        match self.runs.first() {
            Some(oldest) if newer + rows >= oldest.rows => 0,
            _ => from,
        }
    }

    /// Writes `sources`, newest first, as one new run. It replaces the runs from index `from` on.
    fn append(
        &self,
        txn: &WriteTransaction,
        table: TableId,
        from: usize,
        sources: Vec<SortedRows<'_>>,
    ) -> Result<(), redb::Error> {
        let mut list = self.clone();
        let merged = list.runs.split_off(from);
        let mut run = Run { id: list.next, rows: 0 };
        list.next += 1;
        let mut blocks = txn.open_table(definition(&runs_name(table)))?;
        run.rows = write_run_blocks(&mut blocks, run.id, sources, from > 0)?;
        for old in merged {
            let (start, end) = (block_key(old.id, &[]), block_key(old.id + 1, &[]));
            blocks.retain_in::<&[u8], _>(start.as_slice()..end.as_slice(), |_, _| false)?;
        }
        if run.rows > 0 {
            list.runs.push(run);
        }
        let list = serde_json::to_vec(&list).expect("numbers always encode");
        txn.open_table(LISTS)?.insert(table.0, list.as_slice())?;
        Ok(())
    }
}

/// Writes the rows of `sources` as run `id`, and returns their number. Deleted rows are written
/// only if `deleted` is set. It must be set if there are older runs.
fn write_run_blocks(
    blocks: &mut Table<'_, BlockBytes, BlockBytes>,
    id: u64,
    sources: Vec<SortedRows<'_>>,
    deleted: bool,
) -> Result<u64, RunError> {
    let mut rows = Merge::new(sources, false);
    let (mut block, mut count) = (Builder::default(), 0);
    while let Some(row) = rows.row() {
        if row.1.is_some() || deleted {
            let bytes = row.0.len() + row.1.map_or(0, <[u8]>::len);
            if block.bytes_with(bytes) > BLOCK_BYTES {
                write_block(blocks, id, &mut block)?;
            }
            block.push(row);
            count += 1;
        }
        rows.advance()?;
    }
    write_block(blocks, id, &mut block)?;
    Ok(count)
}

fn write_block(
    blocks: &mut Table<'_, BlockBytes, BlockBytes>,
    id: u64,
    block: &mut Builder,
) -> Result<(), RunError> {
    let Some(key) = block.first_key().map(|key| block_key(id, key)) else { return Ok(()) };
    block.finish(|bytes| blocks.insert(key.as_slice(), bytes).map(drop))
}
