//! Next offsets of projections for other programs: a log on Kafka commits them to
//! consumer groups, so that Kafka's own tools can show each projection's lag.

use std::time::Duration;

use crate::{Offset, PartitionId};

/// A log that shows other programs how far projections have folded it. Lantern never
/// reads these offsets back; the offsets in the shards' state are authoritative.
pub trait CommittedOffsets: Send + Sync {
    /// Notes `next` as the next offset of `projection` in `partition`, to be committed soon.
    /// The call does not block and cannot fail. If the offset cannot be committed, the log
    /// tries again until it succeeds or a later call replaces the offset. An unknown partition
    /// is ignored.
    fn note_offset(&self, projection: &str, partition: PartitionId, next: Offset);

    /// The interval at which noted offsets are committed. More frequent calls of
    /// [`Self::note_offset`] have no further effect.
    fn commit_interval(&self) -> Duration;
}
