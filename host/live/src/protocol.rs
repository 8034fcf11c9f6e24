//! The words of the protocol: what a client says, what the server answers, and
//! the close codes. Knows nothing of tables or sockets.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::LiveConfig;

/// The WebSocket subprotocol spoken here.
pub const SUBPROTOCOL: &str = "lantern.v1.json";

/// The value of the `Sec-WebSocket-Accept` header that answers a request's
/// `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// The codes a session is closed with. Those below 4500 say: do not come back
/// unchanged; those from 4500: come back, with jitter.
pub mod close {
    /// What came is no WebSocket (RFC 6455, section 7.4.1).
    pub const PROTOCOL: u16 = 1002;
    /// A binary message; this protocol has text alone.
    pub const UNSUPPORTED: u16 = 1003;
    /// A text message that is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// A message is not of the protocol.
    pub const BAD_MESSAGE: u16 = 4400;
    /// The token is missing, wrong or expired.
    pub const UNAUTHORIZED: u16 = 4401;
    /// The token does not allow this.
    pub const FORBIDDEN: u16 = 4403;
    /// A message is larger than the limit.
    pub const TOO_LARGE: u16 = 4413;
    /// There are too many sessions.
    pub const TOO_MANY: u16 = 4429;
    /// The server failed.
    pub const ERROR: u16 = 4500;
    /// The server shuts down.
    pub const SHUTTING_DOWN: u16 = 4501;
    /// The client is too slow.
    pub const TOO_SLOW: u16 = 4502;
    /// The client answered no ping.
    pub const NO_PONG: u16 = 4504;
}

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum ClientMessage {
    Hello {
        #[serde(default, rename = "token")]
        _token: Option<String>,
    },
    Sub(Box<Sub>),
    Unsub {
        id: u64,
    },
    Auth {
        #[serde(default, rename = "token")]
        _token: Option<String>,
    },
    Ack {
        n: u64,
    },
    Pong,
}

/// A subscription as asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Sub {
    pub(crate) id: u64,
    pub(crate) table: String,
    #[serde(default)]
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) rate_ms: Option<u64>,
    #[serde(default)]
    pub(crate) resume: Option<String>,
    /// What this server does not know; refused, never ignored, since the rows
    /// would be others than were asked for.
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// How changes are handed to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The newest state; what is not yet sent is merged per key.
    State,
    /// Every change.
    Changes,
}

/// Why a subscription starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResetReason {
    Epoch,
    History,
    TooOld,
    Overflow,
    Fields,
}

impl ResetReason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::History => "history",
            Self::TooOld => "too_old",
            Self::Overflow => "overflow",
            Self::Fields => "fields",
        }
    }
}

/// What the server says, apart from data frames, which are put together from
/// encoded pieces.
#[derive(Debug, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum ServerMessage<'a> {
    Welcome {
        heartbeat_ms: u64,
        limits: Limits,
    },
    Ok {
        id: u64,
        ch: u64,
        fields: &'a serde_json::value::RawValue,
        resumed: bool,
        /// If resumed: the commit whose rows the client has, and on which the
        /// next frame follows.
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<u64>,
    },
    Reset {
        ch: u64,
        why: ResetReason,
        /// The table's fields, where another version may have changed them.
        #[serde(skip_serializing_if = "Option::is_none")]
        fields: Option<&'a serde_json::value::RawValue>,
    },
    Err {
        id: u64,
        code: &'a str,
        msg: &'a str,
        retry: bool,
    },
    End {
        id: u64,
        why: &'a str,
    },
    Ping,
}

/// The limits a client should know.
#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    subs: usize,
    frame: usize,
    window: u32,
}

impl ServerMessage<'_> {
    pub(crate) fn welcome(config: &LiveConfig) -> Self {
        Self::Welcome {
            heartbeat_ms: config.heartbeat_ms,
            limits: Limits {
                subs: config.subs_max,
                frame: config.frame_bytes_max,
                window: config.window,
            },
        }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn unknown_fields_of_a_subscription_are_kept_apart() {
        let text = r#"{"t":"sub","id":1,"table":"a/b","where":[],"rate_ms":5}"#;
        let ClientMessage::Sub(sub) = serde_json::from_str(text).unwrap() else { panic!("no sub") };
        assert_eq!(sub.rate_ms, Some(5));
        assert_eq!(sub.unknown.keys().collect::<Vec<_>>(), ["where"]);
    }
}
