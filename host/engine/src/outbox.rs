//! Emitted events that wait to be appended to the log. They become durable in the
//! transaction of the call that emitted them, are appended after it, and
//! removed once the log has them. An append that is repeated after a crash is
//! recognised by the log, since an emitted event's id never changes.

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
    /// The trace of the event that caused it, carried on.
    pub(crate) traceparent: Option<String>,
    /// Why the log refuses it for good; empty if it has not refused it.
    pub(crate) refused: String,
}

/// The first key of events that the log has refused. They are kept behind those to
/// be sent, under their numbers, until a person has them sent again or drops them.
/// They are not parked like events of the log: what caused them is applied, and
/// what a log takes is not a function of the log.
pub(crate) const REFUSED_FIRST: u64 = 1 << 63;

/// Numbers that wait to be sent, from `from` on.
pub(crate) fn unsent_from(from: u64) -> KeyRange {
    KeyRange { start: from.to_be_bytes().to_vec(), end: Some(REFUSED_FIRST.to_be_bytes().to_vec()) }
}

/// Events that the log has refused.
pub(crate) fn refused_range() -> KeyRange {
    KeyRange { start: REFUSED_FIRST.to_be_bytes().to_vec(), end: None }
}

/// The outbox's entries that wait to be sent, the newest first.
pub(crate) fn newest_unsent(store: &dyn ReadStore, limit: usize) -> Result<Pairs, StoreError> {
    store.scan(Space::Outbox, &unsent_from(0), limit, true)
}

/// Whether emitted events wait to be sent.
pub(crate) fn has_unsent(store: &dyn ReadStore) -> Result<bool, StoreError> {
    Ok(!store.scan(Space::Outbox, &unsent_from(0), 1, false)?.is_empty())
}

/// Emitted events that the log has refused, in the form of parked events.
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

/// The id and the event of a record in the outbox; `None` if it is damaged.
pub(crate) fn posted(bytes: &[u8]) -> Option<(String, OutboxEvent)> {
    let record: OutboxRecord = postcard::from_bytes(bytes).ok()?;
    Some((record.id, record.event))
}

/// What is known of a shard's outbox besides its rows.
pub(crate) struct Outbox {
    /// Events emitted before this are in the log already.
    pub(crate) emit_from: EmitFrom,
    /// What the ids of emitted events begin with.
    pub(crate) emits_as: String,
    /// Names the outbox of this upload of the version.
    pub(crate) name: String,
    /// The newest emitted events with their ids, for a verification to compare.
    pub(crate) retained: Option<VecDeque<(String, OutboxEvent)>>,
    /// The oldest number not known to be in the log.
    pub(crate) first: u64,
    /// Why the log does not take the oldest events, and the wait between tries.
    pub(crate) stuck: Option<Fault>,
    /// Nothing is sent before this.
    pub(crate) not_before: Duration,
    pub(crate) sent: Arc<Mutex<SendResult>>,
}

/// The answers of the log to appends.
#[derive(Default)]
pub(crate) struct SendResult {
    /// An append up to this number (not included) is in progress.
    pub(crate) pending: Option<u64>,
    /// Everything below this number is in the log.
    pub(crate) done: u64,
    pub(crate) failed: Option<String>,
    pub(crate) succeeded: bool,
    /// The number of an event that the log refuses for good, and why.
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

    /// Why the log does not take the oldest events.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.stuck.as_ref()
    }

    /// Notes how the append before ended: after a failure the wait doubles.
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

/// The outbox of `store` as the first commit of a fresh state, so that what a
/// build has emitted still goes into the log once the build is gone; `None`
/// if it is empty.
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

/// A stored record of the outbox: for the experiments and fuzz targets in
/// `tests/`. No part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use lantern_core::{OutboxEvent, ParkedRecord, ReadStore, StoreError};

    use super::OutboxRecord;

    /// All emitted events in `store` that the log has refused.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn refused(store: &dyn ReadStore) -> Result<Vec<ParkedRecord>, StoreError> {
        super::refused_of(store, usize::MAX)
    }

    /// The record in `bytes`, encoded again; `None` if they are damaged.
    #[must_use]
    pub fn outbox(bytes: &[u8]) -> Option<Vec<u8>> {
        let record = postcard::from_bytes::<OutboxRecord>(bytes).ok()?;
        postcard::to_stdvec(&record).ok()
    }

    /// The id of the emitted event in `bytes`; `None` if they are damaged.
    #[must_use]
    pub fn outbox_id(bytes: &[u8]) -> Option<String> {
        postcard::from_bytes::<OutboxRecord>(bytes).ok().map(|record| record.id)
    }

    /// The record of an event.
    #[must_use]
    pub fn encode_outbox(id: &str, event: OutboxEvent, traceparent: Option<String>) -> Vec<u8> {
        let record = OutboxRecord { id: id.into(), event, traceparent, refused: String::new() };
        postcard::to_stdvec(&record).expect("strings and numbers always encode")
    }
}
