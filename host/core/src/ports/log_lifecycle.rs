//! What the owner of a log does with it while it is open and when it ends: delete old
//! events, and close it.

use crate::{LogError, Offset, PartitionId, Timestamp};

/// Returns the offset from which a partition must be kept regardless of the retention;
/// `None` for no such bound.
pub type RetentionFloor<'a> = &'a dyn Fn(PartitionId) -> Option<Offset>;

/// A log whose retention is Lantern's task. A log on Kafka is not one of them: there
/// the broker deletes old events.
pub trait LogMaintenance: Send + Sync {
    /// Deletes events that exceed the log's retention by age or size at `now`, but keeps
    /// those at or after the `floor` of their partition. One call does a bounded amount
    /// of work, and blocks until it is done. If the report says [`MaintenanceReport::more`],
    /// call it again at once, else at intervals.
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
    /// What was deleted: one entry for each partition that lost events.
    pub trimmed: Vec<TrimmedPartition>,
    /// Whether more events are due: one call does a bounded amount of work.
    pub more: bool,
}

/// What was deleted from a partition.
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
