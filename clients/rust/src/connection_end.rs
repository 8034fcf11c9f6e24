//! Lists the reasons why a connection was lost. For each reason it says whether another attempt can
//! succeed.

use std::fmt;
use std::sync::Arc;

use lantern_api::feed::close;
use tokio_tungstenite::tungstenite;

use crate::error::Error;

/// Why a connection was lost.
#[derive(Debug)]
pub(crate) enum ConnectionEnd {
    /// The address is not valid.
    Address,
    /// The server cannot be reached, or the connection was interrupted.
    Cut(Arc<dyn std::error::Error + Send + Sync>),
    /// The server answered the request with an HTTP status and no WebSocket.
    Http(u16),
    /// The server closed the connection. Contains the close code and the reason.
    Closed(u16, String),
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the address is invalid"),
            Self::Cut(error) => error.fmt(f),
            Self::Http(status) => write!(f, "status {status}"),
            Self::Closed(code, why) => write!(f, "closed with {code}: {why}"),
        }
    }
}

impl ConnectionEnd {
    pub(crate) fn cut(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Cut(Arc::from(error.into()))
    }

    /// Returns whether another attempt with the same request would also fail.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Address => true,
            Self::Cut(_) => false,
            // The statuses for too many requests and for a request timeout are temporary.
            Self::Http(status) => (400..500).contains(status) && ![408, 429].contains(status),
            // The sessions of other clients end, so a later attempt may succeed.
            Self::Closed(_, _) if self.is_too_many() => false,
            Self::Closed(code, _) => close::is_refusal(*code),
        }
    }

    /// Returns whether the server refused the connection because it has too many sessions.
    pub(crate) fn is_too_many(&self) -> bool {
        matches!(self, Self::Closed(close::TOO_MANY, _))
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(self, Self::Closed(close::SHUTTING_DOWN, _))
    }

    pub(crate) fn error(self, url: &str) -> Error {
        let url = url.to_owned();
        match self {
            Self::Address => Error::Address { url },
            Self::Cut(source) => Error::Unreachable { url, source },
            Self::Http(status) => Error::Http { url, status },
            Self::Closed(code, why) if close::is_refusal(code) => Error::Refused { code, why },
            Self::Closed(code, why) => {
                let source = Arc::from(Box::from(format!("closed with {code}: {why}")));
                Error::Unreachable { url, source }
            }
        }
    }
}

impl From<tungstenite::Error> for ConnectionEnd {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Url(_) | tungstenite::Error::HttpFormat(_) => Self::Address,
            tungstenite::Error::Http(answer) => Self::Http(answer.status().as_u16()),
            error => Self::cut(error),
        }
    }
}
