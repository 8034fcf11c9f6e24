//! The errors that a caller sees.

use std::sync::Arc;

use thiserror::Error;

/// Why a client or a table stopped, or did not start.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not a `ws://` address.
    #[error("`{url}` is not an address of a feed: write it as `ws://host:port/v1/feed`")]
    Address {
        /// The address that was given.
        url: String,
    },
    /// The server cannot be reached. This is returned only for the first connection; if a
    /// later connection fails, the client tries again.
    #[error("`{url}` cannot be reached: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// The cause.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused the connection with an HTTP status.
    #[error(
        "`{url}` answers {status} instead of a WebSocket: check that it is the address of a feed"
    )]
    Http {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server closed the session with a code after which a client must not reconnect
    /// unchanged.
    #[error("the server closed the feed with {code}: {why}")]
    Refused {
        /// 1002, 1003, 1007, or 4400 to 4499. Code 4429 (too many sessions) is returned
        /// only for the first connection; later the client tries again after it.
        code: u16,
        /// The server's explanation.
        why: String,
    },
    /// The server refused the subscription.
    #[error("{message} ({code})")]
    Table {
        /// A stable identifier: `no_such_table`, `not_supported`…
        code: String,
        /// The server's explanation.
        message: String,
    },
    /// The server ended the subscription.
    #[error("the subscription of `{table}` ended: {why}")]
    Ended {
        /// The table's name.
        table: String,
        /// The server's explanation.
        why: String,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}
