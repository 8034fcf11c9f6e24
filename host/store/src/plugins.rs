//! Stores the uploaded plugins. Each is stored in a file whose name is the SHA-256 of its bytes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lantern_core::StoreError;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::disk::{Disk, SystemDisk, create_dir_durably, unless_missing};
use crate::error::disk;

/// The extension of the file of a plugin.
const EXTENSION: &str = "wasm";
/// The extension of a file that is being written.
const ASIDE: &str = "new";

/// The folder `plugins`, with files `<sha256>.wasm`. Only one process may use it.
#[derive(Debug)]
pub struct PluginFiles {
    dir: PathBuf,
    /// Locked while a file is written or removed.
    writing: Mutex<()>,
}

impl PluginFiles {
    /// Opens the folder, and creates it if it is missing. Removes files that are incomplete because
    /// of a crash.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the folder cannot be read or written.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let files = Self { dir: dir.into(), writing: Mutex::new(()) };
        create_dir_durably(&SystemDisk, &files.dir).map_err(|e| disk(&files.dir, &e))?;
        for path in files.paths()? {
            if path.extension().is_some_and(|e| e == ASIDE) {
                unless_missing(fs::remove_file(&path)).map_err(|e| disk(&path, &e))?;
            }
        }
        Ok(files)
    }

    /// Stores `bytes` durably and returns their SHA-256 in lower-case hexadecimal. Does nothing if
    /// they are stored already.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be stored. In this case nothing is stored under the
    /// hash.
    pub fn put(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let path = self.path(&sha256)?;
        let _writing = self.writing.lock();
        // If the file is damaged, it is written again. So another upload repairs it.
        if !matches!(self.get(&sha256), Ok(Some(_))) {
            self.write(&path, bytes).map_err(|e| disk(&path, &e))?;
        }
        Ok(sha256)
    }

    /// Reads the bytes whose SHA-256 is `sha256`; `None` if they are not stored.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] if the file contains other bytes, and [`StoreError::Io`] if
    /// it cannot be read or `sha256` is not a hash.
    pub fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(sha256)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(disk(&path, &e)),
        };
        let actual = hex::encode(Sha256::digest(&bytes));
        if actual == sha256 {
            return Ok(Some(bytes));
        }
        Err(StoreError::Damaged(format!(
            "`{}` holds {} bytes whose SHA-256 is `{actual}`, not the one it is named by: upload \
             the plugin again",
            path.display(),
            bytes.len()
        )))
    }

    /// Removes the bytes whose SHA-256 is `sha256`. Does nothing if they are not stored.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be removed or `sha256` is not a hash.
    pub fn remove(&self, sha256: &str) -> Result<(), StoreError> {
        let path = self.path(sha256)?;
        let _writing = self.writing.lock();
        let removed =
            unless_missing(fs::remove_file(&path)).and_then(|()| SystemDisk.sync_folder(&self.dir));
        removed.map_err(|e| disk(&path, &e))
    }

    /// Returns the SHA-256 hashes of all stored plugins, in order.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut hashes: Vec<String> = self
            .paths()?
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|stem| is_sha256(stem))
            .collect();
        hashes.sort_unstable();
        Ok(hashes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = path.with_extension(ASIDE);
        let written = File::create(&aside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(e) = written {
            // The disk may be full, so the incomplete file is removed.
            let _ = fs::remove_file(&aside);
            return Err(e);
        }
        fs::rename(&aside, path)?;
        SystemDisk.sync_folder(&self.dir)
    }

    fn path(&self, sha256: &str) -> Result<PathBuf, StoreError> {
        if !is_sha256(sha256) {
            return Err(StoreError::Io(format!(
                "`{sha256}` is not a SHA-256: write 64 lower-case hexadecimal digits"
            )));
        }
        Ok(self.dir.join(sha256).with_extension(EXTENSION))
    }

    fn paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let read = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path())).collect()
        };
        read().map_err(|e| disk(&self.dir, &e))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_plugin_can_be_read_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = PluginFiles::open(dir.path().join("deep/plugins")).unwrap();
        let a = files.put(b"one").unwrap();
        let b = files.put(b"two").unwrap();
        assert_eq!(files.put(b"one").unwrap(), a);
        assert_eq!(a, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        assert_eq!(files.get(&a).unwrap().unwrap(), b"one");
        let mut both = vec![a.clone(), b.clone()];
        both.sort();
        assert_eq!(files.list().unwrap(), both);
        files.remove(&a).unwrap();
        files.remove(&a).unwrap();
        assert_eq!(files.get(&a).unwrap(), None);
        assert_eq!(files.list().unwrap(), [b]);
    }

    #[test]
    fn damaged_bytes_are_refused_with_their_path_and_healed_by_an_upload() {
        let dir = tempfile::tempdir().unwrap();
        let files = PluginFiles::open(dir.path()).unwrap();
        let sha = files.put(b"one").unwrap();
        let path = dir.path().join(format!("{sha}.wasm"));
        fs::write(&path, b"onf").unwrap();
        let error = files.get(&sha).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(m) if m.contains(path.to_str().unwrap())));
        files.put(b"one").unwrap();
        assert_eq!(files.get(&sha).unwrap().unwrap(), b"one");
    }

    #[test]
    fn a_text_that_is_no_hash_never_becomes_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let files = PluginFiles::open(dir.path().join("plugins")).unwrap();
        fs::write(dir.path().join("secret.wasm"), b"x").unwrap();
        let upper = "A".repeat(64);
        for name in ["", "../secret", "..", upper.as_str()] {
            assert!(files.get(name).is_err(), "{name}");
            assert!(files.remove(name).is_err(), "{name}");
        }
        assert!(dir.path().join("secret.wasm").exists());
    }

    #[test]
    fn files_that_a_crash_left_incomplete_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let half = dir.path().join(format!("{}.new", "a".repeat(64)));
        fs::write(&half, b"half").unwrap();
        let files = PluginFiles::open(dir.path()).unwrap();
        assert!(!half.exists());
        assert!(files.list().unwrap().is_empty());
    }
}
