//! Why a query ends without a result.

use lantern_core::StoreError;
use thiserror::Error;

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
