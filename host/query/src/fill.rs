//! Adds the buckets without rows to the result of a roll-up.

use lantern_core::{FieldKind, FieldValue};

use crate::bucket::{BucketLength, Zone};
use crate::group_value::{GroupValue, compare_ascending};
use crate::plan::{Fill, RollUp};
use crate::{Budget, QueryError};

/// Adds the buckets without rows to `rows`, for each combination of values in the fields of `by`.
/// The first bucket is the one that contains `start`, and the last one begins before `end`. Without
/// `start` or `end`, the first or the last bucket with rows takes its place. `rows` may be in any
/// order.
pub(crate) fn fill(
    roll_up: &RollUp,
    zone: &mut Zone,
    mut rows: Vec<Vec<GroupValue>>,
    budget: &mut Budget<'_>,
) -> Result<Vec<Vec<GroupValue>>, QueryError> {
    let (Some(fill), Some(length)) = (roll_up.fill, roll_up.bucket) else { return Ok(rows) };
    let Some((first, last)) = bounds(roll_up, zone, length, &rows) else { return Ok(rows) };
    let keys = 1 + roll_up.by.len();
    // Rows of one combination are next to each other, in order of their buckets.
    rows.sort_unstable_by(|a, b| {
        let by = compare_ascending(&a[1..keys], &b[1..keys]);
        by.then_with(|| start_of(a).cmp(&start_of(b)))
    });
    if rows.is_empty() && roll_up.by.is_empty() {
        rows.push(empty(roll_up, first, &[], fill, None));
    }
    let mut filled = Vec::with_capacity(rows.len());
    for combination in rows.chunk_by(|a, b| compare_ascending(&a[1..keys], &b[1..keys]).is_eq()) {
        let (mut bucket, mut known) = (first, combination.iter().peekable());
        let by = &combination[0][1..keys];
        while bucket <= last {
            let row = match known.next_if(|row| start_of(row) == bucket) {
                Some(row) => row.clone(),
                None => {
                    budget.take(roll_up.aggregates.len() * size_of::<GroupValue>())?;
                    let previous = filled.last().filter(|_| bucket != first);
                    empty(roll_up, bucket, by, fill, previous)
                }
            };
            filled.push(row);
            budget.groups(filled.len())?;
            bucket = zone.next_bucket(length, bucket);
            if filled.len().is_multiple_of(1_024) {
                budget.check_time()?;
            }
        }
    }
    Ok(filled)
}

/// Returns the first and the last bucket of the result; `None` if there is none.
fn bounds(
    roll_up: &RollUp,
    zone: &mut Zone,
    length: BucketLength,
    rows: &[Vec<GroupValue>],
) -> Option<(i64, i64)> {
    let starts = || rows.iter().map(|row| start_of(row));
    let (start, end) = roll_up.range;
    let first = start.map(|start| zone.bucket(length, start)).or_else(|| starts().min())?;
    let last = end.map(|end| zone.bucket(length, end - 1)).or_else(|| starts().max())?;
    (first <= last).then_some((first, last))
}

fn start_of(row: &[GroupValue]) -> i64 {
    match row.first() {
        Some(Some(FieldValue::Timestamp(start))) => *start,
        _ => i64::MIN,
    }
}

/// Returns the group for a bucket without rows.
fn empty(
    roll_up: &RollUp,
    bucket: i64,
    by: &[GroupValue],
    fill: Fill,
    previous: Option<&Vec<GroupValue>>,
) -> Vec<GroupValue> {
    let mut row = vec![Some(FieldValue::Timestamp(bucket))];
    row.extend(by.iter().cloned());
    let keys = row.len();
    for (index, aggregate) in roll_up.aggregates.iter().enumerate() {
        row.push(match fill {
            Fill::Null => None,
            Fill::Previous => previous.and_then(|previous| previous[keys + index].clone()),
            Fill::Zero if !aggregate.counts => None,
            Fill::Zero if aggregate.column.kind == FieldKind::Number => {
                Some(FieldValue::Number(0.0))
            }
            Fill::Zero => Some(FieldValue::Integer(0)),
        });
    }
    row
}
