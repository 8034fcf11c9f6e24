//! Defines the redb file of the log: its tables, and how it is opened and loaded.
//!
//! | table | key | value |
//! |---|---|---|
//! | `log` | `format`, `partitions`; `imported/` and partition: the end of the imported events | number |
//! | `partitions` | partition | [`PartitionRow`] |
//! | `chunks` | partition, first offset | a chunk, see [`super::codec`] |
//! | `index` | partition, first offset | [`ChunkMeta`] |
//! | `identities` | sequence number | [`EventIdentities`], oldest first |
//! | `types` | partition, event type | number of events |
//! | `incarnations` | partition, first offset | random number, see [`super::incarnation`] |

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;

use lantern_core::{
    Chunk, DeduplicationWindow, ErrorCause, LogError, Offset, PartitionId, Timestamp,
};
use lantern_redb_file::{begin_durable_write, catch_panic};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use thiserror::Error;
use tracing::error;

use super::LogConfig;
use super::append_plan::{MergeChunk, PartitionState, RUN_CHUNKS_MAX};
use super::chunk_meta::{ChunkMeta, EventIdentities, PartitionRow};
use super::codec;
use super::incarnation::Incarnations;
use super::open_error::OpenError;

/// The format of the file that this release reads and writes.
pub(crate) const FORMAT: u64 = 2;

pub(crate) const LOG: TableDefinition<'_, &str, u64> = TableDefinition::new("log");
pub(crate) const PARTITIONS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("partitions");
pub(crate) const CHUNKS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("chunks");
pub(crate) const INDEX: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("index");
pub(crate) const IDENTITIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("identities");
pub(crate) const TYPES: TableDefinition<'_, (u32, &str), u64> = TableDefinition::new("types");
pub(crate) const INCARNATIONS: TableDefinition<'_, (u32, u64), u64> =
    TableDefinition::new("incarnations");

/// A function that opens the log's database. It is called again after each fault.
pub type OpenDatabase = Arc<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// An access to the file that failed.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Redb(redb::Error),
    #[error("{0}")]
    Damaged(String),
}

/// Runs `task` on the file and catches panics. redb panics on some damaged files, and such
/// a panic must not end a reader's thread or the log's thread.
pub(crate) fn caught<T>(task: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // The transaction ends here. If redb requires it, the file is opened again.
    catch_panic(task).unwrap_or_else(|panic| Err(Fault::Damaged(panic.to_string())))
}

macro_rules! fault_from {
    ($($name:ident),*) => {$(
        impl From<redb::$name> for Fault {
            fn from(error: redb::$name) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}
fault_from!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

impl Fault {
    /// Returns whether the file must be opened again before it can be used.
    pub(crate) fn is_of_the_file(&self) -> bool {
        matches!(self, Self::Redb(_))
    }
}

impl From<Fault> for LogError {
    fn from(fault: Fault) -> Self {
        use redb::Error::{Corrupted, Io};
        let full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        match fault {
            Fault::Damaged(what) | Fault::Redb(Corrupted(what)) => Self::Damaged(what.into()),
            Fault::Redb(Io(error)) if full(error.kind()) => Self::Full(ErrorCause::of(error)),
            Fault::Redb(error) => Self::Unavailable(ErrorCause::of(error)),
        }
    }
}

/// What the writer knows about the file in memory.
pub(crate) struct State {
    pub(crate) partitions: Vec<PartitionState>,
    /// For each partition, the incarnations that wrote the stored events.
    pub(crate) incarnations: Vec<Incarnations>,
    /// The incarnation that writes newly appended events.
    pub(crate) incarnation: u64,
    /// For each partition, the offset after the last imported event.
    pub(crate) imported: Vec<Offset>,
    pub(crate) window: DeduplicationWindow,
    /// The sequence number of the next record of identities.
    pub(crate) identities_next: u64,
    /// The number of identities in the file.
    pub(crate) identities_stored: u64,
}

impl State {
    /// Begins a write transaction whose commit survives power loss.
    pub(crate) fn begin_write(
        &self,
        database: &Database,
        config: &LogConfig,
    ) -> Result<WriteTransaction, Fault> {
        let bytes: u64 = self.partitions.iter().map(|p| p.row.disk_bytes).sum();
        Ok(begin_durable_write(database, bytes <= config.fast_recovery_bytes)?)
    }
}

/// Loads what the writer needs in memory. If the file is new, it writes the first records.
pub(crate) fn load(
    database: &Database,
    config: &LogConfig,
    path: &std::path::Path,
) -> Result<State, OpenError> {
    let fault = |fault: Fault| open_error(fault, path);
    match caught(|| stored_format(database)).map_err(fault)? {
        Stored::Nothing => caught(|| create(database, config)).map_err(fault)?,
        Stored::SomethingElse => return Err(OpenError::NotALog(path.into())),
        Stored::Log { format, .. } if format != FORMAT => return Err(other_format(path, format)),
        Stored::Log { partitions, .. } if partitions != u64::from(config.partitions) => {
            return Err(OpenError::Partitions {
                path: path.into(),
                found: partitions,
                configured: config.partitions,
            });
        }
        Stored::Log { .. } => {}
    }
    caught(|| load_state(database, config)).map_err(fault)
}

/// Returns an error: the log at `path` has another format than this release reads.
pub(crate) fn other_format(path: &std::path::Path, found: u64) -> OpenError {
    let (path, known) = (path.into(), FORMAT);
    if found < known {
        OpenError::EarlierFormat { path, found, known }
    } else {
        OpenError::LaterFormat { path, found, known }
    }
}

pub(crate) fn open_error(fault: Fault, path: &std::path::Path) -> OpenError {
    let path = path.to_path_buf();
    match fault {
        Fault::Redb(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse(path),
        Fault::Redb(redb::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            OpenError::NotALog(path)
        }
        Fault::Redb(redb::Error::Corrupted(what)) | Fault::Damaged(what) => {
            OpenError::Damaged { path, what }
        }
        Fault::Redb(error) => OpenError::Io { path, source: error.into() },
    }
}

pub(crate) enum Stored {
    Nothing,
    SomethingElse,
    Log { format: u64, partitions: u64 },
}

pub(crate) fn stored_format(database: &Database) -> Result<Stored, Fault> {
    let transaction = database.begin_read()?;
    let log = match transaction.open_table(LOG) {
        Ok(log) => log,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let empty = transaction.list_tables()?.next().is_none()
                && transaction.list_multimap_tables()?.next().is_none();
            return Ok(if empty { Stored::Nothing } else { Stored::SomethingElse });
        }
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Stored::SomethingElse),
    };
    let number = |name| Ok::<_, Fault>(log.get(name)?.map(|value| value.value()));
    Ok(match (number("format")?, number("partitions")?) {
        (Some(format), partitions) => {
            Stored::Log { format, partitions: partitions.unwrap_or_default() }
        }
        (None, _) => Stored::SomethingElse,
    })
}

fn create(database: &Database, config: &LogConfig) -> Result<(), Fault> {
    let transaction = begin_durable_write(database, true)?;
    {
        let mut log = transaction.open_table(LOG)?;
        log.insert("format", FORMAT)?;
        log.insert("partitions", u64::from(config.partitions))?;
        let mut partitions = transaction.open_table(PARTITIONS)?;
        for partition in 0..config.partitions {
            partitions.insert(partition, PartitionRow::new().encode().as_slice())?;
        }
        transaction.open_table(CHUNKS)?;
        transaction.open_table(INDEX)?;
        transaction.open_table(IDENTITIES)?;
        transaction.open_table(TYPES)?;
        transaction.open_table(INCARNATIONS)?;
    }
    Ok(transaction.commit()?)
}

fn load_state(database: &Database, config: &LogConfig) -> Result<State, Fault> {
    let transaction = database.begin_read()?;
    let rows = transaction.open_table(PARTITIONS)?;
    let chunks = transaction.open_table(CHUNKS)?;
    let index = transaction.open_table(INDEX)?;
    let types = transaction.open_table(TYPES)?;
    let log = transaction.open_table(LOG)?;
    let mut imported = Vec::new();
    let openings = transaction.open_table(INCARNATIONS)?;
    let (mut partitions, mut incarnations) = (Vec::new(), Vec::new());
    for number in 0..config.partitions {
        let row = rows
            .get(number)?
            .and_then(|bytes| PartitionRow::decode(bytes.value()))
            .ok_or_else(|| Fault::Damaged(format!("the record of partition {number}")))?;
        check_ends(&index, number, &row)?;
        let mut counts = BTreeMap::new();
        for pair in types.range((number, "")..(number + 1, ""))? {
            let (key, count) = pair?;
            counts.insert(key.value().1.to_owned(), count.value());
        }
        let mut of_partition = Incarnations::default();
        for pair in openings.range((number, 0)..=(number, u64::MAX))? {
            let (key, incarnation) = pair?;
            of_partition.push(Offset(key.value().1), incarnation.value());
        }
        incarnations.push(of_partition);
        let end = log.get(imported_key(number).as_str())?.map_or(0, |end| end.value());
        imported.push(Offset(end));
        let run = load_run(&chunks, &index, PartitionId(number), config);
        partitions.push(PartitionState::new(PartitionId(number), row, counts, run));
    }
    let table = transaction.open_table(IDENTITIES)?;
    let (window, identities_next, identities_stored) = load_window(&table, config)?;
    let incarnation = fastrand::u64(1..);
    Ok(State {
        partitions,
        incarnations,
        incarnation,
        imported,
        window,
        identities_next,
        identities_stored,
    })
}

/// Returns the key of the end of the imported events of a partition.
pub(crate) fn imported_key(partition: u32) -> String {
    format!("imported/{partition}")
}

/// Checks that the first and the last chunk in the index match the bounds in the record of the
/// partition.
fn check_ends(
    index: &impl ReadableTable<(u32, u64), &'static [u8]>,
    number: u32,
    row: &PartitionRow,
) -> Result<(), Fault> {
    let mut range = index.range((number, 0)..=(number, u64::MAX))?;
    let first = range.next().transpose()?.map(|(key, _)| key.value().1);
    let last = last_chunk(index, PartitionId(number), Offset(u64::MAX))?;
    let found = match (first, &last) {
        (Some(first), Some((_, meta))) => (Offset(first), meta.end),
        _ => (row.end, row.end),
    };
    if found == (row.start, row.end) {
        return Ok(());
    }
    Err(Fault::Damaged(format!(
        "partition {number} should hold offsets {} up to {}, but its chunks hold {} up to {}",
        row.start, row.end, found.0, found.1
    )))
}

/// Returns the chunk with the highest first offset that is not above `offset`. If the partition
/// contains `offset`, this chunk contains it.
pub(crate) fn last_chunk(
    index: &impl ReadableTable<(u32, u64), &'static [u8]>,
    partition: PartitionId,
    offset: Offset,
) -> Result<Option<(Offset, ChunkMeta)>, Fault> {
    let mut range = index.range((partition.0, 0)..=(partition.0, offset.0))?;
    let Some((key, value)) = range.next_back().transpose()? else {
        return Ok(None);
    };
    let first = Offset(key.value().1);
    Ok(Some((first, decode_meta(value.value(), partition, first)?)))
}

pub(crate) fn decode_meta(
    bytes: &[u8],
    partition: PartitionId,
    first: Offset,
) -> Result<ChunkMeta, Fault> {
    ChunkMeta::decode(bytes).filter(|meta| meta.end > first).ok_or_else(|| {
        Fault::Damaged(format!("the index entry of partition {partition} at offset {first}"))
    })
}

/// Reads and decodes a chunk.
pub(crate) fn read_chunk(
    chunks: &impl ReadableTable<(u32, u64), &'static [u8]>,
    partition: PartitionId,
    first: Offset,
    meta: &ChunkMeta,
) -> Result<Chunk, Fault> {
    let damaged = |what: &str| {
        Fault::Damaged(format!("chunk of partition {partition} at offset {first}: {what}"))
    };
    let bytes = chunks
        .get((partition.0, first.0))?
        .ok_or_else(|| damaged("it is in the index, but it is missing"))?;
    let (_, chunk) = codec::decode(bytes.value(), partition, first)
        .map_err(|error| damaged(&error.to_string()))?;
    if chunk.end() != meta.end {
        return Err(damaged("its end differs from the index"));
    }
    Ok(chunk)
}

/// Loads the run: the small chunks at the end of the partition, which are merged when they fill a
/// chunk. If one of them is damaged, they are not merged, and readers of the damaged chunk get an
/// error.
fn load_run(
    chunks: &impl ReadableTable<(u32, u64), &'static [u8]>,
    index: &impl ReadableTable<(u32, u64), &'static [u8]>,
    partition: PartitionId,
    config: &LogConfig,
) -> Vec<MergeChunk> {
    let read = || -> Result<VecDeque<MergeChunk>, Fault> {
        let mut run = VecDeque::new();
        let (mut bytes, mut events) = (0, 0);
        for pair in index.range((partition.0, 0)..=(partition.0, u64::MAX))?.rev() {
            let (key, value) = pair?;
            let first = Offset(key.value().1);
            let meta = decode_meta(value.value(), partition, first)?;
            events += meta.end.0 - first.0;
            // The size of the chunk on disk is known without reading the chunk.
            bytes += meta.disk_bytes;
            if bytes > u64::from(config.chunk_bytes)
                || events >= u64::from(config.chunk_events_max)
                || run.len() >= RUN_CHUNKS_MAX
            {
                break;
            }
            let chunk = Arc::new(read_chunk(chunks, partition, first, &meta)?);
            run.push_front(MergeChunk { first, chunk, meta });
        }
        Ok(run)
    };
    match read() {
        Ok(run) => run.into(),
        Err(fault) => {
            error!(partition = partition.0, %fault, "the newest chunks cannot be read");
            Vec::new()
        }
    }
}

/// Fills the deduplication window with the newest identities.
fn load_window(
    table: &impl ReadableTable<u64, &'static [u8]>,
    config: &LogConfig,
) -> Result<(DeduplicationWindow, u64, u64), Fault> {
    let mut window = DeduplicationWindow::new(config.dedup_window_events);
    let next = table.last()?.map_or(0, |(key, _)| key.value() + 1);
    let (mut stored, mut newest) = (0_u64, VecDeque::new());
    for pair in table.iter()?.rev() {
        let (key, value) = pair?;
        let Some(identities) = EventIdentities::decode(value.value()) else {
            // The log is opened nevertheless. The only effect of this damage is that some
            // duplicates may not be recognized.
            error!(record = key.value(), "a record of event identities is damaged");
            metrics::counter!("lantern_log_identities_damaged_total").increment(1);
            continue;
        };
        if stored < u64::from(config.dedup_window_events) {
            stored += identities.hashes.len() as u64;
            newest.push_front(identities);
        } else {
            stored += identities.hashes.len() as u64;
        }
    }
    let in_window: usize = newest.iter().map(|i| i.hashes.len()).sum();
    let mut skip = in_window.saturating_sub(config.dedup_window_events as usize);
    for identities in newest {
        for (offset, hash) in (identities.first.0..).zip(&identities.hashes) {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            window.push(*hash, identities.partition, Offset(offset));
        }
    }
    Ok((window, next, stored))
}

/// Computes the time that is `age_seconds` before `time`.
pub(crate) fn before(time: Timestamp, age_seconds: u64) -> Timestamp {
    let age_us = i64::try_from(age_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    Timestamp(time.0.saturating_sub(age_us))
}
