//! Defines plugins, their instances, and the host calls that an instance may make.

use std::any::Any;
use std::time::Duration;

use thiserror::Error;

use crate::{Cause, Events, Manifest, Offset, PartitionId, ReadValues, TableId, Timestamp};

/// A compiled plugin with its parameters, which creates instances.
pub trait Plugin: Send + Sync {
    /// Returns the manifest that the plugin's `setup` returned.
    fn manifest(&self) -> &Manifest;

    /// Creates an instance and calls its `setup`.
    ///
    /// # Errors
    /// Returns [`InstantiateError`] if no instance could be created, or
    /// [`InstantiateError::Changed`] if `setup` returned another manifest than at the upload.
    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError>;
}

/// Why no instance could be created.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum InstantiateError {
    /// The plugin's `setup` failed or trapped.
    #[error("setup failed: {0}")]
    Setup(String),
    /// The manifest that `setup` returned differs from the one at upload.
    #[error("setup returned a different manifest than at upload: {0}")]
    Changed(String),
    /// The host has no room for another instance; this may be temporary.
    #[error("no instance can be created now: {0}")]
    Host(String),
}

/// A running instance of a plugin. The host may drop it at any time, so its memory is only a cache.
pub trait Instance: Send {
    /// Applies `batch` with at most `fuel` units of fuel. `host` executes the plugin's host calls,
    /// and is returned in the outcome. After any error the instance must not be used again.
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome;
}

/// What [`Instance::apply`] returns.
pub struct ApplyOutcome {
    /// The `host` that was passed to [`Instance::apply`].
    pub host: Box<dyn Host>,
    /// Whether the batch was applied.
    pub result: Result<(), ApplyError>,
    /// The fuel that the plugin used during the call.
    pub fuel: u64,
    /// The linear memory of the instance after the call, in bytes.
    pub memory_bytes: u64,
    /// How long the call took.
    pub elapsed: Duration,
}

/// Consecutive events of one partition, and due timers, as a plugin receives them in one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The partition of the events.
    pub partition: PartitionId,
    /// The timers that are due, in order of time and key.
    pub timers: Vec<Timer>,
    /// The watermark that makes the timers due. Events with an earlier time are late.
    pub watermark: Timestamp,
    /// The offset of each event.
    pub offsets: Vec<u64>,
    /// The watermark before each event is applied.
    pub watermarks: Vec<Timestamp>,
    /// For each event, the time from which the retention of its rows is counted. The list is used
    /// only before the shard's first watermark; afterwards the list is empty. The time is normally
    /// that of the event. If the event is too far in the future, the time is the latest one that
    /// could still move the watermark. The plugin does not receive this list.
    pub times_before_watermark: Vec<Timestamp>,
    /// The emit depth of each event. The list is empty if the plugin emits no events. The plugin
    /// does not receive it.
    pub depths: Vec<u32>,
    /// The events. Columns that neither the plugin nor the host needs are empty. The plugin
    /// receives only those that it requested.
    pub events: Events,
}

impl Batch {
    /// Returns the number of timers and events together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len() + self.offsets.len()
    }

    /// Returns whether the batch holds neither timers nor events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cause that identifies event `index` of the batch.
    ///
    /// # Panics
    /// Panics if the batch has 2^32 timers and events or more; callers limit it far below.
    #[must_use]
    pub fn cause_of_event(&self, index: usize) -> Cause {
        let cause = u32::try_from(self.timers.len() + index);
        Cause(cause.expect("a batch holds fewer than 2^32 timers and events"))
    }
}

/// A timer that is due, as it is passed to a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timer {
    /// The time for which the plugin set the timer.
    pub at: Timestamp,
    /// The key under which the plugin set the timer.
    pub key: String,
    /// The offset of the event that set the timer.
    pub offset: Offset,
    /// The emit depth of the event that set the timer.
    pub depth: u32,
}

/// Why a batch was not applied. The host keeps none of the batch's changes.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plugin returned an error.
    #[error("{message}")]
    Failed {
        /// The timer or event that caused the error, if the plugin reports one.
        cause: Option<Cause>,
        /// The error message that the plugin returned.
        message: String,
    },
    /// The plugin trapped or exceeded a limit.
    #[error("{message}")]
    Trapped {
        /// The kind of the trap.
        kind: TrapKind,
        /// The reason as text. If a limit was exceeded, the text names it.
        message: String,
        /// The call stack of the plugin; may be empty.
        backtrace: String,
    },
    /// The host failed; the event is not the reason. The caller should try again.
    #[error("{0}")]
    Fault(String),
}

/// The ways in which a plugin can trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapKind {
    /// A WebAssembly trap, such as unreachable, out of bounds or stack overflow.
    Trap,
    /// The plugin used more fuel than the call allows.
    Fuel,
    /// The plugin requested more memory, tables or handles than allowed.
    Memory,
    /// The plugin exceeded a limit of a host call, or made an invalid host call.
    HostCall,
}

/// The host calls that a plugin may make while it applies a batch. Writes go to a buffer of this
/// call of `apply`. A read returns the value in this buffer or, if the buffer has none, the value
/// before the call. Each write names its cause, a timer or an event of the batch. Whether the write
/// is allowed depends on its cause alone.
pub trait Host: Send + Any {
    /// Returns the value under `key` of `table`.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the plugin's call.
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Looks up the `keys` that have no value in `values` yet, and adds the values found. All
    /// values are in memory at the same time and may be large, so pass only a few keys.
    ///
    /// # Errors
    /// Returns the errors of [`Host::get`].
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
    /// Returns [`HostError`], which ends the call.
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
    /// Returns [`HostError`], which ends the call.
    fn delete(&mut self, cause: Cause, table: TableId, key: &str) -> Result<(), HostError>;

    /// Returns up to `limit` rows with keys from `start` to before `end`. If `end` is empty, the
    /// range ends with the last key of the table.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call.
    fn scan(
        &mut self,
        table: TableId,
        start: &str,
        end: &str,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<Row>, HostError>;

    /// Sets the timer with the key `key` to the time `at`. If there already is a timer with this
    /// key, it is moved.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call.
    fn set_timer(&mut self, cause: Cause, at: Timestamp, key: &str) -> Result<(), HostError>;

    /// Cancels the timer with the key `key`, if there is one.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call.
    fn cancel_timer(&mut self, cause: Cause, key: &str) -> Result<(), HostError>;

    /// Emits an event.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call.
    fn emit(&mut self, event: NewEvent) -> Result<(), HostError>;

    /// Rejects the event `cause`: the host parks it with `message`, and applies the other results
    /// of the call.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call. The default implementation does not support
    /// rejections and always returns it.
    fn reject(&mut self, cause: Cause, message: &str) -> Result<(), HostError> {
        Err(HostError::Guest(format!(
            "{} was rejected, but this host does not support rejected events: {message}",
            cause.0
        )))
    }

    /// Logs a message of the plugin. `cause` is the timer or event to which the message belongs. It
    /// is `None` if the host does not know that, for instance if the plugin writes to its standard
    /// output.
    ///
    /// # Errors
    /// Returns [`HostError`], which ends the call.
    fn log(&mut self, cause: Option<Cause>, level: Level, message: &str) -> Result<(), HostError>;

    /// Converts the host to `Any`, so that the caller can downcast it to its own type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Why a host call ended the plugin's call of `apply`.
#[derive(Clone, Debug, Error)]
pub enum HostError {
    /// The plugin made a mistake.
    #[error("{0}")]
    Guest(String),
    /// The host failed, and not the plugin.
    #[error("{0}")]
    Fault(String),
}

/// A row of a table, as a plugin reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The key of the row.
    pub key: String,
    /// The value of the row.
    pub value: Vec<u8>,
}

/// An event that a plugin emits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// The timer or event that caused the emitted event.
    pub cause: Cause,
    /// The type of the event that the plugin emits.
    pub kind: String,
    /// The subject of the event that the plugin emits.
    pub subject: String,
    /// The tenant of the event. If it is empty, the event gets the tenant of its cause.
    pub tenant: String,
    /// The event time of the event that the plugin emits.
    pub time: Timestamp,
    /// The payload of the event that the plugin emits, in JSON.
    pub data: Vec<u8>,
}

/// The severity of a message that a plugin logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A single step, for tracing.
    Trace,
    /// A detail for the plugin's developer.
    Debug,
    /// A piece of information for operators.
    Info,
    /// The message reports something unusual.
    Warn,
    /// The message reports a failure.
    Error,
}

impl Level {
    /// Returns the name of the level in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
