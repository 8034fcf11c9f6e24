//! The codes that a session is closed with. Codes below 4500 mean: do not reconnect
//! unchanged. Codes from 4500 mean: reconnect after a random pause.

/// The client does not speak WebSocket (RFC 6455, section 7.4.1).
pub const PROTOCOL: u16 = 1002;
/// A binary message; this protocol has only text.
pub const UNSUPPORTED: u16 = 1003;
/// A text message that is not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// A message that is not part of the protocol.
pub const BAD_MESSAGE: u16 = 4400;
/// The token is missing, wrong or expired.
pub const UNAUTHORIZED: u16 = 4401;
/// The token does not allow this.
pub const FORBIDDEN: u16 = 4403;
/// A message is larger than the limit.
pub const TOO_LARGE: u16 = 4413;
/// There are too many sessions. A client may reconnect unchanged, after a long pause.
pub const TOO_MANY: u16 = 4429;
/// The server failed.
pub const ERROR: u16 = 4500;
/// The server shuts down.
pub const SHUTTING_DOWN: u16 = 4501;
/// The client is too slow.
pub const TOO_SLOW: u16 = 4502;
/// The client answered no ping.
pub const NO_PONG: u16 = 4504;

/// Whether `code` means that a client must not reconnect unchanged.
#[must_use]
pub fn is_refusal(code: u16) -> bool {
    matches!(code, PROTOCOL | UNSUPPORTED | NOT_UTF8 | 4400..4500)
}
