//! Implements typed tables. The contract itself passes rows as bytes.
//!
//! Rows that were read or written stay in memory as values. Changes are sent to the host at the end
//! of a call of the plugin. Each changed row is sent once, and all rows of a table are sent
//! together. The rows in memory are copies of the host's rows. So whether a row is in memory
//! affects only the time that a call takes.

use crate::cache::{Columns, RowCache, end_value};
use crate::column::Values;
use crate::error::{Error, FlushError, RowError};
use crate::host;
use crate::key::{Key, end_of_prefix};
use crate::row::{Field, Row, Stored};
use crate::table_spec::TableSpec;

/// The number of rows that a table keeps in memory, unless `#[table(cache = …)]` sets another
/// number.
///
/// When a table has this number of rows in memory, it sends its changes to the host early, and
/// drops rows from memory that were not used recently.
pub const CACHE_ROWS: usize = 32_768;

/// The maximum number of rows that a scan requests from the host at a time. It limits the size of
/// an answer.
const SCAN_PAGE_ROWS: u32 = 128;

/// The field types of a `#[derive(Tables)]` struct.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a table",
    note = "use `Table`, `TopN`, `OpenWindows`, `OpenSessions` or `Recent`, or mark the field `#[table(skip)]`"
)]
pub trait TableField {
    /// Opens the table that `spec` declares. It has no rows in memory yet.
    fn open(spec: &'static TableSpec) -> Self;

    /// Sends the changes to the host.
    ///
    /// # Errors
    /// Returns [`FlushError`] if a row cannot be written. It contains the event that changed the
    /// row.
    fn flush(&mut self) -> Result<(), FlushError>;

    /// Checks the rows that an event or timer has changed. It is called when the event or timer was
    /// processed.
    ///
    /// # Errors
    /// Returns [`Error::Row`] if one of the rows cannot be written.
    fn check(&mut self) -> Result<(), Error>;
}

/// Types that can be public tables.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a public table",
    note = "mark the field `#[table(private)]`"
)]
pub trait PublicTable {
    const FIELDS: &'static [Field];
}

impl<R: Row> PublicTable for Table<R> {
    const FIELDS: &'static [Field] = R::FIELDS;
}

/// A projection's tables: the struct with `#[derive(Tables)]`.
///
/// Each field is a table: a [`Table`], a [`crate::TopN`], or a table of [`crate::window`]. The name
/// of the field is the name of the table, and the doc comment of the field is the description of
/// the table. A field can have the attribute `#[table(…)]` with:
///
/// * `private`: a table whose rows are any bytes, and which readers cannot see. The rows of other
///   tables are JSON objects, and readers can query them and subscribe to them,
/// * `per_tenant`: every row belongs to a tenant, and its key is a [`crate::InTenant`],
/// * `newest_by = "field"`: the timestamp field that decides which partition's value is used for
///   fields with `merge = newest`,
/// * `retention = "7d"`: how long a row is kept after its last change, in `us`, `ms`,
///   `s`, `m`, `h` or `d`; the default is forever,
/// * `name = "…"`: the name of the table, if it differs from that of the field,
/// * `cache = 1000`: the number of rows kept in memory; the default is [`CACHE_ROWS`],
/// * `skip`: the field is not a table but a plain value. In every fresh instance it is
///   `Default::default()`. Set it in [`crate::Projection::setup`], and never from
///   events: memory is only a cache, and the host may drop it between any two calls.
pub trait Tables: Sized {
    /// The declarations of the tables, in the order of the fields.
    #[doc(hidden)]
    const SPECS: &'static [TableSpec];

    /// Returns the declarations of the tables after `setup`.
    #[doc(hidden)]
    fn specs(&self) -> Vec<&'static TableSpec> {
        Self::SPECS.iter().collect()
    }

    #[doc(hidden)]
    fn open() -> Self;

    #[doc(hidden)]
    fn flush(&mut self) -> Result<(), FlushError>;

    #[doc(hidden)]
    fn check(&mut self) -> Result<(), Error>;
}

/// A table of rows of the type `R`, sorted by their keys.
///
/// Reading takes `&mut self`, because rows that were read are cached. To use two tables
/// at once, destructure `self`: `let Self { orders, totals, .. } = self;`.
#[derive(Debug)]
pub struct Table<R> {
    spec: &'static TableSpec,
    cache: RowCache,
    /// The rows in memory, each at the place of its key in `cache`. `None` means that the table has
    /// no row under the key.
    rows: Vec<Option<R>>,
    /// The places of the rows that were changed and not checked yet.
    unchecked: Vec<u32>,
    columns: Columns,
}

impl<R: Stored> TableField for Table<R> {
    fn open(spec: &'static TableSpec) -> Self {
        Self {
            spec,
            cache: RowCache::new(spec.per_tenant),
            rows: Vec::new(),
            unchecked: Vec::new(),
            columns: Columns::new(),
        }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        if !self.cache.has_changed() {
            return Ok(());
        }
        self.check()?;
        self.columns.clear();
        // If this fails, the changes stay in the list of unsent changes. So a caller that ignores
        // the error gets it again at the next flush.
        self.collect()?;
        send(self.spec.id, &self.columns);
        self.cache.sent();
        Ok(())
    }

    #[inline]
    fn check(&mut self) -> Result<(), Error> {
        if R::FALLIBLE && !self.unchecked.is_empty() {
            return self.check_changed();
        }
        Ok(())
    }
}

impl<R: Stored> Table<R> {
    /// Returns the row under `key`; `None` if there is none.
    ///
    /// # Errors
    /// Returns [`Error::Key`] if the key is not allowed in this table, [`Error::Row`] if the row's
    /// bytes are not an `R`.
    #[inline]
    pub fn get(&mut self, key: impl Key) -> Result<Option<&R>, Error> {
        let place = self.load(key)?;
        Ok(self.rows[place].as_ref())
    }

    /// Returns the row under `key`, which the caller may change. If there is none, it is a new
    /// `R::default()`.
    ///
    /// # Errors
    /// Returns the errors of [`Self::get`].
    #[inline]
    pub fn row(&mut self, key: impl Key) -> Result<&mut R, Error>
    where
        R: Default,
    {
        self.row_or(key, R::default)
    }

    /// Returns the row under `key`, which the caller may change. If there is none, it is the result
    /// of `fresh`.
    ///
    /// # Errors
    /// Returns the errors of [`Self::get`].
    #[inline]
    pub fn row_or(&mut self, key: impl Key, fresh: impl FnOnce() -> R) -> Result<&mut R, Error> {
        let place = self.load(key)?;
        self.change(place)?;
        Ok(self.rows[place].get_or_insert_with(fresh))
    }

    /// Returns the row under `key`, which the caller may change; `None` if there is none.
    ///
    /// # Errors
    /// Returns the errors of [`Self::get`].
    pub fn get_mut(&mut self, key: impl Key) -> Result<Option<&mut R>, Error> {
        let place = self.load(key)?;
        if self.rows[place].is_some() {
            self.change(place)?;
        }
        Ok(self.rows[place].as_mut())
    }

    /// Stores `row` under `key`. If there is a row already, it is replaced.
    ///
    /// # Errors
    /// Returns [`Error::Key`] if the key is not allowed in this table.
    pub fn put(&mut self, key: impl Key, row: R) -> Result<(), Error> {
        self.set(key, Some(row))
    }

    /// Deletes the row under `key`, if there is one.
    ///
    /// # Errors
    /// Returns [`Error::Key`] if the key is not allowed in this table.
    pub fn delete(&mut self, key: impl Key) -> Result<(), Error> {
        self.set(key, None)
    }

    /// Removes the row under `key` from the table, and returns it.
    ///
    /// # Errors
    /// Returns the errors of [`Self::get`].
    pub fn take(&mut self, key: impl Key) -> Result<Option<R>, Error> {
        let place = self.load(key)?;
        if self.rows[place].is_some() {
            self.change(place)?;
        }
        Ok(self.rows[place].take())
    }

    /// Reads the rows under `keys` into memory in one call of the host, so that later reads of
    /// these rows need no call. Call it in [`prepare`](crate::Projection::prepare), if the table
    /// has many more rows than its `cache`. It has no effect on results. It does nothing if most of
    /// the recent keys had rows in memory already. If there are more keys than rows in the table's
    /// `cache`, the further keys are ignored.
    ///
    /// # Errors
    /// Returns the errors of [`Self::get`].
    pub fn prefetch<K: Key>(&mut self, keys: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let keys = keys.into_iter();
        let (least, most) = keys.size_hint();
        let missing = self.cache.expect_missing(most.unwrap_or(least));
        if missing == 0 {
            return Ok(());
        }
        if self.cache.len() + missing > self.spec.cache_rows {
            self.drop_some()?;
        }
        let first = self.cache.len();
        let read = self.ask_for(keys).and_then(|()| self.read_from(first));
        // Reading has failed, so the rows of the new keys are unknown. These keys lose their places
        // again.
        self.cache.truncate(self.rows.len());
        read
    }

    /// Gives a place to each of `keys` that has none.
    fn ask_for<K: Key>(&mut self, keys: impl Iterator<Item = K>) -> Result<(), Error> {
        self.cache.expect_none();
        for key in keys {
            let place = match self.cache.find(key) {
                (Some(place), _) => place,
                (None, _) if self.cache.len() >= self.spec.cache_rows => break,
                (None, hash) => {
                    self.cache.check_key(self.spec)?;
                    self.cache.insert(hash)
                }
            };
            self.cache.expect(place);
        }
        self.cache.expect_noted();
        Ok(())
    }

    /// Reads the rows of the keys from the place `first` on. All other rows are in memory.
    fn read_from(&mut self, first: usize) -> Result<(), Error> {
        if first == self.cache.len() {
            return Ok(());
        }
        self.columns.clear();
        let wanted = &mut self.columns.keys;
        self.cache.add_keys(first..self.cache.len(), wanted)?;
        let (found, rows) = host::get_many(self.spec.id, wanted);
        if found.len() != wanted.ends.len() {
            return Err(Error::Batch("`get-many` answered for another number of keys"));
        }
        let rows = Values::new(&rows, found.len())?;
        for (index, found) in found.into_iter().enumerate() {
            let row = if found {
                let key = self.cache.key_at(self.rows.len());
                let row = R::decode(rows.get(index));
                Some(row.map_err(|source| row_error(self.spec.name, key, source))?)
            } else {
                None
            };
            self.rows.push(row);
        }
        Ok(())
    }

    /// Returns the rows that `scan` selects, with their keys, in order.
    ///
    /// All rows are returned at once. Set [`Scan::limit`] if there may be many.
    ///
    /// # Errors
    /// Returns [`Error::Row`] if a row's bytes are not an `R`, or if a changed row cannot be
    /// written.
    pub fn scan(&mut self, scan: &Scan) -> Result<Vec<(String, R)>, Error> {
        // The host must have the current rows, because it executes the scan.
        self.flush()?;
        let mut rows = Vec::new();
        let Scan { mut start, mut end, limit, reverse } = scan.clone();
        while rows.len() < limit {
            let wanted = u32::try_from(limit - rows.len()).unwrap_or(u32::MAX);
            let wanted = wanted.min(SCAN_PAGE_ROWS);
            let page = host::scan(self.spec.id, &start, &end, wanted, reverse);
            let more = page.len() == wanted as usize;
            for row in page {
                let value = R::decode(&row.value)
                    .map_err(|source| row_error(self.spec.name, &row.key, source))?;
                rows.push((row.key, value));
            }
            let Some((last, _)) = rows.last().filter(|_| more) else {
                break;
            };
            if reverse {
                end.clone_from(last);
            } else {
                start.clone_from(last);
                start.push('\0');
            }
        }
        Ok(rows)
    }

    /// Returns the name of the table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Writes the changed rows into columns, in the order in which they were changed.
    fn collect(&mut self) -> Result<(), FlushError> {
        let Self { spec, cache, rows, columns, .. } = self;
        let Columns { causes, keys, values, deletes, deleted } = columns;
        let changed = || cache.changed().iter().map(|place| *place as usize);
        for place in changed() {
            if let Some(row) = &rows[place] {
                row.encode(&mut values.bytes).map_err(|source| FlushError {
                    cause: Some(cache.cause_at(place)),
                    error: row_error(spec.name, cache.key_at(place), source),
                })?;
                end_value(values)?;
            }
        }
        cache.add_keys(changed().filter(|place| rows[*place].is_some()), keys)?;
        cache.add_causes(changed().filter(|place| rows[*place].is_some()), causes);
        if values.ends.len() < cache.changed().len() {
            cache.add_keys(changed().filter(|place| rows[*place].is_none()), deleted)?;
            cache.add_causes(changed().filter(|place| rows[*place].is_none()), deletes);
        }
        Ok(())
    }

    fn set(&mut self, key: impl Key, row: Option<R>) -> Result<(), Error> {
        let (place, hash) = self.cache.find(key);
        let place = match place {
            Some(place) => place,
            None => {
                self.make_room()?;
                self.insert(hash, None)
            }
        };
        self.change(place)?;
        self.rows[place] = row;
        Ok(())
    }

    /// Notes that the row at `place` will be changed, if this is allowed.
    #[inline]
    fn change(&mut self, place: usize) -> Result<(), Error> {
        if self.spec.per_tenant {
            self.cache.check_tenant(place, self.spec)?;
        }
        self.cache.note(place);
        if R::FALLIBLE && self.unchecked.last() != Some(&(place as u32)) {
            self.unchecked.push(place as u32);
        }
        Ok(())
    }

    #[cold]
    fn check_changed(&mut self) -> Result<(), Error> {
        for place in self.unchecked.drain(..) {
            let place = place as usize;
            if let Some(row) = &self.rows[place] {
                let key = self.cache.key_at(place);
                row.check().map_err(|source| row_error(self.spec.name, key, source))?;
            }
        }
        Ok(())
    }

    /// Returns the place of the row under `key`. If the row is not in memory, it is read from the
    /// host.
    #[inline]
    fn load(&mut self, key: impl Key) -> Result<usize, Error> {
        match self.cache.find(key) {
            (Some(place), _) => Ok(place),
            (None, hash) => self.fetch(hash),
        }
    }

    #[cold]
    fn fetch(&mut self, hash: u64) -> Result<usize, Error> {
        self.make_room()?;
        let row = match host::get(self.spec.id, self.cache.key()) {
            Some(bytes) => {
                let row = R::decode(&bytes);
                let key = self.cache.key();
                Some(row.map_err(|source| row_error(self.spec.name, key, source))?)
            }
            None => None,
        };
        Ok(self.insert(hash, row))
    }

    fn insert(&mut self, hash: u64, row: Option<R>) -> usize {
        self.rows.push(row);
        self.cache.insert(hash)
    }

    /// Checks that the table may contain the current key, and makes room for one more row in
    /// memory.
    fn make_room(&mut self) -> Result<(), Error> {
        self.cache.check_key(self.spec)?;
        if self.cache.len() >= self.spec.cache_rows.max(1) {
            self.drop_some()?;
        }
        Ok(())
    }

    fn drop_some(&mut self) -> Result<(), Error> {
        self.flush()?;
        match self.cache.drop_some(self.spec.cache_rows) {
            Some(kept) => {
                let mut keep = kept.iter();
                self.rows.retain(|_| *keep.next().expect("one for each row"));
            }
            None => self.rows.clear(),
        }
        Ok(())
    }
}

fn send(table: u32, columns: &Columns) {
    if !columns.deleted.ends.is_empty() {
        host::delete_many(&columns.deletes, table, &columns.deleted);
    }
    if !columns.keys.ends.is_empty() {
        host::put_many(&columns.causes, table, &columns.keys, &columns.values);
    }
}

/// Selects the rows of a table that are read, and their order.
///
/// ```
/// # use lantern_sdk::Scan;
/// let newest_ten = Scan::prefix("2026-03-01T").newest_first().limit(10);
/// # let _ = newest_ten;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Scan {
    start: String,
    end: String,
    limit: usize,
    reverse: bool,
}

impl Scan {
    /// Selects all rows.
    pub fn all() -> Self {
        Self::range("", "")
    }

    /// Selects the rows whose keys begin with `prefix`. For the first parts of a tuple, the prefix
    /// is the key of these parts, followed by `/`.
    pub fn prefix(prefix: impl Key) -> Self {
        let start = prefix.to_key();
        let end = end_of_prefix(&start);
        Self { start, end, limit: usize::MAX, reverse: false }
    }

    /// Selects the rows from `start` up to but not including `end`. If `end` is empty, the range
    /// has no end.
    pub fn range(start: impl Key, end: impl Key) -> Self {
        Self { start: start.to_key(), end: end.to_key(), limit: usize::MAX, reverse: false }
    }

    /// Limits the result to at most `rows` rows.
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Returns the rows in descending order of their keys.
    pub fn newest_first(mut self) -> Self {
        self.reverse = true;
        self
    }
}

fn row_error(table: &'static str, key: &str, source: RowError) -> Error {
    Error::Row { table, key: key.to_owned(), source }
}
