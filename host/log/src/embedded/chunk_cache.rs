//! Implements a cache of decoded chunks, which all readers share. If the cache is full, the chunks
//! that were not used for the longest time are evicted.

use std::collections::BTreeMap;
use std::sync::Arc;

use lantern_core::{Chunk, Offset, PartitionId};
use parking_lot::{Mutex, MutexGuard};

/// The number of locks under which chunks are decoded, and so the maximum number of chunks that are
/// decoded at the same time. Readers of the same chunk use the same lock, so they do not decode it
/// twice.
const DECODERS: usize = 64;

type Key = (PartitionId, Offset);

/// A cache of decoded chunks, limited in bytes.
pub(crate) struct ChunkCache {
    limit_bytes: usize,
    inner: Mutex<Inner>,
    decoding: [Mutex<()>; DECODERS],
}

#[derive(Default)]
struct Inner {
    chunks: BTreeMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    chunk: Arc<Chunk>,
    used: u64,
    bytes: usize,
}

impl ChunkCache {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let decoding = std::array::from_fn(|_| Mutex::new(()));
        Self { limit_bytes, inner: Mutex::default(), decoding }
    }

    /// Returns the chunk that contains `offset`, if it is in the cache.
    pub(crate) fn holding(&self, partition: PartitionId, offset: Offset) -> Option<Arc<Chunk>> {
        let mut inner = self.inner.lock();
        let first = (partition, Offset(0));
        let (&key, entry) = inner.chunks.range(first..=(partition, offset)).next_back()?;
        if entry.chunk.end() <= offset {
            return None;
        }
        let (chunk, used) = (Arc::clone(&entry.chunk), entry.used);
        inner.by_use.remove(&used);
        inner.uses += 1;
        let now = inner.uses;
        inner.by_use.insert(now, key);
        if let Some(entry) = inner.chunks.get_mut(&key) {
            entry.used = now;
        }
        Some(chunk)
    }

    /// Locks the decoding of the chunk that begins at `first`. Another reader may have decoded the
    /// chunk while this call waited, so the caller must look for it in the cache again.
    pub(crate) fn decoding(&self, partition: PartitionId, first: Offset) -> MutexGuard<'_, ()> {
        let mixed = first.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(partition.0);
        self.decoding[usize::try_from(mixed >> 58).expect("six bits")].lock()
    }

    pub(crate) fn insert(&self, chunk: Arc<Chunk>) {
        let bytes = memory_bytes(&chunk);
        if bytes > self.limit_bytes {
            return;
        }
        let key = (chunk.partition, chunk.offset(0));
        let mut inner = self.inner.lock();
        inner.remove(key);
        inner.uses += 1;
        let used = inner.uses;
        inner.by_use.insert(used, key);
        inner.chunks.insert(key, Entry { chunk, used, bytes });
        inner.bytes += bytes;
        while inner.bytes > self.limit_bytes {
            let Some((_, oldest)) = inner.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            inner.remove(oldest);
        }
    }

    /// Removes the chunks whose first offset is in the range `from..to`.
    pub(crate) fn forget(&self, partition: PartitionId, from: Offset, to: Offset) {
        let mut inner = self.inner.lock();
        let keys: Vec<_> =
            inner.chunks.range((partition, from)..(partition, to)).map(|(&key, _)| key).collect();
        for key in keys {
            inner.remove(key);
        }
    }

    pub(crate) fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl Inner {
    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.chunks.remove(&key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

/// Returns the approximate memory that a decoded chunk takes, in bytes.
fn memory_bytes(chunk: &Chunk) -> usize {
    /// The bytes per event for the ends of the values in eight columns, 4 bytes each.
    const ENDS_BYTES: usize = 32;
    /// The bytes per event for the append time.
    const APPENDED_BYTES: usize = 8;
    /// The bytes per chunk for the structs themselves.
    const FIXED_BYTES: usize = 1024;
    chunk.events.bytes() + chunk.events.len() * (ENDS_BYTES + APPENDED_BYTES) + FIXED_BYTES
}

#[cfg(test)]
mod tests {
    use lantern_core::{EventRef, Events, Offsets, Timestamp};

    use super::*;

    fn chunk(first: u64) -> Arc<Chunk> {
        let mut events = Events::new();
        for _ in 0..10 {
            events.push(&EventRef::default());
        }
        let offsets = Offsets::Dense { first: Offset(first) };
        Arc::new(Chunk {
            partition: PartitionId(1),
            offsets,
            events,
            appended: vec![Timestamp(1); 10],
        })
    }

    #[test]
    fn the_least_recently_used_go_first_and_bytes_stay_bounded() {
        let partition = PartitionId(1);
        let each = memory_bytes(&chunk(0));
        let cache = ChunkCache::new(each * 3);
        for first in [0, 10, 20] {
            cache.insert(chunk(first));
        }
        assert!(cache.holding(partition, Offset(9)).is_some());
        cache.insert(chunk(30));
        assert_eq!(cache.bytes(), each * 3);
        assert!(cache.holding(partition, Offset(15)).is_none());
        assert!(cache.holding(partition, Offset(0)).is_some());
        assert!(cache.holding(PartitionId(0), Offset(0)).is_none());
        cache.forget(partition, Offset(0), Offset(30));
        assert_eq!(cache.bytes(), each);
        assert!(cache.holding(partition, Offset(39)).is_some());
        assert!(cache.holding(partition, Offset(40)).is_none());
    }
}
