//! Remembers, for a short time, in which span events arrived. So the span of a fold follows that of
//! the request, and an event without a `traceparent` of its own is followed if its request has one.
//! The events themselves are not changed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern_core::EventRef;
use parking_lot::Mutex;

use crate::span::{SpanId, TraceId};

/// The maximum number of events that are remembered.
const EVENTS_MAX: usize = 8_192;
/// How long an event is remembered. Every projection that keeps up has folded it by then.
const KEPT: Duration = Duration::from_secs(60);

/// The events that arrived in a span.
#[derive(Default)]
pub(crate) struct IngestedEvents {
    /// The seed is random, so that a sender cannot choose events with equal hashes.
    hasher: RandomState,
    events: Mutex<Events>,
    /// The number of events, which is read without the lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct Events {
    spans: HashMap<u64, (TraceId, SpanId)>,
    /// The hashes of the events, in the order in which they arrived.
    order: VecDeque<(Instant, u64)>,
}

impl IngestedEvents {
    /// Remembers that `event` arrived in the span `span` of `trace`.
    pub(crate) fn add(&self, event: &EventRef<'_>, trace: TraceId, span: SpanId) {
        let (hash, now) = (self.hash(event), Instant::now());
        let mut events = self.events.lock();
        events.forget_until(now);
        if events.spans.len() >= EVENTS_MAX {
            events.forget_oldest();
        }
        if events.spans.insert(hash, (trace, span)).is_none() {
            events.order.push_back((now, hash));
        }
        self.count.store(events.spans.len(), Ordering::Release);
    }

    /// Returns the trace and the span in which `event` arrived; `None` if they are not known.
    pub(crate) fn find(&self, event: &EventRef<'_>) -> Option<(TraceId, SpanId)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.events.lock().spans.get(&self.hash(event)).copied()
    }

    /// Forgets events that arrived long ago.
    pub(crate) fn expire(&self) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut events = self.events.lock();
            events.forget_until(Instant::now());
            self.count.store(events.spans.len(), Ordering::Release);
        }
    }

    /// Hashes the attributes that identify an event in the log.
    fn hash(&self, event: &EventRef<'_>) -> u64 {
        self.hasher.hash_one((event.tenant, event.source, event.id))
    }
}

impl Events {
    fn forget_until(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.order.pop_front() {
            self.spans.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_until_newer_ones_take_its_place() {
        let events = IngestedEvents::default();
        let event = |id: &'static str| EventRef { id, source: "s", ..EventRef::default() };
        assert_eq!(events.find(&event("1")), None);
        events.add(&event("1"), [1; 16], [2; 8]);
        assert_eq!(events.find(&event("1")), Some(([1; 16], [2; 8])));
        assert_eq!(events.find(&event("2")), None);
        for number in 0..EVENTS_MAX {
            let id = format!("other {number}");
            events.add(&EventRef { id: &id, ..EventRef::default() }, [3; 16], [4; 8]);
        }
        assert_eq!(events.find(&event("1")), None);
        let inside = events.events.lock();
        assert_eq!((inside.spans.len(), inside.order.len()), (EVENTS_MAX, EVENTS_MAX));
    }

    #[test]
    fn an_event_is_forgotten_after_a_while() {
        let mut events = Events::default();
        let now = Instant::now();
        for (hash, second) in [(1, 0), (2, 30), (3, 61)] {
            events.spans.insert(hash, ([0; 16], [0; 8]));
            events.order.push_back((now + Duration::from_secs(second), hash));
        }
        events.forget_until(now + KEPT + Duration::from_secs(1));
        let mut kept: Vec<_> = events.spans.keys().copied().collect();
        kept.sort_unstable();
        assert_eq!(kept, [2, 3]);
    }
}
