//! State of each partition that readers, cursors and the watcher share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lantern_core::{
    LogError, LogRead, Offset, PartitionBounds, PartitionId, Timestamp, TypeFilter, Waker,
};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::client::Said;
use crate::config::KafkaConfig;
use crate::partitions::Place;
use crate::stream::{Held, Stream};
use crate::topic_settings::TopicSettings;

/// The least memory of one cursor for one partition, in bytes.
const CACHE_LEAST: usize = 256 << 10;
/// The least time that a cursor stays at an offset before another reader may move it.
const QUANTUM: Duration = Duration::from_millis(50);
/// Bounds that are older than this count as unknown.
const FRESH: Duration = Duration::from_secs(10);

/// Wakes a thread.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// Waits until the signal is raised, at most `timeout`, and clears it.
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
    pub(crate) parts: Vec<Part>,
    /// Memory of one cursor for one partition, in bytes.
    pub(crate) cache_bytes: usize,
    /// One signal per cursor.
    pub(crate) cursors: Vec<Arc<Signal>>,
    /// Partitions whose bounds the watcher must query now.
    pub(crate) wanted: Mutex<Vec<u32>>,
    pub(crate) watcher: Signal,
    pub(crate) closed: AtomicBool,
    pub(crate) said: Arc<Said>,
    /// The topics' settings, as far as they are known.
    settings: RwLock<HashMap<String, TopicSettings>>,
    /// Added partitions of the topics, which are not read until the next start.
    pub(crate) unread: Mutex<Vec<Place>>,
    /// Whether the ingest topic was recreated, so that events sent before are not in it.
    pub(crate) remade: AtomicBool,
    wakers: RwLock<Vec<Waker>>,
}

/// A partition.
pub(crate) struct Part {
    pub(crate) id: PartitionId,
    pub(crate) place: Place,
    pub(crate) state: Mutex<State>,
    changed: Condvar,
}

/// The known state of a partition.
#[derive(Default)]
pub(crate) struct State {
    /// Start and end, as last reported by the broker. Records read since then can have
    /// raised the end.
    pub(crate) bounds: Option<(u64, u64)>,
    /// The end that the broker last reported. No record will be added before it, not even
    /// by a transaction that is still open.
    pub(crate) stable: u64,
    /// When the broker last reported the bounds.
    told: Option<Instant>,
    /// Whether the bounds must be queried again before the next read, for instance because
    /// a cursor's offset no longer exists.
    pub(crate) doubtful: bool,
    /// Whether an offset past the end was requested, so that the end is queried again.
    past_end: bool,
    /// Why the broker has no such partition.
    pub(crate) gone: Option<String>,
    /// The broker's id of the topic, if it is known.
    pub(crate) topic_id: Option<Arc<str>>,
    max_time: Timestamp,
    /// One stream per cursor.
    pub(crate) streams: Vec<Stream>,
    /// Whether a reader waits for a cursor.
    pub(crate) starving: bool,
    /// Whether a reader got [`LogRead::Pending`] since the bounds were last queried. It is
    /// woken at the next answer, so that no wait is endless.
    pub(crate) waited_for: bool,
}

impl Shared {
    pub(crate) fn new(config: KafkaConfig, places: &[Place], said: Arc<Said>) -> Self {
        let cursors = config.cursors as usize;
        let parts = (0..).zip(places).map(|(number, place)| Part {
            id: PartitionId(number),
            place: place.clone(),
            state: Mutex::new(State {
                max_time: Timestamp::MIN,
                streams: (0..cursors).map(|_| Stream::default()).collect(),
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        Self {
            cache_bytes: (config.cache_bytes / (places.len().max(1) * cursors)).max(CACHE_LEAST),
            parts: parts.collect(),
            cursors: (0..cursors).map(|_| Arc::default()).collect(),
            wanted: Mutex::default(),
            watcher: Signal::default(),
            closed: AtomicBool::new(false),
            said,
            settings: RwLock::default(),
            unread: Mutex::default(),
            remade: AtomicBool::new(false),
            wakers: RwLock::default(),
            config,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The settings of `topic`, as far as they are known.
    pub(crate) fn settings(&self, topic: &str) -> TopicSettings {
        self.settings.read().get(topic).cloned().unwrap_or_default()
    }

    /// Stores the settings of topics that the broker reported.
    pub(crate) fn tell_settings(&self, told: HashMap<String, TopicSettings>) {
        self.settings.write().extend(told);
    }

    pub(crate) fn part(&self, partition: PartitionId) -> Result<&Part, LogError> {
        self.parts.get(partition.0 as usize).ok_or(LogError::NoPartition(partition))
    }

    /// The partition with this number of `topic`; `None` if it is not read.
    pub(crate) fn part_at(&self, topic: &str, partition: i32) -> Option<&Part> {
        let there = |part: &&Part| *part.place.topic == *topic && part.place.partition == partition;
        self.parts.iter().find(there)
    }

    pub(crate) fn add_waker(&self, waker: Waker) {
        self.wakers.write().push(waker);
    }

    /// Wakes all readers that wait for `part`. The caller must not hold its lock.
    pub(crate) fn wake(&self, part: &Part) {
        part.changed.notify_all();
        for waker in self.wakers.read().iter() {
            waker(part.id, None);
        }
    }

    /// Makes the watcher query the bounds of `part` soon.
    pub(crate) fn want_bounds(&self, part: &Part) {
        let mut wanted = self.wanted.lock();
        if !wanted.contains(&part.id.0) {
            wanted.push(part.id.0);
        }
        drop(wanted);
        self.watcher.raise();
    }

    pub(crate) fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        let part = self.part(partition)?;
        let state = part.state.lock();
        if let Some(gone) = &state.gone {
            return Err(LogError::Unavailable(gone.clone()));
        }
        let fresh = self.fresh();
        match (state.bounds, state.told) {
            (Some((start, end)), Some(told)) if told.elapsed() < fresh => Ok(PartitionBounds {
                start: Offset(start),
                end: Offset(end),
                max_time: state.max_time,
            }),
            (_, told) => Err(LogError::Unavailable(self.away(told.map(|told| told.elapsed())))),
        }
    }

    /// The reason why nothing can be written now, if the broker has answered before but
    /// not recently.
    pub(crate) fn is_away(&self) -> Option<String> {
        let part = self.parts.iter().find(|p| *p.place.topic == *self.config.ingest_topic())?;
        let told = part.state.lock().told?;
        (told.elapsed() >= self.fresh()).then(|| self.away(Some(told.elapsed())))
    }

    /// How long bounds count as known.
    fn fresh(&self) -> Duration {
        FRESH.max(Duration::from_millis(self.config.refresh_ms * 5))
    }

    /// The message that the broker does not answer.
    pub(crate) fn away(&self, since: Option<Duration>) -> String {
        let why = self.said.last().map_or_else(String::new, |why| format!(": {why}"));
        match since {
            Some(since) => format!("Kafka has not answered for {} s{why}", since.as_secs()),
            None => format!("Kafka has not answered yet{why}"),
        }
    }

    pub(crate) fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        if self.is_closed() {
            return Err(LogError::Closed);
        }
        let part = self.part(partition)?;
        let mut state = part.state.lock();
        let (read, then) = state.read(partition, from.0, wanted, Instant::now())?;
        state.waited_for |= matches!(read, LogRead::Pending);
        for (stream, cursor) in state.streams.iter_mut().zip(&self.cursors) {
            if stream.has_room_again(self.cache_bytes) {
                cursor.raise();
            }
        }
        drop(state);
        self.go_on(part, then);
        Ok(read)
    }

    fn go_on(&self, part: &Part, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Bounds => self.want_bounds(part),
            Then::Cursor(number) => self.cursors[number].raise(),
        }
    }

    /// See [`lantern_core::Log::wait`].
    pub(crate) fn wait(&self, partition: PartitionId, from: Offset, timeout: Duration) {
        let Ok(part) = self.part(partition) else { return };
        let everything = TypeFilter::everything();
        let until = Instant::now() + timeout;
        let mut state = part.state.lock();
        loop {
            match state.read(partition, from.0, &everything, Instant::now()) {
                Ok((LogRead::Pending, then)) if !self.is_closed() => self.go_on(part, then),
                _ => return,
            }
            if part.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

/// The thread that must act after a read.
enum Then {
    Nothing,
    /// The watcher must query the bounds.
    Bounds,
    /// This cursor must move.
    Cursor(usize),
}

impl State {
    /// What a reader at `from` gets, and which thread must act for it.
    fn read(
        &mut self,
        partition: PartitionId,
        from: u64,
        wanted: &TypeFilter,
        now: Instant,
    ) -> Result<(LogRead, Then), LogError> {
        if let Some(gone) = &self.gone {
            return Err(LogError::Unavailable(gone.clone()));
        }
        let Some((start, end)) = self.bounds.filter(|_| !self.doubtful) else {
            // Without bounds it is unknown whether `from` is within them.
            return Ok((LogRead::Pending, Then::Bounds));
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
            // A lost end is the worst fault of a log, so the error is returned only after
            // a second answer of the broker confirms it.
            (self.past_end, self.doubtful) = (true, true);
            return Ok((LogRead::Pending, Then::Bounds));
        }
        self.past_end = false;
        if let Some(read) = self.held(from, end, wanted, now) {
            return Ok((read, Then::Nothing));
        }
        Ok((LogRead::Pending, self.place(from, now).map_or(Then::Nothing, Then::Cursor)))
    }

    /// Reads from the streams. If two streams have reached the same offset, one of them
    /// is closed: otherwise both cursors would read the same records. The stream that
    /// holds more is kept, because a slow reader may still need its chunks.
    fn held(&mut self, from: u64, end: u64, wanted: &TypeFilter, now: Instant) -> Option<LogRead> {
        let (mut found, mut nexts) = (None, Vec::new());
        for (number, stream) in self.streams.iter_mut().enumerate() {
            match stream.held(from, wanted, now) {
                Held::Chunk(chunk) if found.is_none() => {
                    found = Some((number, LogRead::Chunk(chunk)));
                }
                Held::Skipped(next) if found.is_none() => {
                    found = Some((number, LogRead::Skipped { next: Offset(next) }));
                }
                Held::Next => nexts.push(number),
                _ => {}
            }
        }
        let base = |number: usize| self.streams[number].base();
        let most = nexts.iter().copied().min_by_key(|&number| base(number));
        let kept = found.as_ref().map(|(number, _)| *number).or(most)?;
        let kept_base = base(kept);
        let at_end = self.streams[kept].at_end;
        for number in nexts {
            if number != kept && self.streams[number].base() >= kept_base {
                self.streams[number].close();
                // A reader may wait for a cursor, and only this flag wakes it.
                self.starving = true;
            }
        }
        let read = found.map(|(_, read)| read);
        Some(read.unwrap_or(if at_end && from >= end { LogRead::End } else { LogRead::Pending }))
    }

    /// Moves a cursor to `from`: a free one, or the one that was used least recently. The
    /// furthest cursor stays, because it follows new events.
    fn place(&mut self, from: u64, now: Instant) -> Option<usize> {
        // Only one cursor is protected: if several are at the end, the others must be
        // free to move.
        let open = self.streams.iter().enumerate().filter(|(_, stream)| stream.open);
        let furthest = open.max_by_key(|(_, stream)| (stream.next, stream.used)).map(|(n, _)| n);
        let mut choice = None;
        for (number, stream) in self.streams.iter().enumerate() {
            if !stream.open {
                choice = Some((number, None));
                break;
            }
            if Some(number) == furthest && stream.next > from {
                continue;
            }
            let rested = stream.used.is_none_or(|used| now.duration_since(used) >= QUANTUM);
            if rested && choice.is_none_or(|(_, used)| stream.used < used) {
                choice = Some((number, stream.used));
            }
        }
        self.starving |= choice.is_none();
        let (number, _) = choice?;
        self.streams[number].ask(from, now);
        Some(number)
    }

    /// Stores the topic's id that the broker reported. Returns `true` if it differs from
    /// the previous id; then everything known about the previous topic is discarded.
    pub(crate) fn tell_topic(&mut self, id: Arc<str>) -> bool {
        let other = self.topic_id.as_ref().is_some_and(|known| *known != id);
        self.topic_id = Some(id);
        if other {
            self.streams.iter_mut().for_each(Stream::close);
            (self.bounds, self.told, self.stable) = (None, None, 0);
            (self.doubtful, self.past_end) = (true, false);
            self.max_time = Timestamp::MIN;
        }
        other
    }

    /// Stores the bounds that the broker reported. `before` is the end that was known when
    /// it was asked.
    pub(crate) fn tell_bounds(&mut self, start: u64, end: u64, before: Option<u64>) {
        // Records that were read since the request exist, even if the answer is older. But
        // the end of a recreated topic can be lower than the previous one.
        self.stable = end;
        let known = self.bounds.map(|(_, end)| end);
        let end = if known == before { end } else { end.max(known.unwrap_or(0)) };
        self.bounds = Some((start, end));
        self.told = Some(Instant::now());
        (self.doubtful, self.gone) = (false, None);
    }

    /// Raises the known end to `end`. Returns whether that changed it.
    pub(crate) fn tell_end(&mut self, end: u64) -> bool {
        match &mut self.bounds {
            Some((_, known)) if *known < end => {
                *known = end;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn tell_time(&mut self, newest: Timestamp) {
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
            let mut stream = Stream::default();
            stream.ask(from, now);
            stream.asked = None;
            stream.push(chunk(from, 10), 10, 1 << 20);
            stream.at_end = true;
            stream
        };
        let mut state = State {
            bounds: Some((0, 10)),
            streams: vec![at_end(5), at_end(7)],
            ..State::default()
        };
        let everything = TypeFilter::everything();
        let later = now + QUANTUM;
        let (read, then) = state.read(PartitionId(0), 0, &everything, later).unwrap();
        assert!(matches!(read, LogRead::Pending) && matches!(then, Then::Cursor(_)));
        let places: Vec<_> = state.streams.iter().map(|stream| stream.asked).collect();
        assert!(places.contains(&Some(0)) && places.contains(&None), "{places:?}");
    }

    #[test]
    fn what_a_slow_reader_needs_is_not_let_go_of_by_one_at_the_end() {
        let now = Instant::now();
        let mut state = State {
            bounds: Some((0, 10)),
            streams: vec![Stream::default(), Stream::default()],
            ..State::default()
        };
        let partition = PartitionId(0);
        let everything = TypeFilter::everything();
        let mut read = |from| state.read(partition, from, &everything, now).unwrap().0;
        // One cursor waits at the end, another is moved far behind it.
        assert!(matches!(read(10), LogRead::Pending));
        assert!(matches!(read(0), LogRead::Pending));
        let behind = state.streams.iter().position(|stream| stream.base() == 0).unwrap();
        state.streams.iter_mut().for_each(|stream| stream.asked = None);
        state.streams[behind].push(chunk(0, 10), 10, 1 << 20);
        let mut read = |from| state.read(partition, from, &everything, now).unwrap().0;
        for from in 0..10 {
            assert!(matches!(read(10), LogRead::Pending));
            assert!(matches!(read(from), LogRead::Chunk(_)), "{from}");
        }
        assert_eq!(state.streams.iter().filter(|stream| stream.open).count(), 1);
    }
}
