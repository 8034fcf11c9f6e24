//! Holds the newest chunks that one cursor has read from one partition. Older chunks are evicted.
//! This module uses no client and no thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use lantern_core::{Chunk, Events, Offset, TypeFilter};

/// The memory that a chunk takes in addition to its events, in bytes.
const CHUNK_BYTES: usize = 2_048;
/// The maximum size of a chunk whose memory is used again, in bytes.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// The chunks of one partition that one cursor has read.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    /// The offset at which the cursor must begin again; `None` once the cursor has begun there.
    pub(crate) requested: Option<u64>,
    /// Whether the cursor reads this partition, or will begin to.
    pub(crate) open: bool,
    /// The first offset of the buffer: it contains all events from here up to `next`.
    base: u64,
    /// The offset that the cursor will read next.
    pub(crate) next: u64,
    chunks: VecDeque<BufferedChunk>,
    bytes: usize,
    /// Whether the cursor has reached the end of the partition since its last record.
    pub(crate) at_end: bool,
    /// Whether the cursor must read the end of the partition once more.
    pub(crate) doubted: bool,
    /// Whether the buffer is full, so that the cursor waits until readers have read more.
    pub(crate) full: bool,
    /// The highest offset that a reader has requested.
    read_to: u64,
    /// The time at which a reader last used the buffer.
    pub(crate) used: Option<Instant>,
    /// An empty chunk with the memory of an evicted chunk, for the next chunk. Allocating memory
    /// costs more than filling it.
    spare: Option<Events>,
}

struct BufferedChunk {
    chunk: Arc<Chunk>,
    /// The end of the chunk: up to this offset, this chunk and the chunks before it contain all
    /// events.
    end: u64,
    bytes: usize,
}

/// What the buffer has at an offset.
#[derive(Debug)]
pub(crate) enum BufferLookup {
    /// The buffer has this chunk, with an event at the offset or later.
    Chunk(Arc<Chunk>),
    /// The buffer has no matching event from the offset up to this offset.
    Skipped(u64),
    /// The cursor will read the offset next.
    Next,
    /// The offset is not in the range of the buffer.
    No,
}

impl ReadBuffer {
    /// Empties the buffer and lets it begin at `from`. Asks the cursor to begin there too.
    pub(crate) fn request(&mut self, from: u64, now: Instant) {
        *self = Self {
            requested: Some(from),
            open: true,
            base: from,
            next: from,
            read_to: from,
            used: Some(now),
            ..Self::default()
        };
    }

    /// Empties the buffer, so that its cursor can be used elsewhere.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Returns the first offset of the buffer.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Looks up what the buffer has from the offset `from` on.
    pub(crate) fn held(&mut self, from: u64, types: &TypeFilter, now: Instant) -> BufferLookup {
        if !self.open || from < self.base || from > self.next {
            return BufferLookup::No;
        }
        self.used = Some(now);
        self.read_to = self.read_to.max(from);
        if from == self.next {
            return BufferLookup::Next;
        }
        let mut index = self.chunks.partition_point(|chunk| chunk.end <= from);
        while let Some(chunk) = self.chunks.get(index) {
            let chunk = &chunk.chunk;
            let events = &chunk.events;
            let later = chunk.index_of(Offset(from)) < events.len();
            if later && events.type_names().iter().any(|kind| types.matches(kind)) {
                return BufferLookup::Chunk(Arc::clone(chunk));
            }
            index += 1;
        }
        BufferLookup::Skipped(self.next)
    }

    /// Adds a chunk that the cursor has read. With it, the cursor has read all offsets before
    /// `end`.
    pub(crate) fn push(&mut self, chunk: Chunk, end: u64, limit: usize) {
        let bytes = chunk.events.bytes() + CHUNK_BYTES;
        self.chunks.push_back(BufferedChunk { chunk: Arc::new(chunk), end, bytes });
        self.bytes += bytes;
        self.next = end;
        self.at_end = false;
        self.trim(limit);
    }

    /// Notes that there are no events from `next` up to `end`.
    pub(crate) fn pass(&mut self, end: u64) {
        if end > self.next {
            self.next = end;
            if let Some(last) = self.chunks.back_mut() {
                last.end = end;
            } else {
                self.base = self.base.min(end);
            }
        }
    }

    /// Evicts the oldest chunks that readers have already read, until the buffer has at most
    /// `limit` bytes. If the unread chunks alone reach the limit, sets `full`.
    pub(crate) fn trim(&mut self, limit: usize) {
        while self.bytes > limit
            && let Some(first) = self.chunks.front()
            && first.end <= self.read_to
        {
            self.base = first.end;
            self.bytes -= first.bytes;
            self.recycle();
        }
        self.full = self.ahead() >= limit;
    }

    /// Evicts the oldest chunk. Keeps its memory if no reader uses the chunk any more.
    fn recycle(&mut self) {
        if let Some(BufferedChunk { chunk, bytes, .. }) = self.chunks.pop_front()
            && bytes <= SPARE_BYTES_MAX
            && let Ok(mut chunk) = Arc::try_unwrap(chunk)
        {
            chunk.events.clear();
            self.spare = Some(chunk.events);
        }
    }

    /// Returns empty columns for the next chunk, with memory of an evicted chunk if there is any.
    pub(crate) fn take_spare(&mut self) -> Events {
        self.spare.take().unwrap_or_default()
    }

    /// Returns the size in bytes of the chunks that no reader has requested yet.
    fn ahead(&self) -> usize {
        let unread = self.chunks.iter().rev().take_while(|chunk| chunk.end > self.read_to);
        unread.map(|chunk| chunk.bytes).sum()
    }

    /// Returns whether the buffer was full, and has room now.
    pub(crate) fn has_room_again(&mut self, limit: usize) -> bool {
        if !self.full || self.ahead() >= limit / 2 {
            return false;
        }
        self.full = false;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_core::{EventRef, Offsets, PartitionId};

    use super::*;

    fn chunk(offsets: &[u64], kind: &str) -> Chunk {
        let mut events = Events::new();
        for _ in offsets {
            events.push(&EventRef { kind, data: &[0; 1_000], ..EventRef::default() });
        }
        let offsets = Offsets::Sparse(offsets.to_vec());
        Chunk { partition: PartitionId(0), offsets, events, appended: Vec::new() }
    }

    fn looked_up(buffer: &mut ReadBuffer, from: u64, kind: &str) -> String {
        let wanted = TypeFilter::new(&[kind.to_owned()]);
        match buffer.held(from, &wanted, Instant::now()) {
            BufferLookup::Chunk(chunk) => format!("chunk {}", chunk.offset(0)),
            BufferLookup::Skipped(next) => format!("skipped {next}"),
            BufferLookup::Next => "next".into(),
            BufferLookup::No => "no".into(),
        }
    }

    #[test]
    fn gaps_and_what_is_not_wanted_are_passed() {
        let mut buffer = ReadBuffer::default();
        assert_eq!(looked_up(&mut buffer, 5, "a"), "no");
        buffer.request(5, Instant::now());
        assert_eq!(looked_up(&mut buffer, 5, "a"), "next");
        buffer.push(chunk(&[7, 9], "a"), 10, 1 << 20);
        buffer.push(chunk(&[12], "b"), 13, 1 << 20);
        for (from, kind, expected) in [
            (4, "a", "no"),
            (5, "a", "chunk 7"),
            (8, "a", "chunk 7"),
            (10, "a", "skipped 13"),
            (5, "b", "chunk 12"),
            (11, "b", "chunk 12"),
            (13, "b", "next"),
            (14, "b", "no"),
        ] {
            assert_eq!(looked_up(&mut buffer, from, kind), expected, "{from} {kind}");
        }
        // The offsets at the end are markers of transactions, which are not events.
        buffer.pass(15);
        assert_eq!(looked_up(&mut buffer, 13, "b"), "skipped 15");
        assert_eq!(looked_up(&mut buffer, 15, "b"), "next");
    }

    #[test]
    fn a_buffer_holds_no_more_than_its_limit_and_the_unread_chunks() {
        let limit = 10_000;
        let mut buffer = ReadBuffer::default();
        buffer.request(0, Instant::now());
        let mut next = 0;
        while !buffer.full {
            buffer.push(chunk(&[next], "a"), next + 1, limit);
            next += 1;
        }
        assert!(next < 6, "{next}");
        assert_eq!(looked_up(&mut buffer, 0, "a"), "chunk 0");
        assert!(!buffer.has_room_again(limit), "no reader came closer");
        assert_eq!(looked_up(&mut buffer, next, "a"), "next");
        assert!(buffer.has_room_again(limit));
        for _ in 0..10 {
            buffer.push(chunk(&[next], "a"), next + 1, limit);
            next += 1;
            looked_up(&mut buffer, next, "a");
        }
        assert_eq!(looked_up(&mut buffer, 0, "a"), "no", "the oldest were evicted");
        assert!(buffer.bytes <= limit + 4_000, "{}", buffer.bytes);
    }
}
