//! The documents in the catalogue's file.

use lantern_core::{Documents, StoreError};
use lantern_redb_file::begin_durable_write;
use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::catalog::CatalogFile;

/// The texts of documents, by kind and name. A file without documents has no such table.
const DOCUMENTS: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("documents");

impl Documents for CatalogFile {
    fn visit_documents(
        &self,
        kind: &str,
        visit: &mut dyn FnMut(&str, &str),
    ) -> Result<(), StoreError> {
        self.with(|db| {
            let Some(table) = table(db)? else { return Ok(()) };
            for entry in table.range((kind, "")..)? {
                let (key, text) = entry?;
                let (of, name) = key.value();
                if of != kind {
                    break;
                }
                visit(name, text.value());
            }
            Ok(())
        })
    }

    fn document(&self, kind: &str, name: &str) -> Result<Option<String>, StoreError> {
        self.with(|db| {
            let Some(table) = table(db)? else { return Ok(None) };
            Ok(table.get((kind, name))?.map(|text| text.value().to_owned()))
        })
    }

    fn save_document(&self, kind: &str, name: &str, text: &str) -> Result<bool, StoreError> {
        self.with(|db| {
            let txn = begin_durable_write(db, false)?;
            let replaced = txn.open_table(DOCUMENTS)?.insert((kind, name), text)?.is_some();
            txn.commit()?;
            Ok(replaced)
        })
    }

    fn delete_document(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        self.with(|db| {
            let txn = begin_durable_write(db, false)?;
            let existed = txn.open_table(DOCUMENTS)?.remove((kind, name))?.is_some();
            txn.commit()?;
            Ok(existed)
        })
    }
}

type DocumentsTable = redb::ReadOnlyTable<(&'static str, &'static str), &'static str>;

fn table(db: &Database) -> Result<Option<DocumentsTable>, redb::Error> {
    match db.begin_read()?.open_table(DOCUMENTS) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use lantern_core::{Catalog as _, ProjectionRecord};

    use super::*;
    use crate::disk::faulty::FaultyDisk;

    #[test]
    fn after_a_full_disk_the_old_document_is_unchanged_and_saving_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let faults = FaultyDisk::default();
        let path = dir.path().join("catalog.redb");
        let file = CatalogFile::open_on(Arc::new(faults.clone()), path).unwrap();
        assert!(!file.save_document("board", "a", "1").unwrap());
        faults.0.full.store(true, Ordering::SeqCst);
        assert!(matches!(file.save_document("board", "a", "2"), Err(StoreError::Full(_))));
        faults.0.full.store(false, Ordering::SeqCst);
        assert_eq!(file.document("board", "a").unwrap().as_deref(), Some("1"));
        assert!(file.save_document("board", "a", "3").unwrap());
        assert_eq!(file.document("board", "a").unwrap().as_deref(), Some("3"));
    }

    #[test]
    fn documents_survive_a_restart_by_kind_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        {
            let file = CatalogFile::open(&path).unwrap();
            assert!(file.documents("query").unwrap().is_empty());
            assert_eq!(file.document("query", "a").unwrap(), None);
            file.save(&ProjectionRecord { name: "p".into(), ..ProjectionRecord::default() })
                .unwrap();
            assert!(!file.save_document("query", "b", "1").unwrap());
            assert!(!file.save_document("query", "a", "2").unwrap());
            assert!(!file.save_document("queryx", "a", "3").unwrap());
            assert!(!file.save_document("board", "z", "4").unwrap());
            assert!(file.save_document("query", "b", "5").unwrap());
        }
        let file = CatalogFile::open(&path).unwrap();
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(file.documents("query").unwrap(), [pair("a", "2"), pair("b", "5")]);
        assert_eq!(file.document("board", "z").unwrap().as_deref(), Some("4"));
        assert!(file.delete_document("query", "a").unwrap());
        assert!(!file.delete_document("query", "a").unwrap());
        assert_eq!(file.documents("query").unwrap(), [pair("b", "5")]);
        assert_eq!(file.projections().unwrap().len(), 1);
    }
}
