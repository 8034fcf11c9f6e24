//! Shows other programs how far projections have folded the log. A log on Kafka commits the
//! projections' next offsets to consumer groups, so Kafka's own tools can display their lag.

use std::time::Duration;

use crate::{Offset, PartitionId};

/// A log that shows other programs how far projections have folded it. Lantern never
/// reads these offsets back; the offsets in the shards' state are authoritative.
pub trait CommittedOffsets: Send + Sync {
    /// Notes that `next` is the next offset of `projection` in `partition`; the log commits it
    /// soon. The call does not block and cannot fail. If the log cannot commit the offset, it tries
    /// again until it succeeds or a later call replaces the offset. An unknown partition is
    /// ignored.
    fn note_offset(&self, projection: &str, partition: PartitionId, next: Offset);

    /// Returns the time between two commits of noted offsets. Calling [`Self::note_offset`] more
    /// often than this has no effect.
    fn commit_interval(&self) -> Duration;
}
