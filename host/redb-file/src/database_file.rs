//! Keeps a redb file open, begins durable transactions on it, and drops its pages from the
//! operating system's cache.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};

use redb::{Database, Durability, TransactionError, WriteTransaction};

use crate::catch_panic;

/// An open database. When redb closes a file, it writes to the file, and panics on some damaged
/// files. Dropping an [`OpenFile`] catches such a panic, so the thread continues.
#[derive(Debug)]
pub struct OpenFile(Option<Database>);

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
        if let Err(panic) = catch_panic(|| drop(database)) {
            tracing::error!(error = %panic, "a file could not be closed: it is damaged");
        }
    }
}

/// Begins a transaction whose commit survives power loss. With `quick_repair`, redb need not read
/// the whole file to open it after a crash, but commits take a little longer.
///
/// # Errors
/// Returns the error of redb.
pub fn begin_durable_write(
    database: &Database,
    quick_repair: bool,
) -> Result<WriteTransaction, TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .expect("only savepoints forbid it, and there are none");
    // One-phase commits detect incomplete writes by a checksum that is not cryptographic. The files
    // contain bytes that users choose, so a user could make an incomplete commit look complete.
    // Two-phase commits do not depend on that checksum.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(quick_repair);
    Ok(transaction)
}

/// Drops the operating system's cached pages of `file`, on Linux. After a failed sync, these pages
/// can contain data that is marked as written but never reached the disk. Without them, the file is
/// read from the disk, and redb finds the last complete commit by its checksums.
///
/// # Errors
/// Returns the error of the operating system.
pub fn forget_cached_pages(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}
