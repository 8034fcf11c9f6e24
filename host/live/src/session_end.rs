//! Defines how a session ends, and why.

use std::borrow::Cow;

use crate::protocol::close;
use crate::transport::SocketError;

/// The reason why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed the session. Contains the code, if the client sent one.
    Client(Option<u16>),
    /// The connection broke, or the client no longer reads from it.
    Cut,
    /// The server closed the session with one of the codes in [`crate::close`].
    Server(u16),
}

/// Why a session must end.
pub(crate) enum SessionStop {
    Close(u16, Cow<'static, str>),
    Client(Option<u16>),
    Cut,
}

impl SessionStop {
    pub(crate) fn close(code: u16, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Close(code, why.into())
    }
}

impl From<SocketError> for SessionStop {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Cut => Self::Cut,
            SocketError::TooLarge => {
                Self::close(close::TOO_LARGE, "a message is larger than the limit")
            }
            SocketError::Bad(why) => Self::close(close::PROTOCOL, why),
            SocketError::NotUtf8 => Self::close(close::NOT_UTF8, "text must be UTF-8"),
        }
    }
}
