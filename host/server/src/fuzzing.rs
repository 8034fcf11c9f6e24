//! Parses the queries of requests as the API does, for the experiments and fuzz targets in
//! `tests/`. Not part of the API.

use http::Uri;
use lantern_core::Checkpoint;

use crate::config::HttpConfig;
use crate::http::{events, tables};
use crate::problem::Problem;

/// Describes as text what a query of a table requests.
///
/// # Errors
/// Returns the problem with which the request would be answered.
pub fn table_query(query: &str) -> Result<String, Problem> {
    tables::explain(&uri(query)?, &HttpConfig::default())
}

/// Describes as text what a query of the log requests.
///
/// # Errors
/// Returns the problem with which the request would be answered.
pub fn events_query(query: &str) -> Result<String, Problem> {
    events::explain(&uri(query)?, &HttpConfig::default())
}

/// Parses the cursor of a table, and returns its epoch, key and checkpoint.
///
/// # Errors
/// Returns the problem with which the request would be answered.
pub fn cursor(text: &str) -> Result<(String, String, Checkpoint), Problem> {
    tables::read_cursor(text)
}

/// Creates the text of a cursor, which [`cursor`] can parse.
#[must_use]
pub fn encode_cursor(epoch: &str, key: &str, at: &Checkpoint) -> String {
    tables::write_cursor(epoch, key, at)
}

fn uri(query: &str) -> Result<Uri, Problem> {
    // The HTTP library refuses a text that cannot be part of a URI, before it reaches the API.
    format!("/?{query}").parse().map_err(|e| Problem::new("LAN-0403", format!("`{query}`: {e}")))
}
