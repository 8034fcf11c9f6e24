//! Implements retention, which deletes old events from the start of the log. It deletes only whole
//! chunks.

use std::collections::BTreeMap;

use lantern_core::{
    AHEAD_MAX_US, LogError, MaintenanceReport, Offset, PartitionId, RetentionFloor, Timestamp,
    TrimmedPartition,
};
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::append_plan;
use super::chunk_meta::ChunkMeta;
use super::queue::{Maintenance, Shared};
use super::tables::{self, CHUNKS, Fault, INDEX, PARTITIONS, State, TYPES};

/// The maximum number of chunks that one call, which is one transaction, deletes.
const DROPPED_MAX: usize = 1_024;

/// The maximum number of chunks that are searched for a chunk with a correct append time.
const LOOKED_MAX: usize = 1_024;

/// The oldest chunk of a partition.
struct OldestChunk {
    first: Offset,
    meta: ChunkMeta,
    /// A time at or after the append times of all events of the chunk.
    appended: Timestamp,
}

pub(crate) fn maintain(
    database: &Database,
    shared: &Shared,
    state: &mut State,
    ask: &Maintenance,
) -> Result<MaintenanceReport, Fault> {
    let (drops, more) = choose(database, shared, state, ask)?;
    if drops.is_empty() {
        return Ok(MaintenanceReport { trimmed: Vec::new(), more });
    }
    let transaction = state.begin_write(database, &shared.config)?;
    let mut changes = Vec::new();
    {
        let mut chunks = transaction.open_table(CHUNKS)?;
        let mut index = transaction.open_table(INDEX)?;
        let mut rows = transaction.open_table(PARTITIONS)?;
        let mut types = transaction.open_table(TYPES)?;
        for (&partition_index, fronts) in &drops {
            let partition = &state.partitions[partition_index];
            let number = partition.partition.0;
            let (mut row, mut deltas) = (partition.row, BTreeMap::new());
            for OldestChunk { first, meta, .. } in fronts {
                chunks.remove((number, first.0))?;
                index.remove((number, first.0))?;
                row.start = meta.end;
                row.chunks -= 1;
                row.disk_bytes -= meta.disk_bytes;
                append_plan::add_types(&mut deltas, meta, *first, -1);
            }
            let counts = append_plan::new_counts(&partition.types, deltas);
            for (name, count) in &counts {
                match count {
                    0 => drop(types.remove((number, name.as_str()))?),
                    count => drop(types.insert((number, name.as_str()), *count)?),
                }
            }
            rows.insert(number, row.encode().as_slice())?;
            changes.push((partition_index, row, counts));
        }
    }
    transaction.commit()?;
    let mut trimmed = Vec::new();
    for (partition_index, row, counts) in changes {
        let partition = &mut state.partitions[partition_index];
        let old = std::mem::replace(&mut partition.row, row);
        trimmed.push(TrimmedPartition {
            partition: partition.partition,
            chunks: old.chunks - row.chunks,
            events: row.start.0 - old.start.0,
            bytes: old.disk_bytes - row.disk_bytes,
            start: row.start,
        });
        partition.run.retain(|small| small.first >= row.start);
        for (name, count) in counts {
            match count {
                0 => drop(partition.types.remove(&name)),
                count => drop(partition.types.insert(name, count)),
            }
        }
        // The records are updated before the cache. In the other order, a reader could request
        // deleted chunks that are no longer in the cache.
        shared.rows.write()[partition_index] = row;
        shared.cache.forget(partition.partition, old.start, row.start);
    }
    let events = trimmed.iter().map(|t| t.events).sum();
    metrics::counter!("lantern_log_events_let_go_total").increment(events);
    Ok(MaintenanceReport { trimmed, more })
}

/// Chooses the chunks to delete, and returns them by the index of their partition. Also returns
/// whether there are more chunks to delete.
fn choose(
    database: &Database,
    shared: &Shared,
    state: &State,
    ask: &Maintenance,
) -> Result<(BTreeMap<usize, Vec<OldestChunk>>, bool), Fault> {
    let config = &shared.config;
    let mut drops: BTreeMap<usize, Vec<OldestChunk>> = BTreeMap::new();
    if config.retention_age_seconds.is_none() && config.retention_bytes.is_none() {
        return Ok((drops, false));
    }
    let oldest = config.retention_age_seconds.map(|age| tables::before(ask.now, age));
    let mut bytes: u64 = state.partitions.iter().map(|p| p.row.disk_bytes).sum();
    let transaction = database.begin_read()?;
    let index = transaction.open_table(INDEX)?;
    let mut fronts = Vec::with_capacity(state.partitions.len());
    for partition_index in 0..state.partitions.len() {
        let first = state.partitions[partition_index].row.start;
        fronts.push(front(&index, state, ask, partition_index, first)?);
    }
    for _ in 0..DROPPED_MAX {
        let over = config.retention_bytes.is_some_and(|limit| bytes > limit);
        let due = |(partition_index, front): (usize, &Option<OldestChunk>)| {
            let front = front.as_ref()?;
            let aged = oldest.is_some_and(|oldest| front.appended < oldest);
            let newest = front.meta.end == state.partitions[partition_index].row.end;
            (aged || (over && !newest)).then_some((front.appended, partition_index))
        };
        let Some((_, partition_index)) = fronts.iter().enumerate().filter_map(due).min() else {
            return Ok((drops, false));
        };
        let Some(trimmed) = fronts[partition_index].take() else {
            return Ok((drops, false));
        };
        fronts[partition_index] = front(&index, state, ask, partition_index, trimmed.meta.end)?;
        bytes -= trimmed.meta.disk_bytes;
        drops.entry(partition_index).or_default().push(trimmed);
    }
    Ok((drops, true))
}

/// Returns the chunk that begins at `first`, if it may be deleted.
fn front(
    index: &ReadOnlyTable<(u32, u64), &'static [u8]>,
    state: &State,
    ask: &Maintenance,
    partition_index: usize,
    first: Offset,
) -> Result<Option<OldestChunk>, Fault> {
    let partition = state.partitions[partition_index].partition;
    let Some(bytes) = index.get((partition.0, first.0))? else {
        return Ok(None);
    };
    let meta = tables::decode_meta(bytes.value(), partition, first)?;
    let kept =
        ask.floors.get(partition_index).copied().flatten().is_some_and(|floor| meta.end > floor);
    if kept {
        return Ok(None);
    }
    let appended = appended_by(index, partition, &meta, ask.now)?;
    Ok(Some(OldestChunk { first, meta, appended }))
}

/// Returns the append time that retention uses for the chunk. It is at or after the append times of
/// the chunk's events. If the chunk has an append time that is too far ahead of `now`, it comes
/// from a wrong clock. The result is then the append time of a later chunk with a plausible time,
/// or `now` if there is none.
fn appended_by(
    index: &ReadOnlyTable<(u32, u64), &'static [u8]>,
    partition: PartitionId,
    meta: &ChunkMeta,
    now: Timestamp,
) -> Result<Timestamp, Fault> {
    let latest = Timestamp(now.0.saturating_add(AHEAD_MAX_US));
    if meta.appended_max <= latest {
        return Ok(meta.appended_max);
    }
    let after = index.range((partition.0, meta.end.0)..=(partition.0, u64::MAX))?;
    for pair in after.take(LOOKED_MAX) {
        let (key, value) = pair?;
        let later = tables::decode_meta(value.value(), partition, Offset(key.value().1))?;
        if later.appended_min <= latest {
            return Ok(later.appended_min);
        }
    }
    Ok(now)
}

/// Asks the writer to delete the events that are due at `now`, and waits until they are deleted.
pub(crate) fn ask(
    shared: &Shared,
    now: Timestamp,
    floor: RetentionFloor<'_>,
) -> Result<MaintenanceReport, LogError> {
    let floors = (0..shared.config.partitions).map(|number| floor(PartitionId(number))).collect();
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    shared.maintain(Maintenance { now, floors, reply })?;
    answer.recv().unwrap_or(Err(LogError::Closed))
}
