//! Reads chunks, and finds them by offset, event type and time.

use std::sync::Arc;

use lantern_core::{
    Attributes, Chunk, Events, LogError, LogRead, Offset, PartitionId, Timestamp, TypeFilter,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::chunk_meta::{ChunkMeta, PartitionRow};
use super::queue::Shared;
use super::tables::{self, CHUNKS, Fault, INDEX, PARTITIONS, caught};

/// The maximum number of chunks that one call of `read` skips.
const SKIPPED_MAX: usize = 1_024;

impl Shared {
    pub(crate) fn row(&self, partition: PartitionId) -> Result<PartitionRow, LogError> {
        let rows = self.rows.read();
        rows.get(partition.0 as usize).copied().ok_or(LogError::NoPartition(partition))
    }

    /// Reads from the offset `from` on, up to the published end of the partition. A commit is in
    /// the file and in the cache a moment before it is published. Until then, readers know neither
    /// the incarnation of its events nor the new end of the partition, so they must not see these
    /// events.
    pub(crate) fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        let row = self.row(partition)?;
        if from < row.start {
            return Err(LogError::OutOfRange { partition, from, start: row.start });
        }
        Ok(match self.read_committed(partition, from, row.end, wanted)? {
            LogRead::Chunk(chunk) if chunk.end() > row.end => {
                published_part(&chunk, self.row(partition)?.end)
            }
            LogRead::Skipped { next } => LogRead::Skipped { next: next.min(row.end) },
            read => read,
        })
    }

    /// Reads from the offset `from` on, without the limit of the published end: the result may
    /// contain events at or after `end`. `from` must be before `end`.
    fn read_committed(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        let mut next = from;
        for _ in 0..SKIPPED_MAX {
            if next >= end {
                break;
            }
            let Some(chunk) = self.cache.holding(partition, next) else {
                return self.read_stored(partition, next, wanted, from < next);
            };
            if chunk.events.type_names().iter().any(|name| wanted.matches(name)) {
                return Ok(LogRead::Chunk(chunk));
            }
            next = chunk.end();
        }
        Ok(if next == from { LogRead::End } else { LogRead::Skipped { next } })
    }

    /// Reads like [`Shared::read_committed`], for a chunk that is not in the cache. `skipped` tells
    /// whether the call has already skipped chunks before `from`.
    fn read_stored(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
        skipped: bool,
    ) -> Result<LogRead, LogError> {
        let snapshot = self.snapshot()?;
        let found = self.guard(caught(|| snapshot.find(partition, from)))?;
        let Some((mut first, mut meta)) = found else {
            return self.trimmed_error(&snapshot, partition, from, skipped);
        };
        let mut rest = None;
        for _ in 0..SKIPPED_MAX {
            if meta.may_match(wanted) {
                return Ok(LogRead::Chunk(self.chunk(&snapshot, partition, first, &meta)?));
            }
            if rest.is_none() {
                rest = Some(self.guard(caught(|| snapshot.metas(partition, meta.end)))?);
            }
            let following = caught(|| rest.as_mut().and_then(Iterator::next).transpose());
            let Some((following, its)) = self.guard(following)? else {
                break;
            };
            if following != meta.end {
                // A chunk is missing. The reader must not skip its events without an error.
                let end = meta.end;
                let what = format!("no chunk of partition {partition} holds offset {end}");
                return Err(LogError::Damaged(what.into()));
            }
            (first, meta) = (following, its);
        }
        // If the last chunk is wanted, the next call begins with it and returns it. Otherwise this
        // call skips it too.
        let next = if meta.may_match(wanted) { first } else { meta.end };
        Ok(LogRead::Skipped { next })
    }

    /// Returns the answer if no chunk contains `from`. There are two reasons: retention has deleted
    /// the event at `from` in the meantime, or the event is lost.
    fn trimmed_error(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        skipped: bool,
    ) -> Result<LogRead, LogError> {
        // The snapshot may be newer than the record in memory.
        let start = self.guard(caught(|| snapshot.start(partition)))?;
        if from >= start {
            let what = format!("no chunk of partition {partition} holds offset {from}");
            return Err(LogError::Damaged(what.into()));
        }
        if skipped {
            return Ok(LogRead::Skipped { next: from });
        }
        Err(LogError::OutOfRange { partition, from, start })
    }

    pub(crate) fn offset_at(
        &self,
        partition: PartitionId,
        time: Timestamp,
    ) -> Result<Offset, LogError> {
        let row = self.row(partition)?;
        if row.appended_max < time || row.start == row.end {
            return Ok(row.end);
        }
        let snapshot = self.snapshot()?;
        let (mut low, mut high) = (row.start, row.end);
        // Finds the first chunk whose latest append time so far is at or after `time`.
        while low < high {
            let middle = Offset(u64::midpoint(low.0, high.0));
            match self.guard(caught(|| snapshot.find(partition, middle)))? {
                Some((first, meta)) if meta.appended_max_so_far >= time => high = first.max(low),
                Some((_, meta)) => low = meta.end,
                // Retention has deleted the chunk in the meantime, so the search continues after
                // it.
                None => low = middle.next(),
            }
        }
        // The event with that append time may be deleted. Then the result is in a later chunk.
        let mut metas = self.guard(caught(|| snapshot.metas(partition, low)))?;
        while let Some((first, meta)) = self.guard(caught(|| metas.next().transpose()))? {
            if meta.appended_max < time {
                continue;
            }
            let chunk = self.chunk(&snapshot, partition, first, &meta)?;
            if let Some(index) = chunk.appended.iter().position(|&t| t >= time) {
                return Ok(chunk.offset(index));
            }
        }
        Ok(row.end)
    }

    /// Returns a decoded chunk, from the cache or from the file. If several readers need the same
    /// chunk, it is decoded once.
    fn chunk(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        first: Offset,
        meta: &ChunkMeta,
    ) -> Result<Arc<Chunk>, LogError> {
        let _decoding = self.cache.decoding(partition, first);
        if let Some(chunk) = self.cache.holding(partition, first)
            && chunk.end() == meta.end
        {
            return Ok(chunk);
        }
        let read = || tables::read_chunk(&snapshot.chunks, partition, first, meta);
        let chunk = self.guard(caught(read))?;
        metrics::counter!("lantern_log_chunks_decoded_total").increment(1);
        let chunk = Arc::new(chunk);
        self.cache.insert(Arc::clone(&chunk));
        Ok(chunk)
    }

    fn snapshot(&self) -> Result<Snapshot, LogError> {
        let database = self.database()?;
        let open = || -> Result<Snapshot, Fault> {
            let transaction = database.begin_read()?;
            Ok(Snapshot {
                index: transaction.open_table(INDEX)?,
                chunks: transaction.open_table(CHUNKS)?,
                transaction,
            })
        };
        self.guard(caught(open))
    }

    /// Converts a fault to a [`LogError`]. If the file has failed, the writer opens it again.
    pub(crate) fn guard<T>(&self, result: Result<T, Fault>) -> Result<T, LogError> {
        result.map_err(|fault| {
            if fault.is_of_the_file() {
                self.suspect();
            }
            fault.into()
        })
    }
}

/// Returns the events of `chunk` before `end`, the published end of the partition.
fn published_part(chunk: &Arc<Chunk>, end: Offset) -> LogRead {
    let count = chunk.index_of(end);
    if count == chunk.events.len() {
        return LogRead::Chunk(Arc::clone(chunk));
    }
    if count == 0 {
        return LogRead::Skipped { next: end };
    }
    let mut events = Events::new();
    // A part of a chunk does not have more types than the whole chunk, so this always fits.
    events.extend_from(&chunk.events, 0..count, Attributes::all());
    LogRead::Chunk(Arc::new(Chunk {
        partition: chunk.partition,
        offsets: chunk.offsets.clone(),
        events,
        appended: chunk.appended.iter().take(count).copied().collect(),
    }))
}

/// Reads one committed state of the file.
struct Snapshot {
    index: ReadOnlyTable<(u32, u64), &'static [u8]>,
    chunks: ReadOnlyTable<(u32, u64), &'static [u8]>,
    transaction: ReadTransaction,
}

impl Snapshot {
    /// Returns the chunk that contains `offset`.
    fn find(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<(Offset, ChunkMeta)>, Fault> {
        let found = tables::last_chunk(&self.index, partition, offset)?;
        Ok(found.filter(|(_, meta)| meta.end > offset))
    }

    /// Returns the first offset of the partition.
    fn start(&self, partition: PartitionId) -> Result<Offset, Fault> {
        let rows = self.transaction.open_table(PARTITIONS)?;
        let row = rows.get(partition.0)?.and_then(|bytes| PartitionRow::decode(bytes.value()));
        let damaged = || Fault::Damaged(format!("the record of partition {partition}"));
        row.map(|row| row.start).ok_or_else(damaged)
    }

    /// Returns the index entries of the chunks from `from` on, in order.
    fn metas(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<impl Iterator<Item = Result<(Offset, ChunkMeta), Fault>> + use<>, Fault> {
        let range = self.index.range((partition.0, from.0)..=(partition.0, u64::MAX))?;
        Ok(range.map(move |pair| {
            let (key, value) = pair?;
            let first = Offset(key.value().1);
            Ok((first, tables::decode_meta(value.value(), partition, first)?))
        }))
    }
}
