//! Defines the ports that store the states of shards and the catalogue. Only these states, the
//! catalogue and the log must survive a restart.

use std::sync::Arc;

use thiserror::Error;

use crate::{PairBuffer, PartitionId, ProjectionRecord, ReadValues, TableId, VersionId, Writes};

/// Identifies the state of a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The name of the projection to which the shard belongs.
    pub projection: String,
    /// The version of the projection.
    pub version: VersionId,
    /// How many times the version was rebuilt ([`crate::VersionRecord::rebuilds`]). Each rebuild
    /// writes to new files.
    pub rebuild: u64,
    /// The partition that the shard folds.
    pub partition: PartitionId,
}

/// One of the ordered maps in a shard's file. Keys and values are bytes. The canonical dump is
/// sorted by the order of these variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The shard's record ([`crate::ShardMeta`]) under [`crate::ShardMeta::KEY`], and each
    /// [`crate::DecisionRecord`] under its own key.
    Meta,
    /// The rows of a table; keys are UTF-8.
    Table(TableId),
    /// Timers, sorted by due time.
    ///
    /// * The key is the time at which the timer is due (8 bytes big-endian, sign bit flipped) and
    ///   the timer's key.
    /// * The value is the time for which the plugin set the timer (8 bytes), the offset of the
    ///   event that set it (8 bytes) and the emit depth of this event (4 bytes), all big-endian.
    TimersByTime,
    /// Timers by key; the value is the due time as in `TimersByTime`.
    TimersByKey,
    /// Parked events. The key consists of the event's offset and a running number, 8 bytes
    /// big-endian each.
    Parked,
    /// The subjects that have parked events. The key is the subject. The value is the number of its
    /// parked events (8 bytes big-endian).
    ParkedSubjects,
    /// Emitted events that are not in the log yet. The key is the event's number in the outbox.
    Outbox,
    /// The feed's change log. [`crate::TableChanges::key`] creates its keys, and
    /// [`crate::TableChanges::encode`] its values.
    Changes,
    /// The times at which rows of tables with retention expire. Each row has two entries:
    ///
    /// * The key of the first is a 0 byte, the time (8 bytes as in `TimersByTime`), the table (4
    ///   bytes) and the row's key.
    /// * The key of the second is a 1 byte, the table and the row's key; its value is the time.
    Expiry,
}

/// A range of keys in a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key of the range.
    pub start: Vec<u8>,
    /// The first key after the range; `None` if the range has no end.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Returns the range of all keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns the range of keys that begin with `prefix`.
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

    /// Returns the range of keys from `start` to before `end`. If `end` is empty, the range has no
    /// end.
    #[must_use]
    pub fn of(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: (!end.is_empty()).then(|| end.to_vec()) }
    }

    /// Returns whether the range contains no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Keys and their values as a store holds them.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads one committed state of a shard.
pub trait ReadStore: Send {
    /// Returns the value under `key`.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Looks up the `keys` that have no value in `values` yet, and adds the values found.
    ///
    /// # Errors
    /// Returns the errors of [`ReadStore::get`].
    fn get_many(
        &self,
        space: Space,
        keys: &[&[u8]],
        values: &mut ReadValues,
    ) -> Result<(), StoreError> {
        values.complete(keys, |key| self.get(space, key))
    }

    /// Returns up to `limit` pairs of `range` in key order; the last pairs first if `reverse` is
    /// set.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError>;

    /// Adds pairs of `range` to `pairs` in key order until `pairs` is full or the range ends. If
    /// `reverse` is set, the scan begins with the last pair.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    fn scan_into(
        &self,
        space: Space,
        range: &KeyRange,
        reverse: bool,
        pairs: &mut PairBuffer,
    ) -> Result<(), StoreError> {
        for (key, value) in self.scan(space, range, pairs.room(), reverse)? {
            pairs.push(&key, &value);
        }
        Ok(())
    }

    /// Returns the spaces that hold at least one pair, in order.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    fn spaces(&self) -> Result<Vec<Space>, StoreError>;
}

/// The state of one shard. Reads see the last commit.
pub trait ShardStore: ReadStore + Sync {
    /// Writes all of `writes`, durably, or nothing. Also makes all earlier commits durable.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the writes failed. Then nothing was written, and the state is
    /// still that of the last commit, durable or not.
    fn commit(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Writes all of `writes` or nothing, without waiting for the disk. If the process or the
    /// machine dies before the next durable commit, the state afterwards is that of the last
    /// durable commit.
    ///
    /// # Errors
    /// Returns the errors of [`ShardStore::commit`].
    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Returns whether there is a commit that is not durable yet.
    fn has_unsynced(&self) -> bool;

    /// Returns a view of the last commit. Later commits do not change it. The view keeps old pages
    /// of the file in use, so hold it only for a short time.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it cannot be opened.
    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError>;

    /// Returns the size of the state on disk, in bytes.
    fn disk_bytes(&self) -> u64;
}

/// Opens and deletes the states of shards.
pub trait StateStores: Send + Sync {
    /// Opens the state of `shard`. If there is none, it creates an empty one.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the file cannot be opened or is damaged.
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// Creates a state that is only in memory, for determinism checks and tests.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it cannot be created.
    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// Creates a state for one large task. The state is deleted when its last handle is dropped. If
    /// the store has a disk, the state may be larger than memory.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it cannot be created.
    fn temporary(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.scratch()
    }

    /// Deletes the states of all shards of a version that belong to the rebuild number `rebuild`.
    ///
    /// # Errors
    /// Returns [`StoreError`] if files cannot be deleted.
    fn remove(&self, projection: &str, version: &VersionId, rebuild: u64)
    -> Result<(), StoreError>;
}

/// Why a store cannot do what was requested.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk has no room left. The text describes the error.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Another process has opened the file.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// Another process has the file open.
    #[error("`{0}` is in use by another process")]
    InUse(String),
    /// The state cannot be read or written. The text describes the error.
    #[error("the state cannot be read or written: {0}")]
    Io(String),
}

/// Stores the projections and their versions.
pub trait Catalog: Send + Sync {
    /// Returns all projections, sorted by name.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError>;

    /// Stores `record` durably. It replaces the record with the same name.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the record cannot be stored. Then the old record is kept.
    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError>;

    /// Deletes the record named `name`, if there is one. The deletion is durable when the call
    /// returns.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the record cannot be deleted. Then it is kept.
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
