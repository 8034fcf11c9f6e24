//! Implements the store's view of the simulated disk.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;

use lantern_store::{Disk, PathKind};
use redb::{DatabaseError, StorageBackend, StorageError};

use super::disk::SimDisk;

fn of_redb(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(StorageError::Io(error))
}

impl<M: Debug + Clone + Send + Sync + 'static> Disk for SimDisk<M> {
    fn open(&self, path: &Path, _anew: bool) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        match self.file(path) {
            Some(file) => Ok(Box::new(file)),
            None => Err(of_redb(io::ErrorKind::NotFound.into())),
        }
    }

    fn create(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        Ok(Box::new(self.new_file(path).map_err(of_redb)?))
    }

    fn find(&self, path: &Path) -> io::Result<Option<PathKind>> {
        Ok(match self.paths().get(path) {
            Some(Some(len)) => Some(PathKind::File { disk_bytes: *len }),
            Some(None) => Some(PathKind::Folder),
            None => path.as_os_str().is_empty().then_some(PathKind::Folder),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_to(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.find(path)?.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.remove(path);
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let below: Vec<_> = self.paths().into_keys().filter(|p| p.starts_with(path)).collect();
        if below.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Deletes the entries from the leaves upwards, as every file system requires.
        below.iter().rev().for_each(|path| self.remove(path));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        if self.find(path)?.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.paths().keys().any(|p| p != path && p.starts_with(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove(path);
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if self.find(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.new_folder(path);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let paths = self.paths();
        let names = paths.keys().filter(|p| p.parent() == Some(path));
        Ok(names.filter_map(|p| p.file_name().map(Into::into)).collect())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync_names(path);
        Ok(())
    }
}
