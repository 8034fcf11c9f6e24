//! Tests invariant 3 of `docs/proof.md`: reads of damaged data fail with an error that names the
//! file and the place of the damage, and never return the data.
//!
//! The experiment truncates real files of the log, of a state and of the catalogue, and changes
//! bytes in them. Each seed determines one damage. Any 3,000 consecutive seeds cover the full chunk
//! and the last chunk of a small log: they change each byte of these chunks once, and truncate them
//! at each byte. The other seeds damage chunks of other sizes, or raw bytes of the files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lantern_core::{
    Catalog, CloseLog as _, Event, Events, KeyRange, Log, LogError, LogRead, Offset, Pairs,
    PartitionId, ProjectionRecord, ShardId, ShardMeta, Space, StateStores, StoreError, TableId,
    Timestamp, TypeFilter, VersionId, VersionRecord, Writes,
};
use lantern_log::{Compression, EmbeddedLog, LogConfig, OpenDatabase};
use lantern_store::{CatalogFile, StateDir, StoreConfig, check_catalog, check_state};
use parking_lot::Mutex;
use redb::{ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::{Claim, Counts, Run};

/// Any run of this many consecutive seeds damages every byte of both small chunks.
const WINDOW: u64 = 3_000;
/// The maximum time in which the log must answer an append.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The size of redb's file header. Each of its bytes is damaged often.
const HEADER_BYTES: usize = 512;

const P0: PartitionId = PartitionId(0);
const CHUNKS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("chunks");

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 3,
    name: "damage",
    holds: "damaged data is refused with file and place, and never returned",
    counts: Counts { ci: WINDOW, longer: 100_000, of: "damages" },
    experiment,
};

fn experiment(run: &mut Run<'_>) -> Result<()> {
    let small = LogImage::new(Sizes { chunk: 10, compression: Compression::Lz4 })?;
    let all = small.damages();
    ensure!(all < WINDOW, "{all} damages of two chunks do not fit into {WINDOW} seeds");
    let (state, catalog) = (StateImage::new()?, CatalogImage::new()?);
    run.cases(|run, seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let offset = seed % WINDOW;
        if offset < all {
            run.add("of a chunk's bytes", 1.0);
            return small.try_byte(usize::try_from(offset)?, mask(&mut rng));
        }
        match rng.u32(..100) {
            0..20 => {
                run.add("of chunks of other sizes", 1.0);
                let compressions = [Compression::None, Compression::Lz4, Compression::Zstd];
                let compression = compressions[rng.usize(..3)];
                let other = LogImage::new(Sizes { chunk: rng.u32(1..200), compression })?;
                let byte = rng.u64(..other.damages());
                other.try_byte(usize::try_from(byte)?, mask(&mut rng))
            }
            20..65 => {
                run.add("of a log's raw bytes", 1.0);
                let refused = small.try_raw(&mut rng)?;
                run.add("of them refused", f64::from(u8::from(refused)));
                Ok(())
            }
            65..85 => {
                run.add("of a state's raw bytes", 1.0);
                let found = state.try_raw(&mut rng)?;
                run.add("of them found by the doctor", f64::from(u8::from(found)));
                Ok(())
            }
            _ => {
                run.add("of a catalogue's raw bytes", 1.0);
                let refused = catalog.try_raw(&mut rng)?;
                run.add("of them kept shut", f64::from(u8::from(refused)));
                Ok(())
            }
        }
    });
    Ok(())
}

fn mask(rng: &mut fastrand::Rng) -> u8 {
    rng.u8(1..)
}

/// Damages `bytes`: flips a bit of one byte, or truncates them.
fn harm(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) -> Result<()> {
    let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let at = match rng.u32(..4) {
        0 => rng.usize(..bytes.len()),
        1 => rng.usize(..HEADER_BYTES.min(bytes.len())),
        _ => *rng.choice(&used).context("a file has bytes that are not 0")?,
    };
    if rng.u32(..4) == 0 {
        bytes.truncate(at);
    } else {
        bytes[at] ^= mask(rng);
    }
    Ok(())
}

// ------------------------------------------------------------------ tests of the log

/// A disk in memory that holds the bytes of one file. A clone of these bytes is a copy of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.0.lock();
        let end = at.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = self.0.lock();
        let end = at.checked_add(data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.get_mut(at..end).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

impl Memory {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn opener(&self) -> OpenDatabase {
        let disk = self.clone();
        Arc::new(move || redb::Builder::new().create_with_backend(disk.clone()))
    }
}

/// The settings that determine how large the log's chunks are.
#[derive(Clone, Copy)]
struct Sizes {
    chunk: u32,
    compression: Compression,
}

/// The bytes of a log's file before any damage, and the events that the log contains.
struct LogImage {
    bytes: Vec<u8>,
    config: LogConfig,
    events: Vec<Event>,
    /// A sealed chunk and the last chunk, each with its first offset and its bytes.
    sealed: (u64, Vec<u8>),
    last: (u64, Vec<u8>),
}

impl LogImage {
    /// Writes a log of four sealed chunks and half of another chunk, with events that alternate
    /// between two types.
    fn new(sizes: Sizes) -> Result<Self> {
        let config = LogConfig {
            chunk_events_max: sizes.chunk,
            chunk_bytes: 1 << 20,
            compression: sizes.compression,
            dedup_window_events: 1_000,
            disk_reserve_bytes: 0,
            ..LogConfig::default()
        };
        let chunk = u64::from(sizes.chunk);
        let count = 4 * chunk + chunk.div_ceil(2).min(chunk.max(2) - 1);
        let events: Vec<_> = (0..count).map(|n| event(n, chunk)).collect();
        let disk = Memory::default();
        let log = EmbeddedLog::open_with(disk.opener(), config.clone())?;
        for part in events.chunks(sizes.chunk as usize) {
            append(&log, part)?;
        }
        log.close();
        drop(log);
        let database = (disk.opener())()?;
        let (mut stored, read) = (BTreeMap::new(), database.begin_read()?);
        for pair in read.open_table(CHUNKS)?.iter()? {
            let (key, value) = pair?;
            stored.insert(key.value().1, value.value().to_vec());
        }
        drop((read, database));
        let last = stored.pop_last().context("the log has chunks")?;
        let middle = *stored.keys().nth(stored.len() / 2).context("the log has chunks")?;
        let sealed = (middle, stored.remove(&middle).unwrap_or_default());
        let bytes = disk.0.lock().clone();
        Ok(Self { bytes, config, events, sealed, last })
    }

    /// Returns the number of different damages that change or cut off a single byte of the two
    /// chunks.
    fn damages(&self) -> u64 {
        2 * (self.sealed.1.len() + self.last.1.len()) as u64
    }

    /// Damages a chunk, and checks that the decoder refuses it. The number selects the kind of
    /// damage.
    fn try_byte(&self, number: usize, mask: u8) -> Result<()> {
        let sealed = self.sealed.1.len();
        let (at, cut) = (number / 2, number % 2 == 1);
        let ((first, bytes), at) =
            if at < sealed { (&self.sealed, at) } else { (&self.last, at - sealed) };
        let mut harmed = bytes.clone();
        if cut {
            harmed.truncate(at);
        } else {
            harmed[at] ^= mask;
        }
        let disk = Memory::holding(self.bytes.clone());
        replace(&disk, *first, &harmed)?;
        let seen = self.look(&disk).with_context(|| {
            format!("chunk at {first}, byte {at} {}", if cut { "cut" } else { "flipped" })
        })?;
        let chunk = format!("partition 0 at offset {first}");
        match seen {
            Detection::Shut(why) => bail!("one damaged chunk keeps the log shut: {why}"),
            Detection::Read { refused } => {
                ensure!(!refused.is_empty(), "byte {at} of the chunk at {first} is not missed");
                let named = refused.iter().all(|(_, why)| why.contains(&chunk));
                ensure!(named, "{chunk} is not named: {refused:?}");
            }
        }
        Ok(())
    }

    /// Damages the log's file at one place, and reads it. Returns whether a read was refused.
    fn try_raw(&self, rng: &mut fastrand::Rng) -> Result<bool> {
        let mut bytes = self.bytes.clone();
        harm(&mut bytes, rng)?;
        let at = (0..bytes.len()).find(|&at| bytes[at] != self.bytes[at]);
        if bytes.is_empty() {
            // The disk in memory is empty before its first use; a file is not.
            let file = tempfile::NamedTempFile::new()?;
            let error = match EmbeddedLog::open(file.path(), self.config.clone()) {
                Ok(_) => bail!("an empty file is taken for a log"),
                Err(error) => error.to_string(),
            };
            named(&error, file.path())?;
            return Ok(true);
        }
        let damage = format!("byte {at:?} of {}, cut to {}", self.bytes.len(), bytes.len());
        match self.look(&Memory::holding(bytes)).context(damage)? {
            Detection::Shut(_) => Ok(true),
            Detection::Read { refused } => Ok(!refused.is_empty()),
        }
    }

    /// Opens the damaged log and reads it twice: all events, and the events of one type. A
    /// read must return the original events or an error.
    fn look(&self, disk: &Memory) -> Result<Detection> {
        let log = match EmbeddedLog::open_with(disk.opener(), self.config.clone()) {
            Ok(log) => log,
            Err(error) => return Ok(Detection::Shut(error.to_string())),
        };
        let bounds = log.bounds(P0)?;
        let all = self.events.len() as u64;
        ensure!(
            (bounds.start, bounds.end) == (Offset(0), Offset(all)),
            "the log opened with offsets {} to {} of {all}, without a word",
            bounds.start,
            bounds.end
        );
        let mut refused = Vec::new();
        self.read(&log, &TypeFilter::everything(), &mut refused)?;
        self.read(&log, &TypeFilter::new(&["even".into()]), &mut refused)?;
        // Appends must still work, and the new events must not hide the damage.
        let more = event(all, u64::from(self.config.chunk_events_max));
        match append(&log, &[more]) {
            Err(error) if error.downcast_ref::<LogError>().is_none() => return Err(error),
            Err(error) => ensure!(
                !matches!(error.downcast_ref(), Some(LogError::Closed)),
                "the log's writer is gone"
            ),
            Ok(()) if refused.is_empty() => {}
            Ok(()) => {
                let mut again = Vec::new();
                self.read(&log, &TypeFilter::everything(), &mut again)?;
                ensure!(!again.is_empty(), "{refused:?} were refused, and after an append are not");
            }
        }
        log.close();
        Ok(Detection::Read { refused })
    }

    /// Reads all `wanted` events. If a read of an event is refused, continues with the next event.
    fn read(
        &self,
        log: &EmbeddedLog,
        wanted: &TypeFilter,
        refused: &mut Vec<(Offset, String)>,
    ) -> Result<()> {
        let end = Offset(self.events.len() as u64);
        let chunk = u64::from(self.config.chunk_events_max);
        let mut next = Offset(0);
        while next < end {
            match log.read(P0, next, wanted) {
                Ok(LogRead::Pending) => bail!("the embedded log never has one wait"),
                Ok(LogRead::Chunk(found)) => {
                    let start = found.index_of(next);
                    ensure!(start < found.events.len(), "nothing at {next} in the chunk for it");
                    let between = next.0..found.offset(start).0;
                    self.skipped(between, wanted)?;
                    for index in start..found.events.len() {
                        let offset = found.offset(index);
                        let Some(expected) = usize::try_from(offset.0)
                            .ok()
                            .and_then(|offset| self.events.get(offset))
                        else {
                            break; // An event that was appended later.
                        };
                        let event = found.events.get(index).to_owned();
                        ensure!(event == *expected, "a wrong event at {offset}: {event:?}");
                    }
                    next = found.end();
                }
                Ok(LogRead::Skipped { next: after }) => {
                    ensure!(after > next, "skipped from {next} to {after}");
                    self.skipped(next.0..after.0.min(end.0), wanted)?;
                    next = after;
                }
                Ok(LogRead::End) => bail!("the log ends at {next}, not at {end}, without a word"),
                Err(error) => {
                    refused.push((next, error.to_string()));
                    next = Offset((next.0 / chunk + 1) * chunk);
                }
            }
        }
        Ok(())
    }

    fn skipped(&self, offsets: std::ops::Range<u64>, wanted: &TypeFilter) -> Result<()> {
        for offset in offsets {
            let kind = &self.events[usize::try_from(offset)?].kind;
            ensure!(!wanted.matches(kind), "offset {offset} was skipped, and `{kind}` is wanted");
        }
        Ok(())
    }
}

enum Detection {
    /// The damaged log could not be opened, for this reason.
    Shut(String),
    /// The log was read to its end, except for the parts that it refused to return. Each refused
    /// part has its offset and the reason.
    Read { refused: Vec<(Offset, String)> },
}

fn event(n: u64, chunk: u64) -> Event {
    let kind = if (n / chunk).is_multiple_of(2) { "even" } else { "odd" };
    Event {
        id: n.to_string(),
        source: "shop".into(),
        kind: kind.into(),
        subject: format!("s{}", n % 3),
        time: Timestamp(n.cast_signed() * 1_000_000 + 1),
        data: format!("{{\"n\":{n}}}").into_bytes(),
        ..Event::default()
    }
}

fn append(log: &EmbeddedLog, events: &[Event]) -> Result<()> {
    let mut columns = Events::new();
    for event in events {
        ensure!(columns.push(&event.as_ref()), "too many types");
    }
    let (done, appended) = channel();
    log.append(columns, Box::new(move |result| drop(done.send(result.map(drop)))));
    let answer = appended.recv_timeout(ANSWER_MAX).context("the log answers no append")?;
    Ok(answer?)
}

fn replace(disk: &Memory, first: u64, bytes: &[u8]) -> Result<()> {
    let database = (disk.opener())()?;
    let write = database.begin_write()?;
    write.open_table(CHUNKS)?.insert((0, first), bytes)?;
    Ok(write.commit()?)
}

// -------------------------------------------------------- tests of states and of the catalogue

fn shard() -> ShardId {
    let version = VersionId("0123456789abcdef".into());
    ShardId { projection: "orders".into(), version, rebuild: 0, partition: P0 }
}

const FILE: &str = "orders/0123456789abcdef/0.redb";
const ROWS: Space = Space::Table(TableId(0));

/// The bytes of a shard's file before any damage, and the rows in it.
struct StateImage {
    bytes: Vec<u8>,
    rows: Pairs,
}

impl StateImage {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // The rows of the first commit are stored in a tree. Later commits store theirs in one run,
        // and then in two.
        let config = StoreConfig { run_rows: 16, ..StoreConfig::default() };
        let state = StateDir::open(folder.path(), config)?;
        let store = state.open(&shard())?;
        let key = |n: u32| format!("k{n:04}").into_bytes();
        for part in 0..3 {
            let rows =
                (part * 100..part * 100 + 100).map(|n| (key(n), Some(vec![7; 60]))).collect();
            let meta = ShardMeta { next: Offset(u64::from(part) + 1), ..ShardMeta::default() };
            let meta = (ShardMeta::KEY.to_vec(), Some(serde_json::to_vec(&meta)?));
            let meta = std::iter::once(meta).collect();
            store.commit(&Writes::from([(ROWS, rows), (Space::Meta, meta)]))?;
        }
        let rows = store.scan(ROWS, &KeyRange::all(), 1_000, false)?;
        drop((store, state));
        let bytes = fs::read(folder.path().join(FILE))?;
        Ok(Self { bytes, rows })
    }

    /// Damages the file once. Returns whether the doctor finds the damage. If the doctor does
    /// not find it, the rows of the state must be correct.
    fn try_raw(&self, rng: &mut fastrand::Rng) -> Result<bool> {
        let mut bytes = self.bytes.clone();
        harm(&mut bytes, rng)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(FILE);
        fs::create_dir_all(path.parent().context("it has one")?)?;
        fs::write(&path, &bytes)?;
        let checked = check_state(&path);
        ensure!(fs::read(&path)? == bytes, "looking at the file has changed it");
        match &checked {
            Err(StoreError::Damaged(why)) => named(why, &path)?,
            Err(error) => bail!("not told as damage: {error}"),
            Ok(_) => {}
        }
        let state = StateDir::open(folder.path(), StoreConfig::default())?;
        let opened = state.open(&shard());
        let read = opened.and_then(|store| store.scan(ROWS, &KeyRange::all(), 1_000, false));
        if checked.is_ok() {
            let rows = read.context("the doctor finds nothing, and it cannot be read")?;
            ensure!(rows == self.rows, "the doctor finds nothing, and rows are wrong");
        }
        Ok(checked.is_err())
    }
}

/// The bytes of the catalogue's file before any damage, and the records in it.
struct CatalogImage {
    bytes: Vec<u8>,
    records: Vec<ProjectionRecord>,
}

impl CatalogImage {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog.redb");
        let catalog = CatalogFile::open(&path)?;
        for n in 0..12 {
            let version = VersionRecord {
                id: VersionId(format!("{n:016}")),
                sha256: "ab".repeat(32),
                parameters: "{\"top\":10}".repeat(n),
                manifest: lantern_core::Manifest {
                    version: "1.0.0".into(),
                    subscribes: vec!["order.*".into()],
                    tables: vec![lantern_core::TableSpec {
                        name: "totals".into(),
                        ..lantern_core::TableSpec::default()
                    }],
                    ..lantern_core::Manifest::default()
                },
                ..VersionRecord::default()
            };
            let name = format!("orders-{n}");
            let active = Some(version.id.clone());
            let versions = vec![version];
            catalog.save(&ProjectionRecord { name, active, versions, ..Default::default() })?;
        }
        let records = catalog.projections()?;
        drop(catalog);
        check_catalog(&path)?;
        let bytes = fs::read(&path)?;
        Ok(Self { bytes, records })
    }

    /// Damages the file once. Returns whether the catalogue refuses to open the file. If the
    /// catalogue opens it, the records must be correct.
    fn try_raw(&self, rng: &mut fastrand::Rng) -> Result<bool> {
        let mut bytes = self.bytes.clone();
        harm(&mut bytes, rng)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog.redb");
        fs::write(&path, &bytes)?;
        let checked = check_catalog(&path);
        ensure!(fs::read(&path)? == bytes, "looking at the file has changed it");
        match CatalogFile::open(&path).and_then(|catalog| catalog.projections()) {
            Ok(records) => {
                ensure!(records == self.records, "the catalogue is read wrongly");
                Ok(false)
            }
            Err(StoreError::Damaged(why)) => {
                named(&why, &path)?;
                ensure!(checked.is_err(), "the doctor does not find it: {why}");
                Ok(true)
            }
            Err(error) => bail!("not told as damage: {error}"),
        }
    }
}

fn named(why: &str, path: &Path) -> Result<()> {
    ensure!(why.contains(&path.display().to_string()), "the file is not named: {why}");
    Ok(())
}
