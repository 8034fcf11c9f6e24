//! Implements chunks, the unit in which a log stores and returns events. A chunk contains a few
//! thousand events of one partition.

use crate::{Events, Offset, PartitionId, Timestamp};

/// Consecutive events of one partition, in columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The partition of the events.
    pub partition: PartitionId,
    /// The offsets of the events.
    pub offsets: Offsets,
    /// The events of the chunk. All columns are filled.
    pub events: Events,
    /// The append time of each event by the log's own clock. [`Timestamp::MIN`] and a missing entry
    /// at the end mean that the log does not know the time, for example because a Kafka producer
    /// set the record's timestamp (`CreateTime`). Read the times with [`Chunk::appended`].
    pub appended: Vec<Timestamp>,
}

/// The rising offsets of a chunk's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// The offsets start at `first` and have no gaps.
    Dense {
        /// The offset of the chunk's first event.
        first: Offset,
    },
    /// One offset for each event. There may be gaps, as in a compacted Kafka topic.
    Sparse(Vec<u64>),
}

impl Chunk {
    /// Returns the offset of event `index`.
    ///
    /// # Panics
    /// Panics if the offsets have gaps and there is no such event.
    #[must_use]
    pub fn offset(&self, index: usize) -> Offset {
        match &self.offsets {
            Offsets::Dense { first } => Offset(first.0 + index as u64),
            Offsets::Sparse(offsets) => Offset(offsets[index]),
        }
    }

    /// Returns the append time of event `index` by the log's own clock; `None` if the log does not
    /// know it.
    #[must_use]
    pub fn appended(&self, index: usize) -> Option<Timestamp> {
        self.appended.get(index).copied().filter(|time| *time != Timestamp::MIN)
    }

    /// Returns the index of the first event at or after `offset`, or the number of events if there
    /// is none.
    #[must_use]
    pub fn index_of(&self, offset: Offset) -> usize {
        match &self.offsets {
            Offsets::Dense { first } => usize::try_from(offset.0.saturating_sub(first.0))
                .unwrap_or(usize::MAX)
                .min(self.events.len()),
            Offsets::Sparse(offsets) => offsets.partition_point(|&o| o < offset.0),
        }
    }

    /// Returns the offset after that of the last event.
    #[must_use]
    pub fn end(&self) -> Offset {
        match self.events.len() {
            0 => self.offset(0),
            len => self.offset(len - 1).next(),
        }
    }
}
