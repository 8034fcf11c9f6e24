//! What results consist of.

use lantern_core::{Row, TableSpec};
use lantern_query::{GroupValue, Plan};

/// What a result consists of.
#[derive(Clone, Copy)]
pub(super) enum ResultShape<'a> {
    /// Rows in key order.
    ByKey(&'a TableSpec),
    /// Rows in the order of a field.
    InOrder(&'a TableSpec, &'a Plan),
    Groups(&'a Plan),
}

/// The rows of a page.
#[derive(Clone, Copy)]
pub(super) enum PageRows<'a> {
    Rows(&'a [Row]),
    Groups(&'a [Vec<GroupValue>]),
}
