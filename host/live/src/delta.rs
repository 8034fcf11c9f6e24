//! Merges the changes of several commits, and encodes them as a delta. Only this module merges
//! changes, whether they come from the ring, from the change log or from a view. It uses no lock
//! and no clock, and its only state is the memory budget that all sessions share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use lantern_core::{Checkpoint, StoreError, TableChanges, TableId, View};

use crate::LiveConfig;
use crate::encode::{BudgetLease, DeltaParts, RowTooLarge};
use crate::resources::Resources;

/// A delta to be sent. If it has no parts, it is sent as a tick.
pub(crate) struct ReadyDelta {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) at: Arc<Checkpoint>,
    pub(crate) parts: Option<Arc<DeltaParts>>,
    /// Whether the delta merges several commits.
    pub(crate) merged: bool,
}

impl ReadyDelta {
    /// Creates a tick, which reports a new commit that changed no row.
    pub(crate) fn tick(from: u64, to: u64, at: Arc<Checkpoint>) -> Self {
        Self { from, to, at, parts: None, merged: false }
    }
}

/// A list of deltas, one for each commit, each of which begins at the commit at which the previous
/// one ends.
pub(crate) struct DeltaChain {
    /// The commit at which the next delta begins.
    pub(crate) from: u64,
    pub(crate) ready: Vec<ReadyDelta>,
}

impl DeltaChain {
    pub(crate) fn new(from: u64) -> Self {
        Self { from, ready: Vec::new() }
    }

    /// Adds the delta that ends at the commit `to`.
    pub(crate) fn push(&mut self, to: u64, at: Arc<Checkpoint>, parts: Arc<DeltaParts>) {
        let from = std::mem::replace(&mut self.from, to);
        self.ready.push(ReadyDelta { from, to, at, parts: Some(parts), merged: false });
    }
}

/// Why changes cannot be sent as a delta.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeltaError {
    /// The changes exceed a limit of merging, so a snapshot is cheaper.
    TooMuch,
    /// A changed row does not fit into a frame.
    TooLarge(RowTooLarge),
}

impl From<RowTooLarge> for DeltaError {
    fn from(error: RowTooLarge) -> Self {
        Self::TooLarge(error)
    }
}

/// The encoded changes of a table, which subscribers share; an error if a row does not fit into a
/// frame.
pub(crate) type EncodedChanges = Result<Arc<DeltaParts>, RowTooLarge>;

/// Returns the rows that a commit changed. A value of `None` means that the row is deleted.
pub(crate) fn rows_of(changes: &TableChanges) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    let up = changes.up.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
    up.chain(changes.del.iter().map(|key| (key.as_str(), None)))
}

/// Returns the number of bytes of all keys and values of `rows`.
fn bytes_of<'a>(rows: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> usize {
    rows.map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum()
}

/// The last change of each key in one or more commits, in key order.
#[derive(Default)]
pub(crate) struct MergedChanges<'a> {
    rows: BTreeMap<&'a str, Option<&'a [u8]>>,
    /// The number of commits that were merged.
    commits: usize,
}

impl<'a> MergedChanges<'a> {
    /// Merges `changes`, which must be in order of the commits. Returns `None` if more than
    /// `keys_max` keys changed.
    pub(crate) fn of(
        changes: impl IntoIterator<Item = &'a TableChanges>,
        keys_max: usize,
    ) -> Option<Self> {
        let mut merged = Self::default();
        for changes in changes {
            merged.commits += 1;
            merged.rows.extend(rows_of(changes));
            if merged.rows.len() > keys_max {
                return None;
            }
        }
        Some(merged)
    }

    /// Returns the changes of one commit, without a limit on their number.
    pub(crate) fn of_one(changes: &'a TableChanges) -> Self {
        Self { rows: rows_of(changes).collect(), commits: 1 }
    }

    /// Returns the number of changed keys.
    pub(crate) fn keys(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether the changes come from more than one commit.
    pub(crate) fn is_of_several(&self) -> bool {
        self.commits > 1
    }

    /// Returns the changed rows, in key order. A value of `None` means that the row is deleted.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        self.rows.iter().map(|(key, value)| (*key, *value))
    }

    /// Reads the rows under the changed keys from `view`. With several partitions a row
    /// is merged from the rows of all partitions, so the changes of one partition do not
    /// contain it.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the rows cannot be read.
    pub(crate) fn read_from(
        &self,
        view: &View,
        table: TableId,
    ) -> Result<TableChanges, StoreError> {
        let mut changes = TableChanges { table, ..TableChanges::default() };
        for &key in self.rows.keys() {
            match view.get(table, key)? {
                Some(value) => changes.up.push((key.to_owned(), value)),
                None => changes.del.push(key.to_owned()),
            }
        }
        Ok(changes)
    }
}

/// Merges and encodes changes within the limits of the configuration.
pub(crate) struct DeltaEncoder<'a> {
    config: &'a LiveConfig,
    budget: &'a Arc<AtomicUsize>,
    part_bytes: usize,
}

impl<'a> DeltaEncoder<'a> {
    /// Creates an encoder for frames of the epoch `epoch`. The projection has `partitions`
    /// partitions.
    pub(crate) fn new(resources: &'a Resources, epoch: &str, partitions: usize) -> Self {
        let Resources { config, merge_budget: budget, .. } = resources;
        Self { config, budget, part_bytes: config.part_bytes(epoch, partitions) }
    }

    /// Merges `changes` to the last change of each key. They must be in order of the commits.
    pub(crate) fn merge<'c>(
        &self,
        changes: impl IntoIterator<Item = &'c TableChanges>,
    ) -> Result<MergedChanges<'c>, DeltaError> {
        MergedChanges::of(changes, self.config.merge_keys_max).ok_or(DeltaError::TooMuch)
    }

    /// Encodes the changes of one commit. The encoded changes do not count towards the memory
    /// budget of merged changes: they are kept next to the commit, and only as long as the ring has
    /// it.
    pub(crate) fn commit(&self, changes: &TableChanges) -> EncodedChanges {
        DeltaParts::encode(rows_of(changes), self.part_bytes, None).map(Arc::new)
    }

    /// Encodes merged changes. Also returns their size before encoding, in bytes.
    pub(crate) fn merged(
        &self,
        merged: &MergedChanges<'_>,
    ) -> Result<(Arc<DeltaParts>, usize), DeltaError> {
        let bytes = bytes_of(merged.rows());
        if bytes > self.config.merge_bytes_max {
            return Err(DeltaError::TooMuch);
        }
        let lease = BudgetLease::take(self.budget, bytes, self.config.merge_total_bytes_max);
        let lease = lease.ok_or(DeltaError::TooMuch)?;
        Ok((Arc::new(DeltaParts::encode(merged.rows(), self.part_bytes, Some(lease))?), bytes))
    }
}
