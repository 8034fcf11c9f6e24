//! Live roll-ups: groups of rows that follow the changes of a table.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::{FieldSpec, RequestError, RowSource, StoreError, TableChanges, TableSpec};

/// Creates live roll-ups.
pub trait RollUps: Send + Sync {
    /// Creates a roll-up of `table`, which is empty until [`RollUp::restart`].
    ///
    /// # Errors
    /// [`RequestError`] that names the parameter, the field and the fix.
    fn roll_up(
        &self,
        table: &TableSpec,
        request: &RollUpRequest,
    ) -> Result<Box<dyn RollUp>, RequestError>;
}

/// A roll-up as its caller writes it. The parameters are those of queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RollUpRequest {
    /// Conditions on the rows: field, operator and value.
    pub conditions: Vec<(String, String, Value)>,
    /// The timestamp field to which `start`, `end` and `bucket` refer.
    pub time: Option<String>,
    /// Rows at or after this time.
    pub start: Option<String>,
    /// Rows before this time.
    pub end: Option<String>,
    /// The length of the buckets.
    pub bucket: Option<String>,
    /// The fields by which rows are grouped.
    pub by: Vec<String>,
    /// The aggregates: the name of each column, and a function with its field, if it has one.
    pub aggregates: Vec<(String, Vec<String>)>,
    /// What buckets without rows contain.
    pub fill: Option<String>,
    /// The time zone of buckets and of times without an offset.
    pub tz: Option<String>,
}

/// The groups of a table's rows, kept up to date as the rows change. After an error, only
/// [`RollUp::restart`] may be called.
pub trait RollUp: Send {
    /// The columns of the groups.
    fn columns(&self) -> Vec<FieldSpec>;

    /// Reads all rows of the table again.
    ///
    /// # Errors
    /// [`RollUpError`].
    fn restart(&mut self, rows: &dyn RowSource) -> Result<(), RollUpError>;

    /// Updates the groups for a row that changed from `before` to `after`; `None` means that there
    /// is no row.
    ///
    /// # Errors
    /// [`RollUpError`].
    fn change(&mut self, before: Option<&[u8]>, after: Option<&[u8]>) -> Result<(), RollUpError>;

    /// Whether some groups can be computed only from the rows of the table. If so, call
    /// [`RollUp::read_stale`] before [`RollUp::publish`].
    fn is_stale(&self) -> bool;

    /// Computes the stale groups (those that [`RollUp::is_stale`] reports) from `rows`, the rows of
    /// the table after the last change.
    ///
    /// # Errors
    /// [`RollUpError`].
    fn read_stale(&mut self, rows: &dyn RowSource) -> Result<(), RollUpError>;

    /// Returns the groups that changed since the last call, as rows by their keys.
    ///
    /// # Errors
    /// [`RollUpError`].
    fn publish(&mut self) -> Result<TableChanges, RollUpError>;

    /// All groups as of the last [`RollUp::publish`].
    fn groups(&self) -> &BTreeMap<String, Vec<u8>>;

    /// The memory that the roll-up uses, in bytes.
    fn memory_bytes(&self) -> usize;
}

/// Why a roll-up cannot go on.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RollUpError {
    /// The roll-up exceeded a limit.
    #[error("{detail}")]
    Limit {
        /// What the roll-up did, the limit, and the setting of the limit.
        detail: String,
        /// The setting of the limit.
        setting: String,
    },
    /// A number of the result cannot be written.
    #[error("{0}")]
    OutOfRange(String),
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
