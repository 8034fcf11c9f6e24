//! Plugins, their instances, and the host calls that they may make.

use std::any::Any;
use std::time::Duration;

use thiserror::Error;

use crate::{Cause, Events, Manifest, Offset, PartitionId, ReadValues, TableId, Timestamp};

/// A compiled plugin with its parameters. It creates instances.
pub trait Plugin: Send + Sync {
    /// The manifest that its `setup` returned.
    fn manifest(&self) -> &Manifest;

    /// Creates an instance and calls its `setup`.
    ///
    /// # Errors
    /// [`InstantiateError`]; [`InstantiateError::Changed`] if `setup` returned another
    /// manifest than before.
    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError>;
}

/// Why no instance could be created.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum InstantiateError {
    /// `setup` failed or trapped.
    #[error("setup failed: {0}")]
    Setup(String),
    /// The manifest differs from the one at upload.
    #[error("setup returned a different manifest than at upload: {0}")]
    Changed(String),
    /// The host has no room for another instance; this may be temporary.
    #[error("no instance can be created now: {0}")]
    Host(String),
}

/// A running instance of a plugin. It may be dropped at any time: its memory is only a
/// cache.
pub trait Instance: Send {
    /// Applies `batch`. `host` executes the host calls of the plugin, and is returned in the
    /// outcome. `fuel` limits the call. After any error the instance must not be used again.
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome;
}

/// The outcome of [`Instance::apply`].
pub struct ApplyOutcome {
    /// The `host` that was passed to the call.
    pub host: Box<dyn Host>,
    /// Whether the batch was applied.
    pub result: Result<(), ApplyError>,
    /// The fuel that the call used.
    pub fuel: u64,
    /// The linear memory of the instance after the call, in bytes.
    pub memory_bytes: u64,
    /// How long the call took.
    pub elapsed: Duration,
}

/// Consecutive events of one partition, as a plugin receives them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The partition.
    pub partition: PartitionId,
    /// Timers that are due, in order of time and key.
    pub timers: Vec<Timer>,
    /// The watermark at which the timers fire. Events that are older than it are late.
    pub watermark: Timestamp,
    /// Each event's offset.
    pub offsets: Vec<u64>,
    /// The watermark before each event.
    pub watermarks: Vec<Timestamp>,
    /// For each event, the time from which the retention of its rows counts. It is needed only
    /// while the shard has no watermark; later the list is empty. It is the event's time, or an
    /// earlier time if the event is too far ahead: then it is the latest time with which the
    /// event could move the watermark. The plugin does not receive it.
    pub times_before_watermark: Vec<Timestamp>,
    /// The emit depth of each event; empty if the plugin emits no events. The plugin does
    /// not receive it.
    pub depths: Vec<u32>,
    /// The events. Columns that neither the plugin nor the host needs are empty. The
    /// plugin receives those that it requested.
    pub events: Events,
}

impl Batch {
    /// The number of timers and events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len() + self.offsets.len()
    }

    /// Whether it holds neither timers nor events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cause that names event `index`.
    ///
    /// # Panics
    /// If the batch has 2^32 timers and events or more; callers limit it far below.
    #[must_use]
    pub fn cause_of_event(&self, index: usize) -> Cause {
        let cause = u32::try_from(self.timers.len() + index);
        Cause(cause.expect("a batch holds fewer than 2^32 timers and events"))
    }
}

/// A timer that is due.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timer {
    /// The time that the plugin set.
    pub at: Timestamp,
    /// The key.
    pub key: String,
    /// The offset of the event that set it.
    pub offset: Offset,
    /// The depth of that event in a chain of emitted events.
    pub depth: u32,
}

/// Why a batch was not applied. None of its changes is kept.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plugin returned an error.
    #[error("{message}")]
    Failed {
        /// The timer or event that the plugin blames.
        cause: Option<Cause>,
        /// Why.
        message: String,
    },
    /// The plugin trapped or exceeded a limit.
    #[error("{message}")]
    Trapped {
        /// How.
        kind: TrapKind,
        /// The reason as text; names the limit if one was exceeded.
        message: String,
        /// The guest's stack; may be empty.
        backtrace: String,
    },
    /// A fault of the host, not of the event. Try again.
    #[error("{0}")]
    Fault(String),
}

/// How a plugin trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapKind {
    /// A WebAssembly trap, such as unreachable, out of bounds or stack overflow.
    Trap,
    /// The fuel ran out.
    Fuel,
    /// It requested more memory, tables or handles than allowed.
    Memory,
    /// It exceeded a limit of a host call, or made an invalid host call.
    HostCall,
}

/// The host calls of a plugin during one call. Writes go to a buffer of the call. A read
/// returns the value in this buffer or, if it has none, the value before the call. Each write
/// names its cause. Only this timer or event decides whether the write is allowed.
pub trait Host: Send + Any {
    /// The value under `key` of `table`.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Looks up the `keys` that have no value in `values` yet, in `table`, and adds their
    /// values. All values are in memory at the same time, so pass only a few keys: values may
    /// be large.
    ///
    /// # Errors
    /// The errors of [`Host::get`].
    fn get_many(
        &mut self,
        table: TableId,
        keys: &[&str],
        values: &mut ReadValues,
    ) -> Result<(), HostError> {
        values.complete(keys, |key| self.get(table, key))
    }

    /// Writes `value` under `key`.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn put(
        &mut self,
        cause: Cause,
        table: TableId,
        key: &str,
        value: &[u8],
    ) -> Result<(), HostError>;

    /// Deletes the row under `key`, if there is one.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn delete(&mut self, cause: Cause, table: TableId, key: &str) -> Result<(), HostError>;

    /// Up to `limit` rows with keys from `start` to before `end`. If `end` is empty, up to the
    /// last key of the table.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn scan(
        &mut self,
        table: TableId,
        start: &str,
        end: &str,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<Row>, HostError>;

    /// Sets the timer of `key` to `at`; a timer of this key that is already set is moved.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn set_timer(&mut self, cause: Cause, at: Timestamp, key: &str) -> Result<(), HostError>;

    /// Cancels the timer of `key`, if there is one.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn cancel_timer(&mut self, cause: Cause, key: &str) -> Result<(), HostError>;

    /// Emits an event.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn emit(&mut self, event: NewEvent) -> Result<(), HostError>;

    /// Rejects an event: the event is parked with `message`, and no other result of the call
    /// depends on it.
    ///
    /// # Errors
    /// [`HostError`], which ends the call. The default implementation does not support
    /// rejections and always returns it.
    fn reject(&mut self, cause: Cause, message: &str) -> Result<(), HostError> {
        Err(HostError::Guest(format!(
            "{} was rejected, but this host does not support rejected events: {message}",
            cause.0
        )))
    }

    /// Logs a message. There is no cause if only the call as a whole is known, for
    /// instance for text that a guest writes to its standard output.
    ///
    /// # Errors
    /// [`HostError`], which ends the call.
    fn log(&mut self, cause: Option<Cause>, level: Level, message: &str) -> Result<(), HostError>;

    /// Converts the host, so that the caller can downcast it to its own type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Why a host call ended the call of the plugin.
#[derive(Clone, Debug, Error)]
pub enum HostError {
    /// A fault of the plugin.
    #[error("{0}")]
    Guest(String),
    /// A fault of the host.
    #[error("{0}")]
    Fault(String),
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

/// An event that a plugin emits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// The timer or event that caused it.
    pub cause: Cause,
    /// The type.
    pub kind: String,
    /// The subject.
    pub subject: String,
    /// The tenant; if empty, the tenant of its cause.
    pub tenant: String,
    /// The time.
    pub time: Timestamp,
    /// The payload in JSON.
    pub data: Vec<u8>,
}

/// The severity of a plugin's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Single steps, for tracing.
    Trace,
    /// Details for the plugin's developer.
    Debug,
    /// Information for operators.
    Info,
    /// Something unusual.
    Warn,
    /// An error.
    Error,
}
