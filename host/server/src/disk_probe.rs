//! Tests whether the data folder can be written, so that the server reports a full or read-only
//! disk before the next commit fails.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the result of a test is used. Frequent requests then do not cause frequent writes.
const HOLDS: Duration = Duration::from_secs(2);
/// The time limit for a write. If a write has not ended by then, the disk does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of bytes that are written. Some file systems store the content of a small file
/// together with its metadata, without a free block. A file of this size always needs a free block.
const BYTES: usize = 8 << 10;

/// Tests whether a folder can be written by writing a file.
#[derive(Debug)]
pub(crate) struct DiskProbe {
    file: PathBuf,
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl DiskProbe {
    /// Creates a probe that writes the file `file`.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, last: Mutex::new(None) }
    }

    /// Returns the reason why the folder cannot be written; `None` if it can. This blocks.
    pub(crate) fn trouble(&self) -> Option<String> {
        let Some(mut last) = self.last.try_lock_for(PATIENCE) else {
            return Some(format!("a write to `{}` does not finish", self.file.display()));
        };
        if let Some((_, why)) = last.as_ref().filter(|(at, _)| at.elapsed() < HOLDS) {
            return why.clone();
        }
        let why = self
            .write()
            .err()
            .map(|error| format!("`{}` cannot be written: {error}", self.file.display()));
        *last = Some((Instant::now(), why.clone()));
        why
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.file)?;
        let written = file.write_all(&[0; BYTES]).and_then(|()| file.sync_data());
        drop(file);
        // The file is removed so that it takes no space on a full disk.
        std::fs::remove_file(&self.file)?;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_reported_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::new(dir.path().join("probe"));
        assert_eq!(probe.trouble(), None);
        assert!(!dir.path().join("probe").exists());
        let probe = DiskProbe::new(dir.path().join("absent/probe"));
        let why = probe.trouble().unwrap();
        assert!(why.contains("absent/probe` cannot be written"), "{why}");
        let full = DiskProbe::new("/dev/full/probe".into());
        assert!(full.trouble().is_some());
    }
}
