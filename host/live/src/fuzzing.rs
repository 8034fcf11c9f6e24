//! What comes from clients, read as a session reads it: for the experiments and
//! fuzz targets in `tests/`. No part of the API.

use lantern_core::Checkpoint;

use crate::protocol::ClientMessage;
use crate::token;

/// A client's message in words, or what is wrong with it.
///
/// # Errors
/// As the session's close says it.
pub fn message(text: &str) -> Result<String, String> {
    let message = serde_json::from_str::<ClientMessage>(text);
    message.map(|message| format!("{message:?}")).map_err(|error| error.to_string())
}

/// A resume token's epoch, checkpoint and query; `None` if it is none.
#[must_use]
pub fn token(text: &str) -> Option<(String, Checkpoint, u64)> {
    token::decode(text).map(|token| (token.epoch, token.at, token.query))
}

/// The inverse of `token`.
#[must_use]
pub fn encode_token(epoch: &str, at: &Checkpoint, query: u64) -> String {
    token::encode(epoch, at, query)
}
