//! Decides how new events are divided into chunks. This is done in memory, before anything is
//! written.
//!
//! Appends that are smaller than a chunk leave small chunks at the end of a partition, which are
//! called its *run*. If the run and the new events together fill a chunk, both are merged: the
//! transaction that appends the new events replaces the run by full chunks, with the same events at
//! the same offsets.
//!
//! So each event is written about twice at most, even if appends are small, and nothing is merged
//! in the background.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    AHEAD_MAX_US, Attributes, Chunk, Events, Offset, Offsets, PartitionId, Timestamp,
};

use super::LogConfig;
use super::chunk_meta::{ChunkMeta, PartitionRow};
use super::codec::{Encoded, Encoder, ToEncode};

/// The maximum number of small chunks at the end of a partition. At this number, the next append
/// merges them even if they do not fill a chunk, because readers should not have to read many small
/// chunks.
pub(crate) const RUN_CHUNKS_MAX: usize = 256;
/// The maximum number of distinct types in one [`Events`].
pub(crate) const TYPES_MAX: usize = u16::MAX as usize;
/// The maximum number of event types of a partition that are counted by name. Events of further
/// types are counted together under the empty name.
const TYPES_COUNTED_MAX: usize = 1_000;
/// The maximum number of uncompressed bytes in a chunk, as a multiple of the target size of a
/// chunk. It limits chunks of events that compress very well.
const RATIO_MAX: f64 = 8.0;

/// The limit for corrections of the clock, in microseconds. If the clock is set back further,
/// append times are set back too.
pub(crate) const CLOCK_BACK_MAX_US: i64 = AHEAD_MAX_US;

/// What the writer knows about a partition in memory.
pub(crate) struct PartitionState {
    pub(crate) partition: PartitionId,
    pub(crate) row: PartitionRow,
    pub(crate) types: BTreeMap<String, u64>,
    pub(crate) run: Vec<MergeChunk>,
    ratio: CompressionRatio,
}

/// A small chunk at the end of a partition, which will be merged with others.
pub(crate) struct MergeChunk {
    pub(crate) first: Offset,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) meta: ChunkMeta,
}

/// The changes that a transaction will make to a partition.
pub(crate) struct AppendPlan {
    pub(crate) partition_index: usize,
    /// Whether the chunks of the run (the small chunks at the end of the partition) are removed,
    /// because `written` contains their events.
    pub(crate) absorbs: bool,
    pub(crate) written: Vec<PlannedChunk>,
    pub(crate) row: PartitionRow,
    /// The new counts by event type, for the types whose count changes.
    pub(crate) types: BTreeMap<String, u64>,
    /// The number of small chunks at the end of `written`. They become part of the run, which is
    /// the small chunks at the end of the partition.
    open: usize,
    /// Whether the run (the small chunks at the end of the partition) ends here. If so, its chunks
    /// are never merged.
    ends_run: bool,
}

/// A chunk that will be written.
pub(crate) struct PlannedChunk {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) encoded: Encoded,
    pub(crate) meta: ChunkMeta,
}

impl PartitionState {
    pub(crate) fn new(
        partition: PartitionId,
        row: PartitionRow,
        types: BTreeMap<String, u64>,
        run: Vec<MergeChunk>,
    ) -> Self {
        Self { partition, row, types, run, ratio: CompressionRatio::default() }
    }

    /// Plans how the events `fresh` are appended. The list is not empty. It has several elements
    /// only if one [`Events`] cannot hold all event types.
    pub(crate) fn plan(
        &mut self,
        partition_index: usize,
        fresh: Vec<Events>,
        times: AppendTimes,
        config: &LogConfig,
        encoder: &mut Encoder,
    ) -> AppendPlan {
        let (row, mut kept) = match times {
            AppendTimes::Now(now) => (appended_at(&self.row, append_time(now, &self.row)), None),
            AppendTimes::Kept(times) => {
                let row = times.iter().fold(self.row, |row, time| appended_at(&row, *time));
                (row, Some(times.into_iter()))
            }
        };
        let now = row.appended_last;
        let mut plan = AppendPlan {
            partition_index,
            absorbs: false,
            written: Vec::new(),
            row,
            types: BTreeMap::new(),
            open: 0,
            ends_run: false,
        };
        for (turn, events) in fresh.into_iter().enumerate() {
            let appended: Vec<_> = match &mut kept {
                Some(times) => times.by_ref().take(events.len()).collect(),
                None => vec![now; events.len()],
            };
            let counts = |(time, appended): &(&Timestamp, &Timestamp)| {
                time.0 <= appended.0.saturating_add(AHEAD_MAX_US)
            };
            let newest = events.times().iter().zip(&appended).filter(counts);
            let newest = newest.map(|(time, _)| *time).max();
            plan.row.time_max = newest.map_or(plan.row.time_max, |t| t.max(plan.row.time_max));
            let target = self.ratio.target(config);
            if turn == 0 && self.run_is_due(&events, target, config) {
                plan.absorbs = true;
                let (events, appended) = self.with_run(&events, &appended);
                let first = self.run[0].first;
                self.cut(&mut plan, StampedEvents { events, appended }, first, config, encoder);
            } else {
                let first = plan.row.end;
                plan.ends_run |= turn > 0;
                self.cut(&mut plan, StampedEvents { events, appended }, first, config, encoder);
            }
        }
        self.count(&mut plan);
        plan
    }

    /// Applies a committed plan to the state in memory. If the plan has replaced chunks, it returns
    /// the offset of the first one.
    pub(crate) fn committed(&mut self, plan: AppendPlan) -> Option<Offset> {
        let replaced_from = plan.absorbs.then(|| self.run[0].first);
        if plan.absorbs || plan.ends_run || plan.open == 0 {
            self.run.clear();
        }
        self.row = plan.row;
        for (name, count) in plan.types {
            if count == 0 {
                self.types.remove(&name);
            } else {
                self.types.insert(name, count);
            }
        }
        let closed = plan.written.len() - plan.open;
        self.run.extend(plan.written.into_iter().skip(closed).map(|written| MergeChunk {
            first: written.chunk.offset(0),
            chunk: written.chunk,
            meta: written.meta,
        }));
        replaced_from
    }

    fn run_is_due(&self, fresh: &Events, target: usize, config: &LogConfig) -> bool {
        let run = || self.run.iter().map(|small| &small.chunk.events);
        let bytes = run().map(Events::bytes).sum::<usize>() + fresh.bytes();
        let events = run().map(Events::len).sum::<usize>() + fresh.len();
        let types = run().map(|e| e.type_names().len()).sum::<usize>() + fresh.type_names().len();
        let due = bytes >= target
            || events >= config.chunk_events_max as usize
            || self.run.len() >= RUN_CHUNKS_MAX;
        due && !self.run.is_empty() && types <= TYPES_MAX
    }

    fn with_run(&self, fresh: &Events, times: &[Timestamp]) -> (Events, Vec<Timestamp>) {
        let mut events = Events::new();
        let mut appended = Vec::new();
        let mut add = |from: &Events| {
            assert!(
                events.extend_from(from, 0..from.len(), Attributes::all()),
                "the number of types was checked"
            );
        };
        for small in &self.run {
            add(&small.chunk.events);
            appended.extend_from_slice(&small.chunk.appended);
        }
        add(fresh);
        appended.extend_from_slice(times);
        (events, appended)
    }

    /// Divides `events` into chunks, encodes the chunks and adds them to the plan.
    fn cut(
        &mut self,
        plan: &mut AppendPlan,
        stamped: StampedEvents,
        first: Offset,
        config: &LogConfig,
        encoder: &mut Encoder,
    ) {
        if plan.absorbs && plan.written.is_empty() {
            plan.row.chunks -= self.run.len() as u64;
            plan.row.disk_bytes -= self.run.iter().map(|s| s.meta.disk_bytes).sum::<u64>();
        }
        let StampedEvents { mut events, appended } = stamped;
        let total = events.len();
        let target = self.ratio.target(config);
        let pieces = pieces(&events, target, config.chunk_events_max as usize);
        plan.open = 0;
        let mut appended_so_far = self.appended_so_far(first, plan);
        for range in pieces {
            let (raw, len) = (size(&events, &range), range.len());
            let first = Offset(first.0 + range.start as u64);
            let encoded = encoder.encode(&ToEncode {
                events: &events,
                range: range.clone(),
                partition: self.partition,
                first,
                appended: &appended[range.clone()],
            });
            let full = raw >= target / 2;
            if full {
                self.ratio.observe(raw, encoded.bytes.len());
            }
            let end = Offset(first.0 + len as u64);
            let meta = ChunkMeta::of(&encoded, end, appended_so_far);
            appended_so_far = meta.appended_max_so_far;
            plan.row.end = end;
            plan.row.chunks += 1;
            plan.row.disk_bytes += meta.disk_bytes;
            let is_last = range.end == total;
            let closed = raw >= target || len >= config.chunk_events_max as usize || !is_last;
            plan.open = usize::from(!closed);
            let appended = appended[range.clone()].to_vec();
            let events =
                if len == total { std::mem::take(&mut events) } else { copy_of(&events, range) };
            let offsets = Offsets::Dense { first };
            let chunk = Arc::new(Chunk { partition: self.partition, offsets, events, appended });
            plan.written.push(PlannedChunk { chunk, encoded, meta });
        }
    }

    /// Returns the latest append time before the chunk that begins at `first`. If that chunk
    /// replaces the run (the small chunks at the end of the partition), the first chunk of the run
    /// contains this time.
    fn appended_so_far(&self, first: Offset, plan: &AppendPlan) -> Timestamp {
        match (plan.written.last(), self.run.first()) {
            (Some(written), _) => written.meta.appended_max_so_far,
            (None, Some(small)) if small.first == first => small.meta.appended_max_so_far,
            _ => self.row.appended_max,
        }
    }

    /// Calculates the counts of event types after the plan.
    fn count(&self, plan: &mut AppendPlan) {
        let trimmed =
            self.run.iter().filter(|_| plan.absorbs).map(|small| (&small.meta, small.first));
        let mut deltas = BTreeMap::new();
        for (meta, first) in trimmed {
            add_types(&mut deltas, meta, first, -1);
        }
        for written in &plan.written {
            add_types(&mut deltas, &written.meta, written.chunk.offset(0), 1);
        }
        plan.types = new_counts(&self.types, deltas);
    }
}

/// Adds the events of a chunk to the counts by type, or subtracts them if `sign` is -1.
pub(crate) fn add_types(
    deltas: &mut BTreeMap<String, i64>,
    meta: &ChunkMeta,
    first: Offset,
    sign: i64,
) {
    match &meta.types {
        Some(types) => {
            for (name, count) in types {
                *deltas.entry(name.clone()).or_default() += sign * i64::from(*count);
            }
        }
        None => {
            let count = i64::try_from(meta.end.0 - first.0).unwrap_or(i64::MAX);
            *deltas.entry(String::new()).or_default() += sign * count;
        }
    }
}

/// Returns the counts that change, with their new values. A count of 0 is removed from the file.
pub(crate) fn new_counts(
    counts: &BTreeMap<String, u64>,
    deltas: BTreeMap<String, i64>,
) -> BTreeMap<String, u64> {
    let mut changed: BTreeMap<String, u64> = BTreeMap::new();
    let mut named = counts.len();
    for (name, delta) in deltas.into_iter().filter(|(_, delta)| *delta != 0) {
        let known = counts.contains_key(&name);
        let name = if known || named < TYPES_COUNTED_MAX { name } else { String::new() };
        named += usize::from(!known);
        let before = changed.get(&name).or_else(|| counts.get(&name)).copied().unwrap_or_default();
        changed.insert(name, before.saturating_add_signed(delta));
    }
    changed
}

/// The append times that events get.
pub(crate) enum AppendTimes {
    /// All events get this time.
    Now(Timestamp),
    /// The events are imported. Each keeps the append time of the log that it comes from.
    Kept(Vec<Timestamp>),
}

/// Events, each with its append time.
struct StampedEvents {
    events: Events,
    appended: Vec<Timestamp>,
}

/// Returns the append time for events that arrive at `now`. Append times do not go back if the
/// clock was set back a little, which is a correction. If it was set back further, it was wrong
/// before, and append times go back with it.
fn append_time(now: Timestamp, row: &PartitionRow) -> Timestamp {
    let back_us = row.appended_last.0.saturating_sub(now.0);
    if (1..=CLOCK_BACK_MAX_US).contains(&back_us) { row.appended_last } else { now }
}

/// Returns the record of the partition after events were appended at `now`.
fn appended_at(row: &PartitionRow, now: Timestamp) -> PartitionRow {
    let mut row = PartitionRow { appended_max: row.appended_max.max(now), ..*row };
    if now < row.appended_last {
        // While the clock was ahead, event times in the future were accepted. They are no longer
        // used.
        row.time_max = row.time_max.min(now);
    }
    row.appended_last = now;
    row
}

/// Divides events into ranges. Each range except the last has about `target` bytes or `events_max`
/// events.
fn pieces(events: &Events, target: usize, events_max: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < events.len() {
        let (mut low, mut high) = (start + 1, (start + events_max).min(events.len()));
        while low < high {
            let middle = usize::midpoint(low, high + 1);
            if size(events, &(start..middle)) <= target {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        pieces.push(start..low);
        start = low;
    }
    pieces
}

/// Returns the size of the events `range`, as [`Events::bytes`] would return it.
fn size(events: &Events, range: &Range<usize>) -> usize {
    let columns = events.columns().all().into_iter().map(|column| {
        let end = |count: usize| match count {
            0 => 0,
            count => column.ends().get(count - 1).copied().unwrap_or_default() as usize,
        };
        end(range.end) - end(range.start)
    });
    columns.sum::<usize>() + range.len() * 12
}

fn copy_of(events: &Events, range: Range<usize>) -> Events {
    let mut copy = Events::new();
    assert!(
        copy.extend_from(events, range, Attributes::all()),
        "a part has no more types than the whole"
    );
    copy
}

/// How well the newest events of a partition compress. Contains moving averages of the ratio of
/// encoded to plain bytes, and of the deviation of this ratio.
#[derive(Clone, Copy, Default)]
struct CompressionRatio {
    mean: f64,
    deviation: f64,
}

impl CompressionRatio {
    /// Returns the number of uncompressed bytes for a chunk whose encoded size should be just below
    /// the target size. A chunk above the target size could take twice the space, because the file
    /// rounds the size of large values up to powers of two.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few megabytes")]
    fn target(&self, config: &LogConfig) -> usize {
        let aim = f64::from(config.chunk_bytes);
        if self.mean == 0.0 {
            return aim as usize;
        }
        let cautious = (self.mean + 2.0 * self.deviation) * 1.01;
        (aim / cautious.max(1.0 / RATIO_MAX)) as usize
    }

    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    fn observe(&mut self, plain: usize, encoded: usize) {
        const WEIGHT: f64 = 0.125;
        let seen = encoded as f64 / plain.max(1) as f64;
        if self.mean == 0.0 {
            self.mean = seen;
            self.deviation = seen / 16.0;
            return;
        }
        self.deviation += WEIGHT * ((seen - self.mean).abs() - self.deviation);
        self.mean += WEIGHT * (seen - self.mean);
    }
}
