//! The event log.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::{Chunk, EventRef, Events, Offset, PartitionId, Timestamp, TypeFilter};

/// An event log: partitions of events under rising offsets.
pub trait Log: Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// What the partition holds.
    ///
    /// # Errors
    /// [`LogError`] where it cannot be read.
    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError>;

    /// The chunk with the first event at or after `from`, or that nothing
    /// `types` is stored before some offset. A chunk may begin before `from` and
    /// hold types that are not wanted.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] where retention has passed `from`.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        types: &TypeFilter,
    ) -> Result<LogRead, LogError>;

    /// The first offset whose event was appended with a time at or after
    /// `time`; the partition's end if there is none.
    ///
    /// # Errors
    /// [`LogError`] where it cannot be read.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError>;

    /// Appends all of `events` or none, and calls `done` once they are durable.
    /// Never blocks for long; callers bound what is pending.
    fn append(&self, events: Events, done: AppendDone);

    /// Appends events that were exported from another log, each with the time at which
    /// that one had taken it (one an event), into a log that holds nothing else.
    fn import(&self, _events: Events, _appended: Vec<Timestamp>, done: AppendDone) {
        done(Err(LogError::NoImport("this log keeps its own append times".into())));
    }

    /// The partition that an event like this one is appended to, if the log decides
    /// that by the event alone.
    fn partition_of(&self, _event: &EventRef<'_>) -> Option<PartitionId> {
        None
    }

    /// Appends what a shard has emitted, each event once, although a stretch may
    /// be handed over again after a crash. Else as [`Log::append`], which is what
    /// a log does that knows events again by `source` and `id`.
    fn emit(&self, emitted: Emitted, done: AppendDone) {
        self.append(emitted.events, done);
    }

    /// Has `waker` called each time events became readable in a partition, for as
    /// long as the log lives.
    fn on_append(&self, waker: Waker);

    /// Blocks until [`Log::read`] from `from` may answer other than
    /// [`LogRead::Pending`], at most `timeout`.
    fn wait(&self, _partition: PartitionId, _from: Offset, _timeout: Duration) {}

    /// What people call the partition, where that is not its number alone.
    fn partition_name(&self, _partition: PartitionId) -> Option<String> {
        None
    }

    /// What the partition is, for as long as it is the same: one that was deleted
    /// and recreated under its name is another, although its offsets may look
    /// alike. `None` if the log does not know, or not now.
    fn identity(&self, _partition: PartitionId) -> Option<Arc<str>> {
        None
    }

    /// Which opening of the log wrote the event before `offset`: a random number
    /// that each opening draws, so that a log that was copied back and continued
    /// differently differs from the one before. `None` if that is not known.
    fn incarnation_at(&self, partition: PartitionId, _offset: Offset) -> Option<u64> {
        self.identity(partition).map(|identity| crate::incarnation_of(&identity))
    }

    /// What makes results less trustworthy although the log works: one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why part of the log does not work, where no other answer tells: one sentence
    /// each.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Called once with an append's outcome, on a thread of the log's.
pub type AppendDone = Box<dyn FnOnce(Result<Appended, LogError>) + Send>;

/// Called, quickly and without blocking, when a partition has new events, with
/// their types where the log knows them at that point.
pub type Waker = Arc<dyn Fn(PartitionId, Option<&[String]>) + Send + Sync>;

/// How far ahead of its append an event may be and still count in
/// [`PartitionBounds::max_time`], in microseconds.
pub const AHEAD_MAX_US: i64 = 60_000_000;

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The oldest offset kept.
    pub start: Offset,
    /// The next offset to be written.
    pub end: Offset,
    /// The highest event time in it, without events that were further ahead of
    /// their append than [`AHEAD_MAX_US`]; [`Timestamp::MIN`] if there is none.
    /// For heartbeats and for people: a projection decides by the event's append
    /// time and its own setting.
    pub max_time: Timestamp,
}

/// What [`Log::read`] found.
#[derive(Clone, Debug)]
pub enum LogRead {
    /// A chunk that holds at least one event at or after the offset asked for.
    Chunk(Arc<Chunk>),
    /// Nothing wanted is stored before `next`, which is past the offset asked for.
    Skipped {
        /// Where to go on.
        next: Offset,
    },
    /// The offset asked for is the partition's end.
    End,
    /// The read is pending: the waker is called once asking again
    /// may bring more, or [`Log::wait`] returns.
    Pending,
}

/// What a shard has emitted: a stretch of its outbox.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Names the outbox, and no other one ever: numbers begin at 0 in each.
    pub outbox: String,
    /// The partition whose shard it is.
    pub partition: PartitionId,
    /// The number of the first event; the others follow without gaps.
    pub first: u64,
    /// The events.
    pub events: Events,
}

/// Where an append's events are, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// One an event.
    pub events: Vec<AppendedEvent>,
}

/// Where one event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset; of a duplicate, that of the first.
    pub offset: Offset,
    /// Whether an event of this tenant, `source` and `id` was there already, within
    /// the window; it was not appended again.
    pub duplicate: bool,
    /// Of a duplicate: whether the first has other content.
    pub differs: bool,
}

/// Why the log cannot do what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Retention has passed the offset.
    #[error("offset {from} of partition {partition} is gone: the log begins at {start}")]
    OutOfRange {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        from: Offset,
        /// The oldest kept.
        start: Offset,
    },
    /// The log ends before an offset that was there once: events were lost, or
    /// it is another log.
    #[error(
        "offset {from} of partition {partition} is not there any more: the log ends at {end}, so that it has lost events or is another one"
    )]
    Lost {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        from: Offset,
        /// The next to be written.
        end: Offset,
    },
    /// There is no such partition.
    #[error("the log has no partition {0}")]
    NoPartition(PartitionId),
    /// The log never takes one of the events: repeating the append cannot succeed.
    /// Of [`Log::emit`] nothing was appended; of [`Log::append`] over Kafka,
    /// `appended` of the other events were.
    #[error("{reason}{}", others(*.appended))]
    Rejected {
        /// The index of the event among those given.
        index: usize,
        /// How many of the other events are in the log.
        appended: usize,
        /// Why.
        reason: RejectedEvent,
    },
    /// Exported events cannot be imported here as they are.
    #[error("the events cannot be imported as they are: {0}")]
    NoImport(String),
    /// Nothing can be appended now; it may pass.
    #[error("the log takes no events now: {0}")]
    Unavailable(String),
    /// The disk has no room.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is stored is damaged.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why the log never takes an event.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedEvent {
    /// It is larger than the log stores.
    #[error("event {event} takes {bytes} bytes in the log, and {limit}")]
    TooLarge {
        /// The event's id and source, for people.
        event: String,
        /// The bytes that it takes.
        bytes: usize,
        /// The limit's value and name.
        limit: String,
    },
    /// The log refuses it for another reason.
    #[error("event {event} is refused: {reason}")]
    Refused {
        /// The event's id and source, for people.
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
