//! Manages the folder `state`. This module finds the file of a shard, and deletes the files of
//! removed versions.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use lantern_core::{ShardId, ShardStore, StateStores, StoreError, VersionId};

use crate::commit_reader::CommitOptions;
use crate::config::StoreConfig;
use crate::disk::{Disk, PathKind, SystemDisk, create_dir_durably, unless_missing};
use crate::error::disk;
use crate::file::{DatabaseFile, STATE};
use crate::open_files::{CACHE_BYTES_LEAST, OpenFiles};
use crate::row_cache::RowCacheBudget;
use crate::shard::Shard;
use crate::shard_handle::ShardHandle;
use crate::temporary::TemporaryShard;

/// The maximum length of a folder name in bytes. Such a name is a projection's key or a version's
/// id.
const NAME_BYTES_MAX: usize = 128;
/// The extension of the folder of a version's state while it is deleted. Otherwise the names of
/// such folders contain no dot.
const REMOVED: &str = "removed";
/// The folder with the states of single tasks. Keys of projections do not begin with a dot, so this
/// name differs from all of them.
const TEMPORARY: &str = ".temporary";

/// The folder `state`. The file of a shard in it is `<projection
/// key>/<version>[-r<rebuild>]/<partition>.redb`. If a shard is opened twice, both handles use the
/// same file.
pub struct StateDir {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    config: StoreConfig,
    files: Arc<OpenFiles<Shard>>,
    /// The memory limit for the row caches of all states.
    rows: Arc<RowCacheBudget>,
    /// The number of the next temporary state.
    temporary: AtomicU64,
}

impl StateDir {
    /// Opens the folder, and creates it if it is missing. Deletes what a crash has left: temporary
    /// states, and parts of removed versions.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the folder cannot be read or written.
    pub fn open(path: impl Into<PathBuf>, config: StoreConfig) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(SystemDisk), path, config)
    }

    /// Opens the folder like [`StateDir::open`], on the disk `on`. Tests use it to simulate power
    /// loss and disk failures.
    ///
    /// # Errors
    /// Returns the errors of [`StateDir::open`].
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
        Ok(Self {
            root,
            disk: on,
            files: Arc::new(OpenFiles::new(config.clone())),
            rows: RowCacheBudget::new(config.rows_total_bytes),
            temporary: AtomicU64::new(0),
            config,
        })
    }

    /// Closes files of shards that were not used since the last call, a limited number of them.
    /// Returns how many files it closed. Commits also do this from time to time. Call it if there
    /// may be no commits for a long time.
    pub fn close_idle(&self) -> usize {
        self.files.close_idle()
    }

    /// Reads the whole file of `shard` and verifies its checksums, which reads of single
    /// rows do not do. Other users of the shard wait until the check has ended.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] with the file's path if the checksums do not match, and
    /// [`StoreError::Io`] while the shard is being read or has a snapshot.
    pub fn check(&self, shard: &ShardId) -> Result<(), StoreError> {
        let handle = self.handle(shard)?;
        handle.shard().check()
    }

    /// Returns the number of shards' files that are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.files.count()
    }

    fn handle(&self, shard: &ShardId) -> Result<ShardHandle, StoreError> {
        let dir = self.build_dir(&shard.projection, &shard.version, shard.rebuild)?;
        let config = &self.config;
        let new = || {
            let path = dir.join(format!("{}.redb", shard.partition));
            let file = DatabaseFile::new(path, STATE, config.cache_bytes, self.disk.clone());
            let writing =
                CommitOptions { quick_repair: config.quick_repair, run_rows: config.run_rows };
            let (budget, files) = (self.rows.clone(), Arc::downgrade(&self.files));
            Arc::new(Shard::on_disk(file, writing, budget, files))
        };
        let known = self.files.shard(shard, new);
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
        // Without this check, the version `v-r1` and the first rebuild of the version `v` would
        // have the same folder.
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
        // The pages are in memory anyway, so a large cache would be useless.
        Ok(Arc::new(ShardHandle::new(Arc::new(Shard::in_memory(CACHE_BYTES_LEAST)?))))
    }

    fn temporary(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        let number = self.temporary.fetch_add(1, Ordering::SeqCst);
        let path = self.root.join(TEMPORARY).join(format!("{number}.redb"));
        let file = DatabaseFile::new(path, STATE, self.files.cache_bytes(), self.disk.clone());
        let writing = CommitOptions { quick_repair: false, run_rows: self.config.run_rows };
        let budget = self.rows.clone();
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
        self.files.remove(of_build).iter().for_each(|shard| shard.close_removed());
        delete_build(&*self.disk, &dir).map_err(|e| disk(&dir, &e))
    }
}

/// Refuses keys that [`lantern_core::projection_key`] cannot return.
fn check_key(key: &str) -> Result<(), StoreError> {
    let (name, tenant) = key.split_once('.').unwrap_or((key, "x"));
    let tenant = tenant.strip_prefix('.').unwrap_or(tenant);
    check_name("projection", name).and_then(|()| check_name("tenant", tenant))
}

/// Refuses names that could lead to a path outside of the folder.
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

/// Deletes a folder with the states of a version. If the projection's folder is empty afterwards,
/// it is deleted too.
fn delete_build(on: &dyn Disk, dir: &Path) -> io::Result<()> {
    let aside = dir.with_extension(REMOVED);
    // The folder is renamed before its files are deleted. Otherwise a crash could leave some of the
    // files, and these would look like a complete state.
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

/// Deletes the folders in `root` whose deletion was interrupted by a crash.
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

/// Deletes temporary states that a crash left.
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
