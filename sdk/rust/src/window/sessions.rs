//! Implements session windows.
//!
//! All open sessions of a key are in one row, so that an event costs one lookup. A key has one
//! timer, which is set for the end of the session that ends first. An event that makes this session
//! longer does not move the timer. If the timer fires while sessions are open, it is set again.

use std::time::Duration;

use super::{Owner, Reader, Window, timer_key, timer_owner, write_bytes, write_time};
use crate::error::{Error, FlushError, RowError};
use crate::event::{Event, Timer};
use crate::key::Key;
use crate::row::Stored;
use crate::table::{Table, TableField};
use crate::table_spec::TableSpec;
use crate::time::Timestamp;

/// A value that can be combined with another one when two sessions are joined.
pub trait Combine {
    /// Adds the value of a later session to this value.
    fn combine(&mut self, later: Self);
}

impl Combine for u64 {
    /// Adds the two numbers.
    fn combine(&mut self, later: Self) {
        *self += later;
    }
}

impl Combine for i64 {
    /// Adds the two numbers.
    fn combine(&mut self, later: Self) {
        *self += later;
    }
}

/// Sessions that are still open. This is a private table with the value collected so far: an `A`
/// for each session.
///
/// A session is a series of events of one key. The time between an event and the next is less than
/// the *gap*, a duration that the projection chooses. A session ends when the gap has passed since
/// its last event. An event between two sessions may join them into one.
///
/// ```
/// # use lantern_sdk::prelude::*;
/// # use lantern_sdk::window::OpenSessions;
/// # #[derive(Row, Default)] struct Visit { user: String, events: u64 }
/// #[derive(Tables)]
/// struct Visits {
///     visits: Table<Visit>,
///     #[table(private)]
///     open: OpenSessions<u64>,
/// }
///
/// impl Visits {
///     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
///         let gap = Duration::from_secs(1_800);
///         self.open.add(event, gap, event.subject()?, |events| *events += 1)?;
///         Ok(())
///     }
///
///     fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
///         for visit in self.open.close(timer)? {
///             let key = (visit.window, &visit.key);
///             let row = Visit { user: visit.key.clone(), events: visit.value };
///             self.visits.put(key, row)?;
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct OpenSessions<A> {
    table: Table<Open<A>>,
    id: u32,
}

/// The session that an event is now part of.
#[derive(Debug)]
pub struct Joined<'a, A> {
    /// The window of the session. It begins with the first event, and ends when the gap has passed
    /// since the last one.
    pub window: Window,
    /// The value collected so far.
    pub value: &'a A,
    /// The starts of sessions that were joined into this one and no longer exist. If the projection
    /// shows sessions while they are open, it must delete the rows of these sessions.
    pub absorbed: Vec<Timestamp>,
}

/// A session that has ended, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSession<A> {
    /// The window of the session. It begins with the first event, and ends when the gap has passed
    /// since the last one.
    pub window: Window,
    /// The tenant of the key, if the key is an [`InTenant`](crate::InTenant); otherwise an empty
    /// text.
    pub tenant: String,
    /// The key under which the session's events were added, without the tenant.
    pub key: String,
    /// The result of applying the session's events to `A::default()`.
    pub value: A,
}

/// The open sessions of a key, oldest first. The time between two of them is more than the gap.
#[derive(Debug)]
struct Open<A> {
    /// The time at which the timer of the key is due.
    armed: Timestamp,
    sessions: Vec<(Window, A)>,
}

impl<A> Default for Open<A> {
    fn default() -> Self {
        Self { armed: Timestamp::MAX, sessions: Vec::new() }
    }
}

impl<A: Stored> Stored for Open<A> {
    const FALLIBLE: bool = A::FALLIBLE;

    fn check(&self) -> Result<(), RowError> {
        self.sessions.iter().try_for_each(|(_, value)| value.check())
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        write_time(self.armed, out);
        for (window, value) in &self.sessions {
            write_time(window.start, out);
            write_time(window.end, out);
            write_bytes(out, |out| value.encode(out))?;
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut reader = Reader(bytes);
        let armed = reader.time()?;
        let mut sessions = Vec::new();
        while !reader.0.is_empty() {
            let (start, end) = (reader.time()?, reader.time()?);
            sessions.push((Window { start, end }, A::decode(reader.bytes()?)?));
        }
        Ok(Self { armed, sessions })
    }
}

impl<A: Stored> TableField for OpenSessions<A> {
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

impl<A: Stored + Default + Combine> OpenSessions<A> {
    /// Adds an event to the session of `key` to which it belongs, by calling `change` with the
    /// session's value. The session may be a new one. Returns `None` if the event is late, because
    /// its session is already closed.
    ///
    /// The gap is the time without events after which a session ends. An event is late if its time
    /// is the gap or more before the watermark, unless the event is within an open session. Such an
    /// event does not move the start of the open session back to its own time, because a session
    /// with this start may already be closed. Two sessions of a key must not have the same start.
    ///
    /// # Errors
    /// Returns [`Error::NoEventTime`] if the manifest has no event time, and the errors of
    /// [`Table::get`].
    pub fn add(
        &mut self,
        event: &Event<'_>,
        gap: Duration,
        key: impl Key,
        change: impl FnOnce(&mut A),
    ) -> Result<Option<Joined<'_, A>>, Error> {
        let owner = Owner::of(self.table.name(), key)?;
        let key = owner.row_key();
        let alone = Window { start: event.time(), end: event.time() + gap };
        if alone.end <= event.watermark() {
            let within = |(it, _): &(Window, A)| (it.start..it.end).contains(&alone.start);
            let known = self.table.get(&key)?;
            if !known.is_some_and(|open| open.sessions.iter().any(within)) {
                return Ok(None);
            }
        }

        let open = self.table.row(&key)?;
        let first = open.sessions.partition_point(|(it, _)| it.end <= alone.start);
        let after = open.sessions.partition_point(|(it, _)| it.start < alone.end);
        let mut window = alone;
        let mut absorbed = Vec::new();
        let mut value: Option<A> = None;
        for (it, gathered) in open.sessions.drain(first..after) {
            window.start = window.start.min(it.start);
            window.end = window.end.max(it.end);
            absorbed.push(it.start);
            match &mut value {
                Some(value) => value.combine(gathered),
                None => value = Some(gathered),
            }
        }
        absorbed.retain(|start| *start != window.start);
        let mut value = value.unwrap_or_default();
        change(&mut value);
        open.sessions.insert(first, (window, value));
        if window.end < open.armed {
            open.armed = window.end;
            let timer = timer_key(self.id, &owner.tenant, &owner.rest);
            event.call().set_timer(event.index(), window.end, &timer)?;
        }
        let (window, value) = &open.sessions[first];
        Ok(Some(Joined { window: *window, value, absorbed }))
    }

    /// Removes the sessions that end when `timer` fires from the table, and returns them, oldest
    /// first. Returns no sessions if this table did not set the timer.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn close(&mut self, timer: &Timer<'_>) -> Result<Vec<ClosedSession<A>>, Error> {
        let Some(owner) = timer_owner(self.id, timer) else {
            return Ok(Vec::new());
        };
        let key = owner.row_key();
        let Some(open) = self.table.get_mut(&key)? else {
            return Ok(Vec::new());
        };
        let over = |(it, _): &(Window, A)| it.end <= timer.watermark();
        let count = open.sessions.partition_point(over);
        let closed = open.sessions.drain(..count);
        let closed = closed.map(|(window, value)| ClosedSession {
            window,
            tenant: owner.tenant.clone(),
            key: owner.rest.clone(),
            value,
        });
        let closed = closed.collect();
        match open.sessions.first() {
            Some((next, _)) => {
                open.armed = next.end;
                timer.call.set_timer(timer.index, next.end, timer.full_key)?;
            }
            None => self.table.delete(&key)?,
        }
        Ok(closed)
    }
}
