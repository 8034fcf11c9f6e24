//! Defines the disk on which the store's files are: the disk of the machine, or one that a test
//! simulates.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;

use lantern_redb_file::forget_cached_pages;
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// The file system operations that the store needs. The effect of an operation is durable only
/// after a sync of the file or folder that it changes.
pub trait Disk: Debug + Send + Sync {
    /// Opens the file at `path` for reading and writing. With `uncached`, it first drops
    /// the operating system's cached pages of the file.
    ///
    /// # Errors
    /// Returns the error of the operating system; [`io::ErrorKind::NotFound`] if there is no such
    /// file.
    fn open(&self, path: &Path, uncached: bool) -> Result<Box<dyn StorageBackend>, DatabaseError>;

    /// Creates the file at `path`, which must not exist.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn create(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError>;

    /// Returns what is at `path`: a file or a folder; `None` if there is nothing.
    ///
    /// # Errors
    /// Returns the error of the operating system. It is not an error if there is nothing at `path`.
    fn find(&self, path: &Path) -> io::Result<Option<PathKind>>;

    /// Renames the file or folder `from` to `to`. Replaces a file at `to`.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and everything in it.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// Returns the error of the operating system; [`io::ErrorKind::DirectoryNotEmpty`] if it is not
    /// empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder in an existing folder.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Returns the names of the files and folders in a folder.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Makes all earlier changes of names in a folder durable: creations, renames and removals.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// The path is that of a folder.
    Folder,
    /// The path is that of a file.
    File {
        /// The number of bytes that the file takes on disk.
        disk_bytes: u64,
    },
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn open(&self, path: &Path, uncached: bool) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if uncached {
            forget_cached_pages(&file).unwrap_or_else(|error| {
                tracing::warn!(%error, "the cached pages of a file could not be dropped");
            });
        }
        Ok(Box::new(FileBackend::new(file)?))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(FileBackend::new(file)?))
    }

    fn find(&self, path: &Path) -> io::Result<Option<PathKind>> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(Some(PathKind::Folder)),
            Ok(meta) => Ok(Some(PathKind::File { disk_bytes: allocated(&meta) })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // On systems other than Unix a folder cannot be opened, and renames are durable without a
        // sync.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

/// Creates the folder `dir` and its missing parents, and makes them durable.
pub(crate) fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if disk.find(dir)? == Some(PathKind::Folder) {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(disk, parent)?;
    match disk.create_folder(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    disk.sync_folder(parent)
}

/// Returns success if the error is that a file does not exist.
pub(crate) fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Returns the number of bytes that a file takes on disk. It can be less than the file's length,
/// because redb extends a file before it writes to it.
#[cfg(unix)]
fn allocated(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.blocks() * 512
}

/// Returns the length of a file, in place of the number of bytes that the file takes on disk. This
/// system does not report that number.
#[cfg(not(unix))]
fn allocated(meta: &fs::Metadata) -> u64 {
    meta.len()
}

/// An open file on a [`Disk`], in the form that redb needs.
#[derive(Debug)]
pub(crate) struct DiskFile(pub(crate) Box<dyn StorageBackend>);

type BackendResult<T> = Result<T, BackendError>;

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.query_lock_range(start, end)
    }
}

/// For tests: the machine's disk, with failures that a test can switch on and off.
#[cfg(test)]
pub(crate) mod faulty {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The operations that a test lets fail.
    #[derive(Debug, Default)]
    pub(crate) struct FaultSwitches {
        /// Whether writes fail because the disk is full.
        pub(crate) full: AtomicBool,
        /// Whether syncs of files fail from now on.
        pub(crate) sync_fails: AtomicBool,
        /// Whether reads of files fail from now on.
        pub(crate) read_fails: AtomicBool,
    }

    /// The machine's disk. Operations fail if the test has set their switch.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FaultyDisk(pub(crate) Arc<FaultSwitches>);

    #[derive(Debug)]
    struct FaultyFile(Box<dyn StorageBackend>, Arc<FaultSwitches>);

    fn unless(switch: &AtomicBool, error: io::ErrorKind) -> io::Result<()> {
        if switch.load(Ordering::SeqCst) { Err(error.into()) } else { Ok(()) }
    }

    impl StorageBackend for FaultyFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            unless(&self.1.read_fails, io::ErrorKind::Other)?;
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            unless(&self.1.sync_fails, io::ErrorKind::Other)?;
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            unless(&self.1.full, io::ErrorKind::StorageFull)?;
            self.0.write(offset, data)
        }

        fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
            self.0.try_lock_range(start, end)
        }

        fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
            self.0.unlock_range(start, end)
        }

        fn close(&self) -> io::Result<()> {
            self.0.close()
        }
    }

    impl Disk for FaultyDisk {
        fn open(
            &self,
            path: &Path,
            uncached: bool,
        ) -> Result<Box<dyn StorageBackend>, DatabaseError> {
            Ok(Box::new(FaultyFile(SystemDisk.open(path, uncached)?, self.0.clone())))
        }

        fn create(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
            Ok(Box::new(FaultyFile(SystemDisk.create(path)?, self.0.clone())))
        }

        fn find(&self, path: &Path) -> io::Result<Option<PathKind>> {
            SystemDisk.find(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            SystemDisk.rename(from, to)
        }

        fn remove_file(&self, path: &Path) -> io::Result<()> {
            SystemDisk.remove_file(path)
        }

        fn remove_tree(&self, path: &Path) -> io::Result<()> {
            SystemDisk.remove_tree(path)
        }

        fn remove_folder(&self, path: &Path) -> io::Result<()> {
            SystemDisk.remove_folder(path)
        }

        fn create_folder(&self, path: &Path) -> io::Result<()> {
            SystemDisk.create_folder(path)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
            SystemDisk.list(path)
        }

        fn sync_folder(&self, path: &Path) -> io::Result<()> {
            SystemDisk.sync_folder(path)
        }
    }
}
