//! Opens and creates redb files. It checks their kind and format, creates them durably, and opens
//! them again after a disk failure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern_core::StoreError;
use lantern_redb_file::{OpenFile, begin_durable_write};
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError,
    TableDefinition, TableError, WriteTransaction,
};

use crate::disk::{Disk, DiskFile, create_dir_durably, unless_missing};
use crate::error::{disk, failure, guarded};

/// The redb table that states the `kind` and `format` of a file. Every file of the store has it.
const ABOUT: TableDefinition<&str, &str> = TableDefinition::new("lantern");

/// The minimum time between two tries to open a file that could not be opened. Calls in this time
/// get the same error. This limits the cost of a disk that keeps failing.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// A kind of file, with the formats that this release reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileKind {
    /// The name of the kind.
    pub(crate) name: &'static str,
    /// The latest format that this release reads. It is also the format that this release writes.
    pub(crate) format: u32,
    /// The earliest format that this release reads.
    pub(crate) earliest: u32,
}

/// The kind of a shard's state. Since format 3, the file contains a random number that identifies
/// the state, a digest of the retries and drops of parked events, and the incarnation of the log
/// that the state was folded from.
pub(crate) const STATE: FileKind = FileKind { name: "state", format: 3, earliest: 3 };

/// The kind of the catalogue. Since format 3, a version can have source code. A file of format 2
/// stays as it is until a record with source code is written; then it gets format 3.
pub(crate) const CATALOG: FileKind = FileKind { name: "catalog", format: 3, earliest: 2 };

/// A redb file: its path, its kind, how it is opened, and whether the last use failed.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    pub(crate) path: PathBuf,
    pub(crate) kind: FileKind,
    pub(crate) cache_bytes: usize,
    pub(crate) disk: Arc<dyn Disk>,
    /// Whether the disk has failed since the file was last opened.
    failed: bool,
    /// When and why the last attempt to open the file failed; `None` if it succeeded.
    refused: Option<(Instant, StoreError)>,
}

impl DatabaseFile {
    pub(crate) fn new(
        path: PathBuf,
        kind: FileKind,
        cache_bytes: usize,
        disk: Arc<dyn Disk>,
    ) -> Self {
        Self { path, kind, cache_bytes, disk, failed: false, refused: None }
    }

    /// Remembers that the disk failed while the file was open.
    pub(crate) fn note_failure(&mut self) {
        self.failed = true;
    }

    /// Opens the file. It must exist.
    pub(crate) fn open(&mut self) -> Result<OpenFile, StoreError> {
        if let Some((when, error)) = &self.refused
            && when.elapsed() < REOPEN_PAUSE
        {
            return Err(error.clone());
        }
        let opened = self.try_open();
        match &opened {
            Ok(_) => (self.failed, self.refused) = (false, None),
            Err(error) => self.refused = Some((Instant::now(), error.clone())),
        }
        opened
    }

    /// Opens the file, or creates it if there is none.
    pub(crate) fn open_or_create(&mut self) -> Result<OpenFile, StoreError> {
        match self.disk.find(&self.path).map_err(|e| disk(&self.path, &e))? {
            Some(_) => self.open(),
            None => self.create(),
        }
    }

    fn try_open(&self) -> Result<OpenFile, StoreError> {
        let path = &self.path;
        let file = guarded(path, || self.disk.open(path, self.failed).map(Some).or_else(missing))?;
        let Some(file) = file else {
            return Err(StoreError::Damaged(format!("`{}` is gone: restore it", path.display())));
        };
        if file.len().map_err(|e| disk(path, &e))? == 0 {
            return Err(StoreError::Damaged(format!("`{}` is empty", path.display())));
        }
        let db = self.database(file)?;
        check_about(path, self.kind, &db)?;
        Ok(db)
    }

    /// Creates the file under a temporary name and renames it. So every file with the final
    /// name contains its kind and format.
    fn create(&self) -> Result<OpenFile, StoreError> {
        let path = &self.path;
        let aside = path.with_extension("redb.new");
        let io_error = |e: io::Error| disk(path, &e);
        let parent = path.parent().ok_or_else(|| StoreError::Io("a file without a folder".into()));
        let parent = parent?;
        create_dir_durably(&*self.disk, parent).map_err(io_error)?;
        unless_missing(self.disk.remove_file(&aside)).map_err(io_error)?;
        let file = guarded(path, || self.disk.create(&aside))?;
        let db = self.database(file)?;
        self.write_about(&db)?;
        self.disk.rename(&aside, path).map_err(io_error)?;
        self.disk.sync_folder(parent).map_err(io_error)?;
        Ok(db)
    }

    fn database(&self, file: Box<dyn StorageBackend>) -> Result<OpenFile, StoreError> {
        let path = self.path.display().to_string();
        let db = guarded(&self.path, || {
            Builder::new()
                .set_cache_size(self.cache_bytes)
                .set_repair_callback(move |progress| {
                    let progress = progress.progress();
                    tracing::debug!(path, progress, "checking a file that was not closed");
                })
                .create_with_backend(DiskFile(file))
        });
        Ok(db?.into())
    }

    fn write_about(&self, db: &Database) -> Result<(), StoreError> {
        let written = guarded(&self.path, || -> Result<(), redb::Error> {
            let txn = begin_durable_write(db, false)?;
            {
                let mut about = txn.open_table(ABOUT)?;
                about.insert("kind", self.kind.name)?;
            }
            set_format(&txn, self.kind.format)?;
            Ok(txn.commit()?)
        });
        Ok(written?)
    }
}

/// Checks the kind and the format that `db` states. Refuses a file of another kind, or of a format
/// that this release does not read.
pub(crate) fn check_about(path: &Path, kind: FileKind, db: &Database) -> Result<(), StoreError> {
    let refuse = |why: String| Err(StoreError::Damaged(format!("`{}` {why}", path.display())));
    let found = guarded(path, || -> Result<_, redb::Error> {
        let about = match db.begin_read()?.open_table(ABOUT) {
            Ok(about) => about,
            Err(TableError::Storage(e)) => return Err(e.into()),
            Err(_) => return Ok(None),
        };
        let name = about.get("kind")?.map(|v| v.value().to_owned());
        let format = about.get("format")?.map(|v| v.value().to_owned());
        Ok(name.zip(format))
    })?;
    let Some((name, format)) = found else {
        return refuse("is a redb file, but not one of Lantern's".into());
    };
    if name != kind.name {
        return refuse(format!("is a file of kind `{name}`, not `{}`", kind.name));
    }
    match format.parse::<u32>() {
        Ok(format) if (kind.earliest..=kind.format).contains(&format) => Ok(()),
        Ok(format) if (1..kind.earliest).contains(&format) => refuse(format!(
            "has format {format} of an earlier release, and this one reads formats from {} on: \
             export the events with the release that wrote it, and import them into a new folder",
            kind.earliest
        )),
        Ok(format) if format > 0 => refuse(format!(
            "has format {format}, and this release reads formats up to {}: use the release \
             that wrote it, or a later one",
            kind.format
        )),
        _ => refuse(format!("has the format `{format}`, which is not a format number")),
    }
}

/// Writes `format` into the file as its format.
pub(crate) fn set_format(txn: &WriteTransaction, format: u32) -> Result<(), redb::Error> {
    txn.open_table(ABOUT)?.insert("format", format.to_string().as_str())?;
    Ok(())
}

/// Returns `None` if the error means that the file does not exist.
fn missing<T>(error: DatabaseError) -> Result<Option<T>, DatabaseError> {
    match error {
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        error => Err(error),
    }
}

/// Returns a database that exists only in memory.
pub(crate) fn in_memory(cache_bytes: usize) -> Result<OpenFile, StoreError> {
    let db = Builder::new().set_cache_size(cache_bytes).create_with_backend(InMemoryBackend::new());
    db.map(OpenFile::from).map_err(|e| failure(Path::new("memory"), e).into())
}
