//! Implements a simulated disk in memory. It keeps a journal of all operations. For a power loss at
//! any of these operations, it can produce the content of the disk afterwards: writes that were not
//! synced are lost, kept, reordered or torn.
//!
//! The model guarantees only what POSIX guarantees.
//! - A file's writes and length are durable after the file's sync. Before that sync, any of the
//!   writes may reach the disk, completely or only some sectors of it, independently of earlier
//!   writes.
//! - A folder's names are durable after the folder's sync. Before that sync, the file system may
//!   have written some of the changes of names, in their order. The sync of a file does not make
//!   its name durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use parking_lot::Mutex;
use redb::StorageBackend;

/// The unit that a disk writes completely or not at all, in bytes.
const SECTOR: usize = 512;
/// The size of the pages in which images share the contents of files, in bytes.
const PAGE: usize = 4096;

/// A number that identifies a file, whatever its path is.
type Inode = u64;

/// The bytes of a file, in pages that several images can share. No stored page is all zeros.
#[derive(Clone, Debug, Default)]
struct Contents {
    len: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

/// The contents of a whole disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    names: BTreeMap<PathBuf, Node>,
    files: BTreeMap<Inode, Contents>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(Inode),
}

/// An operation on the disk, or a mark of the program in the journal.
#[derive(Clone, Debug)]
enum DiskOperation<M> {
    Write {
        file: Inode,
        at: u64,
        bytes: Arc<[u8]>,
    },
    Length {
        file: Inode,
        len: u64,
    },
    Sync(Inode),
    Name {
        folder: PathBuf,
        change: Rename,
    },
    SyncFolder(PathBuf),
    /// The program reported something to others.
    Mark(M),
}

/// A change of the names in a folder.
#[derive(Clone, Debug)]
enum Rename {
    Add(PathBuf, Node),
    Move(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// The bugs that are planted in the disk.
#[derive(Debug, Default)]
pub struct FalseSyncs {
    /// A sync of a file succeeds without effect if the file's path ends with this text.
    pub sync_skipped: Mutex<Option<&'static str>>,
    /// Whether syncs of folders succeed without effect.
    pub folder_sync_skipped: AtomicBool,
}

#[derive(Debug)]
struct Inner<M> {
    /// The durable contents of the disk when the journal began.
    base: Image,
    seen: Image,
    journal: Vec<DiskOperation<M>>,
    next_inode: Inode,
}

/// A simulated disk. Clones of this value are the same disk. `M` is the type of [`SimDisk::mark`]s.
#[derive(Debug)]
pub struct SimDisk<M>(Arc<Shared<M>>);

#[derive(Debug)]
struct Shared<M> {
    inner: Mutex<Inner<M>>,
    false_syncs: FalseSyncs,
    syncs: AtomicU64,
}

impl<M> Clone for SimDisk<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Contents {
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if at + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let (page, start) = page_and_offset(at + done as u64);
            let part = (PAGE - start).min(out.len() - done);
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => {
                    out[done..done + part].copy_from_slice(&bytes[start..start + part]);
                }
                None => out[done..done + part].fill(0),
            }
            done += part;
        }
        Ok(())
    }

    /// Writes bytes at the position `at`, and makes the file longer if needed.
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.len = self.len.max(at + bytes.len() as u64);
        let mut done = 0;
        while done < bytes.len() {
            let (page, start) = page_and_offset(at + done as u64);
            let part = (PAGE - start).min(bytes.len() - done);
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let held = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(held)[start..start + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, start) = page_and_offset(len);
            self.pages.truncate(page + usize::from(start > 0));
            if let Some(Some(last)) = self.pages.get_mut(page) {
                Arc::make_mut(last)[start..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Returns the page that contains the byte at `at`, and the byte's position in the page.
fn page_and_offset(at: u64) -> (usize, usize) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    (at / PAGE, at % PAGE)
}

impl Image {
    fn rename(&mut self, change: &Rename) {
        match change {
            Rename::Add(path, node) => drop(self.names.insert(path.clone(), *node)),
            Rename::Remove(path) => drop(self.names.remove(path)),
            Rename::Move(from, to) => {
                let moved =
                    self.names.range(from.clone()..).take_while(|(p, _)| p.starts_with(from));
                let moved: Vec<_> = moved.map(|(p, node)| (p.clone(), *node)).collect();
                for (path, node) in moved {
                    self.names.remove(&path);
                    let below = path.strip_prefix(from).unwrap_or(Path::new(""));
                    let path =
                        if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    self.names.insert(path, node);
                }
            }
        }
    }

    /// Removes names whose parent folder is missing, and files without a name.
    fn tidy(&mut self) {
        let folders: BTreeSet<_> = self
            .names
            .iter()
            .filter(|(_, n)| **n == Node::Folder)
            .map(|(p, _)| p.clone())
            .collect();
        self.names.retain(|path, _| {
            path.ancestors().skip(1).all(|a| a.as_os_str().is_empty() || folders.contains(a))
        });
        let named: BTreeSet<_> = self
            .names
            .values()
            .filter_map(|node| if let Node::File(inode) = node { Some(*inode) } else { None })
            .collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

/// The effect of a power loss on writes that were not synced.
#[derive(Clone, Copy, Debug)]
enum CrashOutcome {
    /// None of the writes reached the disk.
    Lost,
    /// All writes reached the disk, as when only the process dies.
    Kept,
    /// Each write reached the disk or not, completely or only some of its sectors.
    Mixed,
    /// The later writes reached the disk, the earlier ones did not.
    Reversed,
    /// All writes reached the disk up to some write, of which only a part did.
    Torn,
}

impl<M: Clone> SimDisk<M> {
    /// Creates a disk with the contents of `image`, all of them durable.
    #[must_use]
    pub fn new(image: Image) -> Self {
        let next_inode = image.files.keys().next_back().map_or(1, |last| last + 1);
        let inner = Inner { base: image.clone(), seen: image, journal: Vec::new(), next_inode };
        Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            false_syncs: FalseSyncs::default(),
            syncs: AtomicU64::new(0),
        }))
    }

    /// Returns the bugs that are planted in this disk.
    #[must_use]
    pub fn false_syncs(&self) -> &FalseSyncs {
        &self.0.false_syncs
    }

    /// Records in the journal that the program reported something to others.
    pub fn mark(&self, mark: M) {
        self.0.inner.lock().journal.push(DiskOperation::Mark(mark));
    }

    /// Returns the number of steps in the journal.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.inner.lock().journal.len()
    }

    /// Returns the number of files' syncs that were made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }

    /// Everything that the program had reported to others by step `at` of the journal.
    #[must_use]
    pub fn marks(&self, at: usize) -> Vec<M> {
        let inner = self.0.inner.lock();
        let mark = |step: &DiskOperation<M>| {
            if let DiskOperation::Mark(mark) = step { Some(mark.clone()) } else { None }
        };
        inner.journal[..at].iter().filter_map(mark).collect()
    }

    /// Computes the contents of the disk after power was lost after step `at`.
    #[must_use]
    pub fn cut(&self, at: usize, rng: &mut Rng) -> Image {
        let inner = self.0.inner.lock();
        let mut image = inner.base.clone();
        let mut open: BTreeMap<Inode, Vec<&DiskOperation<M>>> = BTreeMap::new();
        let mut names: BTreeMap<&Path, Vec<(usize, &Rename)>> = BTreeMap::new();
        let mut kept: Vec<(usize, &Rename)> = Vec::new();
        for (number, step) in inner.journal[..at].iter().enumerate() {
            match step {
                DiskOperation::Write { file, .. } | DiskOperation::Length { file, .. } => {
                    open.entry(*file).or_default().push(step);
                }
                DiskOperation::Sync(file) => {
                    let durable = image.files.entry(*file).or_default();
                    for step in open.remove(file).unwrap_or_default() {
                        redo(durable, step);
                    }
                }
                DiskOperation::Name { folder, change } => {
                    names.entry(folder).or_default().push((number, change));
                }
                DiskOperation::SyncFolder(folder) => {
                    kept.extend(names.remove(folder.as_path()).unwrap_or_default());
                }
                DiskOperation::Mark(_) => (),
            }
        }
        for (_, changes) in names {
            let some = rng.usize(..=changes.len());
            kept.extend(&changes[..some]);
        }
        kept.sort_unstable_by_key(|(number, _)| *number);
        let fate = [
            CrashOutcome::Lost,
            CrashOutcome::Kept,
            CrashOutcome::Mixed,
            CrashOutcome::Mixed,
            CrashOutcome::Reversed,
            CrashOutcome::Torn,
        ][rng.usize(..6)];
        for (file, steps) in open {
            survive(image.files.entry(file).or_default(), &steps, fate, rng);
        }
        for (_, change) in kept {
            image.rename(change);
        }
        // A name may have reached the disk before any of its file's content.
        let named: Vec<_> = image.names.values().copied().collect();
        for node in named {
            if let Node::File(inode) = node {
                image.files.entry(inode).or_default();
            }
        }
        image.tidy();
        image
    }

    /// Returns all paths on the disk, in order, with the length of each file.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<PathBuf, Option<u64>> {
        let inner = self.0.inner.lock();
        let described = |(path, node): (&PathBuf, &Node)| {
            let len = match node {
                Node::Folder => None,
                Node::File(file) => Some(inner.seen.files.get(file).map_or(0, |c| c.len)),
            };
            (path.clone(), len)
        };
        inner.seen.names.iter().map(described).collect()
    }

    /// Creates the folder at `path`.
    pub fn new_folder(&self, path: &Path) {
        let mut inner = self.0.inner.lock();
        self.name(&mut inner, path, Rename::Add(path.into(), Node::Folder));
    }

    /// Removes the name `path`.
    pub fn remove(&self, path: &Path) {
        let mut inner = self.0.inner.lock();
        self.name(&mut inner, path, Rename::Remove(path.into()));
    }

    /// Opens the file at `path`. Returns `None` if it does not exist.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<Open<M>> {
        match self.0.inner.lock().seen.names.get(path) {
            Some(Node::File(file)) => {
                Some(Open { disk: self.clone(), file: *file, path: path.into() })
            }
            _ => None,
        }
    }

    /// Creates the file at `path`, which must not exist.
    ///
    /// # Errors
    /// Returns [`io::ErrorKind::AlreadyExists`].
    pub fn new_file(&self, path: &Path) -> io::Result<Open<M>> {
        let mut inner = self.0.inner.lock();
        if inner.seen.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = inner.next_inode;
        inner.next_inode += 1;
        inner.seen.files.insert(file, Contents::default());
        self.name(&mut inner, path, Rename::Add(path.into(), Node::File(file)));
        Ok(Open { disk: self.clone(), file, path: path.into() })
    }

    /// Renames `from` to `to`, in the same folder.
    ///
    /// # Errors
    /// Returns [`io::ErrorKind::NotFound`].
    pub fn rename_to(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        if !inner.seen.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.name(&mut inner, to, Rename::Move(from.into(), to.into()));
        Ok(())
    }

    /// Makes the names in `folder` durable.
    pub fn sync_names(&self, folder: &Path) {
        if !self.0.false_syncs.folder_sync_skipped.load(Ordering::SeqCst) {
            self.0.inner.lock().journal.push(DiskOperation::SyncFolder(folder.into()));
        }
    }

    fn name(&self, inner: &mut Inner<M>, path: &Path, change: Rename) {
        inner.seen.rename(&change);
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        inner.journal.push(DiskOperation::Name { folder, change });
    }
}

fn redo<M>(contents: &mut Contents, step: &DiskOperation<M>) {
    match step {
        DiskOperation::Write { at, bytes, .. } => contents.write(*at, bytes),
        DiskOperation::Length { len, .. } => contents.set_len(*len),
        _ => (),
    }
}

/// Chooses which of the operations in `steps`, none of them synced, reach the disk.
fn survive<M>(
    contents: &mut Contents,
    steps: &[&DiskOperation<M>],
    fate: CrashOutcome,
    rng: &mut Rng,
) {
    let torn_at = rng.usize(..steps.len());
    let chance = rng.f64();
    for (number, step) in steps.iter().enumerate() {
        let whole = match fate {
            CrashOutcome::Lost => false,
            CrashOutcome::Kept => true,
            CrashOutcome::Mixed => rng.f64() < chance,
            CrashOutcome::Reversed => number > torn_at,
            CrashOutcome::Torn => number < torn_at,
        };
        let torn = match fate {
            CrashOutcome::Mixed => !whole && rng.bool(),
            CrashOutcome::Reversed | CrashOutcome::Torn => number == torn_at,
            CrashOutcome::Lost | CrashOutcome::Kept => false,
        };
        if whole {
            redo(contents, step);
        } else if torn && let DiskOperation::Write { at, bytes, .. } = step {
            for (sector, part) in bytes.chunks(SECTOR).enumerate() {
                if rng.bool() {
                    contents.write(at + (sector * SECTOR) as u64, part);
                }
            }
        }
    }
}

/// An open file on the simulated disk.
#[derive(Debug)]
pub struct Open<M> {
    disk: SimDisk<M>,
    file: Inode,
    path: PathBuf,
}

impl<M: std::fmt::Debug + Clone + Send + Sync + 'static> StorageBackend for Open<M> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.inner.lock().seen.files.get(&self.file).map_or(0, |contents| contents.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.0.inner.lock();
        match inner.seen.files.get(&self.file) {
            Some(contents) => contents.read(offset, out),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.0.inner.lock();
        inner.seen.files.entry(self.file).or_default().set_len(len);
        inner.journal.push(DiskOperation::Length { file: self.file, len });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let skipped = *self.disk.0.false_syncs.sync_skipped.lock();
        if skipped.is_some_and(|end| self.path.to_string_lossy().ends_with(end)) {
            return Ok(());
        }
        self.disk.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.disk.0.inner.lock().journal.push(DiskOperation::Sync(self.file));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.0.inner.lock();
        inner.seen.files.entry(self.file).or_default().write(offset, data);
        let step = DiskOperation::Write { file: self.file, at: offset, bytes: data.into() };
        inner.journal.push(step);
        Ok(())
    }
}
