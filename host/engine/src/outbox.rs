//! Emitted events on their way into the log. They become durable in the
//! transaction of the call that emitted them, are appended after it, and
//! removed once the log has them. An append that is repeated after a crash is
//! recognised by the log, since an emitted event's id never changes.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    Emitted, EventRef, Events, KeyRange, Log, Offset, OutboxEvent, ReadStore, ShardMeta, Space,
    StoreError, Timestamp, Writes,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::EngineConfig;
use crate::quota::EmitQuota;
use crate::shard::Shard;
use crate::slot::Fault;

/// The most emitted events in one append.
const APPEND_EVENTS_MAX: usize = 1_000;
/// An emitted event's time may run so far ahead of the clock, in microseconds.
const AHEAD_MAX_US: i64 = 86_400_000_000;

/// The most emitted events kept for comparing.
const KEPT_MAX: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct OutboxRecord {
    id: String,
    event: OutboxEvent,
    /// The trace of the event that caused it, carried on.
    traceparent: Option<String>,
}

/// The id and the event of a record in the outbox; `None` where it is damaged.
pub(crate) fn posted(bytes: &[u8]) -> Option<(String, OutboxEvent)> {
    let record: OutboxRecord = postcard::from_bytes(bytes).ok()?;
    Some((record.id, record.event))
}

/// What is known of a shard's outbox beside its rows.
pub(crate) struct Outbox {
    /// The oldest number not known to be in the log.
    first: u64,
    /// Why the log does not take the oldest events, and the wait between tries.
    stuck: Option<Fault>,
    /// Nothing is sent before this.
    not_before: Duration,
    sent: Arc<Mutex<Sent>>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing waits to be sent.
    Nothing,
    /// An append is pending; the shard is woken when the log has answered.
    Pending,
    /// There is something to send after this time.
    After(Duration),
}

/// How emitted events may be sent.
pub(crate) struct SendLimits<'a> {
    /// Time for pacing.
    pub(crate) now: Duration,
    /// The time of day.
    pub(crate) wall: Timestamp,
    /// The projection's share.
    pub(crate) quota: &'a EmitQuota,
}

#[derive(Default)]
struct Sent {
    /// An append up to this number (not included) is under way.
    under_way: Option<u64>,
    /// Everything below this number is in the log.
    done: u64,
    failed: Option<String>,
    succeeded: bool,
}

impl Outbox {
    pub(crate) fn open(store: &dyn ReadStore, meta: &ShardMeta) -> Result<Self, StoreError> {
        let oldest = store.scan(Space::Outbox, &KeyRange::all(), 1, false)?;
        let first = oldest
            .first()
            .and_then(|(key, _)| key.as_slice().try_into().ok())
            .map_or(meta.outbox_next, u64::from_be_bytes);
        let sent = Arc::new(Mutex::new(Sent { done: first, ..Sent::default() }));
        Ok(Self { first, stuck: None, not_before: Duration::ZERO, sent })
    }

    /// Why the log does not take the oldest events.
    pub(crate) fn stuck(&self) -> Option<&Fault> {
        self.stuck.as_ref()
    }

    /// Notes how the append before ended: after a failure the wait doubles.
    fn note_outcome(&mut self, now: Duration, config: &EngineConfig) -> Option<&Fault> {
        let mut sent = self.sent.lock();
        if std::mem::take(&mut sent.succeeded) {
            self.stuck = None;
        }
        let reason = sent.failed.take()?;
        let first = Duration::from_millis(config.fault_wait_ms);
        let most = Duration::from_millis(config.fault_wait_ms_max);
        let wait = self.stuck.as_ref().map_or(first, |fault| (fault.wait * 2).min(most));
        self.not_before = now + wait;
        self.stuck = Some(Fault { reason, wait });
        self.stuck.as_ref()
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
        emitted: Vec<OutboxEvent>,
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
                let traceparent = trace_of(event.cause);
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
        let done = {
            let mut sent = self.outbox.sent.lock();
            if std::mem::take(&mut sent.succeeded) {
                self.outbox.stuck = None;
            }
            sent.done
        };
        while self.outbox.first < done {
            self.overlay.set(Space::Outbox, &self.outbox.first.to_be_bytes(), None);
            self.outbox.first += 1;
        }
    }

    /// Appends what is committed and not sent yet; `wake` is called when the
    /// log has answered. After a failure it waits, longer each time.
    pub(crate) fn send(
        &mut self,
        log: &dyn Log,
        limits: &SendLimits<'_>,
        wake: impl FnOnce() + Send + 'static,
    ) -> Result<Sending, StoreError> {
        if let Some(Fault { reason, wait }) = self.outbox.note_outcome(limits.now, &self.config) {
            tracing::warn!(
                projection = %self.id.projection, version = %self.id.version,
                partition = %self.id.partition, %reason, ?wait,
                "emitted events cannot be appended, will try again"
            );
            metrics::counter!(
                "lantern_engine_faults_total", "projection" => self.id.projection.clone()
            )
            .increment(1);
        }
        let from = {
            let sent = self.outbox.sent.lock();
            if sent.under_way.is_some() {
                return Ok(Sending::Pending);
            }
            if sent.done >= self.meta.outbox_next {
                return Ok(Sending::Nothing);
            }
            sent.done
        };
        if limits.now < self.outbox.not_before {
            return Ok(Sending::After(self.outbox.not_before - limits.now));
        }
        let wanted = usize::try_from(self.meta.outbox_next - from).unwrap_or(usize::MAX);
        let wanted = wanted.min(APPEND_EVENTS_MAX);
        let most = match limits.quota.take(limits.now, wanted, self.config.emit_per_s_max) {
            Ok(most) => most,
            Err(wait) => return Ok(Sending::After(wait)),
        };
        let sending = self.send_from(log, from, most, limits.wall, wake);
        let sent = *sending.as_ref().unwrap_or(&0);
        limits.quota.give_back(most - sent.min(most));
        Ok(if sending? == 0 { Sending::Nothing } else { Sending::Pending })
    }

    /// Appends up to `most` events from number `from` on, and returns how many.
    fn send_from(
        &mut self,
        log: &dyn Log,
        from: u64,
        most: usize,
        wall: Timestamp,
        wake: impl FnOnce() + Send + 'static,
    ) -> Result<usize, StoreError> {
        let range = KeyRange { start: from.to_be_bytes().to_vec(), end: None };
        let records = self.store.scan(Space::Outbox, &range, most, false)?;
        let source = format!("lantern/{}", self.id.projection);
        let (mut events, mut next) = (Events::new(), from);
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
        let count = events.len();
        if count == 0 {
            return Ok(0);
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
                        Ok(_) => (sent.done, sent.succeeded) = (next, true),
                        Err(error) => sent.failed = Some(error.to_string()),
                    }
                }
                wake();
            }),
        );
        Ok(count)
    }

    /// How many emitted events the log has not taken.
    pub(crate) fn unsent(&self) -> u64 {
        self.meta.outbox_next.saturating_sub(self.outbox.sent.lock().done)
    }

    /// Whether emitted events wait to be sent or to be removed.
    pub(crate) fn has_outbox(&self) -> bool {
        self.outbox.first < self.meta.outbox_next
    }

    /// What stands in the outbox, applied or committed, in order.
    pub(crate) fn emitted_events(&self) -> Result<Vec<OutboxEvent>, StoreError> {
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
    use lantern_core::OutboxEvent;

    use super::OutboxRecord;

    /// The record in `bytes`, encoded again; `None` where they are damaged.
    #[must_use]
    pub fn outbox(bytes: &[u8]) -> Option<Vec<u8>> {
        let record = postcard::from_bytes::<OutboxRecord>(bytes).ok()?;
        postcard::to_stdvec(&record).ok()
    }

    /// The record of an event.
    #[must_use]
    pub fn encode_outbox(id: &str, event: OutboxEvent, traceparent: Option<String>) -> Vec<u8> {
        let record = OutboxRecord { id: id.into(), event, traceparent };
        postcard::to_stdvec(&record).expect("strings and numbers always encode")
    }
}
