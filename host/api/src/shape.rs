//! Defines the shape of a table, and what changes between the shapes of two versions. A server
//! compares the shape for which a client was written with that of the active version.
//! `lantern dev` compares the active version with the next one.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::object::object;
use crate::projections::TableStatus;

/// The shape of a table's rows and keys. A shape that a client sends contains what the client
/// relies on. `lantern types` writes it with all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TableShape {
    /// The hash of the whole table's shape: 16 hexadecimal digits, as in `ok`. If it is that of
    /// the table, the server does not compare the other members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The kind of each field, by the field's name.
    pub fields: BTreeMap<String, String>,
    /// The unit of each field that has one, by the field's name. Units are not compared if this
    /// is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<BTreeMap<String, String>>,
    /// Whether keys begin with a tenant. Not compared if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_tenant: Option<bool>,
}

/// A difference between the shapes of two versions of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShapeChange {
    /// The field; missing if the parts of the key change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The field's kind before, with its unit in parentheses; missing if the field is new. For a
    /// key its parts: `key`, or `tenant, key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The same now; missing if the field is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl TableShape {
    /// The whole shape of a table with these fields (name, kind and unit), with its hash.
    pub fn new<'f>(
        fields: impl IntoIterator<Item = (&'f str, &'f str, &'f str)>,
        per_tenant: bool,
    ) -> Self {
        let mut shape = Self { per_tenant: Some(per_tenant), ..Self::default() };
        let mut units = BTreeMap::new();
        for (name, kind, unit) in fields {
            shape.fields.insert(name.to_owned(), kind.to_owned());
            if !unit.is_empty() {
                units.insert(name.to_owned(), unit.to_owned());
            }
        }
        shape.units = Some(units);
        shape.hash = Some(shape.digest());
        shape
    }

    /// The whole shape of `table`, with its hash.
    #[must_use]
    pub fn of_table(table: &TableStatus) -> Self {
        let fields = table.fields.iter();
        let fields = fields.map(|field| (&*field.name, &*field.kind, &*field.unit));
        Self::new(fields, table.per_tenant)
    }

    /// Returns the first 8 bytes of the SHA-256 of the shape's canonical JSON, in hexadecimal. The
    /// order of the fields in the table does not matter.
    fn digest(&self) -> String {
        let canonical = json!([self.per_tenant, self.fields, self.units]).to_string();
        let digest = Sha256::digest(canonical.as_bytes());
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Lists the differences between this shape and `now`, ordered by the names of fields. Members
    /// that this shape does not have are not compared.
    #[must_use]
    pub fn changes(&self, now: &Self) -> Vec<ShapeChange> {
        let mut changes = Vec::new();
        if self.per_tenant.is_some() && self.per_tenant != now.per_tenant {
            let parts = |shape: &Self| shape.per_tenant.map(key_parts);
            changes.push(ShapeChange { field: None, before: parts(self), after: parts(now) });
        }
        let mut names: Vec<&String> = self.fields.keys().chain(now.fields.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (kind, kind_now) = (self.fields.get(name), now.fields.get(name));
            let same_unit = self.units.is_none() || self.unit(name) == now.unit(name);
            if kind == kind_now && same_unit {
                continue;
            }
            let field = Some(name.clone());
            changes.push(ShapeChange {
                field,
                before: self.described(name),
                after: now.described(name),
            });
        }
        changes
    }

    /// The fields of `now` that this shape does not have, and whose kind is that of this shape's
    /// field `gone`. If the field was renamed, one of them is the field.
    pub fn new_names<'n>(&self, now: &'n Self, gone: &str) -> impl Iterator<Item = &'n str> {
        let kind = self.fields.get(gone);
        let fields = now.fields.iter();
        fields
            .filter(move |(name, of)| Some(*of) == kind && !self.fields.contains_key(*name))
            .map(|(name, _)| name.as_str())
    }

    fn unit(&self, name: &str) -> &str {
        self.units.as_ref().and_then(|units| units.get(name)).map_or("", String::as_str)
    }

    fn described(&self, name: &str) -> Option<String> {
        let kind = self.fields.get(name)?;
        Some(match self.unit(name) {
            "" => kind.clone(),
            unit => format!("{kind} ({unit})"),
        })
    }
}

fn key_parts(per_tenant: bool) -> String {
    if per_tenant { "tenant, key" } else { "key" }.to_owned()
}

impl ShapeChange {
    /// Whether a client that was written for the version before may fail after the change. Only a
    /// field that is added has no effect on it.
    #[must_use]
    pub fn is_breaking(&self) -> bool {
        self.field.is_none() || self.before.is_some()
    }
}

/// A sentence without its full stop.
impl fmt::Display for ShapeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(name) => write!(f, "`{name}` ")?,
            None => f.write_str("the key ")?,
        }
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "was `{before}` and is `{after}` now"),
            (Some(before), None) => write!(f, "was `{before}` and is gone"),
            (None, after) => write!(f, "is new: `{}`", after.as_deref().unwrap_or_default()),
        }
    }
}

/// Written by hand, so that an error names the wrong field.
impl<'de> Deserialize<'de> for TableShape {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            #[serde(default)]
            hash: Option<String>,
            fields: Map<String, Value>,
            #[serde(default)]
            units: Option<Map<String, Value>>,
            #[serde(default)]
            per_tenant: Option<bool>,
        }
        let Members { hash, fields, units, per_tenant } = object(json)?;
        let fields = texts("kind", fields).map_err(D::Error::custom)?;
        let units = units.map(|units| texts("unit", units)).transpose();
        let units = units.map_err(D::Error::custom)?;
        let unknown = units.iter().flatten().find(|(name, _)| !fields.contains_key(*name));
        if let Some((name, _)) = unknown {
            let error = format!("`units` has the field `{name}`, which `fields` does not have");
            return Err(D::Error::custom(error));
        }
        Ok(Self { hash, fields, units, per_tenant })
    }
}

/// Reads an object whose values are the kinds or units of fields.
fn texts(what: &str, members: Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let text = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        other => Err(format!("the {what} of the field `{name}` is {other}, which is not text")),
    };
    members.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(fields: &[(&str, &str, &str)]) -> TableShape {
        TableShape::new(fields.iter().copied(), false)
    }

    fn texts(before: &TableShape, now: &TableShape) -> Vec<String> {
        let changes = before.changes(now);
        let text = |change: &ShapeChange| {
            format!("{} {change}", if change.is_breaking() { "!" } else { "+" })
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn an_added_field_is_the_only_change_that_breaks_no_client() {
        let before = shape(&[("cents", "integer", "EUR"), ("at", "text", ""), ("n", "number", "")]);
        let now = TableShape::new(
            [("at", "timestamp", ""), ("cents", "integer", "USD"), ("m", "number", "")],
            true,
        );
        assert_eq!(
            texts(&before, &now),
            [
                "! the key was `key` and is `tenant, key` now",
                "! `at` was `text` and is `timestamp` now",
                "! `cents` was `integer (EUR)` and is `integer (USD)` now",
                "+ `m` is new: `number`",
                "! `n` was `number` and is gone",
            ]
        );
        assert_eq!(before.new_names(&now, "n").collect::<Vec<_>>(), ["m"]);
        assert!(before.changes(&before).is_empty());
    }

    #[test]
    fn a_shape_is_compared_only_in_what_it_has() {
        let text = r#"{"fields":{"cents":"integer"}}"#;
        let few: TableShape = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&few).unwrap(), text);
        let now = TableShape::new([("cents", "integer", "EUR")], true);
        assert!(few.changes(&now).is_empty());
        // `units` says that the field has no unit.
        let none = TableShape { units: Some(BTreeMap::new()), ..few };
        assert_eq!(texts(&none, &now), ["! `cents` was `integer` and is `integer (EUR)` now"]);
    }

    #[test]
    fn the_hash_is_stable_and_that_of_everything_that_is_compared() {
        let fields = [("cents", "integer", "EUR"), ("at", "text", "")];
        let hash = |shape: &TableShape| shape.hash.clone().unwrap();
        let one = hash(&shape(&fields));
        assert_eq!(one, "3bba273f9adecee6");
        assert_eq!(one, hash(&shape(&[fields[1], fields[0]])), "the order does not matter");
        let others = [
            shape(&fields[..1]),
            shape(&[("cents", "number", "EUR"), fields[1]]),
            shape(&[("cents", "integer", ""), fields[1]]),
            TableShape::new(fields, true),
        ];
        for other in &others {
            assert_ne!(one, hash(other));
        }
    }

    #[test]
    fn a_malformed_shape_is_refused_with_the_name_of_the_field() {
        for (text, error) in [
            ("7", "invalid type: integer `7`, expected an object"),
            (r#"["x",{}]"#, "invalid type: sequence, expected an object"),
            ("{}", "missing field `fields`"),
            (r#"{"fields":{},"key":1}"#, "unknown field `key`, expected one of `hash`, `fields`"),
            (r#"{"fields":{"n":7}}"#, "the kind of the field `n` is 7, which is not text"),
            (r#"{"fields":{"n":"text"},"units":{"n":[]}}"#, "the unit of the field `n` is []"),
            (
                r#"{"fields":{"n":"text"},"units":{"m":"s"}}"#,
                "`units` has the field `m`, which `fields` does not have",
            ),
        ] {
            let found = serde_json::from_str::<TableShape>(text).unwrap_err().to_string();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
