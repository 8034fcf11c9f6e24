//! What a caller can choose.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Row;

/// How a [`crate::Client`] connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// A token that says who is reading; `None` where the server asks for none.
    pub token: Option<String>,
    /// How long connecting and being welcomed may take. Default 10 s.
    pub connect_timeout: Duration,
    /// The pause before the first reconnect; it doubles with every failure,
    /// and each pause is cut by a random share of up to a half. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest pause before a reconnect. Default 30 s.
    pub backoff_max: Duration,
    /// When the server shuts down, its clients come back at a random moment
    /// within this time, not all at once. Default 2 s.
    pub shutdown_spread: Duration,
    /// The largest message taken from the server, in bytes. Default 16 MiB.
    pub message_bytes_max: usize,
    /// Changes kept for a reader of [`crate::Table::changes`] that is slow;
    /// with more it hears [`crate::Change::Missed`]. Default 1,024.
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

/// How a table is subscribed to.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Whether changes may be merged.
    pub mode: Mode,
    /// The least pause between two changes, in milliseconds; 0 for none.
    pub rate_ms: u64,
    /// Where an earlier subscription was.
    pub resume: Option<Resume>,
}

/// How changes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The newest state: changes to one key are merged when they come faster
    /// than they can be sent.
    #[default]
    State,
    /// Every change by itself. A reader that is too slow is cut off, and comes
    /// back where it was.
    Changes,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Changes => "changes",
        }
    }
}

/// Where an earlier subscription was, perhaps in another process: its token
/// ([`crate::Table::resume_token`]) with the rows it had then
/// ([`crate::Table::rows`]). Take both by [`crate::Table::saved`].
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The token.
    pub token: String,
    /// The rows of the moment that the token is of.
    pub rows: BTreeMap<String, Row>,
}
