//! Converts errors of redb and of the disk to errors of the store.

use std::io::{self, ErrorKind};
use std::path::Path;

use lantern_core::StoreError;
use lantern_redb_file::catch_panic;

/// An error of the store, and whether the file must be closed. After a disk error, redb refuses all
/// further operations on a file.
#[derive(Debug)]
pub(crate) struct StoreFailure {
    pub(crate) error: StoreError,
    pub(crate) fatal: bool,
}

impl From<StoreFailure> for StoreError {
    fn from(failure: StoreFailure) -> Self {
        failure.error
    }
}

/// Converts an error of redb on the file at `path` to a [`StoreError`].
pub(crate) fn failure(path: &Path, error: impl Into<redb::Error>) -> StoreFailure {
    use redb::Error;

    let at = |message: String| format!("`{}`: {message}", path.display());
    let (error, fatal) = match error.into() {
        Error::Io(e) => (disk(path, &e), true),
        Error::Corrupted(message) => (StoreError::Damaged(at(message)), false),
        Error::DatabaseAlreadyOpen => (StoreError::InUse(path.display().to_string()), false),
        Error::UpgradeRequired(format) => {
            let message = format!("it has redb's file format {format}, which is not read any more");
            (StoreError::Damaged(at(message)), false)
        }
        Error::PreviousIo | Error::DatabaseClosed => {
            (StoreError::Io(at("the file was closed after an earlier error".into())), true)
        }
        e @ (Error::LockPoisoned(_) | Error::TransactionPoisoned) => {
            (StoreError::Io(at(e.to_string())), true)
        }
        e @ (Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TableIsNotMultimap(_)
        | Error::TypeDefinitionChanged { .. }) => (StoreError::Damaged(at(e.to_string())), false),
        e => (StoreError::Io(at(e.to_string())), false),
    };
    StoreFailure { error, fatal }
}

/// Runs `task` on the file at `path`, and catches panics. redb panics on some damaged
/// files, and such a panic must not end the calling thread.
pub(crate) fn guarded<R, E>(
    path: &Path,
    task: impl FnOnce() -> Result<R, E>,
) -> Result<R, StoreFailure>
where
    E: Into<redb::Error>,
{
    // The panic may have left data in memory half changed. The file is closed after this error, so
    // the data is not used again.
    match catch_panic(task) {
        Ok(result) => result.map_err(|e| failure(path, e)),
        Err(panic) => {
            let message = format!("`{}`: {panic}", path.display());
            Err(StoreFailure { error: StoreError::Damaged(message), fatal: true })
        }
    }
}

/// Converts a disk error on the file at `path` to a [`StoreError`].
pub(crate) fn disk(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("`{}`: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full(message),
        // The file is too short, or its content is not what it should be.
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => StoreError::Damaged(message),
        _ => StoreError::Io(message),
    }
}
