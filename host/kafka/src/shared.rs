//! Holds the state of each partition, which readers, cursors and the watcher share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lantern_core::{
    LogError, LogRead, Offset, PartitionBounds, PartitionId, Timestamp, TypeFilter, Waker,
};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::client::ClientReport;
use crate::config::KafkaConfig;
use crate::partitions::TopicPartition;
use crate::read_buffer::{BufferLookup, ReadBuffer};
use crate::topic_settings::TopicSettings;

/// The minimum memory of one cursor for one partition, in bytes.
const CACHE_LEAST: usize = 256 << 10;
/// The minimum time that a cursor stays at an offset before another reader may move it.
const QUANTUM: Duration = Duration::from_millis(50);
/// The age at which the bounds of a partition no longer count as known.
const FRESH: Duration = Duration::from_secs(10);

/// A signal that wakes a thread.
#[derive(Default)]
pub(crate) struct ThreadSignal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl ThreadSignal {
    pub(crate) fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// Waits until the signal is set, but at most `timeout`. Then clears the signal.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.changed.wait_for(&mut raised, timeout);
        }
        *raised = false;
    }
}

/// State that several threads use.
pub(crate) struct Shared {
    pub(crate) config: KafkaConfig,
    pub(crate) parts: Vec<Partition>,
    /// The memory of one cursor for one partition, in bytes.
    pub(crate) cache_bytes: usize,
    /// The signal of each cursor.
    pub(crate) cursors: Vec<Arc<ThreadSignal>>,
    /// The partitions whose bounds the watcher must query now.
    pub(crate) bounds_requests: Mutex<Vec<u32>>,
    pub(crate) watcher: ThreadSignal,
    pub(crate) closed: AtomicBool,
    pub(crate) report: Arc<ClientReport>,
    /// The known settings of the topics.
    settings: RwLock<HashMap<String, TopicSettings>>,
    /// Partitions that were added to topics since the start. They are read after the next start.
    pub(crate) unread: Mutex<Vec<TopicPartition>>,
    /// Whether the ingest topic was recreated. If so, the events that were sent before are not in
    /// it.
    pub(crate) recreated: AtomicBool,
    wakers: RwLock<Vec<Waker>>,
}

/// A partition of a topic, as it is read.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) topic_partition: TopicPartition,
    pub(crate) state: Mutex<PartitionState>,
    changed: Condvar,
}

/// What is known about a partition.
#[derive(Default)]
pub(crate) struct PartitionState {
    /// The start and the end, as the broker last reported them. The end is higher than reported if
    /// later records were read since then.
    pub(crate) bounds: Option<(u64, u64)>,
    /// The end that the broker last reported. No more records will appear before it, not even
    /// records of a transaction that is still open.
    pub(crate) stable: u64,
    /// The time when the broker last reported the bounds.
    answered_at: Option<Instant>,
    /// Whether the bounds must be queried again before the next read, for instance because the
    /// offset of a cursor no longer exists.
    pub(crate) doubtful: bool,
    /// Whether a reader has requested an offset after the end. If so, the end must be queried
    /// again.
    past_end: bool,
    /// Why the broker does not have this partition; `None` if it has it.
    pub(crate) missing: Option<String>,
    /// The id that the broker has given to the topic, if it is known.
    pub(crate) topic_id: Option<Arc<str>>,
    max_time: Timestamp,
    /// The buffer of each cursor.
    pub(crate) buffers: Vec<ReadBuffer>,
    /// Whether a reader waits for a cursor.
    pub(crate) starving: bool,
    /// Whether a reader got [`LogRead::Pending`] since the bounds were last queried. The next
    /// answer of the broker then wakes all such readers, so none of them waits forever.
    pub(crate) waited_for: bool,
}

impl Shared {
    pub(crate) fn new(
        config: KafkaConfig,
        partitions: &[TopicPartition],
        report: Arc<ClientReport>,
    ) -> Self {
        let cursors = config.cursors as usize;
        let parts = (0..).zip(partitions).map(|(number, partition)| Partition {
            id: PartitionId(number),
            topic_partition: partition.clone(),
            state: Mutex::new(PartitionState {
                max_time: Timestamp::MIN,
                buffers: (0..cursors).map(|_| ReadBuffer::default()).collect(),
                ..PartitionState::default()
            }),
            changed: Condvar::new(),
        });
        Self {
            cache_bytes: (config.cache_bytes / (partitions.len().max(1) * cursors))
                .max(CACHE_LEAST),
            parts: parts.collect(),
            cursors: (0..cursors).map(|_| Arc::default()).collect(),
            bounds_requests: Mutex::default(),
            watcher: ThreadSignal::default(),
            closed: AtomicBool::new(false),
            report,
            settings: RwLock::default(),
            unread: Mutex::default(),
            recreated: AtomicBool::new(false),
            wakers: RwLock::default(),
            config,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns the known settings of `topic`.
    pub(crate) fn settings(&self, topic: &str) -> TopicSettings {
        self.settings.read().get(topic).cloned().unwrap_or_default()
    }

    /// Stores the settings that the broker has reported for topics.
    pub(crate) fn set_topic_settings(&self, settings: HashMap<String, TopicSettings>) {
        self.settings.write().extend(settings);
    }

    pub(crate) fn part(&self, partition: PartitionId) -> Result<&Partition, LogError> {
        self.parts.get(partition.0 as usize).ok_or(LogError::NoPartition(partition))
    }

    /// Returns the partition `partition` of the topic `topic`; `None` if the log does not read it.
    pub(crate) fn part_at(&self, topic: &str, partition: i32) -> Option<&Partition> {
        let there = |part: &&Partition| {
            *part.topic_partition.topic == *topic && part.topic_partition.partition == partition
        };
        self.parts.iter().find(there)
    }

    pub(crate) fn add_waker(&self, waker: Waker) {
        self.wakers.write().push(waker);
    }

    /// Wakes all readers that wait for `part`. The caller must not hold the lock of `part`.
    pub(crate) fn wake(&self, part: &Partition) {
        part.changed.notify_all();
        for waker in self.wakers.read().iter() {
            waker(part.id, None);
        }
    }

    /// Asks the watcher to query the bounds of `part` soon.
    pub(crate) fn want_bounds(&self, part: &Partition) {
        let mut wanted = self.bounds_requests.lock();
        if !wanted.contains(&part.id.0) {
            wanted.push(part.id.0);
        }
        drop(wanted);
        self.watcher.raise();
    }

    pub(crate) fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        let part = self.part(partition)?;
        let state = part.state.lock();
        if let Some(missing) = &state.missing {
            return Err(LogError::Unavailable(missing.clone().into()));
        }
        let fresh = self.bounds_age_max();
        match (state.bounds, state.answered_at) {
            (Some((start, end)), Some(answered_at)) if answered_at.elapsed() < fresh => {
                Ok(PartitionBounds {
                    start: Offset(start),
                    end: Offset(end),
                    max_time: state.max_time,
                })
            }
            (_, answered_at) => Err(LogError::Unavailable(
                self.unavailable_message(answered_at.map(|answered_at| answered_at.elapsed()))
                    .into(),
            )),
        }
    }

    /// Returns the reason why nothing can be written now, if the broker has answered before and
    /// does not answer any more. `None` otherwise.
    pub(crate) fn is_away(&self) -> Option<String> {
        let part =
            self.parts.iter().find(|p| *p.topic_partition.topic == *self.config.ingest_topic())?;
        let answered_at = part.state.lock().answered_at?;
        (answered_at.elapsed() >= self.bounds_age_max())
            .then(|| self.unavailable_message(Some(answered_at.elapsed())))
    }

    /// Returns how long the bounds of a partition count as known.
    fn bounds_age_max(&self) -> Duration {
        FRESH.max(Duration::from_millis(self.config.refresh_ms * 5))
    }

    /// Returns the message that the broker does not answer.
    pub(crate) fn unavailable_message(&self, since: Option<Duration>) -> String {
        let why = self.report.last().map_or_else(String::new, |why| format!(": {why}"));
        match since {
            Some(since) => format!("Kafka has not answered for {} s{why}", since.as_secs()),
            None => format!("Kafka has not answered yet{why}"),
        }
    }

    pub(crate) fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        types: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        if self.is_closed() {
            return Err(LogError::Closed);
        }
        let part = self.part(partition)?;
        let mut state = part.state.lock();
        let (read, then) = state.read(partition, from.0, types, Instant::now())?;
        state.waited_for |= matches!(read, LogRead::Pending);
        for (buffer, cursor) in state.buffers.iter_mut().zip(&self.cursors) {
            if buffer.has_room_again(self.cache_bytes) {
                cursor.raise();
            }
        }
        drop(state);
        self.act_after_read(part, then);
        Ok(read)
    }

    fn act_after_read(&self, part: &Partition, then: AfterRead) {
        match then {
            AfterRead::Nothing => {}
            AfterRead::Bounds => self.want_bounds(part),
            AfterRead::Cursor(number) => self.cursors[number].raise(),
        }
    }

    /// Waits as [`lantern_core::Log::wait`] describes.
    pub(crate) fn wait(&self, partition: PartitionId, from: Offset, timeout: Duration) {
        let Ok(part) = self.part(partition) else { return };
        let everything = TypeFilter::everything();
        let until = Instant::now() + timeout;
        let mut state = part.state.lock();
        loop {
            match state.read(partition, from.0, &everything, Instant::now()) {
                Ok((LogRead::Pending, then)) if !self.is_closed() => {
                    self.act_after_read(part, then)
                }
                _ => return,
            }
            if part.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

/// The thread that must do something after a read.
enum AfterRead {
    Nothing,
    /// The watcher must query the bounds of the partition.
    Bounds,
    /// The cursor with this number must move to another offset.
    Cursor(usize),
}

impl PartitionState {
    /// Returns what a reader at the offset `from` gets, and what another thread must do for this
    /// reader.
    fn read(
        &mut self,
        partition: PartitionId,
        from: u64,
        types: &TypeFilter,
        now: Instant,
    ) -> Result<(LogRead, AfterRead), LogError> {
        if let Some(missing) = &self.missing {
            return Err(LogError::Unavailable(missing.clone().into()));
        }
        let Some((start, end)) = self.bounds.filter(|_| !self.doubtful) else {
            // If the bounds are not known, it is not known whether `from` is within them.
            return Ok((LogRead::Pending, AfterRead::Bounds));
        };
        if from < start {
            let (from, start) = (Offset(from), Offset(start));
            return Err(LogError::OutOfRange { partition, from, start });
        }
        if from > end {
            if self.past_end {
                let (from, end) = (Offset(from), Offset(end));
                return Err(LogError::Lost { partition, from, end });
            }
            // [`LogError::Lost`] is the worst fault of a log. So it is returned only if a second
            // answer of the broker confirms that the log ends before `from`.
            (self.past_end, self.doubtful) = (true, true);
            return Ok((LogRead::Pending, AfterRead::Bounds));
        }
        self.past_end = false;
        if let Some(read) = self.held(from, end, types, now) {
            return Ok((read, AfterRead::Nothing));
        }
        Ok((
            LogRead::Pending,
            self.move_cursor(from, now).map_or(AfterRead::Nothing, AfterRead::Cursor),
        ))
    }

    /// Reads from the buffers. If two buffers have reached the same offset, both cursors would read
    /// the same records from there on, so one of the two is closed. The buffer that contains more
    /// stays open, because a slow reader may still need its chunks.
    fn held(&mut self, from: u64, end: u64, types: &TypeFilter, now: Instant) -> Option<LogRead> {
        let (mut found, mut at_next) = (None, Vec::new());
        for (number, buffer) in self.buffers.iter_mut().enumerate() {
            match buffer.held(from, types, now) {
                BufferLookup::Chunk(chunk) if found.is_none() => {
                    found = Some((number, LogRead::Chunk(chunk)));
                }
                BufferLookup::Skipped(next) if found.is_none() => {
                    found = Some((number, LogRead::Skipped { next: Offset(next) }));
                }
                BufferLookup::Next => at_next.push(number),
                _ => {}
            }
        }
        let base = |number: usize| self.buffers[number].base();
        let most = at_next.iter().copied().min_by_key(|&number| base(number));
        let chosen = found.as_ref().map(|(number, _)| *number).or(most)?;
        let chosen_base = base(chosen);
        let at_end = self.buffers[chosen].at_end;
        for number in at_next {
            if number != chosen && self.buffers[number].base() >= chosen_base {
                self.buffers[number].close();
                // A reader may wait for a cursor. Only this flag wakes it.
                self.starving = true;
            }
        }
        let read = found.map(|(_, read)| read);
        Some(read.unwrap_or(if at_end && from >= end { LogRead::End } else { LogRead::Pending }))
    }

    /// Moves a cursor to the offset `from`: a free cursor, or the one that was not used for the
    /// longest time. The cursor with the highest offset is never moved, because it follows new
    /// events.
    fn move_cursor(&mut self, from: u64, now: Instant) -> Option<usize> {
        // Only one cursor is protected. If several cursors are at the end, the others can be moved.
        let open = self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.open);
        let furthest = open.max_by_key(|(_, buffer)| (buffer.next, buffer.used)).map(|(n, _)| n);
        let mut choice = None;
        for (number, buffer) in self.buffers.iter().enumerate() {
            if !buffer.open {
                choice = Some((number, None));
                break;
            }
            if Some(number) == furthest && buffer.next > from {
                continue;
            }
            let rested = buffer.used.is_none_or(|used| now.duration_since(used) >= QUANTUM);
            if rested && choice.is_none_or(|(_, used)| buffer.used < used) {
                choice = Some((number, buffer.used));
            }
        }
        self.starving |= choice.is_none();
        let (number, _) = choice?;
        self.buffers[number].request(from, now);
        Some(number)
    }

    /// Stores the id of the topic as the broker reported it. If the id has changed, everything that
    /// was known about the previous topic is dropped, and the result is `true`.
    pub(crate) fn set_topic_id(&mut self, id: Arc<str>) -> bool {
        let other = self.topic_id.as_ref().is_some_and(|known| *known != id);
        self.topic_id = Some(id);
        if other {
            self.buffers.iter_mut().for_each(ReadBuffer::close);
            (self.bounds, self.answered_at, self.stable) = (None, None, 0);
            (self.doubtful, self.past_end) = (true, false);
            self.max_time = Timestamp::MIN;
        }
        other
    }

    /// Stores the bounds that the broker has reported. `before` is the end that was known when the
    /// broker was asked.
    pub(crate) fn set_bounds(&mut self, start: u64, end: u64, before: Option<u64>) {
        // If records were read after the broker was asked, `bounds` may contain a later end than
        // the answer. Then the later end is kept. Otherwise the answer replaces the end, even by a
        // lower one, because a recreated topic can be shorter.
        self.stable = end;
        let known = self.bounds.map(|(_, end)| end);
        let end = if known == before { end } else { end.max(known.unwrap_or(0)) };
        self.bounds = Some((start, end));
        self.answered_at = Some(Instant::now());
        (self.doubtful, self.missing) = (false, None);
    }

    /// Raises the known end to `end`. Returns whether the end has changed.
    pub(crate) fn raise_end(&mut self, end: u64) -> bool {
        match &mut self.bounds {
            Some((_, known)) if *known < end => {
                *known = end;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn set_newest_time(&mut self, newest: Timestamp) {
        self.max_time = self.max_time.max(newest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_core::{Chunk, EventRef, Events, Offsets};

    use super::*;

    fn chunk(first: u64, end: u64) -> Chunk {
        let mut events = Events::new();
        for _ in first..end {
            assert!(events.push(&EventRef { kind: "a", ..EventRef::default() }));
        }
        Chunk {
            partition: PartitionId(0),
            offsets: Offsets::Dense { first: Offset(first) },
            events,
            appended: Vec::new(),
        }
    }

    #[test]
    fn a_reader_far_behind_gets_a_cursor_where_all_stand_at_the_end() {
        let now = Instant::now();
        let at_end = |from| {
            let mut buffer = ReadBuffer::default();
            buffer.request(from, now);
            buffer.requested = None;
            buffer.push(chunk(from, 10), 10, 1 << 20);
            buffer.at_end = true;
            buffer
        };
        let mut state = PartitionState {
            bounds: Some((0, 10)),
            buffers: vec![at_end(5), at_end(7)],
            ..PartitionState::default()
        };
        let everything = TypeFilter::everything();
        let later = now + QUANTUM;
        let (read, then) = state.read(PartitionId(0), 0, &everything, later).unwrap();
        assert!(matches!(read, LogRead::Pending) && matches!(then, AfterRead::Cursor(_)));
        let partitions: Vec<_> = state.buffers.iter().map(|buffer| buffer.requested).collect();
        assert!(partitions.contains(&Some(0)) && partitions.contains(&None), "{partitions:?}");
    }

    #[test]
    fn a_reader_at_the_end_does_not_evict_chunks_of_a_slow_reader() {
        let now = Instant::now();
        let mut state = PartitionState {
            bounds: Some((0, 10)),
            buffers: vec![ReadBuffer::default(), ReadBuffer::default()],
            ..PartitionState::default()
        };
        let partition = PartitionId(0);
        let everything = TypeFilter::everything();
        let mut read = |from| state.read(partition, from, &everything, now).unwrap().0;
        // One cursor waits at the end, and another cursor is moved far back.
        assert!(matches!(read(10), LogRead::Pending));
        assert!(matches!(read(0), LogRead::Pending));
        let behind = state.buffers.iter().position(|buffer| buffer.base() == 0).unwrap();
        state.buffers.iter_mut().for_each(|buffer| buffer.requested = None);
        state.buffers[behind].push(chunk(0, 10), 10, 1 << 20);
        let mut read = |from| state.read(partition, from, &everything, now).unwrap().0;
        for from in 0..10 {
            assert!(matches!(read(10), LogRead::Pending));
            assert!(matches!(read(from), LogRead::Chunk(_)), "{from}");
        }
        assert_eq!(state.buffers.iter().filter(|buffer| buffer.open).count(), 1);
    }
}
