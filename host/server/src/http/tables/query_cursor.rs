//! Implements the cursor of a query whose result is in the order of a field, or is a roll-up.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lantern_core::{Checkpoint, View};
use lantern_query::{GroupPosition, QueryRequest, RowPosition};
use serde::{Deserialize, Serialize};

use super::page::check_history;
use crate::problem::Problem;

/// The beginning of the cursor of a query. The cursor of a read by keys contains no dot, so the two
/// kinds can be distinguished.
const PREFIX: &str = "q.";

/// A cursor: the place where a page of a query ended.
#[derive(Serialize, Deserialize)]
pub(super) struct QueryCursor {
    epoch: String,
    checkpoint: Checkpoint,
    /// Identifies the query, because the position means nothing in another query.
    query: u64,
    position: Position,
}

/// The last row or group of a page, after which the next page begins.
#[derive(Serialize, Deserialize)]
pub(super) enum Position {
    Row(RowPosition),
    Group(GroupPosition),
}

impl QueryCursor {
    pub(super) fn new(view: &View, request: &QueryRequest, position: Position) -> Self {
        Self {
            epoch: view.epoch().to_owned(),
            checkpoint: view.checkpoint().coarse(),
            query: query_hash(request),
            position,
        }
    }

    pub(super) fn write(&self) -> String {
        let bytes = postcard::to_stdvec(self).expect("strings and numbers always encode");
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Parses a cursor; `None` if it is the cursor of a read by keys.
    pub(super) fn read(text: &str) -> Option<Result<Self, Problem>> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok();
        let cursor = bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok());
        Some(cursor.ok_or_else(|| not_a_cursor(text)))
    }

    /// Returns the row or group after which the page of `request` begins.
    pub(super) fn position(
        text: Option<&str>,
        view: &View,
        request: &QueryRequest,
    ) -> Result<Option<Position>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let cursor = Self::read(text).unwrap_or_else(|| Err(not_a_cursor(text)))?;
        check_history(view, &cursor.epoch, &cursor.checkpoint)?;
        if cursor.query != query_hash(request) {
            let detail = format!("`{text}` is the cursor of another query: repeat its parameters");
            return Err(Problem::new("LAN-0212", detail));
        }
        Ok(Some(cursor.position))
    }
}

fn not_a_cursor(text: &str) -> Problem {
    Problem::new("LAN-0212", format!("`{text}` is not a cursor of this query"))
}

fn query_hash(request: &QueryRequest) -> u64 {
    let mut hash = DefaultHasher::new();
    format!("{request:?}").hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_given_and_others_are_refused() {
        let position = RowPosition { value: None, key: "k".into() };
        let cursor = QueryCursor {
            epoch: "1.a.0".into(),
            checkpoint: Checkpoint::default(),
            query: query_hash(&QueryRequest::default()),
            position: Position::Row(position.clone()),
        };
        let back = QueryCursor::read(&cursor.write()).unwrap().unwrap();
        assert!(matches!(back.position, Position::Row(back) if back == position));
        assert!(QueryCursor::read("e30").is_none());
        for bad in ["q.", "q.???", "q.e30"] {
            assert_eq!(QueryCursor::read(bad).unwrap().err().unwrap().code, "LAN-0212");
        }
    }
}
