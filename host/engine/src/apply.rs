//! Applies batches. If a call fails, finds the event that is to blame and parks
//! it.
//!
//! The verdict on an event is always that of the event alone, on a fresh instance,
//! with the fuel of one event: it does not depend on the batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, Offset, OnFailure, ParkedKind, ParkedRecord, StoreError, Timestamp,
    UNREADABLE_REASON, UNREADABLE_TYPE,
};

use crate::batching::{GatheredBatch, Gatherer, WaitingEvent, part_of, split};
use crate::log_time::LogTime;
use crate::outbox_writer::{post, sent_by_events, traceparent};
use crate::parked_events::{self, UNREADABLE_KEPT_MAX, explain, is_of_unknown_type};
use crate::runner::Runner;
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};

/// Applies batches to a shard's state.
pub(crate) struct Applier<'a> {
    pub(crate) state: &'a mut ShardState,
    pub(crate) runner: &'a mut Runner,
    pub(crate) gatherer: &'a mut Gatherer,
}

impl Applier<'_> {
    /// Applies what was gathered, and parks what cannot be applied. On an error, what
    /// was applied before it stays, up to the next offset of the state.
    pub(crate) fn apply_gathered(
        &mut self,
        gathered: &mut GatheredBatch,
    ) -> Result<(), StopReason> {
        let from = self.state.meta.next;
        let outcome = self.apply_all(gathered);
        let time = match outcome {
            Ok(()) if !gathered.is_cut => std::mem::take(&mut gathered.time),
            // Only events that were applied count.
            _ => {
                let before = LogTime::of(&self.state.meta);
                self.gatherer.time_until(gathered, before, from, self.state.meta.next)
            }
        };
        time.store(&mut self.state.meta);
        if outcome.is_err() {
            // As if each batch had ended at its tick. Nothing is due by then.
            let ShardState { meta, due_from, .. } = &mut *self.state;
            let passed =
                |(offset, mark): &&(Offset, Timestamp)| *offset <= meta.next && *mark < *due_from;
            if let Some((_, mark)) = gathered.ticks.iter().rev().find(passed) {
                meta.watermark = *mark;
            }
        }
        outcome
    }

    fn apply_all(&mut self, gathered: &mut GatheredBatch) -> Result<(), StopReason> {
        let batch = Arc::new(std::mem::take(&mut gathered.batch));
        let mut waiting: VecDeque<_> = std::mem::take(&mut gathered.waiting).into();
        let total = batch.len();
        // Ranges of the batch still to be applied, the first on top.
        let mut work: Vec<Range<usize>> =
            std::iter::once(0..total).filter(|r| !r.is_empty()).collect();
        let blocked_before = self.state.parking.blocked().len();
        while let Some(range) = work.pop() {
            let blocked = self.state.parking.blocked().len() != blocked_before;
            let ready = if blocked {
                self.up_to_blocked(gathered, &batch, range.clone(), &mut work, &mut waiting)
            } else {
                range
            };
            if ready.is_empty() {
                continue;
            }
            self.apply_range(gathered, &batch, ready, &mut work, &mut waiting)?;
            if let Some(due) = self.due_within(gathered)? {
                // What is due fires before the events after it are applied.
                gathered.end_at_tick(due);
                cut(&batch, &mut work, gathered.next);
                self.gatherer.span_fewer_ticks(gathered.ticks.len());
            }
        }
        self.gatherer.recycle(batch);
        self.skip_to(gathered.next, &mut waiting)
    }

    /// The earliest time at which something is due that the watermark reaches before
    /// the end of what was gathered.
    fn due_within(&mut self, gathered: &GatheredBatch) -> Result<Option<Timestamp>, StoreError> {
        match gathered.last_tick_before_end() {
            Some(mark) if self.state.due_from <= mark => {
                let due = self.state.earliest_due()?;
                self.state.due_from = due;
                Ok((due <= mark).then_some(due))
            }
            _ => Ok(None),
        }
    }

    /// Applies one range; splits it into `work` where it fails.
    fn apply_range(
        &mut self,
        gathered: &mut GatheredBatch,
        batch: &Arc<Batch>,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &mut VecDeque<WaitingEvent>,
    ) -> Result<(), StopReason> {
        // What is in front of the range is parked first, and the range is cut where
        // no more could be: else events would be applied that the position does not
        // cover yet.
        self.skip_to(Offset(batch.offsets[range.start]), waiting)?;
        let range = self.up_to_room(batch, range, work, waiting);
        let part = part_of(batch, range.clone());
        let fresh = self.runner.is_fresh();
        let times = &batch.events.times()[range.clone()];
        let end = Offset(batch.offsets[range.end - 1]).next();
        let at = Offset(batch.offsets[range.start]);
        match self.runner.call(self.state, &part, &[], at) {
            Ok(emitted) => {
                self.trace(gathered, &batch.offsets[range.clone()]);
                let sent = sent_by_events(self.state);
                post(self.state, emitted, sent, |cause| {
                    gathered.event(cause).and_then(|event| traceparent(event.extensions))
                });
                self.state.parking.end_row();
                self.state.meta.applied += range.len() as u64;
                let marks = batch.watermarks[range].iter();
                self.state.meta.late +=
                    times.iter().zip(marks).filter(|(time, mark)| time < mark).count() as u64;
                self.skip_to(end, waiting)
            }
            Err(CallError::Stop(stop)) => Err(stop),
            Err(CallError::Due(due)) => {
                // It set a timer that is due before the batch's end: again, up to there.
                gathered.end_at_tick(due);
                if std::mem::replace(&mut gathered.is_repeated, true) {
                    gathered.halve_ticks(at);
                }
                work.push(range);
                cut(batch, work, gathered.next);
                self.gatherer.span_fewer_ticks(gathered.ticks.len());
                Ok(())
            }
            Err(CallError::Event(_)) if range.len() == 1 && !fresh => {
                work.push(range);
                Ok(())
            }
            Err(CallError::Event(error)) if range.len() == 1 => {
                let offset = Offset(batch.offsets[range.start]);
                let event = gathered.event(offset).expect("gathered from these chunks");
                let event = WaitingEvent {
                    offset,
                    watermark: batch.watermarks[range.start],
                    event: event.to_owned(),
                };
                self.park(event, &error)?;
                self.skip_to(end, waiting)
            }
            Err(CallError::Event(error)) => {
                split(range, &error, work);
                Ok(())
            }
        }
    }

    /// The front of `range` that holds no event of a subject that was parked
    /// meanwhile; the first such event joins `waiting`, the rest `work`.
    fn up_to_blocked(
        &self,
        gathered: &GatheredBatch,
        batch: &Batch,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &mut VecDeque<WaitingEvent>,
    ) -> Range<usize> {
        for index in range.clone() {
            let offset = Offset(batch.offsets[index]);
            let event = gathered.event(offset).expect("gathered from these chunks");
            if !self.state.parking.blocked().contains(event.tenant, event.subject) {
                continue;
            }
            let at = waiting.partition_point(|other| other.offset < offset);
            let (watermark, event) = (batch.watermarks[index], event.to_owned());
            waiting.insert(at, WaitingEvent { offset, watermark, event });
            if index + 1 < range.end {
                work.push(index + 1..range.end);
            }
            return range.start..index;
        }
        range
    }

    /// The front of `range` within which all waiting events can be parked; the rest
    /// joins `work`.
    fn up_to_room(
        &self,
        batch: &Batch,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &VecDeque<WaitingEvent>,
    ) -> Range<usize> {
        let counted = parked_events::counted(&self.state.meta);
        let room = self.state.config.parked_max.saturating_sub(counted);
        let mut counting = waiting.iter().filter(|waiting| !is_of_unknown_type(&waiting.event));
        let first_without = usize::try_from(room).ok().and_then(|room| counting.nth(room));
        let Some(WaitingEvent { offset: without, .. }) = first_without else {
            return range;
        };
        let offsets = &batch.offsets[range.clone()];
        let cut = range.start + offsets.partition_point(|offset| *offset < without.0);
        if cut < range.end {
            work.push(cut..range.end);
        }
        range.start..cut
    }

    /// Moves the position on to `next`, parking the waiting events passed.
    fn skip_to(
        &mut self,
        next: Offset,
        waiting: &mut VecDeque<WaitingEvent>,
    ) -> Result<(), StopReason> {
        while let Some(first) = waiting.front().filter(|first| first.offset < next) {
            if !is_of_unknown_type(&first.event) {
                parked_events::check_room(&self.state.meta, &self.state.config)?;
            }
            let first = waiting.pop_front().expect("just seen");
            self.state.meta.next = first.offset.next();
            if first.event.kind == UNREADABLE_TYPE {
                self.park_unreadable(first);
            } else {
                self.state.park(&first.parked(ParkedKind::Waiting, String::new()));
            }
        }
        self.state.meta.next = self.state.meta.next.max(next);
        Ok(())
    }

    /// Tells, at level debug, which of the events applied belong to a trace.
    fn trace(&self, gathered: &GatheredBatch, offsets: &[u64]) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for offset in offsets {
            let event = gathered.event(Offset(*offset));
            if let Some(traceparent) = event.and_then(|event| traceparent(event.extensions)) {
                tracing::debug!(
                    traceparent, offset, projection = %self.state.id.projection,
                    version = %self.state.id.version, "applied"
                );
            }
        }
    }

    fn park(&mut self, failed: WaitingEvent, error: &ApplyError) -> Result<(), StopReason> {
        let (reason, backtrace) = explain(error);
        if self.state.manifest.on_failure == OnFailure::Halt {
            return Err(StopReason::Halt(format!(
                "event `{}` of `{}` at offset {} cannot be applied: {reason}",
                failed.event.id, failed.event.source, failed.offset
            )));
        }
        parked_events::check_room(&self.state.meta, &self.state.config)?;
        self.state.parking.count_failure(&reason, &self.state.config)?;
        let record = failed.parked(ParkedKind::Event, reason);
        self.state.park(&ParkedRecord { backtrace, attempts: 1, ..record });
        Ok(())
    }

    /// Parks an unreadable record. The manifest's `on-failure` does not apply, and it
    /// does not count as a failure in a row: the projection has not failed. A record of
    /// unknown type may concern any projection, and never halts this one.
    fn park_unreadable(&mut self, record: WaitingEvent) {
        let meta = &mut self.state.meta;
        if is_of_unknown_type(&record.event) && meta.unreadable_now >= UNREADABLE_KEPT_MAX {
            meta.unreadable_left_out += 1;
            if meta.unreadable_left_out == 1 {
                let id = &self.state.id;
                tracing::warn!(
                    projection = %id.projection, version = %id.version,
                    partition = %id.partition, offset = %record.offset,
                    "{UNREADABLE_KEPT_MAX} unreadable records are parked: later ones are counted and not kept"
                );
            }
            return;
        }
        let reason = unreadable_because(&record.event.extensions);
        self.state.park(&record.parked(ParkedKind::Event, reason));
    }
}

impl WaitingEvent {
    /// The record of the event, parked without a call.
    fn parked(self, kind: ParkedKind, reason: String) -> ParkedRecord {
        let Self { offset, watermark, event } = self;
        let (backtrace, attempts) = (String::new(), 0);
        ParkedRecord { kind, offset, watermark, event, reason, backtrace, attempts }
    }
}

/// Removes events at or after `next` from `work`.
fn cut(batch: &Batch, work: &mut Vec<Range<usize>>, next: Offset) {
    let end = batch.offsets.partition_point(|offset| *offset < next.0);
    work.iter_mut().for_each(|range| range.end = range.end.min(end));
    work.retain(|range| !range.is_empty());
}

/// Why a record is no event, of its extensions.
fn unreadable_because(extensions: &str) -> String {
    let members: Option<serde_json::Value> = serde_json::from_str(extensions).ok();
    let reason = members.as_ref().and_then(|m| m.get(UNREADABLE_REASON)?.as_str());
    reason.unwrap_or("the record is no event").to_owned()
}
