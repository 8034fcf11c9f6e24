//! Runs queries whose result is rows. It reads rows in key order up to a limit, or finds the first
//! rows in the order of a field.

use std::cmp::Ordering;

use lantern_core::{FieldSpans, FieldValue, KeyRange, Row, RowFields, RowSource};
use serde::{Deserialize, Serialize};

use crate::plan::{Order, Shape};
use crate::{Budget, Plan, QueryError};

/// The memory that a row takes in addition to its bytes while it is kept.
const ROW_BYTES: usize = 96;

/// The rows of one page of a query.
#[derive(Clone, Debug, Default)]
pub struct RowsPage {
    /// The rows in order, each with the chosen fields.
    pub rows: Vec<Row>,
    /// The row after which the next page begins; `None` if there are no more rows.
    pub next: Option<RowPosition>,
}

/// The row after which a page begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowPosition {
    /// The value of the row in the field that orders the result.
    pub value: Option<FieldValue<'static>>,
    /// The key of the row.
    pub key: String,
}

/// The limits for the size of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// The maximum number of rows in a page.
    pub rows: usize,
    /// The number of bytes after which a page ends.
    pub bytes: usize,
}

impl Plan {
    /// Returns a page of the rows of `source` that are within `range` and match the filter. In the
    /// order of a field, the page begins after the row `after`. In key order, `after` is not used;
    /// `range` must begin after that row instead.
    ///
    /// # Errors
    /// Returns [`QueryError`] if the query ends without a result.
    pub fn rows(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        after: Option<&RowPosition>,
        size: PageSize,
        budget: &mut Budget<'_>,
    ) -> Result<RowsPage, QueryError> {
        match self.order.column {
            None => self.rows_by_key(source, range, size, budget),
            Some(field) => self.rows_by_field(source, range, (field, after), size, budget),
        }
    }

    fn rows_by_key(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        size: PageSize,
        budget: &mut Budget<'_>,
    ) -> Result<RowsPage, QueryError> {
        let (mut page, mut bytes) = (RowsPage::default(), 0);
        self.each_match(source, range, budget, |key, row, budget| {
            // One row more than requested is read. It shows whether there is a next page.
            if page.rows.len() == size.rows || bytes >= size.bytes {
                let last = page.rows.last().map(|last| last.key.clone());
                page.next = last.map(|key| RowPosition { value: None, key });
                return Ok(false);
            }
            let value = self.output(row);
            bytes += key.len() + value.len();
            budget.take(key.len() + value.len() + ROW_BYTES)?;
            page.rows.push(Row { key: text(key), value });
            Ok(true)
        })?;
        Ok(page)
    }

    fn rows_by_field(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        (field, after): (usize, Option<&RowPosition>),
        size: PageSize,
        budget: &mut Budget<'_>,
    ) -> Result<RowsPage, QueryError> {
        let mut first = FirstRows {
            order: self.order,
            limit: size.rows,
            rows: Vec::new(),
            worst: None,
            more: false,
        };
        self.each_match(source, range, budget, |key, row, budget| {
            let value = row.value(field);
            let after = after.map(|after| (after.value.as_ref(), after.key.as_bytes()));
            let place = (value.as_ref(), key);
            if after.is_none_or(|after| self.order.compare(place, after).is_gt())
                && first.accepts(place)
            {
                let row = self.output(row);
                budget.take(row.len() + key.len() + ROW_BYTES)?;
                first.push(value.map(FieldValue::into_owned), key, row, budget);
            }
            Ok(true)
        })?;
        let (rows, mut more) = first.finish();
        let (mut page, mut bytes) = (RowsPage::default(), 0);
        let mut last = None;
        for row in rows {
            if bytes >= size.bytes {
                more = true;
                break;
            }
            bytes += row.key.len() + row.row.len();
            let key = text(&row.key);
            last = Some(RowPosition { value: row.value, key: key.clone() });
            page.rows.push(Row { key, value: row.row });
        }
        page.next = last.filter(|_| more);
        Ok(page)
    }

    /// Passes rows of `source` to `take` until it returns `false`: the rows that are within `range`
    /// and match the filter, in key order and with the chosen fields. Needs the memory of one row.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn each_row(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        budget: &mut Budget<'_>,
        take: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), QueryError> {
        self.each_match(source, range, budget, |key, row, _| {
            Ok(take(Row { key: text(key), value: self.output(row) }))
        })
    }

    /// Passes each row that matches to `take`, until it returns `false`.
    pub(crate) fn each_match(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        budget: &mut Budget<'_>,
        mut take: impl FnMut(&[u8], &RowFields<'_>, &mut Budget<'_>) -> Result<bool, QueryError>,
    ) -> Result<(), QueryError> {
        let (mut spans, mut failed) = (FieldSpans::default(), None);
        let reverse = self.is_in_key_order() && self.order.descending;
        source.each_row(range, reverse, &mut |key, value| {
            let mut visit = || {
                budget.row()?;
                let row = self.reader.read(value, &mut spans);
                if !self.filter.matches(&row) {
                    return Ok(true);
                }
                take(key, &row, budget)
            };
            visit().unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Returns the row as JSON with only the chosen fields. Fields without a value are left out.
    fn output(&self, row: &RowFields<'_>) -> Vec<u8> {
        match &self.shape {
            Shape::Rows(Some(choice)) => choice.of(row),
            _ => row.row().to_vec(),
        }
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// What decides the place of a row in an order by a field: its value in this field, and its key.
type Place<'a> = (Option<&'a FieldValue<'a>>, &'a [u8]);

impl Order {
    /// Compares the places of two rows. Rows without a value come last. Rows with equal values are
    /// in ascending order of their keys.
    fn compare(self, (a, a_key): Place<'_>, (b, b_key): Place<'_>) -> Ordering {
        self.compare_values(a, b).then_with(|| a_key.cmp(b_key))
    }

    /// Compares two values; `None` comes last.
    pub(crate) fn compare_values(
        self,
        a: Option<&FieldValue<'_>>,
        b: Option<&FieldValue<'_>>,
    ) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.descending => b.compare(a),
            (Some(a), Some(b)) => a.compare(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }
}

/// Collects the rows that come first in an order. It receives all rows, but keeps at most twice
/// `limit` rows in memory.
struct FirstRows {
    order: Order,
    limit: usize,
    rows: Vec<Candidate>,
    /// The last of the first `limit` rows so far. Rows that come after it are not needed.
    worst: Option<(Option<FieldValue<'static>>, Vec<u8>)>,
    /// Whether there were more rows than `limit`.
    more: bool,
}

struct Candidate {
    value: Option<FieldValue<'static>>,
    key: Vec<u8>,
    row: Vec<u8>,
}

impl Candidate {
    fn place(&self) -> Place<'_> {
        (self.value.as_ref(), &self.key)
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.row.len() + ROW_BYTES
    }
}

impl FirstRows {
    fn accepts(&mut self, place: Place<'_>) -> bool {
        let after = |(value, key): &(Option<FieldValue<'static>>, Vec<u8>)| {
            self.order.compare(place, (value.as_ref(), key)).is_gt()
        };
        let refused = self.worst.as_ref().is_some_and(after);
        self.more |= refused;
        !refused
    }

    fn push(
        &mut self,
        value: Option<FieldValue<'static>>,
        key: &[u8],
        row: Vec<u8>,
        budget: &mut Budget<'_>,
    ) {
        self.rows.push(Candidate { value, key: key.to_vec(), row });
        if self.rows.len() > self.limit.saturating_mul(2) {
            self.cut(budget);
        }
    }

    /// Drops all rows except the first `limit`.
    fn cut(&mut self, budget: &mut Budget<'_>) {
        let order = self.order;
        let last = self.limit - 1;
        self.rows.select_nth_unstable_by(last, |a, b| order.compare(a.place(), b.place()));
        let dropped: usize = self.rows.drain(self.limit..).map(|row| row.bytes()).sum();
        budget.release(dropped);
        self.more = true;
        let worst = &self.rows[last];
        self.worst = Some((worst.value.clone(), worst.key.clone()));
    }

    fn finish(mut self) -> (Vec<Candidate>, bool) {
        let order = self.order;
        self.rows.sort_unstable_by(|a, b| order.compare(a.place(), b.place()));
        self.more |= self.rows.len() > self.limit;
        self.rows.truncate(self.limit);
        (self.rows, self.more)
    }
}
