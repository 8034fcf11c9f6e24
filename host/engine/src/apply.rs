//! Applies batches. If a call fails, this module finds the event that caused the failure, and parks
//! it.
//!
//! Before an event is parked, the plugin is called with this event alone, on a fresh instance, with
//! the fuel of one event. So whether an event is parked does not depend on the other events of its
//! batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, FoldOutcome, Offset, OnFailure, ParkedKind, ParkedRecord, StoreError,
    Timestamp, UNREADABLE_REASON, UNREADABLE_TYPE,
};

use crate::batching::{GatheredBatch, Gatherer, WaitingEvent, part_of, split};
use crate::event_traces::ShardTraces;
use crate::log_time::LogTime;
use crate::outbox_writer::{post, sent_by_events, traceparent};
use crate::parked_events::{self, UNREADABLE_KEPT_MAX, explain, is_of_unknown_type};
use crate::rejections::{Rejected, RejectionRoom};
use crate::runner::{AppliedCall, Runner};
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};

/// Applies batches to a shard's state.
pub(crate) struct Applier<'a> {
    pub(crate) state: &'a mut ShardState,
    pub(crate) runner: &'a mut Runner,
    pub(crate) gatherer: &'a mut Gatherer,
    /// Reports the steps of traced events; `None` if no traces are recorded.
    pub(crate) traces: Option<&'a mut ShardTraces>,
}

impl Applier<'_> {
    /// Applies a gathered batch, and parks the events that cannot be applied. On an error, the
    /// state's next offset tells how far the batch was applied; the changes up to there are kept.
    pub(crate) fn apply_gathered(
        &mut self,
        gathered: &mut GatheredBatch,
    ) -> Result<(), StopReason> {
        let from = self.state.meta.next;
        let outcome = self.apply_all(gathered);
        let time = match outcome {
            Ok(()) if !gathered.is_cut => std::mem::take(&mut gathered.time),
            // Only a part of the batch was applied, so the highest event time must not include the
            // other events.
            _ => {
                let before = LogTime::of(&self.state.meta);
                self.gatherer.time_until(gathered, before, from, self.state.meta.next)
            }
        };
        time.store(&mut self.state.meta);
        if outcome.is_err() {
            // Sets the watermark to that of the last tick before the next offset at which nothing
            // is due (no timer, and no expiry of a row). A batch can span several ticks. With this
            // watermark the shard is in the same state as if a batch had ended at every tick.
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
        // The ranges of the batch that are not applied yet. The vector is a stack with the first
        // range on top.
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
                // What is due at a tick (timers and expiries of rows) comes before the events after
                // that tick.
                gathered.end_at_tick(due);
                cut(&batch, &mut work, gathered.next);
                self.gatherer.span_fewer_ticks(gathered.ticks.len());
            }
        }
        self.gatherer.recycle(batch);
        self.skip_to(gathered.next, &mut waiting)
    }

    /// Returns the time of the first timer or expiry of a row that becomes due before the last
    /// gathered event. `None` if there is none.
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

    /// Applies one range. If the call fails, pushes its parts onto `work`.
    fn apply_range(
        &mut self,
        gathered: &mut GatheredBatch,
        batch: &Arc<Batch>,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &mut VecDeque<WaitingEvent>,
    ) -> Result<(), StopReason> {
        // First, the waiting events before the range are parked. Then the range is cut before the
        // first waiting event that cannot be parked because too many are. The shard halts at that
        // event, so it must not apply events after it.
        self.skip_to(Offset(batch.offsets[range.start]), waiting)?;
        let range = self.up_to_room(batch, range, work, waiting);
        let part = part_of(batch, range.clone());
        let fresh = self.runner.is_fresh();
        let end = Offset(batch.offsets[range.end - 1]).next();
        let at = Offset(batch.offsets[range.start]);
        let room = self.rejection_room(end, waiting);
        if let Some(traces) = &mut self.traces {
            traces.begin_call(&batch.offsets[range.clone()], self.state.epoch.is_some());
        }
        match self.runner.call_with_room(self.state, (&part, &[]), at, room) {
            Ok(applied) => {
                let by_event = self.state.manifest.on_failure == OnFailure::ParkEvent;
                let range = match applied.rejected.first() {
                    // The call ended at the first event that the plugin rejected.
                    Some(first) if !by_event => {
                        let end = range.start + first.index + 1;
                        work.extend(Some(end..range.end).filter(|rest| !rest.is_empty()));
                        range.start..end
                    }
                    _ => range,
                };
                self.accept(gathered, batch, range, applied, waiting)
            }
            Err(CallError::Stop(stop)) => Err(stop),
            Err(CallError::Due(due)) => {
                // The call set a timer that is due before the end of the batch. The call is
                // repeated with the events up to the tick at which this timer is due.
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
                self.park(event_at(gathered, batch, range.start), &error)?;
                self.skip_to(end, waiting)
            }
            Err(CallError::Event(error)) => {
                split(range, &error, work);
                Ok(())
            }
        }
    }

    /// Returns how many events a call may reject. `end` is the offset after the last event of the
    /// call.
    fn rejection_room(&self, end: Offset, waiting: &VecDeque<WaitingEvent>) -> RejectionRoom {
        let ShardState { manifest, meta, config, parking, .. } = &*self.state;
        let before = waiting.iter().take_while(|event| event.offset < end);
        let waits = before.filter(|event| !is_of_unknown_type(&event.event)).count() as u64;
        let room = config.parked_max.saturating_sub(parked_events::counted(meta) + waits);
        let halts = manifest.on_failure == OnFailure::Halt;
        RejectionRoom {
            events: if halts { 0 } else { room },
            in_a_row: parking.in_a_row(),
            in_a_row_max: config.parked_in_a_row_max,
        }
    }

    /// Counts the events of a call that succeeded, and parks those that the plugin has
    /// rejected.
    fn accept(
        &mut self,
        gathered: &GatheredBatch,
        batch: &Batch,
        range: Range<usize>,
        applied: AppliedCall,
        waiting: &mut VecDeque<WaitingEvent>,
    ) -> Result<(), StopReason> {
        let AppliedCall { emitted, rejected } = applied;
        let sent = sent_by_events(self.state);
        post(self.state, emitted, sent, |cause| {
            gathered.event(cause).and_then(|event| traceparent(event.extensions))
        });
        let mut next = range.start;
        for Rejected { index, message } in rejected {
            let at = range.start + index;
            self.count_applied(gathered, batch, next..at);
            self.skip_to(Offset(batch.offsets[at]), waiting)?;
            let error = ApplyError::Failed { cause: None, message };
            self.park(event_at(gathered, batch, at), &error)?;
            next = at + 1;
        }
        self.count_applied(gathered, batch, next..range.end);
        self.skip_to(Offset(batch.offsets[range.end - 1]).next(), waiting)
    }

    fn count_applied(&mut self, gathered: &GatheredBatch, batch: &Batch, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.trace(gathered, &batch.offsets[range.clone()]);
        self.state.parking.end_row();
        self.state.meta.applied += range.len() as u64;
        let times = batch.events.times()[range.clone()].iter();
        let marks = batch.watermarks[range].iter();
        self.state.meta.late += times.zip(marks).filter(|(time, mark)| time < mark).count() as u64;
    }

    /// Cuts `range` before the first event that must now wait, because an event of its subject was
    /// parked after the batch was gathered, and returns the part before this event. The event is
    /// added to `waiting`, and the events after it are added to `work`.
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

    /// Cuts `range` before the first waiting event that can no longer be parked because too many
    /// events are parked. Returns the part before it, and adds the part after it to `work`.
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

    /// Advances the next offset to `next` and parks the waiting events before it.
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
                let record = first.parked(ParkedKind::Waiting, String::new());
                self.state.park(&record);
                self.trace_parked(&record, FoldOutcome::Waiting);
            }
        }
        self.state.meta.next = self.state.meta.next.max(next);
        Ok(())
    }

    /// Reports an event that was parked, if it belongs to a trace.
    fn trace_parked(&mut self, record: &ParkedRecord, outcome: FoldOutcome<'_>) {
        if let Some(traces) = &mut self.traces {
            traces.parked(&self.state.id, (record.offset, record.event.as_ref()), outcome);
        }
    }

    /// Reports the applied events that belong to a trace, and logs them at level debug.
    fn trace(&mut self, gathered: &GatheredBatch, offsets: &[u64]) {
        if let Some(traces) = &mut self.traces {
            traces.applied(&self.state.id, gathered, offsets);
        }
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for offset in offsets {
            let event = gathered.event(Offset(*offset));
            if let Some(traceparent) = event.and_then(|event| traceparent(event.extensions)) {
                tracing::debug!(
                    traceparent, offset, projection = %self.state.id.projection,
                    version = %self.state.id.version, "a batch was applied"
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
        let record = ParkedRecord { backtrace, attempts: 1, ..record };
        self.state.park(&record);
        self.trace_parked(&record, FoldOutcome::Parked(&record.reason));
        Ok(())
    }

    /// Parks an unreadable record. The plugin has not failed, so the manifest's `on-failure` does
    /// not apply, and the record does not count towards the number of consecutive failures that
    /// halts a projection. If the record's type is unknown it may belong to any projection, so it
    /// never halts this one.
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

/// Returns the event at `index` of `batch` as it is parked.
fn event_at(gathered: &GatheredBatch, batch: &Batch, index: usize) -> WaitingEvent {
    let offset = Offset(batch.offsets[index]);
    let event = gathered.event(offset).expect("gathered from these chunks");
    WaitingEvent { offset, watermark: batch.watermarks[index], event: event.to_owned() }
}

impl WaitingEvent {
    /// Returns the record of this event for the parked events. The plugin is not called with the
    /// event.
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

/// Reads from the extension attributes of a record why it is unreadable.
fn unreadable_because(extensions: &str) -> String {
    let members: Option<serde_json::Value> = serde_json::from_str(extensions).ok();
    let reason = members.as_ref().and_then(|m| m.get(UNREADABLE_REASON)?.as_str());
    reason.unwrap_or("the record is no event").to_owned()
}
