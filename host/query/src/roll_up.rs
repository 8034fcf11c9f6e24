//! Runs roll-ups: groups rows by buckets of time and fields, and aggregates each group.

use std::cmp::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lantern_core::{FieldValue, KeyRange, RowFields, RowSource};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Accumulator, positive_zero};
use crate::bucket::{BucketLength, Zone};
use crate::fill::fill;
use crate::group_value::{GroupValue, compare_ascending};
use crate::plan::{Order, RollUp, Shape};
use crate::{Budget, PageSize, Plan, QueryError};

/// The memory that a group takes in addition to its key, values and accumulators, in bytes.
const GROUP_BYTES: usize = 64;

/// The groups of one page of a query.
#[derive(Clone, Debug, Default)]
pub struct GroupsPage {
    /// The groups, in order. Each has one value for each of [`Plan::columns`].
    pub groups: Vec<Vec<GroupValue>>,
    /// The group after which the next page begins; `None` if there are no more groups.
    pub next: Option<GroupPosition>,
}

/// The group after which a page begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPosition {
    /// The value of the group in the column that orders the result.
    value: GroupValue,
    /// The bucket of the group, and its values in the fields of `by`.
    key: Vec<GroupValue>,
}

/// A group, while rows are read.
pub(crate) struct Group {
    /// The bucket, followed by the values in the fields of `by`.
    pub(crate) key: Vec<GroupValue>,
    pub(crate) accumulators: Vec<Accumulator>,
}

impl Plan {
    /// Groups the rows of `source` that are within `range` and match the filter, and returns a page
    /// of the groups. The page begins after the group `after`.
    ///
    /// # Errors
    /// Returns [`QueryError`] if the query ends without a result.
    pub fn groups(
        &self,
        source: &dyn RowSource,
        range: &KeyRange,
        after: Option<&GroupPosition>,
        size: PageSize,
        budget: &mut Budget<'_>,
    ) -> Result<GroupsPage, QueryError> {
        let Shape::Groups(roll_up) = &self.shape else { return Ok(GroupsPage::default()) };
        let mut groups = Groups::new(roll_up, self.zone.clone());
        self.each_match(source, range, budget, |_, row, budget| {
            groups.add(row, budget)?;
            Ok(true)
        })?;
        let keys = roll_up.key_columns();
        let mut rows = groups.finish(budget)?;
        let order = self.order;
        rows.sort_unstable_by(|a, b| compare(order, keys, a, b));
        if let Some(after) = after {
            rows.retain(|row| after.precedes(order, row));
        }
        let more = rows.len() > size.rows;
        rows.truncate(size.rows);
        let next = rows.last().filter(|_| more).map(|last| GroupPosition {
            value: order.column.and_then(|column| last[column].clone()),
            key: last[..keys].to_vec(),
        });
        Ok(GroupsPage { groups: rows, next })
    }
}

/// Compares two groups by the column of the order. Equal ones are compared by the bucket and the
/// fields of `by`.
fn compare(order: Order, keys: usize, a: &[GroupValue], b: &[GroupValue]) -> Ordering {
    let by_column = order.column.map_or(Ordering::Equal, |column| {
        order.compare_values(a[column].as_ref(), b[column].as_ref())
    });
    by_column.then_with(|| compare_ascending(&a[..keys], &b[..keys]))
}

impl GroupPosition {
    fn precedes(&self, order: Order, row: &[GroupValue]) -> bool {
        let by_column = order.column.map_or(Ordering::Equal, |column| {
            order.compare_values(self.value.as_ref(), row[column].as_ref())
        });
        by_column.then_with(|| compare_ascending(&self.key, &row[..self.key.len()])).is_lt()
    }
}

/// The groups found so far.
struct Groups<'p> {
    roll_up: &'p RollUp,
    keys: GroupKeys,
    /// The index of each group in `groups`, by the bytes of its key.
    index: HashMap<Box<[u8]>, usize, RandomState>,
    groups: Vec<Group>,
}

impl<'p> Groups<'p> {
    fn new(roll_up: &'p RollUp, zone: Zone) -> Self {
        let index = HashMap::default();
        Self { roll_up, keys: GroupKeys::new(zone), index, groups: Vec::new() }
    }

    fn add(&mut self, row: &RowFields<'_>, budget: &mut Budget<'_>) -> Result<(), QueryError> {
        let place = self.keys.find(self.roll_up, row);
        let group = match self.index.get(self.keys.key.as_slice()) {
            Some(group) => *group,
            None => self.new_group(place.bucket, row, budget)?,
        };
        self.groups[group].add(self.roll_up, row, place.time, budget)
    }

    fn new_group(
        &mut self,
        bucket: Option<i64>,
        row: &RowFields<'_>,
        budget: &mut Budget<'_>,
    ) -> Result<usize, QueryError> {
        budget.groups(self.groups.len() + 1)?;
        budget.take(group_bytes(self.roll_up, self.keys.key.len()))?;
        self.groups.push(Group::new(self.roll_up, bucket, Some(row)));
        let index = self.groups.len() - 1;
        self.index.insert(self.keys.key.as_slice().into(), index);
        Ok(index)
    }

    /// Returns the values of all columns of each group. The groups are in no particular order.
    fn finish(mut self, budget: &mut Budget<'_>) -> Result<Vec<Vec<GroupValue>>, QueryError> {
        self.index.clear();
        // Without `bucket` and `by` there is always one group, even if there are no rows.
        if self.groups.is_empty() && self.roll_up.is_one_group() {
            self.groups.push(Group::new(self.roll_up, None, None));
        }
        let groups = self.groups.into_iter().map(|group| group.into_row(self.roll_up));
        let rows = groups.collect::<Result<Vec<_>, _>>()?;
        fill(self.roll_up, &mut self.keys.zone, rows, budget)
    }
}

/// Finds the group of a row.
pub(crate) struct GroupKeys {
    pub(crate) zone: Zone,
    /// The bucket that was found last: its start and the start of the next one.
    last_bucket: Option<(i64, i64)>,
    /// The bytes of the key of the group that was found last.
    pub(crate) key: Vec<u8>,
}

/// Where a row belongs.
#[derive(Clone, Copy)]
pub(crate) struct RowPlace {
    /// The bucket, if the roll-up has buckets.
    pub(crate) bucket: Option<i64>,
    /// The row's value in the field of `time`; without such a field, 0.
    pub(crate) time: i64,
}

impl GroupKeys {
    pub(crate) fn new(zone: Zone) -> Self {
        Self { zone, last_bucket: None, key: Vec::new() }
    }

    /// Finds the group of `row`, and sets `key`.
    pub(crate) fn find(&mut self, roll_up: &RollUp, row: &RowFields<'_>) -> RowPlace {
        let time = roll_up.time.and_then(|field| match row.value(field) {
            Some(FieldValue::Timestamp(time)) => Some(time),
            _ => None,
        });
        let bucket = roll_up.bucket.and_then(|length| Some(self.bucket(length, time?)));
        self.key.clear();
        if let Some(start) = bucket {
            self.key.extend_from_slice(&start.to_le_bytes());
        }
        for field in &roll_up.by {
            write_key(row.value(*field).as_ref(), &mut self.key);
        }
        RowPlace { bucket, time: time.unwrap_or_default() }
    }

    fn bucket(&mut self, length: BucketLength, time: i64) -> i64 {
        if let Some((start, next)) = self.last_bucket
            && (start..next).contains(&time)
        {
            return start;
        }
        let start = self.zone.bucket(length, time);
        self.last_bucket = Some((start, self.zone.next_bucket(length, start)));
        start
    }
}

/// The approximate memory of a group whose key has `key_bytes`.
pub(crate) fn group_bytes(roll_up: &RollUp, key_bytes: usize) -> usize {
    let values = roll_up.by.len() + roll_up.aggregates.len() + 1;
    GROUP_BYTES
        + 2 * key_bytes
        + roll_up.accumulators.len() * size_of::<Accumulator>()
        + 2 * values * size_of::<GroupValue>()
}

impl Group {
    /// The group of `row`, without rows yet.
    pub(crate) fn new(roll_up: &RollUp, bucket: Option<i64>, row: Option<&RowFields<'_>>) -> Self {
        let values = roll_up.by.len() + roll_up.aggregates.len() + 1;
        let mut key = Vec::with_capacity(values);
        key.extend(bucket.map(|start| Some(FieldValue::Timestamp(start))));
        key.extend(roll_up.by.iter().map(|field| {
            let value = row.and_then(|row| row.value(*field));
            value.map(|value| positive_zero(value).into_owned())
        }));
        let accumulators = roll_up.accumulators.iter();
        Self { key, accumulators: accumulators.map(|spec| Accumulator::new(*spec)).collect() }
    }

    /// Adds a row. `time` is its value in the field of `time`; without such a field, 0.
    #[inline]
    pub(crate) fn add(
        &mut self,
        roll_up: &RollUp,
        row: &RowFields<'_>,
        time: i64,
        budget: &mut Budget<'_>,
    ) -> Result<(), QueryError> {
        let specs = roll_up.accumulators.iter().enumerate();
        for (accumulator, (index, spec)) in self.accumulators.iter_mut().zip(specs) {
            let added = accumulator.add(*spec, row, time, budget);
            added.map_err(|error| roll_up.in_column(index, error))?;
        }
        Ok(())
    }

    /// Returns the values of all columns.
    pub(crate) fn row(&self, roll_up: &RollUp) -> Result<Vec<GroupValue>, QueryError> {
        row_of(roll_up, self.key.clone(), &self.accumulators)
    }

    /// Returns the values of all columns, and drops the accumulators.
    fn into_row(self, roll_up: &RollUp) -> Result<Vec<GroupValue>, QueryError> {
        row_of(roll_up, self.key, &self.accumulators)
    }
}

/// Appends the results of `accumulators` to the key of a group.
fn row_of(
    roll_up: &RollUp,
    key: Vec<GroupValue>,
    accumulators: &[Accumulator],
) -> Result<Vec<GroupValue>, QueryError> {
    let mut row = key;
    for aggregate in &roll_up.aggregates {
        let spec = roll_up.accumulators[aggregate.accumulator];
        row.push(aggregate.result(spec, &accumulators[aggregate.accumulator])?);
    }
    Ok(row)
}

/// Appends bytes that represent a value. Different values have different bytes.
fn write_key(value: Option<&FieldValue<'_>>, key: &mut Vec<u8>) {
    match value {
        None => key.push(0),
        Some(FieldValue::Integer(value)) => {
            key.push(1);
            key.extend_from_slice(&value.to_le_bytes());
        }
        Some(FieldValue::Number(value)) => {
            key.push(2);
            // 0 and -0 are the same value. Adding 0 turns -0 into 0.
            key.extend_from_slice(&(value + 0.0).to_bits().to_le_bytes());
        }
        Some(FieldValue::Text(text)) => {
            key.push(3);
            key.extend_from_slice(&text.len().to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        Some(FieldValue::Boolean(value)) => key.push(4 + u8::from(*value)),
        Some(FieldValue::Timestamp(time)) => {
            key.push(6);
            key.extend_from_slice(&time.to_le_bytes());
        }
    }
}
