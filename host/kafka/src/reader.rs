//! A cursor: a consumer with a thread of its own. It reads each partition from the
//! offset that its stream requests, and turns records into columns.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lantern_core::{AHEAD_MAX_US, Chunk, Events, Offset, Offsets, Timestamp, UNREADABLE_TYPE};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, append_time, is_gone, time_of};
use crate::record::{Decoded, Decoder, Raw};
use crate::shared::{Part, Shared};

/// The most records read from one partition before it is the next one's turn.
const RECORDS_TURN: usize = 16_384;
/// Least and most target size of a chunk.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = (32 << 10)..=(1 << 20);
/// The longest pause between two polls of the client.
const IDLE: Duration = Duration::from_millis(100);
/// How long a seek may take.
const SEEK: Duration = Duration::from_secs(10);

/// If a cursor receives nothing for this time although the broker has more, it seeks to
/// its offset again. The time doubles with every such attempt: the client may have to
/// read many aborted transactions, of which it returns nothing, and each seek would make
/// it start over.
const STUCK: Duration = Duration::from_secs(5);
/// How often that time doubles.
const STUCK_DOUBLINGS_MAX: u32 = 7;

/// Starts cursor `number`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    number: usize,
    consumer: Arc<BaseConsumer<Context>>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(format!("kafka-read-{number}")).spawn(move || {
        let lanes = shared.parts.iter().map(|_| Lane::default()).collect();
        let decoder = Decoder::new(&shared.config);
        let piece = shared.cache_bytes / 4;
        let piece_bytes = piece.clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
        Cursor { shared, number, consumer, lanes, decoder, piece_bytes }.run();
    })
}

struct Cursor {
    shared: Arc<Shared>,
    number: usize,
    consumer: Arc<BaseConsumer<Context>>,
    lanes: Vec<Lane>,
    decoder: Decoder,
    piece_bytes: usize,
}

/// One partition of a cursor.
#[derive(Default)]
struct Lane {
    queue: Option<PartitionQueue<Context>>,
    assigned: bool,
    events: Events,
    offsets: Vec<u64>,
    /// When the broker appended each event; [`Timestamp::MIN`] if that is unknown.
    appended: Vec<Timestamp>,
    /// All records before this offset have been read.
    next: u64,
    /// When the last record arrived, or the cursor was assigned this offset.
    moved: Option<Instant>,
    /// How often the cursor has sought its offset again since the last record.
    replaced: u32,
    /// If set: the cursor reads once more to confirm that no record remains before this
    /// offset.
    confirming: Option<u64>,
}

impl Lane {
    /// Notes that a record arrived.
    fn come(&mut self, now: Instant) {
        (self.moved, self.replaced) = (Some(now), 0);
    }
}

/// How long a cursor waits for a record before it seeks its offset again.
fn patience(replaced: u32) -> Duration {
    STUCK * 2_u32.pow(replaced.min(STUCK_DOUBLINGS_MAX))
}

/// How reading from a partition ended.
enum Taken {
    /// No record is available now.
    Empty,
    /// There may be more.
    More,
    /// The partition's end was reached.
    End,
    /// The client reported an error.
    Fault(KafkaError),
}

impl Cursor {
    fn run(mut self) {
        while !self.shared.is_closed() {
            // Events of the client as a whole, which are not needed here.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            let mut busy = false;
            for number in 0..self.lanes.len() {
                busy |= self.turn(number);
            }
            if !busy {
                self.shared.cursors[self.number].wait(IDLE);
            }
        }
    }

    /// Serves one partition. Returns whether there may be more to do.
    fn turn(&mut self, number: usize) -> bool {
        let shared = Arc::clone(&self.shared);
        let part = &shared.parts[number];
        let (asked, open, full, starving, doubted, end) = {
            let mut state = part.state.lock();
            let starving = std::mem::take(&mut state.starving);
            let (stable, end) = (state.stable, state.bounds.map_or(0, |(_, end)| end));
            let stream = &mut state.streams[self.number];
            let doubted = std::mem::take(&mut stream.doubted).then_some(stable);
            (stream.asked.take(), stream.open, stream.full, starving, doubted, end)
        };
        if starving {
            // Readers that wait for a cursor ask again until one is free.
            shared.wake(part);
        }
        if let Some(from) = asked {
            if let Err(error) = self.place(part, number, from) {
                self.lose(part, number, &error);
                return false;
            }
        } else if !open {
            self.leave(part, number);
            return false;
        }
        if full || !self.lanes[number].assigned {
            return false;
        }
        if self.is_stuck(number, end) {
            let next = self.lanes[number].next;
            self.lanes[number].replaced += 1;
            tracing::info!(partition = %part.place, next, end, "a cursor received nothing and restarts at its offset");
            metrics::counter!("lantern_log_cursors_replaced_total").increment(1);
            self.leave(part, number);
            if let Err(error) = self.place(part, number, next) {
                self.lose(part, number, &error);
                return false;
            }
        }
        let lane = &self.lanes[number];
        if let Some(stable) = doubted
            && lane.confirming.is_none()
            && lane.offsets.is_empty()
            && lane.next < stable
        {
            self.confirm(part, number, stable);
        }
        let (taken, now) = (self.take(part, number), Instant::now());
        match taken {
            Taken::Empty => {
                self.seal(part, number, false);
                false
            }
            Taken::More => {
                self.lanes[number].come(now);
                true
            }
            Taken::End => {
                self.lanes[number].come(now);
                self.end(part, number);
                true
            }
            Taken::Fault(error) => {
                self.seal(part, number, false);
                self.fault(part, number, &error)
            }
        }
    }

    /// Whether records have stopped arriving although the partition continues to `end`.
    fn is_stuck(&self, number: usize, end: u64) -> bool {
        let lane = &self.lanes[number];
        let patience = patience(lane.replaced);
        lane.next < end && lane.moved.is_some_and(|moved| moved.elapsed() > patience)
    }

    /// Moves the cursor to `from`.
    fn place(&mut self, part: &Part, number: usize, from: u64) -> KafkaResult<()> {
        let offset = KafkaOffset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        let (topic, partition) = (&*part.place.topic, part.place.partition);
        let lane = &mut self.lanes[number];
        lane.events = Events::new();
        lane.offsets.clear();
        lane.appended.clear();
        (lane.next, lane.confirming, lane.moved) = (from, None, Some(Instant::now()));
        if lane.assigned {
            return self.consumer.seek(topic, partition, offset, SEEK);
        }
        if lane.queue.is_none() {
            let mut queue = self
                .consumer
                .split_partition_queue(topic, partition)
                .ok_or(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition))?;
            let signal = Arc::clone(&self.shared.cursors[self.number]);
            queue.set_nonempty_callback(move || signal.raise());
            lane.queue = Some(queue);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, offset)?;
        self.consumer.incremental_assign(&list)?;
        lane.assigned = true;
        Ok(())
    }

    /// Stops reading the partition.
    fn leave(&mut self, part: &Part, number: usize) {
        let lane = &mut self.lanes[number];
        if !std::mem::take(&mut lane.assigned) {
            return;
        }
        lane.events = Events::new();
        lane.offsets.clear();
        lane.appended.clear();
        let mut list = TopicPartitionList::new();
        list.add_partition(&part.place.topic, part.place.partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(%error, partition = %part.place, "a cursor could not leave");
        }
    }

    /// Reads the records that have arrived.
    fn take(&mut self, part: &Part, number: usize) -> Taken {
        for _ in 0..RECORDS_TURN {
            let lane = &mut self.lanes[number];
            let Some(queue) = &lane.queue else { return Taken::Empty };
            let message = match queue.poll(Duration::ZERO) {
                None => return Taken::Empty,
                Some(Err(KafkaError::PartitionEOF(_))) => return Taken::End,
                Some(Err(error)) => return Taken::Fault(error),
                Some(Ok(message)) => message,
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            if offset < lane.next {
                // A compressed batch can begin before the requested offset.
                continue;
            }
            let appended = append_time(message.timestamp());
            let mut decoded = decode(&mut self.decoder, part, offset, &message, &mut lane.events);
            let again = (decoded == Decoded::Full).then(|| message.detach());
            drop(message);
            if let Some(message) = again {
                // The chunk has no room for another event type: this record begins the next.
                self.seal(part, number, true);
                let lane = &mut self.lanes[number];
                decoded = decode(&mut self.decoder, part, offset, &message, &mut lane.events);
            }
            let lane = &mut self.lanes[number];
            lane.next = offset + 1;
            // A record without a value leaves a gap, as if it had been compacted away.
            if decoded != Decoded::Tombstone {
                lane.offsets.push(offset);
                lane.appended.push(appended);
            }
            let many = lane.offsets.len() >= self.shared.config.chunk_events_max as usize;
            if (many || lane.events.bytes() >= self.piece_bytes) && self.seal(part, number, false) {
                return Taken::Empty;
            }
        }
        Taken::More
    }

    /// Passes the read records to the stream. Returns whether the stream is then full or
    /// closed.
    fn seal(&mut self, part: &Part, number: usize, quiet: bool) -> bool {
        let lane = &mut self.lanes[number];
        if lane.offsets.is_empty() {
            return self.pass(part, number, quiet);
        }
        lane.come(Instant::now());
        let (events, offsets) =
            (std::mem::take(&mut lane.events), std::mem::take(&mut lane.offsets));
        let appended = std::mem::take(&mut lane.appended);
        let newest = newest(&events, &appended, now());
        let dense =
            offsets.last().is_some_and(|last| last - offsets[0] + 1 == offsets.len() as u64);
        let offsets = if dense {
            Offsets::Dense { first: Offset(offsets[0]) }
        } else {
            Offsets::Sparse(offsets)
        };
        let chunk = Chunk { partition: part.id, offsets, events, appended };
        let (next, limit) = (lane.next, self.shared.cache_bytes);
        let mut state = part.state.lock();
        state.tell_end(next);
        state.tell_time(newest);
        let stream = &mut state.streams[self.number];
        // If the stream was moved in the meantime, it does not need this chunk.
        let wanted = stream.open && stream.asked.is_none();
        if wanted {
            stream.push(chunk, next, limit);
        }
        let full = !wanted || stream.full;
        drop(state);
        if !quiet {
            self.shared.wake(part);
        }
        full
    }

    /// Moves the stream past tombstones that were read since the last event. Returns
    /// whether the stream is closed or was moved.
    fn pass(&mut self, part: &Part, number: usize, quiet: bool) -> bool {
        let next = self.lanes[number].next;
        let mut state = part.state.lock();
        let stream = &mut state.streams[self.number];
        let wanted = stream.open && stream.asked.is_none();
        let news = wanted && stream.next < next;
        if news {
            stream.pass(next);
            state.tell_end(next);
        }
        drop(state);
        if news {
            self.lanes[number].come(Instant::now());
        }
        if news && !quiet {
            self.shared.wake(part);
        }
        !wanted
    }

    /// Handles the partition's end. If the broker's end is further, the offsets up to it
    /// can be transaction markers, or the fetch was answered before the broker reported
    /// that end. So the cursor reads once more from here. It then gets either the
    /// missing records, or an end that is certainly not before the reported one.
    fn end(&mut self, part: &Part, number: usize) {
        self.seal(part, number, true);
        let lane = &mut self.lanes[number];
        let mut state = part.state.lock();
        let stable = state.stable;
        let stream = &mut state.streams[self.number];
        if !stream.open || stream.asked.is_some() {
            return;
        }
        if let Some(sure) = lane.confirming.take() {
            lane.next = lane.next.max(sure);
            stream.pass(lane.next);
        }
        stream.at_end = true;
        let next = lane.next;
        drop(state);
        if next < stable {
            self.confirm(part, number, stable);
        } else {
            // The partition may have more records than is known.
            self.shared.want_bounds(part);
        }
        self.shared.wake(part);
    }

    fn confirm(&mut self, part: &Part, number: usize, end: u64) {
        let lane = &mut self.lanes[number];
        let offset = KafkaOffset::Offset(i64::try_from(lane.next).unwrap_or(i64::MAX));
        match self.consumer.seek(&part.place.topic, part.place.partition, offset, SEEK) {
            Ok(()) => lane.confirming = Some(end),
            Err(error) => self.lose(part, number, &error),
        }
    }

    /// Handles an error of the partition. Returns whether reading continues.
    fn fault(&mut self, part: &Part, number: usize, error: &KafkaError) -> bool {
        let KafkaError::MessageConsumption(code) = error else {
            tracing::debug!(%error, partition = %part.place, "a cursor got an error from the client");
            return true;
        };
        let lost = matches!(
            code,
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation
        );
        if lost || is_gone(*code) || *code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.lose(part, number, error);
            return false;
        }
        // The library retries by itself.
        tracing::debug!(%error, partition = %part.place, "a cursor got an error from the client");
        true
    }

    /// The cursor's offset does not exist any more, or cannot be reached. The contents of
    /// the partition are unknown until its bounds are queried again.
    fn lose(&mut self, part: &Part, number: usize, error: &KafkaError) {
        tracing::info!(%error, partition = %part.place, "a cursor lost its offset");
        self.leave(part, number);
        let mut state = part.state.lock();
        if state.streams[self.number].asked.is_none() {
            state.streams[self.number].close();
        }
        state.doubtful = true;
        if let KafkaError::MessageConsumption(code) = error
            && (is_gone(*code) || *code == RDKafkaErrorCode::TopicAuthorizationFailed)
        {
            state.gone = Some(format!("{}: {code}", part.place));
        }
        drop(state);
        self.shared.want_bounds(part);
        self.shared.wake(part);
    }
}

/// Decodes a record, adds it to `events`, and counts unusual records.
fn decode(
    decoder: &mut Decoder,
    part: &Part,
    offset: u64,
    message: &impl Records,
    events: &mut Events,
) -> Decoded {
    let mut decoded = Decoded::Full;
    message.with(part, offset, &mut |raw| decoded = decoder.read(raw, events));
    match &decoded {
        Decoded::Unreadable(reason) => {
            metrics::counter!("lantern_log_unreadable_total").increment(1);
            tracing::debug!(partition = %part.place, offset, reason, "a record is not an event");
        }
        Decoded::Tombstone => metrics::counter!("lantern_log_tombstones_total").increment(1),
        Decoded::Event | Decoded::Full => {}
    }
    match decoder.take_ignored() {
        0 => {}
        count => {
            metrics::counter!("lantern_log_attributes_ignored_total").increment(count);
            tracing::debug!(
                partition = %part.place, offset, count, "attributes of a record were dropped"
            );
        }
    }
    decoded
}

/// A message of the library, borrowed or owned.
trait Records {
    fn with(&self, part: &Part, offset: u64, read: &mut dyn FnMut(&Raw<'_>));
}

impl Records for BorrowedMessage<'_> {
    fn with(&self, part: &Part, offset: u64, read: &mut dyn FnMut(&Raw<'_>)) {
        read(&Raw {
            topic: &part.place.topic,
            partition: part.place.partition,
            offset,
            time: time_of(self.timestamp()),
            key: self.key(),
            payload: self.payload(),
            headers: &self.headers(),
        });
    }
}

impl Records for rdkafka::message::OwnedMessage {
    fn with(&self, part: &Part, offset: u64, read: &mut dyn FnMut(&Raw<'_>)) {
        let headers = self.headers().map(rdkafka::message::OwnedHeaders::as_borrowed);
        read(&Raw {
            topic: &part.place.topic,
            partition: part.place.partition,
            offset,
            time: time_of(self.timestamp()),
            key: self.key(),
            payload: self.payload(),
            headers: &headers,
        });
    }
}

/// The highest event time that is not too far ahead of the event's append time. If the
/// append time is unknown, `now` is used instead. Unreadable records do not count.
fn newest(events: &Events, appended: &[Timestamp], now: Timestamp) -> Timestamp {
    let unreadable = events.type_names().iter().position(|kind| kind == UNREADABLE_TYPE);
    let times = events.times().iter().zip(events.types()).zip(appended);
    let counted = times.filter(|((time, kind), appended)| {
        let at = if **appended == Timestamp::MIN { now } else { **appended };
        Some(usize::from(**kind)) != unreadable && time.0 <= at.0.saturating_add(AHEAD_MAX_US)
    });
    counted.map(|((time, _), _)| *time).max().unwrap_or(Timestamp::MIN)
}

/// The current time.
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
