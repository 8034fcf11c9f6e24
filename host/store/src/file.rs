//! Opening redb files: what each file says of itself, durable creation, and
//! what is done after the disk failed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Bound, Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lantern_core::StoreError;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    BackendError, Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, TableError,
};

use crate::error::{disk, failure, guarded};

/// Every file's table about itself: `kind` and `format`.
const ABOUT: TableDefinition<&str, &str> = TableDefinition::new("lantern");

/// How long a file that could not be opened again is left alone; calls in the
/// meantime get the same error. It bounds what a dead disk costs.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Its name.
    pub(crate) name: &'static str,
    /// The latest format this release reads, and the one it writes.
    pub(crate) format: u32,
}

/// A redb file's place, kind and way of opening, with what became of it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) cache_bytes: usize,
    pub(crate) faults: Faults,
    /// Whether the disk failed since the file was last opened.
    failed: bool,
    /// When it last could not be opened, and why.
    refused: Option<(Instant, StoreError)>,
}

impl Place {
    pub(crate) fn new(path: PathBuf, kind: Kind, cache_bytes: usize, faults: Faults) -> Self {
        Self { path, kind, cache_bytes, faults, failed: false, refused: None }
    }

    /// Remembers that the disk failed under the open file.
    pub(crate) fn note_failure(&mut self) {
        self.failed = true;
    }

    /// Opens the file, which must be there.
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

    /// Opens the file, or creates it where there is none.
    pub(crate) fn open_or_create(&mut self) -> Result<OpenFile, StoreError> {
        if self.path.try_exists().map_err(|e| disk(&self.path, &e))? {
            self.open()
        } else {
            self.create()
        }
    }

    fn try_open(&self) -> Result<OpenFile, StoreError> {
        let path = &self.path;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                StoreError::Damaged(format!("`{}` is gone: restore it", path.display()))
            }
            _ => disk(path, &e),
        })?;
        if file.metadata().map_err(|e| disk(path, &e))?.len() == 0 {
            return Err(StoreError::Damaged(format!("`{}` is empty", path.display())));
        }
        if self.failed {
            forget_cached(&file);
        }
        let db = self.database(file)?;
        self.check_about(&db)?;
        Ok(db)
    }

    /// Creates the file. It is made aside and renamed, so that a file under
    /// this name always says what it is.
    fn create(&self) -> Result<OpenFile, StoreError> {
        let path = &self.path;
        let aside = path.with_extension("redb.new");
        let io_error = |e: io::Error| disk(path, &e);
        let parent = path.parent().ok_or_else(|| StoreError::Io("a file without a folder".into()));
        let parent = parent?;
        create_dir_durably(parent).map_err(io_error)?;
        remove_if_there(&aside).map_err(io_error)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&aside);
        let db = self.database(file.map_err(io_error)?)?;
        self.write_about(&db)?;
        fs::rename(&aside, path).map_err(io_error)?;
        sync_dir(parent).map_err(io_error)?;
        Ok(db)
    }

    fn database(&self, file: File) -> Result<OpenFile, StoreError> {
        let path = self.path.display().to_string();
        let db = guarded(&self.path, || {
            let inner = FileBackend::new(file)?;
            Builder::new()
                .set_cache_size(self.cache_bytes)
                .set_repair_callback(move |progress| {
                    let progress = progress.progress();
                    tracing::debug!(path, progress, "checking a file that was not closed");
                })
                .create_with_backend(DiskFile { inner, faults: self.faults.clone() })
        });
        Ok(db?.into())
    }

    fn write_about(&self, db: &Database) -> Result<(), StoreError> {
        let written = guarded(&self.path, || -> Result<(), redb::Error> {
            let txn = db.begin_write()?;
            {
                let mut about = txn.open_table(ABOUT)?;
                about.insert("kind", self.kind.name)?;
                about.insert("format", self.kind.format.to_string().as_str())?;
            }
            Ok(txn.commit()?)
        });
        Ok(written?)
    }

    /// Refuses a file of another kind or of a later format.
    pub(crate) fn check_about(&self, db: &Database) -> Result<(), StoreError> {
        let refuse =
            |why: String| Err(StoreError::Damaged(format!("`{}` {why}", self.path.display())));
        let found = guarded(&self.path, || -> Result<_, redb::Error> {
            let about = match db.begin_read()?.open_table(ABOUT) {
                Ok(about) => about,
                Err(TableError::Storage(e)) => return Err(e.into()),
                Err(_) => return Ok(None),
            };
            let kind = about.get("kind")?.map(|v| v.value().to_owned());
            let format = about.get("format")?.map(|v| v.value().to_owned());
            Ok(kind.zip(format))
        })?;
        let Some((kind, format)) = found else {
            return refuse("is a redb file, but none of Lantern's".into());
        };
        if kind != self.kind.name {
            return refuse(format!("is a file of kind `{kind}`, not `{}`", self.kind.name));
        }
        match format.parse::<u32>() {
            Ok(format) if (1..=self.kind.format).contains(&format) => Ok(()),
            Ok(format) if format > 0 => refuse(format!(
                "has format {format}, and this release reads formats up to {}: use the release \
                 that wrote it, or a later one",
                self.kind.format
            )),
            _ => refuse(format!("gives `{format}` as its format, which is none")),
        }
    }
}

/// An open database. redb writes when it closes a file, and panics over some
/// damaged ones; whoever lets go of a file must not be taken along.
#[derive(Debug)]
pub(crate) struct OpenFile(Option<Database>);

impl From<Database> for OpenFile {
    fn from(database: Database) -> Self {
        Self(Some(database))
    }
}

impl Deref for OpenFile {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for OpenFile {
    fn deref_mut(&mut self) -> &mut Database {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("redb gave up while it closed a file, which is damaged");
        }
    }
}

/// A database that lives in memory only.
pub(crate) fn in_memory(cache_bytes: usize) -> Result<OpenFile, StoreError> {
    let db = Builder::new().set_cache_size(cache_bytes).create_with_backend(InMemoryBackend::new());
    db.map(OpenFile::from).map_err(|e| failure(Path::new("memory"), e).into())
}

/// Creates `dir` and what is missing above it, so that it is still there after
/// a power failure.
pub(crate) fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(parent)?;
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync_dir(parent)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened, and renames are durable by themselves.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Removes the file at `path`; none is as good.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Drops what the system keeps of `file` in memory. After a failed sync it may
/// show pages that never reached the disk and never will; read again from the
/// disk, redb's checksums tell which commit is the last whole one.
fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::warn!(error = %e, "cannot drop cached pages");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Lets tests make the disk fail; does nothing else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(test)]
    pub(crate) disk: std::sync::Arc<TestDisk>,
}

/// How a test's disk fails now.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct TestDisk {
    /// Writes fail: there is no room.
    pub(crate) full: std::sync::atomic::AtomicBool,
    /// Syncs fail.
    pub(crate) sync_fails: std::sync::atomic::AtomicBool,
    /// Reads fail.
    pub(crate) read_fails: std::sync::atomic::AtomicBool,
}

#[cfg_attr(
    not(test),
    expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "faults are for tests alone")
)]
impl Faults {
    fn read(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.disk.read_fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("injected read error"));
        }
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.disk.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.disk.sync_fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("injected sync error"));
        }
        Ok(())
    }
}

/// redb's file, with faults in tests.
#[derive(Debug)]
struct DiskFile {
    inner: FileBackend,
    faults: Faults,
}

type Locked<T> = Result<T, BackendError>;

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.read()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.inner.query_lock_range(start, end)
    }
}
