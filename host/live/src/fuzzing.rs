//! Parses text from clients as a session does, for the experiments and fuzz targets in
//! `tests/`. Not part of the API.

use lantern_core::Checkpoint;

use crate::protocol::ClientMessage;
use crate::token;

/// Parses a client's message, and returns it as debug text.
///
/// # Errors
/// Returns the reason with which the server would close the session.
pub fn message(text: &str) -> Result<String, String> {
    let message = serde_json::from_str::<ClientMessage>(text);
    message.map(|message| format!("{message:?}")).map_err(|error| error.to_string())
}

/// Parses a resume token, and returns its epoch and commit, its checkpoint and its query. `None` if
/// `text` is not a token.
#[must_use]
pub fn token(text: &str) -> Option<((String, u64), Checkpoint, u64)> {
    token::decode(text).map(|token| ((token.epoch, token.commit), token.at, token.query))
}

/// Creates the text of a token. This is the inverse of `token`.
#[must_use]
pub fn encode_token(commit: (&str, u64), at: &Checkpoint, query: u64) -> String {
    token::encode(commit, at, query)
}
