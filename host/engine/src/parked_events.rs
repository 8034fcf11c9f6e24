//! Manages the parked events of a shard. This module adds, removes, counts and reads their records.
//! It also knows the subjects with parked events, whose later events must wait.

use lantern_core::{
    ApplyError, Event, KeyRange, Offset, OnFailure, Pairs, ParkedKind, ParkedRecord, ReadStore,
    ShardMeta, ShardStore, Space, StoreError, UNREADABLE_TYPE,
};

use crate::EngineConfig;
use crate::batching::claimed_type;
use crate::blocked_subjects::{self, BlockedSubjects};
use crate::stop_reason::StopReason;
use crate::write_buffer::WriteBuffer;

/// The number of parked events that are read at once.
const PAGE: usize = 256;

/// The maximum number of unreadable records of unknown type that a shard keeps parked. Further ones
/// are only counted. This is not a setting, because a verification must use the same value.
pub(crate) const UNREADABLE_KEPT_MAX: u64 = 10_000;

/// The parked events of one shard.
pub(crate) struct Parking {
    on_failure: OnFailure,
    blocked: BlockedSubjects,
    /// The number of events parked since the last event that was applied.
    in_a_row: u64,
}

impl Parking {
    /// Reads the parked events in `store`.
    pub(crate) fn open(store: &dyn ReadStore, on_failure: OnFailure) -> Result<Self, StoreError> {
        Ok(Self { on_failure, blocked: BlockedSubjects::open(store)?, in_a_row: 0 })
    }

    /// Returns the subjects whose later events wait.
    pub(crate) fn blocked(&self) -> &BlockedSubjects {
        &self.blocked
    }

    /// Returns whether later events of the record's tenant and subject wait until the record is
    /// retried or dropped. No event waits for an unreadable record, whose subject is unknown, or
    /// for a timer, which has no subject.
    pub(crate) fn blocks(&self, record: &ParkedRecord) -> bool {
        self.on_failure == OnFailure::ParkSubject
            && !matches!(record.kind, ParkedKind::Timer(..))
            && record.event.kind != UNREADABLE_TYPE
            && !record.event.subject.is_empty()
    }

    /// Stores `record` as parked, and counts it.
    pub(crate) fn add(
        &mut self,
        record: &ParkedRecord,
        meta: &mut ShardMeta,
        buffer: &mut WriteBuffer,
    ) {
        let timer = matches!(record.kind, ParkedKind::Timer(..));
        // Several timers can have the same offset. The number makes their keys distinct.
        let number = if timer { meta.timers_fired } else { 0 };
        let by_offset = parked_key(record.offset, number);
        buffer.set(Space::Parked, &by_offset, Some(&record.encode()));
        meta.parked_total += 1;
        meta.parked_now += 1;
        meta.waiting_now += u64::from(record.kind == ParkedKind::Waiting);
        meta.unreadable_now += u64::from(is_of_unknown_type(&record.event));
        if self.blocks(record) {
            let Event { tenant, subject, .. } = &record.event;
            let count = self.blocked.count(tenant, subject) + 1;
            self.set_blocked(tenant, subject, count, buffer);
        }
    }

    /// Removes the record under `key`.
    pub(crate) fn remove(
        &mut self,
        key: &[u8],
        record: &ParkedRecord,
        meta: &mut ShardMeta,
        buffer: &mut WriteBuffer,
    ) {
        buffer.set(Space::Parked, key, None);
        meta.parked_now = meta.parked_now.saturating_sub(1);
        let unreadable = u64::from(is_of_unknown_type(&record.event));
        meta.unreadable_now = meta.unreadable_now.saturating_sub(unreadable);
        if record.kind == ParkedKind::Waiting {
            meta.waiting_now = meta.waiting_now.saturating_sub(1);
        }
        if self.blocks(record) {
            let Event { tenant, subject, .. } = &record.event;
            let left = self.blocked.count(tenant, subject).saturating_sub(1);
            self.set_blocked(tenant, subject, left, buffer);
        }
    }

    fn set_blocked(&mut self, tenant: &str, subject: &str, count: u64, buffer: &mut WriteBuffer) {
        self.blocked.set(tenant, subject, count);
        let value = (count > 0).then(|| count.to_be_bytes());
        let value = value.as_ref().map(<[u8; 8]>::as_slice);
        buffer.set(Space::ParkedSubjects, &blocked_subjects::key(tenant, subject), value);
    }

    /// Resets the number of consecutive failures to 0. This is called when an event was applied,
    /// and when an operator resumed the projection.
    pub(crate) fn end_row(&mut self) {
        self.in_a_row = 0;
    }

    /// Returns the number of events parked since the last event that was applied.
    pub(crate) fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// Counts a failure of the projection.
    ///
    /// # Errors
    /// Returns [`StopReason::Halt`] if there were too many failures in a row.
    pub(crate) fn count_failure(
        &mut self,
        reason: &str,
        config: &EngineConfig,
    ) -> Result<(), StopReason> {
        if self.in_a_row >= config.parked_in_a_row_max {
            return Err(StopReason::Halt(format!(
                "{} events in a row could not be applied (`engine.parked_in_a_row_max`); the last reason: {reason}",
                config.parked_in_a_row_max
            )));
        }
        self.in_a_row += 1;
        Ok(())
    }
}

/// Returns whether `event` is an unreadable record of unknown type, which may belong to any
/// projection.
pub(crate) fn is_of_unknown_type(event: &Event) -> bool {
    event.kind == UNREADABLE_TYPE && claimed_type(&event.extensions).is_none()
}

/// Returns how many parked events are counted for the limit `engine.parked_max`.
pub(crate) fn counted(meta: &ShardMeta) -> u64 {
    meta.parked_now.saturating_sub(meta.unreadable_now)
}

/// Checks that another event may be parked.
///
/// # Errors
/// Returns [`StopReason::Halt`] if too many events are parked.
pub(crate) fn check_room(meta: &ShardMeta, config: &EngineConfig) -> Result<(), StopReason> {
    if counted(meta) >= config.parked_max {
        return Err(StopReason::Halt(format!(
            "{} events are parked (`engine.parked_max`): retry or drop them, then resume",
            config.parked_max
        )));
    }
    Ok(())
}

/// Notes that a retry of the record under `key` has failed.
pub(crate) fn note_failed_again(
    key: &[u8],
    record: &mut ParkedRecord,
    error: &ApplyError,
    meta: &mut ShardMeta,
    buffer: &mut WriteBuffer,
) {
    (record.reason, record.backtrace) = explain(error);
    record.attempts += 1;
    if record.kind == ParkedKind::Waiting {
        meta.waiting_now = meta.waiting_now.saturating_sub(1);
        record.kind = ParkedKind::Event;
    }
    buffer.set(Space::Parked, key, Some(&record.encode()));
}

/// Returns the reason and the backtrace of an error, as text.
pub(crate) fn explain(error: &ApplyError) -> (String, String) {
    match error {
        ApplyError::Trapped { message, backtrace, .. } => (message.clone(), backtrace.clone()),
        other => (other.to_string(), String::new()),
    }
}

/// Reads a page of parked records with their keys, from the key `from` on, including changes that
/// are not committed yet. Moves `from` to the key after the page. An empty page means that there
/// are no more records.
pub(crate) fn parked_page(
    buffer: &WriteBuffer,
    from: &mut Vec<u8>,
) -> Result<Vec<(Vec<u8>, ParkedRecord)>, StoreError> {
    let range = KeyRange { start: from.clone(), end: None };
    decode_page(buffer.scan(Space::Parked, &range, PAGE, false)?, from)
}

/// Reads like [`parked_page`], but only the committed records in `store`, at most `limit`.
pub(crate) fn committed_page(
    store: &dyn ShardStore,
    from: &mut Vec<u8>,
    limit: usize,
) -> Result<Vec<(Vec<u8>, ParkedRecord)>, StoreError> {
    let range = KeyRange { start: from.clone(), end: None };
    decode_page(store.scan(Space::Parked, &range, limit, false)?, from)
}

fn decode_page(
    pairs: Pairs,
    from: &mut Vec<u8>,
) -> Result<Vec<(Vec<u8>, ParkedRecord)>, StoreError> {
    if let Some((last, _)) = pairs.last() {
        *from = after(last);
    }
    pairs.into_iter().map(decode_parked).collect()
}

fn decode_parked((key, value): (Vec<u8>, Vec<u8>)) -> Result<(Vec<u8>, ParkedRecord), StoreError> {
    match ParkedRecord::decode(&value) {
        Some(record) => Ok((key, record)),
        None => Err(StoreError::Damaged("a parked event".into())),
    }
}

/// Returns the first key after `key`.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Reads the record of the event at `offset`; `None` if the event is not parked.
pub(crate) fn parked_event(
    store: &dyn ReadStore,
    offset: Offset,
) -> Result<Option<ParkedRecord>, StoreError> {
    let key = parked_key(offset, 0);
    let Some(value) = store.get(Space::Parked, &key)? else { return Ok(None) };
    decode_parked((key, value)).map(|(_, record)| Some(record))
}

/// The key of a parked event or timer in [`Space::Parked`].
fn parked_key(offset: Offset, number: u64) -> Vec<u8> {
    [offset.0.to_be_bytes(), number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lantern_core::fake::MemoryShard;

    use super::*;

    fn record(offset: u64, kind: ParkedKind, subject: &str) -> ParkedRecord {
        let event = Event { subject: subject.into(), ..Event::default() };
        let offset = lantern_core::Offset(offset);
        let watermark = lantern_core::Timestamp::MIN;
        let (reason, backtrace) = (String::new(), String::new());
        ParkedRecord { kind, offset, watermark, event, reason, backtrace, attempts: 0 }
    }

    #[test]
    fn a_subject_is_blocked_until_the_last_of_its_events_is_removed() {
        let store = Arc::new(MemoryShard::default());
        let mut parking = Parking::open(&*store, OnFailure::ParkSubject).unwrap();
        let (mut meta, mut buffer) = (ShardMeta::default(), WriteBuffer::new(store));
        let failed = record(1, ParkedKind::Event, "s");
        let waiting = record(2, ParkedKind::Waiting, "s");
        parking.add(&failed, &mut meta, &mut buffer);
        parking.add(&waiting, &mut meta, &mut buffer);
        assert_eq!((meta.parked_now, meta.waiting_now, meta.parked_total), (2, 1, 2));
        parking.remove(b"1", &failed, &mut meta, &mut buffer);
        assert!(parking.blocked().contains("", "s"));
        parking.remove(b"2", &waiting, &mut meta, &mut buffer);
        assert!(parking.blocked().is_empty());
        assert_eq!((meta.parked_now, meta.waiting_now, meta.parked_total), (0, 0, 2));
    }

    #[test]
    fn failures_halt_only_if_none_is_applied_in_between() {
        let store = Arc::new(MemoryShard::default());
        let mut parking = Parking::open(&*store, OnFailure::ParkEvent).unwrap();
        let config = EngineConfig { parked_in_a_row_max: 2, ..EngineConfig::default() };
        for _ in 0..3 {
            parking.count_failure("bad", &config).unwrap();
            parking.count_failure("bad", &config).unwrap();
            parking.end_row();
        }
        parking.count_failure("bad", &config).unwrap();
        parking.count_failure("bad", &config).unwrap();
        let halted = parking.count_failure("bad", &config).unwrap_err();
        assert!(matches!(halted, StopReason::Halt(reason) if reason.contains("2 events in a row")));
    }
}
