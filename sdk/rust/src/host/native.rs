//! Implements a host in memory for native tests. Each thread has one.
//!
//! Like the real host, it keeps the writes of the current call separate from the
//! committed state, so that a failed call leaves nothing behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::bindings::lantern::projection::types::{Column, Level, NewEvent, Row};

/// The rows of a table, by key.
pub(crate) type Rows = BTreeMap<String, Vec<u8>>;

/// The state of a shard between calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The rows of each table, by the index of the table.
    pub(crate) tables: BTreeMap<u32, Rows>,
    /// The timers that are set, by key.
    pub(crate) timers: BTreeMap<String, TimerState>,
    /// The emitted events, oldest first, each with the offset of its cause.
    pub(crate) emitted: Vec<(u64, NewEvent)>,
}

/// A timer or an event of the current call.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    /// The offset of the event. For a timer, it is the offset of the event that set the timer.
    pub(crate) offset: u64,
    /// The tenant; `None` for a timer that belongs to no tenant.
    pub(crate) tenant: Option<String>,
}

/// The times of a timer, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimerState {
    /// The time for which the timer was set.
    pub(crate) at: i64,
    /// The time at which the timer fires. It is after the watermark of the call that set the timer.
    /// So a timer never fires in the call that sets it, and its time does not depend on where the
    /// batch ends.
    pub(crate) due: i64,
    /// The offset of the event that set the timer.
    pub(crate) offset: u64,
}

/// The committed state, and the writes of the current call.
#[derive(Debug, Default)]
pub(crate) struct MemoryHost {
    /// The state after the last successful call.
    pub(crate) state: State,
    /// The log messages, including those of calls that failed.
    pub(crate) logs: Vec<(Level, String)>,
    /// The watermark of the current call, in microseconds.
    pub(crate) watermark: i64,
    /// The timers and events of the current call.
    pub(crate) triggers: Vec<Trigger>,
    /// The number of calls of the contract's imports.
    pub(crate) calls: u64,
    rows: BTreeMap<(u32, String), Option<Vec<u8>>>,
    timers: BTreeMap<String, Option<TimerState>>,
    emitted: Vec<(u64, NewEvent)>,
}

impl MemoryHost {
    /// Returns the timer or event `cause` of the current call.
    ///
    /// # Panics
    /// Panics if the call has no such timer or event. The real host traps the call in this case.
    fn trigger(&self, cause: u32) -> &Trigger {
        let known = self.triggers.get(cause as usize);
        known.unwrap_or_else(|| panic!("the call has no timer or event {cause}"))
    }

    fn check_causes(&self, causes: &[u32], wanted: &Column) {
        assert_eq!(causes.len(), wanted.ends.len(), "each row has a cause");
        for cause in causes {
            self.trigger(*cause);
        }
    }

    /// Checks that `cause` may use the timer `key`.
    ///
    /// # Panics
    /// Panics if `key` belongs to another tenant than `cause`. The real host traps the call in this
    /// case.
    fn check_timer(&self, cause: u32, key: &str) -> &Trigger {
        let trigger = self.trigger(cause);
        let tenant = key.split_once('\0').map(|(tenant, _)| tenant);
        let fits = tenant.is_none() || tenant == trigger.tenant.as_deref();
        assert!(fits, "timer {key:?} belongs to another tenant than its cause");
        trigger
    }

    /// Returns the rows that the current call has written: the table, the key, and the value, which
    /// is `None` if the row was deleted.
    pub(crate) fn written(&self) -> impl Iterator<Item = (u32, &str, Option<&[u8]>)> {
        self.rows.iter().map(|((table, key), value)| (*table, key.as_str(), value.as_deref()))
    }

    /// Makes the writes of the current call a part of the state.
    pub(crate) fn commit(&mut self) {
        for ((table, key), value) in std::mem::take(&mut self.rows) {
            let rows = self.state.tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        for (key, timer) in std::mem::take(&mut self.timers) {
            match timer {
                Some(timer) => self.state.timers.insert(key, timer),
                None => self.state.timers.remove(&key),
            };
        }
        self.state.emitted.append(&mut self.emitted);
    }

    /// Drops the writes of the current call.
    pub(crate) fn discard(&mut self) {
        self.rows.clear();
        self.timers.clear();
        self.emitted.clear();
    }

    fn timer(&self, key: &str) -> Option<TimerState> {
        match self.timers.get(key) {
            Some(timer) => *timer,
            None => self.state.timers.get(key).copied(),
        }
    }

    fn row(&self, table: u32, key: &str) -> Option<&[u8]> {
        match self.rows.get(&(table, key.to_owned())) {
            Some(value) => value.as_deref(),
            None => self.state.tables.get(&table).and_then(|rows| rows.get(key)).map(Vec::as_slice),
        }
    }

    fn rows_between(&self, table: u32, start: &str, end: &str) -> Vec<Row> {
        if !end.is_empty() && end <= start {
            return Vec::new();
        }
        let after = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let mut rows: BTreeMap<&str, &[u8]> = BTreeMap::new();
        if let Some(kept) = self.state.tables.get(&table) {
            let kept = kept.range::<str, _>((Bound::Included(start), after));
            rows.extend(kept.map(|(key, value)| (key.as_str(), value.as_slice())));
        }
        for ((of, key), value) in &self.rows {
            if *of != table || key.as_str() < start || (!end.is_empty() && key.as_str() >= end) {
                continue;
            }
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(key.as_str()),
            };
        }
        rows.into_iter()
            .map(|(key, value)| Row { key: key.to_owned(), value: value.to_vec() })
            .collect()
    }
}

thread_local! {
    static HOST: RefCell<MemoryHost> = RefCell::default();
    /// The name and the text of the source code that new instances run.
    static SOURCE: RefCell<(String, String)> = RefCell::default();
}

/// Sets the source code that new instances of this thread run.
pub(crate) fn set_source(name: &str, text: &str) {
    SOURCE.set((name.to_owned(), text.to_owned()));
}

pub(crate) fn source_name() -> String {
    SOURCE.with_borrow(|(name, _)| name.clone())
}

pub(crate) fn source_text() -> String {
    SOURCE.with_borrow(|(_, text)| text.clone())
}

/// Exchanges this thread's host with `other`.
pub(crate) fn swap(other: &mut MemoryHost) {
    HOST.with_borrow_mut(|host| std::mem::swap(host, other));
}

fn call<T>(act: impl FnOnce(&mut MemoryHost) -> T) -> T {
    HOST.with_borrow_mut(|host| {
        host.calls += 1;
        act(host)
    })
}

fn values(column: &Column) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    column.ends.iter().map(move |end| {
        let end = *end as usize;
        let value = &column.bytes[start..end];
        start = end;
        value
    })
}

fn keys(column: &Column) -> impl Iterator<Item = &str> {
    values(column).map(|key| std::str::from_utf8(key).expect("the SDK builds keys from strings"))
}

pub(crate) fn get(table: u32, key: &str) -> Option<Vec<u8>> {
    call(|host| host.row(table, key).map(<[u8]>::to_vec))
}

pub(crate) fn get_many(table: u32, wanted: &Column) -> (Vec<bool>, Column) {
    call(|host| {
        let mut found = Vec::with_capacity(wanted.ends.len());
        let mut rows = Column { ends: Vec::with_capacity(wanted.ends.len()), bytes: Vec::new() };
        for key in keys(wanted) {
            let row = host.row(table, key);
            found.push(row.is_some());
            rows.bytes.extend_from_slice(row.unwrap_or_default());
            rows.ends.push(rows.bytes.len() as u32);
        }
        (found, rows)
    })
}

pub(crate) fn put_many(causes: &[u32], table: u32, wanted: &Column, rows: &Column) {
    call(|host| {
        host.check_causes(causes, wanted);
        for (key, value) in keys(wanted).zip(values(rows)) {
            host.rows.insert((table, key.to_owned()), Some(value.to_vec()));
        }
    });
}

pub(crate) fn delete_many(causes: &[u32], table: u32, wanted: &Column) {
    call(|host| {
        host.check_causes(causes, wanted);
        for key in keys(wanted) {
            host.rows.insert((table, key.to_owned()), None);
        }
    });
}

pub(crate) fn scan(table: u32, start: &str, end: &str, limit: u32, reverse: bool) -> Vec<Row> {
    call(|host| {
        let mut rows = host.rows_between(table, start, end);
        if reverse {
            rows.reverse();
        }
        rows.truncate(limit as usize);
        rows
    })
}

pub(crate) fn set_timer(cause: u32, at: i64, key: &str) {
    call(|host| {
        let offset = host.check_timer(cause, key).offset;
        // If a timer is set to the time that it already has, it keeps the offset of the event that
        // set it first.
        if host.timer(key).is_none_or(|timer| timer.at != at) {
            let due = at.max(host.watermark.saturating_add(1));
            host.timers.insert(key.to_owned(), Some(TimerState { at, due, offset }));
        }
    });
}

pub(crate) fn cancel_timer(cause: u32, key: &str) {
    call(|host| {
        host.check_timer(cause, key);
        host.timers.insert(key.to_owned(), None);
    });
}

pub(crate) fn emit(events: &[NewEvent]) {
    call(|host| {
        for event in events {
            let Trigger { offset, tenant } = host.trigger(event.cause).clone();
            let tenant = tenant.unwrap_or_default();
            let fits = event.tenant.is_empty() || event.tenant == tenant;
            assert!(fits, "an emitted event has another tenant than its cause: {event:?}");
            host.emitted.push((offset, NewEvent { tenant, ..event.clone() }));
        }
    });
}

pub(crate) fn log(_cause: u32, level: Level, message: &str) {
    call(|host| host.logs.push((level, message.to_owned())));
}
