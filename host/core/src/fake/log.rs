//! Implements a log in memory, for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::{
    AHEAD_MAX_US, AppendDone, Appended, AppendedEvent, Chunk, Event, Events, Log, LogError,
    LogRead, Offset, Offsets, PartitionBounds, PartitionId, Timestamp, TypeFilter, Waker,
};

/// A log in memory, for tests:
///
/// * Each chunk has the number of events that the test chose.
/// * An append finishes at once, on the caller's thread.
/// * The partition of an event is a hash of its subject.
/// * An event's append time is the highest event time so far, as if each event was appended when it
///   happened. [`MemoryLog::set_append_clock`] sets another clock.
/// * Duplicates (equal tenant, `source` and `id`, with an `id` that is not empty) are found
///   regardless of their age.
/// * Events without a time get the highest time of the partition.
pub struct MemoryLog {
    chunk_events: usize,
    inner: Mutex<LogState>,
    wakers: Mutex<Vec<Waker>>,
    incarnations: Mutex<Vec<(Offset, u64)>>,
}

struct LogState {
    partitions: Vec<Partition>,
    known: HashMap<(String, String, String), (AppendedEvent, Event)>,
    /// Appends that wait until the test releases them; `None` if appends are executed at once.
    held: Option<Vec<HeldAppend>>,
    read_faults: VecDeque<LogError>,
    append_faults: VecDeque<LogError>,
    clock: AppendClock,
    closed: bool,
}

/// An append that waits, with the partition if the caller has chosen it.
type HeldAppend = (Events, Option<PartitionId>, AppendDone);

/// The source of the append times in a [`MemoryLog`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendClock {
    /// The append time is the highest event time so far.
    #[default]
    Events,
    /// The append time is always this time.
    At(Timestamp),
    /// The append time is unknown, as in a Kafka topic of type `CreateTime`.
    Unknown,
}

#[derive(Default)]
struct Partition {
    id: PartitionId,
    chunks: Vec<Arc<Chunk>>,
    tail: Vec<(u64, Timestamp, Event)>,
    start: u64,
    end: u64,
    max_time: Option<Timestamp>,
}

impl MemoryLog {
    /// Returns an empty log of `partitions` partitions and chunks of `chunk_events` events (at
    /// least 1).
    #[must_use]
    pub fn new(partitions: u32, chunk_events: usize) -> Self {
        let inner = LogState {
            partitions: (0..partitions).map(PartitionId).map(Partition::new).collect(),
            known: HashMap::new(),
            held: None,
            read_faults: VecDeque::new(),
            append_faults: VecDeque::new(),
            clock: AppendClock::default(),
            closed: false,
        };
        Self {
            chunk_events: chunk_events.max(1),
            inner: Mutex::new(inner),
            wakers: Mutex::new(Vec::new()),
            incarnations: Mutex::new(Vec::new()),
        }
    }

    /// Appends `events` to `partition`, regardless of their subjects.
    ///
    /// # Panics
    /// Panics if there is no such partition.
    pub fn append_to(&self, partition: PartitionId, events: impl IntoIterator<Item = Event>) {
        {
            let mut inner = lock(&self.inner);
            for event in events {
                inner.append(partition.0 as usize, event, self.chunk_events);
            }
        }
        self.wake([(partition, None)]);
    }

    /// Sets the clock for the append times of later events.
    pub fn set_append_clock(&self, clock: AppendClock) {
        lock(&self.inner).clock = clock;
    }

    /// Skips `count` offsets at the end of `partition`, so that there is a gap, as in a compacted
    /// Kafka topic.
    ///
    /// # Panics
    /// Panics if there is no such partition.
    pub fn skip_offsets(&self, partition: PartitionId, count: u64) {
        lock(&self.inner).partitions[partition.0 as usize].end += count;
    }

    /// Deletes the events before `start`, as retention does.
    ///
    /// # Panics
    /// Panics if there is no such partition.
    pub fn retain_from(&self, partition: PartitionId, start: Offset) {
        let mut inner = lock(&self.inner);
        let partition = &mut inner.partitions[partition.0 as usize];
        partition.start = start.0.min(partition.end);
    }

    /// Sets, for all partitions, which incarnation wrote the events from each of the given offsets
    /// on.
    pub fn set_incarnations(&self, incarnations: &[(Offset, u64)]) {
        *lock(&self.incarnations) = incarnations.to_vec();
    }

    /// Begins another incarnation, as if the log was closed and opened again. All later events
    /// belong to it.
    pub fn begin_incarnation(&self) {
        let end = lock(&self.inner).partitions.iter().map(|partition| partition.end).max();
        let mut incarnations = lock(&self.incarnations);
        let number = incarnations.len() as u64 + 1;
        incarnations.push((Offset(end.unwrap_or_default()), number));
    }

    /// Makes a later `read` fail with `error`. If this is called several times, the errors apply to
    /// consecutive reads.
    pub fn fail_next_read(&self, error: LogError) {
        lock(&self.inner).read_faults.push_back(error);
    }

    /// Makes the next append fail with `error` and append nothing. If this is called several
    /// times, the errors apply to consecutive appends.
    pub fn fail_next_append(&self, error: LogError) {
        lock(&self.inner).append_faults.push_back(error);
    }

    /// Returns the number of appends that will still fail.
    #[must_use]
    pub fn append_faults(&self) -> usize {
        lock(&self.inner).append_faults.len()
    }

    /// Makes all later appends wait until the test calls [`MemoryLog::release_appends`].
    pub fn hold_appends(&self) {
        lock(&self.inner).held.get_or_insert_default();
    }

    /// Executes the waiting appends in order. Later appends do not wait.
    pub fn release_appends(&self) {
        let held = lock(&self.inner).held.take();
        for (events, to, done) in held.unwrap_or_default() {
            self.append_or_hold(events, to, done);
        }
    }

    /// Returns all events of `partition`, with their offsets.
    ///
    /// # Panics
    /// Panics if there is no such partition.
    #[must_use]
    pub fn events(&self, partition: PartitionId) -> Vec<(Offset, Event)> {
        let inner = lock(&self.inner);
        let partition = &inner.partitions[partition.0 as usize];
        let mut events = Vec::new();
        for chunk in partition.all_chunks() {
            let of_chunk = chunk.events.iter().enumerate();
            events.extend(of_chunk.map(|(i, event)| (chunk.offset(i), event.to_owned())));
        }
        events
    }

    /// Returns the append time of each event of `partition`, in order.
    ///
    /// # Panics
    /// Panics if there is no such partition.
    #[must_use]
    pub fn append_times(&self, partition: PartitionId) -> Vec<Timestamp> {
        let inner = lock(&self.inner);
        let chunks = inner.partitions[partition.0 as usize].all_chunks();
        chunks.flat_map(|chunk| chunk.appended.clone()).collect()
    }

    /// Appends `events` to the partition `to`. Without `to`, each event goes to the partition of
    /// its subject. After [`MemoryLog::hold_appends`] the events wait. The append fails if the test
    /// has set an error, or if the log is closed.
    pub(super) fn append_or_hold(&self, events: Events, to: Option<PartitionId>, done: AppendDone) {
        let mut inner = lock(&self.inner);
        if inner.closed {
            drop(inner);
            return done(Err(LogError::Closed));
        }
        if let Some(Err(error)) = to.map(|to| inner.partition(to).map(|_| ())) {
            drop(inner);
            return done(Err(error));
        }
        if let Some(held) = &mut inner.held {
            held.push((events, to, done));
            return;
        }
        if let Some(fault) = inner.append_faults.pop_front() {
            drop(inner);
            return done(Err(fault));
        }
        let mut appended = Appended::default();
        for event in events.iter() {
            let partition =
                to.map_or_else(|| inner.partition_of(event.subject), |to| to.0 as usize);
            appended.events.push(inner.append(partition, event.to_owned(), self.chunk_events));
        }
        drop(inner);
        let mut woken = BTreeMap::<_, BTreeSet<String>>::new();
        for (location, event) in appended.events.iter().zip(events.iter()) {
            if !location.duplicate {
                woken.entry(location.partition).or_default().insert(event.kind.to_owned());
            }
        }
        done(Ok(appended));
        let woken = woken.into_iter();
        self.wake(woken.map(|(partition, types)| (partition, Some(types.into_iter().collect()))));
    }

    /// Makes all later appends fail.
    pub(super) fn refuse_appends(&self) {
        lock(&self.inner).closed = true;
    }

    fn wake(&self, partitions: impl IntoIterator<Item = (PartitionId, Option<Vec<String>>)>) {
        let wakers = lock(&self.wakers).clone();
        for (partition, types) in partitions {
            for waker in &wakers {
                waker(partition, types.as_deref());
            }
        }
    }
}

impl Log for MemoryLog {
    fn partitions(&self) -> u32 {
        u32::try_from(lock(&self.inner).partitions.len()).expect("made of a u32")
    }

    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        lock(&self.inner).partition(partition).map(|p| PartitionBounds {
            start: Offset(p.start),
            end: Offset(p.end),
            max_time: p.max_time.unwrap_or(Timestamp::MIN),
        })
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        types: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        let mut inner = lock(&self.inner);
        if let Some(fault) = inner.read_faults.pop_front() {
            return Err(fault);
        }
        let log = inner.partition(partition)?;
        if from.0 < log.start {
            return Err(LogError::OutOfRange { partition, from, start: Offset(log.start) });
        }
        for chunk in log.all_chunks() {
            let ahead = chunk.index_of(from)..chunk.events.len();
            if ahead.into_iter().any(|i| types.matches(chunk.events.kind(i))) {
                return Ok(LogRead::Chunk(chunk));
            }
        }
        let end = Offset(log.end);
        Ok(if from < end { LogRead::Skipped { next: end } } else { LogRead::End })
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError> {
        let inner = lock(&self.inner);
        let log = inner.partition(partition)?;
        for chunk in log.all_chunks() {
            let found = chunk.appended.iter().position(|&t| t >= time);
            if let Some(index) = found {
                return Ok(chunk.offset(index));
            }
        }
        Ok(Offset(log.end))
    }

    fn append(&self, events: Events, done: AppendDone) {
        self.append_or_hold(events, None, done);
    }

    fn incarnation_at(&self, _partition: PartitionId, offset: Offset) -> Option<u64> {
        let incarnations = lock(&self.incarnations);
        incarnations.iter().rev().find(|(start, _)| *start < offset).map(|(_, is)| *is)
    }

    fn on_append(&self, waker: Waker) {
        lock(&self.wakers).push(waker);
    }
}

impl LogState {
    fn partition(&self, partition: PartitionId) -> Result<&Partition, LogError> {
        self.partitions.get(partition.0 as usize).ok_or(LogError::NoPartition(partition))
    }

    /// Returns the partition of a subject. It is the same in every run, because it is an FNV-1a
    /// hash.
    fn partition_of(&self, subject: &str) -> usize {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = subject.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        let count = self.partitions.len().max(1) as u64;
        usize::try_from(hash % count).expect("less than the number of partitions")
    }

    fn append(&mut self, partition: usize, event: Event, chunk_events: usize) -> AppendedEvent {
        let name = (event.tenant.clone(), event.source.clone(), event.id.clone());
        if let Some((first, as_sent)) = self.known.get(&name) {
            let differs = as_sent.data != event.data;
            return AppendedEvent { duplicate: true, differs, ..*first };
        }
        let as_sent = event.clone();
        let clock = self.clock;
        let partition = &mut self.partitions[partition];
        let offset = partition.push(event, clock, chunk_events);
        let appended =
            AppendedEvent { partition: partition.id, offset, duplicate: false, differs: false };
        if !name.2.is_empty() {
            self.known.insert(name, (appended, as_sent));
        }
        appended
    }
}

impl Partition {
    fn new(id: PartitionId) -> Self {
        Self { id, ..Self::default() }
    }

    fn push(&mut self, mut event: Event, clock: AppendClock, chunk_events: usize) -> Offset {
        if event.time == Timestamp::MIN {
            event.time = self.max_time.unwrap_or_default();
        }
        let newest = self.max_time.unwrap_or(Timestamp::MIN).max(event.time);
        let (appended, counts) = match clock {
            AppendClock::Events => (newest, true),
            AppendClock::At(now) => (now, event.time.0 <= now.0.saturating_add(AHEAD_MAX_US)),
            AppendClock::Unknown => (Timestamp::MIN, true),
        };
        if counts {
            self.max_time = Some(newest);
        }
        let offset = self.end;
        self.tail.push((offset, appended, event));
        self.end += 1;
        if self.tail.len() >= chunk_events {
            self.chunks.push(Arc::new(chunk(self.id, &mem::take(&mut self.tail))));
        }
        Offset(offset)
    }

    fn all_chunks(&self) -> impl Iterator<Item = Arc<Chunk>> {
        let tail = (!self.tail.is_empty()).then(|| Arc::new(chunk(self.id, &self.tail)));
        self.chunks.iter().cloned().chain(tail)
    }
}

fn chunk(partition: PartitionId, tail: &[(u64, Timestamp, Event)]) -> Chunk {
    let mut events = Events::new();
    for (_, _, event) in tail {
        assert!(events.push(&event.as_ref()), "a chunk has fewer types than events");
    }
    let first = tail.first().map_or(0, |(offset, ..)| *offset);
    let dense = (first..).zip(tail).all(|(expected, (offset, ..))| expected == *offset);
    let offsets = if dense {
        Offsets::Dense { first: Offset(first) }
    } else {
        Offsets::Sparse(tail.iter().map(|(offset, ..)| *offset).collect())
    };
    let appended = tail.iter().map(|(_, appended, _)| *appended).collect();
    Chunk { partition, offsets, events, appended }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn event(id: &str, kind: &str, time: i64) -> Event {
        Event {
            id: id.into(),
            kind: kind.into(),
            subject: id.into(),
            time: Timestamp(time),
            ..Event::default()
        }
    }

    fn only(kind: &str) -> TypeFilter {
        TypeFilter::new(&[kind.to_owned()])
    }

    #[test]
    fn chunks_without_events_of_the_types_are_skipped_up_to_the_end() {
        let log = MemoryLog::new(2, 2);
        let one = PartitionId(1);
        log.append_to(one, []);
        log.append_to(one, [event("1", "a", 1), event("2", "a", 2), event("3", "b", 3)]);
        log.skip_offsets(one, 4);
        log.append_to(one, [event("4", "a", 4), event("5", "a", 5)]);
        let LogRead::Chunk(found) = log.read(one, Offset(0), &only("b")).unwrap() else {
            panic!("there is one");
        };
        assert_eq!((found.partition, &found.offsets), (one, &Offsets::Sparse(vec![2, 7])));
        let past = log.read(one, Offset(3), &only("b")).unwrap();
        assert!(matches!(past, LogRead::Skipped { next: Offset(9) }));
        assert!(matches!(log.read(one, Offset(9), &only("b")).unwrap(), LogRead::End));
        assert_eq!(log.offset_at(one, Timestamp(4)).unwrap(), Offset(7));
        assert_eq!(log.bounds(one).unwrap().max_time, Timestamp(5));
        log.retain_from(one, Offset(2));
        assert!(matches!(
            log.read(one, Offset(1), &only("a")),
            Err(LogError::OutOfRange { start: Offset(2), .. })
        ));
        assert!(log.read(PartitionId(2), Offset(0), &only("a")).is_err());
    }

    #[test]
    fn appends_find_duplicates_wake_and_can_be_held_or_failed() {
        let log = MemoryLog::new(1, 10);
        let (woken, wakes) = mpsc::channel();
        log.on_append(Arc::new(move |partition, _| woken.send(partition).unwrap()));
        let append = |ids: &[&str]| {
            let mut events = Events::new();
            ids.iter().for_each(|id| assert!(events.push(&event(id, "a", 1).as_ref())));
            let (done, outcome) = mpsc::channel();
            log.append(events, Box::new(move |result| done.send(result).unwrap()));
            outcome
        };
        let locations = |appended: Appended| -> Vec<_> {
            appended.events.iter().map(|e| (e.offset.0, e.duplicate)).collect()
        };
        let first = append(&["1", "2", "1"]).recv().unwrap().unwrap();
        assert_eq!(locations(first), [(0, false), (1, false), (0, true)]);
        assert_eq!(wakes.try_iter().count(), 1);
        log.hold_appends();
        let held = append(&["3"]);
        assert!(held.try_recv().is_err());
        log.release_appends();
        assert_eq!(locations(held.recv().unwrap().unwrap()), [(2, false)]);
        log.fail_next_append(LogError::Closed);
        assert!(append(&["4"]).recv().unwrap().is_err());
        assert_eq!(log.events(PartitionId(0)).len(), 3);
    }
}
