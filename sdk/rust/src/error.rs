//! Defines the errors of a projection that folds events.
//!
//! An error never becomes a panic. The plugin returns it to the host, which parks the event and
//! shows the message.

use thiserror::Error;

/// Why an event could not be applied, or why a projection could not be set up.
///
/// A plugin creates its own errors with [`Error::new`] or from a string: `return
/// Err("cents is negative".into())`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// An error that the plugin itself has created.
    #[error("{0}")]
    Plugin(String),
    /// The data of the event is not the JSON that the projection expects.
    #[error("data: {0}")]
    Data(#[source] serde_json::Error),
    /// The data of the event is not UTF-8.
    #[error("data: {0}")]
    NotText(#[source] std::str::Utf8Error),
    /// A member of the data does not match the projection's declaration.
    #[error("data: the member `{name}` {why}")]
    Member {
        /// The name of the member.
        name: &'static str,
        /// What is wrong with the member.
        why: String,
    },
    /// The projection reads a member that the manifest does not declare.
    #[error("the member `{0}` was not declared; add `.members::<…>()` to the manifest")]
    MemberNotDeclared(&'static str),
    /// The projection reads an attribute that the manifest does not request.
    #[error(
        "the attribute `{attribute}` was not requested; add `.attributes([Attribute::{variant}])` to the manifest"
    )]
    NotAsked {
        /// The name of the attribute in CloudEvents.
        attribute: &'static str,
        /// The name of the attribute in [`crate::Attribute`].
        variant: &'static str,
    },
    /// The key is not allowed in the table.
    #[error("table `{table}`: key {key:?}: {why}")]
    Key {
        /// The name of the table.
        table: &'static str,
        /// The key that is not allowed.
        key: String,
        /// What is wrong with the key, and what to do.
        why: &'static str,
    },
    /// A row could not be written or read.
    #[error("table `{table}`: row {key:?}: {source}")]
    Row {
        /// The name of the table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// What is wrong with the row.
        source: RowError,
    },
    /// A projection without event time has set a timer.
    #[error(
        "timer {0:?}: timers need event time; add `.event_time(lateness, tick)` to the manifest"
    )]
    NoEventTime(String),
    /// The projection has emitted an event of a type that the manifest does not declare.
    #[error("event type `{0}` is not declared; add `.emits([\"{0}\"])` to the manifest")]
    NotDeclared(String),
    /// The parameters do not have the form that the projection expects.
    #[error("parameters: {0}")]
    Parameters(String),
    /// The manifest breaks a rule of the contract.
    #[error("manifest: {0}")]
    Manifest(String),
    /// The host has passed a batch whose columns do not match each other.
    #[error("malformed batch: {0}")]
    Batch(&'static str),
}

impl Error {
    /// Creates an error of the plugin itself. `message` is a sentence that begins with a lower-case
    /// letter and quotes the wrong value.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Plugin(message.into())
    }
}

/// Why changed rows could not be sent to the host.
#[derive(Debug)]
pub struct FlushError {
    /// The index in the batch of the timer or event that changed the row; `None` if the error is
    /// not about a single row.
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
    /// The row cannot be read or written. Reading fails if another version of the plugin wrote the
    /// bytes; writing fails if the fields cannot be JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// JSON cannot represent the value of a field, so the row could not be read again.
    #[error("field `{field}` is {value}; only finite numbers can be stored")]
    NotFinite {
        /// The name of the field.
        field: &'static str,
        /// The value of the field.
        value: f64,
    },
    /// RFC 3339 cannot represent the time in a field.
    #[error("field `{field}` is {time}; only times from year 1 to 9999-12-30T22:00Z can be stored")]
    TimeRange {
        /// The name of the field.
        field: &'static str,
        /// The time in the field.
        time: crate::Timestamp,
    },
    /// A field contains JSON that readers could not parse.
    #[error("field `{field}`: {why}")]
    Nested {
        /// The name of the field.
        field: &'static str,
        /// What is wrong with the JSON.
        why: String,
    },
    /// The value of a field cannot be written as JSON.
    #[error("field `{field}`: {source}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// What is wrong with the value.
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
