//! Implements tumbling and hopping windows that are final: their rows are written once.

use super::{Owner, Window, WindowSet, from_sortable, timer_key, timer_owner, write_sortable};
use crate::error::{Error, FlushError};
use crate::event::{Event, Timer};
use crate::key::Key;
use crate::row::Stored;
use crate::table::{Scan, Table, TableField};
use crate::table_spec::TableSpec;
use crate::time::Timestamp;

/// The maximum number of window ends for which the table remembers that a timer is set. For other
/// ends the timer is set again, which changes nothing.
const ARMED_MAX: usize = 16;

/// Tumbling or hopping windows that are still open. This is a private table with the values
/// collected so far: an `A` for each window and key.
///
/// ```
/// # use lantern_sdk::prelude::*;
/// # use lantern_sdk::window::{OpenWindows, Windows};
/// # #[derive(Row, Default)] struct Rate { events: u64 }
/// #[derive(Tables)]
/// struct Rates {
///     rates: Table<Rate>,
///     #[table(private)]
///     open: OpenWindows<u64>,
/// }
///
/// impl Rates {
///     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
///         let minutes = Windows::tumbling(Duration::from_secs(60));
///         let late = self.open.add(event, minutes, event.kind(), |count| *count += 1)?;
///         # let _ = late;
///         Ok(())
///     }
///
///     fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
///         for closed in self.open.close(timer)? {
///             let key = (closed.window, &closed.key);
///             self.rates.put(key, Rate { events: closed.value })?;
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct OpenWindows<A> {
    table: Table<A>,
    id: u32,
    armed: Vec<(Timestamp, String)>,
}

/// A window that has ended, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed<A> {
    /// The start and the end of the window.
    pub window: Window,
    /// The tenant of the key, if the key is an [`InTenant`](crate::InTenant); otherwise an empty
    /// text.
    pub tenant: String,
    /// The key under which the window's events were added, without the tenant.
    pub key: String,
    /// The result of applying the window's events to `A::default()`.
    pub value: A,
}

impl<A: Stored> TableField for OpenWindows<A> {
    fn open(spec: &'static TableSpec) -> Self {
        Self { table: Table::open(spec), id: spec.id, armed: Vec::new() }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        self.table.flush()
    }

    fn check(&mut self) -> Result<(), Error> {
        self.table.check()
    }
}

impl<A: Stored + Default> OpenWindows<A> {
    /// Adds an event under `key` to each open window of `windows` that contains the event, by
    /// calling `change` with the window's value. Returns the number of windows of the event that
    /// were already closed. It is 0 unless the event is late.
    ///
    /// # Errors
    /// Returns [`Error::NoEventTime`] if the manifest has no event time, and the errors of
    /// [`Table::get`].
    pub fn add(
        &mut self,
        event: &Event<'_>,
        windows: impl WindowSet,
        key: impl Key,
        mut change: impl FnMut(&mut A),
    ) -> Result<usize, Error> {
        let owner = Owner::of(self.table.name(), key)?;
        let mut late = 0;
        for window in windows.containing(event.time()) {
            if window.end <= event.watermark() {
                late += 1;
                continue;
            }
            let mut row_key = row_prefix(window.end, &owner.tenant);
            write_sortable(window.start, &mut row_key);
            row_key.push('/');
            row_key.push_str(&owner.rest);
            if let Some(value) = self.table.get_mut(&row_key)? {
                change(value);
                continue;
            }
            self.arm(event, window.end, &owner.tenant)?;
            change(self.table.row(&row_key)?);
        }
        Ok(late)
    }

    /// Removes the windows that end when `timer` fires from the table, and returns them in the
    /// order of their starts and keys. If the timer belongs to a tenant, they are the windows of
    /// this tenant. Returns no windows if this table did not set the timer.
    ///
    /// # Errors
    /// Returns the errors of [`Table::scan`].
    pub fn close(&mut self, timer: &Timer<'_>) -> Result<Vec<Closed<A>>, Error> {
        let Some(owner) = timer_owner(self.id, timer) else {
            return Ok(Vec::new());
        };
        let Some(end) = from_sortable(&owner.rest) else {
            return Ok(Vec::new());
        };
        let prefix = row_prefix(end, &owner.tenant);
        let mut closed = Vec::new();
        for (row_key, value) in self.table.scan(&Scan::prefix(&prefix))? {
            self.table.delete(&row_key)?;
            let rest = row_key.strip_prefix(&prefix).unwrap_or_default();
            let (start, key) = rest.split_once('/').unwrap_or_default();
            let Some(start) = from_sortable(start) else {
                return Err(Error::new(format!("{row_key:?} is not an open window")));
            };
            closed.push(Closed {
                window: Window { start, end },
                tenant: owner.tenant.clone(),
                key: key.to_owned(),
                value,
            });
        }
        Ok(closed)
    }

    /// Sets the timer of the windows that end at `end`. If an instance does not know whether the
    /// timer is already set, it sets the timer again, which changes nothing.
    fn arm(&mut self, event: &Event<'_>, end: Timestamp, tenant: &str) -> Result<(), Error> {
        if self.armed.iter().any(|(at, of)| *at == end && of == tenant) {
            return Ok(());
        }
        if self.armed.len() == ARMED_MAX {
            self.armed.remove(0);
        }
        self.armed.push((end, tenant.to_owned()));
        let mut rest = String::new();
        write_sortable(end, &mut rest);
        let key = timer_key(self.id, tenant, &rest);
        event.call().set_timer(event.index(), end, &key)
    }
}

/// Returns the beginning that the keys of a tenant's windows that end at `end` have in common.
fn row_prefix(end: Timestamp, tenant: &str) -> String {
    let mut prefix = String::new();
    write_sortable(end, &mut prefix);
    prefix.push('/');
    tenant.write_part(&mut prefix);
    prefix.push('/');
    prefix
}
