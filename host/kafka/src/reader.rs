//! Implements a cursor, which is a thread with a consumer of its own. It reads each partition from
//! the offset that its buffer requests, and converts records to columns.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lantern_core::{AHEAD_MAX_US, Chunk, Events, Offset, Offsets, Timestamp, UNREADABLE_TYPE};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, append_time, is_gone, time_of};
use crate::librdkafka::{Record, RecordQueue};
use crate::record::RawRecord;
use crate::record_decoding::{DecodedRecord, Decoder};
use crate::shared::{Partition, Shared};

/// The maximum number of records that are read from one partition before the next partition is
/// read.
const RECORDS_TURN: usize = 16_384;
/// The minimum and the maximum of the target size of a chunk, in bytes.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = (32 << 10)..=(1 << 20);
/// The maximum pause between two polls of the client.
const IDLE: Duration = Duration::from_millis(100);
/// The maximum time for a seek.
const SEEK: Duration = Duration::from_secs(10);

/// If a cursor receives nothing for this time although the broker has more records, it seeks its
/// offset again. With each such attempt the time is doubled: the client may have to read many
/// aborted transactions, whose records it does not return, and each seek makes it begin again.
const STUCK: Duration = Duration::from_secs(5);
/// The maximum number of times that this time is doubled.
const STUCK_DOUBLINGS_MAX: u32 = 7;

/// Starts the cursor with the number `number`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    number: usize,
    consumer: Arc<BaseConsumer<Context>>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(format!("kafka-read-{number}")).spawn(move || {
        let assignments = shared.parts.iter().map(|_| CursorAssignment::default()).collect();
        let decoder = Decoder::new(&shared.config);
        let share = shared.cache_bytes / 4;
        let chunk_bytes = share.clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end());
        Cursor { shared, number, consumer, assignments, decoder, chunk_bytes }.run();
    })
}

struct Cursor {
    shared: Arc<Shared>,
    number: usize,
    consumer: Arc<BaseConsumer<Context>>,
    assignments: Vec<CursorAssignment>,
    decoder: Decoder,
    chunk_bytes: usize,
}

/// What a cursor knows about one partition.
#[derive(Default)]
struct CursorAssignment {
    queue: Option<RecordQueue>,
    assigned: bool,
    events: Events,
    offsets: Vec<u64>,
    /// The time at which the broker appended each event; [`Timestamp::MIN`] if it is not known.
    appended: Vec<Timestamp>,
    /// The offset of the next record: all records before it were read.
    next: u64,
    /// The time when the last record arrived, or when this offset was assigned to the cursor.
    moved: Option<Instant>,
    /// The number of times that the cursor has sought its offset again since the last record.
    replaced: u32,
    /// An offset up to which the cursor reads once more, to check that no more records come before
    /// it. `None` if there is nothing to check.
    confirming: Option<u64>,
}

impl CursorAssignment {
    /// Drops the records that were not passed to the buffer, read or still in the queue.
    fn clear(&mut self) {
        self.events.clear();
        self.offsets.clear();
        self.appended.clear();
        self.queue.iter_mut().for_each(RecordQueue::clear);
    }

    /// Notes that a record arrived.
    fn record_activity(&mut self, now: Instant) {
        (self.moved, self.replaced) = (Some(now), 0);
    }
}

/// Returns how long a cursor waits for a record before it seeks its offset again.
fn patience(replaced: u32) -> Duration {
    STUCK * 2_u32.pow(replaced.min(STUCK_DOUBLINGS_MAX))
}

/// Why a cursor stopped reading a partition.
enum TurnResult {
    /// There is no record now.
    Empty,
    /// There may be more records.
    More,
    /// The cursor has reached the end of the partition.
    End,
    /// The client has reported an error.
    Fault(KafkaError),
}

impl Cursor {
    fn run(mut self) {
        while !self.shared.is_closed() {
            // This drops events of the client itself, which are not needed.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            let mut busy = false;
            for number in 0..self.assignments.len() {
                busy |= self.turn(number);
            }
            if !busy {
                self.shared.cursors[self.number].wait(IDLE);
            }
        }
    }

    /// Reads one partition for a while. Returns whether there may be more to do.
    fn turn(&mut self, number: usize) -> bool {
        let shared = Arc::clone(&self.shared);
        let part = &shared.parts[number];
        let (requested, open, full, starving, doubted, end) = {
            let mut state = part.state.lock();
            let starving = std::mem::take(&mut state.starving);
            let (stable, end) = (state.stable, state.bounds.map_or(0, |(_, end)| end));
            let buffer = &mut state.buffers[self.number];
            let doubted = std::mem::take(&mut buffer.doubted).then_some(stable);
            (buffer.requested.take(), buffer.open, buffer.full, starving, doubted, end)
        };
        if starving {
            // Readers that wait for a cursor try again until one is free.
            shared.wake(part);
        }
        if let Some(from) = requested {
            if let Err(error) = self.assign(part, number, from) {
                self.fail_cursor(part, number, &error);
                return false;
            }
        } else if !open {
            self.unassign(part, number);
            return false;
        }
        if full || !self.assignments[number].assigned {
            return false;
        }
        if self.is_stuck(number, end) {
            let next = self.assignments[number].next;
            self.assignments[number].replaced += 1;
            tracing::info!(partition = %part.topic_partition, next, end, "a Kafka cursor received no records and is started again at its offset");
            metrics::counter!("lantern_log_cursors_replaced_total").increment(1);
            self.unassign(part, number);
            if let Err(error) = self.assign(part, number, next) {
                self.fail_cursor(part, number, &error);
                return false;
            }
        }
        let assignment = &self.assignments[number];
        if let Some(stable) = doubted
            && assignment.confirming.is_none()
            && assignment.offsets.is_empty()
            && assignment.next < stable
        {
            self.confirm(part, number, stable);
        }
        let (taken, now) = (self.take(part, number), Instant::now());
        match taken {
            TurnResult::Empty => {
                self.finish_chunk(part, number, false);
                false
            }
            TurnResult::More => {
                self.assignments[number].record_activity(now);
                true
            }
            TurnResult::End => {
                self.assignments[number].record_activity(now);
                self.end(part, number);
                true
            }
            TurnResult::Fault(error) => {
                self.finish_chunk(part, number, false);
                self.fault(part, number, &error)
            }
        }
    }

    /// Returns whether no records arrive although the partition continues up to `end`.
    fn is_stuck(&self, number: usize, end: u64) -> bool {
        let assignment = &self.assignments[number];
        let patience = patience(assignment.replaced);
        assignment.next < end && assignment.moved.is_some_and(|moved| moved.elapsed() > patience)
    }

    /// Moves the cursor to the offset `from`.
    fn assign(&mut self, part: &Partition, number: usize, from: u64) -> KafkaResult<()> {
        let offset = KafkaOffset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        let (topic, partition) = (&*part.topic_partition.topic, part.topic_partition.partition);
        let assignment = &mut self.assignments[number];
        assignment.clear();
        (assignment.next, assignment.confirming, assignment.moved) =
            (from, None, Some(Instant::now()));
        if assignment.assigned {
            return self.consumer.seek(topic, partition, offset, SEEK);
        }
        if assignment.queue.is_none() {
            let signal = Arc::clone(&self.shared.cursors[self.number]);
            let queue = RecordQueue::new(&self.consumer, topic, partition, move || signal.raise());
            let unknown = KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition);
            assignment.queue = Some(queue.ok_or(unknown)?);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, offset)?;
        self.consumer.incremental_assign(&list)?;
        assignment.assigned = true;
        Ok(())
    }

    /// Stops reading the partition.
    fn unassign(&mut self, part: &Partition, number: usize) {
        let assignment = &mut self.assignments[number];
        if !std::mem::take(&mut assignment.assigned) {
            return;
        }
        assignment.clear();
        let mut list = TopicPartitionList::new();
        list.add_partition(&part.topic_partition.topic, part.topic_partition.partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(%error, partition = %part.topic_partition, "a Kafka cursor could not be removed from a partition");
        }
    }

    /// Reads the records of the partition that have arrived.
    fn take(&mut self, part: &Partition, number: usize) -> TurnResult {
        let Some(mut queue) = self.assignments[number].queue.take() else {
            return TurnResult::Empty;
        };
        let result = self.take_from(&mut queue, part, number);
        self.assignments[number].queue = Some(queue);
        result
    }

    fn take_from(
        &mut self,
        queue: &mut RecordQueue,
        part: &Partition,
        number: usize,
    ) -> TurnResult {
        for _ in 0..RECORDS_TURN {
            let Some(record) = queue.take() else { return TurnResult::Empty };
            match record.error() {
                None => {}
                Some(RDKafkaErrorCode::PartitionEOF) => return TurnResult::End,
                Some(code) => return TurnResult::Fault(KafkaError::MessageConsumption(code)),
            }
            let offset = u64::try_from(record.offset()).unwrap_or(0);
            let assignment = &mut self.assignments[number];
            if offset < assignment.next {
                // A compressed batch can begin before the requested offset. Records before that
                // offset are skipped.
                continue;
            }
            let decoder = &mut self.decoder;
            let mut decoded = decode(decoder, part, offset, &record, &mut assignment.events);
            if decoded == DecodedRecord::Full {
                // The chunk has no room for another event type, so the next chunk begins with this
                // record.
                self.finish_chunk(part, number, true);
                let events = &mut self.assignments[number].events;
                decoded = decode(&mut self.decoder, part, offset, &record, events);
            }
            let assignment = &mut self.assignments[number];
            assignment.next = offset + 1;
            // A record without a value leaves a gap, as if compaction had removed it.
            if decoded != DecodedRecord::Tombstone {
                assignment.offsets.push(offset);
                assignment.appended.push(append_time(record.time()));
            }
            let many = assignment.offsets.len() >= self.shared.config.chunk_events_max as usize;
            if (many || assignment.events.bytes() >= self.chunk_bytes)
                && self.finish_chunk(part, number, false)
            {
                return TurnResult::Empty;
            }
        }
        TurnResult::More
    }

    /// Passes the records that were read to the buffer, as a chunk. Returns whether the cursor must
    /// stop reading: the buffer is full or closed, or was moved to another offset.
    fn finish_chunk(&mut self, part: &Partition, number: usize, quiet: bool) -> bool {
        let assignment = &mut self.assignments[number];
        if assignment.offsets.is_empty() {
            return self.skip_gap(part, number, quiet);
        }
        assignment.record_activity(Instant::now());
        let (events, offsets) =
            (std::mem::take(&mut assignment.events), std::mem::take(&mut assignment.offsets));
        let appended = std::mem::take(&mut assignment.appended);
        let newest = newest(&events, &appended, now());
        let dense =
            offsets.last().is_some_and(|last| last - offsets[0] + 1 == offsets.len() as u64);
        let offsets = if dense {
            Offsets::Dense { first: Offset(offsets[0]) }
        } else {
            Offsets::Sparse(offsets)
        };
        let chunk = Chunk { partition: part.id, offsets, events, appended };
        let (next, limit) = (assignment.next, self.shared.cache_bytes);
        let mut state = part.state.lock();
        state.raise_end(next);
        state.set_newest_time(newest);
        let buffer = &mut state.buffers[self.number];
        // If the buffer was moved to another offset in the meantime, this chunk is not needed.
        let wanted = buffer.open && buffer.requested.is_none();
        if wanted {
            buffer.push(chunk, next, limit);
            self.assignments[number].events = buffer.take_spare();
        }
        let full = !wanted || buffer.full;
        drop(state);
        if !quiet {
            self.shared.wake(part);
        }
        full
    }

    /// Moves the buffer past tombstones that were read after the last event. Returns whether the
    /// buffer is closed or was moved to another offset.
    fn skip_gap(&mut self, part: &Partition, number: usize, quiet: bool) -> bool {
        let next = self.assignments[number].next;
        let mut state = part.state.lock();
        let buffer = &mut state.buffers[self.number];
        let wanted = buffer.open && buffer.requested.is_none();
        let news = wanted && buffer.next < next;
        if news {
            buffer.pass(next);
            state.raise_end(next);
        }
        drop(state);
        if news {
            self.assignments[number].record_activity(Instant::now());
        }
        if news && !quiet {
            self.shared.wake(part);
        }
        !wanted
    }

    /// Handles that the client has reached the end of the partition. The end that the broker last
    /// reported may be later, for two reasons:
    ///
    /// * The offsets in between are transaction markers.
    /// * The broker answered the client's request before it reported its end.
    ///
    /// So the cursor reads once more from the same offset. It then gets either the missing records,
    /// or an end that is certainly not before the reported one.
    fn end(&mut self, part: &Partition, number: usize) {
        self.finish_chunk(part, number, true);
        let assignment = &mut self.assignments[number];
        let mut state = part.state.lock();
        let stable = state.stable;
        let buffer = &mut state.buffers[self.number];
        if !buffer.open || buffer.requested.is_some() {
            return;
        }
        if let Some(sure) = assignment.confirming.take() {
            assignment.next = assignment.next.max(sure);
            buffer.pass(assignment.next);
        }
        buffer.at_end = true;
        let next = assignment.next;
        drop(state);
        if next < stable {
            self.confirm(part, number, stable);
        } else {
            // The partition may have more records than are known.
            self.shared.want_bounds(part);
        }
        self.shared.wake(part);
    }

    fn confirm(&mut self, part: &Partition, number: usize, end: u64) {
        let assignment = &mut self.assignments[number];
        // An end that was reported before the seek proves nothing.
        assignment.queue.iter_mut().for_each(RecordQueue::clear);
        let offset = KafkaOffset::Offset(i64::try_from(assignment.next).unwrap_or(i64::MAX));
        match self.consumer.seek(
            &part.topic_partition.topic,
            part.topic_partition.partition,
            offset,
            SEEK,
        ) {
            Ok(()) => assignment.confirming = Some(end),
            Err(error) => self.fail_cursor(part, number, &error),
        }
    }

    /// Handles an error of the partition. Returns whether reading continues.
    fn fault(&mut self, part: &Partition, number: usize, error: &KafkaError) -> bool {
        let KafkaError::MessageConsumption(code) = error else {
            tracing::debug!(%error, partition = %part.topic_partition, "a cursor got an error from the client");
            return true;
        };
        let lost = matches!(
            code,
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation
        );
        if lost || is_gone(*code) || *code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.fail_cursor(part, number, error);
            return false;
        }
        // The library tries again by itself.
        tracing::debug!(%error, partition = %part.topic_partition, "a cursor got an error from the client");
        true
    }

    /// Stops reading the partition, because the cursor's offset no longer exists or cannot be read.
    /// The bounds of the partition must then be queried again.
    fn fail_cursor(&mut self, part: &Partition, number: usize, error: &KafkaError) {
        tracing::info!(%error, partition = %part.topic_partition, "a Kafka cursor cannot read its offset any more");
        self.unassign(part, number);
        let mut state = part.state.lock();
        if state.buffers[self.number].requested.is_none() {
            state.buffers[self.number].close();
        }
        state.doubtful = true;
        if let KafkaError::MessageConsumption(code) = error
            && (is_gone(*code) || *code == RDKafkaErrorCode::TopicAuthorizationFailed)
        {
            state.missing = Some(format!("{}: {code}", part.topic_partition));
        }
        drop(state);
        self.shared.want_bounds(part);
        self.shared.wake(part);
    }
}

/// Decodes a record and adds it to `events`. Counts unusual records.
fn decode(
    decoder: &mut Decoder,
    part: &Partition,
    offset: u64,
    record: &Record<'_>,
    events: &mut Events,
) -> DecodedRecord {
    let raw = RawRecord {
        topic: &part.topic_partition.topic,
        partition: part.topic_partition.partition,
        offset,
        time: time_of(record.time()),
        key: record.key(),
        payload: record.payload(),
        headers: &record.headers(),
    };
    let decoded = decoder.read(&raw, events);
    match &decoded {
        DecodedRecord::Unreadable(reason) => {
            metrics::counter!("lantern_log_unreadable_total").increment(1);
            tracing::debug!(partition = %part.topic_partition, offset, reason, "a record is not an event");
        }
        DecodedRecord::Tombstone => metrics::counter!("lantern_log_tombstones_total").increment(1),
        DecodedRecord::Event | DecodedRecord::Full => {}
    }
    match decoder.take_ignored() {
        0 => {}
        count => {
            metrics::counter!("lantern_log_attributes_ignored_total").increment(count);
            tracing::debug!(
                partition = %part.topic_partition, offset, count, "attributes of a record were dropped"
            );
        }
    }
    decoded
}

/// Returns the highest event time among `events`. It leaves out unreadable records, and events that
/// are too far ahead of their append time. If an append time is not known, the event is compared
/// with `now`.
fn newest(events: &Events, appended: &[Timestamp], now: Timestamp) -> Timestamp {
    let unreadable = events.type_names().iter().position(|kind| kind == UNREADABLE_TYPE);
    let times = events.times().iter().zip(events.types()).zip(appended);
    let counted = times.filter(|((time, kind), appended)| {
        let at = if **appended == Timestamp::MIN { now } else { **appended };
        Some(usize::from(**kind)) != unreadable && time.0 <= at.0.saturating_add(AHEAD_MAX_US)
    });
    counted.map(|((time, _), _)| *time).max().unwrap_or(Timestamp::MIN)
}

/// Returns the current time.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use lantern_core::EventRef;

    use super::*;

    #[test]
    fn a_cursor_that_gets_nothing_is_more_patient_each_time() {
        assert_eq!(patience(0), STUCK);
        assert!((0..7).all(|replaced| patience(replaced + 1) == patience(replaced) * 2));
        assert_eq!(patience(u32::MAX), STUCK * 128);
    }

    #[test]
    fn the_newest_time_is_that_of_an_event_that_is_not_ahead_of_its_append() {
        let mut events = Events::new();
        let at = |s: i64| Timestamp(s * 1_000_000);
        for (kind, time) in [("a", at(5)), ("a", at(2_000)), ("a", at(900)), ("a", at(3_000))] {
            events.push(&EventRef { kind, time, ..EventRef::default() });
        }
        events.push(&EventRef { kind: UNREADABLE_TYPE, time: at(100), ..EventRef::default() });
        let unknown = Timestamp::MIN;
        let appended = [at(10), at(10), unknown, unknown, at(100)];
        assert_eq!(newest(&events, &appended, at(850)), at(900));
        assert_eq!(newest(&events, &appended, at(800)), at(5));
        assert_eq!(newest(&Events::new(), &[], at(1)), Timestamp::MIN);
    }
}
