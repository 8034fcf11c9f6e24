//! Lists of events that can be folded like a log.

use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    AppendDone, Attributes, Chunk, Events, Log, LogError, LogRead, Offset, Offsets,
    PartitionBounds, PartitionId, Timestamp, TypeFilter, Waker,
};

use crate::EngineError;

/// The maximum number of events in one chunk of an [`EventList`].
const CHUNK_EVENTS: usize = 4_096;

/// A part of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRange {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last one.
    pub to: Offset,
}

/// A fixed list of events of one partition, which can be folded like a log.
pub struct EventList {
    partition: PartitionId,
    chunks: Vec<Arc<Chunk>>,
}

impl EventList {
    /// Creates a list of `events` in partition 0, from offset 0 on. The append time of each event
    /// is the highest event time so far.
    #[must_use]
    pub fn new(events: &Events) -> Self {
        let all = Attributes::all();
        let mut newest = Timestamp::MIN;
        let chunks = (0..events.len()).step_by(CHUNK_EVENTS).map(|first| {
            let mut part = Events::new();
            part.extend_from(events, first..(first + CHUNK_EVENTS).min(events.len()), all);
            let appended = part.times().iter().map(|time| {
                newest = newest.max(*time);
                newest
            });
            let appended = appended.collect();
            Arc::new(Chunk {
                partition: PartitionId(0),
                offsets: Offsets::Dense { first: Offset(first as u64) },
                events: part,
                appended,
            })
        });
        Self { partition: PartitionId(0), chunks: chunks.collect() }
    }

    /// Creates a list of the events of `chunks`, which are in order and belong to `partition`.
    pub(crate) fn of(partition: PartitionId, chunks: Vec<Arc<Chunk>>) -> Self {
        Self { partition, chunks }
    }

    /// Creates a list of the first events of `log` that match `types`. It keeps the whole chunks
    /// that contain the first `events` of them.
    pub(crate) fn sample(
        log: &dyn Log,
        partition: PartitionId,
        types: &TypeFilter,
        events: usize,
    ) -> Result<Self, EngineError> {
        let mut list = Self { partition, chunks: Vec::new() };
        let mut next = log.bounds(partition)?.start;
        let mut sampled = 0;
        while sampled < events {
            match lantern_core::read_or_wait(log, partition, next, types)? {
                // A read of this log is never pending.
                LogRead::End | LogRead::Pending => break,
                LogRead::Skipped { next: after } => next = after,
                LogRead::Chunk(chunk) => {
                    let handed: Vec<_> =
                        chunk.events.type_names().iter().map(|k| types.matches(k)).collect();
                    let types = chunk.events.types().iter();
                    sampled += types.filter(|kind| handed[usize::from(**kind)]).count();
                    next = chunk.end();
                    list.chunks.push(chunk);
                }
            }
        }
        Ok(list)
    }

    /// Returns how many events are before the offset `next`.
    pub(crate) fn before(&self, next: Offset) -> usize {
        let offsets =
            self.chunks.iter().flat_map(|chunk| (0..chunk.events.len()).map(|at| chunk.offset(at)));
        offsets.take_while(|offset| *offset < next).count()
    }

    /// Returns a list of the first `events` events.
    pub(crate) fn first(&self, events: usize) -> Self {
        let (mut chunks, mut left) = (Vec::new(), events);
        for chunk in &self.chunks {
            if left == 0 {
                break;
            }
            let taken = chunk.events.len().min(left);
            left -= taken;
            if taken == chunk.events.len() {
                chunks.push(chunk.clone());
                continue;
            }
            chunks.extend(part(chunk, 0..taken, &|_| true));
        }
        Self { partition: self.partition, chunks }
    }

    /// Returns the chunks with the events, in order.
    pub(crate) fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Returns where the events are in their partition.
    #[must_use]
    pub fn range(&self) -> SampleRange {
        let from = self.chunks.first().map_or(Offset(0), |chunk| chunk.offset(0));
        let to = self.chunks.last().map_or(Offset(0), |chunk| chunk.end());
        SampleRange { partition: self.partition, from, to }
    }

    /// Returns the partition to which the events belong.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Returns how many events there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a count of events, not a collection")]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.events.len()).sum()
    }
}

impl Log for EventList {
    fn partitions(&self) -> u32 {
        1
    }

    fn bounds(&self, _: PartitionId) -> Result<PartitionBounds, LogError> {
        let SampleRange { from, to, .. } = self.range();
        Ok(PartitionBounds { start: from, end: to, max_time: Timestamp::MIN })
    }

    fn read(&self, _: PartitionId, from: Offset, _: &TypeFilter) -> Result<LogRead, LogError> {
        let index = self.chunks.partition_point(|chunk| chunk.end() <= from);
        Ok(self.chunks.get(index).map_or(LogRead::End, |chunk| LogRead::Chunk(chunk.clone())))
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Result<Offset, LogError> {
        Err(LogError::Unavailable("a list of events is not sought by time".into()))
    }

    fn append(&self, _: Events, done: AppendDone) {
        done(Err(LogError::Closed));
    }

    fn on_append(&self, _: Waker) {}
}

/// The events of `chunk` at `indices` whose types `is_kept` accepts; `None` if there are none.
pub(crate) fn part(
    chunk: &Chunk,
    indices: Range<usize>,
    is_kept: &dyn Fn(&str) -> bool,
) -> Option<Arc<Chunk>> {
    let (mut events, mut offsets, mut appended) = (Events::new(), Vec::new(), Vec::new());
    for index in indices.filter(|index| is_kept(chunk.events.kind(*index))) {
        let fits = events.extend_from(&chunk.events, index..index + 1, Attributes::all());
        assert!(fits, "a part has no more types than the whole");
        offsets.push(chunk.offset(index).0);
        appended.push(chunk.appended(index).unwrap_or(Timestamp::MIN));
    }
    let offsets = match offsets.is_empty() {
        true => return None,
        false => Offsets::Sparse(offsets),
    };
    Some(Arc::new(Chunk { partition: chunk.partition, offsets, events, appended }))
}
