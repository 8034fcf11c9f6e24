//! Limits the number of shards' files that are open, and the memory that their pages take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern_core::ShardId;
use parking_lot::Mutex;

use crate::config::StoreConfig;

/// The minimum size of a file's cache, in bytes. It is not used if the configured cache is smaller.
pub(crate) const CACHE_BYTES_LEAST: usize = 8 << 20;
/// The maximum number of idle files that are closed in one call.
const CLOSED_AT_ONCE_MAX: usize = 16;

/// A shard. Its file can be closed while it is not in use.
pub(crate) trait CloseIdle {
    /// Returns whether the shard was used since the last call of this method.
    fn take_used(&self) -> bool;

    /// Closes the file unless it is in use. Returns whether this call closed it.
    fn close_unless_busy(&self) -> bool;
}

/// The shards that were opened, and the number of their files that are open.
pub(crate) struct OpenFiles<S> {
    config: StoreConfig,
    open: AtomicUsize,
    /// The shards by id. The lock is not held while a shard is locked or a file is opened.
    shards: Mutex<BTreeMap<ShardId, Arc<S>>>,
    looked: Mutex<Instant>,
}

impl<S: CloseIdle> OpenFiles<S> {
    pub(crate) fn new(config: StoreConfig) -> Self {
        Self {
            config,
            open: AtomicUsize::new(0),
            shards: Mutex::new(BTreeMap::new()),
            looked: Mutex::new(Instant::now()),
        }
    }

    /// Returns the number of files that are open.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Returns the shard `id`. If it was not opened before, `new` creates it.
    pub(crate) fn shard(&self, id: &ShardId, new: impl FnOnce() -> Arc<S>) -> Arc<S> {
        Arc::clone(self.shards.lock().entry(id.clone()).or_insert_with(new))
    }

    /// Removes the shards for which `removed` returns `true`, and returns them.
    pub(crate) fn remove(&self, removed: impl Fn(&ShardId) -> bool) -> Vec<Arc<S>> {
        let mut shards = self.shards.lock();
        shards.extract_if(.., |id, _| removed(id)).map(|(_, shard)| shard).collect()
    }

    /// Returns the size of the cache for a file that is opened now, in bytes.
    pub(crate) fn cache_bytes(&self) -> usize {
        let part = self.config.cache_total_bytes / (self.count() + 1);
        part.max(CACHE_BYTES_LEAST).min(self.config.cache_bytes)
    }

    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Makes room for another open file: if the limit is reached, closes a file that was not used
    /// recently. If all were used recently, closes any file that is not in use now.
    pub(crate) fn make_room(&self) {
        if self.count() < self.config.open_files_max {
            return;
        }
        let shards = self.known();
        let unused = shards.iter().filter(|shard| !shard.take_used());
        let mut in_order = unused.chain(&shards);
        if !in_order.any(|shard| shard.close_unless_busy()) {
            tracing::debug!(limit = self.config.open_files_max, "all open files are in use");
        }
    }

    /// Calls [`OpenFiles::close_idle`] if enough time (`idle_close_ms`) has passed since the last
    /// call.
    pub(crate) fn close_idle_at_times(&self) {
        let Some(mut looked) = self.looked.try_lock() else {
            return;
        };
        if looked.elapsed() >= Duration::from_millis(self.config.idle_close_ms) {
            *looked = Instant::now();
            self.close_idle();
        }
    }

    /// Closes files of shards that were not used since the last call, a limited number of them.
    /// Returns how many files it closed.
    pub(crate) fn close_idle(&self) -> usize {
        let shards = self.known();
        let idle = shards.iter().filter(|shard| !shard.take_used());
        idle.filter(|shard| shard.close_unless_busy()).take(CLOSED_AT_ONCE_MAX).count()
    }

    fn known(&self) -> Vec<Arc<S>> {
        self.shards.lock().values().cloned().collect()
    }
}
