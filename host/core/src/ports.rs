//! The ports: what the engine needs of a log, a store, a plugin, a catalogue, a
//! clock and a feed, as traits that a test can fake whole.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::{
    Chunk, Committed, Events, Manifest, Offset, PartitionId, ProjectionRecord, TableId, Timestamp,
    TypeFilter, VersionId,
};

// ---------------------------------------------------------------- the log

/// An event log: partitions of events under rising offsets.
pub trait Log: Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// What the partition holds.
    ///
    /// # Errors
    /// [`LogError`] where it cannot be read.
    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError>;

    /// The chunk with the first event at or after `from`, or that nothing
    /// `wanted` stands before some offset. A chunk may begin before `from` and
    /// hold types that are not wanted.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] where retention has passed `from`.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<Read, LogError>;

    /// The first offset whose event was appended with a time at or after
    /// `time`; the partition's end where there is none.
    ///
    /// # Errors
    /// [`LogError`] where it cannot be read.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError>;

    /// Appends all of `events` or none, and calls `done` once they are durable.
    /// Never blocks for long; callers bound what is under way.
    fn append(&self, events: Events, done: AppendDone);

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
    /// [`Read::Pending`], at most `timeout`.
    fn wait(&self, _partition: PartitionId, _from: Offset, _timeout: Duration) {}

    /// What people call the partition, where that is not its number alone.
    fn partition_name(&self, _partition: PartitionId) -> Option<String> {
        None
    }

    /// What the partition is, for as long as it is the same: one that was deleted
    /// and made anew under its name is another, although its offsets may look
    /// alike. `None` where the log cannot tell, or not now.
    fn identity(&self, _partition: PartitionId) -> Option<Arc<str>> {
        None
    }

    /// What people should know of the log that no answer tells: one sentence
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

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset kept.
    pub start: Offset,
    /// The next offset to be written.
    pub end: Offset,
    /// The highest event time in it; [`Timestamp::MIN`] where empty.
    pub max_time: Timestamp,
}

/// What [`Log::read`] found.
#[derive(Clone, Debug)]
pub enum Read {
    /// A chunk that holds at least one event at or after the offset asked for.
    Chunk(Arc<Chunk>),
    /// Nothing wanted stands before `next`, which is past the offset asked for.
    Skipped {
        /// Where to go on.
        next: Offset,
    },
    /// The offset asked for is the partition's end.
    End,
    /// It is on its way from elsewhere: the waker is called once asking again
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
    /// Whether an event of this `source` and `id` was there already, within the
    /// window; it was not appended again.
    pub duplicate: bool,
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

// -------------------------------------------------------------- the store

/// Names a shard's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The projection's name.
    pub projection: String,
    /// The version.
    pub version: VersionId,
    /// [`crate::VersionRecord::rebuilds`]: a rebuild writes to fresh files.
    pub rebuild: u64,
    /// The partition.
    pub partition: PartitionId,
}

/// One ordered map of bytes in a shard's file. The order of the variants is
/// part of the canonical dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// [`crate::ShardMeta`] under [`crate::ShardMeta::KEY`], and each
    /// [`crate::DecisionRecord`] under its own key.
    Meta,
    /// The rows of a table; keys are UTF-8.
    Table(TableId),
    /// Timers by due time: 8 bytes due (big-endian, sign bit flipped), key;
    /// the value is the time that was set, in 8 bytes big-endian.
    TimersByTime,
    /// Timers by key; the value is the due time as in `TimersByTime`.
    TimersByKey,
    /// Parked events by offset (8 bytes big-endian) and a running number.
    Parked,
    /// Subjects with parked events; the value counts them (8 bytes big-endian).
    ParkedSubjects,
    /// Emitted events not yet in the log, by running number.
    Outbox,
    /// The feed's change log by `pos` (8 bytes big-endian): a byte string of
    /// [`crate::TableChanges::encode`].
    Changes,
    /// When rows of tables with retention expire. Under a 0 byte, by time (8
    /// bytes as in `TimersByTime`), table (4 bytes) and key; under a 1 byte, by
    /// table and key, with the time as value.
    Expiry,
}

/// A range of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key, included.
    pub start: Vec<u8>,
    /// The key to stop before; `None` for no bound.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xFF) {
            end.pop();
        }
        let end = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self { start: prefix.to_vec(), end }
    }

    /// The keys from `start` up to but not including `end`; an empty `end` is
    /// no bound.
    #[must_use]
    pub fn of(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: (!end.is_empty()).then(|| end.to_vec()) }
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Keys and values as stored.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What one commit writes: `None` deletes.
pub type Writes = BTreeMap<Space, SpaceWrites>;

/// What to write in one space, by key; `None` deletes.
pub type SpaceWrites = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Reads of one committed state.
pub trait ReadStore: Send {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The values under `keys`, in their order.
    ///
    /// # Errors
    /// As [`ReadStore::get`].
    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(space, key)).collect()
    }

    /// At most `limit` pairs of `range` in key order, last first where `reverse`.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError>;

    /// The spaces that hold at least one pair, in order.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn spaces(&self) -> Result<Vec<Space>, StoreError>;
}

/// The state of one shard: a file. Reads see the last commit.
pub trait ShardStore: ReadStore + Sync {
    /// Writes all of `writes`, durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then.
    fn commit(&self, writes: &Writes) -> Result<(), StoreError>;

    /// A view of the last commit that later commits do not change. Keeps old
    /// pages alive, so hold it briefly.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be opened.
    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError>;

    /// The bytes the state takes on disk.
    fn disk_bytes(&self) -> u64;
}

/// Opens and removes shards' states.
pub trait StateStores: Send + Sync {
    /// Opens the state of `shard`, empty where there is none yet.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be opened or is damaged.
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// A state that lives in memory only, for determinism checks and tests.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be made.
    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError>;

    /// A state for one large piece of work, gone with its last handle. It may be
    /// larger than memory where the store has a disk.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be made.
    fn temporary(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.scratch()
    }

    /// Removes the states of all shards of one build of a version.
    ///
    /// # Errors
    /// [`StoreError`] where files cannot be removed.
    fn remove(&self, projection: &str, version: &VersionId, rebuild: u64)
    -> Result<(), StoreError>;
}

/// Why a store cannot do what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk has no room.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is stored is damaged, or of a later format.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// Another process has the file open.
    #[error("`{0}` is in use by another process")]
    InUse(String),
    /// Reading or writing failed.
    #[error("the state cannot be read or written: {0}")]
    Io(String),
}

/// Keeps the projections and their versions.
pub trait Catalog: Send + Sync {
    /// All projections, by name.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError>;

    /// Stores `record` in place of the one of its name, durably.
    ///
    /// # Errors
    /// [`StoreError`]; the old one stands then.
    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError>;

    /// Removes the record named `name`, if there is one, durably.
    ///
    /// # Errors
    /// [`StoreError`]; the record stands then.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

// ------------------------------------------------------------- the plugin

/// A compiled plugin with its parameters: makes instances.
pub trait Plugin: Send + Sync {
    /// What its `setup` answered.
    fn manifest(&self) -> &Manifest;

    /// A fresh instance, set up.
    ///
    /// # Errors
    /// [`InstantiateError`]; [`InstantiateError::Changed`] where `setup`
    /// answered otherwise than before.
    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError>;
}

/// Why no instance could be made.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum InstantiateError {
    /// `setup` failed or trapped.
    #[error("setup failed: {0}")]
    Setup(String),
    /// The manifest is another than at upload.
    #[error("setup answered another manifest than at upload: {0}")]
    Changed(String),
    /// The host has no room for another instance; may pass.
    #[error("no instance can be made now: {0}")]
    Host(String),
}

/// A running instance of a plugin. Its memory is only a cache.
pub trait Instance: Send {
    /// Applies `batch`. `host` answers the calls the plugin makes meanwhile,
    /// and is handed back. `fuel` bounds the call. After any error the instance
    /// must not be used again.
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> Applied;
}

/// The outcome of [`Instance::apply`].
pub struct Applied {
    /// The host that was given.
    pub host: Box<dyn Host>,
    /// Whether the batch was applied.
    pub result: Result<(), ApplyError>,
    /// Fuel the call used.
    pub fuel: u64,
    /// Bytes of linear memory the instance holds now.
    pub memory_bytes: u64,
    /// How long the call took.
    pub elapsed: Duration,
}

/// Consecutive events of one partition, as handed to a plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Whose.
    pub partition: PartitionId,
    /// Timers now due, by time then key.
    pub timers: Vec<Timer>,
    /// No event older than this is expected any more.
    pub watermark: Timestamp,
    /// Each event's offset.
    pub offsets: Vec<u64>,
    /// The events; columns not asked for are empty.
    pub events: Events,
}

/// A timer that is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// The time it was set to.
    pub at: Timestamp,
    /// Its key.
    pub key: String,
}

/// Why a batch was not applied; nothing of it is kept.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plugin said so.
    #[error("{message}")]
    Failed {
        /// The place in the batch of the event it blames.
        event: Option<u32>,
        /// Why.
        message: String,
    },
    /// The plugin trapped or passed a limit.
    #[error("{message}")]
    Trapped {
        /// How.
        kind: TrapKind,
        /// For people; quotes the limit where one was passed.
        message: String,
        /// The guest's stack; may be empty.
        backtrace: String,
    },
    /// The host's fault, not the event's: to be tried again.
    #[error("{0}")]
    Fault(String),
}

/// How a plugin trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapKind {
    /// A WebAssembly trap: unreachable, out of bounds, stack overflow…
    Trap,
    /// Its fuel ran out.
    Fuel,
    /// It wanted more memory, tables or handles than allowed.
    Memory,
    /// It passed a limit of a host call, or called one wrongly.
    HostCall,
}

/// The calls a plugin may make while it is applied. Writes go to the call's
/// own buffer; reads see the buffer, then what was applied before.
pub trait Host: Send + Any {
    /// The value under `key` of `table`.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// The values under `keys` of `table`, in their order. All of them are in
    /// memory at once: ask for so few that they may be of any size.
    ///
    /// # Errors
    /// As [`Host::get`].
    fn get_many(
        &mut self,
        table: TableId,
        keys: &[&str],
    ) -> Result<Vec<Option<Vec<u8>>>, HostError> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    /// Puts `value` under `key`.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn put(&mut self, table: TableId, key: &str, value: &[u8]) -> Result<(), HostError>;

    /// Deletes the row under `key`, if there is one.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn delete(&mut self, table: TableId, key: &str) -> Result<(), HostError>;

    /// At most `limit` rows from `start` up to `end` (empty: no bound).
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn scan(
        &mut self,
        table: TableId,
        start: &str,
        end: &str,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<Row>, HostError>;

    /// Sets, or moves, the timer of `key`.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn set_timer(&mut self, at: Timestamp, key: &str) -> Result<(), HostError>;

    /// Cancels the timer of `key`, if there is one.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn cancel_timer(&mut self, key: &str) -> Result<(), HostError>;

    /// Emits an event.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn emit(&mut self, event: NewEvent) -> Result<(), HostError>;

    /// Logs a message.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn log(&mut self, level: Level, message: &str) -> Result<(), HostError>;

    /// The host itself, for whoever made it to have it back whole.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Why a host call ended the plugin's call.
#[derive(Clone, Debug, Error)]
pub enum HostError {
    /// The plugin's fault.
    #[error("{0}")]
    Guest(String),
    /// The host's fault.
    #[error("{0}")]
    Fault(String),
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// An event a plugin emits.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewEvent {
    /// The offset of the event that caused it.
    pub cause: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its subject.
    pub subject: String,
    /// Its tenant.
    pub tenant: String,
    /// Its time.
    pub time: Timestamp,
    /// Its payload, JSON.
    pub data: Vec<u8>,
}

/// How grave a plugin's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For tracing single steps.
    Trace,
    /// For the plugin's developer.
    Debug,
    /// For operators.
    Info,
    /// Something is off.
    Warn,
    /// Something is wrong.
    Error,
}

// --------------------------------------------------- the feed and the clock

/// Takes the commits of active versions, to push them to readers.
pub trait Publish: Send + Sync {
    /// A shard of an active version committed. Called in order of `pos` for one
    /// shard; must be quick and must not block.
    fn committed(&self, commit: &Arc<Committed>);

    /// Another version serves `projection` now, or the same with a new state,
    /// or (`None`) it is gone.
    fn activated(&self, projection: &str, epoch: Option<&str>);
}

/// Time, for pacing and back-off; never for what ends up in a table.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// CPU time of the calling thread, also since some fixed moment; zero where
    /// nobody measures it.
    fn thread_cpu(&self) -> Duration {
        Duration::ZERO
    }

    /// Time of day.
    fn wall(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_all_ones_has_no_end() {
        assert_eq!(KeyRange::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(KeyRange::prefix(&[1, 0xFF]).end, Some(vec![2]));
        assert_eq!(KeyRange::prefix(&[0xFF, 0xFF]).end, None);
        assert_eq!(KeyRange::prefix(b"").end, None);
    }
}
