//! Writes emitted events into a shard's outbox, and appends them to the log.

use std::cmp::Ordering;
use std::time::Duration;

use lantern_core::{
    DEPTH_EXTENSION, Emitted, EventRef, Events, Log, LogError, Offset, OnFailure, OutboxEvent,
    Space, StoreError, Timestamp,
};

use crate::ParkedSelection;
use crate::emit_quota::EmitQuota;
use crate::outbox::{OutboxRecord, REFUSED_FIRST, decode, encode, refused_range, unsent_from};
use crate::state::ShardState;
use crate::stop_reason::{Fault, StopReason};

/// The maximum number of emitted events in one append.
const APPEND_EVENTS_MAX: usize = 1_000;
/// How far ahead of the clock an emitted event's time may be, in microseconds.
const AHEAD_MAX_US: i64 = 86_400_000_000;

/// The maximum number of emitted events that are kept for the comparison of a verification.
const KEPT_MAX: usize = 1_000;

/// The result of an attempt to send emitted events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// There is nothing to send.
    Nothing,
    /// An append is pending. The log's answer wakes the shard.
    Pending,
    /// There are events to send, but not before this time has passed.
    After(Duration),
}

/// What limits the sending of emitted events.
pub(crate) struct SendLimits<'a> {
    /// The monotonic time, for waits.
    pub(crate) now: Duration,
    /// The current time of day.
    pub(crate) wall: Timestamp,
    /// The projection's quota for emitted events.
    pub(crate) quota: &'a EmitQuota,
}

/// Returns how many of the events that the plugin emits for the next event are in the log already,
/// because the version emitted them before a rebuild: all (`u64::MAX`) or none (0).
pub(crate) fn sent_by_events(state: &ShardState) -> u64 {
    if state.meta.next < state.outbox.emit_from.events { u64::MAX } else { 0 }
}

/// Returns how many of the events that timers emit at the next offset are already in the log,
/// because the version emitted them before a rebuild.
pub(crate) fn sent_by_timers(state: &ShardState) -> u64 {
    let (from, meta) = (state.outbox.emit_from, &state.meta);
    match meta.next.cmp(&from.timers) {
        Ordering::Less => u64::MAX,
        Ordering::Equal => from.timers_emitted.saturating_sub(meta.tick_emitted),
        Ordering::Greater => 0,
    }
}

/// Numbers the emitted events. If this version is active, adds them to the outbox, each with the
/// trace of the event that caused it. The first `sent` of them are not added, because they were
/// appended to the log before a rebuild.
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

/// Removes from the outbox the events that are now in the log. If the log refuses an event
/// permanently, this event is moved to the refused events.
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

/// Sets aside an event that the log refuses, so that the events after it can be sent.
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
        partition = %state.id.partition, id = record.id, reason, "the log has refused an emitted event"
    );
    state.buffer.set(Space::Outbox, &key, None);
    let key = (number | REFUSED_FIRST).to_be_bytes();
    state.buffer.set(Space::Outbox, &key, Some(&encode(&record)));
    state.meta.refused_now += 1;
    Ok(())
}

/// Sends the selected refused events again, or drops them. Returns the number of these events.
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

/// Appends to the log the emitted events that are committed and not sent yet. `wake` is called when
/// the log has answered. After each failure in a row, the wait before the next try is longer.
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
            "emitted events could not be appended; the engine tries again"
        );
        metrics::counter!(
            "lantern_engine_faults_total", "projection" => state.id.projection.clone()
        )
        .increment(1);
    }
    let from = {
        let sent = state.outbox.sent.lock();
        if sent.pending.is_some() {
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

/// Appends up to `most` events from the number `from` on. Returns the number of events appended.
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
            // The event before this one was refused. An append must contain consecutive numbers, so
            // it ends here.
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
        // All remaining events were refused, so there is nothing left to send.
        state.outbox.sent.lock().done = state.meta.outbox_next;
        return Ok(0);
    }
    let sent = state.outbox.sent.clone();
    sent.lock().pending = Some(next);
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
                sent.pending = None;
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

/// Returns the number of emitted events that still have to be appended to the log.
pub(crate) fn unsent(state: &ShardState) -> u64 {
    state.meta.outbox_next.saturating_sub(state.outbox.sent.lock().done)
}

/// Returns whether there are emitted events to send, or sent events to remove.
pub(crate) fn has_outbox(state: &ShardState) -> bool {
    state.outbox.first < state.meta.outbox_next
}

/// Returns the committed events in the outbox, in order, without those that the log has refused.
pub(crate) fn emitted_events(state: &ShardState) -> Result<Vec<OutboxEvent>, StoreError> {
    let pairs = state.buffer.store().scan(Space::Outbox, &unsent_from(0), usize::MAX, false)?;
    pairs.into_iter().map(|(_, value)| decode(&value).map(|record| record.event)).collect()
}

/// Reads the trace (W3C Trace Context) to which an event belongs from its extension attributes.
pub(crate) fn traceparent(extensions: &str) -> Option<String> {
    if extensions.is_empty() {
        return None;
    }
    let extensions: serde_json::Value = serde_json::from_str(extensions).ok()?;
    extensions.get("traceparent")?.as_str().map(str::to_owned)
}
