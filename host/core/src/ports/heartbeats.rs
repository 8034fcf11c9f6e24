//! Defines heartbeats, which are events that the host itself appends to an idle partition, so that
//! event time advances and timers fire.

use crate::{AppendDone, EventRef, Events, HEARTBEAT_TYPE, HOST_SOURCE, PartitionId, Timestamp};

/// A log to which the host can append heartbeats, which advance the event time of idle partitions.
pub trait Heartbeats: Send + Sync {
    /// Returns whether heartbeats may be appended to `partition`. They may not in these cases:
    ///
    /// * The partition does not exist.
    /// * The log is read only.
    /// * Other programs read the log, and they may not accept CloudEvents.
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
