//! Implements the outbox, which contains emitted events that wait to be appended to the log. An
//! emitted event becomes durable in the same commit as the call that emitted it. Then it is
//! appended to the log, and once the log has it, it is removed from the outbox. If an append is
//! repeated after a crash, the log recognizes the event as a duplicate, because the id of an
//! emitted event never changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    EmitFrom, Event, KeyRange, OutboxEvent, Pairs, ParkedKind, ParkedRecord, ReadStore, ShardMeta,
    Space, StoreError, Timestamp, Writes,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::EngineConfig;
use crate::stop_reason::Fault;

#[derive(Serialize, Deserialize)]
pub(crate) struct OutboxRecord {
    pub(crate) id: String,
    pub(crate) event: OutboxEvent,
    /// The trace of the event that caused this event. The emitted event continues the trace.
    pub(crate) traceparent: Option<String>,
    /// Why the log refuses the event permanently; empty if the log does not refuse it.
    pub(crate) refused: String,
}

/// The first key in the outbox of events that the log has refused. Such an event has the key
/// `REFUSED_FIRST` plus its number, so refused events come after the events that will still be
/// sent. They stay until an operator retries or drops them.
///
/// They are not stored with the parked events for two reasons: the events that caused them were
/// applied, and a refusal does not depend on the log's events alone.
pub(crate) const REFUSED_FIRST: u64 = 1 << 63;

/// Returns the range of keys of the events that will be sent, from number `from` on.
pub(crate) fn unsent_from(from: u64) -> KeyRange {
    KeyRange { start: from.to_be_bytes().to_vec(), end: Some(REFUSED_FIRST.to_be_bytes().to_vec()) }
}

/// Returns the range of keys of the events that the log has refused.
pub(crate) fn refused_range() -> KeyRange {
    KeyRange { start: REFUSED_FIRST.to_be_bytes().to_vec(), end: None }
}

/// Returns the entries of the outbox that will be sent, the newest first.
pub(crate) fn newest_unsent(store: &dyn ReadStore, limit: usize) -> Result<Pairs, StoreError> {
    store.scan(Space::Outbox, &unsent_from(0), limit, true)
}

/// Returns whether there are emitted events that will be sent.
pub(crate) fn has_unsent(store: &dyn ReadStore) -> Result<bool, StoreError> {
    Ok(!store.scan(Space::Outbox, &unsent_from(0), 1, false)?.is_empty())
}

/// Returns the emitted events that the log has refused, as parked records.
pub(crate) fn refused_of(
    store: &dyn ReadStore,
    limit: usize,
) -> Result<Vec<ParkedRecord>, StoreError> {
    let pairs = store.scan(Space::Outbox, &refused_range(), limit, false)?;
    let parked = |(_, value): (Vec<u8>, Vec<u8>)| {
        let OutboxRecord { id, event, refused, .. } = decode(&value)?;
        Ok(ParkedRecord {
            kind: ParkedKind::Event,
            offset: event.cause,
            event: Event {
                id,
                kind: event.kind,
                subject: event.subject,
                tenant: event.tenant,
                time: event.time,
                data: event.data,
                ..Event::default()
            },
            watermark: Timestamp::MIN,
            reason: refused,
            backtrace: String::new(),
            attempts: 1,
        })
    };
    pairs.into_iter().map(parked).collect()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<OutboxRecord, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::Damaged("an event in the outbox".into()))
}

pub(crate) fn encode(record: &OutboxRecord) -> Vec<u8> {
    postcard::to_stdvec(record).expect("strings and numbers always encode")
}

/// Decodes a record of the outbox into the id and the event; `None` if it is damaged.
pub(crate) fn posted(bytes: &[u8]) -> Option<(String, OutboxEvent)> {
    let record: OutboxRecord = postcard::from_bytes(bytes).ok()?;
    Some((record.id, record.event))
}

/// The part of a shard's outbox that is only in memory.
pub(crate) struct Outbox {
    /// The offsets from which the shard sends emitted events. The log already has the events
    /// emitted before these offsets.
    pub(crate) emit_from: EmitFrom,
    /// The prefix of the ids of emitted events.
    pub(crate) emits_as: String,
    /// The name of the outbox. Each upload of a version has another name.
    pub(crate) name: String,
    /// The newest emitted events with their ids. They are kept only if a verification compares
    /// them.
    pub(crate) retained: Option<VecDeque<(String, OutboxEvent)>>,
    /// The lowest number of an event that the log may not have yet.
    pub(crate) first: u64,
    /// Why the log did not accept the oldest events, and the wait before the next try.
    pub(crate) stuck: Option<Fault>,
    /// The time before which no event is sent.
    pub(crate) not_before: Duration,
    pub(crate) sent: Arc<Mutex<SendResult>>,
}

/// The state of the appends to the log.
#[derive(Default)]
pub(crate) struct SendResult {
    /// The number after the last event of the append in progress; `None` if no append is in
    /// progress.
    pub(crate) pending: Option<u64>,
    /// All events with lower numbers are in the log.
    pub(crate) done: u64,
    pub(crate) failed: Option<String>,
    pub(crate) succeeded: bool,
    /// The number of an event that the log refuses permanently, and the reason.
    pub(crate) refused: Option<(u64, String)>,
}

impl Outbox {
    pub(crate) fn open(store: &dyn ReadStore, meta: &ShardMeta) -> Result<Self, StoreError> {
        let oldest = store.scan(Space::Outbox, &unsent_from(0), 1, false)?;
        let first = oldest
            .first()
            .and_then(|(key, _)| key.as_slice().try_into().ok())
            .map_or(meta.outbox_next, u64::from_be_bytes);
        let sent = Arc::new(Mutex::new(SendResult { done: first, ..SendResult::default() }));
        Ok(Self {
            emit_from: EmitFrom::default(),
            emits_as: String::new(),
            name: String::new(),
            retained: None,
            first,
            stuck: None,
            not_before: Duration::ZERO,
            sent,
        })
    }

    /// Returns why the log does not accept the oldest events.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.stuck.as_ref()
    }

    /// Notes the result of the previous append. After each failure, the wait before the next try
    /// doubles.
    pub(crate) fn note_outcome(&mut self, now: Duration, config: &EngineConfig) -> Option<&Fault> {
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

/// Creates the writes that copy the outbox of `store` into the first commit of a new state. So the
/// emitted events are still appended after `store` is deleted. `None` if the outbox is empty.
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
        refused_now: meta.refused_now,
        ..ShardMeta::default()
    };
    let fresh = serde_json::to_vec(&fresh).expect("numbers always encode");
    let rows = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let record = std::iter::once((ShardMeta::KEY.to_vec(), Some(fresh))).collect();
    Ok(Some(Writes::from([(Space::Meta, record), (Space::Outbox, rows)])))
}

/// Encodes and decodes records of the outbox, for the experiments and fuzz targets in `tests/`. Not
/// part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use lantern_core::{OutboxEvent, ParkedRecord, ReadStore, StoreError};

    use super::OutboxRecord;

    /// Returns all emitted events in `store` that the log has refused.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    pub fn refused(store: &dyn ReadStore) -> Result<Vec<ParkedRecord>, StoreError> {
        super::refused_of(store, usize::MAX)
    }

    /// Decodes `bytes` and encodes the record again; `None` if the bytes are damaged.
    #[must_use]
    pub fn outbox(bytes: &[u8]) -> Option<Vec<u8>> {
        let record = postcard::from_bytes::<OutboxRecord>(bytes).ok()?;
        postcard::to_stdvec(&record).ok()
    }

    /// Returns the id of the emitted event in `bytes`; `None` if the bytes are damaged.
    #[must_use]
    pub fn outbox_id(bytes: &[u8]) -> Option<String> {
        postcard::from_bytes::<OutboxRecord>(bytes).ok().map(|record| record.id)
    }

    /// Returns the record with which the outbox stores an event.
    #[must_use]
    pub fn encode_outbox(id: &str, event: OutboxEvent, traceparent: Option<String>) -> Vec<u8> {
        let record = OutboxRecord { id: id.into(), event, traceparent, refused: String::new() };
        postcard::to_stdvec(&record).expect("strings and numbers always encode")
    }
}
