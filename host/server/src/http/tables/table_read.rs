//! What a request reads from a table.

use lantern_query::QueryRequest;

use super::answer_form::AnswerForm;
use super::query::TableQuery;
use crate::http::conditional::Conditions;
use crate::http::params::MinOffsets;

/// One read of a table.
pub(super) struct TableRead {
    pub(super) projection: String,
    pub(super) table: String,
    pub(super) which: TableQuery,
    /// The query; `None` if rows are read only by their keys.
    pub(super) request: Option<QueryRequest>,
    pub(super) limit: usize,
    pub(super) form: AnswerForm,
    /// The conditions of the request; `None` if the answer has no tag.
    pub(super) conditions: Option<Conditions>,
    pub(super) least: MinOffsets,
}
