//! Defines with what a subscription is opened, and with what it is refused or ends.

use std::sync::Arc;
use std::time::Duration;

use crate::client_shape::ClientShape;
use crate::protocol::{Mode, OVER_LIMIT, Refused, ServerMessage};
use crate::query::Query;

/// The contents of a `sub` message after it was checked.
pub(crate) struct ParsedSub {
    pub(crate) id: u64,
    pub(crate) ch: u64,
    pub(crate) query: Query,
    pub(crate) mode: Mode,
    pub(crate) rate: Duration,
    pub(crate) resume: Option<String>,
    /// The shape for which the client was written.
    pub(crate) shape: Option<ClientShape>,
    /// The epoch and commit that an earlier subscription of this session to the same
    /// query showed.
    pub(crate) shown: Option<(Arc<str>, u64)>,
    /// Whether the subscription tries again if it cannot be opened yet.
    pub(crate) repeats: bool,
}

/// What a subscription needs to try again.
pub(crate) struct Repeat {
    pub(crate) resume: Option<String>,
    /// Whether the client knows that the subscription cannot be opened yet.
    pub(crate) told: bool,
}

/// Returns the time after which a subscription that was refused with `code` tries again. To find out
/// that a roll-up exceeds a limit, the server reads the whole table, so it does this rarely.
pub(crate) fn repeat_after(code: &str) -> Duration {
    Duration::from_secs(if code == OVER_LIMIT { 30 } else { 2 })
}

/// Whether a subscription is open.
pub(crate) enum SubscriptionOpening {
    Pending,
    /// The subscription is open, or tries again later.
    Open,
    Refused(Refused),
}

/// Why a subscription is over.
pub(crate) enum LastMessage {
    Refused(Refused),
    Ended(String),
}

impl LastMessage {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Refused(refused) => ServerMessage::Err(refused).text(),
            Self::Ended(text) => text,
        }
    }
}
