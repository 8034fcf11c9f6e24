//! States and the catalogue: what outlives a restart.

use std::sync::Arc;

use thiserror::Error;

use crate::{PartitionId, ProjectionRecord, ReadValues, TableId, VersionId, Writes};

/// Names a shard's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The projection's name.
    pub projection: String,
    /// The version.
    pub version: VersionId,
    /// [`crate::VersionRecord::rebuilds`]: a rebuild writes to fresh files.
    pub rebuild: u64,
    /// The partition.
    pub partition: PartitionId,
}

/// One ordered map of bytes in a shard's file. The order of the variants is
/// part of the canonical dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// [`crate::ShardMeta`] under [`crate::ShardMeta::KEY`], and each
    /// [`crate::DecisionRecord`] under its own key.
    Meta,
    /// The rows of a table; keys are UTF-8.
    Table(TableId),
    /// Timers by due time: 8 bytes due (big-endian, sign bit flipped), key;
    /// the value is the time that was set, in 8 bytes big-endian.
    TimersByTime,
    /// Timers by key; the value is the due time as in `TimersByTime`.
    TimersByKey,
    /// Parked events by offset (8 bytes big-endian) and a running number.
    Parked,
    /// Subjects with parked events; the value counts them (8 bytes big-endian).
    ParkedSubjects,
    /// Emitted events not yet in the log, by running number.
    Outbox,
    /// The feed's change log by [`crate::TableChanges::key`]: a byte string of
    /// [`crate::TableChanges::encode`].
    Changes,
    /// When rows of tables with retention expire. Under a 0 byte, by time (8
    /// bytes as in `TimersByTime`), table (4 bytes) and key; under a 1 byte, by
    /// table and key, with the time as value.
    Expiry,
}

/// A range of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key, included.
    pub start: Vec<u8>,
    /// The key to stop before; `None` for no bound.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xFF) {
            end.pop();
        }
        let end = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self { start: prefix.to_vec(), end }
    }

    /// The keys from `start` up to but not including `end`; an empty `end` is
    /// no bound.
    #[must_use]
    pub fn of(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: (!end.is_empty()).then(|| end.to_vec()) }
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Keys and values as stored.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads of one committed state.
pub trait ReadStore: Send {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Finds the values under those of `keys` that `values` lacks.
    ///
    /// # Errors
    /// As [`ReadStore::get`].
    fn get_many(
        &self,
        space: Space,
        keys: &[&[u8]],
        values: &mut ReadValues,
    ) -> Result<(), StoreError> {
        values.complete(keys, |key| self.get(space, key))
    }

    /// At most `limit` pairs of `range` in key order, last first where `reverse`.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError>;

    /// The spaces that hold at least one pair, in order.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn spaces(&self) -> Result<Vec<Space>, StoreError>;
}

/// The state of one shard: a file. Reads see the last commit.
pub trait ShardStore: ReadStore + Sync {
    /// Writes all of `writes`, durably, or nothing. Makes all commits before it durable
    /// too.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then. Commits without a sync are still there.
    fn commit(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Writes all of `writes` or nothing, without waiting for the disk. If the process
    /// or the machine dies before the next durable commit, the state is that of the
    /// last durable commit.
    ///
    /// # Errors
    /// As [`ShardStore::commit`].
    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Whether a commit was made that is not durable yet.
    fn has_unsynced(&self) -> bool;

    /// A view of the last commit that later commits do not change. Keeps old
    /// pages alive, so hold it briefly.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be opened.
    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError>;

    /// The bytes the state takes on disk.
    fn disk_bytes(&self) -> u64;
}

/// Opens and removes shards' states.
pub trait StateStores: Send + Sync {
    /// Opens the state of `shard`, empty if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be opened or is damaged.
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// A state that lives in memory only, for determinism checks and tests.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be made.
    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// A state for one large piece of work, gone with its last handle. It may be
    /// larger than memory where the store has a disk.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be made.
    fn temporary(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.scratch()
    }

    /// Removes the states of all shards of one build of a version.
    ///
    /// # Errors
    /// [`StoreError`] where files cannot be removed.
    fn remove(&self, projection: &str, version: &VersionId, rebuild: u64)
    -> Result<(), StoreError>;
}

/// Why a store cannot do what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk has no room.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is stored is damaged, or of a later format.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// Another process has the file open.
    #[error("`{0}` is in use by another process")]
    InUse(String),
    /// Reading or writing failed.
    #[error("the state cannot be read or written: {0}")]
    Io(String),
}

/// Keeps the projections and their versions.
pub trait Catalog: Send + Sync {
    /// All projections, by name.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError>;

    /// Stores `record` in place of the one of its name, durably.
    ///
    /// # Errors
    /// [`StoreError`]; the old one is kept then.
    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError>;

    /// Removes the record named `name`, if there is one, durably.
    ///
    /// # Errors
    /// [`StoreError`]; the record is kept then.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_all_ones_has_no_end() {
        assert_eq!(KeyRange::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(KeyRange::prefix(&[1, 0xFF]).end, Some(vec![2]));
        assert_eq!(KeyRange::prefix(&[0xFF, 0xFF]).end, None);
        assert_eq!(KeyRange::prefix(b"").end, None);
    }
}
