//! Executes one call of a plugin. This module answers the plugin's host calls, and keeps its writes
//! separate from the shard's state until the call has succeeded.

use std::any::Any;
use std::sync::Arc;

use lantern_core::{
    Batch, Cause, Host, HostError, KeyRange, Level, Manifest, NewEvent, Offset, OutboxEvent,
    ReadValues, Row, ShardStore, Space, TableId, TableSpec, Timer, Timestamp, check_row,
};

use crate::EngineConfig;
use crate::change_set::{ChangeSet, PAIR_BYTES, PendingChanges};
use crate::due_watch::DueWatch;
use crate::emit_limits;
use crate::layered_read::{self, Layer};
use crate::rejections::Rejections;
use crate::timed_keys::{
    decode_timer, expiry_by_row, expiry_by_time, key_time, time_key, timer_key, timer_value,
};

/// Implements the host calls for one call of a plugin.
pub(crate) struct CallHost {
    pub(crate) store: Arc<dyn ShardStore>,
    /// The changes of the commit in progress.
    pub(crate) committing: Arc<PendingChanges>,
    /// The changes of earlier calls that are applied and not part of a commit yet.
    pub(crate) applied: ChangeSet,
    /// The changes that this call has written.
    pub(crate) written: ChangeSet,
    pub(crate) emitted: Vec<OutboxEvent>,
    /// The messages that the plugin logged, each with the offset of its event, if that is known.
    pub(crate) logged: Vec<(Option<Offset>, Level, String)>,
    pub(crate) timers_now: u64,
    manifest: Arc<Manifest>,
    config: Arc<EngineConfig>,
    /// The timers and events that a write may name as its cause.
    batch: Arc<Batch>,
    pub(crate) rejections: Rejections,
    due: DueWatch,
    written_bytes: usize,
    logged_bytes: usize,
}

/// The timer or event of the batch that causes a write.
#[derive(Clone, Copy)]
enum Trigger<'a> {
    Timer(&'a Timer),
    /// An event. Contains its index among the events of the batch.
    Event(usize),
}

/// The state of the shard as the plugin sees it during a call.
pub(crate) struct CallState {
    /// The committed state, below all changes.
    pub(crate) store: Arc<dyn ShardStore>,
    /// The changes of the commit in progress.
    pub(crate) committing: Arc<PendingChanges>,
    /// The changes of earlier calls that are applied and not part of a commit yet.
    pub(crate) applied: ChangeSet,
    /// An empty change set. The call's writes use its memory.
    pub(crate) written: ChangeSet,
}

impl CallHost {
    pub(crate) fn new(
        state: CallState,
        manifest: Arc<Manifest>,
        config: Arc<EngineConfig>,
        batch: Arc<Batch>,
        timers_now: u64,
    ) -> Self {
        let CallState { store, committing, applied, written } = state;
        Self {
            store,
            committing,
            applied,
            written,
            emitted: Vec::new(),
            logged: Vec::new(),
            timers_now,
            rejections: Rejections::of(&batch, manifest.on_failure),
            manifest,
            config,
            due: DueWatch::of(&batch),
            batch,
            written_bytes: 0,
            logged_bytes: 0,
        }
    }

    /// Returns the earliest due time of the timers that the call set too late: such a timer should
    /// have fired before a later event of the batch. `None` if there is no such timer. Otherwise
    /// the call must be repeated with fewer events.
    pub(crate) fn missed_due(&self) -> Option<Timestamp> {
        self.due.missed()
    }

    /// Returns the time of the first timer or expiry of a row that the call set.
    pub(crate) fn earliest_due(&self) -> Timestamp {
        self.due.earliest
    }

    /// Removes a timer that will fire now from the timers that are set.
    ///
    /// # Errors
    /// Returns [`HostError::Fault`] if the state cannot be read.
    pub(crate) fn take_timer(&mut self, due: Timestamp, key: &str) -> Result<(), HostError> {
        self.written.set(Space::TimersByTime, &timer_key(due, key), None);
        // A timer that fired earlier in this tick may have set this timer again for a later time.
        let current = self.read(Space::TimersByKey, key.as_bytes())?;
        if current.as_deref() == Some(&time_key(due)) {
            self.written.set(Space::TimersByKey, key.as_bytes(), None);
        }
        self.timers_now = self.timers_now.saturating_sub(1);
        Ok(())
    }

    /// Returns the changes that are read before the store, the newest first.
    fn layers(&self) -> [&dyn Layer; 3] {
        [&self.written, &self.applied, &*self.committing]
    }

    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, HostError> {
        layered_read::get(&self.layers(), &*self.store, space, key)
            .map_err(|e| HostError::Fault(e.to_string()))
    }

    fn table(&self, table: TableId) -> Result<&TableSpec, HostError> {
        self.manifest.tables.get(table.0 as usize).ok_or_else(|| {
            HostError::Guest(format!(
                "there is no table {table}: the manifest has {}",
                self.manifest.tables.len()
            ))
        })
    }

    fn check_key(&self, what: &str, key: &str) -> Result<(), HostError> {
        let limit = self.config.key_bytes_max;
        if key.len() > limit {
            return Err(HostError::Guest(format!(
                "a {what} of {} bytes is over the limit of {limit} (`engine.key_bytes_max`)",
                key.len()
            )));
        }
        Ok(())
    }

    /// Returns the timer or event with the number `cause`.
    fn trigger(&self, cause: Cause) -> Result<Trigger<'_>, HostError> {
        let index = cause.0 as usize;
        if let Some(timer) = self.batch.timers.get(index) {
            return Ok(Trigger::Timer(timer));
        }
        let event = index - self.batch.timers.len();
        if event < self.batch.offsets.len() {
            return Ok(Trigger::Event(event));
        }
        Err(HostError::Guest(format!(
            "the call names {index} as a cause, but its batch has only {} timers and {} events",
            self.batch.timers.len(),
            self.batch.offsets.len()
        )))
    }

    /// Returns the tenant of `occasion`. For a timer, returns the part of the timer's key before
    /// U+0000, or `None` if the key has no U+0000.
    fn tenant_of<'a>(&'a self, occasion: Trigger<'a>) -> Option<&'a str> {
        match occasion {
            Trigger::Timer(timer) => tenant_in(&timer.key),
            Trigger::Event(index) => Some(self.batch.events.tenant(index)),
        }
    }

    /// Returns the offset of the event; for a timer, that of the event that set the timer.
    fn offset_of(&self, occasion: Trigger<'_>) -> Offset {
        match occasion {
            Trigger::Timer(timer) => timer.offset,
            Trigger::Event(index) => Offset(self.batch.offsets[index]),
        }
    }

    /// Returns the emit depth of the event; for a timer, that of the event that set the timer.
    fn depth_of(&self, occasion: Trigger<'_>) -> u32 {
        match occasion {
            Trigger::Timer(timer) => timer.depth,
            Trigger::Event(index) => self.batch.depths.get(index).copied().unwrap_or_default(),
        }
    }

    /// Returns the emit depth of an event that is emitted because of `occasion`. Returns an error
    /// if the depth exceeds the limit.
    fn depth_below(&self, occasion: Trigger<'_>, kind: &str) -> Result<u32, HostError> {
        let depth = self.depth_of(occasion).saturating_add(1);
        let (most, limit) = match self.manifest.cycle_depth_max {
            Some(most) if most < self.config.emit_depth_max => {
                (most, "`cycle-depth-max` of the manifest")
            }
            _ => (self.config.emit_depth_max, "`engine.emit_depth_max`"),
        };
        if depth > most {
            return Err(HostError::Guest(format!(
                "an emitted `{kind}` would have the emit depth {depth}, and the limit is {most} ({limit}): look for projections that subscribe to each other's emitted events"
            )));
        }
        Ok(depth)
    }

    fn watermark_at(&self, occasion: Trigger<'_>) -> Timestamp {
        match occasion {
            Trigger::Timer(_) => self.batch.watermark,
            Trigger::Event(index) => self.batch.watermarks[index],
        }
    }

    /// Returns the time from which the retention of a written row is counted. This time is the
    /// watermark. Before the first watermark, it is the watermark that would follow from the
    /// event's time. An event time that is too far in the future to move the watermark is limited
    /// to the latest time that can.
    fn retention_base(&self, occasion: Trigger<'_>) -> Timestamp {
        match (self.watermark_at(occasion), self.manifest.event_time, occasion) {
            (Timestamp::MIN, Some(rules), Trigger::Event(index)) => {
                let time = self.batch.times_before_watermark.get(index);
                let time = *time.unwrap_or(&self.batch.events.times()[index]);
                time.watermark(rules.allowed_lateness_us, rules.tick_us)
            }
            (watermark, ..) => watermark,
        }
    }

    fn check_write(
        &self,
        occasion: Trigger<'_>,
        table: TableId,
        key: &str,
    ) -> Result<&TableSpec, HostError> {
        let declared = self.table(table)?;
        self.check_key("key", key)?;
        if declared.per_tenant && (tenant_in(key).is_none() || !self.may_use(occasion, key)) {
            return Err(HostError::Guest(format!(
                "table `{}` is per tenant: its key `{}` must begin with the tenant of {} and U+0000",
                declared.name,
                key.escape_debug(),
                self.describe(occasion)
            )));
        }
        Ok(declared)
    }

    /// Returns whether `occasion` may use `key`. If the key belongs to a tenant, the event or timer
    /// must belong to the same tenant.
    fn may_use(&self, occasion: Trigger<'_>, key: &str) -> bool {
        tenant_in(key).is_none_or(|tenant| self.tenant_of(occasion) == Some(tenant))
    }

    /// Describes `occasion` and its tenant for error texts.
    fn describe(&self, occasion: Trigger<'_>) -> String {
        let what = match occasion {
            Trigger::Timer(timer) => format!("timer `{}`", timer.key.escape_debug()),
            Trigger::Event(_) => format!("the event at offset {}", self.offset_of(occasion)),
        };
        match self.tenant_of(occasion) {
            Some("") | None => format!("{what} (it has none)"),
            Some(tenant) => format!("{what} (`{}`)", tenant.escape_debug()),
        }
    }

    fn check_timer_key(&self, occasion: Trigger<'_>, key: &str) -> Result<(), HostError> {
        self.check_key("timer key", key)?;
        if self.may_use(occasion, key) {
            return Ok(());
        }
        Err(HostError::Guest(format!(
            "timer `{}` belongs to another tenant than {}",
            key.escape_debug(),
            self.describe(occasion)
        )))
    }

    fn count_written(&mut self, bytes: usize) -> Result<(), HostError> {
        self.written_bytes += bytes;
        let limit = self.config.call_write_bytes_max;
        if self.written_bytes > limit {
            return Err(HostError::Guest(format!(
                "the call wrote more than {limit} bytes (`engine.call_write_bytes_max`)"
            )));
        }
        Ok(())
    }

    /// Stores the time at which the row under `key` expires. `None` removes the stored time,
    /// because the row is deleted.
    fn set_expiry(
        &mut self,
        table: TableId,
        key: &str,
        at: Option<Timestamp>,
    ) -> Result<(), HostError> {
        let by_row = expiry_by_row(table, key.as_bytes());
        let at = at.map(time_key);
        let before = self.read(Space::Expiry, &by_row)?;
        if before.as_deref() == at.as_ref().map(<[u8; 8]>::as_slice) {
            return Ok(());
        }
        self.count_written(2 * (by_row.len() + PAIR_BYTES))?;
        if let Some(at) = at {
            self.due.earliest = self.due.earliest.min(key_time(at));
        }
        if let Some(before) = before.as_deref().and_then(|b| b.try_into().ok()) {
            let by_time = expiry_by_time(before, table, key.as_bytes());
            self.written.set(Space::Expiry, &by_time, None);
        }
        if let Some(at) = at {
            let by_time = expiry_by_time(at, table, key.as_bytes());
            self.written.set(Space::Expiry, &by_time, Some(&[]));
        }
        self.written.set(Space::Expiry, &by_row, at.as_ref().map(<[u8; 8]>::as_slice));
        Ok(())
    }

    /// Returns the due time of the timer with the key `key`; `None` if it is not set. If this call
    /// fires timers, a timer that is due at its tick counts as not set, because it fires in this
    /// call or in a later call of the same tick.
    fn due_of(&self, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        let due = self.read(Space::TimersByKey, key.as_bytes())?;
        let fired = time_key(self.batch.watermark);
        Ok(due.filter(|due| self.batch.timers.is_empty() || due.as_slice() > fired.as_slice()))
    }

    /// Returns whether the timer with the key `key` is set to `at`.
    fn is_set(&self, at: Timestamp, key: &str) -> Result<bool, HostError> {
        let Some(mut by_time) = self.due_of(key)? else {
            return Ok(false);
        };
        by_time.extend_from_slice(key.as_bytes());
        let value = self.read(Space::TimersByTime, &by_time)?;
        let timer = value.and_then(|value| decode_timer(&by_time, &value));
        Ok(timer.is_some_and(|(_, timer)| timer.at == at))
    }

    fn cancel(&mut self, key: &str) -> Result<(), HostError> {
        if let Some(due) = self.due_of(key)? {
            self.count_written(2 * (key.len() + PAIR_BYTES))?;
            let mut by_time = due;
            by_time.extend_from_slice(key.as_bytes());
            self.written.set(Space::TimersByTime, &by_time, None);
            self.written.set(Space::TimersByKey, key.as_bytes(), None);
            self.timers_now = self.timers_now.saturating_sub(1);
        }
        Ok(())
    }
}

/// Returns the tenant to which a key belongs: the part of the key before U+0000.
fn tenant_in(key: &str) -> Option<&str> {
    key.split_once('\0').map(|(tenant, _)| tenant)
}

impl Host for CallHost {
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.table(table)?;
        self.read(Space::Table(table), key.as_bytes())
    }

    fn get_many(
        &mut self,
        table: TableId,
        keys: &[&str],
        values: &mut ReadValues,
    ) -> Result<(), HostError> {
        self.table(table)?;
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        layered_read::get_many(&self.layers(), &*self.store, Space::Table(table), &keys, values)
            .map_err(|e| HostError::Fault(e.to_string()))
    }

    fn put(
        &mut self,
        cause: Cause,
        table: TableId,
        key: &str,
        value: &[u8],
    ) -> Result<(), HostError> {
        self.rejections.note_write(cause)?;
        let occasion = self.trigger(cause)?;
        let declared = self.check_write(occasion, table, key)?;
        if declared.public
            && let Err(why) = check_row(&declared.fields, value)
        {
            return Err(HostError::Guest(format!(
                "row `{}` of public table `{}` {why}",
                key.escape_debug(),
                declared.name
            )));
        }
        let limit = self.config.value_bytes_max;
        if value.len() > limit {
            return Err(HostError::Guest(format!(
                "a value of {} bytes is over the limit of {limit} (`engine.value_bytes_max`)",
                value.len()
            )));
        }
        if let Some(retention) = declared.retention_us {
            let retention = i64::try_from(retention).unwrap_or(i64::MAX);
            let at = self.retention_base(occasion).saturating_add(retention);
            self.set_expiry(table, key, Some(at))?;
        }
        self.count_written(key.len() + value.len() + PAIR_BYTES)?;
        self.written.set(Space::Table(table), key.as_bytes(), Some(value));
        Ok(())
    }

    fn delete(&mut self, cause: Cause, table: TableId, key: &str) -> Result<(), HostError> {
        self.rejections.note_write(cause)?;
        let occasion = self.trigger(cause)?;
        if self.check_write(occasion, table, key)?.retention_us.is_some() {
            self.set_expiry(table, key, None)?;
        }
        self.count_written(key.len() + PAIR_BYTES)?;
        self.written.set(Space::Table(table), key.as_bytes(), None);
        Ok(())
    }

    fn scan(
        &mut self,
        table: TableId,
        start: &str,
        end: &str,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<Row>, HostError> {
        self.table(table)?;
        let (space, range) = (Space::Table(table), KeyRange::of(start.as_bytes(), end.as_bytes()));
        self.written.put_in_order(space);
        self.applied.put_in_order(space);
        let pairs = layered_read::scan(
            &self.layers(),
            &*self.store,
            space,
            &range,
            limit as usize,
            reverse,
        )
        .map_err(|e| HostError::Fault(e.to_string()))?;
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let most = self.config.scan_bytes_max;
        if bytes > most {
            return Err(HostError::Guest(format!(
                "a scan of {} rows has {bytes} bytes, over the limit of {most} (`engine.scan_bytes_max`): scan with a smaller `limit`",
                pairs.len()
            )));
        }
        pairs
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8(key)
                    .map_err(|_| HostError::Fault("a stored key is not UTF-8".into()))?;
                Ok(Row { key, value })
            })
            .collect()
    }

    fn set_timer(&mut self, cause: Cause, at: Timestamp, key: &str) -> Result<(), HostError> {
        if self.manifest.event_time.is_none() {
            return Err(HostError::Guest(
                "a timer was set, but the manifest declares no `event-time`".into(),
            ));
        }
        self.rejections.note_write(cause)?;
        let occasion = self.trigger(cause)?;
        self.check_timer_key(occasion, key)?;
        // If a timer sets another timer, the new timer gets the offset and the depth of the first.
        let (watermark, offset) = (self.watermark_at(occasion), self.offset_of(occasion));
        let (index, depth) = (cause.0 as usize, self.depth_of(occasion));
        self.due.used(key, index, watermark);
        // A plugin may set a timer to the time that the timer already has. The timer then keeps the
        // offset of the event that set it first. So the state does not depend on whether a plugin
        // remembers that it has set the timer.
        let due = at.max(watermark.saturating_add(1));
        if self.is_set(at, key)? {
            self.due.set(key, index, due);
            return Ok(());
        }
        self.cancel(key)?;
        let limit = self.config.timers_max;
        if self.timers_now >= limit {
            return Err(HostError::Guest(format!(
                "more than {limit} timers are set (`engine.timers_max`)"
            )));
        }
        // A timer that is set for a time that has already passed fires at the next tick. It
        // never fires in the call that sets it, so the result does not depend on where
        // batches end.
        self.count_written(2 * (key.len() + PAIR_BYTES))?;
        let value = timer_value(at, offset, depth);
        self.written.set(Space::TimersByTime, &timer_key(due, key), Some(&value));
        self.written.set(Space::TimersByKey, key.as_bytes(), Some(&time_key(due)));
        self.timers_now += 1;
        self.due.set(key, index, due);
        Ok(())
    }

    fn cancel_timer(&mut self, cause: Cause, key: &str) -> Result<(), HostError> {
        self.rejections.note_write(cause)?;
        let occasion = self.trigger(cause)?;
        self.check_timer_key(occasion, key)?;
        let watermark = self.watermark_at(occasion);
        self.due.used(key, cause.0 as usize, watermark);
        self.cancel(key)
    }

    fn emit(&mut self, event: NewEvent) -> Result<(), HostError> {
        if !self.manifest.emits.contains(&event.kind) {
            return Err(HostError::Guest(format!(
                "event type `{}` was emitted, but the manifest's `emits` does not name it",
                event.kind.escape_debug()
            )));
        }
        self.rejections.note_write(event.cause)?;
        let occasion = self.trigger(event.cause)?;
        let own = self.tenant_of(occasion).unwrap_or_default();
        if !event.tenant.is_empty() && event.tenant != own {
            return Err(HostError::Guest(format!(
                "an emitted `{}` names tenant `{}`, which is not that of {}",
                event.kind,
                event.tenant.escape_debug(),
                self.describe(occasion)
            )));
        }
        let depth = self.depth_below(occasion, &event.kind)?;
        let (tenant, cause) = (own.to_owned(), self.offset_of(occasion));
        emit_limits::check(&event).map_err(|error| HostError::Guest(error.to_string()))?;
        let limit = self.config.call_emit_max;
        if self.emitted.len() >= limit {
            return Err(HostError::Guest(format!(
                "the call emitted more than {limit} events (`engine.call_emit_max`)"
            )));
        }
        let bytes = event.data.len() + event.subject.len() + tenant.len();
        let limit = self.config.emit_bytes_max;
        if bytes > limit {
            return Err(HostError::Guest(format!(
                "an emitted `{}` of {bytes} bytes is over the limit of {limit} (`engine.emit_bytes_max`)",
                event.kind
            )));
        }
        self.count_written(bytes + PAIR_BYTES)?;
        let NewEvent { kind, subject, time, data, .. } = event;
        self.emitted.push(OutboxEvent { cause, kind, subject, tenant, time, data, depth });
        Ok(())
    }

    fn reject(&mut self, cause: Cause, message: &str) -> Result<(), HostError> {
        self.count_written(message.len() + PAIR_BYTES)?;
        self.rejections.reject(cause, message)
    }

    fn log(&mut self, cause: Option<Cause>, level: Level, message: &str) -> Result<(), HostError> {
        let occasion = cause.map(|cause| self.trigger(cause)).transpose()?;
        let offset = occasion.map(|occasion| self.offset_of(occasion));
        // Log text over the limit is cut off. This is not an error, because a log message must not
        // decide whether an event is parked.
        let room = self.config.call_log_bytes_max.saturating_sub(self.logged_bytes);
        if room > 0 {
            let message = &message[..message.floor_char_boundary(room)];
            self.logged_bytes += message.len().max(16);
            self.logged.push((offset, level, message.to_owned()));
        }
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_keys_sort_as_times_do() {
        let times = [i64::MIN, -5, -1, 0, 1, 7, i64::MAX].map(Timestamp);
        let keys = times.map(time_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(key_time), times);
    }

    #[test]
    fn the_smallest_rows_and_timers_are_counted_with_what_they_take() {
        let limit = 100 * (PAIR_BYTES + 8);
        let config = EngineConfig { call_write_bytes_max: limit, ..EngineConfig::default() };
        let event_time = Some(lantern_core::EventTime { allowed_lateness_us: 0, tick_us: 1 });
        let tables = vec![TableSpec { name: "t".into(), ..TableSpec::default() }];
        let manifest = Arc::new(Manifest { tables, event_time, ..Manifest::default() });
        let stores = lantern_core::fake::MemoryStores::new();
        let store = lantern_core::StateStores::scratch(&stores).expect("memory opens");
        let config = Arc::new(config);
        let count = |write: fn(&mut CallHost, &str) -> Result<(), HostError>| {
            let batch = Batch { timers: vec![Timer::default()], ..Batch::default() };
            let state = CallState {
                store: store.clone(),
                committing: Arc::default(),
                applied: ChangeSet::default(),
                written: ChangeSet::default(),
            };
            let batch = Arc::new(batch);
            let mut call = CallHost::new(state, manifest.clone(), config.clone(), batch, 0);
            (0..1_000).find(|n| write(&mut call, &format!("{n:08}")).is_err())
        };
        assert_eq!(count(|call, key| call.put(Cause(0), TableId(0), key, b"")), Some(100));
        assert_eq!(count(|call, key| call.delete(Cause(0), TableId(0), key)), Some(100));
        assert_eq!(count(|call, key| call.set_timer(Cause(0), Timestamp(9), key)), Some(50));
    }
}
