//! A log that refuses some events for good, like a Kafka topic whose
//! `max.message.bytes` is lower than the host's limit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::fake::MemoryLog;
use lantern_core::{AppendDone, Events, Log, LogError, RejectedEvent};
use parking_lot::Mutex;

use crate::forward_log::forward_log;
use crate::test_projection::LARGE;

/// A log in memory that refuses large events while its limit is set.
pub(super) struct LimitedLog {
    inner: Arc<MemoryLog>,
    limited: AtomicBool,
    /// Ids of large events that it accepted, including those whose append is still
    /// held.
    taken: Mutex<BTreeSet<String>>,
}

impl LimitedLog {
    pub(super) fn new(inner: Arc<MemoryLog>) -> Self {
        Self { inner, limited: AtomicBool::new(true), taken: Mutex::default() }
    }

    /// Sets whether it refuses large events from now on.
    pub(super) fn limit(&self, limited: bool) {
        self.limited.store(limited, Ordering::SeqCst);
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::SeqCst)
    }

    /// The index of the first of `events` that it refuses. It recognizes an event
    /// that it accepted before.
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
        let Some(index) = self.refused(&events) else {
            return self.inner.append(events, done);
        };
        // A broker may have appended the events before the refused one, or none of
        // them.
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
