//! The catalogue: a redb file with one JSON record per projection, and documents.

use std::path::PathBuf;
use std::sync::Arc;

use lantern_core::{Catalog, ProjectionRecord, StoreError};
use lantern_redb_file::{OpenFile, begin_durable_write};
use parking_lot::Mutex;
use redb::Database;

use crate::catalog_records::{PROJECTIONS, decode, stored};
use crate::disk::{Disk, SystemDisk};
use crate::error::{StoreFailure, guarded};
use crate::file::{CATALOG, DatabaseFile, set_format};
use crate::read_only_file::check_catalog_on;

/// The size of redb's cache for the catalogue, in bytes. It is small: the catalogue is read rarely,
/// and then completely.
const CACHE_BYTES: usize = 256 << 10;

/// The file `catalog.redb`. Its commits are two-phase. So after a crash an incomplete record never
/// counts as committed, in whatever order the pages reached the disk.
#[derive(Debug)]
pub struct CatalogFile {
    inner: Mutex<CatalogState>,
}

#[derive(Debug)]
struct CatalogState {
    file: DatabaseFile,
    /// The open file. It is `None` after a disk failure, until the next use.
    db: Option<OpenFile>,
}

impl CatalogFile {
    /// Opens the catalogue at `path`, or creates an empty one.
    ///
    /// # Errors
    /// Returns [`StoreError::InUse`] if another process has opened the file, and
    /// [`StoreError::Damaged`] if it is not a catalogue or has a later format.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(SystemDisk), path)
    }

    /// Opens the catalogue like [`CatalogFile::open`], on the disk `on`. Tests use it to simulate
    /// power loss and disk failures.
    ///
    /// # Errors
    /// Returns the errors of [`CatalogFile::open`].
    pub fn open_on(on: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let mut file = DatabaseFile::new(path.into(), CATALOG, CACHE_BYTES, on);
        let db = Some(file.open_or_create()?);
        // The file is small, so all its checksums are verified here, once. redb does not verify
        // checksums when it reads, and nothing else checks the content of a record.
        check_catalog_on(&*file.disk, &file.path)?;
        Ok(Self { inner: Mutex::new(CatalogState { file, db }) })
    }

    /// Runs `task` on the open file. After a disk error the next call opens the file
    /// again.
    pub(crate) fn with<R>(
        &self,
        task: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, StoreError> {
        let mut inner = self.inner.lock();
        let CatalogState { file, db } = &mut *inner;
        let open = match db {
            Some(open) => open,
            None => db.insert(file.open()?),
        };
        guarded(&file.path, || task(open)).map_err(|StoreFailure { error, fatal }| {
            if fatal {
                file.note_failure();
                *db = None;
            }
            error
        })
    }
}

impl Catalog for CatalogFile {
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError> {
        let stored = self.with(stored)?;
        let path = self.inner.lock().file.path.clone();
        decode(&path, stored)
    }

    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError> {
        let json = serde_json::to_vec(record)
            .map_err(|e| StoreError::Io(format!("the record of `{}`: {e}", record.name)))?;
        self.with(|db| {
            let txn = begin_durable_write(db, false)?;
            txn.open_table(PROJECTIONS)?.insert(record.key().as_str(), json.as_slice())?;
            if record.versions.iter().any(|version| version.source.is_some()) {
                set_format(&txn, CATALOG.format)?;
            }
            Ok(txn.commit()?)
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.with(|db| {
            let txn = begin_durable_write(db, false)?;
            txn.open_table(PROJECTIONS)?.remove(name)?;
            Ok(txn.commit()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use lantern_core::{VersionId, VersionRecord, VersionSource};
    use redb::{ReadableDatabase as _, TableDefinition};

    use super::*;
    use crate::disk::faulty::FaultyDisk;

    fn record(name: &str, activations: u64) -> ProjectionRecord {
        let version = VersionRecord { id: VersionId("v1".into()), ..VersionRecord::default() };
        ProjectionRecord {
            name: name.into(),
            activations,
            versions: vec![version],
            ..ProjectionRecord::default()
        }
    }

    #[test]
    fn records_come_back_by_name_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/catalog.redb");
        {
            let catalog = CatalogFile::open(&path).unwrap();
            assert!(catalog.projections().unwrap().is_empty());
            for name in ["b", "a", "c"] {
                catalog.save(&record(name, 0)).unwrap();
            }
            catalog.save(&record("b", 7)).unwrap();
            catalog.delete("c").unwrap();
            catalog.delete("never there").unwrap();
        }
        let catalog = CatalogFile::open(&path).unwrap();
        assert_eq!(catalog.projections().unwrap(), [record("a", 0), record("b", 7)]);
    }

    #[test]
    fn a_second_open_is_refused_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let _open = CatalogFile::open(&path).unwrap();
        let error = CatalogFile::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::InUse(p) if p == path.display().to_string()));
    }

    #[test]
    fn after_a_full_disk_the_old_record_is_unchanged_and_saving_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let faults = FaultyDisk::default();
        let path = dir.path().join("catalog.redb");
        let catalog = CatalogFile::open_on(Arc::new(faults.clone()), path).unwrap();
        catalog.save(&record("a", 1)).unwrap();
        faults.0.full.store(true, Ordering::SeqCst);
        assert!(matches!(catalog.save(&record("a", 2)), Err(StoreError::Full(_))));
        faults.0.full.store(false, Ordering::SeqCst);
        assert_eq!(catalog.projections().unwrap(), [record("a", 1)]);
        catalog.save(&record("a", 3)).unwrap();
        assert_eq!(catalog.projections().unwrap(), [record("a", 3)]);
    }

    #[test]
    fn a_file_of_format_2_is_read_and_gets_format_3_with_the_first_source() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let format = |catalog: &CatalogFile| {
            let read = |db: &Database| {
                let about = TableDefinition::<&str, &str>::new("lantern");
                let about = db.begin_read()?.open_table(about)?;
                Ok(about.get("format")?.map(|format| format.value().to_owned()))
            };
            catalog.with(read).unwrap().unwrap()
        };
        {
            let catalog = CatalogFile::open(&path).unwrap();
            catalog.save(&record("a", 1)).unwrap();
            let earlier = |db: &Database| {
                let txn = db.begin_write()?;
                set_format(&txn, 2)?;
                // A release that wrote format 2 wrote no `source`, or `null`.
                let json = serde_json::to_string(&record("a", 1)).unwrap();
                txn.open_table(PROJECTIONS)?.insert("a", json.as_bytes())?;
                Ok(txn.commit()?)
            };
            catalog.with(earlier).unwrap();
        }
        let catalog = CatalogFile::open(&path).unwrap();
        assert_eq!(catalog.projections().unwrap(), [record("a", 1)]);
        catalog.save(&record("a", 2)).unwrap();
        assert_eq!(format(&catalog), "2");
        let mut script = record("b", 0);
        script.versions[0].source = Some(VersionSource::new("b.py", "x = 1\n"));
        catalog.save(&script).unwrap();
        assert_eq!(format(&catalog), "3");
        drop(catalog);
        let catalog = CatalogFile::open(&path).unwrap();
        assert_eq!(catalog.projections().unwrap(), [record("a", 2), script]);
    }

    #[test]
    fn a_damaged_record_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let catalog = CatalogFile::open(&path).unwrap();
        let damage = |db: &Database| {
            let txn = db.begin_write()?;
            txn.open_table(PROJECTIONS)?.insert("orders", b"{".as_slice())?;
            Ok(txn.commit()?)
        };
        catalog.with(damage).unwrap();
        let error = catalog.projections().unwrap_err();
        assert!(matches!(error, StoreError::Damaged(m) if m.contains("`orders`")));
    }
}
