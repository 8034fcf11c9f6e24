//! Why a query ends without a result.

use lantern_core::{RollUpError, StoreError};
use thiserror::Error;

/// Why a query ended without a result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query exceeded a limit.
    #[error("the query {what}: the limit is {max} (`query.{setting}`)")]
    Limit {
        /// What the query did too much of.
        what: &'static str,
        /// The maximum number that is allowed.
        max: u64,
        /// The setting that is the limit.
        setting: &'static str,
    },
    /// The result contains a number that cannot be written.
    #[error("`{column}` does not fit: {reason}")]
    OutOfRange {
        /// The name of the column with the number.
        column: String,
        /// Why the number cannot be written.
        reason: &'static str,
    },
    /// The caller no longer waits for the result.
    #[error("the query was cancelled")]
    Cancelled,
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<QueryError> for RollUpError {
    fn from(error: QueryError) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::Limit { setting, .. } => {
                Self::Limit { detail, setting: format!("query.{setting}") }
            }
            QueryError::Store(error) => Self::Store(error),
            QueryError::OutOfRange { .. } | QueryError::Cancelled => Self::OutOfRange(detail),
        }
    }
}
