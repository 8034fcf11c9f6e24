//! Describes the public tables of a version, with their fields as the protocol describes them.

use std::sync::Arc;

use lantern_core::{TableId, TableSpec, View};

use crate::protocol::Field;

/// A public table, as the feed needs it.
#[derive(Clone)]
pub(crate) struct TableInfo {
    pub(crate) id: TableId,
    pub(crate) name: String,
    /// The fields of the table, as the protocol describes them.
    pub(crate) fields: Arc<[Field]>,
    /// Its declaration.
    pub(crate) spec: Arc<TableSpec>,
}

/// Returns the public tables of the version that `view` reads.
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
