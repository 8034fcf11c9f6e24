//! Checks states, the catalogue and plugins without changing their files.

use std::io;
use std::path::{Path, PathBuf};

use lantern_core::{
    KeyRange, Offset, Pairs, ParkedRecord, ProjectionRecord, ReadStore, ShardMeta, Space,
    StoreError,
};
use lantern_redb_file::{OpenFile, open_read_only, open_read_only_with};
use redb::Database;
use sha2::{Digest, Sha256};

use crate::catalog_records;
use crate::commit_reader::CommitReader;
use crate::disk::Disk;
use crate::error::{disk, guarded};
use crate::file::{CATALOG, STATE, check_about};

/// The number of rows that are read at a time.
const ROWS: usize = 1_000;

/// What the check of an undamaged state has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateChecked {
    /// The next offset of the shard.
    pub next: Offset,
    /// The number of all entries, such as rows and timers.
    pub rows: u64,
    /// The number of parked events.
    pub parked: u64,
    /// The number of retries and drops of parked events. No other file contains them, so they are
    /// lost with this file.
    pub decisions: u64,
}

/// Reads the whole state of a shard in the file at `path` and verifies its checksums. It also
/// decodes the shard's own record and its parked events. It does not change the file.
///
/// # Errors
/// Returns [`StoreError`] if the file cannot be read, and [`StoreError::Damaged`] if the state is
/// damaged. Each contains the path.
pub fn check_state(path: &Path) -> Result<StateChecked, StoreError> {
    let mut db = OpenFile::from(guarded(path, || open_read_only(path))?);
    check_about(path, STATE, &db)?;
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

/// Reads the whole catalogue at `path` and verifies its checksums. It does not change the file.
///
/// # Errors
/// Returns [`StoreError`] if the file cannot be read, and [`StoreError::Damaged`] if the catalogue
/// is damaged. Each contains the path.
pub fn check_catalog(path: &Path) -> Result<Vec<ProjectionRecord>, StoreError> {
    catalog_in(path, guarded(path, || open_read_only(path))?.into())
}

/// Checks the catalogue like [`check_catalog`], in a file on the disk `on`.
pub(crate) fn check_catalog_on(on: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let db = guarded(path, || open_read_only_with(on.open(path, false)?))?;
    catalog_in(path, db.into()).map(drop)
}

fn catalog_in(path: &Path, mut db: OpenFile) -> Result<Vec<ProjectionRecord>, StoreError> {
    check_about(path, CATALOG, &db)?;
    let stored = guarded(path, || catalog_records::stored(&db))?;
    let records = catalog_records::decode(path, stored)?;
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

/// Reads the last commit of a file that is opened read-only.
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
/// Returns [`StoreError::Damaged`] with the path if the file is missing or has other bytes, and
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
