//! Reads and decodes the records in the catalogue's file. Each projection has one record, in JSON.

use std::path::Path;

use lantern_core::{ProjectionRecord, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

/// The redb table with the records. Its key is [`ProjectionRecord::key`].
pub(crate) const PROJECTIONS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("projections");

/// Returns the stored records, each with its key.
pub(crate) fn stored(db: &Database) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let table = match db.begin_read()?.open_table(PROJECTIONS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut stored = Vec::new();
    for entry in table.iter()? {
        let (name, record) = entry?;
        stored.push((name.value().to_owned(), record.value().to_owned()));
    }
    Ok(stored)
}

/// Decodes the records of the catalogue at `path`.
///
/// # Errors
/// Returns [`StoreError::Damaged`] with the path and the key of a record that cannot be decoded.
pub(crate) fn decode(
    path: &Path,
    stored: Vec<(String, Vec<u8>)>,
) -> Result<Vec<ProjectionRecord>, StoreError> {
    let record = |(name, json): (String, Vec<u8>)| {
        let damaged = |why: String| {
            let path = path.display();
            StoreError::Damaged(format!("`{path}`: the record of projection `{name}`: {why}"))
        };
        let record: ProjectionRecord =
            serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
        if record.key() != name {
            return Err(damaged(format!("it is the record of `{}`", record.key())));
        }
        Ok(record)
    };
    stored.into_iter().map(record).collect()
}
