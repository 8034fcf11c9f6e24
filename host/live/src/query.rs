//! Implements queries, which are what a subscription selects. Sessions with equal queries share one
//! topic, and so its snapshot, its merged deltas and its encoded bytes.
//!
//! A [`Query`] determines which rows a reader gets and in which form. Mode, rate and token
//! determine only how the rows are delivered, so they are not part of a query.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use lantern_core::RollUpRequest;
use sha2::{Digest, Sha256};

use crate::protocol::{Condition, RollUp, Subscribe};

/// Selects rows of one public table, or groups of them. Clones share their content.
#[derive(Clone, Debug)]
pub(crate) struct Query(Arc<Selected>);

#[derive(Debug)]
struct Selected {
    /// The text that identifies the query. It begins with the name of the table.
    text: String,
    /// `text` begins with `projection/table`. This is the length of `projection`, and the next
    /// member is the length of the whole name, in bytes.
    projection_bytes: usize,
    name_bytes: usize,
    conditions: Vec<Condition>,
    columns: Option<Vec<String>>,
    roll_up: Option<RollUp>,
}

impl Query {
    /// The query of `sub`; `None` if its table does not have the form `projection/table` or contains
    /// a line break.
    pub(crate) fn of(sub: &Subscribe) -> Option<Self> {
        let projection_bytes = sub.table.find('/')?;
        // Otherwise a name could contain the conditions of another query, and be equal to it.
        if sub.table.contains('\n') {
            return None;
        }
        let mut conditions = sub.conditions.clone();
        // The order of conditions does not matter, so queries that differ only in it are
        // equal.
        conditions.sort_by_cached_key(json);
        conditions.dedup();
        let (columns, roll_up) = (sub.cols.clone(), sub.rollup.clone());
        let mut text = sub.table.clone();
        if !conditions.is_empty() || columns.is_some() || roll_up.is_some() {
            // No name of a table contains a line break.
            text.push('\n');
            text.push_str(&json(&(&conditions, &columns, &roll_up)));
        }
        let name_bytes = sub.table.len();
        Some(Self(Arc::new(Selected {
            text,
            projection_bytes,
            name_bytes,
            conditions,
            columns,
            roll_up,
        })))
    }

    /// Returns the name of the projection.
    pub(crate) fn projection(&self) -> &str {
        &self.0.text[..self.0.projection_bytes]
    }

    /// Returns the name of the table within the projection.
    pub(crate) fn table(&self) -> &str {
        &self.0.text[self.0.projection_bytes + 1..self.0.name_bytes]
    }

    /// The conditions that rows fulfil.
    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.0.conditions
    }

    /// The fields of the rows; all if `None`.
    pub(crate) fn columns(&self) -> Option<&[String]> {
        self.0.columns.as_deref()
    }

    /// Returns the roll-up whose groups take the place of the rows, if there is one.
    pub(crate) fn roll_up(&self) -> Option<RollUpRequest> {
        let RollUp { time, start, end, bucket, by, agg, fill, tz } = self.0.roll_up.clone()?;
        let conditions = self.0.conditions.clone();
        let aggregates = agg.0;
        Some(RollUpRequest { conditions, time, start, end, bucket, by, aggregates, fill, tz })
    }

    /// Returns whether the query selects groups of rows.
    pub(crate) fn is_roll_up(&self) -> bool {
        self.0.roll_up.is_some()
    }

    /// Returns whether the field `name` affects the result: readers get it, or a condition, a
    /// group or an aggregate uses it.
    pub(crate) fn uses(&self, name: &str) -> bool {
        let Selected { conditions, columns, roll_up, .. } = &*self.0;
        let shown = match (roll_up, columns) {
            (Some(RollUp { time, by, agg, .. }), _) => {
                time.as_deref() == Some(name)
                    || by.iter().any(|field| field == name)
                    || agg.0.iter().any(|(_, of)| of.get(1).is_some_and(|field| field == name))
            }
            (None, Some(columns)) => columns.iter().any(|column| column == name),
            (None, None) => true,
        };
        shown || conditions.iter().any(|(field, _, _)| field == name)
    }

    /// Returns whether the query selects all rows of the table, unchanged.
    pub(crate) fn is_whole_table(&self) -> bool {
        self.0.text.len() == self.0.name_bytes
    }

    /// Returns a hash that identifies the query in tokens. Equal queries have equal hashes in every
    /// process.
    pub(crate) fn token_hash(&self) -> u64 {
        let digest = Sha256::digest(self.0.text.as_bytes());
        u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers always encode")
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Query {}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

/// The name of the table.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text[..self.0.name_bytes])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The query of a subscription to `table` with these other members.
    pub(crate) fn query(table: &str, members: Value) -> Option<Query> {
        let mut sub = json!({"id": 1, "table": table});
        sub.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Query::of(&serde_json::from_value(sub).unwrap())
    }

    #[test]
    fn a_query_is_a_projection_and_a_table_and_keeps_its_name() {
        assert_eq!(query("shop", json!({})), None);
        for members in [json!({}), json!({"cols": ["a"]})] {
            let query = query("shop/by/day", members).unwrap();
            assert_eq!((query.projection(), query.table()), ("shop", "by/day"));
            assert_eq!(query.to_string(), "shop/by/day");
        }
    }

    #[test]
    fn the_hash_in_tokens_is_that_of_earlier_servers() {
        let hash = |name, members| query(name, members).unwrap().token_hash();
        // The expected hash is the first 8 bytes of the SHA-256 of the table's name.
        for plain in [json!({}), json!({"where": []}), json!({"cols": null})] {
            assert_eq!(hash("shop/a", plain), 0x8585_119b_e227_f63a);
        }
        assert_ne!(hash("shop/a", json!({})), hash("shop/b", json!({})));
    }

    #[test]
    fn a_query_uses_the_fields_that_it_shows_filters_and_groups_by() {
        for (members, used) in [
            (json!({}), "abc"),
            (json!({"where": [["a", "=", 1]]}), "abc"),
            (json!({"cols": ["b"]}), "b"),
            (json!({"where": [["a", "=", 1]], "cols": ["b"]}), "ab"),
            (json!({"rollup": {"agg": {"c": ["count"]}}}), ""),
            (json!({"rollup": {"by": ["a"], "agg": {"x": ["sum", "b"]}}}), "ab"),
            (json!({"where": [["b", "=", 1]], "rollup": {"time": "c", "bucket": "1h"}}), "bc"),
        ] {
            let query = query("shop/a", members).unwrap();
            let uses: String =
                ["a", "b", "c"].into_iter().filter(|name| query.uses(name)).collect();
            assert_eq!(uses, used);
        }
    }

    #[test]
    fn queries_are_equal_if_they_select_the_same() {
        let of = |members| query("shop/a", members).unwrap();
        let two = of(json!({"where": [["a", "=", 1], ["b", ">", 2]]}));
        let turned = of(json!({"where": [["b", ">", 2], ["a", "=", 1], ["b", ">", 2]]}));
        assert_eq!(two, turned);
        assert_eq!(two.token_hash(), turned.token_hash());
        let all = [
            of(json!({})),
            two,
            of(json!({"where": [["a", "=", 1]]})),
            of(json!({"where": [["a", "=", "1"]]})),
            of(json!({"cols": []})),
            of(json!({"cols": ["a", "b"]})),
            of(json!({"cols": ["b", "a"]})),
            of(json!({"rollup": {}})),
            of(json!({"rollup": {"by": ["a"]}})),
        ];
        for (place, query) in all.iter().enumerate() {
            for other in &all[..place] {
                assert_ne!(query, other);
                assert_ne!(query.token_hash(), other.token_hash());
            }
            assert_eq!(query.is_whole_table(), place == 0);
        }
    }
}
