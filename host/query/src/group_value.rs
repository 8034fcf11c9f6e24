//! Represents the values in the columns of a group.

use std::cmp::Ordering;

use lantern_core::FieldValue;

/// A value in a column of a group; `None` is null.
pub type GroupValue = Option<FieldValue<'static>>;

/// Compares two lists of values in ascending order. Null comes last.
pub(crate) fn compare_ascending(a: &[GroupValue], b: &[GroupValue]) -> Ordering {
    let values = a.iter().zip(b);
    values.fold(Ordering::Equal, |known, (a, b)| {
        known.then_with(|| match (a, b) {
            (Some(a), Some(b)) => a.compare(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        })
    })
}
