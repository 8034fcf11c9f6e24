//! Manages the data folder: the paths of its files, and the lock that lets only one process use it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::start_error::StartError;

/// The data folder. This process has locked it until this value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    // The lock belongs to the open file, so it always ends with the process.
    _lock: File,
}

impl DataDir {
    /// Creates the folder if it is missing, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| StartError::data(root, error);
        std::fs::create_dir_all(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // If the process id of the lock's owner cannot be read, the message leaves it out.
                let _ = file.read_to_string(&mut text);
                return Err(StartError::InUse { path: root, pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { root, _lock: file })
    }

    /// Opens and locks an existing folder.
    pub(crate) fn existing(root: &Path) -> Result<Self, StartError> {
        if !root.is_dir() {
            return Err(StartError::data(root, "there is no such folder"));
        }
        Self::open(root)
    }

    /// Returns the folder into which damaged files are moved.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log.redb")
    }

    /// Returns the file with the numbers of the partitions of a log on Kafka.
    pub(crate) fn kafka(&self) -> PathBuf {
        self.root.join("kafka.json")
    }

    /// Returns the file that records which parked events were copied to the dead-letter topic.
    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.root.join("dead-letters.json")
    }

    /// Returns the path of the file that tests whether the folder can be written.
    pub(crate) fn probe(&self) -> PathBuf {
        self.root.join("probe")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.root.join("catalog.redb")
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_with_the_process_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("new/data"), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
