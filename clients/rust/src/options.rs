//! The options of a client.

use std::collections::BTreeMap;
use std::time::Duration;

use lantern_api::feed::Mode;

use crate::row::Row;

/// How a [`crate::Client`] connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// A token that identifies the reader; `None` if the server does not require one.
    pub token: Option<String>,
    /// How long connecting may take, until `welcome`. Default 10 s.
    pub connect_timeout: Duration,
    /// The pause before the first reconnect. It doubles with every failure, and each
    /// pause is reduced by a random share of up to a half. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest pause before a reconnect, and the pause if the server has too many
    /// sessions (close code 4429). Default 30 s.
    pub backoff_max: Duration,
    /// When the server shuts down, its clients reconnect at a random time within this
    /// period, not all at once. Default 2 s.
    pub shutdown_spread: Duration,
    /// The largest message accepted from the server, in bytes. Default 16 MiB.
    pub message_bytes_max: usize,
    /// The number of changes buffered for a slow reader of [`crate::Table::changes`];
    /// beyond it the reader gets [`crate::Change::Missed`]. Default 1,024.
    pub changes_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            shutdown_spread: Duration::from_secs(2),
            message_bytes_max: 16 << 20,
            changes_buffer: 1024,
        }
    }
}

/// The options of a subscription.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Whether changes may be merged.
    pub mode: Mode,
    /// The minimum time between two changes, in milliseconds; 0 for none.
    pub rate_ms: u64,
    /// The state of an earlier subscription to continue.
    pub resume: Option<Resume>,
}

/// The point that an earlier subscription had reached, also one of another process: its
/// token ([`crate::Table::resume_token`]) and the rows at the same moment
/// ([`crate::Table::rows`]). [`crate::Table::saved`] returns both.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The token.
    pub token: String,
    /// The rows that belong to the token.
    pub rows: BTreeMap<String, Row>,
}
