//! Defines dead letters, which are copies of parked events outside of Lantern. They are for
//! operators who monitor several systems in one place. A copied event stays parked.

use std::ops::ControlFlow;

use crate::{LogError, Offset, ParkedRecord, PartitionId};

/// A store for copies of parked events. An operator can also let Lantern read the copies back, to
/// retry the events.
pub trait DeadLetters: Send + Sync {
    /// Stores a copy of each dead letter. Blocks until all of them are durable.
    ///
    /// # Errors
    /// Returns [`LogError::Unavailable`] if some copies could not be stored. Others may have been
    /// stored, so a repeated call may store a copy twice.
    fn copy(&self, letters: &[DeadLetter]) -> Result<(), LogError>;

    /// Reads stored copies up to the current end, and passes the names of the copied events to
    /// `page`, a bounded number at a time. It reads the copies that no earlier call has read, or
    /// all copies if `from_beginning` is set.
    ///
    /// A page counts as read once `page` has returned [`ControlFlow::Continue`], so each copy is
    /// passed at least once. If `page` returns [`ControlFlow::Break`], the call ends and this page
    /// does not count as read. The call blocks. Concurrent calls run one after another.
    ///
    /// # Errors
    /// Returns [`LogError::Unavailable`] if the copies cannot be read.
    fn read_copies(
        &self,
        from_beginning: bool,
        page: &mut dyn FnMut(&[DeadLetterName]) -> ControlFlow<()>,
    ) -> Result<DeadLettersRead, LogError>;
}

/// A parked event to be copied, with its projection and partition.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The name of the projection that parked the event.
    pub projection: String,
    /// The version that parked the event.
    pub version: String,
    /// The number that the event's partition has in this log.
    pub partition: PartitionId,
    /// The event, and the reason why it is parked.
    pub record: ParkedRecord,
}

/// Identifies a parked event of which a copy was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterName {
    /// The name of the projection that parked the event.
    pub projection: String,
    /// The number that the event's partition has in this log.
    pub partition: PartitionId,
    /// The offset of the event in its partition.
    pub offset: Offset,
}

/// What [`DeadLetters::read_copies`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLettersRead {
    /// The number of copies read.
    pub read: u64,
    /// How many of the copies read are not copies of parked events of this log.
    pub foreign: u64,
}
