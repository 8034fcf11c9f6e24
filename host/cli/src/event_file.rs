//! Reads files of events, from a path or from standard input. A file may be compressed. The content
//! is returned in pieces of complete lines.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use lantern_plugin::Language;

use crate::api::PluginFile;
use crate::error::{Exit, Failure, Outcome};

/// The maximum length of a line in a file of events, in bytes.
const LINE_BYTES_MAX: usize = 16 << 20;
/// The beginnings that a line of `lantern events tail --json` can have.
const TAILED: [&[u8]; 2] = [b"{\"event\":", b"{\"partition\":"];
/// The number of bytes that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// An open file of events, which is unpacked while it is read.
pub(crate) struct EventFile {
    /// Reads the unpacked bytes.
    reader: Box<dyn BufRead + Send>,
    /// The name of the file, for messages.
    name: String,
    /// The size of the file in bytes; `None` for standard input.
    total: Option<u64>,
    /// The number of bytes that were read.
    read: Arc<AtomicU64>,
    /// The number of lines that were returned or skipped.
    lines: u64,
}

/// Some complete lines of a file.
#[derive(Debug, Default)]
pub(crate) struct FilePart {
    /// The lines, each with its line feed.
    pub(crate) bytes: Vec<u8>,
    /// The number of events, which is the number of lines that are not blank.
    pub(crate) events: u64,
    /// The number of the first of these lines in the file, counted from 1.
    pub(crate) first_line: u64,
}

impl EventFile {
    /// Opens `path`; `-` is standard input. The first bytes decide whether the file is compressed
    /// with zstd or gzip, whatever its name is.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let (raw, total): (Box<dyn Read + Send>, _) = if name == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(|e| not_read(&name, &e))?;
            let total = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
            (Box::new(file), total)
        };
        let read = Arc::new(AtomicU64::new(0));
        let counted = CountingReader { inner: raw, read: Arc::clone(&read) };
        let mut packed = BufReader::with_capacity(BUFFER_BYTES, counted);
        let start = packed.fill_buf().map_err(|e| not_read(&name, &e))?;
        let reader: Box<dyn BufRead + Send> = if start.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            let unpacked = zstd::Decoder::with_buffer(packed).map_err(|e| not_read(&name, &e))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        } else if start.starts_with(&[0x1F, 0x8B]) {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(packed)))
        } else {
            Box::new(packed)
        };
        Ok(Self { reader, name, total, read, lines: 0 })
    }

    /// Returns the size of the file on disk in bytes; `None` for standard input.
    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns a counter of the bytes that were read so far, as they are stored on disk.
    pub(crate) fn read_so_far(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// Skips the next `lines` lines.
    pub(crate) fn skip_lines(&mut self, lines: u64) -> Outcome {
        let mut line = Vec::new();
        for _ in 0..lines {
            line.clear();
            if !self.line(&mut line)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns the next lines of the file, or `None` at its end. A piece ends with the line that
    /// brings it to `events_max` lines (without blank ones) or to `bytes_max` bytes.
    pub(crate) fn piece(&mut self, bytes_max: usize, events_max: u64) -> Outcome<Option<FilePart>> {
        let mut piece = FilePart { first_line: self.lines + 1, ..FilePart::default() };
        while piece.bytes.len() < bytes_max && piece.events < events_max {
            let from = piece.bytes.len();
            if !self.line(&mut piece.bytes)? {
                break;
            }
            unwrap(&mut piece.bytes, from);
            if !piece.bytes[from..].trim_ascii().is_empty() {
                piece.events += 1;
            }
        }
        Ok((!piece.bytes.is_empty()).then_some(piece))
    }

    /// Returns the whole content of the file. Returns an error if it has more than `bytes_max`
    /// bytes after unpacking.
    pub(crate) fn whole(mut self, bytes_max: usize) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = bytes_max as u64 + 1;
        (&mut self.reader)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| not_read(&self.name, &e))?;
        if bytes.len() > bytes_max {
            let message = format!("`{}` holds more than {} MiB", self.name, bytes_max >> 20);
            return Err(Failure::new(Exit::Refused, message)
                .help("send it with one event per line with `lantern events import`"));
        }
        Ok(bytes)
    }

    /// Adds the next line, with a line feed, to `out`. Returns `false` at the end of the file.
    fn line(&mut self, out: &mut Vec<u8>) -> Outcome<bool> {
        let from = out.len();
        let limit = LINE_BYTES_MAX as u64;
        let read = (&mut self.reader).take(limit).read_until(b'\n', out);
        let read = read.map_err(|e| not_read(&self.name, &e))?;
        if read == 0 {
            return Ok(false);
        }
        self.lines += 1;
        if out.last() != Some(&b'\n') {
            if out.len() - from >= LINE_BYTES_MAX {
                let message = format!(
                    "line {} of `{}` is longer than {} MiB",
                    self.lines,
                    self.name,
                    LINE_BYTES_MAX >> 20
                );
                return Err(Failure::new(Exit::Refused, message)
                    .help("a file of events has one JSON object per line"));
            }
            out.push(b'\n');
        }
        Ok(true)
    }
}

/// Replaces an output line of `lantern events tail --json` by the event that it contains. The line
/// begins at `from`. Any other line is kept as it is.
fn unwrap(bytes: &mut Vec<u8>, from: usize) {
    #[derive(serde::Deserialize)]
    struct Tailed<'a> {
        #[serde(borrow)]
        event: &'a serde_json::value::RawValue,
    }
    let line = bytes[from..].trim_ascii_start();
    if !TAILED.iter().any(|start| line.starts_with(start)) {
        return;
    }
    let Ok(tailed) = serde_json::from_slice::<Tailed<'_>>(&bytes[from..]) else { return };
    let event = tailed.event.get().as_bytes().to_vec();
    // In the output of `tail`, the member `event` is an object. Here it is not, so the line itself
    // is a CloudEvent with an extension attribute `event`.
    if !event.starts_with(b"{") {
        return;
    }
    bytes.truncate(from);
    bytes.extend(event);
    bytes.push(b'\n');
}

fn not_read(name: &str, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("cannot read `{name}`: {error}"))
}

/// Reads a whole file.
pub(crate) fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|e| not_read(&path.display().to_string(), &e))
}

/// Reads the file of a plugin: WebAssembly, a script or a declaration.
pub(crate) fn read_plugin(path: &Path) -> Outcome<PluginFile> {
    let name = path.file_name().and_then(OsStr::to_str);
    let source_name = name.filter(|name| Language::of(name).is_some()).map(str::to_owned);
    Ok(PluginFile { source_name, content: read_file(path)? })
}

/// Counts the bytes that are read from another reader.
struct CountingReader {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::io::Write;

    const TEXT: &[u8] = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\":3}";

    fn packed(how: &str) -> Vec<u8> {
        match how {
            "zstd" => zstd::encode_all(TEXT, 1).unwrap(),
            "gzip" => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(TEXT).unwrap();
                gzip.finish().unwrap()
            }
            _ => TEXT.to_vec(),
        }
    }

    #[test]
    fn plain_and_packed_files_give_the_same_pieces() {
        let dir = tempfile::tempdir().unwrap();
        for how in ["plain", "zstd", "gzip"] {
            let path = dir.path().join(how);
            std::fs::write(&path, packed(how)).unwrap();
            let mut source = EventFile::open(&path).unwrap();
            assert_eq!(source.total(), Some(packed(how).len() as u64));
            let first = source.piece(1 << 20, 2).unwrap().unwrap();
            assert_eq!(first.bytes, b"{\"a\":1}\n\n{\"b\":2}\n", "{how}");
            assert_eq!((first.events, first.first_line), (2, 1));
            let last = source.piece(1 << 20, 2).unwrap().unwrap();
            assert_eq!(last.bytes, b"{\"c\":3}\n");
            assert_eq!((last.events, last.first_line), (1, 4));
            assert!(source.piece(1 << 20, 2).unwrap().is_none());
            let mut skipped = EventFile::open(&path).unwrap();
            skipped.skip_lines(3).unwrap();
            assert_eq!(skipped.piece(1, 9).unwrap().unwrap().bytes, b"{\"c\":3}\n");
        }
    }

    #[test]
    fn lines_of_tail_become_the_events_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail");
        let tail = b"{\"event\":{\"id\":\"1\",\"data\":{\"n\":1e400}},\"offset\":0,\"partition\":0}\n{\"id\":\"2\"}\n";
        std::fs::write(&path, tail).unwrap();
        let piece = EventFile::open(&path).unwrap().piece(1 << 20, 9).unwrap().unwrap();
        assert_eq!(piece.bytes, b"{\"id\":\"1\",\"data\":{\"n\":1e400}}\n{\"id\":\"2\"}\n");
        assert_eq!(piece.events, 2);
    }

    #[test]
    fn a_file_that_is_missing_or_too_large_is_named() {
        let missing = EventFile::open(Path::new("no/such/file")).err().unwrap();
        assert_eq!(missing.exit, Exit::NotFound);
        assert!(missing.message.contains("`no/such/file`"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, TEXT).unwrap();
        let large = EventFile::open(&path).unwrap().whole(4).unwrap_err();
        assert_eq!(large.exit, Exit::Refused);
    }
}
