//! Implements sliding windows.
//!
//! All values of a key that its windows may still need are in one row, ordered by time. A key has
//! one timer. It is set for the next time at which the windows of the key change without an event.

use std::time::Duration;

use super::{Owner, Reader, timer_key, timer_owner, write_bytes, write_time};
use crate::error::{Error, FlushError, RowError};
use crate::event::{Event, Timer};
use crate::key::Key;
use crate::row::Stored;
use crate::table::{Table, TableField};
use crate::table_spec::TableSpec;
use crate::time::{Timestamp, micros_of};

/// The maximum number of values that a [`Recent`] keeps for one key. If a key has this number of
/// values, a further event is refused and therefore parked. If you need more values, use hopping
/// windows.
pub const RECENT_EVENTS_MAX: usize = 16_384;

/// Sliding windows: the latest values of each key. A sliding window ends with each event, and not
/// at fixed times.
///
/// The window of size `size` that ends at time `t` contains the values of events after
/// `t - size`, up to and including `t`.
///
/// ```
/// # use lantern_sdk::prelude::*;
/// # use lantern_sdk::window::Recent;
/// # #[derive(Row, Default)] struct Load { cents: i64 }
/// #[derive(Tables)]
/// struct Loads {
///     load: Table<Load>,
///     #[table(private)]
///     recent: Recent<i64>,
/// }
///
/// impl Loads {
///     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
///         let user = event.subject()?;
///         if let Some(slide) = self.recent.add(event, Duration::from_secs(300), user, 7)? {
///             self.load.row(user)?.cents = slide.values().sum();
///         }
///         Ok(())
///     }
///
///     fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
///         if let Some(user) = self.recent.advance(timer)? {
///             self.load.row(&user.key)?.cents = user.current().values().sum();
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Recent<V> {
    table: Table<Values<V>>,
    id: u32,
}

/// The values in a window that ends at the time `at`.
#[derive(Debug)]
pub struct Slide<'a, V> {
    /// The last time in the window.
    pub at: Timestamp,
    entries: &'a [Entry<V>],
}

impl<'a, V> Slide<'a, V> {
    /// Returns the values in the window, in the order of their times.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &'a V> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// Returns the values in the window with their times, in the order of the times.
    pub fn timed_values(&self) -> impl ExactSizeIterator<Item = (Timestamp, &'a V)> {
        self.entries.iter().map(|entry| (entry.time, &entry.value))
    }
}

/// A key whose sliding window has moved with the watermark.
#[derive(Debug)]
pub struct Advanced<V> {
    /// The tenant of the key, if the key is an [`InTenant`](crate::InTenant); otherwise an empty
    /// text.
    pub tenant: String,
    /// The key under which the values were added, without the tenant.
    pub key: String,
    watermark: Timestamp,
    size_us: i64,
    entries: Vec<Entry<V>>,
    settled: std::ops::Range<usize>,
}

impl<V> Advanced<V> {
    /// Returns the window that ends at the watermark or, if that is later, at the newest event. It
    /// contains the values that are left after old ones were removed.
    #[must_use]
    pub fn current(&self) -> Slide<'_, V> {
        let newest = self.entries.last().map(|entry| entry.time);
        let at = newest.map_or(self.watermark, |newest| newest.max(self.watermark));
        slide(&self.entries, at, self.size_us)
    }

    /// Returns the windows that can no longer change, in order of time. Each window is returned
    /// only once. A window ends with each event, and events at the same time have the same window.
    /// An event that arrived after the watermark had passed its time has no window.
    pub fn settled(&self) -> impl Iterator<Item = Slide<'_, V>> {
        let last = |index: &usize| {
            let next = self.entries.get(index + 1);
            next.is_none_or(|next| next.time != self.entries[*index].time)
        };
        self.settled
            .clone()
            .filter(last)
            .map(|index| slide(&self.entries, self.entries[index].time, self.size_us))
    }
}

/// The values of a key, ordered by time and then by offset.
#[derive(Debug)]
struct Values<V> {
    /// The time at which the timer of the key is due.
    armed: Timestamp,
    size_us: i64,
    /// The number of values, from the first one on, whose windows were returned as settled.
    settled: usize,
    entries: Vec<Entry<V>>,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    time: Timestamp,
    value: V,
}

impl<V> Default for Values<V> {
    fn default() -> Self {
        Self { armed: Timestamp::MAX, size_us: 0, settled: 0, entries: Vec::new() }
    }
}

impl<V> Values<V> {
    /// Returns the next time at which something changes without an event. A window settles when the
    /// watermark has passed its end, and a value is removed when it is `size` old.
    fn due(&self) -> Timestamp {
        let after =
            |entry: &Entry<V>, us| Timestamp::from_micros(entry.time.micros().saturating_add(us));
        let settles = self.entries.get(self.settled).map(|entry| after(entry, 1));
        let drops = self.entries.first().map(|entry| after(entry, self.size_us));
        let due = [settles, drops].into_iter().flatten().min();
        due.unwrap_or(Timestamp::MAX)
    }
}

fn slide<V>(entries: &[Entry<V>], at: Timestamp, size_us: i64) -> Slide<'_, V> {
    let before = at.micros().saturating_sub(size_us);
    let start = entries.partition_point(|entry| entry.time.micros() <= before);
    let end = entries.partition_point(|entry| entry.time <= at);
    Slide { at, entries: &entries[start.min(end)..end] }
}

impl<V: Stored> Stored for Values<V> {
    const FALLIBLE: bool = V::FALLIBLE;

    fn check(&self) -> Result<(), RowError> {
        self.entries.iter().try_for_each(|entry| entry.value.check())
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        write_time(self.armed, out);
        write_time(Timestamp::from_micros(self.size_us), out);
        write_time(Timestamp::from_micros(self.settled as i64), out);
        for entry in &self.entries {
            write_time(entry.time, out);
            write_bytes(out, |out| entry.value.encode(out))?;
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut reader = Reader(bytes);
        let armed = reader.time()?;
        let size_us = reader.time()?.micros();
        let settled = reader.time()?.micros() as usize;
        let mut entries = Vec::new();
        while !reader.0.is_empty() {
            entries.push(Entry { time: reader.time()?, value: V::decode(reader.bytes()?)? });
        }
        Ok(Self { armed, size_us, settled, entries })
    }
}

impl<V: Stored> TableField for Recent<V> {
    fn open(spec: &'static TableSpec) -> Self {
        Self { table: Table::open(spec), id: spec.id }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        self.table.flush()
    }

    fn check(&mut self) -> Result<(), Error> {
        self.table.check()
    }
}

impl<V: Stored + Clone> Recent<V> {
    /// Adds the value of an event under `key`. Returns the window of the size `size` that ends with
    /// the newest event of the key, which is usually this event. Returns `None` if the event is so
    /// late that no window contains it any more. Use the same `size` every time, because the `size`
    /// of the last call applies to all values of a key.
    ///
    /// # Errors
    /// Returns [`Error::NoEventTime`] if the manifest has no event time, [`Error::Plugin`] if the
    /// key already has [`RECENT_EVENTS_MAX`] values, and the errors of [`Table::get`].
    pub fn add(
        &mut self,
        event: &Event<'_>,
        size: Duration,
        key: impl Key,
        value: V,
    ) -> Result<Option<Slide<'_, V>>, Error> {
        let owner = Owner::of(self.table.name(), key)?;
        let key = owner.row_key();
        let time = event.time();
        if time + size <= event.watermark() {
            return Ok(None);
        }
        let values = self.table.row(&key)?;
        if values.entries.len() >= RECENT_EVENTS_MAX {
            return Err(Error::new(format!(
                "{key:?} has {RECENT_EVENTS_MAX} values in a sliding window, which is the limit; use hopping windows"
            )));
        }
        values.size_us = micros_of(size).max(1);
        let index = values.entries.partition_point(|entry| entry.time <= time);
        values.entries.insert(index, Entry { time, value });
        if time < event.watermark() {
            // All windows up to the watermark were returned before. The window of this event ends
            // before the watermark too, so it counts as returned.
            values.settled += 1;
        }
        let due = values.due();
        if due < values.armed {
            values.armed = due;
            let timer = timer_key(self.id, &owner.tenant, &owner.rest);
            event.call().set_timer(event.index(), due, &timer)?;
        }
        let newest = values.entries.last().map_or(time, |entry| entry.time);
        Ok(Some(slide(&values.entries, newest, values.size_us)))
    }

    /// Moves the window of the key to which `timer` belongs to the watermark. Returns `None` if
    /// this table did not set the timer.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn advance(&mut self, timer: &Timer<'_>) -> Result<Option<Advanced<V>>, Error> {
        let Some(owner) = timer_owner(self.id, timer) else {
            return Ok(None);
        };
        let key = owner.row_key();
        let Some(values) = self.table.get_mut(&key)? else {
            return Ok(None);
        };
        let watermark = timer.watermark();
        let told = values.settled;
        let settled = values.entries.partition_point(|entry| entry.time < watermark).max(told);
        let advanced = Advanced {
            tenant: owner.tenant.clone(),
            key: owner.rest.clone(),
            watermark,
            size_us: values.size_us,
            entries: values.entries.clone(),
            settled: told..settled,
        };
        let size_us = values.size_us;
        let gone =
            |entry: &Entry<V>| entry.time.micros().saturating_add(size_us) <= watermark.micros();
        let dropped = values.entries.partition_point(gone);
        values.entries.drain(..dropped);
        values.settled = settled - dropped;
        if values.entries.is_empty() {
            self.table.delete(&key)?;
        } else {
            values.armed = values.due();
            timer.call.set_timer(timer.index, values.armed, timer.full_key)?;
        }
        Ok(Some(advanced))
    }
}
