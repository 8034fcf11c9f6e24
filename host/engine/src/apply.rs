//! Applies batches and fires timers; where a call fails, finds the event that
//! is to blame and parks it.
//!
//! The verdict over an event is always that of the event alone, on a fresh
//! instance, with the fuel of one event: whatever batch it came in, it ends the
//! same.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, Event, InstantiateError, KeyRange, Level, Offset, OnFailure, OutboxEvent,
    ParkedKind, ParkedRecord, Space, TableId, Timer, Timestamp, UNREADABLE_REASON, UNREADABLE_TYPE,
};

use crate::call::{
    Call, CallState, decode_timer, expiry_by_row, expiry_by_time, time_key, timer_key,
};
use crate::gather::{Gathered, slice};
use crate::layers;
use crate::log_time::LogTime;
use crate::shard::{Shard, Stop};

/// Pieces after a failure are at least so long, and twice as long as the piece
/// that went well before it.
const PIECE_MIN: usize = 16;

/// Why a call did not apply its batch.
pub(crate) enum CallError {
    /// To blame on an event of the batch.
    Event(ApplyError),
    /// The shard cannot go on.
    Stop(Stop),
}

impl Shard {
    /// Applies what was gathered, parking what cannot be applied. On an error,
    /// what was applied before it stays, and the position says how far that is.
    pub(crate) fn apply_gathered(&mut self, mut gathered: Gathered) -> Result<(), Stop> {
        let from = self.meta.next;
        let outcome = self.apply_all(&mut gathered);
        let time = match outcome {
            Ok(()) => std::mem::take(&mut gathered.time),
            // Only events that were applied count.
            Err(_) => {
                let before = LogTime::of(&self.meta);
                self.gatherer.time_until(&gathered, before, from, self.meta.next)
            }
        };
        time.store(&mut self.meta);
        outcome
    }

    fn apply_all(&mut self, gathered: &mut Gathered) -> Result<(), Stop> {
        let batch = Arc::new(std::mem::take(&mut gathered.batch));
        let mut waiting: VecDeque<_> = std::mem::take(&mut gathered.waiting).into();
        let total = batch.len();
        // Ranges of the batch still to be applied, the first on top.
        let mut work: Vec<Range<usize>> =
            std::iter::once(0..total).filter(|r| !r.is_empty()).collect();
        let blocked_before = self.blocked.len();
        while let Some(range) = work.pop() {
            let blocked = self.blocked.len() != blocked_before;
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
        let fresh = self.instance.is_none();
        let times = &batch.events.times()[range.clone()];
        let end = Offset(batch.offsets[range.end - 1]).next();
        match self.call(&part, Offset(batch.offsets[range.start])) {
            Ok(emitted) => {
                self.trace(gathered, &batch.offsets[range.clone()]);
                self.post(emitted, self.emit_from.events, |cause| {
                    gathered.event(cause).and_then(|event| traceparent(event.extensions))
                });
                self.parked_in_a_row = 0;
                self.meta.applied += range.len() as u64;
                let marks = batch.watermarks[range].iter();
                self.meta.late +=
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
            if !self.blocked.contains(event.tenant, event.subject) {
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
        let room = self.config.parked_max.saturating_sub(self.meta.parked_now);
        let first_without = usize::try_from(room).ok().and_then(|room| waiting.get(room));
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
            self.check_room_to_park()?;
            let (offset, event) = waiting.pop_front().expect("just seen");
            if event.kind == UNREADABLE_TYPE {
                self.park_unreadable(offset, event)?;
                continue;
            }
            self.meta.next = offset.next();
            self.store_parked(&ParkedRecord {
                kind: ParkedKind::Waiting,
                offset,
                watermark: self.meta.watermark,
                event,
                reason: String::new(),
                backtrace: String::new(),
                attempts: 0,
            });
        }
        self.meta.next = self.meta.next.max(next);
        Ok(())
    }

    /// Fires the timers that are due since the watermark moved, then moves it.
    pub(crate) fn tick(&mut self) -> Result<(), Stop> {
        let Some(target) = self.watermark_due() else {
            return Ok(());
        };
        if target < self.meta.watermark {
            return self.turn_back(target);
        }
        // Set in this tick, a timer is due after it, so this ends.
        let end = time_key(Timestamp(target.0.saturating_add(1))).to_vec();
        let range = KeyRange { start: Vec::new(), end: Some(end) };
        loop {
            let due = layers::scan(
                &self.layers(),
                &*self.store,
                Space::TimersByTime,
                &range,
                self.config.batch_timers_max,
                false,
            )?;
            if due.is_empty() {
                self.expire(target)?;
                self.meta.watermark = target;
                return Ok(());
            }
            let mut batch =
                Batch { partition: self.id.partition, watermark: target, ..Batch::default() };
            let mut dues = Vec::with_capacity(due.len());
            for (key, at) in due {
                let (due, timer) = decode_timer(&key, &at)
                    .ok_or_else(|| Stop::Halt("a stored timer is damaged".into()))?;
                dues.push(due);
                batch.timers.push(timer);
            }
            self.fire(&Arc::new(batch), &dues)?;
        }
    }

    /// Takes the watermark back to `target`, as the log's time was taken back (see
    /// [`crate::log_time`]). Timers that wait for the old watermark only because it
    /// was past their time are due by the new one.
    fn turn_back(&mut self, target: Timestamp) -> Result<(), Stop> {
        let mut range = KeyRange::all();
        loop {
            let page = self.config.batch_timers_max;
            let timers = layers::scan(
                &self.layers(),
                &*self.store,
                Space::TimersByTime,
                &range,
                page,
                false,
            )?;
            let Some((last, _)) = timers.last() else {
                break;
            };
            range.start = crate::parked::after(last);
            for (by_time, value) in timers {
                let (due, timer) = decode_timer(&by_time, &value)
                    .ok_or_else(|| Stop::Halt("a stored timer is damaged".into()))?;
                let earlier = timer.at.max(Timestamp(target.0.saturating_add(1)));
                if earlier < due {
                    let key = timer_key(earlier, &timer.key);
                    self.overlay.set(Space::TimersByTime, &by_time, None);
                    self.overlay.set(Space::TimersByTime, &key, Some(&value));
                    let due = time_key(earlier);
                    self.overlay.set(Space::TimersByKey, timer.key.as_bytes(), Some(&due));
                }
            }
        }
        self.meta.watermark = target;
        Ok(())
    }

    /// Deletes the rows whose retention ends at `target` or before.
    fn expire(&mut self, target: Timestamp) -> Result<(), Stop> {
        if self.manifest.tables.iter().all(|table| table.retention_us.is_none()) {
            return Ok(());
        }
        let end = expiry_by_time(time_key(Timestamp(target.0.saturating_add(1))), TableId(0), &[]);
        let range = KeyRange { start: vec![0], end: Some(end) };
        loop {
            let page = self.config.batch_timers_max;
            let due =
                layers::scan(&self.layers(), &*self.store, Space::Expiry, &range, page, false)?;
            if due.is_empty() {
                return Ok(());
            }
            for (by_time, _) in due {
                self.meta.expired += 1;
                let (table, key) = by_time[9..]
                    .split_first_chunk::<4>()
                    .map(|(table, key)| (TableId(u32::from_be_bytes(*table)), key.to_vec()))
                    .ok_or_else(|| Stop::Halt("a stored expiry is damaged".into()))?;
                self.overlay.set(Space::Expiry, &expiry_by_row(table, &key), None);
                self.overlay.set(Space::Table(table), &key, None);
                self.overlay.set(Space::Expiry, &by_time, None);
            }
            // It may have kept the rows in its memory.
            self.instance = None;
        }
    }

    fn fire(&mut self, batch: &Arc<Batch>, dues: &[Timestamp]) -> Result<(), Stop> {
        let mut work: Vec<Range<usize>> = std::iter::once(0..batch.len()).collect();
        while let Some(range) = work.pop() {
            let part = part_of(batch, range.clone());
            let fresh = self.instance.is_none();
            match self.call_with(&part, &dues[range.clone()], self.meta.next) {
                Ok(emitted) => {
                    // What set the timer lies behind, in events long gone.
                    self.post(emitted, self.emit_from.timers, |_| None);
                    self.meta.timers_fired += range.len() as u64;
                }
                Err(CallError::Stop(stop)) => return Err(stop),
                Err(CallError::Event(_)) if range.len() == 1 && !fresh => work.push(range),
                Err(CallError::Event(error)) if range.len() == 1 => {
                    let timer = batch.timers[range.start].clone();
                    self.park_timer(timer, dues[range.start], batch.watermark, &error)?;
                }
                Err(CallError::Event(error)) => split(range, &error, &mut work),
            }
        }
        Ok(())
    }

    /// One call of the plugin with events. What it wrote is merged where it
    /// went well, and dropped, with the instance, where not. What it emitted is
    /// handed back, for [`Shard::post`].
    pub(crate) fn call(
        &mut self,
        batch: &Arc<Batch>,
        at: Offset,
    ) -> Result<Vec<OutboxEvent>, CallError> {
        self.call_with(batch, &[], at)
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
                    traceparent, offset, projection = %self.id.projection,
                    version = %self.id.version, "applied"
                );
            }
        }
    }

    fn call_with(
        &mut self,
        batch: &Arc<Batch>,
        dues: &[Timestamp],
        at: Offset,
    ) -> Result<Vec<OutboxEvent>, CallError> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.instantiate().map_err(|e| CallError::Stop(cannot_start(&e)))?,
        };
        let call = self.begin_call(batch, dues);
        let solo = batch.len() == 1;
        let fuel = if solo { self.config.fuel_event } else { self.config.fuel_event / 2 };
        let span = tracing::debug_span!(
            "apply",
            projection = %self.id.projection,
            version = %self.id.version,
            partition = %self.id.partition,
            offset = %at,
            events = batch.offsets.len(),
            timers = batch.timers.len(),
        );
        let applied = span.in_scope(|| instance.apply(batch, Box::new(call), fuel));
        let call = applied.host.into_any().downcast::<Call>();
        let mut call = call.map_err(|_| {
            CallError::Stop(Stop::Fault("the plugin host gave back another call".into()))
        })?;
        self.overlay = std::mem::take(&mut call.applied);
        for (offset, level, message) in &call.logged {
            (self.logs)(offset.unwrap_or(at), *level, message);
        }
        self.count_usage(batch.offsets.len(), applied.fuel, applied.elapsed, applied.memory_bytes);
        self.check_fuel(at)?;
        match applied.result {
            Ok(()) => {
                if let Some(&offset) = batch.offsets.first()
                    && self.is_sampled(offset)
                {
                    self.fold_again(batch, dues, offset, &call)?;
                }
                self.instance = Some(instance);
                self.meta.timers_now = call.timers_now;
                self.room = call.written;
                self.overlay.merge(&mut self.room);
                Ok(call.emitted)
            }
            Err(ApplyError::Fault(message)) => Err(CallError::Stop(Stop::Fault(message))),
            Err(mut error) => {
                // A guest that panics says why in its log, then traps.
                if let ApplyError::Trapped { message, .. } = &mut error
                    && let Some((_, Level::Error, said)) = call.logged.last()
                {
                    *message = format!("{message}: {said}");
                }
                tracing::debug!(parent: &span, %error, "call failed");
                Err(CallError::Event(error))
            }
        }
    }

    /// What the plugin is lent for a call with `batch`, whose timers are due at
    /// `dues`.
    pub(crate) fn begin_call(&mut self, batch: &Arc<Batch>, dues: &[Timestamp]) -> Call {
        let state = CallState {
            store: self.store.clone(),
            committing: self.committing.clone(),
            applied: std::mem::take(&mut self.overlay),
            written: std::mem::take(&mut self.room),
        };
        let (manifest, config) = (self.manifest.clone(), self.config.clone());
        let mut call = Call::new(state, manifest, config, batch.clone(), self.meta.timers_now);
        for (timer, due) in batch.timers.iter().zip(dues) {
            call.take_timer(*due, &timer.key);
        }
        call
    }

    /// Of a check: whether it may go on.
    fn check_fuel(&self, at: Offset) -> Result<(), CallError> {
        match self.fuel_max {
            Some(limit) if self.usage.fuel > limit => Err(CallError::Stop(Stop::Fault(format!(
                "folding a sample of the log took more than {limit} fuel (`engine.check_fuel`), up \
                 to offset {at}: make it do less for each event, or lower `engine.check_events`"
            )))),
            _ => Ok(()),
        }
    }

    fn park(&mut self, offset: Offset, event: Event, error: &ApplyError) -> Result<(), Stop> {
        let (reason, backtrace) = explain(error);
        if self.manifest.on_failure == OnFailure::Halt {
            return Err(Stop::Halt(format!(
                "event `{}` of `{}` at offset {offset} cannot be applied: {reason}",
                event.id, event.source
            )));
        }
        self.check_room_to_park()?;
        self.check_in_a_row(&reason)?;
        self.store_parked(&ParkedRecord {
            kind: ParkedKind::Event,
            offset,
            watermark: self.meta.watermark,
            event,
            reason,
            backtrace,
            attempts: 1,
        });
        Ok(())
    }

    /// Parks what the log has in an event's place. The manifest's `on-failure` does
    /// not apply, and it does not count as a failure in a row: the projection has not
    /// failed.
    fn park_unreadable(&mut self, offset: Offset, event: Event) -> Result<(), Stop> {
        let reason = unreadable_because(&event.extensions);
        self.meta.next = offset.next();
        self.store_parked(&ParkedRecord {
            kind: ParkedKind::Event,
            offset,
            watermark: self.meta.watermark,
            event,
            reason,
            backtrace: String::new(),
            attempts: 0,
        });
        Ok(())
    }

    fn check_in_a_row(&mut self, reason: &str) -> Result<(), Stop> {
        if self.parked_in_a_row >= self.config.parked_in_a_row_max {
            return Err(Stop::Halt(format!(
                "{} events in a row could not be applied (`engine.parked_in_a_row_max`); the last reason: {reason}",
                self.config.parked_in_a_row_max
            )));
        }
        self.parked_in_a_row += 1;
        Ok(())
    }

    fn park_timer(
        &mut self,
        timer: Timer,
        due: Timestamp,
        watermark: Timestamp,
        error: &ApplyError,
    ) -> Result<(), Stop> {
        let (reason, backtrace) = explain(error);
        if self.manifest.on_failure == OnFailure::Halt {
            return Err(Stop::Halt(format!(
                "timer `{}` cannot be fired: {reason}",
                timer.key.escape_debug()
            )));
        }
        self.check_room_to_park()?;
        self.overlay.set(Space::TimersByTime, &timer_key(due, &timer.key), None);
        self.overlay.set(Space::TimersByKey, timer.key.as_bytes(), None);
        self.meta.timers_now = self.meta.timers_now.saturating_sub(1);
        self.meta.timers_fired += 1;
        self.store_parked(&ParkedRecord {
            kind: ParkedKind::Timer(timer),
            offset: self.meta.next,
            watermark,
            event: Event::default(),
            reason,
            backtrace,
            attempts: 1,
        });
        Ok(())
    }

    fn check_room_to_park(&self) -> Result<(), Stop> {
        if self.meta.parked_now >= self.config.parked_max {
            return Err(Stop::Halt(format!(
                "{} events are parked (`engine.parked_max`): retry or drop them, then resume",
                self.config.parked_max
            )));
        }
        Ok(())
    }
}

/// Puts the parts of a range that failed onto `work`: what lies before the
/// event blamed, that event, and the rest in pieces; or two halves.
fn split(range: Range<usize>, error: &ApplyError, work: &mut Vec<Range<usize>>) {
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
fn part_of(batch: &Arc<Batch>, range: Range<usize>) -> Arc<Batch> {
    if range.len() == batch.len() { batch.clone() } else { Arc::new(slice(batch, range)) }
}

fn cannot_start(error: &InstantiateError) -> Stop {
    match error {
        InstantiateError::Host(message) => Stop::Fault(message.clone()),
        other => Stop::Halt(other.to_string()),
    }
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
