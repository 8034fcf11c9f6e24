//! Emitted events that wait to be appended to the log. They become durable in the
//! transaction of the call that emitted them, are appended after it, and
//! removed once the log has them. An append that is repeated after a crash is
//! recognised by the log, since an emitted event's id never changes.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    DEPTH_EXTENSION, EmitFrom, Emitted, Event, EventRef, Events, KeyRange, Log, LogError, Offset,
    OnFailure, OutboxEvent, Pairs, ParkedKind, ParkedRecord, ReadStore, ShardMeta, Space,
    StoreError, Timestamp, Writes,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::emit_quota::EmitQuota;
use crate::shard::StopReason;
use crate::shard_handle::Fault;
use crate::state::ShardState;
use crate::{EngineConfig, ParkedSelection};

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
    /// Why the log refuses it for good; empty if it has not refused it.
    refused: String,
}

/// The first key of events that the log has refused. They are kept behind those to
/// be sent, under their numbers, until a person has them sent again or drops them.
/// They are not parked like events of the log: what caused them is applied, and
/// what a log takes is not a function of the log.
const REFUSED_FIRST: u64 = 1 << 63;

/// Numbers that wait to be sent, from `from` on.
fn unsent_from(from: u64) -> KeyRange {
    KeyRange { start: from.to_be_bytes().to_vec(), end: Some(REFUSED_FIRST.to_be_bytes().to_vec()) }
}

/// Events that the log has refused.
fn refused_range() -> KeyRange {
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

fn decode(bytes: &[u8]) -> Result<OutboxRecord, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::Damaged("an event in the outbox".into()))
}

fn encode(record: &OutboxRecord) -> Vec<u8> {
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
    first: u64,
    /// Why the log does not take the oldest events, and the wait between tries.
    stuck: Option<Fault>,
    /// Nothing is sent before this.
    not_before: Duration,
    sent: Arc<Mutex<SendResult>>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
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
struct SendResult {
    /// An append up to this number (not included) is in progress.
    under_way: Option<u64>,
    /// Everything below this number is in the log.
    done: u64,
    failed: Option<String>,
    succeeded: bool,
    /// The number of an event that the log refuses for good, and why.
    refused: Option<(u64, String)>,
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

/// How many of the events that an event emits are in the log from before a rebuild.
pub(crate) fn sent_by_events(state: &ShardState) -> u64 {
    if state.meta.next < state.outbox.emit_from.events { u64::MAX } else { 0 }
}

/// As [`sent_by_events`], of the timers that fire at the next offset.
pub(crate) fn sent_by_timers(state: &ShardState) -> u64 {
    let (from, meta) = (state.outbox.emit_from, &state.meta);
    match meta.next.cmp(&from.timers) {
        Ordering::Less => u64::MAX,
        Ordering::Equal => from.timers_emitted.saturating_sub(meta.tick_emitted),
        Ordering::Greater => 0,
    }
}

/// Numbers the emitted events and, if this version is active, puts them into the
/// outbox, each with the trace of the event that caused it. The first `sent` of them
/// are in the log from before a rebuild.
pub(crate) fn post(
    state: &mut ShardState,
    emitted: Vec<OutboxEvent>,
    sent: u64,
    trace_of: impl Fn(Offset) -> Option<String>,
) {
    for (index, event) in (0..).zip(emitted) {
        let id = format!(
            "{}/{}/{}/{}",
            state.outbox.emits_as, state.id.partition, event.cause, state.meta.emitted
        );
        state.meta.emitted += 1;
        state.meta.emit_depth = state.meta.emit_depth.max(event.depth);
        if let Some(retained) = &mut state.outbox.retained {
            if retained.len() >= KEPT_MAX {
                retained.pop_front();
            }
            retained.push_back((id.clone(), event.clone()));
        }
        if state.epoch.is_some() && index >= sent {
            let traceparent = trace_of(event.cause);
            let refused = String::new();
            let record = encode(&OutboxRecord { id, event, traceparent, refused });
            let key = state.meta.outbox_next.to_be_bytes();
            state.buffer.set(Space::Outbox, &key, Some(&record));
            state.meta.outbox_next += 1;
        }
    }
}

/// Removes what the log has by now, and sets aside what it refuses for good.
pub(crate) fn clear_sent(state: &mut ShardState) -> Result<(), StopReason> {
    let refused = state.outbox.sent.lock().refused.take();
    if let Some((number, reason)) = refused {
        set_aside(state, number, &reason)?;
    }
    let done = {
        let mut sent = state.outbox.sent.lock();
        if std::mem::take(&mut sent.succeeded) {
            state.outbox.stuck = None;
        }
        sent.done
    };
    while state.outbox.first < done {
        state.buffer.set(Space::Outbox, &state.outbox.first.to_be_bytes(), None);
        state.outbox.first += 1;
    }
    Ok(())
}

/// Takes an emitted event that the log refuses out of the way of the others.
fn set_aside(state: &mut ShardState, number: u64, reason: &str) -> Result<(), StopReason> {
    let key = number.to_be_bytes();
    let Some(bytes) = state.buffer.store().get(Space::Outbox, &key)? else { return Ok(()) };
    let mut record = decode(&bytes)?;
    record.refused = format!("emitted by the event at offset {}: {reason}", record.event.cause);
    if state.manifest.on_failure == OnFailure::Halt {
        return Err(StopReason::Halt(format!("the log refuses an event {}", record.refused)));
    }
    tracing::warn!(
        projection = %state.id.projection, version = %state.id.version,
        partition = %state.id.partition, id = record.id, reason, "an emitted event is refused"
    );
    state.buffer.set(Space::Outbox, &key, None);
    let key = (number | REFUSED_FIRST).to_be_bytes();
    state.buffer.set(Space::Outbox, &key, Some(&encode(&record)));
    state.meta.refused_now += 1;
    Ok(())
}

/// Has refused events that are selected sent again, or drops them.
pub(crate) fn decide_refused(
    state: &mut ShardState,
    selection: &ParkedSelection,
    retry: bool,
) -> Result<u64, StopReason> {
    let pairs = state.buffer.scan(Space::Outbox, &refused_range(), usize::MAX, false)?;
    let mut done = 0;
    for (key, value) in pairs {
        let mut record = decode(&value)?;
        let OutboxEvent { cause, tenant, subject, .. } = &record.event;
        if !selection.names(*cause, tenant, subject) {
            continue;
        }
        state.buffer.set(Space::Outbox, &key, None);
        if retry {
            record.refused.clear();
            let number = state.meta.outbox_next.to_be_bytes();
            state.buffer.set(Space::Outbox, &number, Some(&encode(&record)));
            state.meta.outbox_next += 1;
        }
        state.meta.refused_now = state.meta.refused_now.saturating_sub(1);
        done += 1;
    }
    Ok(done)
}

/// Appends what is committed and not sent yet; `wake` is called when the
/// log has answered. After a failure it waits, longer each time.
pub(crate) fn send(
    state: &mut ShardState,
    log: &dyn Log,
    limits: &SendLimits<'_>,
    wake: impl FnOnce() + Send + 'static,
) -> Result<SendOutcome, StoreError> {
    if let Some(Fault { reason, wait }) = state.outbox.note_outcome(limits.now, &state.config) {
        tracing::warn!(
            projection = %state.id.projection, version = %state.id.version,
            partition = %state.id.partition, %reason, ?wait,
            "emitted events cannot be appended, will try again"
        );
        metrics::counter!(
            "lantern_engine_faults_total", "projection" => state.id.projection.clone()
        )
        .increment(1);
    }
    let from = {
        let sent = state.outbox.sent.lock();
        if sent.under_way.is_some() {
            return Ok(SendOutcome::Pending);
        }
        if sent.done >= state.meta.outbox_next {
            return Ok(SendOutcome::Nothing);
        }
        sent.done
    };
    if limits.now < state.outbox.not_before {
        return Ok(SendOutcome::After(state.outbox.not_before - limits.now));
    }
    let requested = usize::try_from(state.meta.outbox_next - from).unwrap_or(usize::MAX);
    let requested = requested.min(APPEND_EVENTS_MAX);
    let most = match limits.quota.take(limits.now, requested, state.config.emit_per_s_max) {
        Ok(most) => most,
        Err(wait) => return Ok(SendOutcome::After(wait)),
    };
    let sending = send_from(state, log, from, most, limits.wall, wake);
    let sent = *sending.as_ref().unwrap_or(&0);
    limits.quota.refund(most - sent.min(most));
    Ok(if sending? == 0 { SendOutcome::Nothing } else { SendOutcome::Pending })
}

/// Appends up to `most` events from number `from` on, and returns how many.
fn send_from(
    state: &mut ShardState,
    log: &dyn Log,
    from: u64,
    most: usize,
    wall: Timestamp,
    wake: impl FnOnce() + Send + 'static,
) -> Result<usize, StoreError> {
    let records = state.buffer.store().scan(Space::Outbox, &unsent_from(from), most, false)?;
    let mut first = from;
    let source = format!("lantern/{}", state.id.projection);
    let (mut events, mut next) = (Events::new(), from);
    for (key, value) in records {
        let record = decode(&value)?;
        let number = key.as_slice().try_into().map_or(next, u64::from_be_bytes);
        if events.is_empty() {
            first = number;
        } else if number != next {
            // One in between was refused: numbers of an append have no gaps.
            break;
        }
        let latest = wall.saturating_add(AHEAD_MAX_US);
        let mut extensions = serde_json::Map::new();
        extensions.insert(DEPTH_EXTENSION.into(), record.event.depth.into());
        if let Some(traceparent) = record.traceparent {
            extensions.insert("traceparent".into(), traceparent.into());
        }
        let extensions = serde_json::Value::from(extensions).to_string();
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
        // The last ones were refused.
        state.outbox.sent.lock().done = state.meta.outbox_next;
        return Ok(0);
    }
    let sent = state.outbox.sent.clone();
    sent.lock().under_way = Some(next);
    let emitted = Emitted {
        outbox: format!("{}/{}/{}", state.outbox.name, state.meta.outbox_of, state.id.partition),
        partition: state.id.partition,
        first,
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
                    Err(LogError::Rejected { index, reason, .. }) => {
                        sent.refused = Some((first + index as u64, reason.to_string()));
                    }
                    Err(error) => sent.failed = Some(error.to_string()),
                }
            }
            wake();
        }),
    );
    Ok(count)
}

/// How many emitted events the log has not taken.
pub(crate) fn unsent(state: &ShardState) -> u64 {
    state.meta.outbox_next.saturating_sub(state.outbox.sent.lock().done)
}

/// Whether emitted events wait to be sent or to be removed.
pub(crate) fn has_outbox(state: &ShardState) -> bool {
    state.outbox.first < state.meta.outbox_next
}

/// The events in the outbox, applied or committed, in order.
pub(crate) fn emitted_events(state: &ShardState) -> Result<Vec<OutboxEvent>, StoreError> {
    let pairs = state.buffer.store().scan(Space::Outbox, &unsent_from(0), usize::MAX, false)?;
    pairs.into_iter().map(|(_, value)| decode(&value).map(|record| record.event)).collect()
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

    /// The record of an event.
    #[must_use]
    pub fn encode_outbox(id: &str, event: OutboxEvent, traceparent: Option<String>) -> Vec<u8> {
        let record = OutboxRecord { id: id.into(), event, traceparent, refused: String::new() };
        postcard::to_stdvec(&record).expect("strings and numbers always encode")
    }
}
