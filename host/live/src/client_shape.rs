//! Compares the shape for which a client was written with the shape of the table that the client
//! subscribes to.

use std::sync::Arc;

use lantern_api::{ShapeChange, TableShape};
use lantern_core::{FieldKind, RequestError};

use crate::protocol::RollUp;
use crate::query::Query;
use crate::subscribe_error::SubscribeError;

/// The maximum number of fields in a shape. A table has no more.
const FIELDS_MAX: usize = 256;
/// The maximum number of changes that the sentence of an error names.
const CHANGES_NAMED: usize = 8;
/// The maximum number of new fields that an error names for a field that is gone.
const NEW_NAMES: usize = 3;

/// The shape for which a client was written.
#[derive(Clone, Debug)]
pub(crate) struct ClientShape(Arc<TableShape>);

impl ClientShape {
    /// Checks the kinds in `shape`.
    ///
    /// # Errors
    /// [`RequestError`] if there are too many fields, or a field has a kind that does not exist.
    pub(crate) fn new(shape: TableShape) -> Result<Self, RequestError> {
        if shape.fields.len() > FIELDS_MAX {
            let detail = format!(
                "it has {} fields, and a table has at most {FIELDS_MAX}: name only the fields that the client reads",
                shape.fields.len()
            );
            return Err(RequestError::new("shape", detail));
        }
        for (name, kind) in &shape.fields {
            if FieldKind::named(kind).is_none() {
                let kinds: Vec<_> = FieldKind::ALL.iter().map(|kind| kind.name()).collect();
                let kinds = kinds.join("`, `");
                let detail = format!(
                    "the field `{name}` has the kind `{kind}`, which does not exist: write one of `{kinds}`"
                );
                return Err(RequestError::new("shape", detail));
            }
        }
        Ok(Self(Arc::new(shape)))
    }

    /// Sets the `time` of `roll_up`, if it is left out and the roll-up needs it, to the timestamp
    /// field that the client relied on. Otherwise a version with a second timestamp field, which is
    /// an added field, would make the roll-up ambiguous.
    pub(crate) fn name_time(&self, roll_up: &mut RollUp) {
        let RollUp { time, start, end, bucket, .. } = roll_up;
        if time.is_some() || (bucket.is_none() && start.is_none() && end.is_none()) {
            return;
        }
        let timestamp = FieldKind::Timestamp.name();
        let mut fields = self.0.fields.iter().filter(|(_, kind)| *kind == timestamp);
        if let (Some((name, _)), None) = (fields.next(), fields.next()) {
            *time = Some(name.clone());
        }
    }

    /// Checks that a client with this shape can read what `query` selects of a table with the
    /// shape `now`.
    ///
    /// # Errors
    /// [`SubscribeError::Shape`] if a field that the query uses is gone or is another one, or if
    /// the parts of the key are.
    pub(crate) fn check(&self, query: &Query, now: &TableShape) -> Result<(), SubscribeError> {
        if self.0.hash.is_some() && self.0.hash == now.hash {
            return Ok(());
        }
        let breaks = |change: &ShapeChange| {
            // The keys of groups do not contain the keys of rows.
            let uses = match &change.field {
                Some(field) => query.uses(field),
                None => !query.is_roll_up(),
            };
            uses && change.is_breaking()
        };
        let mut changes = self.0.changes(now);
        changes.retain(breaks);
        if changes.is_empty() {
            return Ok(());
        }
        let named = changes.iter().take(CHANGES_NAMED).map(|change| self.described(change, now));
        let mut named = named.collect::<Vec<_>>().join("; ");
        if let Some(others) = changes.len().checked_sub(CHANGES_NAMED).filter(|others| *others > 0)
        {
            named.push_str(&format!("; and {others} more"));
        }
        let detail = format!(
            "the table `{query}` is not the one that this client was written for: {named}: update the client, for example with `lantern types`"
        );
        Err(SubscribeError::Shape { detail, changes })
    }

    /// Describes `change`. If a field is gone, the new fields of the same kind are named, because
    /// the field may have been renamed.
    fn described(&self, change: &ShapeChange, now: &TableShape) -> String {
        let gone = change.field.as_deref().filter(|_| change.after.is_none());
        let names = gone.into_iter().flat_map(|gone| self.0.new_names(now, gone)).take(NEW_NAMES);
        let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
        match names.join(" or ").as_str() {
            "" => change.to_string(),
            names => format!("{change}, perhaps renamed to {names}"),
        }
    }
}
