//! Emitted events on their way into the log. They become durable in the
//! transaction of the call that emitted them, are appended after it, and
//! removed once the log has them. An append that is repeated after a crash is
//! recognised by the log, since an emitted event's id never changes.

use std::sync::Arc;

use lantern_core::{
    Emitted, EventRef, Events, KeyRange, Log, NewEvent, Offset, ReadStore, ShardMeta, Space,
    StoreError, Timestamp, Writes,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::shard::Shard;

/// The most emitted events in one append.
const APPEND_EVENTS_MAX: usize = 1_000;
/// An emitted event's time may run so far ahead of the clock, in microseconds.
const AHEAD_MAX_US: i64 = 86_400_000_000;

/// The most emitted events kept for comparing.
const KEPT_MAX: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct OutboxRecord {
    id: String,
    event: NewEvent,
    /// The trace of the event that caused it, carried on.
    traceparent: Option<String>,
}

/// The id and the event of a record in the outbox; `None` where it is damaged.
pub(crate) fn posted(bytes: &[u8]) -> Option<(String, NewEvent)> {
    let record: OutboxRecord = postcard::from_bytes(bytes).ok()?;
    Some((record.id, record.event))
}

/// What is known of a shard's outbox beside its rows.
pub(crate) struct Outbox {
    /// The oldest number not known to be in the log.
    first: u64,
    sent: Arc<Mutex<Sent>>,
}

#[derive(Default)]
struct Sent {
    /// An append up to this number (not included) is under way.
    under_way: Option<u64>,
    /// Everything below this number is in the log.
    done: u64,
    failed: Option<String>,
}

impl Outbox {
    pub(crate) fn open(store: &dyn ReadStore, meta: &ShardMeta) -> Result<Self, StoreError> {
        let oldest = store.scan(Space::Outbox, &KeyRange::all(), 1, false)?;
        let first = oldest
            .first()
            .and_then(|(key, _)| key.as_slice().try_into().ok())
            .map_or(meta.outbox_next, u64::from_be_bytes);
        Ok(Self { first, sent: Arc::new(Mutex::new(Sent { done: first, ..Sent::default() })) })
    }
}

/// The outbox of `store` as the first commit of a fresh state, so that what a
/// build has emitted still goes into the log once the build is gone; `None`
/// where it is empty.
pub(crate) fn carried_over(
    store: &dyn ReadStore,
    meta: &ShardMeta,
) -> Result<Option<Writes>, StoreError> {
    let pairs = store.scan(Space::Outbox, &KeyRange::all(), usize::MAX, false)?;
    if pairs.is_empty() {
        return Ok(None);
    }
    let fresh = ShardMeta {
        outbox_next: meta.outbox_next,
        outbox_of: meta.outbox_of,
        ..ShardMeta::default()
    };
    let fresh = serde_json::to_vec(&fresh).expect("numbers always encode");
    let rows = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let record = std::iter::once((ShardMeta::KEY.to_vec(), Some(fresh))).collect();
    Ok(Some(Writes::from([(Space::Meta, record), (Space::Outbox, rows)])))
}

impl Shard {
    /// Numbers the emitted events and, where this version is active, puts them
    /// into the outbox, each with the trace of the event that caused it. What
    /// is emitted before position `from` is there from before a rebuild.
    pub(crate) fn post(
        &mut self,
        emitted: Vec<NewEvent>,
        from: Offset,
        trace_of: impl Fn(Offset) -> Option<String>,
    ) {
        for event in emitted {
            let id = format!(
                "{}/{}/{}/{}",
                self.emits_as, self.id.partition, event.cause, self.meta.emitted
            );
            self.meta.emitted += 1;
            if let Some(kept) = &mut self.kept {
                if kept.len() >= KEPT_MAX {
                    kept.pop_front();
                }
                kept.push_back((id.clone(), event.clone()));
            }
            if self.epoch.is_some() && self.meta.next >= from {
                let traceparent = trace_of(Offset(event.cause));
                let record = postcard::to_stdvec(&OutboxRecord { id, event, traceparent })
                    .expect("strings and numbers always encode");
                let key = self.meta.outbox_next.to_be_bytes();
                self.overlay.set(Space::Outbox, &key, Some(&record));
                self.meta.outbox_next += 1;
            }
        }
    }

    /// Removes what the log has by now.
    pub(crate) fn clear_sent(&mut self) {
        let done = self.outbox.sent.lock().done;
        while self.outbox.first < done {
            self.overlay.set(Space::Outbox, &self.outbox.first.to_be_bytes(), None);
            self.outbox.first += 1;
        }
    }

    /// Appends what is committed and not sent yet; `wake` is called when the
    /// log has answered. Says why the append before could not be made.
    pub(crate) fn send(
        &mut self,
        log: &dyn Log,
        wall: Timestamp,
        wake: impl FnOnce() + Send + 'static,
    ) -> Result<Option<String>, StoreError> {
        let failed = {
            let mut sent = self.outbox.sent.lock();
            if sent.under_way.is_some() || sent.done >= self.meta.outbox_next {
                return Ok(None);
            }
            sent.failed.take()
        };
        let from = self.outbox.sent.lock().done;
        let range = KeyRange { start: from.to_be_bytes().to_vec(), end: None };
        let records = self.store.scan(Space::Outbox, &range, APPEND_EVENTS_MAX, false)?;
        let (mut events, mut next) = (Events::new(), from);
        let source = format!("lantern/{}", self.id.projection);
        for (key, value) in records {
            let record: OutboxRecord = postcard::from_bytes(&value)
                .map_err(|_| StoreError::Damaged("an event in the outbox".into()))?;
            let number = key.as_slice().try_into().map_or(next, u64::from_be_bytes);
            let latest = Timestamp(wall.0.saturating_add(AHEAD_MAX_US));
            let extensions = record.traceparent.map_or_else(String::new, |traceparent| {
                serde_json::json!({ "traceparent": traceparent }).to_string()
            });
            let event = EventRef {
                id: &record.id,
                extensions: &extensions,
                source: &source,
                kind: &record.event.kind,
                subject: &record.event.subject,
                time: record.event.time.min(latest),
                tenant: &record.event.tenant,
                datacontenttype: "application/json",
                data: &record.event.data,
                ..EventRef::default()
            };
            if !events.push(&event) {
                break;
            }
            next = number + 1;
        }
        if events.is_empty() {
            return Ok(failed);
        }
        let sent = self.outbox.sent.clone();
        sent.lock().under_way = Some(next);
        let emitted = Emitted {
            outbox: format!("{}/{}/{}", self.outbox_name, self.meta.outbox_of, self.id.partition),
            partition: self.id.partition,
            first: from,
            events,
        };
        log.emit(
            emitted,
            Box::new(move |outcome| {
                {
                    let mut sent = sent.lock();
                    sent.under_way = None;
                    match outcome {
                        Ok(_) => sent.done = next,
                        Err(error) => sent.failed = Some(error.to_string()),
                    }
                }
                wake();
            }),
        );
        Ok(failed)
    }

    /// Whether emitted events wait to be sent or to be removed.
    pub(crate) fn has_outbox(&self) -> bool {
        self.outbox.first < self.meta.outbox_next
    }

    /// What stands in the outbox, applied or committed, in order.
    pub(crate) fn emitted_events(&self) -> Result<Vec<NewEvent>, StoreError> {
        let all = KeyRange::all();
        let pairs = self.store.scan(Space::Outbox, &all, usize::MAX, false)?;
        let record = |(_, value): (Vec<u8>, Vec<u8>)| {
            postcard::from_bytes::<OutboxRecord>(&value)
                .map(|record| record.event)
                .map_err(|_| StoreError::Damaged("an event in the outbox".into()))
        };
        pairs.into_iter().map(record).collect()
    }
}

/// A stored record of the outbox: for the experiments and fuzz targets in
/// `tests/`. No part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use lantern_core::NewEvent;

    use super::OutboxRecord;

    /// The record in `bytes`, encoded again; `None` where they are damaged.
    #[must_use]
    pub fn outbox(bytes: &[u8]) -> Option<Vec<u8>> {
        let record = postcard::from_bytes::<OutboxRecord>(bytes).ok()?;
        postcard::to_stdvec(&record).ok()
    }

    /// The record of an event.
    #[must_use]
    pub fn encode_outbox(id: &str, event: NewEvent, traceparent: Option<String>) -> Vec<u8> {
        let record = OutboxRecord { id: id.into(), event, traceparent };
        postcard::to_stdvec(&record).expect("strings and numbers always encode")
    }
}
