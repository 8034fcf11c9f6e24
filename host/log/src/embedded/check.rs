//! Reads a whole log and reports each damaged place, for `lantern doctor`.

use std::collections::BTreeMap;
use std::path::Path;

use lantern_core::{Chunk, Events, Offset, PartitionBounds, PartitionId, Timestamp};
use lantern_redb_file::{OpenFile, open_read_only};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::chunk_meta::{ChunkMeta, EventIdentities, PartitionRow};
use super::open_error::OpenError;
use super::tables::{self, CHUNKS, Fault, IDENTITIES, INDEX, PARTITIONS, Stored, TYPES, caught};

/// The maximum number of damaged places that are reported. Further places are only counted.
const PLACES_MAX: usize = 1_000;

/// A damaged place in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDamage {
    /// The partition in which the damage is; `None` if it does not belong to a partition.
    pub partition: Option<PartitionId>,
    /// The range of offsets that cannot be read: its first offset, and the first offset after it.
    /// `None` if no event is lost.
    pub offsets: Option<(Offset, Offset)>,
    /// What is damaged in the file.
    pub what: String,
}

/// What the check of a log has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChecked {
    /// The bounds of each partition; `None` if the record of the partition cannot be read.
    pub partitions: Vec<Option<PartitionBounds>>,
    /// The number of chunks read.
    pub chunks: u64,
    /// The number of events read.
    pub events: u64,
    /// The first damaged places; at most 1,000.
    pub damage: Vec<LogDamage>,
    /// The number of damaged places that `damage` does not contain.
    pub more: u64,
}

/// Reads the whole log at `path`: every chunk, the index, the records of the partitions, and the
/// checksums of the file. Calls `progress` with the number of events read and their total. The
/// check does not change the file.
///
/// # Errors
/// Returns [`OpenError`] if the log cannot be opened.
pub fn check(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<LogChecked, OpenError> {
    let failed = |fault| tables::open_error(fault, path);
    let mut database = OpenFile::from(caught(|| Ok(open_read_only(path)?)).map_err(failed)?);
    let mut checked = LogChecked::default();
    let count = match caught(|| tables::stored_format(&database)).map_err(failed)? {
        Stored::Log { format, .. } if format != tables::FORMAT => {
            return Err(tables::other_format(path, format));
        }
        Stored::Log { partitions, .. } => u32::try_from(partitions).unwrap_or(u32::MAX),
        Stored::Nothing | Stored::SomethingElse => return Err(OpenError::NotALog(path.into())),
    };
    if count > super::PARTITIONS_LIMIT {
        let what = format!("its stored number of partitions, {count}, is too high");
        return Err(failed(Fault::Damaged(what)));
    }
    let walked = caught(|| {
        let transaction = database.begin_read()?;
        walk(&transaction, count, &mut checked, progress)
    });
    if let Err(fault) = walked {
        checked.report_damage(None, None, fault.to_string());
    }
    // This is the last step, because it needs a database without readers.
    match caught(|| Ok(database.check_integrity()?)) {
        Ok(true) => {}
        Ok(false) => {
            checked.report_damage(None, None, "the file does not match its checksums".into())
        }
        Err(fault) => checked.report_damage(None, None, fault.to_string()),
    }
    Ok(checked)
}

impl LogChecked {
    /// Sets the offset at which the damage with the index `place` ends.
    fn close(&mut self, place: Option<usize>, end: Offset) {
        let damage = place.and_then(|place| self.damage.get_mut(place));
        if let Some((first, last)) = damage.and_then(|damage| damage.offsets.as_mut()) {
            *last = end.max(first.next());
        }
    }

    fn report_damage(
        &mut self,
        partition: Option<u32>,
        offsets: Option<(Offset, Offset)>,
        what: String,
    ) {
        if self.damage.len() < PLACES_MAX {
            let partition = partition.map(PartitionId);
            self.damage.push(LogDamage { partition, offsets, what });
        } else {
            self.more += 1;
        }
    }
}

fn walk(
    transaction: &ReadTransaction,
    count: u32,
    checked: &mut LogChecked,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Fault> {
    let rows = transaction.open_table(PARTITIONS)?;
    let mut known = Vec::new();
    for number in 0..count {
        let row = rows.get(number)?.and_then(|bytes| PartitionRow::decode(bytes.value()));
        if row.is_none() {
            checked.report_damage(
                Some(number),
                None,
                "the partition's own record is damaged".into(),
            );
        }
        checked.partitions.push(row.as_ref().map(PartitionRow::bounds));
        known.push(row);
    }
    let total = known.iter().flatten().map(|row| row.end.0.saturating_sub(row.start.0)).sum();
    for (number, row) in (0..).zip(known) {
        if let Err(fault) = partition(transaction, number, row, checked, &mut |events| {
            progress(events, total);
        }) {
            checked.report_damage(Some(number), None, fault.to_string());
        }
    }
    for pair in transaction.open_table(IDENTITIES)?.iter()? {
        let (key, value) = pair?;
        if EventIdentities::decode(value.value()).is_none() {
            let what = format!(
                "record {} of event identities is damaged: duplicates of its events may not be recognized",
                key.value()
            );
            checked.report_damage(None, None, what);
        }
    }
    Ok(())
}

/// Compares the times of the events in a chunk with those in the index.
fn compare_times(
    number: u32,
    first: Offset,
    meta: &ChunkMeta,
    chunk: &Chunk,
    checked: &mut LogChecked,
) {
    let mut report = |what: &str| {
        let what = format!("chunk at offset {first}: the index has a different {what}");
        checked.report_damage(Some(number), None, what);
    };
    let newest = chunk.events.times().iter().max().copied();
    if newest.unwrap_or(Timestamp::MIN) != meta.time_max {
        report("event time");
    }
    let appended = (chunk.appended.iter().min(), chunk.appended.iter().max());
    if appended != (Some(&meta.appended_min), Some(&meta.appended_max)) {
        report("append time");
    }
}

/// Counts the events of a chunk by type. If the index does not list the types of the chunk, the
/// events are counted under the empty name.
fn count_types(events: &Events, listed: bool, counts: &mut BTreeMap<String, u64>) {
    let names = events.type_names();
    for kind in events.types() {
        let name = if listed { names[usize::from(*kind)].as_str() } else { "" };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}

/// Reads one partition from its start to its end. Checks that no offset is missing, and that the
/// index, the chunks and the record of the partition agree.
fn partition(
    transaction: &ReadTransaction,
    number: u32,
    row: Option<PartitionRow>,
    checked: &mut LogChecked,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Fault> {
    let index = transaction.open_table(INDEX)?;
    let chunks = transaction.open_table(CHUNKS)?;
    let mut expected = row.map(|row| row.start);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut whole = true;
    let mut seen = 0;
    // A damaged entry does not tell where its chunk ends. So the reported damage ends where the
    // next readable entry begins.
    let mut open: Option<usize> = None;
    for pair in index.range((number, 0)..=(number, u64::MAX))? {
        let (key, value) = pair?;
        let first = Offset(key.value().1);
        checked.close(open.take(), first);
        if let Some(expected) = expected.filter(|expected| *expected != first) {
            whole = false;
            let what =
                format!("the next chunk should begin at offset {expected}, but begins at {first}");
            checked.report_damage(
                Some(number),
                Some((expected.min(first), first.max(expected))),
                what,
            );
        }
        let meta = match tables::decode_meta(value.value(), PartitionId(number), first) {
            Ok(meta) => meta,
            Err(fault) => {
                whole = false;
                expected = None;
                open = Some(checked.damage.len());
                checked.report_damage(Some(number), Some((first, first.next())), fault.to_string());
                continue;
            }
        };
        expected = Some(meta.end);
        seen += 1;
        match tables::read_chunk(&chunks, PartitionId(number), first, &meta) {
            Ok(chunk) => {
                checked.chunks += 1;
                checked.events += chunk.events.len() as u64;
                compare_times(number, first, &meta, &chunk, checked);
                count_types(&chunk.events, meta.types.is_some(), &mut counts);
                progress(checked.events);
            }
            Err(fault) => {
                whole = false;
                checked.report_damage(Some(number), Some((first, meta.end)), fault.to_string());
            }
        }
    }
    checked.close(open, row.map_or(Offset(0), |row| row.end));
    if let (Some(row), Some(expected)) = (row, expected)
        && row.end != expected
    {
        whole = false;
        let what = format!("it should end at offset {}, but ends at {expected}", row.end);
        let lost = (expected < row.end).then_some((expected, row.end));
        checked.report_damage(Some(number), lost, what);
    }
    if whole {
        totals(transaction, number, row, &Totals { chunks: seen, types: counts }, checked)?;
    }
    Ok(())
}

/// What was counted while a partition was read.
struct Totals {
    chunks: u64,
    types: BTreeMap<String, u64>,
}

/// Compares these counts with the records of the partition.
fn totals(
    transaction: &ReadTransaction,
    number: u32,
    row: Option<PartitionRow>,
    counted: &Totals,
    checked: &mut LogChecked,
) -> Result<(), Fault> {
    let seen = counted.chunks;
    if row.is_some_and(|row| row.chunks != seen) {
        checked.report_damage(
            Some(number),
            None,
            format!("its record has a different number of chunks than the {seen} that it holds"),
        );
    }
    let chunks = transaction.open_table(CHUNKS)?;
    let types = transaction.open_table(TYPES)?;
    let orphans = chunks.range((number, 0)..=(number, u64::MAX))?.count() as u64;
    if orphans != seen {
        let what = format!("{orphans} chunks are stored, but the index has {seen}");
        checked.report_damage(Some(number), None, what);
    }
    let counted: u64 = counted.types.values().sum();
    let mut stored = 0;
    for pair in types.range((number, "")..(number + 1, ""))? {
        stored += pair?.1.value();
    }
    if counted != stored {
        let what =
            format!("the counts of types add up to {stored}, but there are {counted} events");
        checked.report_damage(Some(number), None, what);
    }
    Ok(())
}
