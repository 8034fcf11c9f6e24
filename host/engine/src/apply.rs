//! Applies batches. If a call fails, finds the event that is to blame and parks
//! it.
//!
//! The verdict on an event is always that of the event alone, on a fresh instance,
//! with the fuel of one event: it does not depend on the batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, Event, Offset, OnFailure, ParkedKind, ParkedRecord, UNREADABLE_REASON,
    UNREADABLE_TYPE,
};

use crate::gather::{Gathered, Gatherer, slice};
use crate::log_time::LogTime;
use crate::outbox::post;
use crate::parking::{self, UNREADABLE_KEPT_MAX, is_of_unknown_type};
use crate::runner::{CallError, Runner};
use crate::shard::Stop;
use crate::state::ShardState;

/// The least length of a piece after a failure; the next is twice as long as the
/// piece that succeeded before it.
const PIECE_MIN: usize = 16;

/// Applies batches to a shard's state.
pub(crate) struct Applier<'a> {
    pub(crate) state: &'a mut ShardState,
    pub(crate) runner: &'a mut Runner,
    pub(crate) gatherer: &'a mut Gatherer,
}

impl Applier<'_> {
    /// Applies what was gathered, and parks what cannot be applied. On an error, what
    /// was applied before it stays, up to the next offset of the state.
    pub(crate) fn apply_gathered(&mut self, mut gathered: Gathered) -> Result<(), Stop> {
        let from = self.state.meta.next;
        let outcome = self.apply_all(&mut gathered);
        let time = match outcome {
            Ok(()) => std::mem::take(&mut gathered.time),
            // Only events that were applied count.
            Err(_) => {
                let before = LogTime::of(&self.state.meta);
                self.gatherer.time_until(&gathered, before, from, self.state.meta.next)
            }
        };
        time.store(&mut self.state.meta);
        outcome
    }

    fn apply_all(&mut self, gathered: &mut Gathered) -> Result<(), Stop> {
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
        }
        self.gatherer.give_back(batch);
        self.pass(gathered.next, &mut waiting)
    }

    /// Applies one range; splits it into `work` where it fails.
    fn apply_range(
        &mut self,
        gathered: &Gathered,
        batch: &Arc<Batch>,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &mut VecDeque<(Offset, Event)>,
    ) -> Result<(), Stop> {
        // What is in front of the range is parked first, and the range is cut where
        // no more could be: else events would be applied that the position does not
        // cover yet.
        self.pass(Offset(batch.offsets[range.start]), waiting)?;
        let range = self.up_to_room(batch, range, work, waiting);
        let part = part_of(batch, range.clone());
        let fresh = self.runner.is_fresh();
        let times = &batch.events.times()[range.clone()];
        let end = Offset(batch.offsets[range.end - 1]).next();
        let at = Offset(batch.offsets[range.start]);
        match self.runner.call(self.state, &part, &[], at) {
            Ok(emitted) => {
                self.trace(gathered, &batch.offsets[range.clone()]);
                let from = self.state.outbox.emit_from.events;
                post(self.state, emitted, from, |cause| {
                    gathered.event(cause).and_then(|event| traceparent(event.extensions))
                });
                self.state.parking.end_row();
                self.state.meta.applied += range.len() as u64;
                let marks = batch.watermarks[range].iter();
                self.state.meta.late +=
                    times.iter().zip(marks).filter(|(time, mark)| time < mark).count() as u64;
                self.pass(end, waiting)
            }
            Err(CallError::Stop(stop)) => Err(stop),
            Err(CallError::Event(_)) if range.len() == 1 && !fresh => {
                work.push(range);
                Ok(())
            }
            Err(CallError::Event(error)) if range.len() == 1 => {
                let offset = Offset(batch.offsets[range.start]);
                let event = gathered.event(offset).expect("gathered from these chunks");
                self.park(offset, event.to_owned(), &error)?;
                self.pass(end, waiting)
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
        gathered: &Gathered,
        batch: &Batch,
        range: Range<usize>,
        work: &mut Vec<Range<usize>>,
        waiting: &mut VecDeque<(Offset, Event)>,
    ) -> Range<usize> {
        for index in range.clone() {
            let offset = Offset(batch.offsets[index]);
            let event = gathered.event(offset).expect("gathered from these chunks");
            if !self.state.parking.blocked().contains(event.tenant, event.subject) {
                continue;
            }
            let place = waiting.partition_point(|(other, _)| *other < offset);
            waiting.insert(place, (offset, event.to_owned()));
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
        waiting: &VecDeque<(Offset, Event)>,
    ) -> Range<usize> {
        let counted = parking::counted(&self.state.meta);
        let room = self.state.config.parked_max.saturating_sub(counted);
        let mut counting = waiting.iter().filter(|(_, event)| !is_of_unknown_type(event));
        let first_without = usize::try_from(room).ok().and_then(|room| counting.nth(room));
        let Some((without, _)) = first_without else {
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
    fn pass(&mut self, next: Offset, waiting: &mut VecDeque<(Offset, Event)>) -> Result<(), Stop> {
        while waiting.front().is_some_and(|(offset, _)| *offset < next) {
            if !waiting.front().is_some_and(|(_, event)| is_of_unknown_type(event)) {
                parking::check_room(&self.state.meta, &self.state.config)?;
            }
            let (offset, event) = waiting.pop_front().expect("just seen");
            if event.kind == UNREADABLE_TYPE {
                self.park_unreadable(offset, event);
                continue;
            }
            self.state.meta.next = offset.next();
            self.state.park(&ParkedRecord {
                kind: ParkedKind::Waiting,
                offset,
                watermark: self.state.meta.watermark,
                event,
                reason: String::new(),
                backtrace: String::new(),
                attempts: 0,
            });
        }
        self.state.meta.next = self.state.meta.next.max(next);
        Ok(())
    }

    /// Tells, at level debug, which of the events applied belong to a trace.
    fn trace(&self, gathered: &Gathered, offsets: &[u64]) {
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

    fn park(&mut self, offset: Offset, event: Event, error: &ApplyError) -> Result<(), Stop> {
        let (reason, backtrace) = explain(error);
        if self.state.manifest.on_failure == OnFailure::Halt {
            return Err(Stop::Halt(format!(
                "event `{}` of `{}` at offset {offset} cannot be applied: {reason}",
                event.id, event.source
            )));
        }
        parking::check_room(&self.state.meta, &self.state.config)?;
        self.state.parking.count_failure(&reason, &self.state.config)?;
        self.state.park(&ParkedRecord {
            kind: ParkedKind::Event,
            offset,
            watermark: self.state.meta.watermark,
            event,
            reason,
            backtrace,
            attempts: 1,
        });
        Ok(())
    }

    /// Parks what the log has in an event's place. The manifest's `on-failure` does
    /// not apply, and it does not count as a failure in a row: the projection has not
    /// failed. One of unknown type may concern any projection, and never halts this one.
    fn park_unreadable(&mut self, offset: Offset, event: Event) {
        let meta = &mut self.state.meta;
        meta.next = offset.next();
        if is_of_unknown_type(&event) && meta.unreadable_now >= UNREADABLE_KEPT_MAX {
            meta.unreadable_left_out += 1;
            if meta.unreadable_left_out == 1 {
                let id = &self.state.id;
                tracing::warn!(
                    projection = %id.projection, version = %id.version,
                    partition = %id.partition, %offset,
                    "{UNREADABLE_KEPT_MAX} unreadable records are parked: later ones are counted and not kept"
                );
            }
            return;
        }
        let reason = unreadable_because(&event.extensions);
        self.state.park(&ParkedRecord {
            kind: ParkedKind::Event,
            offset,
            watermark: self.state.meta.watermark,
            event,
            reason,
            backtrace: String::new(),
            attempts: 0,
        });
    }
}

/// Puts the parts of a range that failed onto `work`: what lies before the
/// event blamed, that event, and the rest in pieces; or two halves.
pub(crate) fn split(range: Range<usize>, error: &ApplyError, work: &mut Vec<Range<usize>>) {
    let blamed = match error {
        ApplyError::Failed { cause: Some(cause), .. } => Some(cause.0 as usize),
        _ => None,
    };
    match blamed.filter(|place| *place < range.len()) {
        Some(place) => {
            let at = range.start + place;
            let piece = (at + 1 + PIECE_MIN.max(2 * place)).min(range.end);
            work.extend([piece..range.end, at + 1..piece, at..at + 1, range.start..at]);
        }
        None => {
            let middle = range.start + range.len() / 2;
            work.extend([middle..range.end, range.start..middle]);
        }
    }
    work.retain(|range| !range.is_empty());
}

/// The timers or events `range` of `batch`; `batch` itself if that is all of them.
pub(crate) fn part_of(batch: &Arc<Batch>, range: Range<usize>) -> Arc<Batch> {
    if range.len() == batch.len() { batch.clone() } else { Arc::new(slice(batch, range)) }
}

/// The trace an event belongs to (W3C Trace Context), of its extensions.
pub(crate) fn traceparent(extensions: &str) -> Option<String> {
    if extensions.is_empty() {
        return None;
    }
    let extensions: serde_json::Value = serde_json::from_str(extensions).ok()?;
    extensions.get("traceparent")?.as_str().map(str::to_owned)
}

/// Why a record is no event, of its extensions.
fn unreadable_because(extensions: &str) -> String {
    let members: Option<serde_json::Value> = serde_json::from_str(extensions).ok();
    let reason = members.as_ref().and_then(|m| m.get(UNREADABLE_REASON)?.as_str());
    reason.unwrap_or("the record is no event").to_owned()
}

/// Reason and backtrace, for people.
pub(crate) fn explain(error: &ApplyError) -> (String, String) {
    match error {
        ApplyError::Trapped { message, backtrace, .. } => (message.clone(), backtrace.clone()),
        other => (other.to_string(), String::new()),
    }
}
