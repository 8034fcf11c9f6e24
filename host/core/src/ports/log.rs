//! Defines the port through which other crates read the event log and append to it.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::{Chunk, ErrorCause, EventRef, Events, Offset, PartitionId, Timestamp, TypeFilter};

/// An event log: partitions of events with rising offsets.
pub trait Log: Send + Sync {
    /// Returns the number of partitions of the log.
    fn partitions(&self) -> u32;

    /// Returns the offsets and the event time of the partition.
    ///
    /// # Errors
    /// Returns [`LogError`] if they cannot be read.
    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError>;

    /// Reads the chunk with the first event at or after `from` that matches `types`. The chunk may
    /// begin before `from`, and may contain events of other types. If the log knows only that no
    /// event before some later offset matches, it returns this offset instead.
    ///
    /// # Errors
    /// Returns [`LogError::OutOfRange`] if retention has deleted the event at `from`.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        types: &TypeFilter,
    ) -> Result<LogRead, LogError>;

    /// Returns the offset of the first event that was appended at or after `time`. If there is
    /// none, this is the partition's end.
    ///
    /// # Errors
    /// Returns [`LogError`] if the offset cannot be read.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError>;

    /// Appends all of `events` or none, and calls `done` once they are durable. Does not
    /// block for long; callers limit the number of pending appends.
    fn append(&self, events: Events, done: AppendDone);

    /// Imports events that were exported from another log. This log must be empty. `appended`
    /// contains the time at which each event was appended to the other log.
    fn import(&self, _events: Events, _appended: Vec<Timestamp>, done: AppendDone) {
        done(Err(LogError::NoImport("this log sets append times itself".into())));
    }

    /// Returns the partition to which this event would be appended. `None` if the partition does
    /// not depend on the event alone.
    fn partition_of(&self, _event: &EventRef<'_>) -> Option<PartitionId> {
        None
    }

    /// Appends events that a shard has emitted. It differs from [`Log::append`] in one respect:
    /// each event is appended only once, even if it is passed again after a crash. The default
    /// implementation calls `append`. That is sufficient for a log that recognizes duplicates by
    /// `source` and `id`.
    fn emit(&self, emitted: Emitted, done: AppendDone) {
        self.append(emitted.events, done);
    }

    /// Registers `waker`. As long as the log exists, the log calls `waker` each time events become
    /// readable in a partition.
    fn on_append(&self, waker: Waker);

    /// Blocks until a [`Log::read`] from `from` may return something other than
    /// [`LogRead::Pending`], or until `timeout` has passed.
    fn wait(&self, _partition: PartitionId, _from: Offset, _timeout: Duration) {}

    /// Returns the name of the partition for display, if the partition has a name in addition to
    /// its number.
    fn partition_name(&self, _partition: PartitionId) -> Option<String> {
        None
    }

    /// Returns the identity of the partition. If a partition was deleted and recreated under the
    /// same name, the new one has another identity, although it may have the same offsets. `None`
    /// if the log has no identities, or cannot find out this one now.
    fn identity(&self, _partition: PartitionId) -> Option<Arc<str>> {
        None
    }

    /// Returns the incarnation of the log that wrote the last event before `offset`, or `None` if
    /// it is not known. An incarnation is a random number that is drawn each time the log is
    /// opened. If a log was restored from a copy and then got other events, these have another
    /// incarnation than in the original.
    fn incarnation_at(&self, partition: PartitionId, _offset: Offset) -> Option<u64> {
        self.identity(partition).map(|identity| crate::incarnation_of(&identity))
    }

    /// Returns warnings: reasons why results are less reliable than usual although the log works.
    /// Each is one sentence.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns failures of parts of the log that no other method reports. Each is one sentence with
    /// the reason.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A function that the log calls once with the result of an append, on a thread of the log.
pub type AppendDone = Box<dyn FnOnce(Result<Appended, LogError>) + Send>;

/// A function that the log calls when a partition has new events. Its arguments are the partition
/// and, if the log already knows them, the types of the events. The function must return quickly
/// and must not block.
pub type Waker = Arc<dyn Fn(PartitionId, Option<&[String]>) + Send + Sync>;

/// How far the time of an event may be ahead of its append time, in microseconds. An event that is
/// further ahead does not change [`PartitionBounds::max_time`].
pub const AHEAD_MAX_US: i64 = 60_000_000;

/// The offsets and the event time of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The offset of the oldest event that is kept.
    pub start: Offset,
    /// The offset that the next event gets.
    pub end: Offset,
    /// The highest event time, without events that were further ahead of their append time than
    /// [`AHEAD_MAX_US`]. It is [`Timestamp::MIN`] if there are no other events. Heartbeats and the
    /// status use it. The watermark of a projection follows from `engine.ahead_max_s` instead.
    pub max_time: Timestamp,
}

/// What [`Log::read`] returns.
#[derive(Clone, Debug)]
pub enum LogRead {
    /// A chunk with at least one matching event at or after the requested offset.
    Chunk(Arc<Chunk>),
    /// There is no matching event before `next`, which is after the requested offset.
    Skipped {
        /// The offset at which the caller continues to read.
        next: Offset,
    },
    /// The requested offset is the partition's end, so there is nothing to read.
    End,
    /// The events are not available yet. Once a read from the same offset may return them, the log
    /// calls the waker, and [`Log::wait`] returns.
    Pending,
}

/// Consecutive events from the outbox of a shard, to be appended to the log.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The name of the outbox. No other outbox ever has this name, and the events of each outbox
    /// are numbered from 0.
    pub outbox: String,
    /// The partition that the shard folds.
    pub partition: PartitionId,
    /// The number of the first event. The next events have the next numbers, without gaps.
    pub first: u64,
    /// The events that were read.
    pub events: Events,
}

/// Where events were appended. The places have the order of the events in the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The place of each event.
    pub events: Vec<AppendedEvent>,
}

/// Where one event was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// The partition of the event.
    pub partition: PartitionId,
    /// The offset of the event. For a duplicate, this is the offset of the event that the log
    /// already had.
    pub offset: Offset,
    /// Whether the deduplication window already had an event of this tenant, `source` and `id`.
    /// In this case the new event was not appended.
    pub duplicate: bool,
    /// For a duplicate: whether its content differs from the content of the event that the log
    /// already had.
    pub differs: bool,
}

/// Why the log cannot do what was requested.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The event at the requested offset was deleted by retention.
    #[error(
        "offset {from} of partition {partition} is not in the log any more: the log begins at {start}"
    )]
    OutOfRange {
        /// The partition that was read.
        partition: PartitionId,
        /// The offset from which the caller wanted to read.
        from: Offset,
        /// The oldest offset that is kept.
        start: Offset,
    },
    /// The log ends before an offset that it had earlier. Either it has lost events, or it is
    /// another log.
    #[error(
        "offset {from} of partition {partition} is not in the log, which ends at {end}: the log has lost events, or it is another log"
    )]
    Lost {
        /// The partition that was read.
        partition: PartitionId,
        /// The offset from which the caller wanted to read.
        from: Offset,
        /// The offset at which the partition ends.
        end: Offset,
    },
    /// There is no such partition.
    #[error("the log has no partition {0}")]
    NoPartition(PartitionId),
    /// The log refuses one of the events permanently, so repeating the append cannot succeed. If
    /// [`Log::emit`] returns this, nothing was appended. If [`Log::append`] over Kafka returns
    /// this, `appended` of the other events were appended.
    #[error("{reason}{}", others(*.appended))]
    Rejected {
        /// The index of the refused event in the append.
        index: usize,
        /// How many of the other events are in the log.
        appended: usize,
        /// Why the log refuses the event.
        reason: RejectedEvent,
    },
    /// This log cannot import exported events. Contains the reason.
    #[error("the events cannot be imported as they are: {0}")]
    NoImport(String),
    /// The log cannot append anything now. This may be temporary.
    #[error("the log accepts no events now: {0}")]
    Unavailable(#[source] ErrorCause),
    /// The log cannot append because the disk is full.
    #[error("the disk is full: {0}")]
    Full(#[source] ErrorCause),
    /// Data that the log has stored is damaged.
    #[error("the log is damaged: {0}")]
    Damaged(#[source] ErrorCause),
    /// The log was closed, so it accepts no more calls.
    #[error("the log is closed")]
    Closed,
}

/// Why the log refuses an event permanently.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedEvent {
    /// The event is larger than the log allows.
    #[error("event {event} takes {bytes} bytes in the log: {limit}")]
    TooLarge {
        /// The id and source of the event, as text.
        event: String,
        /// The size of the event in the log, in bytes.
        bytes: usize,
        /// The value and the name of the limit.
        limit: String,
    },
    /// The log refuses the event for another reason.
    #[error("event {event} is refused: {reason}")]
    Refused {
        /// The id and source of the event, as text.
        event: String,
        /// The reason of the refusal, as text.
        reason: String,
    },
}

fn others(appended: usize) -> String {
    match appended {
        0 => String::new(),
        1 => "; 1 other event was appended".into(),
        count => format!("; {count} other events were appended"),
    }
}
