//! The form in which subscribers of a query get the rows of a version's table.

use std::borrow::Cow;
use std::sync::Arc;

use lantern_api::TableShape;
use lantern_core::{FieldSpans, FieldSpec, RequestError, RowShape, TableChanges, TableId};

use crate::delta::rows_of;
use crate::protocol::Field;
use crate::query::Query;
use crate::table_info::{TableInfo, described};

/// The table of a subscription, and what the subscription selects from the table.
#[derive(Clone)]
pub(crate) struct SelectedTable {
    pub(crate) id: TableId,
    pub(crate) shape: Arc<Shape>,
}

/// A query, checked against the table of one version.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The fields of the rows, as the protocol shows them.
    pub(crate) fields: Vec<Field>,
    /// The filter and the choice of fields; `None` if subscribers get the rows unchanged.
    pub(crate) rows: Option<RowShape>,
    /// The shape of the whole table.
    of_table: Arc<TableShape>,
}

impl Shape {
    /// Checks `query` against `table`.
    ///
    /// # Errors
    /// [`RequestError`] if the table does not have a field of the query, or if an operator or value
    /// does not suit the kind of its field.
    pub(crate) fn new(query: &Query, table: &TableInfo) -> Result<Self, RequestError> {
        let of_table = table.shape.clone();
        if query.is_whole_table() {
            return Ok(Self { fields: table.fields.to_vec(), rows: None, of_table });
        }
        let rows = RowShape::new(&table.spec.fields, query.conditions(), query.columns())?;
        let fields = rows.fields(table.fields.len());
        let fields = fields.into_iter().map(|field| table.fields[field].clone()).collect();
        Ok(Self { fields, rows: Some(rows), of_table })
    }

    /// The form of the groups of rows of `table`, which have these `columns`.
    pub(crate) fn of_groups(columns: &[FieldSpec], table: &TableInfo) -> Self {
        let fields = columns.iter().map(described).collect();
        Self { fields, rows: None, of_table: table.shape.clone() }
    }

    /// The hash of the whole table's shape.
    pub(crate) fn table_hash(&self) -> Option<String> {
        self.of_table.hash.clone()
    }

    /// Returns `changes` for a reader that may have any of the changed rows. A row that the query
    /// does not select becomes a deletion.
    pub(crate) fn changes<'c>(&self, changes: &'c TableChanges) -> Cow<'c, TableChanges> {
        match &self.rows {
            None => Cow::Borrowed(changes),
            Some(shape) => Cow::Owned(select_rows(shape, changes.table, rows_of(changes))),
        }
    }
}

/// Like [`Shape::changes`], for the changed `rows` of `table`.
pub(crate) fn select_rows<'c>(
    shape: &RowShape,
    table: TableId,
    rows: impl Iterator<Item = (&'c str, Option<&'c [u8]>)>,
) -> TableChanges {
    let mut selected = TableChanges { table, ..TableChanges::default() };
    let mut spans = FieldSpans::default();
    for (key, row) in rows {
        match row.and_then(|row| shape.apply(row, &mut spans)) {
            Some(row) => selected.up.push((key.to_owned(), row.into_owned())),
            None => selected.del.push(key.to_owned()),
        }
    }
    selected
}
