//! Reads redb files without changing them. It is for checks of files that may be damaged and may be
//! the only copy. redb itself writes to a file when it opens or repairs it; this module keeps such
//! writes in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, StorageBackend};

/// The size of a page in the memory that holds redb's writes.
const PAGE: usize = 4096;
/// The size of redb's cache, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// Opens a redb file for reading. The file is not changed, even if it was not closed
/// properly.
///
/// # Errors
/// Returns the error of redb.
pub fn open_read_only(path: &Path) -> Result<Database, DatabaseError> {
    let file = File::open(path).map_err(redb::StorageError::Io)?;
    let len = file.metadata().map_err(redb::StorageError::Io)?.len();
    if len == 0 {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "the file is empty");
        return Err(redb::StorageError::Io(empty).into());
    }
    read_only(FileBytes::File(file), len)
}

/// Opens a redb file like [`open_read_only`]. The bytes of the file are read with `file`.
///
/// # Errors
/// Returns the error of redb.
pub fn open_read_only_with(file: Box<dyn StorageBackend>) -> Result<Database, DatabaseError> {
    let len = file.len().map_err(redb::StorageError::Io)?;
    read_only(FileBytes::Backend(file), len)
}

fn read_only(file: FileBytes, len: u64) -> Result<Database, DatabaseError> {
    let pages = Mutex::new(PageOverlay { len, stored: len, written: BTreeMap::new() });
    Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(ReadOnlyBackend { file, pages })
}

/// Where the bytes of the file are read from.
#[derive(Debug)]
enum FileBytes {
    File(File),
    Backend(Box<dyn StorageBackend>),
}

/// A file that redb can open. redb's writes are kept in memory and replace bytes of the file.
#[derive(Debug)]
struct ReadOnlyBackend {
    file: FileBytes,
    pages: Mutex<PageOverlay>,
}

#[derive(Debug)]
struct PageOverlay {
    len: u64,
    /// The number of valid bytes of the file. It is less than the file's length if redb has
    /// truncated the file since it was opened.
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
            FileBytes::Backend(file) => file.read(at, &mut out[..there]),
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

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};

    use super::*;

    const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

    #[test]
    fn a_file_that_is_read_and_written_read_only_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.redb");
        let write = |database: &Database, key: u64| {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(ROWS).unwrap().insert(key, [7; 5_000].as_slice()).unwrap();
            transaction.commit().unwrap();
        };
        write(&Database::create(&path).unwrap(), 1);
        let before = std::fs::read(&path).unwrap();
        let database = open_read_only(&path).unwrap();
        (2..200).for_each(|key| write(&database, key));
        let rows = database.begin_read().unwrap().open_table(ROWS).unwrap();
        for key in 1..200 {
            assert_eq!(rows.get(key).unwrap().unwrap().value(), [7; 5_000], "row {key}");
        }
        drop((rows, database));
        assert!(std::fs::read(&path).unwrap() == before, "the file has changed");
    }

    #[test]
    fn an_empty_file_is_not_taken_for_a_new_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.redb");
        File::create(&path).unwrap();
        let error = open_read_only(&path).unwrap_err();
        assert!(error.to_string().contains("the file is empty"), "{error}");
    }
}
