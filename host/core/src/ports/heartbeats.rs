//! Defines heartbeats, which are events that the host itself appends to an idle partition, so that
//! event time advances and timers fire.

use crate::{AppendDone, EventRef, Events, HEARTBEAT_TYPE, HOST_SOURCE, PartitionId, Timestamp};

/// A log to which the host can append heartbeats. A heartbeat advances the event time of an idle
/// partition.
pub trait Heartbeats: Send + Sync {
    /// Returns whether heartbeats may be appended to `partition`. Returns `false` if the partition
    /// does not exist, if the log is read only, or if other programs that may not accept
    /// CloudEvents read the log.
    fn accepts_heartbeats(&self, partition: PartitionId) -> bool;

    /// Appends a heartbeat with the event time `time` to `partition`, and calls `done` once it is
    /// durable, as [`crate::Log::append`] does. `done` gets [`crate::LogError::NoPartition`] if
    /// there is no such partition, and otherwise the same errors as an append.
    fn append_heartbeat(&self, partition: PartitionId, time: Timestamp, done: AppendDone);
}

/// Creates a heartbeat for `partition` with the event time `time`. `name` distinguishes heartbeats
/// of the same partition and time; it becomes part of the event's id.
#[must_use]
pub fn heartbeat(partition: PartitionId, time: Timestamp, name: u32) -> Events {
    let mut events = Events::new();
    events.push(&EventRef {
        id: &format!("{partition}/{time}/{name}"),
        source: HOST_SOURCE,
        kind: HEARTBEAT_TYPE,
        time,
        data: b"{}",
        ..EventRef::default()
    });
    events
}
