//! A log that refuses some events for good, as a Kafka topic does whose
//! `max.message.bytes` is lower than the host's limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::fake::MemoryLog;
use lantern_core::{
    AppendDone, Bounds, Events, Log, LogError, Offset, PartitionId, Read, RejectedEvent, Timestamp,
    TypeFilter, Waker,
};

use crate::meter::LARGE;

/// A log in memory that refuses large events if that is set.
pub(super) struct LimitedLog {
    inner: Arc<MemoryLog>,
    limited: AtomicBool,
}

impl LimitedLog {
    pub(super) fn new(inner: Arc<MemoryLog>) -> Self {
        Self { inner, limited: AtomicBool::new(true) }
    }

    /// Whether it refuses large events from now on.
    pub(super) fn limit(&self, limited: bool) {
        self.limited.store(limited, Ordering::SeqCst);
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::SeqCst)
    }

    /// The first of `events` that it refuses. What it has already, it knows again.
    fn refused(&self, events: &Events) -> Option<usize> {
        let has = |id: &str| {
            let partitions = (0..self.inner.partitions()).map(PartitionId);
            let mut all = partitions.flat_map(|partition| self.inner.events(partition));
            all.any(|(_, event)| event.id == id)
        };
        let large = |data: &[u8]| data.len() >= LARGE.len();
        events.iter().position(|event| large(event.data) && !has(event.id))
    }
}

impl Log for LimitedLog {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.inner.bounds(partition)
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<Read, LogError> {
        self.inner.read(partition, from, wanted)
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError> {
        self.inner.offset_at(partition, time)
    }

    fn append(&self, events: Events, done: AppendDone) {
        let refused = self.refused(&events).filter(|_| self.is_limited());
        let Some(index) = refused else {
            return self.inner.append(events, done);
        };
        // A broker may have taken those before it, and may have taken none.
        let appended = if index % 2 == 0 { index } else { 0 };
        let mut taken = Events::new();
        for event in events.iter().take(appended) {
            taken.push(&event);
        }
        if !taken.is_empty() {
            self.inner.append(taken, Box::new(|_| ()));
        }
        let reason = RejectedEvent::TooLarge {
            event: events.get(index).id.to_owned(),
            bytes: events.get(index).data.len(),
            limit: format!("the log takes {}", LARGE.len() - 1),
        };
        done(Err(LogError::Rejected { index, appended, reason }));
    }

    fn on_append(&self, waker: Waker) {
        self.inner.on_append(waker);
    }

    fn incarnation_at(&self, partition: PartitionId, offset: Offset) -> Option<u64> {
        self.inner.incarnation_at(partition, offset)
    }
}
