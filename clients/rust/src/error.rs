//! Defines the errors that a caller gets.

use std::sync::Arc;

use lantern_api::ShapeChange;
use thiserror::Error;

/// Why a client or a table has stopped, or could not start.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address does not begin with `ws://`.
    #[error("`{url}` is not an address of a feed: write it as `ws://host:port/v1/feed`")]
    Address {
        /// The address that the caller has passed.
        url: String,
    },
    /// The server cannot be reached. Only the first connection returns this. If a later connection
    /// fails, the client tries again.
    #[error("`{url}` cannot be reached: {source}")]
    Unreachable {
        /// The address of the server.
        url: String,
        /// The error that is the cause.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered the request with an HTTP status and no WebSocket.
    #[error(
        "`{url}` answers {status} instead of a WebSocket: check that it is the address of a feed"
    )]
    Http {
        /// The address of the server.
        url: String,
        /// The HTTP status of the server's answer.
        status: u16,
    },
    /// The server closed the session with a code after which a client must not reconnect with the
    /// same request.
    #[error("the server closed the feed with {code}: {why}")]
    Refused {
        /// The close code: 1002, 1003, 1007, or 4400 to 4499. Code 4429 (too many sessions) is
        /// returned only for the first connection. For later connections, the client tries again
        /// after this code.
        code: u16,
        /// The explanation of the server.
        why: String,
    },
    /// The server refused the subscription.
    #[error("{message} ({code})")]
    Table {
        /// A stable identifier, such as `no_such_table` or `not_supported`.
        code: String,
        /// The explanation of the server.
        message: String,
    },
    /// The table is not, or no longer, the one that the program was written for
    /// ([`crate::TableOptions::shape`]). The client does not try again.
    #[error("{message}")]
    Shape {
        /// The name of the table.
        table: String,
        /// The explanation of the server, which names the fields.
        message: String,
        /// The fields that differ, and how.
        changes: Vec<ShapeChange>,
    },
    /// The server ended the subscription.
    #[error("the subscription of `{table}` ended: {why}")]
    Ended {
        /// The name of the table.
        table: String,
        /// The explanation of the server.
        why: String,
    },
    /// The program has closed the client.
    #[error("the client was closed")]
    Closed,
}

impl Error {
    /// The error after which `table` gets no more changes, because the server refused or ended the
    /// subscription because of the table's shape.
    pub(crate) fn shape(table: &str, message: String, changes: Vec<ShapeChange>) -> Self {
        Self::Shape { table: table.to_owned(), message, changes }
    }
}

/// The code of `err` and `end` if the table has another shape than the program was written for.
pub(crate) const SHAPE: &str = "shape";
