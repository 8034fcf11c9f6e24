//! The folder `state`: which file a shard has, and how many of them are open.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lantern_core::{ShardId, ShardStore, StateStores, StoreError, VersionId};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commit_reader::CommitOptions;
use crate::disk::{Disk, PathKind, SystemDisk, create_dir_durably, unless_missing};
use crate::error::disk;
use crate::file::{DatabaseFile, FileKind};
use crate::row_cache::RowCacheBudget;
use crate::shard::{Shard, ShardHandle};
use crate::temporary::TemporaryShard;

/// Since format 3 a state says when it was born and by which decisions and
/// incarnations of the log it came about.
pub(crate) const KIND: FileKind = FileKind { name: "state", format: 3, earliest: 3 };

/// The least memory for the pages of a file, where less is not configured, in
/// bytes.
const CACHE_BYTES_LEAST: usize = 8 << 20;
/// The longest name of a projection or version that becomes a folder, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The most idle files closed in one go.
const CLOSED_AT_ONCE_MAX: usize = 16;
/// How a folder ends that is being deleted. No name has a dot.
const REMOVED: &str = "removed";
/// The folder of states for one piece of work. No projection's name has a dot.
const TEMPORARY: &str = ".temporary";

/// How shards' files are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The most memory for the pages of one shard's file, in bytes; what a
    /// shard does not touch is not kept. Default 64 MiB.
    pub cache_bytes: usize,
    /// What the pages of all open files should stay below, in bytes: a file that
    /// is opened while many are gets its part of this and no more, but at least
    /// 8 MiB. Default 512 MiB.
    pub cache_total_bytes: usize,
    /// How many files may be open. Past it, those of shards at rest are closed
    /// and opened again when used, which takes some milliseconds; shards that
    /// are being read are never closed, so the number can be passed for a
    /// while. Default 256.
    pub open_files_max: usize,
    /// After how long without use a shard's file is closed, in milliseconds,
    /// and its memory given back. Default 60,000.
    pub idle_close_ms: u64,
    /// Whether a file opens at once after a crash, instead of being read whole
    /// first. It costs a little on each commit. Default true.
    pub quick_repair: bool,
    /// A table with eight times as many rows is no longer stored as a
    /// tree but as sorted runs of at least this many, to which commits append
    /// and which are merged as they become many: a changed row then costs
    /// hundreds of bytes written instead of thousands. 0 leaves all tables
    /// trees, except those that are stored in runs already. Default 8,192.
    pub run_rows: u64,
    /// What the rows of tables in runs may take in memory, of all states
    /// together and about evenly, in bytes: there they are found at once, and in
    /// a file only in ten times as long. Default 1 GiB.
    pub rows_total_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            cache_total_bytes: 512 << 20,
            open_files_max: 256,
            idle_close_ms: 60_000,
            quick_repair: true,
            run_rows: 8_192,
            rows_total_bytes: 1 << 30,
        }
    }
}

/// The folder `state`, with `<projection key>/<version>[-r<rebuild>]/<partition>.redb`
/// in it. A shard opened twice is one file with two handles.
pub struct StateDir {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
}

/// The shards known, and which of their files are open.
pub(crate) struct OpenFiles {
    config: StoreConfig,
    open: AtomicUsize,
    /// Never held while a shard is locked or a file opened.
    shards: Mutex<BTreeMap<ShardId, Arc<Shard>>>,
    looked: Mutex<Instant>,
    /// For rows in memory.
    rows: Arc<RowCacheBudget>,
    /// Numbers temporary states.
    temporary: AtomicU64,
}

impl StateDir {
    /// Opens the folder, creates it if it is missing, and deletes what a
    /// crash left of removed versions.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read or written.
    pub fn open(path: impl Into<PathBuf>, config: StoreConfig) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(SystemDisk), path, config)
    }

    /// Opens the folder on `on`: for tests that take power and disk away.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn open_on(
        on: Arc<dyn Disk>,
        path: impl Into<PathBuf>,
        config: StoreConfig,
    ) -> Result<Self, StoreError> {
        let root = path.into();
        create_dir_durably(&*on, &root).map_err(|e| disk(&root, &e))?;
        delete_removed(&*on, &root).map_err(|e| disk(&root, &e))?;
        delete_temporary(&*on, &root).map_err(|e| disk(&root, &e))?;
        describe_metrics();
        let files = OpenFiles {
            open: AtomicUsize::new(0),
            shards: Mutex::new(BTreeMap::new()),
            looked: Mutex::new(Instant::now()),
            rows: RowCacheBudget::new(config.rows_total_bytes),
            config,
            temporary: AtomicU64::new(0),
        };
        Ok(Self { root, disk: on, files: Arc::new(files) })
    }

    /// Closes the files of shards that were not used since the last call, at
    /// most some, and returns how many. Commits do this at times by themselves;
    /// call it where none may come for long.
    pub fn close_idle(&self) -> usize {
        self.files.close_idle()
    }

    /// Reads the whole file of `shard` and compares it with its checksums, which
    /// reads of single rows do not. Other callers wait for the shard until it has ended.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the file's path if it does not match, and
    /// [`StoreError::Io`] while it is read or has a snapshot.
    pub fn check(&self, shard: &ShardId) -> Result<(), StoreError> {
        let handle = self.handle(shard)?;
        handle.shard().check()
    }

    /// How many shards' files are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.files.open.load(Ordering::SeqCst)
    }

    fn handle(&self, shard: &ShardId) -> Result<ShardHandle, StoreError> {
        let dir = self.build_dir(&shard.projection, &shard.version, shard.rebuild)?;
        let config = &self.files.config;
        let new = || {
            let path = dir.join(format!("{}.redb", shard.partition));
            let file = DatabaseFile::new(path, KIND, config.cache_bytes, self.disk.clone());
            let writing =
                CommitOptions { quick_repair: config.quick_repair, run_rows: config.run_rows };
            let (budget, files) = (self.files.rows.clone(), Arc::downgrade(&self.files));
            Arc::new(Shard::on_disk(file, writing, budget, files))
        };
        let known = {
            let mut shards = self.files.shards.lock();
            Arc::clone(shards.entry(shard.clone()).or_insert_with(new))
        };
        let handle = ShardHandle::new(Arc::clone(&known));
        known.open_or_create()?;
        Ok(handle)
    }

    fn build_dir(
        &self,
        projection: &str,
        version: &VersionId,
        rebuild: u64,
    ) -> Result<PathBuf, StoreError> {
        check_key(projection)?;
        check_name("version", &version.0)?;
        // `v-r1` must not be both a version and the first rebuild of `v`.
        let suffix = version.0.rsplit_once("-r").map(|(_, digits)| digits);
        if suffix.is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())) {
            return Err(StoreError::Io(format!(
                "version `{version}` cannot name a folder: it must not end in `-r` and a number"
            )));
        }
        let mut folder = version.0.clone();
        if rebuild > 0 {
            folder = format!("{version}-r{rebuild}");
        }
        Ok(self.root.join(projection).join(folder))
    }
}

impl StateStores for StateDir {
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError> {
        Ok(Arc::new(self.handle(shard)?))
    }

    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        // Pages in memory need no cache.
        Ok(Arc::new(ShardHandle::new(Arc::new(Shard::in_memory(CACHE_BYTES_LEAST)?))))
    }

    fn temporary(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        let number = self.files.temporary.fetch_add(1, Ordering::SeqCst);
        let path = self.root.join(TEMPORARY).join(format!("{number}.redb"));
        let file = DatabaseFile::new(path, KIND, self.files.cache_bytes(), self.disk.clone());
        let writing = CommitOptions { quick_repair: false, run_rows: self.files.config.run_rows };
        let budget = self.files.rows.clone();
        let shard = Arc::new(Shard::on_disk(file, writing, budget, Weak::new()));
        let handle = ShardHandle::new(Arc::clone(&shard));
        shard.open_or_create()?;
        Ok(Arc::new(TemporaryShard(handle)))
    }

    fn remove(
        &self,
        projection: &str,
        version: &VersionId,
        rebuild: u64,
    ) -> Result<(), StoreError> {
        let dir = self.build_dir(projection, version, rebuild)?;
        let of_build = |id: &ShardId| {
            id.projection == projection && id.version == *version && id.rebuild == rebuild
        };
        let removed: Vec<_> = {
            let mut shards = self.files.shards.lock();
            shards.extract_if(.., |id, _| of_build(id)).map(|(_, shard)| shard).collect()
        };
        removed.iter().for_each(|shard| shard.close_removed());
        delete_build(&*self.disk, &dir).map_err(|e| disk(&dir, &e))
    }
}

impl OpenFiles {
    /// The memory for the pages of a file that is opened now.
    pub(crate) fn cache_bytes(&self) -> usize {
        let part = self.config.cache_total_bytes / (self.open.load(Ordering::SeqCst) + 1);
        part.max(CACHE_BYTES_LEAST).min(self.config.cache_bytes)
    }

    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Closes a file where one more would be too many: one that was not used
    /// lately, or else any at rest.
    pub(crate) fn make_room(&self) {
        if self.open.load(Ordering::SeqCst) < self.config.open_files_max {
            return;
        }
        let shards = self.known();
        let unused = shards.iter().filter(|shard| !shard.take_used());
        let mut in_order = unused.chain(&shards);
        if !in_order.any(|shard| shard.close_unless_busy()) {
            tracing::debug!(limit = self.config.open_files_max, "all open files are in use");
        }
    }

    /// [`OpenFiles::close_idle`], where the configured time has passed.
    pub(crate) fn close_idle_at_times(&self) {
        let Some(mut looked) = self.looked.try_lock() else {
            return;
        };
        if looked.elapsed() >= Duration::from_millis(self.config.idle_close_ms) {
            *looked = Instant::now();
            self.close_idle();
        }
    }

    fn close_idle(&self) -> usize {
        let shards = self.known();
        let idle = shards.iter().filter(|shard| !shard.take_used());
        idle.filter(|shard| shard.close_unless_busy()).take(CLOSED_AT_ONCE_MAX).count()
    }

    fn known(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().values().cloned().collect()
    }
}

/// Refuses keys of projections that [`lantern_core::projection_key`] does not make.
fn check_key(key: &str) -> Result<(), StoreError> {
    let (name, tenant) = key.split_once('.').unwrap_or((key, "x"));
    let tenant = tenant.strip_prefix('.').unwrap_or(tenant);
    check_name("projection", name).and_then(|()| check_name("tenant", tenant))
}

/// Refuses what could lead out of the folder.
fn check_name(what: &str, name: &str) -> Result<(), StoreError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if fits {
        return Ok(());
    }
    Err(StoreError::Io(format!(
        "the {what} name `{name}` cannot name a folder: it must be 1 to {NAME_BYTES_MAX} lower-case \
         letters, digits, `-` or `_`"
    )))
}

/// Deletes a build's folder, and its projection's where that was the last one.
fn delete_build(on: &dyn Disk, dir: &Path) -> io::Result<()> {
    let aside = dir.with_extension(REMOVED);
    // Renamed first: a crash must not leave some of its files to be taken for
    // all of them.
    unless_missing(on.rename(dir, &aside))?;
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    unless_missing(on.sync_folder(parent))?;
    unless_missing(on.remove_tree(&aside))?;
    match on.remove_folder(parent) {
        Ok(()) => parent.parent().map_or(Ok(()), |above| on.sync_folder(above)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => on.sync_folder(parent),
        Err(e) => Err(e),
    }
}

/// Deletes the folders in `root` that a crash kept from being deleted.
fn delete_removed(on: &dyn Disk, root: &Path) -> io::Result<()> {
    for projection in on.list(root)? {
        let projection = root.join(projection);
        if on.find(&projection)? != Some(PathKind::Folder) {
            continue;
        }
        for build in on.list(&projection)? {
            let build = projection.join(build);
            if build.extension() == Some(OsStr::new(REMOVED)) {
                on.remove_tree(&build)?;
            }
        }
    }
    Ok(())
}

/// Deletes the states for single pieces of work that a crash left.
fn delete_temporary(on: &dyn Disk, root: &Path) -> io::Result<()> {
    unless_missing(on.remove_tree(&root.join(TEMPORARY)))
}

fn describe_metrics() {
    use metrics::Unit;
    metrics::describe_histogram!(
        "lantern_store_commit_seconds",
        Unit::Seconds,
        "How long a shard's commit took"
    );
    metrics::describe_counter!("lantern_store_commits_total", "Commits of all shards");
    metrics::describe_counter!(
        "lantern_store_unsynced_commits_total",
        "Of these commits, those without a sync of their own"
    );
    metrics::describe_counter!(
        "lantern_store_bytes_written_total",
        Unit::Bytes,
        "Bytes of keys and values that commits wrote"
    );
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
