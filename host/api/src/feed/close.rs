//! Lists the codes with which the server closes a session. After a code below 4500, the client must
//! not repeat the same request. After a code from 4500 on, it should reconnect after a random
//! pause.

/// Every subscription of an event stream has ended. It is the normal end of a session (RFC 6455,
/// section 7.4.1).
pub const NORMAL: u16 = 1000;
/// The client does not follow the WebSocket protocol (RFC 6455, section 7.4.1).
pub const PROTOCOL: u16 = 1002;
/// The client sent a binary message, but this protocol has only text messages.
pub const UNSUPPORTED: u16 = 1003;
/// The client sent a text message that is not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// The client sent a message that is not part of the protocol.
pub const BAD_MESSAGE: u16 = 4400;
/// The client's token is missing, wrong or expired.
pub const UNAUTHORIZED: u16 = 4401;
/// The client's token does not allow the request.
pub const FORBIDDEN: u16 = 4403;
/// A message of the client is larger than the limit.
pub const TOO_LARGE: u16 = 4413;
/// There are too many sessions. After this code, unlike after others below 4500, a client may
/// repeat the same request, but only after a long pause.
pub const TOO_MANY: u16 = 4429;
/// The server failed.
pub const ERROR: u16 = 4500;
/// The server shuts down.
pub const SHUTTING_DOWN: u16 = 4501;
/// The client is too slow.
pub const TOO_SLOW: u16 = 4502;
/// The client did not answer a ping in time.
pub const NO_PONG: u16 = 4504;

/// Whether `code` tells the client not to reconnect with the same request.
#[must_use]
pub fn is_refusal(code: u16) -> bool {
    matches!(code, PROTOCOL | UNSUPPORTED | NOT_UTF8 | 4400..4500)
}
