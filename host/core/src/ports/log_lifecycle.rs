//! Defines the ports for the owner of a log: deleting old events, and closing the log.

use crate::{LogError, Offset, PartitionId, Timestamp};

/// A function that protects events from retention. For a partition, it returns the first offset
/// that must be kept, or `None` if there is no such bound.
pub type RetentionFloor<'a> = &'a dyn Fn(PartitionId) -> Option<Offset>;

/// A log from which Lantern itself deletes old events. A log on Kafka does not implement this
/// trait, because its broker deletes old events.
pub trait LogMaintenance: Send + Sync {
    /// Deletes events by the log's settings of retention: those that are too old at `now`, and the
    /// oldest ones if the log is too large. It keeps the events at or after the `floor` of their
    /// partition.
    ///
    /// The call blocks, but does a bounded amount of work. If [`MaintenanceReport::more`] is true,
    /// call it again at once, otherwise after an interval.
    ///
    /// # Errors
    /// Returns [`LogError`] if the events could not be deleted. Then no event was deleted.
    fn maintain(
        &self,
        now: Timestamp,
        floor: RetentionFloor<'_>,
    ) -> Result<MaintenanceReport, LogError>;
}

/// What [`LogMaintenance::maintain`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// One entry for each partition from which events were deleted.
    pub trimmed: Vec<TrimmedPartition>,
    /// Whether there are more events to delete, because one call does only a bounded amount of
    /// work.
    pub more: bool,
}

/// What was deleted from one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimmedPartition {
    /// The partition from which events were deleted.
    pub partition: PartitionId,
    /// The number of chunks deleted.
    pub chunks: u64,
    /// The number of events deleted.
    pub events: u64,
    /// The number of bytes freed on disk.
    pub bytes: u64,
    /// The offset of the first event that is kept.
    pub start: Offset,
}

/// A log that can be closed before it is dropped. When it is closed, all its events are durable.
pub trait CloseLog: Send + Sync {
    /// Stops accepting appends, waits until the pending appends are durable and answered, and
    /// releases files, connections and threads. Afterwards reads and appends fail with
    /// [`LogError::Closed`]. The call blocks; a second call does nothing.
    fn close(&self);
}
