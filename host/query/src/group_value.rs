//! A value of a group.

use lantern_core::FieldValue;

/// A value of a group; `None` is null.
pub type GroupValue = Option<FieldValue<'static>>;
