//! Why a shard stops: temporary faults of the host, and halts, which need an operator.

use std::time::Duration;

use lantern_core::{ApplyError, StoreError, Timestamp};

/// Why a shard cannot continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A fault of the host; the engine tries again.
    Fault(String),
    /// An operator must act.
    Halt(String),
}

impl From<StoreError> for StopReason {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.to_string())
    }
}

/// A fault of the host, and the wait before the next try.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) wait: Duration,
}

/// Why the batch of a call was not applied.
pub(crate) enum CallError {
    /// An event or timer of the batch is the cause.
    Event(ApplyError),
    /// The call set a timer that is due at this time, before the batch's last event.
    Due(Timestamp),
    /// The shard cannot continue.
    Stop(StopReason),
}

impl CallError {
    /// The reason to stop if this happens in a call whose batch spans no tick.
    pub(crate) fn due_is_a_fault(due: Timestamp) -> StopReason {
        StopReason::Fault(format!(
            "a timer is due at {due}, before the last event of the call that set it"
        ))
    }
}
