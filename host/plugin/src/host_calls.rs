//! Implements the host calls of version 0.2 of the contract. They check the values from the guest
//! and pass them to the [`lantern_core::Host`].

use lantern_core::{
    Cause, Column, HostError, Level, NewEvent, ReadValues, TableId, Timestamp, VersionSource,
};
use wasmtime::Result;

use crate::bindings::v0_2::lantern::projection::{
    logging, outbox, rejections, source, tables, timers, types,
};
use crate::store_data::{CallEnd, GuestState, HOST_CALL_FUEL, in_words};

/// The fuel that a host call uses for each key, row or event, if it passes several.
const ITEM_FUEL: u64 = 100;

/// The number of rows that are read at once. The number is small because each row may be large.
const GET_AT_ONCE: usize = 64;

impl types::Host for GuestState {}

impl tables::Host for GuestState {
    fn get(&mut self, table: u32, key: String) -> Result<Option<Vec<u8>>> {
        let value =
            self.call("tables.get", key.len())?.get(TableId(table), &key).map_err(CallEnd::from)?;
        self.check_read("tables.get", value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn put(&mut self, cause: u32, table: u32, key: String, value: Vec<u8>) -> Result<()> {
        let host = self.call("tables.put", key.len() + value.len())?;
        Ok(host.put(Cause(cause), TableId(table), &key, &value).map_err(CallEnd::from)?)
    }

    fn delete(&mut self, cause: u32, table: u32, key: String) -> Result<()> {
        let host = self.call("tables.delete", key.len())?;
        Ok(host.delete(Cause(cause), TableId(table), &key).map_err(CallEnd::from)?)
    }

    fn scan(
        &mut self,
        table: u32,
        start: String,
        end: String,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<types::Row>> {
        let rows_max = self.limits.scan_rows_max;
        // One row more than allowed is requested. It shows whether the result is larger than
        // allowed.
        let ask = limit.min(rows_max.saturating_add(1));
        let host = self.call("tables.scan", start.len() + end.len())?;
        let rows = host.scan(TableId(table), &start, &end, ask, reverse).map_err(CallEnd::from)?;
        if rows.len() > rows_max as usize {
            return Err(CallEnd::Guest(format!(
                "`tables.scan` found more than {rows_max} rows (`plugin.limits.scan_rows_max`): pass a smaller `limit`, and continue after the last key"
            ))
            .into());
        }
        self.charge(ITEM_FUEL * rows.len() as u64, 0)?;
        self.check_read("tables.scan", rows.iter().map(|r| r.key.len() + r.value.len()).sum())?;
        Ok(rows.into_iter().map(|r| types::Row { key: r.key, value: r.value }).collect())
    }

    fn get_many(
        &mut self,
        table: u32,
        keys: types::ColumnResult,
    ) -> Result<(Vec<bool>, types::ColumnResult)> {
        const CALL: &str = "tables.get-many";
        let keys = Keys::check(CALL, keys)?;
        self.call(CALL, keys.column.bytes().len())?;
        self.charge(ITEM_FUEL * keys.column.len() as u64, 0)?;
        let mut are = Vec::with_capacity(keys.column.len());
        let mut ends = Vec::with_capacity(keys.column.len());
        let mut bytes = Vec::new();
        let all: Vec<&str> = keys.iter().collect();
        let mut values = ReadValues::default();
        for keys in all.chunks(GET_AT_ONCE) {
            values.begin(keys.len());
            let host = self.host(CALL)?;
            host.get_many(TableId(table), keys, &mut values).map_err(CallEnd::from)?;
            let before = bytes.len();
            for index in 0..keys.len() {
                let value = values.get(index);
                are.push(value.is_some());
                bytes.extend_from_slice(value.unwrap_or_default());
                self.check_size(CALL, bytes.len())?;
                ends.push(u32::try_from(bytes.len()).map_err(|_| too_long(CALL))?);
            }
            self.charge(0, bytes.len() - before)?;
        }
        Ok((are, types::ColumnResult { ends, bytes }))
    }

    fn put_many(
        &mut self,
        causes: Vec<u32>,
        table: u32,
        keys: types::ColumnResult,
        values: types::ColumnResult,
    ) -> Result<()> {
        const CALL: &str = "tables.put-many";
        let keys = Keys::check(CALL, keys)?;
        let values = column(CALL, "values", values)?;
        if keys.column.len() != values.len() {
            return Err(CallEnd::Guest(format!(
                "`{CALL}` was given {} keys but {} values",
                keys.column.len(),
                values.len()
            ))
            .into());
        }
        check_causes(CALL, &causes, &keys)?;
        self.charge(ITEM_FUEL * values.len() as u64, values.bytes().len())?;
        let host = self.call(CALL, keys.column.bytes().len())?;
        for ((cause, key), value) in causes.into_iter().zip(keys.iter()).zip(values.iter()) {
            host.put(Cause(cause), TableId(table), key, value).map_err(CallEnd::from)?;
        }
        Ok(())
    }

    fn delete_many(
        &mut self,
        causes: Vec<u32>,
        table: u32,
        keys: types::ColumnResult,
    ) -> Result<()> {
        const CALL: &str = "tables.delete-many";
        let keys = Keys::check(CALL, keys)?;
        check_causes(CALL, &causes, &keys)?;
        self.charge(ITEM_FUEL * keys.column.len() as u64, 0)?;
        let host = self.call(CALL, keys.column.bytes().len())?;
        for (cause, key) in causes.into_iter().zip(keys.iter()) {
            host.delete(Cause(cause), TableId(table), key).map_err(CallEnd::from)?;
        }
        Ok(())
    }
}

impl timers::Host for GuestState {
    fn set(&mut self, cause: u32, at: i64, key: String) -> Result<()> {
        let host = self.call("timers.set", key.len())?;
        Ok(host.set_timer(Cause(cause), Timestamp(at), &key).map_err(CallEnd::from)?)
    }

    fn cancel(&mut self, cause: u32, key: String) -> Result<()> {
        let host = self.call("timers.cancel", key.len())?;
        Ok(host.cancel_timer(Cause(cause), &key).map_err(CallEnd::from)?)
    }
}

impl outbox::Host for GuestState {
    fn emit(&mut self, events: Vec<types::NewEvent>) -> Result<()> {
        self.charge(ITEM_FUEL * events.len() as u64, events.iter().map(|e| e.data.len()).sum())?;
        let host = self.call("outbox.emit", 0)?;
        for event in events {
            host.emit(NewEvent {
                cause: Cause(event.cause),
                kind: event.type_,
                subject: event.subject,
                tenant: event.tenant,
                time: Timestamp(event.time),
                data: event.data,
            })
            .map_err(CallEnd::from)?;
        }
        Ok(())
    }
}

impl rejections::Host for GuestState {
    fn reject(&mut self, cause: u32, message: String) -> Result<()> {
        const CALL: &str = "rejections.reject";
        self.call(CALL, message.len())?;
        let message = self.cut(&message).to_owned();
        Ok(self.host(CALL)?.reject(Cause(cause), &message).map_err(CallEnd::from)?)
    }
}

impl logging::Host for GuestState {
    fn log(&mut self, cause: u32, level: types::Level, message: String) -> Result<()> {
        self.charge(ITEM_FUEL, message.len())?;
        let level = match level {
            types::Level::Trace => Level::Trace,
            types::Level::Debug => Level::Debug,
            types::Level::Info => Level::Info,
            types::Level::Warn => Level::Warn,
            types::Level::Error => Level::Error,
        };
        Ok(Self::log(self, Some(Cause(cause)), level, &message)?)
    }
}

impl source::Host for GuestState {
    fn name(&mut self) -> Result<String> {
        self.source(|source| &source.name)
    }

    fn text(&mut self) -> Result<String> {
        self.source(|source| &source.text)
    }
}

impl GuestState {
    /// Returns a part of the source code to the guest, for fuel.
    fn source(&mut self, part: fn(&VersionSource) -> &String) -> Result<String> {
        let source = self.source.as_deref().map(part).cloned();
        let part = source.ok_or_else(|| CallEnd::Guest("it has no source".into()))?;
        self.charge(HOST_CALL_FUEL, part.len())?;
        Ok(part)
    }

    /// Checks the size of the result of a host call, and charges fuel for it.
    fn check_read(&mut self, call: &str, bytes: usize) -> Result<(), CallEnd> {
        self.check_size(call, bytes)?;
        self.charge(0, bytes)
    }

    fn check_size(&self, call: &str, bytes: usize) -> Result<(), CallEnd> {
        let limit = self.limits.read_bytes_max;
        if bytes > limit {
            return Err(CallEnd::Guest(format!(
                "`{call}` found more than {} (`plugin.limits.read_bytes_max`): ask for fewer rows",
                in_words(limit)
            )));
        }
        Ok(())
    }
}

/// A column of keys that were checked to be UTF-8.
struct Keys {
    column: Column,
}

impl Keys {
    fn check(call: &str, raw: types::ColumnResult) -> Result<Self, CallEnd> {
        let column = column(call, "keys", raw)?;
        // All bytes are checked together first. Then each end is checked to be between two
        // characters.
        let text = std::str::from_utf8(column.bytes()).map_err(|error| {
            CallEnd::Guest(format!(
                "`{call}` was given keys that are not UTF-8, at byte {}",
                error.valid_up_to()
            ))
        })?;
        let cut = column.ends().iter().position(|&end| !text.is_char_boundary(end as usize));
        if let Some(index) = cut {
            return Err(CallEnd::Guest(format!(
                "`{call}` was given keys that are not UTF-8: key {index} ends within a character"
            )));
        }
        Ok(Self { column })
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let text = std::str::from_utf8(self.column.bytes()).expect("checked");
        let mut start = 0;
        self.column.ends().iter().map(move |&end| {
            let key = &text[start..end as usize];
            start = end as usize;
            key
        })
    }
}

fn check_causes(call: &str, causes: &[u32], keys: &Keys) -> Result<(), CallEnd> {
    let rows = keys.column.len();
    if causes.len() == rows {
        return Ok(());
    }
    Err(CallEnd::Guest(format!("`{call}` was given {rows} keys but {} causes", causes.len())))
}

fn column(call: &str, what: &str, raw: types::ColumnResult) -> Result<Column, CallEnd> {
    Column::from_parts(raw.ends, raw.bytes).map_err(|error| {
        CallEnd::Guest(format!("`{call}` was given {what} that are not a column: {error}"))
    })
}

fn too_long(call: &str) -> CallEnd {
    CallEnd::from(HostError::Guest(format!("`{call}` found more than 4 GiB")))
}
