//! Implements the state of one shard. It is a redb file that is opened when it is used and closed
//! when it is idle.
//!
//! A read does not begin a transaction of its own. Each commit creates a [`CommitReader`], a read
//! transaction with its tables opened, and all reads use it until the next commit. The file can be
//! closed while no reader uses it.
//!
//! After a disk error, redb refuses all operations on the file, so the file is closed. The next use
//! opens it again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lantern_core::{ReadValues, ShardMeta, Space, StoreError, TableId, Writes};
use lantern_redb_file::OpenFile;
use parking_lot::{Mutex, RwLock};

use crate::commit_reader::{CommitOptions, CommitReader, Sync};
use crate::disk::{Disk, PathKind};
use crate::error::guarded;
use crate::file::{DatabaseFile, in_memory};
use crate::open_files::{CloseIdle, OpenFiles};
use crate::row_cache::{CommitStamp, RowCache, RowCacheBudget, RowKnowledge};
use crate::runs::RunError;
use crate::unsynced::Unsynced;

/// The file of a shard, and its database while it is open.
pub(crate) struct Shard {
    path: PathBuf,
    /// The disk on which the file is; `None` if the state is only in memory.
    disk: Option<Arc<dyn Disk>>,
    writing: CommitOptions,
    /// The lock of threads that commit, or that open or close the file. `open` changes only under
    /// this lock.
    writer: Mutex<WriterState>,
    open: RwLock<Option<OpenShard>>,
    /// Whether the shard was used since the last search for idle files.
    used: AtomicBool,
    /// The number of readers and snapshots that use the file. While it is above 0, the file is not
    /// closed as idle.
    pins: AtomicUsize,
    /// The number of handles of the shard. When the last one is dropped, the file is closed.
    handles: AtomicUsize,
    files: Weak<OpenFiles<Self>>,
    /// The memory limit of the row cache; `None` if no rows are cached.
    budget: Option<Arc<RowCacheBudget>>,
}

/// The data that the lock `writer` protects.
struct WriterState {
    /// The file; `None` if the state is only in memory.
    file: Option<DatabaseFile>,
    removed: bool,
    unsynced: Unsynced,
}

impl WriterState {
    fn new(file: Option<DatabaseFile>) -> Self {
        Self { file, removed: false, unsynced: Unsynced::default() }
    }
}

pub(crate) struct OpenShard {
    db: OpenFile,
    view: Arc<CommitReader>,
    /// The cached rows, as of the commit of `view`; `None` if no rows are cached.
    rows: Option<Mutex<RowCache>>,
}

impl Shard {
    pub(crate) fn on_disk(
        file: DatabaseFile,
        writing: CommitOptions,
        budget: Arc<RowCacheBudget>,
        files: Weak<OpenFiles<Self>>,
    ) -> Self {
        let (path, disk) = (file.path.clone(), Some(Arc::clone(&file.disk)));
        let writer = WriterState::new(Some(file));
        Self { disk, budget: Some(budget), ..Self::new(path, writing, writer, files) }
    }

    pub(crate) fn in_memory(cache_bytes: usize) -> Result<Self, StoreError> {
        let writer = WriterState::new(None);
        let shard =
            Self::new(PathBuf::from("memory"), CommitOptions::default(), writer, Weak::new());
        *shard.open.write() = Some(OpenShard::new(&shard.path, in_memory(cache_bytes)?, None)?);
        Ok(shard)
    }

    fn new(
        path: PathBuf,
        writing: CommitOptions,
        writer: WriterState,
        files: Weak<OpenFiles<Self>>,
    ) -> Self {
        Self {
            path,
            disk: None,
            writing,
            writer: Mutex::new(writer),
            open: RwLock::new(None),
            used: AtomicBool::new(true),
            pins: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            files,
            budget: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, and creates it if it has never existed.
    pub(crate) fn open_or_create(&self) -> Result<(), StoreError> {
        self.ensure_open(&mut self.writer.lock(), DatabaseFile::open_or_create)
    }

    /// Reads the whole file and verifies its checksums. The file is closed until its next use.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        self.ensure_open(&mut writer, DatabaseFile::open)?;
        self.sync(&mut writer)?;
        let OpenShard { mut db, view, .. } = {
            let mut open = self.open.write();
            if self.pins.load(Ordering::SeqCst) > 0 {
                let path = self.path.display();
                return Err(StoreError::Io(format!("`{path}` is being read: check it later")));
            }
            open.take().ok_or_else(not_open)?
        };
        self.count_closed();
        drop(view);
        let whole = guarded(&self.path, || db.check_integrity())?;
        if whole {
            return Ok(());
        }
        let path = self.path.display();
        Err(StoreError::Damaged(format!("`{path}` does not match its checksums")))
    }

    /// Closes the file permanently, before it is deleted.
    pub(crate) fn close_removed(&self) {
        let mut writer = self.writer.lock();
        writer.removed = true;
        writer.unsynced.clear();
        self.close(&writer);
    }

    fn ensure_open(
        &self,
        writer: &mut WriterState,
        how: fn(&mut DatabaseFile) -> Result<OpenFile, StoreError>,
    ) -> Result<(), StoreError> {
        self.used.store(true, Ordering::Relaxed);
        if self.open.read().is_some() {
            return Ok(());
        }
        let removed = || StoreError::Io(format!("`{}` was removed", self.path.display()));
        let file = writer.file.as_mut().filter(|_| !writer.removed).ok_or_else(removed)?;
        let files = self.files.upgrade();
        if let Some(files) = &files {
            files.make_room();
            file.cache_bytes = files.cache_bytes();
        }
        let database = how(file)?;
        if !writer.unsynced.is_empty() {
            guarded(&self.path, || writer.unsynced.replay(&database, self.writing))?;
        }
        let open = OpenShard::new(&self.path, database, self.budget.as_ref())?;
        *self.open.write() = Some(open);
        if let Some(files) = &files {
            files.opened();
        }
        Ok(())
    }

    fn close(&self, _held: &WriterState) {
        if self.open.write().take().is_some() {
            self.count_closed();
        }
    }

    fn count_closed(&self) {
        if let Some(files) = self.files.upgrade() {
            files.closed();
        }
    }

    /// Closes the file after a disk error of `reader`. Does nothing if there was a new commit since
    /// `reader` was created, or if the file was opened again.
    fn fail(&self, reader: &Arc<CommitReader>, why: &StoreError) {
        let mut writer = self.writer.lock();
        let same = self.open.read().as_ref().is_some_and(|open| Arc::ptr_eq(&open.view, reader));
        if same {
            self.close_failed(&mut writer, why);
        }
    }

    fn close_failed(&self, writer: &mut WriterState, why: &StoreError) {
        // If the state is only in memory, there is no file that could be opened again.
        if let Some(file) = &mut writer.file {
            tracing::warn!(path = %self.path.display(), error = %why, "a state file is closed because of an error");
            file.note_failure();
            self.close(writer);
        }
    }

    /// Returns the reader of the last commit and adds 1 to `pins`. When the caller no longer uses
    /// the reader, it must call [`Shard::unpin`], which subtracts 1.
    pub(crate) fn leased(&self) -> Result<Arc<CommitReader>, StoreError> {
        let pinned = || {
            let open = self.open.read();
            let view = open.as_ref().map(|open| Arc::clone(&open.view))?;
            // `pins` is increased while `open` is locked, so no other thread can close the file in
            // between.
            self.pins.fetch_add(1, Ordering::SeqCst);
            Some(view)
        };
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        if let Some(view) = pinned() {
            return Ok(view);
        }
        let mut writer = self.writer.lock();
        self.ensure_open(&mut writer, DatabaseFile::open)?;
        pinned().ok_or_else(not_open)
    }

    pub(crate) fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns the row under `key` as of the last commit.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Space::Table(table) = space else {
            return self.read(|view| view.get(space, key));
        };
        let stamp = match self.in_memory_rows(|rows| rows.get(table, key)) {
            Some(RowKnowledge::Present(value)) => return Ok(Some(value)),
            Some(RowKnowledge::Absent) => return Ok(None),
            Some(RowKnowledge::Unknown(stamp)) => Some(stamp),
            None => None,
        };
        let pin = FileLease { shard: self, view: self.leased()? };
        let value = self.read_from(&pin.view, |view| view.get(space, key))?;
        if let Some(stamp) = stamp {
            self.cache_row(&pin.view, table, key, value.as_deref(), stamp)?;
        }
        Ok(value)
    }

    /// Looks up the `keys` that have no value in `values` yet, and adds the values as of the last
    /// commit.
    pub(crate) fn get_many(
        &self,
        space: Space,
        keys: &[&[u8]],
        values: &mut ReadValues,
    ) -> Result<(), StoreError> {
        if let Space::Table(table) = space {
            self.in_memory_rows(|rows| rows.get_many(table, keys, values));
        }
        values.complete(keys, |key| self.get(space, key))
    }

    /// Calls `work` with the row cache. Returns `None` if no rows are cached or the file
    /// is closed.
    fn in_memory_rows<R>(&self, work: impl FnOnce(&mut RowCache) -> R) -> Option<R> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let open = self.open.read();
        let rows = open.as_ref()?.rows.as_ref()?;
        Some(work(&mut rows.lock()))
    }

    /// Adds a row that was read from `view` to the cache, if its table is stored in runs. After
    /// many such rows, it loads the whole table.
    fn cache_row(
        &self,
        view: &Arc<CommitReader>,
        table: TableId,
        key: &[u8],
        value: Option<&[u8]>,
        stamp: CommitStamp,
    ) -> Result<(), StoreError> {
        let Some(runs) = view.runs(Space::Table(table)) else { return Ok(()) };
        let most = self.read_from(view, |_| runs.rows_most())?;
        let loading = self.in_memory_rows(|rows| {
            rows.read(table, key, value, most, stamp).then(|| rows.loading())
        });
        let Some(mut loading) = loading.flatten() else { return Ok(()) };
        self.read_from(view, |_| runs.each(|key, value| loading.add(key, value)))?;
        self.in_memory_rows(|rows| rows.load(table, loading));
        Ok(())
    }

    /// Calls `read` with the reader of the last commit.
    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&CommitReader) -> Result<R, RunError>,
    ) -> Result<R, StoreError> {
        let pin = FileLease { shard: self, view: self.leased()? };
        self.read_from(&pin.view, read)
    }

    /// Calls `read` with `view`, and closes the file after a disk error.
    pub(crate) fn read_from<R>(
        &self,
        view: &Arc<CommitReader>,
        read: impl FnOnce(&CommitReader) -> Result<R, RunError>,
    ) -> Result<R, StoreError> {
        guarded(&self.path, || read(view)).map_err(|failure| {
            if failure.fatal {
                self.fail(view, &failure.error);
            }
            failure.error
        })
    }

    /// Applies the changes of a commit to the row cache. Until this call returns, reads may return
    /// rows as they were before the commit. A caller that must not see such rows must have the
    /// changes itself.
    fn follow(&self, writes: &Writes) {
        for (space, changes) in writes {
            let Space::Table(table) = space else { continue };
            let mut changes = changes.iter();
            let mut part = || {
                let part = changes.by_ref().take(FOLLOWED_AT_ONCE);
                self.in_memory_rows(|rows| rows.committed(*table, part))
            };
            while part() == Some(true) {}
        }
    }

    pub(crate) fn commit(&self, writes: &Writes, sync: Sync) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock();
        self.ensure_open(&mut writer, DatabaseFile::open)?;
        self.write(&mut writer, writes, sync)
    }

    /// Makes the last commit durable, if it is not durable yet.
    fn sync(&self, writer: &mut WriterState) -> Result<(), StoreError> {
        if writer.unsynced.is_empty() {
            return Ok(());
        }
        self.write(writer, &Writes::new(), Sync::Now).map(drop)
    }

    fn write(
        &self,
        writer: &mut WriterState,
        writes: &Writes,
        sync: Sync,
    ) -> Result<u64, StoreError> {
        if sync == Sync::Later && writer.unsynced.is_empty() {
            writer.unsynced.start(self.read_record()?);
        }
        // Readers continue in parallel, and no thread can close the file without the writer's lock.
        let written = match &*self.open.read() {
            Some(open) => {
                guarded(&self.path, || open.view.write(&open.db, writes, self.writing, sync))
                    .map(|bytes| (bytes, guarded(&self.path, || CommitReader::new(&open.db))))
            }
            None => return Err(not_open()),
        };
        if written.is_ok() {
            match sync {
                Sync::Now => writer.unsynced.clear(),
                Sync::Later => writer.unsynced.push(writes.clone()),
            }
        }
        match written {
            Ok((bytes, Ok(view))) => {
                if let Some(open) = &mut *self.open.write() {
                    open.view = Arc::new(view);
                    // From now on, rows that are read from an older commit must not be added to the
                    // cache.
                    if let Some(rows) = &mut open.rows {
                        rows.get_mut().begin_commit();
                    }
                }
                self.follow(writes);
                Ok(bytes)
            }
            // The commit was made, but a disk error followed. The next use opens the file again.
            Ok((bytes, Err(failure))) => {
                self.close_failed(writer, &failure.error);
                Ok(bytes)
            }
            Err(failure) => {
                if failure.fatal {
                    self.close_failed(writer, &failure.error);
                }
                Err(failure.error)
            }
        }
    }

    /// Reads the shard's own record as of the last commit. The file must be open.
    fn read_record(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let open = self.open.read();
        let open = open.as_ref().ok_or_else(not_open)?;
        Ok(guarded(&self.path, || open.view.get(Space::Meta, ShardMeta::KEY))?)
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        !self.writer.lock().unsynced.is_empty()
    }

    /// Counts a new handle. The caller must call [`Shard::drop_handle`] when it drops the handle.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// Closes the file if this is the last handle.
    pub(crate) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let mut writer = self.writer.lock();
        // A new handle may have been created while this thread waited for the lock.
        if self.handles.load(Ordering::SeqCst) == 0 {
            if let Err(error) = self.sync(&mut writer) {
                tracing::warn!(path = %self.path.display(), %error, "the last commits of a state are not durable: they are folded again");
            }
            writer.unsynced.clear();
            self.close(&writer);
        }
    }

    /// Returns the limits for open files; `None` if they do not apply to this shard.
    pub(crate) fn files(&self) -> Option<Arc<OpenFiles<Self>>> {
        self.files.upgrade()
    }

    /// Returns the number of bytes that the file takes on disk; 0 if the shard has no file.
    pub(crate) fn disk_bytes(&self) -> u64 {
        match self.disk.as_ref().map(|disk| disk.find(&self.path)) {
            Some(Ok(Some(PathKind::File { disk_bytes }))) => disk_bytes,
            _ => 0,
        }
    }
}

impl CloseIdle for Shard {
    fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    fn close_unless_busy(&self) -> bool {
        let Some(writer) = self.writer.try_lock() else {
            return false;
        };
        let Some(mut open) = self.open.try_write() else {
            return false;
        };
        let unsynced = !writer.unsynced.is_empty();
        if writer.file.is_none() || unsynced || self.pins.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let was_open = open.take().is_some();
        if was_open {
            self.count_closed();
        }
        was_open
    }
}

/// The number of changes that are applied to the row cache at a time. A fold in parallel waits for
/// at most this many changes.
const FOLLOWED_AT_ONCE: usize = 256;

/// Returns the error that a file is not open although it was just opened. This cannot happen,
/// because the caller holds the writer's lock.
fn not_open() -> StoreError {
    StoreError::Io("the file was just opened and is closed again".into())
}

/// A reader in use. While a lease exists, the shard's file is not closed as idle.
struct FileLease<'a> {
    shard: &'a Shard,
    view: Arc<CommitReader>,
}

impl Drop for FileLease<'_> {
    fn drop(&mut self) {
        self.shard.unpin();
    }
}

impl OpenShard {
    fn new(
        path: &Path,
        db: OpenFile,
        budget: Option<&Arc<RowCacheBudget>>,
    ) -> Result<Self, StoreError> {
        let view = guarded(path, || CommitReader::new(&db))?;
        let rows = budget.map(|budget| Mutex::new(RowCache::new(budget.clone())));
        Ok(Self { db, view: Arc::new(view), rows })
    }
}
