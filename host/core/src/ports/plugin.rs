//! Plugins, their instances, and what they may call.

use std::any::Any;
use std::time::Duration;

use thiserror::Error;

use crate::{Cause, Events, Manifest, Offset, PartitionId, ReadValues, TableId, Timestamp};

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
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome;
}

/// The outcome of [`Instance::apply`].
pub struct ApplyOutcome {
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
    /// The watermark at which the timers fire: no event older than this is
    /// expected any more.
    pub watermark: Timestamp,
    /// Each event's offset.
    pub offsets: Vec<u64>,
    /// The watermark at each event, before the event itself moves it.
    pub watermarks: Vec<Timestamp>,
    /// As long as there is no watermark: each event's time, but no later than an event
    /// that is appended with it may move the watermark. Else empty. Retention of rows
    /// counts from it. Not handed to the plugin.
    pub times_before_watermark: Vec<Timestamp>,
    /// How deep each event is in a chain of emitted events; empty if the plugin emits
    /// none. Not handed to the plugin.
    pub depths: Vec<u32>,
    /// The events. Columns that neither the plugin nor the host needs are empty;
    /// a plugin is handed those that it asks for.
    pub events: Events,
}

impl Batch {
    /// How many timers and events it holds.
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
    /// If the batch holds 2^32 timers and events or more; callers bound it far
    /// below.
    #[must_use]
    pub fn cause_of_event(&self, index: usize) -> Cause {
        let cause = u32::try_from(self.timers.len() + index);
        Cause(cause.expect("a batch holds fewer than 2^32 timers and events"))
    }
}

/// A timer that is due.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timer {
    /// The time it was set to.
    pub at: Timestamp,
    /// Its key.
    pub key: String,
    /// The offset of the event that set it.
    pub offset: Offset,
    /// How deep that event is in a chain of emitted events.
    pub depth: u32,
}

/// Why a batch was not applied; nothing of it is kept.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plugin said so.
    #[error("{message}")]
    Failed {
        /// The timer or event that it blames.
        cause: Option<Cause>,
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
/// own buffer; reads see the buffer, then what was applied before. Each write
/// names its cause, and is judged by that timer or event alone.
pub trait Host: Send + Any {
    /// The value under `key` of `table`.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Finds the values under those of `keys` of `table` that `values` lacks. All
    /// of them are in memory at once: ask for so few that they may be of any
    /// size.
    ///
    /// # Errors
    /// As [`Host::get`].
    fn get_many(
        &mut self,
        table: TableId,
        keys: &[&str],
        values: &mut ReadValues,
    ) -> Result<(), HostError> {
        values.complete(keys, |key| self.get(table, key))
    }

    /// Puts `value` under `key`.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
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
    /// [`HostError`]; the call is over then.
    fn delete(&mut self, cause: Cause, table: TableId, key: &str) -> Result<(), HostError>;

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
    fn set_timer(&mut self, cause: Cause, at: Timestamp, key: &str) -> Result<(), HostError>;

    /// Cancels the timer of `key`, if there is one.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn cancel_timer(&mut self, cause: Cause, key: &str) -> Result<(), HostError>;

    /// Emits an event.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn emit(&mut self, event: NewEvent) -> Result<(), HostError>;

    /// Logs a message; without a cause if only the call as a whole is known, as text that a guest writes to its standard output.
    ///
    /// # Errors
    /// [`HostError`]; the call is over then.
    fn log(&mut self, cause: Option<Cause>, level: Level, message: &str) -> Result<(), HostError>;

    /// The host itself, so that the caller gets it back whole.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// The timer or event that caused it.
    pub cause: Cause,
    /// Its type.
    pub kind: String,
    /// Its subject.
    pub subject: String,
    /// Its tenant; empty for that of its cause.
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
