//! The public tables of a version, as the protocol shows them.

use std::sync::Arc;

use lantern_core::{TableId, TableSpec, View};

use crate::protocol::Field;

/// A public table.
#[derive(Clone)]
pub(crate) struct TableInfo {
    pub(crate) id: TableId,
    pub(crate) name: String,
    /// Its fields as the protocol shows them.
    pub(crate) fields: Arc<[Field]>,
    /// Its declaration.
    pub(crate) spec: Arc<TableSpec>,
}

/// The public tables of the version that `view` shows.
pub(crate) fn tables_of(view: &View) -> Arc<[TableInfo]> {
    let tables = (0..).map(TableId).zip(&view.manifest().tables).filter(|(_, table)| table.public);
    tables
        .map(|(id, table)| {
            let fields = table.fields.iter().map(|field| Field {
                name: field.name.clone(),
                kind: field.kind.name().into(),
                unit: field.unit.clone(),
            });
            let (name, spec) = (table.name.clone(), Arc::new(table.clone()));
            TableInfo { id, name, fields: fields.collect(), spec }
        })
        .collect()
}
