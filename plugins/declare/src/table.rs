//! Applies events to a table of a declaration.

use std::cell::RefCell;
use std::fmt::Write as _;

use lantern_sdk::dynamic::{FlushError, TableField, TableSpec, declare, keep};
use lantern_sdk::prelude::*;
use lantern_sdk::window::{OpenSessions, OpenWindows, Window, WindowSet as _};
use lantern_sdk::{CACHE_ROWS, Distinct, Percentiles, Value as _};

use crate::expression::evaluate::{Input, Value};
use crate::plan::{Column, KeyPart, TablePlan, Update, WindowPlan};
use crate::row::{DeclaredRow, Slot, add};

/// A table of a declaration. If its windows are written at their end, it also contains the private
/// table of open windows.
pub(crate) struct DeclaredTable {
    plan: TablePlan,
    rows: Table<DeclaredRow>,
    open: Open,
    specs: Vec<&'static TableSpec>,
    /// The key of the current event. Its memory is used again, so that a lookup allocates nothing.
    key: String,
    /// The last timestamp in a key, with its text. Most events have the timestamp of the event
    /// before.
    last: RefCell<(Timestamp, String)>,
}

/// The windows that have not ended.
enum Open {
    None,
    Windows(OpenWindows<DeclaredRow>),
    Sessions(OpenSessions<DeclaredRow>),
}

/// The key of a row, with the tenant if the table is per tenant.
#[derive(Clone, Copy)]
struct RowKey<'a> {
    tenant: Option<&'a str>,
    key: &'a str,
}

impl Key for RowKey<'_> {
    #[inline]
    fn write(&self, out: &mut String) {
        match self.tenant {
            Some(tenant) => InTenant(tenant, self.key).write(out),
            None => self.key.write(out),
        }
    }

    #[inline]
    fn tenant(&self) -> Option<&str> {
        self.tenant
    }
}

impl DeclaredTable {
    /// Opens the table of a plan. `id` is the index of the table in the manifest.
    pub(crate) fn open(plan: TablePlan, id: u32) -> Self {
        let spec = declare(TableSpec {
            id,
            name: keep(&plan.name),
            description: keep(&plan.description),
            public: true,
            per_tenant: plan.per_tenant,
            fields: plan.fields.clone().leak(),
            newest_by: plan.newest_by,
            retention_us: plan.retention_us,
            cache_rows: CACHE_ROWS,
        });
        let mut specs = vec![spec];
        let open = if plan.window.needs_timers() {
            let open = declare(TableSpec {
                id: id + 1,
                name: keep(&format!("{}-open", plan.name)),
                description: "Windows that are not over",
                public: false,
                per_tenant: false,
                fields: &[],
                newest_by: None,
                retention_us: None,
                cache_rows: CACHE_ROWS,
            });
            specs.push(open);
            match plan.window {
                WindowPlan::Sessions { .. } => Open::Sessions(OpenSessions::open(open)),
                _ => Open::Windows(OpenWindows::open(open)),
            }
        } else {
            Open::None
        };
        Self {
            plan,
            rows: Table::open(spec),
            open,
            specs,
            key: String::new(),
            last: RefCell::default(),
        }
    }

    /// Returns the declarations of the tables of which this table consists.
    pub(crate) fn specs(&self) -> &[&'static TableSpec] {
        &self.specs
    }

    /// Returns the name of the table.
    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    pub(crate) fn flush(&mut self) -> Result<(), FlushError> {
        self.rows.flush()?;
        match &mut self.open {
            Open::None => Ok(()),
            Open::Windows(open) => open.flush(),
            Open::Sessions(open) => open.flush(),
        }
    }

    /// Reads the rows that the events of a batch need in one call, if most of them are not in
    /// memory.
    pub(crate) fn prefetch(
        &mut self,
        events: Events<'_>,
        filter: Option<&crate::Node>,
    ) -> Result<(), Error> {
        if !matches!(self.plan.window, WindowPlan::None | WindowPlan::Updating { .. }) {
            return Ok(());
        }
        let Self { plan, rows, last, .. } = self;
        let keys = events.filter_map(|event| {
            let input = Input { event: Some(&event), window: None };
            // An event that fails here fails again in `apply`, which reports it.
            let wanted = |node: &crate::Node| node.evaluate(input).is_ok_and(|it| it.is_true());
            if !filter.is_none_or(wanted) || !plan.filter.as_ref().is_none_or(wanted) {
                return None;
            }
            let mut key = String::new();
            plan.write_key(input, last, &mut key).ok()?;
            let window = match &plan.window {
                WindowPlan::Updating { sizes } => sizes.containing(event.time()).next(),
                _ => None,
            };
            let key = match window {
                Some(window) => in_window(window, &key),
                None => key,
            };
            let tenant = plan.tenant(&event).ok()?;
            Some(OwnedKey { tenant: tenant.map(str::to_owned), key })
        });
        rows.prefetch(keys)
    }

    /// Applies an event. Returns how many of its windows had already ended.
    pub(crate) fn apply(&mut self, event: &Event<'_>) -> Result<usize, Error> {
        let Self { plan, rows, open, key, last, .. } = self;
        let input = Input { event: Some(event), window: None };
        if let Some(filter) = &plan.filter
            && !filter.evaluate(input)?.is_true()
        {
            return Ok(0);
        }
        key.clear();
        plan.write_key(input, last, key)?;
        let row_key = RowKey { tenant: plan.tenant(event)?, key };
        match (&plan.window, open) {
            (WindowPlan::None, _) => {
                plan.update(rows.row(row_key)?, input)?;
            }
            (WindowPlan::Updating { sizes }, _) => {
                for window in sizes.containing(event.time()) {
                    let key = in_window(window, row_key.key);
                    let input = Input { window: Some(window), ..input };
                    plan.update(rows.row(RowKey { key: &key, ..row_key })?, input)?;
                }
            }
            (WindowPlan::Final { sizes, .. }, Open::Windows(open)) => {
                let mut result = Ok(());
                let late = open.add(event, sizes, row_key, |row| {
                    if result.is_ok() {
                        result = plan.update(row, input);
                    }
                })?;
                result?;
                return Ok(late);
            }
            (WindowPlan::Sessions { gap, is_final, .. }, Open::Sessions(open)) => {
                let mut result = Ok(());
                let joined = open.add(event, *gap, row_key, |row| {
                    result = plan.update(row, input);
                })?;
                let Some(joined) = joined else {
                    return Ok(1);
                };
                result?;
                if !is_final {
                    for start in joined.absorbed {
                        let key = in_window(Window { start, end: start }, row_key.key);
                        rows.delete(RowKey { key: &key, ..row_key })?;
                    }
                    let key = in_window(joined.window, row_key.key);
                    let row = plan.closed(joined.value.clone(), joined.window)?;
                    rows.put(RowKey { key: &key, ..row_key }, row)?;
                }
            }
            _ => return Err(Error::new("the table has no open windows")),
        }
        Ok(0)
    }

    /// Writes the rows of the windows that end when `timer` fires.
    pub(crate) fn close(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        let Self { plan, rows, open, .. } = self;
        let mut put = |window: Window, tenant: &str, key: &str, value: DeclaredRow| {
            let key = in_window(window, key);
            let tenant = plan.per_tenant.then_some(tenant);
            rows.put(RowKey { tenant, key: &key }, plan.closed(value, window)?)
        };
        match open {
            Open::None => Ok(()),
            Open::Windows(open) => open
                .close(timer)?
                .into_iter()
                .try_for_each(|it| put(it.window, &it.tenant, &it.key, it.value)),
            Open::Sessions(open) => {
                let closed = open.close(timer)?;
                if matches!(plan.window, WindowPlan::Sessions { is_final: false, .. }) {
                    return Ok(());
                }
                closed.into_iter().try_for_each(|it| put(it.window, &it.tenant, &it.key, it.value))
            }
        }
    }
}

/// A [`RowKey`] that owns its texts.
struct OwnedKey {
    tenant: Option<String>,
    key: String,
}

impl Key for OwnedKey {
    fn write(&self, out: &mut String) {
        RowKey { tenant: self.tenant.as_deref(), key: &self.key }.write(out);
    }

    fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

/// Returns the key of a row of a window. It consists of the start of the window and the rest of the
/// key.
fn in_window(window: Window, key: &str) -> String {
    let mut whole = window.start.to_key();
    if !key.is_empty() {
        let _ = write!(whole, "/{key}");
    }
    whole
}

impl TablePlan {
    /// Appends the parts of the key for an event to `out`, without the window and the tenant.
    fn write_key(
        &self,
        input: Input<'_, '_>,
        last: &RefCell<(Timestamp, String)>,
        out: &mut String,
    ) -> Result<(), Error> {
        let windowed = !matches!(self.window, WindowPlan::None);
        let escaped = self.key.len() > 1 || windowed;
        for (index, part) in self.key.iter().enumerate() {
            if index > 0 {
                out.push('/');
            }
            match part.node.evaluate(input)? {
                Value::Null => return Err(Error::new(part.missing())),
                Value::Timestamp(time) => {
                    let (of, text) = &mut *last.borrow_mut();
                    if *of != time || text.is_empty() {
                        text.clear();
                        *of = time;
                        KeyPart::write(&Value::Timestamp(time), escaped, text);
                    }
                    out.push_str(text);
                }
                value => KeyPart::write(&value, escaped, out),
            }
        }
        if self.key.is_empty() && !windowed {
            out.push_str("all");
        }
        Ok(())
    }

    fn tenant<'e>(&self, event: &Event<'e>) -> Result<Option<&'e str>, Error> {
        if !self.per_tenant {
            return Ok(None);
        }
        match event.tenant()? {
            "" => Err(Error::new(format!(
                "the event has no tenant, and the rows of `{}` belong to tenants; leave it out with `where: exists(tenant)`",
                self.name
            ))),
            tenant => Ok(Some(tenant)),
        }
    }

    /// Changes a row as an event requires.
    fn update(&self, row: &mut DeclaredRow, input: Input<'_, '_>) -> Result<(), Error> {
        let fresh = row.is_empty();
        let slots = row.slots(self.layout)?;
        let time = input.event.map_or(Timestamp::MIN, |event| event.time());
        let older = self.layout.first_at.is_some_and(|at| match slots[at] {
            Slot::Timestamp(first) => time < first,
            _ => true,
        });
        let newer = self.layout.last_at.is_some_and(|at| match slots[at] {
            Slot::Timestamp(last) => time >= last,
            _ => true,
        });
        for (index, column) in self.columns.iter().enumerate() {
            if let Some(filter) = &column.filter
                && !filter.evaluate(input)?.is_true()
            {
                // A counter begins at 0, and a sketch begins without values.
                if slots[index] == Slot::Null {
                    slots[index] = column.zero();
                }
                continue;
            }
            let moves = Moves { fresh, older, newer, time };
            self.change(index, column, &mut slots[index], input, moves)?;
        }
        Ok(())
    }

    fn change(
        &self,
        index: usize,
        column: &Column,
        slot: &mut Slot,
        input: Input<'_, '_>,
        moves: Moves,
    ) -> Result<(), Error> {
        let layout = &self.layout.columns[index];
        let evaluated = |node: &crate::Node| self.slot(index, node.evaluate(input)?);
        match &column.update {
            Update::Once(node) if moves.fresh => *slot = evaluated(node)?,
            Update::OfWindow(node) if moves.fresh && input.window.is_some() => {
                *slot = evaluated(node)?;
            }
            Update::Once(_) | Update::OfWindow(_) => {}
            Update::Count => match slot {
                Slot::Integer(count) => *count = add(layout.name, *count, 1)?,
                _ => *slot = Slot::Integer(1),
            },
            Update::Sum(node) => {
                let more = match node.evaluate(input)? {
                    Value::Integer(more) => more,
                    _ => 0,
                };
                match slot {
                    Slot::Integer(sum) => *sum = add(layout.name, *sum, more)?,
                    _ => *slot = Slot::Integer(more),
                }
            }
            Update::Min(node) | Update::Max(node) => slot.absorb(layout, evaluated(node)?)?,
            Update::First(node) if moves.older => *slot = evaluated(node)?,
            Update::Last(node) if moves.newer => *slot = evaluated(node)?,
            Update::FirstAt if moves.older => {
                *slot = self.slot(index, Value::Timestamp(moves.time))?
            }
            Update::LastAt if moves.newer => {
                *slot = self.slot(index, Value::Timestamp(moves.time))?
            }
            Update::First(_) | Update::Last(_) | Update::FirstAt | Update::LastAt => {}
            Update::Distinct(node) => {
                if !matches!(slot, Slot::Distinct(_)) {
                    *slot = column.zero();
                }
                if let Slot::Distinct(sketch) = slot {
                    match node.evaluate(input)? {
                        Value::Text(text) => sketch.add(&text),
                        Value::Integer(number) => sketch.add_integer(number),
                        Value::Boolean(value) => sketch.add(if value { "true" } else { "false" }),
                        Value::Timestamp(time) => sketch.add(&time.to_string()),
                        Value::Null | Value::Number(_) => {}
                    }
                }
            }
            Update::Percentiles(node) => {
                if !matches!(slot, Slot::Percentiles(_)) {
                    *slot = column.zero();
                }
                if let (Slot::Percentiles(sketch), Value::Integer(value)) =
                    (slot, node.evaluate(input)?)
                {
                    sketch.add(value);
                }
            }
        }
        Ok(())
    }

    /// Converts a value to the form in which a column stores it.
    ///
    /// # Errors
    /// Fails if it is a time that RFC 3339 cannot represent.
    fn slot(&self, index: usize, value: Value<'_>) -> Result<Slot, Error> {
        Ok(match value {
            Value::Null => Slot::Null,
            Value::Boolean(value) => Slot::Boolean(value),
            Value::Integer(value) => Slot::Integer(value),
            Value::Number(value) => Slot::Number(value),
            Value::Text(value) => Slot::Text(value.into()),
            Value::Timestamp(value) => {
                let name = self.layout.columns[index].name;
                value.check(name).map_err(|error| Error::new(error.to_string()))?;
                Slot::Timestamp(value)
            }
        })
    }

    /// Returns the row of a window that has ended, with the columns that depend on the window.
    fn closed(&self, mut row: DeclaredRow, window: Window) -> Result<DeclaredRow, Error> {
        let slots = row.slots(self.layout)?;
        let input = Input { event: None, window: Some(window) };
        for (index, column) in self.columns.iter().enumerate() {
            if let Update::OfWindow(node) = &column.update {
                slots[index] = self.slot(index, node.evaluate(input)?)?;
            }
        }
        Ok(row)
    }
}

/// How the time of an event compares with those of the other events in its row.
#[derive(Clone, Copy)]
struct Moves {
    /// The event is the first that was applied.
    fresh: bool,
    /// The event is older than all others.
    older: bool,
    /// No other event is newer.
    newer: bool,
    time: Timestamp,
}

impl Column {
    /// Returns the value of the column before any event was applied.
    fn zero(&self) -> Slot {
        match self.update {
            Update::Count | Update::Sum(_) => Slot::Integer(0),
            Update::Distinct(_) => Slot::Distinct(Box::new(Distinct::new())),
            Update::Percentiles(_) => Slot::Percentiles(Box::new(Percentiles::new())),
            _ => Slot::Null,
        }
    }
}
