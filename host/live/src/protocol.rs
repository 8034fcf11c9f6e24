//! Builds the messages of the protocol ([`lantern_api::feed`]), and the answer to the handshake.
//! This module does not use tables or sockets.
//!
//! Data frames are put together from encoded pieces, so that rows are encoded once for all
//! subscribers. The tests check that every frame can be parsed as a [`ServerMessage`].

use std::borrow::Cow;

pub(crate) use lantern_api::feed::{
    BadSubscribe, ClientMessage, Closing, Condition, Ended, Field, FrameLimits, Mode, Refused,
    Reset, ResetReason, RollUp, ServerMessage, Subscribe, Subscribed, Welcome,
};
pub use lantern_api::feed::{SUBPROTOCOL, close};

use crate::LiveConfig;

/// Returns the value of the `Sec-WebSocket-Accept` header that answers a request's
/// `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// Builds the answer to `hello`.
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

/// The code of a `sub` with a member that is wrong.
pub(crate) const BAD_QUERY: &str = "LAN-0426";

/// The code of a `sub` of a client that was written for another shape of the table.
pub(crate) const OTHER_SHAPE: &str = "shape";
/// The code of a roll-up that exceeds a limit.
pub(crate) const OVER_LIMIT: &str = "LAN-0427";
/// The code of a roll-up with a number that cannot be written.
pub(crate) const OUT_OF_RANGE: &str = "LAN-0428";

/// The refusal of a subscription for good.
pub(crate) fn refused(id: u64, code: &'static str, msg: impl Into<String>) -> Refused {
    let (code, msg) = (code.into(), msg.into());
    Refused { id, code, msg, retry: false, parameter: None, setting: None, changes: Vec::new() }
}

/// The refusal of a subscription because its member `parameter` is wrong.
pub(crate) fn refused_member(
    id: u64,
    code: &'static str,
    msg: impl Into<String>,
    parameter: impl Into<Cow<'static, str>>,
) -> Refused {
    Refused { parameter: Some(parameter.into()), ..refused(id, code, msg) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
