//! What can go wrong, as a caller sees it.

use std::sync::Arc;

use thiserror::Error;

/// Why a client or a table stopped, or did not start.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is no `ws://` address.
    #[error("`{url}` is no address of a feed: write it as `ws://host:port/v1/feed`")]
    Address {
        /// What was given.
        url: String,
    },
    /// The server cannot be reached. On the first connection only; later ones
    /// are tried again.
    #[error("`{url}` cannot be reached: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused the connection in HTTP.
    #[error("`{url}` answers {status} and no WebSocket: is it the address of a feed?")]
    Http {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server closed the session with a code that says: do not come back
    /// unchanged.
    #[error("the server closed the feed with {code}: {why}")]
    Refused {
        /// 1002, 1003, 1007, or 4400 to 4499.
        code: u16,
        /// The server's words.
        why: String,
    },
    /// The server refused the subscription.
    #[error("{message} ({code})")]
    Table {
        /// A stable word: `no_such_table`, `not_supported`…
        code: String,
        /// The server's words.
        message: String,
    },
    /// The server ended the subscription.
    #[error("the subscription of `{table}` ended: {why}")]
    Ended {
        /// The table's name.
        table: String,
        /// The server's words.
        why: String,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}
