//! Why a query is refused, and why it ends without a result.

use lantern_core::{FilterError, StoreError, UnknownField};
use thiserror::Error;

/// A query that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{parameter}`: {detail}")]
pub struct RequestError {
    /// The parameter that is wrong.
    pub parameter: &'static str,
    /// What is wrong with it, and how it is corrected.
    pub detail: String,
}

impl RequestError {
    pub(crate) fn new(parameter: &'static str, detail: impl Into<String>) -> Self {
        Self { parameter, detail: detail.into() }
    }

    pub(crate) fn field(parameter: &'static str) -> impl Fn(UnknownField) -> Self {
        move |error| Self::new(parameter, error.to_string())
    }
}

impl From<FilterError> for RequestError {
    fn from(error: FilterError) -> Self {
        Self::new("where", error.to_string())
    }
}

/// Why a query ended without a result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It exceeded a limit.
    #[error("the query {what}: the limit is {max} (`query.{setting}`)")]
    Limit {
        /// What it did.
        what: &'static str,
        /// The limit.
        max: u64,
        /// The setting of the limit.
        setting: &'static str,
    },
    /// A number of the result cannot be written.
    #[error("`{column}` does not fit: {reason}")]
    OutOfRange {
        /// The column.
        column: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The caller does not wait for the result any more.
    #[error("the query was cancelled")]
    Cancelled,
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
