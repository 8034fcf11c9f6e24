//! What a subscription selects. Sessions with equal queries share one topic: its
//! snapshot, its merged deltas and its encoded bytes.
//!
//! A [`Query`] contains what determines which rows a reader gets and in which form. Mode,
//! rate and token only determine how the rows are delivered, so a query does not contain
//! them.

use std::fmt;

use sha2::{Digest, Sha256};

/// Selects all rows of one public table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Query {
    projection: String,
    table: String,
}

impl Query {
    /// The query for `projection/table`; `None` if `name` does not have this form.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (projection, table) = name.split_once('/')?;
        Some(Self { projection: projection.to_owned(), table: table.to_owned() })
    }

    /// The projection's name.
    pub(crate) fn projection(&self) -> &str {
        &self.projection
    }

    /// The table's name within its projection.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Identifies the query in tokens: equal queries have equal hashes, in every
    /// process.
    pub(crate) fn token_hash(&self) -> u64 {
        let digest = Sha256::digest(self.to_string().as_bytes());
        u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.projection, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_a_projection_and_a_table_and_keeps_its_name() {
        assert_eq!(Query::parse("shop"), None);
        let query = Query::parse("shop/by/day").unwrap();
        assert_eq!((query.projection(), query.table()), ("shop", "by/day"));
        assert_eq!(query.to_string(), "shop/by/day");
    }

    #[test]
    fn the_hash_in_tokens_is_that_of_earlier_servers() {
        let hash = |name| Query::parse(name).unwrap().token_hash();
        // The first 8 bytes of the SHA-256 of the name.
        assert_eq!(hash("shop/a"), 0x8585_119b_e227_f63a);
        assert_ne!(hash("shop/a"), hash("shop/b"));
    }
}
