//! Implements ticks, the steps in which the watermark moves. At a tick, first the due timers fire,
//! in calls of their own. Then the rows whose retention ends are deleted, and the watermark moves.

use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, Event, KeyRange, OnFailure, ParkedKind, ParkedRecord, Space, TableId, Timer,
    Timestamp,
};

use crate::batching::{part_of, split};
use crate::outbox_writer::{post, sent_by_timers};
use crate::parked_events::{self, explain};
use crate::runner::Runner;
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};
use crate::timed_keys::{decode_timer, expiry_by_row, expiry_by_time, time_key, timer_key};

/// Moves the watermark of a shard.
pub(crate) struct Ticker<'a> {
    pub(crate) state: &'a mut ShardState,
    pub(crate) runner: &'a mut Runner,
}

impl Ticker<'_> {
    /// Fires the timers that are due at the new watermark, and then moves the watermark.
    pub(crate) fn tick(&mut self) -> Result<(), StopReason> {
        let Some(target) = self.state.watermark_due() else {
            return Ok(());
        };
        if target < self.state.meta.watermark {
            return self.lower_watermark(target);
        }
        // A timer that is set during this tick is due after this tick, so the loop ends.
        let end = time_key(target.saturating_add(1)).to_vec();
        // All timers that were due at the old watermark have fired.
        let start = time_key(self.state.meta.watermark.saturating_add(1)).to_vec();
        let range = KeyRange { start, end: Some(end) };
        loop {
            let due = self.state.buffer.scan(
                Space::TimersByTime,
                &range,
                self.state.config.batch_timers_max,
                false,
            )?;
            if due.is_empty() {
                self.expire(target)?;
                self.state.meta.watermark = target;
                self.state.meta.tick_emitted = 0;
                return Ok(());
            }
            let mut batch =
                Batch { partition: self.state.id.partition, watermark: target, ..Batch::default() };
            let mut dues = Vec::with_capacity(due.len());
            for (key, at) in due {
                let (due, timer) = decode_timer(&key, &at)
                    .ok_or_else(|| StopReason::Halt("a stored timer is damaged".into()))?;
                dues.push(due);
                batch.timers.push(timer);
            }
            self.fire(&Arc::new(batch), &dues)?;
        }
    }

    /// Lowers the watermark to `target`, because the log time was set back (see
    /// [`crate::log_time`]). A timer that was set for a time before the old watermark is due right
    /// after the old watermark. The due time of such a timer is lowered too.
    fn lower_watermark(&mut self, target: Timestamp) -> Result<(), StopReason> {
        self.state.due_from = Timestamp::MIN;
        let mut range = KeyRange::all();
        loop {
            let page = self.state.config.batch_timers_max;
            let timers = self.state.buffer.scan(Space::TimersByTime, &range, page, false)?;
            let Some((last, _)) = timers.last() else {
                break;
            };
            range.start = parked_events::after(last);
            for (by_time, value) in timers {
                let (due, timer) = decode_timer(&by_time, &value)
                    .ok_or_else(|| StopReason::Halt("a stored timer is damaged".into()))?;
                let earlier = timer.at.max(target.saturating_add(1));
                if earlier < due {
                    let key = timer_key(earlier, &timer.key);
                    self.state.buffer.set(Space::TimersByTime, &by_time, None);
                    self.state.buffer.set(Space::TimersByTime, &key, Some(&value));
                    let due = time_key(earlier);
                    self.state.buffer.set(Space::TimersByKey, timer.key.as_bytes(), Some(&due));
                }
            }
        }
        self.state.meta.watermark = target;
        Ok(())
    }

    /// Deletes the rows that expire at `target` or before.
    fn expire(&mut self, target: Timestamp) -> Result<(), StopReason> {
        if self.state.manifest.tables.iter().all(|table| table.retention_us.is_none()) {
            return Ok(());
        }
        let end = expiry_by_time(time_key(target.saturating_add(1)), TableId(0), &[]);
        let range = KeyRange { start: vec![0], end: Some(end) };
        loop {
            let page = self.state.config.batch_timers_max;
            let due = self.state.buffer.scan(Space::Expiry, &range, page, false)?;
            if due.is_empty() {
                return Ok(());
            }
            for (by_time, _) in due {
                self.state.meta.expired += 1;
                let (table, key) = by_time[9..]
                    .split_first_chunk::<4>()
                    .map(|(table, key)| (TableId(u32::from_be_bytes(*table)), key.to_vec()))
                    .ok_or_else(|| StopReason::Halt("a stored expiry is damaged".into()))?;
                let ShardState { watch, buffer, id, meta, .. } = &mut *self.state;
                if let Some(watch) = watch {
                    let place = (id.partition, meta.next);
                    watch.record_expiry(buffer, (table, &key), place, target)?;
                }
                self.state.buffer.set(Space::Expiry, &expiry_by_row(table, &key), None);
                self.state.buffer.set(Space::Table(table), &key, None);
                self.state.buffer.set(Space::Expiry, &by_time, None);
            }
            // The instance may have these rows in its memory, so it is dropped.
            self.runner.drop_instance();
        }
    }

    fn fire(&mut self, batch: &Arc<Batch>, dues: &[Timestamp]) -> Result<(), StopReason> {
        let mut work: Vec<Range<usize>> = std::iter::once(0..batch.len()).collect();
        while let Some(range) = work.pop() {
            let part = part_of(batch, range.clone());
            let fresh = self.runner.is_fresh();
            let at = self.state.meta.next;
            match self.runner.call(self.state, &part, &dues[range.clone()], at) {
                Ok(emitted) => {
                    // Events that timers emit have no trace, because the trace of the event
                    // that set the timer is not stored.
                    let sent = sent_by_timers(self.state);
                    self.state.meta.tick_emitted += emitted.len() as u64;
                    post(self.state, emitted, sent, |_| None);
                    self.state.meta.timers_fired += range.len() as u64;
                }
                Err(CallError::Stop(stop)) => return Err(stop),
                Err(CallError::Due(due)) => return Err(CallError::due_is_a_fault(due)),
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

    fn park_timer(
        &mut self,
        timer: Timer,
        due: Timestamp,
        watermark: Timestamp,
        error: &ApplyError,
    ) -> Result<(), StopReason> {
        let (reason, backtrace) = explain(error);
        if self.state.manifest.on_failure == OnFailure::Halt {
            return Err(StopReason::Halt(format!(
                "timer `{}` cannot be fired: {reason}",
                timer.key.escape_debug()
            )));
        }
        parked_events::check_room(&self.state.meta, &self.state.config)?;
        self.state.buffer.set(Space::TimersByTime, &timer_key(due, &timer.key), None);
        let current = self.state.buffer.get(Space::TimersByKey, timer.key.as_bytes())?;
        if current.as_deref() == Some(&time_key(due)) {
            self.state.buffer.set(Space::TimersByKey, timer.key.as_bytes(), None);
        }
        self.state.meta.timers_now = self.state.meta.timers_now.saturating_sub(1);
        self.state.meta.timers_fired += 1;
        self.state.park(&ParkedRecord {
            kind: ParkedKind::Timer(timer),
            offset: self.state.meta.next,
            watermark,
            event: Event::default(),
            reason,
            backtrace,
            attempts: 1,
        });
        Ok(())
    }
}
