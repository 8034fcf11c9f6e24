//! Implements the state for a single task. Its file is deleted after the task.

use lantern_core::{KeyRange, Pairs, ReadStore, ReadValues, ShardStore, Space, StoreError, Writes};

use crate::commit_reader::Sync;
use crate::shard_handle::ShardHandle;

/// The state of a single task. Its file is deleted when this is dropped.
pub(crate) struct TemporaryShard(pub(crate) ShardHandle);

impl Drop for TemporaryShard {
    fn drop(&mut self) {
        self.0.shard().close_removed();
        if let Err(error) = std::fs::remove_file(self.0.shard().path()) {
            tracing::warn!(path = %self.0.shard().path().display(), %error, "a temporary state could not be deleted");
        }
    }
}

impl ReadStore for TemporaryShard {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(space, key)
    }

    fn get_many(
        &self,
        space: Space,
        keys: &[&[u8]],
        values: &mut ReadValues,
    ) -> Result<(), StoreError> {
        self.0.get_many(space, keys, values)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        self.0.scan(space, range, limit, reverse)
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.0.spaces()
    }
}

impl ShardStore for TemporaryShard {
    fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        self.0.shard().commit(writes, Sync::Now).map(drop)
    }

    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError> {
        self.0.shard().commit(writes, Sync::Later).map(drop)
    }

    fn has_unsynced(&self) -> bool {
        self.0.shard().has_unsynced()
    }

    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError> {
        self.0.snapshot()
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}
