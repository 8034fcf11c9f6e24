//! Dead letters: copies of parked events outside of Lantern, for operators who monitor
//! several systems in one place. A copied event stays parked.

use std::ops::ControlFlow;

use crate::{LogError, Offset, ParkedRecord, PartitionId};

/// Stores copies of parked events, and reads them back so that an operator can retry the
/// events.
pub trait DeadLetters: Send + Sync {
    /// Stores a copy of each letter. Blocks until all of them are durable.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if not all of them could be stored. Some may have been,
    /// so a repeated call may store a copy twice.
    fn copy(&self, letters: &[DeadLetter]) -> Result<(), LogError>;

    /// Reads the stored copies up to the current end: the copies that no earlier call has read,
    /// or all copies with `from_beginning`. Passes the names of the copied events to `page`, a
    /// bounded number at a time. A page counts as read once `page` has returned
    /// [`ControlFlow::Continue`], so each copy is passed at least once. If `page` returns
    /// [`ControlFlow::Break`], the call ends, and this page does not count as read. Blocks.
    /// Concurrent calls run one after another.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the copies cannot be read.
    fn read_copies(
        &self,
        from_beginning: bool,
        page: &mut dyn FnMut(&[DeadLetterName]) -> ControlFlow<()>,
    ) -> Result<DeadLettersRead, LogError>;
}

/// A parked event, with its projection and partition.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The partition, by its number in this log.
    pub partition: PartitionId,
    /// The event, and why it is parked.
    pub record: ParkedRecord,
}

/// Names a parked event that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterName {
    /// The projection.
    pub projection: String,
    /// The event's partition, by its number in this log.
    pub partition: PartitionId,
    /// The event's offset in it.
    pub offset: Offset,
}

/// How many copies [`DeadLetters::read_copies`] has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLettersRead {
    /// In total.
    pub read: u64,
    /// How many of them are not copies of parked events of this log.
    pub foreign: u64,
}
