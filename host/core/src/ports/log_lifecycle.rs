//! What the owner of a log does with it, apart from reading and appending: delete old
//! events, and close the log.

use crate::{LogError, Offset, PartitionId, Timestamp};

/// Returns the offset from which a partition must be kept regardless of the retention;
/// `None` for no such bound.
pub type RetentionFloor<'a> = &'a dyn Fn(PartitionId) -> Option<Offset>;

/// A log from which Lantern itself deletes old events. A log on Kafka does not implement this
/// trait, because there the broker deletes old events.
pub trait LogMaintenance: Send + Sync {
    /// Deletes events that exceed the log's retention by age or size at `now`, but keeps
    /// those at or after the `floor` of their partition. One call does a bounded amount
    /// of work, and blocks until it is done. If [`MaintenanceReport::more`] is true, call
    /// it again at once, otherwise after an interval.
    ///
    /// # Errors
    /// [`LogError`]; then nothing was deleted.
    fn maintain(
        &self,
        now: Timestamp,
        floor: RetentionFloor<'_>,
    ) -> Result<MaintenanceReport, LogError>;
}

/// The result of [`LogMaintenance::maintain`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// One entry for each partition from which events were deleted.
    pub trimmed: Vec<TrimmedPartition>,
    /// Whether there are more events to delete. One call does only a bounded amount of work.
    pub more: bool,
}

/// The events deleted from one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimmedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// How many chunks.
    pub chunks: u64,
    /// How many events.
    pub events: u64,
    /// How many bytes on disk.
    pub bytes: u64,
    /// The first offset that is kept.
    pub start: Offset,
}

/// A log that can be closed before it is dropped, so that its owner knows when the last
/// event is durable.
pub trait CloseLog: Send + Sync {
    /// Stops accepting appends, waits until the pending ones are durable and answered,
    /// and releases files, connections and threads. Afterwards reads and appends fail
    /// with [`LogError::Closed`]. Blocks; a second call does nothing.
    fn close(&self);
}
