//! Implements the handle through which the engine uses a shard. It implements the ports
//! [`ShardStore`] and [`ReadStore`], and records the metrics of commits.

use std::sync::Arc;
use std::time::Instant;

use lantern_core::{
    KeyRange, PairBuffer, Pairs, ReadStore, ReadValues, ShardStore, Space, StoreError, Writes,
};

use crate::commit_reader::{CommitReader, Sync};
use crate::shard::Shard;

/// A shard, as the engine uses it. When the last handle is dropped, the file is closed.
pub(crate) struct ShardHandle(Arc<Shard>);

impl ShardHandle {
    pub(crate) fn new(shard: Arc<Shard>) -> Self {
        shard.add_handle();
        Self(shard)
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.0
    }
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        self.0.drop_handle();
    }
}

impl ReadStore for ShardHandle {
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
        self.0.read(|view| view.scan(space, range, limit, reverse))
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.0.read(CommitReader::spaces)
    }
}

impl ShardHandle {
    fn write(&self, writes: &Writes, sync: Sync) -> Result<(), StoreError> {
        let began = Instant::now();
        let bytes = self.0.commit(writes, sync)?;
        if let Some(files) = self.0.files() {
            metrics::histogram!("lantern_store_commit_seconds").record(began.elapsed());
            metrics::counter!("lantern_store_commits_total").increment(1);
            if sync == Sync::Later {
                metrics::counter!("lantern_store_unsynced_commits_total").increment(1);
            }
            metrics::counter!("lantern_store_bytes_written_total").increment(bytes);
            files.close_idle_at_times();
        }
        Ok(())
    }
}

impl ShardStore for ShardHandle {
    fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes, Sync::Now)
    }

    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes, Sync::Later)
    }

    fn has_unsynced(&self) -> bool {
        self.0.has_unsynced()
    }

    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError> {
        let view = self.0.leased()?;
        Ok(Box::new(Snapshot { view, handle: Self::new(Arc::clone(&self.0)) }))
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}

/// Reads the state of one commit. Later commits do not change it. While it exists, the shard's file
/// stays open.
struct Snapshot {
    view: Arc<CommitReader>,
    handle: ShardHandle,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.handle.0.unpin();
    }
}

impl ReadStore for Snapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.handle.0.read_from(&self.view, |view| view.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        self.handle.0.read_from(&self.view, |view| view.scan(space, range, limit, reverse))
    }

    fn scan_into(
        &self,
        space: Space,
        range: &KeyRange,
        reverse: bool,
        pairs: &mut PairBuffer,
    ) -> Result<(), StoreError> {
        self.handle.0.read_from(&self.view, |view| view.scan_into(space, range, reverse, pairs))
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.handle.0.read_from(&self.view, CommitReader::spaces)
    }
}
