//! Reads redb files without changing them. Writes that redb makes when it opens or
//! repairs a file stay in memory. For checks of files that may be damaged and may be the
//! only copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lantern_core::{
    KeyRange, Offset, Pairs, ParkedRecord, ProjectionRecord, ReadStore, ShardMeta, Space,
    StoreError,
};
use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use sha2::{Digest, Sha256};

use crate::catalog;
use crate::commit_reader::CommitReader;
use crate::disk::{Disk, SystemDisk};
use crate::error::{disk, guarded};
use crate::file::{DatabaseFile, OpenFile};
use crate::state;

/// The size of a page of the overlay that holds redb's writes.
const PAGE: usize = 4096;
/// redb's cache, in bytes.
const CACHE_BYTES: usize = 8 << 20;
/// The number of rows read at a time.
const ROWS: usize = 1_000;

/// Opens a redb file for reading. The file is not changed, even if it was not closed
/// properly.
///
/// # Errors
/// The error of redb.
pub fn open_read_only(path: &Path) -> Result<Database, DatabaseError> {
    let file = File::open(path).map_err(redb::StorageError::Io)?;
    let len = file.metadata().map_err(redb::StorageError::Io)?.len();
    if len == 0 {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "the file is empty");
        return Err(redb::StorageError::Io(empty).into());
    }
    read_only(FileBytes::File(file), len)
}

fn read_only(file: FileBytes, len: u64) -> Result<Database, DatabaseError> {
    let pages = Mutex::new(PageOverlay { len, stored: len, written: BTreeMap::new() });
    Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(ReadOnlyBackend { file, pages })
}

/// The file from which bytes are read.
#[derive(Debug)]
enum FileBytes {
    File(File),
    Disk(Box<dyn StorageBackend>),
}

/// The file, and redb's writes over it.
#[derive(Debug)]
struct ReadOnlyBackend {
    file: FileBytes,
    pages: Mutex<PageOverlay>,
}

#[derive(Debug)]
struct PageOverlay {
    len: u64,
    /// The file's bytes before this offset are valid. Less than the file's length if redb
    /// has truncated the file since it was opened.
    stored: u64,
    written: BTreeMap<u64, Vec<u8>>,
}

impl ReadOnlyBackend {
    fn below(&self, pages: &PageOverlay, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = usize::try_from(pages.stored.saturating_sub(at)).unwrap_or(usize::MAX);
        let there = there.min(out.len());
        match &self.file {
            _ if there == 0 => Ok(()),
            FileBytes::File(file) => file.read_exact_at(&mut out[..there], at),
            FileBytes::Disk(file) => file.read(at, &mut out[..there]),
        }
    }
}

impl StorageBackend for ReadOnlyBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.pages.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let pages = self.pages.lock();
        if offset.saturating_add(out.len() as u64) > pages.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.below(&pages, offset, out)?;
        let (first, end) = (offset / PAGE as u64, offset + out.len() as u64);
        for (number, page) in pages.written.range(first..) {
            let start = number * PAGE as u64;
            if start >= end {
                break;
            }
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(end));
            let to_index = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
            out[to_index(from, offset)..to_index(to, offset)]
                .copy_from_slice(&page[to_index(from, start)..to_index(to, start)]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut pages = self.pages.lock();
        pages.stored = pages.stored.min(len);
        pages.written.retain(|number, _| number * (PAGE as u64) < len);
        if let Some(page) = pages.written.get_mut(&(len / PAGE as u64)) {
            page[usize::try_from(len % PAGE as u64).unwrap_or(0)..].fill(0);
        }
        pages.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut pages = self.pages.lock();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let number = at / PAGE as u64;
            let offset_in_page = usize::try_from(at % PAGE as u64).unwrap_or(0);
            let part = (PAGE - offset_in_page).min(data.len() - done);
            if !pages.written.contains_key(&number) {
                let mut page = vec![0; PAGE];
                self.below(&pages, number * PAGE as u64, &mut page)?;
                pages.written.insert(number, page);
            }
            if let Some(page) = pages.written.get_mut(&number) {
                page[offset_in_page..offset_in_page + part]
                    .copy_from_slice(&data[done..done + part]);
            }
            done += part;
        }
        Ok(())
    }
}

/// The content of an undamaged state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateChecked {
    /// The shard's next offset.
    pub next: Offset,
    /// The number of rows, timers and all other entries.
    pub rows: u64,
    /// The number of parked events.
    pub parked: u64,
    /// The number of retries and drops of parked events. No other file contains them.
    pub decisions: u64,
}

/// Reads the whole state of a shard in the file at `path` and verifies its checksums.
/// Decodes the shard's own record and its parked events. Does not change the file.
///
/// # Errors
/// [`StoreError`] with the path; [`StoreError::Damaged`] if the state is damaged.
pub fn check_state(path: &Path) -> Result<StateChecked, StoreError> {
    let mut db = OpenFile::from(guarded(path, || open_read_only(path))?);
    DatabaseFile::new(path.into(), state::KIND, CACHE_BYTES, Arc::new(SystemDisk))
        .check_about(&db)?;
    let checked = guarded(path, || {
        let checked = ReadOnlyShard::new(path, &db).and_then(|view| walk(path, &view));
        Ok::<_, redb::Error>(checked)
    })??;
    sound(path, &mut db)?;
    Ok(checked)
}

fn walk(path: &Path, view: &dyn ReadStore) -> Result<StateChecked, StoreError> {
    let damaged =
        |what: &str| StoreError::Damaged(format!("`{}`: {what} is damaged", path.display()));
    let meta = ShardMeta::decode(view.get(Space::Meta, ShardMeta::KEY)?.as_deref())
        .map_err(|_| damaged("the shard's own record"))?;
    let mut rows = 0;
    for space in view.spaces()? {
        let mut start = Vec::new();
        loop {
            let range = KeyRange { start, end: None };
            let page = view.scan(space, &range, ROWS, false)?;
            rows += page.len() as u64;
            let whole = |(_, value): &(_, Vec<u8>)| ParkedRecord::decode(value).is_some();
            if space == Space::Parked && !page.iter().all(whole) {
                return Err(damaged("a parked event"));
            }
            match page.last() {
                Some((last, _)) if page.len() == ROWS => {
                    start = last.clone();
                    start.push(0);
                }
                _ => break,
            }
        }
    }
    let ShardMeta { next, parked_now: parked, decisions, .. } = meta;
    Ok(StateChecked { next, rows, parked, decisions })
}

/// Reads the whole catalogue at `path` and verifies its checksums. Does not change the
/// file.
///
/// # Errors
/// [`StoreError`] with the path; [`StoreError::Damaged`] if the catalogue is damaged.
pub fn check_catalog(path: &Path) -> Result<Vec<ProjectionRecord>, StoreError> {
    catalog_in(path, guarded(path, || open_read_only(path))?.into())
}

/// Like [`check_catalog`], for a file on any disk.
pub(crate) fn check_catalog_on(on: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let db = guarded(path, || {
        let file = on.open(path, false)?;
        let len = file.len().map_err(redb::StorageError::Io)?;
        read_only(FileBytes::Disk(file), len)
    })?;
    catalog_in(path, db.into()).map(drop)
}

fn catalog_in(path: &Path, mut db: OpenFile) -> Result<Vec<ProjectionRecord>, StoreError> {
    DatabaseFile::new(path.into(), catalog::KIND, CACHE_BYTES, Arc::new(SystemDisk))
        .check_about(&db)?;
    let stored = guarded(path, || catalog::stored(&db))?;
    let records = catalog::decode(path, stored)?;
    sound(path, &mut db)?;
    Ok(records)
}

fn sound(path: &Path, db: &mut Database) -> Result<(), StoreError> {
    if guarded(path, || db.check_integrity())? {
        return Ok(());
    }
    let path = path.display();
    Err(StoreError::Damaged(format!("`{path}` does not match its checksums")))
}

/// The last commit of a file that is opened read-only.
struct ReadOnlyShard {
    path: PathBuf,
    reader: CommitReader,
}

impl ReadOnlyShard {
    fn new(path: &Path, db: &Database) -> Result<Self, StoreError> {
        Ok(Self { path: path.into(), reader: guarded(path, || CommitReader::new(db))? })
    }
}

impl ReadStore for ReadOnlyShard {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(guarded(&self.path, || self.reader.get(space, key))?)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        Ok(guarded(&self.path, || self.reader.scan(space, range, limit, reverse))?)
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        Ok(guarded(&self.path, || self.reader.spaces())?)
    }
}

/// Verifies that a plugin's file has the SHA-256 in its name. Returns its size in bytes.
///
/// # Errors
/// [`StoreError::Damaged`] with the path if the file is missing or has other bytes, and
/// another [`StoreError`] if it cannot be read.
pub fn check_plugin(path: &Path, sha256: &str) -> Result<u64, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Damaged(format!("`{}` is gone", path.display())));
        }
        Err(e) => return Err(disk(path, &e)),
    };
    let actual = hex::encode(Sha256::digest(&bytes));
    if actual == sha256 {
        return Ok(bytes.len() as u64);
    }
    Err(StoreError::Damaged(format!(
        "`{}` holds {} bytes whose SHA-256 is `{actual}`, not the one it is named by",
        path.display(),
        bytes.len()
    )))
}
