//! Defines why a request failed, and the exit code for it.

use std::time::Duration;

use crate::error::{Exit, Failure, Refusal};

/// The reason why a request to the server failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// There was no answer: the server is not running, or the connection was lost.
    Unreachable {
        /// The address of the server.
        base: String,
        /// The error of the connection.
        reason: String,
    },
    /// The server refused the request.
    Refused {
        /// The HTTP status of the server's answer.
        status: u16,
        /// The value of `Retry-After`, if there is one.
        retry_after: Option<Duration>,
        /// The server's reason for the refusal.
        refusal: Box<Refusal>,
    },
    /// The answer of the server cannot be parsed.
    Answer(String),
    /// The answer broke off.
    Incomplete(String),
    /// The answer cannot be written to its file.
    Output(String),
}

impl ApiError {
    /// Returns `Some` if the same request may succeed later. It then contains the wait before the
    /// next try, if the server names one.
    pub(crate) fn passing(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unreachable { .. } => Some(None),
            Self::Refused { status: 429 | 502..=504, retry_after, .. } => Some(*retry_after),
            Self::Refused { .. } | Self::Answer(_) | Self::Incomplete(_) | Self::Output(_) => None,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable { base, reason } => {
                Self::new(Exit::Unreachable, format!("no server answers at {base}: {reason}"))
                    .help("start one with `lantern serve`, or name another with --server")
            }
            ApiError::Refused { status, refusal, .. } => refusal.into_failure(status),
            ApiError::Answer(reason) => {
                Self::new(Exit::Failure, format!("cannot parse the server's answer: {reason}"))
                    .help("check that it is a Lantern server of this version")
            }
            ApiError::Incomplete(reason) => {
                Self::new(Exit::Failure, format!("the answer broke off: {reason}"))
                    .help("the rows are incomplete; the server's log names the reason")
            }
            ApiError::Output(reason) => {
                Self::new(Exit::Failure, format!("the answer cannot be written: {reason}"))
            }
        }
    }
}

/// The result of a request.
pub(crate) type Answer<T> = Result<T, ApiError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = |status, retry_after| ApiError::Refused {
            status,
            retry_after,
            refusal: Box::default(),
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(refused(503, second).passing(), Some(second));
        assert_eq!(refused(429, None).passing(), Some(None));
        assert_eq!(refused(400, second).passing(), None);
        assert_eq!(refused(500, None).passing(), None);
    }
}
