//! What a log stores and hands out: some thousand events of one partition.

use crate::{Events, Offset, PartitionId, Timestamp};

/// Consecutive events of one partition, in columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Whose events these are.
    pub partition: PartitionId,
    /// Their offsets.
    pub offsets: Offsets,
    /// The events, all columns filled.
    pub events: Events,
    /// When the log took each event, by the log's own clock. [`Timestamp::MIN`],
    /// and every index past the end, means that the log does not know: over Kafka
    /// a record whose timestamp was set by its producer (`CreateTime`). Read it
    /// with [`Chunk::appended`].
    pub appended: Vec<Timestamp>,
}

/// The offsets of a chunk's events, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// Without gaps from `first` on.
    Dense {
        /// The first event's offset.
        first: Offset,
    },
    /// With gaps, as a compacted Kafka topic has them; one an event.
    Sparse(Vec<u64>),
}

impl Chunk {
    /// The offset of event `index`.
    ///
    /// # Panics
    /// When the offsets have gaps and there is no such event.
    #[must_use]
    pub fn offset(&self, index: usize) -> Offset {
        match &self.offsets {
            Offsets::Dense { first } => Offset(first.0 + index as u64),
            Offsets::Sparse(offsets) => Offset(offsets[index]),
        }
    }

    /// When the log took event `index`, by its own clock; `None` if the log does
    /// not know.
    #[must_use]
    pub fn appended(&self, index: usize) -> Option<Timestamp> {
        self.appended.get(index).copied().filter(|time| *time != Timestamp::MIN)
    }

    /// The place of the first event at or after `offset`; the number of events
    /// if there is none.
    #[must_use]
    pub fn index_of(&self, offset: Offset) -> usize {
        match &self.offsets {
            Offsets::Dense { first } => usize::try_from(offset.0.saturating_sub(first.0))
                .unwrap_or(usize::MAX)
                .min(self.events.len()),
            Offsets::Sparse(offsets) => offsets.partition_point(|&o| o < offset.0),
        }
    }

    /// The offset after the last event.
    #[must_use]
    pub fn end(&self) -> Offset {
        match self.events.len() {
            0 => self.offset(0),
            len => self.offset(len - 1).next(),
        }
    }
}
