//! Lets the accumulators of a group follow the changes of its rows.

use std::cmp::Ordering;

use lantern_core::{FieldValue, RowFields};

use crate::aggregate::{Accumulator, AccumulatorSpec, Function, positive_zero, text_bytes};
use crate::{Budget, QueryError};

/// A row of the group, with its value in the field of `time`.
#[derive(Clone, Copy)]
pub(crate) struct RowAt<'r> {
    pub(crate) row: &'r RowFields<'r>,
    pub(crate) time: i64,
}

impl<'r> RowAt<'r> {
    fn value(self, field: usize) -> Option<FieldValue<'r>> {
        self.row.value(field).map(positive_zero)
    }
}

impl Accumulator {
    /// Updates the accumulator for a row of the group that changed from `before` to `after`; `None`
    /// means that the row is not in the group. Returns `false` if the new result depends on other
    /// rows of the group and must be computed from all of them.
    pub(crate) fn follow(
        &mut self,
        spec: AccumulatorSpec,
        before: Option<RowAt<'_>>,
        after: Option<RowAt<'_>>,
        budget: &mut Budget<'_>,
    ) -> Result<bool, QueryError> {
        let Some(field) = spec.field else {
            if let Self::Count(count) = self {
                *count = *count + u64::from(after.is_some()) - u64::from(before.is_some());
            }
            return Ok(true);
        };
        let json = |at: Option<RowAt<'_>>| at.is_some_and(|at| at.row.json(field).is_some());
        match self {
            Self::Count(count) => {
                *count = *count + u64::from(json(after)) - u64::from(json(before));
            }
            Self::Integers { sum, count } => {
                for (at, sign) in [(before, -1), (after, 1)] {
                    if let Some(FieldValue::Integer(value)) = at.and_then(|at| at.row.value(field))
                    {
                        *sum += i128::from(sign) * value;
                        *count = count.wrapping_add_signed(sign);
                    }
                }
            }
            Self::Numbers { sum, count } => {
                let heap = sum.heap_bytes();
                for (at, sign) in [(before, -1), (after, 1)] {
                    if let Some(FieldValue::Number(value)) = at.and_then(|at| at.row.value(field)) {
                        sum.add(f64::from(sign) * value);
                        *count = count.wrapping_add_signed(i64::from(sign));
                    }
                }
                budget.take(sum.heap_bytes() - heap)?;
            }
            Self::Value { value, time } => {
                let before = before.and_then(|at| Some((at.value(field)?, at.time)));
                let after = after.and_then(|at| Some((at.value(field)?, at.time)));
                if before == after {
                    return Ok(true);
                }
                let known = value.as_ref().map(|value| (value, *time));
                return Ok(match place(spec.function, known, before.as_ref(), after.as_ref()) {
                    ValuePlace::Unchanged => true,
                    ValuePlace::Unknown => false,
                    ValuePlace::Replaced => {
                        if let Some((after, at)) = after {
                            budget.release(value.as_ref().map_or(0, text_bytes));
                            budget.take(text_bytes(&after))?;
                            (*value, *time) = (Some(after.into_owned()), at);
                        }
                        true
                    }
                });
            }
            Self::Distinct(_) | Self::Percentiles(_) => {
                let same = before.and_then(|at| at.row.json(field))
                    == after.and_then(|at| at.row.json(field));
                if same {
                    return Ok(true);
                }
                if json(before) {
                    return Ok(false);
                }
                if let Some(after) = after {
                    self.add(spec, after.row, after.time, budget)?;
                }
            }
        }
        Ok(true)
    }

    /// The memory outside of this value, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Count(_) | Self::Integers { .. } => 0,
            Self::Numbers { sum, .. } => sum.heap_bytes(),
            Self::Value { value, .. } => value.as_ref().map_or(0, text_bytes),
            Self::Distinct(sketch) => sketch.heap_bytes(),
            Self::Percentiles(sketch) => sketch.heap_bytes(),
        }
    }
}

/// What the change of a row means for a smallest, largest, first or last value.
enum ValuePlace {
    Unchanged,
    /// The value after the change is the new result.
    Replaced,
    /// Another row may have the new result.
    Unknown,
}

/// A value, and the time of its row.
type Timed<'v> = (FieldValue<'v>, i64);

fn place(
    function: Function,
    known: Option<(&FieldValue<'_>, i64)>,
    before: Option<&Timed<'_>>,
    after: Option<&Timed<'_>>,
) -> ValuePlace {
    let Some(known) = known else {
        return if after.is_some() { ValuePlace::Replaced } else { ValuePlace::Unchanged };
    };
    // `Less` means that the value comes before the known one, so it is the new result.
    let compare = |(value, time): &Timed<'_>| match function {
        Function::Min => value.compare(known.0),
        Function::Max => known.0.compare(value),
        Function::First => time.cmp(&known.1),
        _ => known.1.cmp(time),
    };
    // Among rows with equal times, the order of the keys decides which is first or last.
    let by_time = matches!(function, Function::First | Function::Last);
    match (before.map(compare), after.map(compare)) {
        (_, Some(Ordering::Less)) => ValuePlace::Replaced,
        (_, Some(Ordering::Equal)) if by_time => ValuePlace::Unknown,
        (_, Some(Ordering::Equal)) => ValuePlace::Unchanged,
        (Some(Ordering::Equal), _) => ValuePlace::Unknown,
        _ => ValuePlace::Unchanged,
    }
}
