//! Describes why a shard stops. There are two kinds: a fault of the host, which is temporary, and a
//! halt, which needs an operator.

use std::time::Duration;

use lantern_core::{ApplyError, StoreError, Timestamp};

/// Why a shard cannot continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The host failed. The engine tries again.
    Fault(String),
    /// The shard stops until an operator acts. The text is the reason.
    Halt(String),
}

impl From<StoreError> for StopReason {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.to_string())
    }
}

/// A fault of the host, with the wait before the next try.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) wait: Duration,
}

/// Why a call did not apply its batch.
pub(crate) enum CallError {
    /// An event or timer of the batch caused the error.
    Event(ApplyError),
    /// The call set a timer that is due at this time, before the batch's last event.
    Due(Timestamp),
    /// The shard cannot continue, for this reason.
    Stop(StopReason),
}

impl CallError {
    /// Returns a reason to stop for [`CallError::Due`] from a call whose batch spans no tick. This
    /// should not happen.
    pub(crate) fn due_is_a_fault(due: Timestamp) -> StopReason {
        StopReason::Fault(format!(
            "a timer is due at {due}, before the last event of the call that set it"
        ))
    }
}
