//! Describes the public tables of a version, with their fields as the protocol describes them.

use std::sync::Arc;

use lantern_api::TableShape;
use lantern_core::{FieldSpec, TableId, TableSpec, View};

use crate::protocol::Field;

/// A public table, as the feed needs it.
#[derive(Clone)]
pub(crate) struct TableInfo {
    pub(crate) id: TableId,
    /// The fields of the table, as the protocol describes them.
    pub(crate) fields: Arc<[Field]>,
    /// The shape of the table, with its hash.
    pub(crate) shape: Arc<TableShape>,
    /// The declaration of the table, with its name.
    pub(crate) spec: Arc<TableSpec>,
}

/// Returns the public tables of the version that `view` reads.
pub(crate) fn tables_of(view: &View) -> Arc<[TableInfo]> {
    view.manifest()
        .public_tables()
        .map(|(id, table)| {
            let fields = table.fields.iter().map(described).collect();
            let shape = Arc::new(shape_of(table));
            TableInfo { id, fields, shape, spec: Arc::new(table.clone()) }
        })
        .collect()
}

fn shape_of(table: &TableSpec) -> TableShape {
    let fields = table.fields.iter();
    let fields = fields.map(|field| (&*field.name, field.kind.name(), &*field.unit));
    TableShape::new(fields, table.per_tenant)
}

/// Returns the field as the protocol describes it.
pub(crate) fn described(field: &FieldSpec) -> Field {
    Field { name: field.name.clone(), kind: field.kind.name().into(), unit: field.unit.clone() }
}
