//! Implements the cache of compiled code on disk. Compiled code is native code, which could do
//! anything if another program had written it. So a file is loaded only if a keyed hash proves that
//! this installation created it, for this engine and this upload.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The SHA-256 of an upload.
pub(crate) type UploadHash = [u8; 32];

/// The last bytes of a file in the cache, after the code and its keyed hash. The code is an ELF
/// image. Its header states the positions of all its parts, so bytes after the image are not loaded
/// as code.
const MAGIC: &[u8; 8] = b"LNCODE2\n";
const TAG_BYTES: usize = 32;
const END_BYTES: usize = TAG_BYTES + MAGIC.len();
const KEY_BYTES: usize = 32;
/// The age from which a temporary file counts as left behind by a crash.
const ASIDE_MAX: Duration = Duration::from_secs(3600);
/// The extension of files with compiled code.
const SUFFIX: &str = "cwasm";
/// The extension of temporary files.
const ASIDE_SUFFIX: &str = "tmp";

/// Code that this installation has compiled. Only [`CodeCache::load`] and
/// [`CompiledCode::from_compiler`] create values of this type, which [`CompiledCode::deserialize`]
/// relies on.
pub(crate) struct CompiledCode(CachedCode);

enum CachedCode {
    Bytes(Vec<u8>),
    /// The code is in a file of the cache. No process writes to the file once it has its final
    /// name.
    File(File),
}

impl CompiledCode {
    /// Creates a value from the output of this program's own compiler.
    pub(crate) fn from_compiler(bytes: Vec<u8>) -> Self {
        Self(CachedCode::Bytes(bytes))
    }

    /// Loads the code into the engine, so that it can run.
    ///
    /// # Errors
    /// Fails if the code is for another engine, or the system has no memory.
    #[allow(
        unsafe_code,
        reason = "the one place where precompiled code is taken for what it says: a `Code` is \
                  either our own compiler's answer or was read under a keyed hash of ours"
    )]
    pub(crate) fn deserialize(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: both functions require output of `precompile_component`. `deserialize_file` also
        // requires that no process changes the file.
        //
        // * `from_compiler` gets its bytes from the compiling child, which calls
        //   `precompile_component`.
        // * For a file, `CodeCache::load` has checked an HMAC over exactly these bytes, with a key
        //   that only this user can read.
        // * The path names the open descriptor. So this is the file that was checked, even if
        //   another file has its name now.
        // * Files of the cache are private to this user. They are written under a temporary name,
        //   renamed and deleted, and never written to again.
        //
        // The engine itself rejects output of another version or setting.
        unsafe {
            match &self.0 {
                CachedCode::Bytes(bytes) => Component::deserialize(engine, bytes),
                CachedCode::File(file) => {
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    Component::deserialize_file(engine, path)
                }
            }
        }
    }
}

/// The cache of compiled code for one engine, in a folder.
pub(crate) struct CodeCache {
    root: PathBuf,
    dir: PathBuf,
    engine: String,
    key: [u8; KEY_BYTES],
    bytes_max: u64,
    temporary_files: AtomicU64,
}

impl CodeCache {
    /// Opens the cache in the folder `root`, with its key, for the engine with the id `engine`.
    pub(crate) fn open(root: &Path, engine: &str, bytes_max: u64) -> io::Result<Self> {
        let dir = root.join(engine);
        fs::create_dir_all(&dir)?;
        let key = open_key(&root.join("key"))?;
        let cache = Self {
            root: root.to_owned(),
            dir,
            engine: engine.to_owned(),
            key,
            bytes_max,
            temporary_files: AtomicU64::new(0),
        };
        cache.remove_temporary_files()?;
        Ok(cache)
    }

    /// Returns whether the cache has a file with the code of an upload.
    pub(crate) fn has(&self, sha: &UploadHash) -> bool {
        self.path(sha).is_file()
    }

    /// Returns the code of an upload, if the cache has it and its keyed hash is correct.
    pub(crate) fn load(&self, sha: &UploadHash) -> Option<CompiledCode> {
        let path = self.path(sha);
        let (file, bytes) = match read(&path) {
            Ok(read) => read,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "a compiled plugin cannot be read from the cache; the plugin is compiled again");
                }
                return None;
            }
        };
        let ours = bytes.split_last_chunk::<END_BYTES>().is_some_and(|(code, end)| {
            !code.is_empty()
                && end.ends_with(MAGIC)
                && self.tag(sha, code).verify_slice(&end[..TAG_BYTES]).is_ok()
        });
        if !ours {
            tracing::warn!(
                path = %path.display(),
                "a compiled plugin in the cache is damaged, or another host wrote it; the plugin is compiled again"
            );
            metrics::counter!("lantern_plugin_cache_refused_total").increment(1);
            return None;
        }
        // This time later shows which files are in use and must not be evicted. If it cannot be
        // set, at worst the code is compiled again.
        let _ = file.set_modified(SystemTime::now());
        // The file is mapped into memory, so only code that runs takes memory.
        Some(CompiledCode(CachedCode::File(file)))
    }

    /// Stores the code of an upload. Another process may do the same at the same time.
    pub(crate) fn store(&self, sha: &UploadHash, code: &CompiledCode) -> io::Result<()> {
        let CachedCode::Bytes(code) = &code.0 else { return Ok(()) };
        let number = self.temporary_files.fetch_add(1, Ordering::Relaxed);
        let aside = self.dir.join(format!("{}-{}.{ASIDE_SUFFIX}", std::process::id(), number));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(code)?;
            file.write_all(&self.tag(sha, code).finalize().into_bytes())?;
            file.write_all(MAGIC)?;
            // The file is not synced. If it is incomplete after a power failure, its hash does not
            // match, and the code is compiled again.
            fs::rename(&aside, self.path(sha))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written?;
        self.evict()
    }

    fn path(&self, sha: &UploadHash) -> PathBuf {
        self.dir.join(hex::encode(sha)).with_extension(SUFFIX)
    }

    /// Returns the keyed hash of `code` before its last step: `finalize` returns its bytes, and
    /// `verify_slice` compares it in constant time.
    fn tag(&self, sha: &UploadHash, code: &[u8]) -> Hmac<Sha256> {
        // The hash covers parts of fixed length, then the engine's name after its length, and at
        // the end the code. So different inputs give different sequences of bytes.
        let engine = u64::try_from(self.engine.len()).expect("a short name").to_le_bytes();
        let mut hash = Hmac::new_from_slice(&self.key).expect("a key of any length is fine");
        for part in [&engine[..], self.engine.as_bytes(), sha, code] {
            hash.update(part);
        }
        hash
    }

    /// Deletes files until the others are within the limit. Files of every engine count. Those that
    /// were not used for the longest time are deleted first.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = 0;
        for folder in fs::read_dir(&self.root)?.filter_map(Result::ok) {
            let Ok(entries) = fs::read_dir(folder.path()) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if path.extension().is_some_and(|e| e == SUFFIX) {
                    total += meta.len();
                    files.push((meta.modified()?, meta.len(), path));
                }
            }
        }
        files.sort();
        for (_, bytes, path) in files {
            if total <= self.bytes_max {
                break;
            }
            total -= bytes;
            tracing::debug!(path = %path.display(), "a compiled plugin was removed from the cache to make room");
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn remove_temporary_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)?.filter_map(Result::ok) {
            let path = entry.path();
            let old = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ASIDE_MAX));
            if old && path.extension().is_some_and(|e| e == ASIDE_SUFFIX) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Opens a file and reads its contents.
fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

/// Reads the key of the cache, or creates one. If other users can read the key, it is not safe and
/// is replaced. Then no cached file matches the new key, and all code is compiled again.
fn open_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let aside = path.with_extension(format!("{}.{ASIDE_SUFFIX}", std::process::id()));
    let _ = fs::remove_file(&aside);
    let made = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&key)?;
        file.sync_all()?;
        // Another process may create the key at the same time. Unlike a rename, a link never
        // replaces that key.
        fs::hard_link(&aside, path)
    })();
    let _ = fs::remove_file(&aside);
    match made {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(path)?.ok_or_else(|| {
                io::Error::other("another process has written a key file that cannot be used")
            })
        }
        Err(error) => Err(error),
    }
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let private = fs::metadata(path)?.permissions().mode() & 0o077 == 0;
    match <[u8; KEY_BYTES]>::try_from(bytes) {
        Ok(key) if private => Ok(Some(key)),
        _ => {
            tracing::warn!(
                path = %path.display(),
                "the key of the cache of compiled plugins is damaged, or other users can read it; a new key is created"
            );
            fs::remove_file(path)?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Checks that the form of the keyed hash does not change. The files of earlier releases must
    /// stay valid.
    #[test]
    fn the_keyed_hash_covers_engine_upload_and_code_in_this_order() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 1 << 20);
        cache.key = [0x0B; KEY_BYTES];
        assert_eq!(
            hex::encode(cache.tag(&[7; 32], b"code").finalize().into_bytes()),
            "fa692cae5d7b694c3af53da8dd78e97d683614a6313c0314359439d5245caf0a"
        );
    }

    fn cache(root: &Path, bytes_max: u64) -> CodeCache {
        CodeCache::open(root, "engine", bytes_max).unwrap()
    }

    #[test]
    fn stored_code_is_read_back_and_every_flipped_bit_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let sha = [7; 32];
        cache(root.path(), 1 << 20)
            .store(&sha, &CompiledCode::from_compiler(b"code".to_vec()))
            .unwrap();
        let again = cache(root.path(), 1 << 20);
        let Some(CompiledCode(CachedCode::File(file))) = again.load(&sha) else {
            panic!("it is not there")
        };
        assert!(file.metadata().unwrap().len() == (b"code".len() + END_BYTES) as u64);
        assert!(again.load(&[8; 32]).is_none());

        let path = again.path(&sha);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            assert!(again.load(&sha).is_none(), "bit {bit}");
        }
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(again.load(&sha).is_none(), "cut to {cut}");
        }
        // The keyed hash is that of another upload, so the file must be refused.
        fs::write(again.path(&[8; 32]), &good).unwrap();
        assert!(again.load(&[8; 32]).is_none());
    }

    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let sha = [7; 32];
        cache(root.path(), 1 << 20)
            .store(&sha, &CompiledCode::from_compiler(b"code".to_vec()))
            .unwrap();
        let key = root.path().join("key");
        let before = fs::read(&key).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(cache(root.path(), 1 << 20).load(&sha).is_none());
        assert_ne!(fs::read(&key).unwrap(), before);
    }

    #[test]
    fn the_least_recently_used_code_is_evicted() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), 250);
        let code = CompiledCode::from_compiler(vec![0; 60]);
        for (n, age_s) in [(1, 300), (2, 200), (3, 100)] {
            cache.store(&[n; 32], &code).unwrap();
            if let Ok(file) = File::open(cache.path(&[n; 32])) {
                file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
            }
        }
        assert!(cache.load(&[1; 32]).is_none());
        assert!(cache.load(&[2; 32]).is_some());
        assert!(cache.load(&[3; 32]).is_some());
    }
}
