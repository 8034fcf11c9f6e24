//! Why a result cannot be written as columns.

use std::io;

use thiserror::Error;

/// Why a result cannot be written as columns.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ColumnError {
    /// The receiver takes no more bytes.
    #[error("the result cannot be sent: {0}")]
    Io(#[from] io::Error),
    /// An integer above 2^63 - 1.
    #[error(
        "{value} in the column `{column}` is larger than 2^63 - 1, the largest integer of Arrow and Parquet: leave the column out with `cols`, or use CSV or NDJSON"
    )]
    OutOfRange {
        /// The column.
        column: String,
        /// The value.
        value: i128,
    },
    /// The library for Parquet refuses the data.
    #[error("the result cannot be written as Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}
