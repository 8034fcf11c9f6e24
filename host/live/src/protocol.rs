//! The protocol as this crate speaks it: the messages of [`lantern_api::feed`], and the
//! handshake. Knows nothing of tables or sockets.
//!
//! Data frames are put together from encoded pieces, so that rows are encoded once for all
//! subscribers. The tests parse every frame that they receive as a [`ServerMessage`].

pub(crate) use lantern_api::feed::{
    ClientMessage, Ended, Field, FrameLimits, Mode, Refused, Reset, ResetReason, ServerMessage,
    Subscribe, Subscribed, Welcome,
};
pub use lantern_api::feed::{SUBPROTOCOL, close};

use crate::LiveConfig;

/// The value of the `Sec-WebSocket-Accept` header that answers a request's
/// `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// The answer to `hello`.
pub(crate) fn welcome(config: &LiveConfig) -> ServerMessage {
    ServerMessage::Welcome(Welcome {
        heartbeat_ms: config.heartbeat_ms,
        limits: FrameLimits {
            subs: config.subs_max,
            frame: config.frame_bytes_max,
            window: config.window,
        },
    })
}

/// The refusal of a subscription.
pub(crate) fn refused(
    id: u64,
    code: &'static str,
    msg: impl Into<String>,
    retry: bool,
) -> ServerMessage {
    let (code, msg) = (code.into(), msg.into());
    ServerMessage::Err(Refused { id, code, msg, retry, parameter: None, setting: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
