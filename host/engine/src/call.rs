//! One call of a plugin: answers what it asks the host for and gathers what it
//! writes, apart from everything else until the call has succeeded.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use lantern_core::{
    FoundValues, Host, HostError, KeyRange, Level, Manifest, NewEvent, Row, ShardStore, Space,
    Table, TableId, Timestamp,
};
use serde::de::IgnoredAny;

use crate::EngineConfig;
use crate::layers::{self, Frozen, Layer, Overlay, PAIR_BYTES};
use crate::plain::is_json_object;

/// What the engine lends to a plugin for the time of a call.
pub(crate) struct Call {
    pub(crate) store: Arc<dyn ShardStore>,
    /// Being committed.
    pub(crate) committing: Arc<Frozen>,
    /// Applied since.
    pub(crate) applied: Overlay,
    /// Written by this call.
    pub(crate) written: Overlay,
    pub(crate) emitted: Vec<NewEvent>,
    pub(crate) logged: Vec<(Level, String)>,
    pub(crate) timers_now: u64,
    manifest: Arc<Manifest>,
    config: Arc<EngineConfig>,
    watermark: Timestamp,
    now: Timestamp,
    tenants: BTreeSet<String>,
    /// The offsets a cause may have, first and last.
    causes: (u64, u64),
    written_bytes: usize,
    logged_bytes: usize,
}

/// What a call may refer to.
pub(crate) struct CallScope {
    pub(crate) watermark: Timestamp,
    /// What rows written now count their retention from: the watermark, or
    /// before the first one what the first event makes it.
    pub(crate) now: Timestamp,
    pub(crate) tenants: BTreeSet<String>,
    pub(crate) causes: (u64, u64),
    pub(crate) timers_now: u64,
}

impl Call {
    pub(crate) fn new(
        store: Arc<dyn ShardStore>,
        committing: Arc<Frozen>,
        applied: Overlay,
        written: Overlay,
        manifest: Arc<Manifest>,
        config: Arc<EngineConfig>,
        scope: CallScope,
    ) -> Self {
        Self {
            store,
            committing,
            applied,
            written,
            emitted: Vec::new(),
            logged: Vec::new(),
            timers_now: scope.timers_now,
            manifest,
            config,
            watermark: scope.watermark,
            now: scope.now,
            tenants: scope.tenants,
            causes: scope.causes,
            written_bytes: 0,
            logged_bytes: 0,
        }
    }

    /// Takes a timer that is about to fire out of the set.
    pub(crate) fn take_timer(&mut self, due: Timestamp, key: &str) {
        self.written.set(Space::TimersByTime, &timer_key(due, key), None);
        self.written.set(Space::TimersByKey, key.as_bytes(), None);
        self.timers_now = self.timers_now.saturating_sub(1);
    }

    /// What lies over the store, the topmost first.
    fn layers(&self) -> [&dyn Layer; 3] {
        [&self.written, &self.applied, &*self.committing]
    }

    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, HostError> {
        layers::get(&self.layers(), &*self.store, space, key)
            .map_err(|e| HostError::Fault(e.to_string()))
    }

    fn table(&self, table: TableId) -> Result<&Table, HostError> {
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

    fn check_write(&self, table: TableId, key: &str) -> Result<&Table, HostError> {
        let declared = self.table(table)?;
        self.check_key("key", key)?;
        if declared.per_tenant {
            let tenant = key.split_once('\0').map(|(tenant, _)| tenant);
            if !tenant.is_some_and(|tenant| self.tenants.contains(tenant)) {
                return Err(HostError::Guest(format!(
                    "table `{}` holds rows of tenants: `{}` does not begin with a tenant of this batch and U+0000 (does the manifest ask for `tenant`?)",
                    declared.name,
                    key.escape_debug()
                )));
            }
        }
        Ok(declared)
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

    /// Notes when the row under `key` expires, or (`None`) that it is gone.
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

    fn cancel(&mut self, key: &str) -> Result<(), HostError> {
        if let Some(due) = self.read(Space::TimersByKey, key.as_bytes())? {
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

/// Eight bytes that sort as the times do.
pub(crate) fn time_key(time: Timestamp) -> [u8; 8] {
    (time.0 as u64 ^ (1 << 63)).to_be_bytes()
}

/// The inverse of [`time_key`].
pub(crate) fn key_time(bytes: [u8; 8]) -> Timestamp {
    Timestamp((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

/// A row's key in [`Space::Expiry`], by time.
pub(crate) fn expiry_by_time(at: [u8; 8], table: TableId, key: &[u8]) -> Vec<u8> {
    [&[0], at.as_slice(), &table.0.to_be_bytes(), key].concat()
}

/// A row's key in [`Space::Expiry`], by table and key.
pub(crate) fn expiry_by_row(table: TableId, key: &[u8]) -> Vec<u8> {
    [&[1], table.0.to_be_bytes().as_slice(), key].concat()
}

/// A timer's key in [`Space::TimersByTime`].
pub(crate) fn timer_key(due: Timestamp, key: &str) -> Vec<u8> {
    let mut bytes = time_key(due).to_vec();
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

impl Host for Call {
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.table(table)?;
        self.read(Space::Table(table), key.as_bytes())
    }

    fn get_many(
        &mut self,
        table: TableId,
        keys: &[&str],
        found: &mut FoundValues,
    ) -> Result<(), HostError> {
        self.table(table)?;
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        layers::get_many(&self.layers(), &*self.store, Space::Table(table), &keys, found)
            .map_err(|e| HostError::Fault(e.to_string()))
    }

    fn put(&mut self, table: TableId, key: &str, value: &[u8]) -> Result<(), HostError> {
        let declared = self.check_write(table, key)?;
        if declared.public && !is_json_object(value) {
            return Err(HostError::Guest(format!(
                "row `{}` of public table `{}` is not a JSON object: {}",
                key.escape_debug(),
                declared.name,
                excerpt(value)
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
            let at = Timestamp(self.now.0.saturating_add(retention));
            self.set_expiry(table, key, Some(at))?;
        }
        self.count_written(key.len() + value.len() + PAIR_BYTES)?;
        self.written.set(Space::Table(table), key.as_bytes(), Some(value));
        Ok(())
    }

    fn delete(&mut self, table: TableId, key: &str) -> Result<(), HostError> {
        if self.check_write(table, key)?.retention_us.is_some() {
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
        let pairs =
            layers::scan(&self.layers(), &*self.store, space, &range, limit as usize, reverse)
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

    fn set_timer(&mut self, at: Timestamp, key: &str) -> Result<(), HostError> {
        if self.manifest.event_time.is_none() {
            return Err(HostError::Guest(
                "a timer was set, but the manifest declares no `event-time`".into(),
            ));
        }
        self.check_key("timer key", key)?;
        if self.manifest.tables.iter().any(|t| t.per_tenant)
            && let Some((tenant, _)) = key.split_once('\0')
            && !self.tenants.contains(tenant)
        {
            return Err(HostError::Guest(format!(
                "timer `{}` belongs to a tenant that is not of this batch",
                key.escape_debug()
            )));
        }
        self.cancel(key)?;
        let limit = self.config.timers_max;
        if self.timers_now >= limit {
            return Err(HostError::Guest(format!(
                "more than {limit} timers are set (`engine.timers_max`)"
            )));
        }
        // One that is due already fires at the next tick: never in the call that
        // sets it, and wherever batches are cut.
        let due = at.max(Timestamp(self.watermark.0.saturating_add(1)));
        self.count_written(2 * (key.len() + PAIR_BYTES))?;
        self.written.set(Space::TimersByTime, &timer_key(due, key), Some(&at.0.to_be_bytes()));
        self.written.set(Space::TimersByKey, key.as_bytes(), Some(&time_key(due)));
        self.timers_now += 1;
        Ok(())
    }

    fn cancel_timer(&mut self, key: &str) -> Result<(), HostError> {
        self.cancel(key)
    }

    fn emit(&mut self, event: NewEvent) -> Result<(), HostError> {
        if !self.manifest.emits.contains(&event.kind) {
            return Err(HostError::Guest(format!(
                "event type `{}` was emitted, but the manifest's `emits` does not name it",
                event.kind.escape_debug()
            )));
        }
        let (first, last) = self.causes;
        if event.cause < first || event.cause > last {
            return Err(HostError::Guest(format!(
                "an emitted event names offset {} as its cause, which is not within {first}..={last}",
                event.cause
            )));
        }
        if serde_json::from_slice::<IgnoredAny>(&event.data).is_err() {
            return Err(HostError::Guest(format!(
                "the data of an emitted `{}` is not JSON: {}",
                event.kind,
                excerpt(&event.data)
            )));
        }
        let limit = self.config.call_emit_max;
        if self.emitted.len() >= limit {
            return Err(HostError::Guest(format!(
                "the call emitted more than {limit} events (`engine.call_emit_max`)"
            )));
        }
        let bytes = event.data.len() + event.subject.len() + event.tenant.len();
        let limit = self.config.emit_bytes_max;
        if bytes > limit {
            return Err(HostError::Guest(format!(
                "an emitted `{}` of {bytes} bytes is over the limit of {limit} (`engine.emit_bytes_max`)",
                event.kind
            )));
        }
        self.count_written(bytes + PAIR_BYTES)?;
        self.emitted.push(event);
        Ok(())
    }

    fn log(&mut self, level: Level, message: &str) -> Result<(), HostError> {
        // What is too much is cut, not punished: logging must not decide over
        // an event.
        let room = self.config.call_log_bytes_max.saturating_sub(self.logged_bytes);
        if room > 0 {
            let message = &message[..message.floor_char_boundary(room)];
            self.logged_bytes += message.len().max(16);
            self.logged.push((level, message.to_owned()));
        }
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The beginning of `value` as text.
fn excerpt(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
    if value.len() > 80 { format!("{text}…") } else { text }
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
        let tables = vec![Table { name: "t".into(), ..Table::default() }];
        let manifest = Arc::new(Manifest { tables, event_time, ..Manifest::default() });
        let stores = lantern_core::fake::MemoryStores::new();
        let store = lantern_core::StateStores::scratch(&stores).expect("memory opens");
        let config = Arc::new(config);
        let count = |write: fn(&mut Call, &str) -> Result<(), HostError>| {
            let scope = CallScope {
                watermark: Timestamp(0),
                now: Timestamp(0),
                tenants: BTreeSet::new(),
                causes: (0, 0),
                timers_now: 0,
            };
            let mut call = Call::new(
                store.clone(),
                Arc::default(),
                Overlay::default(),
                Overlay::default(),
                manifest.clone(),
                config.clone(),
                scope,
            );
            (0..1_000).find(|n| write(&mut call, &format!("{n:08}")).is_err())
        };
        assert_eq!(count(|call, key| call.put(TableId(0), key, b"")), Some(100));
        assert_eq!(count(|call, key| call.delete(TableId(0), key)), Some(100));
        assert_eq!(count(|call, key| call.set_timer(Timestamp(9), key)), Some(50));
    }
}
