//! Queries of requests, read as the API reads them: for the experiments and fuzz
//! targets in `tests/`. No part of the API.

use http::Uri;
use lantern_core::Checkpoint;

use crate::api::{events, tables};
use crate::config::HttpConfig;
use crate::problem::Problem;

/// What a query of a table asks for, in words.
///
/// # Errors
/// As the request would be answered.
pub fn table_query(query: &str) -> Result<String, Problem> {
    tables::explain(&uri(query)?, &HttpConfig::default())
}

/// What a query of the log asks for, in words.
///
/// # Errors
/// As the request would be answered.
pub fn events_query(query: &str) -> Result<String, Problem> {
    events::explain(&uri(query)?, &HttpConfig::default())
}

/// A table's cursor: the epoch and the key it names, and its checkpoint.
///
/// # Errors
/// As the request would be answered.
pub fn cursor(text: &str) -> Result<(String, String, Checkpoint), Problem> {
    tables::read_cursor(text)
}

/// The inverse of [`cursor`].
#[must_use]
pub fn encode_cursor(epoch: &str, key: &str, at: &Checkpoint) -> String {
    tables::write_cursor(epoch, key, at)
}

fn uri(query: &str) -> Result<Uri, Problem> {
    // The HTTP library refuses others before the API sees them.
    format!("/?{query}").parse().map_err(|e| Problem::new("LAN-0403", format!("`{query}`: {e}")))
}
