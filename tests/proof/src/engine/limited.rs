//! Implements a log that refuses some events permanently, like a Kafka topic whose
//! `max.message.bytes` is lower than the host's limit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::fake::{MemoryLog, MemoryStores};
use lantern_core::{AppendDone, Events, KeyRange, Log, LogError, RejectedEvent, Space};
use parking_lot::Mutex;

use crate::forward_log::forward_log;
use crate::test_projection::LARGE;

/// A log in memory that refuses large events while its limit is set.
pub(super) struct LimitedLog {
    inner: Arc<MemoryLog>,
    limited: AtomicBool,
    /// The ids of large events that the log has accepted, including those whose append is
    /// still held back.
    taken: Mutex<BTreeSet<String>>,
    stores: Arc<MemoryStores>,
    /// If an event was sent to the log while a crash could still have undone it, a description of
    /// this event.
    too_early: Mutex<Option<String>>,
}

impl LimitedLog {
    /// Creates a log that stores its events in `inner`. The shards in `stores` emit events to it.
    pub(super) fn new(inner: Arc<MemoryLog>, stores: Arc<MemoryStores>) -> Self {
        let (taken, too_early) = (Mutex::default(), Mutex::default());
        Self { inner, limited: AtomicBool::new(true), taken, stores, too_early }
    }

    /// Describes an event that was sent to the log before it was durable, if there was one.
    pub(super) fn sent_too_early(&self) -> Option<String> {
        self.too_early.lock().clone()
    }

    /// Records the first of `events` that is in no durable outbox.
    fn check_durable(&self, events: &Events) {
        let mut durable = BTreeSet::new();
        for shard in self.stores.shards() {
            let store = self.stores.shard(&shard).peek_durable();
            let outbox = store.scan(Space::Outbox, &KeyRange::all(), usize::MAX, false);
            for (_, record) in outbox.into_iter().flatten() {
                durable.extend(lantern_engine::fuzzing::outbox_id(&record));
            }
        }
        if let Some(early) = events.iter().find(|event| !durable.contains(event.id)) {
            self.too_early.lock().get_or_insert_with(|| early.id.to_owned());
        }
    }

    /// Sets whether the log refuses large events from now on.
    pub(super) fn limit(&self, limited: bool) {
        self.limited.store(limited, Ordering::SeqCst);
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::SeqCst)
    }

    /// Returns the index of the first of `events` that the log refuses. If the log accepted an
    /// event before, it does not refuse it.
    fn refused(&self, events: &Events) -> Option<usize> {
        let mut taken = self.taken.lock();
        if !self.is_limited() {
            let large = events.iter().filter(|event| is_large(event.data));
            taken.extend(large.map(|event| event.id.to_owned()));
        }
        events.iter().position(|event| is_large(event.data) && !taken.contains(event.id))
    }
}

fn is_large(data: &[u8]) -> bool {
    data.len() >= LARGE.len()
}

impl Log for LimitedLog {
    forward_log!(partitions, bounds, read, offset_at, on_append, incarnation_at);

    fn append(&self, events: Events, done: AppendDone) {
        self.check_durable(&events);
        let Some(index) = self.refused(&events) else {
            return self.inner.append(events, done);
        };
        // A Kafka broker may have appended the events before the refused one, or none of them. If
        // `index` is even, this log appends them; if it is odd, it appends none.
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
}
