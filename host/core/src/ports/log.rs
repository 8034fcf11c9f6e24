//! The event log.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::{Chunk, ErrorCause, EventRef, Events, Offset, PartitionId, Timestamp, TypeFilter};

/// An event log: partitions of events with rising offsets.
pub trait Log: Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// The bounds of the partition.
    ///
    /// # Errors
    /// [`LogError`] if it cannot be read.
    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError>;

    /// Returns the chunk with the first event at or after `from` that matches `types`, or
    /// reports that there is no such event before some offset. A chunk may begin before
    /// `from`, and may contain events of other types.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] if retention has deleted the event at `from`.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        types: &TypeFilter,
    ) -> Result<LogRead, LogError>;

    /// The first offset whose event was appended at or after `time`; the partition's end
    /// if there is none.
    ///
    /// # Errors
    /// [`LogError`] if it cannot be read.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError>;

    /// Appends all of `events` or none, and calls `done` once they are durable. Does not
    /// block for long; callers limit the number of pending appends.
    fn append(&self, events: Events, done: AppendDone);

    /// Imports events that were exported from another log into a log that must be empty.
    /// `appended` contains their append times in the other log, one for each event.
    fn import(&self, _events: Events, _appended: Vec<Timestamp>, done: AppendDone) {
        done(Err(LogError::NoImport("this log sets append times itself".into())));
    }

    /// The partition to which an event like this one is appended; `None` if that does not
    /// depend on the event alone.
    fn partition_of(&self, _event: &EventRef<'_>) -> Option<PartitionId> {
        None
    }

    /// Appends events that a shard has emitted. Each event is appended only once, even if it is
    /// passed again after a crash. In all other respects this is [`Log::append`], which is also
    /// the default implementation: it is sufficient for a log that recognizes duplicates by
    /// `source` and `id`.
    fn emit(&self, emitted: Emitted, done: AppendDone) {
        self.append(emitted.events, done);
    }

    /// Registers `waker`, which is called each time events become readable in a
    /// partition, as long as the log exists.
    fn on_append(&self, waker: Waker);

    /// Blocks until [`Log::read`] from `from` may return something else than
    /// [`LogRead::Pending`], or until `timeout` has passed.
    fn wait(&self, _partition: PartitionId, _from: Offset, _timeout: Duration) {}

    /// The name of the partition for display, if it has one besides its number.
    fn partition_name(&self, _partition: PartitionId) -> Option<String> {
        None
    }

    /// The identity of the partition. A partition that was deleted and recreated under the same
    /// name has another identity, although it may have the same offsets. `None` if the log has
    /// no identities, or does not know this one at present.
    fn identity(&self, _partition: PartitionId) -> Option<Arc<str>> {
        None
    }

    /// The incarnation of the log that wrote the event before `offset`: a random number that is
    /// drawn each time the log is opened. It shows whether a log is the original, or was
    /// restored from a copy and then got other events. `None` if the incarnation is not known.
    fn incarnation_at(&self, partition: PartitionId, _offset: Offset) -> Option<u64> {
        self.identity(partition).map(|identity| crate::incarnation_of(&identity))
    }

    /// Reasons why results are less reliable than usual although the log works, one sentence
    /// each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reasons why a part of the log does not work, if no other method reports them, one
    /// sentence each.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Called once with the result of an append, on a thread of the log.
pub type AppendDone = Box<dyn FnOnce(Result<Appended, LogError>) + Send>;

/// Called when a partition has new events, with their types if the log knows them at that
/// time. Must return quickly and must not block.
pub type Waker = Arc<dyn Fn(PartitionId, Option<&[String]>) + Send + Sync>;

/// In microseconds. If the time of an event is further ahead of its append time than this, the
/// event does not count in [`PartitionBounds::max_time`].
pub const AHEAD_MAX_US: i64 = 60_000_000;

/// The offsets and the event time of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The oldest offset that is kept.
    pub start: Offset,
    /// The offset that the next event gets.
    pub end: Offset,
    /// The highest event time, without events that were further ahead of their append time
    /// than [`AHEAD_MAX_US`]; [`Timestamp::MIN`] if there is none. It is used for
    /// heartbeats and the status. The watermark of a projection does not depend on it, but
    /// on `engine.ahead_max_s`.
    pub max_time: Timestamp,
}

/// The result of [`Log::read`].
#[derive(Clone, Debug)]
pub enum LogRead {
    /// A chunk with at least one matching event at or after the requested offset.
    Chunk(Arc<Chunk>),
    /// There is no matching event before `next`, which is after the requested offset.
    Skipped {
        /// The offset at which to continue.
        next: Offset,
    },
    /// The requested offset is the partition's end.
    End,
    /// The read is pending. The waker is called, and [`Log::wait`] returns, once another
    /// read may return more.
    Pending,
}

/// Consecutive events of a shard's outbox.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The name of the outbox, which no other outbox ever has. Numbers begin at 0 in each
    /// outbox.
    pub outbox: String,
    /// The shard's partition.
    pub partition: PartitionId,
    /// The number of the first event; the numbers of the others follow without gaps.
    pub first: u64,
    /// The events.
    pub events: Events,
}

/// The places of appended events, in the order in which they were passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// One entry for each event.
    pub events: Vec<AppendedEvent>,
}

/// The place of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// The partition.
    pub partition: PartitionId,
    /// The offset; for a duplicate, that of the first event.
    pub offset: Offset,
    /// Whether the deduplication window already had an event of this tenant, `source` and `id`.
    /// In this case the new event was not appended.
    pub duplicate: bool,
    /// For a duplicate: whether the content of the first event is different.
    pub differs: bool,
}

/// Why the log cannot do what was requested.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Retention has deleted the event at the offset.
    #[error(
        "offset {from} of partition {partition} is not in the log any more: the log begins at {start}"
    )]
    OutOfRange {
        /// The partition.
        partition: PartitionId,
        /// The requested offset.
        from: Offset,
        /// The oldest offset that is kept.
        start: Offset,
    },
    /// The log ends before an offset that existed before: events were lost, or it is
    /// another log.
    #[error(
        "offset {from} of partition {partition} is not in the log, which ends at {end}: the log has lost events, or it is another log"
    )]
    Lost {
        /// The partition.
        partition: PartitionId,
        /// The requested offset.
        from: Offset,
        /// The partition's end.
        end: Offset,
    },
    /// There is no such partition.
    #[error("the log has no partition {0}")]
    NoPartition(PartitionId),
    /// The log refuses one of the events for good: repeating the append cannot succeed.
    /// After [`Log::emit`] nothing was appended. After [`Log::append`] over Kafka,
    /// `appended` of the other events were appended.
    #[error("{reason}{}", others(*.appended))]
    Rejected {
        /// The index of the refused event.
        index: usize,
        /// How many of the other events are in the log.
        appended: usize,
        /// Why.
        reason: RejectedEvent,
    },
    /// Exported events cannot be imported into this log.
    #[error("the events cannot be imported as they are: {0}")]
    NoImport(String),
    /// Nothing can be appended now; this may be temporary.
    #[error("the log accepts no events now: {0}")]
    Unavailable(#[source] ErrorCause),
    /// The disk is full.
    #[error("the disk is full: {0}")]
    Full(#[source] ErrorCause),
    /// Stored data is damaged.
    #[error("the log is damaged: {0}")]
    Damaged(#[source] ErrorCause),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why the log refuses an event for good.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedEvent {
    /// It is larger than the log allows.
    #[error("event {event} takes {bytes} bytes in the log: {limit}")]
    TooLarge {
        /// The event's id and source, as text.
        event: String,
        /// The size of the event in the log, in bytes.
        bytes: usize,
        /// The limit's value and name.
        limit: String,
    },
    /// The log refuses it for another reason.
    #[error("event {event} is refused: {reason}")]
    Refused {
        /// The event's id and source, as text.
        event: String,
        /// Why.
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
