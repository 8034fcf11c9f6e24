//! Compares the rows of a table in two views, in key order.

use std::collections::{BTreeMap, BTreeSet};

use lantern_api::{FieldChange, RawJson, RowDifference};
use lantern_core::{KeyRange, Row, StoreError, TableId, TableSpec, View};

use crate::wire;

/// The number of rows read from a view at a time.
const PAGE_ROWS: usize = 500;

/// A table in a view.
pub(crate) type ViewTable<'a> = (&'a View, TableId);

/// One side of a comparison: the rows of a table, in key order.
struct TableSide<'a> {
    /// The table; `None` means a table without rows.
    source: Option<ViewTable<'a>>,
    range: KeyRange,
    page: std::vec::IntoIter<Row>,
    next: Option<Row>,
    is_last_page: bool,
}

impl<'a> TableSide<'a> {
    /// The rows of a table in `range`; none if there is no `source`.
    fn new(source: Option<ViewTable<'a>>, range: KeyRange) -> Result<Self, StoreError> {
        let page = Vec::new().into_iter();
        let is_last_page = source.is_none() || range.is_empty();
        let mut side = Self { source, range, page, next: None, is_last_page };
        side.advance()?;
        Ok(side)
    }

    /// Takes the next row, and reads the one after it.
    fn advance(&mut self) -> Result<Option<Row>, StoreError> {
        let taken = self.next.take();
        self.next = self.page.next();
        if let Some((view, table)) = self.source
            && self.next.is_none()
            && !self.is_last_page
        {
            let rows = view.scan(table, &self.range, PAGE_ROWS, false)?;
            self.is_last_page = rows.len() < PAGE_ROWS;
            if let Some(last) = rows.last() {
                self.range.start = [last.key.as_bytes(), &[0]].concat();
            }
            self.page = rows.into_iter();
            self.next = self.page.next();
        }
        Ok(taken)
    }
}

/// The counts of a comparison, and the first differences.
#[derive(Default)]
pub(crate) struct RowDiff {
    pub(crate) same: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) changed: u64,
    pub(crate) differences: Vec<RowDifference>,
    pub(crate) more: bool,
    bytes: usize,
}

/// How to compare rows, and how much to return.
pub(crate) struct DiffOptions {
    /// Only these fields are compared; all if `None`.
    pub(crate) columns: Option<BTreeSet<String>>,
    /// The most differences that are returned.
    pub(crate) rows_max: usize,
    /// The most bytes of their rows.
    pub(crate) bytes_max: usize,
}

impl RowDiff {
    /// Compares the rows in `range` of two tables. `None` as a table means a table without rows.
    /// `count` is called for each key.
    ///
    /// # Errors
    /// The error of `count` or of a store.
    pub(crate) fn compare<E: From<StoreError>>(
        [left, right]: [Option<ViewTable<'_>>; 2],
        range: &KeyRange,
        options: &DiffOptions,
        mut count: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut left = TableSide::new(left, range.clone())?;
        let mut right = TableSide::new(right, range.clone())?;
        let mut diff = Self::default();
        loop {
            let order = match (&left.next, &right.next) {
                (None, None) => return Ok(diff),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.key.as_bytes().cmp(right.key.as_bytes()),
            };
            let before = if order.is_le() { left.advance()? } else { None };
            let after = if order.is_ge() { right.advance()? } else { None };
            count()?;
            diff.take(before, after, options);
        }
    }

    fn take(&mut self, left: Option<Row>, right: Option<Row>, options: &DiffOptions) {
        let counted = match (&left, &right) {
            (Some(left), Some(right)) if options.are_equal(&left.value, &right.value) => {
                self.same += 1;
                return;
            }
            (Some(_), Some(_)) => &mut self.changed,
            (None, _) => &mut self.added,
            (_, None) => &mut self.removed,
        };
        *counted += 1;
        if self.differences.len() >= options.rows_max || self.bytes >= options.bytes_max {
            self.more = true;
            return;
        }
        let values = [&left, &right].map(|row| row.as_ref().map(|row| row.value.as_slice()));
        self.bytes += values.into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        let [before, after] = values.map(wire::row);
        let key = left.or(right).map(|row| row.key).unwrap_or_default();
        self.differences.push(RowDifference { key, left: before, right: after });
    }
}

impl DiffOptions {
    /// Returns whether two rows have the same fields and values, in any order.
    fn are_equal(&self, left: &[u8], right: &[u8]) -> bool {
        if left == right {
            return true;
        }
        let [left, right] = [left, right].map(|row| RawJson::new(&String::from_utf8_lossy(row)));
        let fields = |row: &RawJson| -> BTreeMap<String, String> {
            let members = row.members().into_iter();
            let compared =
                |name: &String| self.columns.as_ref().is_none_or(|columns| columns.contains(name));
            let members = members.filter(|(name, _)| compared(name));
            members.map(|(name, value)| (name, value.get().to_owned())).collect()
        };
        fields(&left) == fields(&right)
    }
}

/// The declared fields that differ.
pub(crate) fn field_changes(left: &TableSpec, right: &TableSpec) -> Vec<FieldChange> {
    let kinds = |table: &TableSpec| -> BTreeMap<String, String> {
        let fields = table.fields.iter();
        fields.map(|field| (field.name.clone(), field.kind.name().to_owned())).collect()
    };
    let (left, right) = (kinds(left), kinds(right));
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let changes = names.into_iter().map(|name| FieldChange {
        name: name.clone(),
        left: left.get(name).cloned(),
        right: right.get(name).cloned(),
    });
    changes.filter(|change| change.left != change.right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(pairs: &[(Option<&str>, Option<&str>)], columns: Option<&str>) -> RowDiff {
        let options = DiffOptions {
            columns: columns.map(|names| names.split(',').map(str::to_owned).collect()),
            rows_max: 2,
            bytes_max: 1_000,
        };
        let mut diff = RowDiff::default();
        for (left, right) in pairs {
            let row = |value: &Option<&str>| {
                value.map(|value| Row { key: "k".into(), value: value.as_bytes().to_vec() })
            };
            diff.take(row(left), row(right), &options);
        }
        diff
    }

    #[test]
    fn rows_differ_by_their_fields_and_not_by_the_order_of_fields() {
        let pairs = [
            (Some(r#"{"a":1,"b":2}"#), Some(r#"{"b":2,"a":1}"#)),
            (Some(r#"{"a":1}"#), Some(r#"{"a":1,"c":3}"#)),
            (Some(r#"{"a":1}"#), None),
            (None, Some(r#"{"a":1}"#)),
        ];
        let diff = compared(&pairs, None);
        assert_eq!((diff.same, diff.changed, diff.removed, diff.added), (1, 1, 1, 1));
        assert_eq!((diff.differences.len(), diff.more), (2, true));
        let diff = compared(&pairs, Some("a"));
        assert_eq!((diff.same, diff.changed), (2, 0));
    }
}
