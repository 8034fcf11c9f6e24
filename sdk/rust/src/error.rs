//! The errors of a projection that folds events.
//!
//! An error is data for the host, never a panic: the host parks the event and shows the
//! message.

use thiserror::Error;

/// Why an event could not be applied, or why a projection could not be set up.
///
/// A plugin creates its own errors with [`Error::new`] or from a string: `return
/// Err("cents is negative".into())`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The plugin's own error.
    #[error("{0}")]
    Plugin(String),
    /// The event's data is not the JSON that the projection expects.
    #[error("data: {0}")]
    Data(#[source] serde_json::Error),
    /// The event's data is not UTF-8.
    #[error("data: {0}")]
    NotText(#[source] std::str::Utf8Error),
    /// A member of the data does not match the projection's declaration.
    #[error("data: the member `{name}` {why}")]
    Member {
        /// The member's name.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A member was read that the manifest does not declare.
    #[error("the member `{0}` was not declared; add `.members::<…>()` to the manifest")]
    MemberNotDeclared(&'static str),
    /// An attribute was read that the manifest does not request.
    #[error(
        "the attribute `{attribute}` was not requested; add `.attributes([Attribute::{variant}])` to the manifest"
    )]
    NotAsked {
        /// The attribute's name in CloudEvents.
        attribute: &'static str,
        /// The name in [`crate::Attribute`].
        variant: &'static str,
    },
    /// A key is not allowed in this table.
    #[error("table `{table}`: key {key:?}: {why}")]
    Key {
        /// The table's name.
        table: &'static str,
        /// The key that was given.
        key: String,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// A row could not be written or read.
    #[error("table `{table}`: row {key:?}: {source}")]
    Row {
        /// The table's name.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong with it.
        source: RowError,
    },
    /// A timer was set by a projection without event time.
    #[error(
        "timer {0:?}: timers need event time; add `.event_time(lateness, tick)` to the manifest"
    )]
    NoEventTime(String),
    /// An event was emitted whose type the manifest does not declare.
    #[error("event type `{0}` is not declared; add `.emits([\"{0}\"])` to the manifest")]
    NotDeclared(String),
    /// The parameters do not match those of the projection.
    #[error("parameters: {0}")]
    Parameters(String),
    /// The manifest breaks a rule of the contract.
    #[error("manifest: {0}")]
    Manifest(String),
    /// The host passed a batch whose columns do not match each other.
    #[error("malformed batch: {0}")]
    Batch(&'static str),
}

impl Error {
    /// An error of the plugin's own: a lower-case sentence that quotes the wrong value.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Plugin(message.into())
    }
}

/// Why changed rows could not be sent to the host.
#[derive(Debug)]
pub struct FlushError {
    /// The index in the batch of the timer or event that changed the row; none if no
    /// single row is the cause.
    pub cause: Option<u32>,
    /// What is wrong with the row.
    pub error: Error,
}

impl From<Error> for FlushError {
    fn from(error: Error) -> Self {
        Self { cause: None, error }
    }
}

impl From<FlushError> for Error {
    fn from(failed: FlushError) -> Self {
        failed.error
    }
}

/// Why a row could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowError {
    /// The row cannot be read, because this version of the plugin did not write its bytes, or
    /// it cannot be written, because its fields cannot be JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// JSON cannot represent the value, so it could not be read back.
    #[error("field `{field}` is {value}; only finite numbers can be stored")]
    NotFinite {
        /// The field's name.
        field: &'static str,
        /// The value.
        value: f64,
    },
    /// A time that RFC 3339 cannot represent.
    #[error("field `{field}` is {time}; only times from year 1 to 9999-12-30T22:00Z can be stored")]
    TimeRange {
        /// The field's name.
        field: &'static str,
        /// The value.
        time: crate::Timestamp,
    },
    /// JSON that readers could not parse.
    #[error("field `{field}`: {why}")]
    Nested {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A field that cannot be written as JSON.
    #[error("field `{field}`: {source}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The bytes were not written by this type.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Plugin(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Plugin(message.to_owned())
    }
}

macro_rules! from_std {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Plugin(error.to_string())
            }
        }
    )*};
}

from_std!(
    serde_json::Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::num::TryFromIntError,
    std::str::Utf8Error,
    std::fmt::Error,
    crate::time::ParseTimestampError
);
