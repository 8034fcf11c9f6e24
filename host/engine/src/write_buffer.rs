//! Implements the write buffer: changes of a shard that are applied and not committed, on top of
//! the committed state.
//!
//! The changes of a commit in progress stay separate until the commit has ended, so reads return
//! the same before, during and after the commit. If the commit fails, its changes are put back,
//! below the changes that were applied since.

use std::sync::Arc;

use lantern_core::{KeyRange, Pairs, ShardStore, Space, StoreError};

use crate::call::CallState;
use crate::change_set::{ChangeSet, PendingChanges};
use crate::layered_read::{self, Layer};

/// The changes of one shard that are not committed.
pub(crate) struct WriteBuffer {
    store: Arc<dyn ShardStore>,
    /// The changes of the commit in progress; empty if there is none.
    committing: Arc<PendingChanges>,
    /// The changes applied since that commit began.
    applied: ChangeSet,
    /// An empty change set, whose memory the writes of the next call use.
    call_memory: ChangeSet,
    /// An empty change set that keeps memory. The changes that are applied during the next commit
    /// use it.
    spare: ChangeSet,
}

impl WriteBuffer {
    /// Creates a write buffer without changes, on top of `store`.
    pub(crate) fn new(store: Arc<dyn ShardStore>) -> Self {
        Self {
            store,
            committing: Arc::default(),
            applied: ChangeSet::default(),
            call_memory: ChangeSet::default(),
            spare: ChangeSet::default(),
        }
    }

    /// Returns the store with the committed state.
    pub(crate) fn store(&self) -> &Arc<dyn ShardStore> {
        &self.store
    }

    /// Returns whether nothing was applied since the last commit began.
    pub(crate) fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    /// Returns the approximate number of bytes of the changes applied since the last commit began.
    pub(crate) fn bytes(&self) -> usize {
        self.applied.bytes()
    }

    /// Sets `key` to a value (`Some`), or deletes it (`None`).
    pub(crate) fn set(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        self.applied.set(space, key, value);
    }

    /// Returns up to `limit` pairs of `range` in key order; the last pairs first if `reverse` is
    /// set.
    pub(crate) fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        let layers: [&dyn Layer; 2] = [&self.applied, &*self.committing];
        layered_read::scan(&layers, &*self.store, space, range, limit, reverse)
    }

    /// Lends the state to a call. The caller must return it with [`WriteBuffer::take_back`] before
    /// anything else is read or written.
    pub(crate) fn lend(&mut self) -> CallState {
        CallState {
            store: self.store.clone(),
            committing: self.committing.clone(),
            applied: std::mem::take(&mut self.applied),
            written: std::mem::take(&mut self.call_memory),
        }
    }

    /// Returns the value under `key`, including all applied changes.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the state cannot be read.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        layered_read::get(&[&self.applied, &*self.committing], &*self.store, space, key)
    }

    /// Takes back the state that was lent to a call. The writes of the call are dropped.
    pub(crate) fn take_back(&mut self, applied: ChangeSet) {
        self.applied = applied;
    }

    /// Takes over the writes of a call that succeeded.
    pub(crate) fn accept(&mut self, written: ChangeSet) {
        self.call_memory = written;
        self.applied.merge(&mut self.call_memory);
    }

    /// Begins a commit of the changes that are applied. The previous commit must have ended.
    pub(crate) fn begin_commit(&mut self) -> Arc<PendingChanges> {
        let memory = std::mem::take(&mut self.spare);
        let applied = std::mem::replace(&mut self.applied, memory);
        self.committing = Arc::new(applied.freeze());
        self.committing.clone()
    }

    /// Ends the commit in progress. If it succeeded, its changes are in the store. If it
    /// failed, its changes are put back below the changes that were applied since.
    pub(crate) fn end_commit(&mut self, committed: bool) {
        let changes = std::mem::take(&mut self.committing);
        if !committed {
            self.applied.restore_below(&changes);
        } else if let Ok(changes) = Arc::try_unwrap(changes) {
            // If nothing was applied during the commit, one change set's memory is enough.
            let memory = if self.applied.is_empty() { &mut self.applied } else { &mut self.spare };
            *memory = changes.into_recycled();
        }
    }

    /// Frees the memory that is kept for the next call and commit.
    pub(crate) fn release_memory(&mut self) {
        (self.call_memory, self.spare) = (ChangeSet::default(), ChangeSet::default());
        if self.applied.is_empty() {
            self.applied = ChangeSet::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::TableId;
    use lantern_core::fake::MemoryShard;

    use super::*;

    const ROWS: Space = Space::Table(TableId(0));

    fn keys(buffer: &WriteBuffer) -> Vec<u8> {
        let pairs = buffer.scan(ROWS, &KeyRange::all(), usize::MAX, false).unwrap();
        pairs.into_iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn reads_are_the_same_before_during_and_after_a_commit_whether_it_fails_or_not() {
        for committed in [false, true] {
            let store = Arc::new(MemoryShard::default());
            let mut buffer = WriteBuffer::new(store.clone());
            buffer.set(ROWS, b"a", Some(b"1"));
            buffer.set(ROWS, b"b", Some(b"1"));
            let changes = buffer.begin_commit();
            assert_eq!(keys(&buffer), b"ab");
            buffer.set(ROWS, b"b", None);
            buffer.set(ROWS, b"c", Some(b"2"));
            assert_eq!(keys(&buffer), b"ac");
            if committed {
                store.commit(&changes.writes()).unwrap();
            }
            drop(changes);
            buffer.end_commit(committed);
            assert_eq!(keys(&buffer), b"ac");
            let changes = buffer.begin_commit();
            store.commit(&changes.writes()).unwrap();
            drop(changes);
            buffer.end_commit(true);
            assert!(buffer.is_empty());
            assert_eq!(keys(&buffer), b"ac");
        }
    }

    #[test]
    fn what_a_call_wrote_is_dropped_unless_it_is_accepted() {
        let mut buffer = WriteBuffer::new(Arc::new(MemoryShard::default()));
        buffer.set(ROWS, b"a", Some(b"1"));
        let mut lent = buffer.lend();
        lent.written.set(ROWS, b"b", Some(b"2"));
        buffer.take_back(lent.applied);
        assert_eq!(keys(&buffer), b"a");
        let mut lent = buffer.lend();
        lent.written.set(ROWS, b"c", Some(b"3"));
        buffer.take_back(lent.applied);
        buffer.accept(lent.written);
        assert_eq!(keys(&buffer), b"ac");
    }
}
