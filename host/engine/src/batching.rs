//! Gathers the next batch of events from the log. The batch depends only on the log and the limits,
//! and not on where chunks begin and end.

use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Attributes, Batch, Chunk, Event, EventRef, HEARTBEAT_TYPE, Log, LogError, LogRead,
    Manifest, Offset, OnFailure, PartitionId, ShardMeta, Timestamp, TypeFilter, UNREADABLE_KIND,
    UNREADABLE_TYPE,
};

use crate::EngineConfig;
use crate::blocked_subjects::BlockedSubjects;
use crate::log_time::{self, LogTime, TimedEvent};

/// The minimum size of the part that is tried first after an error that names an event. The events
/// after the named event are split into two parts. The first part has this many events, or twice
/// the number of events before the named event, whichever is more.
const PIECE_MIN: usize = 16;

/// Gathers the batches of a shard from the log: it selects events by type, and limits the size of a
/// batch.
pub(crate) struct Gatherer {
    pub(crate) partition: PartitionId,
    pub(crate) manifest: Arc<Manifest>,
    /// The attributes of events that are copied from the log.
    attributes: Attributes,
    /// The types of the events that the plugin receives.
    filter: TypeFilter,
    /// The types that are read from the log; see [`type_filter_of`].
    types: TypeFilter,
    /// The value of [`crate::EngineConfig::ahead_max_s`] in microseconds.
    ahead_max_us: i64,
    /// The memory of an applied batch, for the next batch. Filling memory that is new to the
    /// process takes longer than copying the events.
    spare: Batch,
    /// How many ticks a batch may span. The number is lowered after a call that had to be repeated.
    ticks: usize,
}

/// Returns the event types that a shard reads: the plugin's subscriptions, unreadable records and,
/// if the projection uses event time, heartbeats.
pub(crate) fn type_filter_of(manifest: &Manifest) -> TypeFilter {
    let filter = manifest.filter().and(UNREADABLE_TYPE);
    match manifest.event_time {
        Some(_) => filter.and(HEARTBEAT_TYPE),
        None => filter,
    }
}

/// The next events of a shard, with what is known about them.
#[derive(Default)]
pub(crate) struct GatheredBatch {
    pub(crate) batch: Batch,
    /// The chunks that contain the events of the batch.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    /// The unreadable records, and the events that wait behind a parked event of their subject, in
    /// order.
    pub(crate) waiting: Vec<WaitingEvent>,
    /// The ticks: for each move of the watermark, the offset after the event that moves it, and the
    /// new watermark. The last offset may equal `next`.
    pub(crate) ticks: Vec<(Offset, Timestamp)>,
    /// The offset at which reading continues after this batch.
    pub(crate) next: Offset,
    /// The watermark at `next`.
    watermark: Timestamp,
    /// The log time at `next`: the highest event time before it, with what later events need to
    /// update it.
    pub(crate) time: LogTime,
    /// Whether a call with this batch was repeated because a timer was due within the batch.
    pub(crate) is_repeated: bool,
    /// Whether events at the end were removed from the batch after it was gathered. If so, `time`
    /// also counts the removed events.
    pub(crate) is_cut: bool,
    /// Whether there are no more events to gather: the end of the log or the limit `before` was
    /// reached.
    pub(crate) end: bool,
    /// Whether reading stopped because a read of the log is pending.
    pub(crate) pending: bool,
}

/// An event that is parked without a call: it waits behind a parked event of its subject,
/// or it is an unreadable record.
pub(crate) struct WaitingEvent {
    pub(crate) offset: Offset,
    /// The watermark before the event.
    pub(crate) watermark: Timestamp,
    pub(crate) event: Event,
}

/// Limits for the number of events that a batch gathers.
pub(crate) struct GatherLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// Do not gather the event at this offset, or later events.
    pub(crate) before: Option<Offset>,
    /// Stop after the watermark has moved this many times.
    pub(crate) ticks: usize,
    /// Stop when the watermark reaches this time, because a timer or the expiry of a row is due
    /// then.
    pub(crate) due: Timestamp,
}

impl Gatherer {
    pub(crate) fn new(
        partition: PartitionId,
        manifest: Arc<Manifest>,
        config: &EngineConfig,
    ) -> Self {
        let (filter, types) = (manifest.filter(), type_filter_of(&manifest));
        let attributes = manifest.attributes_read();
        let ahead_max_us = config.ahead_max_us();
        let spare = Batch::default();
        let ticks = config.batch_ticks_max;
        Self { partition, manifest, attributes, filter, types, ahead_max_us, spare, ticks }
    }

    /// Gathers events from `meta.next` on. It stops after an event that moves the watermark to
    /// `limits.due` or later, and after `limits.ticks` moves of the watermark.
    pub(crate) fn gather(
        &mut self,
        log: &dyn Log,
        meta: &ShardMeta,
        blocked: &BlockedSubjects,
        limits: &GatherLimits,
    ) -> Result<GatheredBatch, LogError> {
        let mut gathered = GatheredBatch {
            batch: Batch {
                partition: self.partition,
                watermark: meta.watermark,
                ..std::mem::take(&mut self.spare)
            },
            next: meta.next,
            watermark: meta.watermark,
            time: LogTime::of(meta),
            ..GatheredBatch::default()
        };
        loop {
            if limits.before.is_some_and(|before| gathered.next >= before) {
                gathered.end = true;
                return Ok(gathered);
            }
            match log.read(self.partition, gathered.next, &self.types)? {
                LogRead::End => {
                    gathered.end = true;
                    return Ok(gathered);
                }
                LogRead::Pending => {
                    gathered.pending = true;
                    return Ok(gathered);
                }
                LogRead::Skipped { next } => {
                    gathered.next = limits.before.map_or(next, |before| next.min(before));
                }
                LogRead::Chunk(chunk) => {
                    if self.take(&mut gathered, chunk, blocked, limits) {
                        return Ok(gathered);
                    }
                }
            }
        }
    }

    /// Returns the number of ticks that the next batch may span.
    pub(crate) fn ticks(&self, config: &EngineConfig) -> usize {
        self.ticks.clamp(1, config.batch_ticks_max.max(1))
    }

    /// Lowers the number of ticks that the next batches span. The caller has shortened a batch to
    /// `ticks` ticks, because a timer or the expiry of a row was due within it.
    pub(crate) fn span_fewer_ticks(&mut self, ticks: usize) {
        self.ticks = ticks.min(self.ticks / 2).max(1);
    }

    /// Keeps the memory of `batch`, which was applied, for the next batch.
    pub(crate) fn recycle(&mut self, batch: Arc<Batch>) {
        self.ticks = self.ticks.saturating_mul(2);
        if let Ok(mut batch) = Arc::try_unwrap(batch) {
            batch.events.clear();
            batch.offsets.clear();
            batch.watermarks.clear();
            batch.times_before_watermark.clear();
            batch.depths.clear();
            batch.timers.clear();
            self.spare = batch;
        }
    }

    /// Frees the memory that is kept for the next batch.
    pub(crate) fn release_buffers(&mut self) {
        self.spare = Batch::default();
    }

    /// Adds events of `chunk` to the batch until the batch is full. Returns `true` if the batch is
    /// complete.
    fn take(
        &self,
        gathered: &mut GatheredBatch,
        chunk: Arc<Chunk>,
        blocked: &BlockedSubjects,
        limits: &GatherLimits,
    ) -> bool {
        let events = &chunk.events;
        // The type of a record alone decides whether it is unreadable, even if the manifest
        // subscribes to that type.
        let unreadable: Vec<bool> =
            events.type_names().iter().map(|kind| kind == UNREADABLE_TYPE).collect();
        let handed: Vec<bool> = events
            .type_names()
            .iter()
            .map(|kind| kind != UNREADABLE_TYPE && self.filter.matches(kind))
            .collect();
        let heartbeat: Vec<bool> = events
            .type_names()
            .iter()
            .map(|kind| self.manifest.event_time.is_some() && kind == HEARTBEAT_TYPE)
            .collect();
        let timed = self.manifest.event_time.is_some();
        let blocking = self.manifest.on_failure == OnFailure::ParkSubject && !blocked.is_empty();
        let mut index = chunk.index_of(gathered.next);
        // The index of the first event that is not copied yet, and the approximate size in bytes of
        // the events from there up to the current one.
        let (mut run, mut run_bytes) = (index, 0);
        let data = &events.columns().data;
        let mut full = false;
        while index < events.len() && !full {
            let offset = chunk.offset(index);
            if let Some(before) = limits.before.filter(|before| offset >= *before) {
                // `next` moves to `before` even if the whole chunk is after `before`. All events
                // before `before` have been read, so another read from the old `next` would only
                // return this chunk again.
                gathered.next = gathered.next.max(before);
                break;
            }
            let kind = usize::from(events.types()[index]);
            let waits = (unreadable[kind] && self.may_want(&events.get(index)))
                || (blocking
                    && handed[kind]
                    && blocked.contains(events.tenant(index), events.subject(index)));
            if waits {
                let (watermark, event) = (gathered.watermark, events.get(index).to_owned());
                gathered.waiting.push(WaitingEvent { offset, watermark, event });
            }
            let goes = handed[kind] && !waits;
            if goes && timed {
                gathered.batch.watermarks.push(gathered.watermark);
            }
            if !goes {
                self.copy(gathered, &chunk, run..index);
                (run, run_bytes) = (index + 1, 0);
            }
            index += 1;
            gathered.next = offset.next();
            if handed[kind] || heartbeat[kind] {
                let (index, heartbeat) = (index - 1, heartbeat[kind]);
                let event = TimedEvent { chunk: &chunk, index, heartbeat };
                gathered.time.take(event, self.ahead_max_us);
                full = timed && self.take_tick(gathered, limits);
            }
            let held = gathered.batch.offsets.len() + index.saturating_sub(run);
            run_bytes += data.get(index - 1).len();
            full |= held + gathered.waiting.len() >= limits.events
                || gathered.batch.events.bytes() + run_bytes >= limits.bytes;
        }
        self.copy(gathered, &chunk, run..index);
        if index >= events.len() {
            gathered.next = gathered.next.max(chunk.end());
        }
        gathered.chunks.push(chunk);
        full
    }

    /// Returns whether the projection may subscribe to the type that an unreadable record claims.
    /// This is so if the type matches a subscription, and also if the type is unknown.
    fn may_want(&self, record: &EventRef<'_>) -> bool {
        claimed_type(record.extensions).is_none_or(|kind| self.filter.matches(&kind))
    }

    /// Notes that the watermark moves. Returns `true` if the batch ends at this tick.
    fn take_tick(&self, gathered: &mut GatheredBatch, limits: &GatherLimits) -> bool {
        let Some(rules) = self.manifest.event_time else { return false };
        let time = gathered.time.max_time;
        let mark = time.watermark(rules.allowed_lateness_us, rules.tick_us);
        if mark == gathered.watermark {
            return false;
        }
        let before = std::mem::replace(&mut gathered.watermark, mark);
        gathered.ticks.push((gathered.next, mark));
        // The batch always ends at two kinds of ticks: the first one of the shard, and one that
        // lowers the watermark. At these two kinds, `limits.due` is not valid; what is due is found
        // after the batch has ended.
        before == Timestamp::MIN
            || mark < before
            || mark >= limits.due
            || gathered.ticks.len() >= limits.ticks
    }

    /// Returns the log time (highest event time) at the offset `to`. The result is calculated from
    /// `time`, the log time at the offset `from`. The result is needed if only a part of a batch
    /// was applied.
    pub(crate) fn time_until(
        &self,
        gathered: &GatheredBatch,
        mut time: LogTime,
        from: Offset,
        to: Offset,
    ) -> LogTime {
        for chunk in &gathered.chunks {
            for index in chunk.index_of(from)..chunk.index_of(to) {
                let kind = chunk.events.kind(index);
                let heartbeat = self.manifest.event_time.is_some() && kind == HEARTBEAT_TYPE;
                let handed = kind != UNREADABLE_TYPE && self.filter.matches(kind);
                if handed || heartbeat {
                    time.take(TimedEvent { chunk, index, heartbeat }, self.ahead_max_us);
                }
            }
        }
        time
    }

    fn copy(&self, gathered: &mut GatheredBatch, chunk: &Chunk, run: std::ops::Range<usize>) {
        if run.is_empty() {
            return;
        }
        gathered.batch.offsets.extend(run.clone().map(|index| chunk.offset(index).0));
        if self.manifest.event_time.is_none() {
            gathered
                .batch
                .watermarks
                .resize(gathered.batch.offsets.len(), gathered.batch.watermark);
        }
        if gathered.batch.watermark == Timestamp::MIN && self.manifest.event_time.is_some() {
            let times = run.clone().map(|i| log_time::bounded(chunk, i, self.ahead_max_us));
            gathered.batch.times_before_watermark.extend(times);
        }
        if !self.manifest.emits.is_empty() {
            let depths = run.clone().map(|index| chunk.events.get(index).depth());
            gathered.batch.depths.extend(depths);
        }
        // This always fits, because a batch has at most as many events as [`Events`] can have
        // distinct types.
        let fits = gathered.batch.events.extend_from(&chunk.events, run, self.attributes);
        assert!(fits, "a batch has fewer events than there can be types");
    }
}

impl GatheredBatch {
    /// Returns the watermark of the last tick before `next`. A tick at `next` is ignored, because
    /// no gathered event follows it.
    pub(crate) fn last_tick_before_end(&self) -> Option<Timestamp> {
        let before_end = self.ticks.iter().rev().find(|(offset, _)| *offset < self.next);
        before_end.map(|(_, mark)| *mark)
    }

    /// Removes the second half of the ticks after the event at `start` from the batch, with their
    /// events. Without this reduction, a call would be repeated too often if the plugin sets timers
    /// that are due within the batch.
    pub(crate) fn halve_ticks(&mut self, start: Offset) {
        let first = self.ticks.partition_point(|(offset, _)| *offset <= start);
        let remaining = first + (self.ticks.len().saturating_sub(first) / 2).max(1);
        if let Some((next, _)) = self.ticks.get(remaining - 1) {
            self.next = self.next.min(*next);
            self.ticks.truncate(remaining);
            (self.end, self.is_cut) = (false, true);
        }
    }

    /// Removes the events after the first tick whose watermark is `due` or later.
    pub(crate) fn end_at_tick(&mut self, due: Timestamp) {
        if let Some(index) = self.ticks.iter().position(|(_, mark)| *mark >= due) {
            self.next = self.next.min(self.ticks[index].0);
            self.ticks.truncate(index + 1);
            (self.end, self.is_cut) = (false, true);
        }
    }

    /// Returns the event at `offset` with all its attributes, from the chunks that were read.
    pub(crate) fn event(&self, offset: Offset) -> Option<EventRef<'_>> {
        self.place(offset).map(|(chunk, index)| chunk.events.get(index))
    }

    /// Returns the time at which the event at `offset` was appended; `None` if it is not known.
    pub(crate) fn appended(&self, offset: Offset) -> Option<Timestamp> {
        self.place(offset).and_then(|(chunk, index)| chunk.appended(index))
    }

    /// Returns the chunk with the event at `offset`, and the event's index in the chunk.
    fn place(&self, offset: Offset) -> Option<(&Chunk, usize)> {
        self.chunks.iter().find_map(|chunk| {
            let index = chunk.index_of(offset);
            (index < chunk.events.len() && chunk.offset(index) == offset)
                .then_some((&**chunk, index))
        })
    }
}

/// Returns a new batch with the timers and events `range` of `batch`.
pub(crate) fn slice(batch: &Batch, range: std::ops::Range<usize>) -> Batch {
    let mut part =
        Batch { partition: batch.partition, watermark: batch.watermark, ..Batch::default() };
    if batch.timers.is_empty() {
        part.offsets = batch.offsets[range.clone()].to_vec();
        part.watermarks = batch.watermarks[range.clone()].to_vec();
        let times = batch.times_before_watermark.get(range.clone());
        part.times_before_watermark = times.map(<[Timestamp]>::to_vec).unwrap_or_default();
        part.depths = batch.depths.get(range.clone()).map(<[u32]>::to_vec).unwrap_or_default();
        let all = lantern_core::Attributes::all();
        let fits = part.events.extend_from(&batch.events, range, all);
        assert!(fits, "a part has no more types than the whole");
    } else {
        part.timers = batch.timers[range].to_vec();
    }
    part
}

/// Returns the event type that an unreadable record claims to have, from its extension attributes;
/// `None` if it is unknown.
pub(crate) fn claimed_type(extensions: &str) -> Option<String> {
    if !extensions.contains(UNREADABLE_KIND) {
        return None;
    }
    let members: serde_json::Value = serde_json::from_str(extensions).ok()?;
    members.get(UNREADABLE_KIND)?.as_str().map(str::to_owned)
}

/// Divides `range`, whose call failed with `error`, and adds the parts to `work`. If the error
/// names the event that caused it, there are four parts: the events before that event, the event
/// alone, and two parts of the events after it. If the error names no event, the parts are the two
/// halves of `range`.
pub(crate) fn split(range: Range<usize>, error: &ApplyError, work: &mut Vec<Range<usize>>) {
    let blamed = match error {
        ApplyError::Failed { cause: Some(cause), .. } => Some(cause.0 as usize),
        _ => None,
    };
    match blamed.filter(|index| *index < range.len()) {
        Some(index) => {
            let at = range.start + index;
            let piece = (at + 1 + PIECE_MIN.max(2 * index)).min(range.end);
            work.extend([piece..range.end, at + 1..piece, at..at + 1, range.start..at]);
        }
        None => {
            let middle = range.start + range.len() / 2;
            work.extend([middle..range.end, range.start..middle]);
        }
    }
    work.retain(|range| !range.is_empty());
}

/// Returns the part `range` of the timers and events of `batch`. It is `batch` itself if `range`
/// covers all of them.
pub(crate) fn part_of(batch: &Arc<Batch>, range: Range<usize>) -> Arc<Batch> {
    if range.len() == batch.len() { batch.clone() } else { Arc::new(slice(batch, range)) }
}

#[cfg(test)]
mod tests {
    use lantern_core::Event;
    use lantern_core::fake::MemoryLog;

    use super::*;

    #[test]
    fn a_follower_stops_in_front_of_its_leader_also_within_events_that_it_does_not_want() {
        let partition = PartitionId(0);
        let log = MemoryLog::new(1, 4);
        let event = |kind: &str| Event { kind: kind.into(), ..Event::default() };
        log.append_to(partition, ["other"; 4].into_iter().chain(["wanted"; 4]).map(event));
        let manifest = Manifest { subscribes: vec!["wanted".into()], ..Manifest::default() };
        let mut gatherer = Gatherer::new(partition, Arc::new(manifest), &EngineConfig::default());
        for before in 0..8 {
            let before = Offset(before);
            let limits = GatherLimits {
                events: 100,
                bytes: 1 << 20,
                before: Some(before),
                ticks: 1,
                due: Timestamp::MAX,
            };
            let gathered = gatherer
                .gather(&log, &ShardMeta::default(), &BlockedSubjects::default(), &limits)
                .unwrap();
            assert!(gathered.end, "{before:?}");
            assert_eq!(gathered.next, before);
            let accepted = before.0.saturating_sub(4);
            assert_eq!(gathered.batch.offsets, (4..4 + accepted).collect::<Vec<_>>());
        }
    }
}
