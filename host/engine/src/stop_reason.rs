//! Why a shard stops: faults of the host, which pass, and halts, which need a person.

use std::time::Duration;

use lantern_core::{ApplyError, StoreError, Timestamp};

/// Why a shard cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The host's fault; to be tried again.
    Fault(String),
    /// A person must act.
    Halt(String),
}

impl From<StoreError> for StopReason {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.to_string())
    }
}

/// A fault of the host that is being waited out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) wait: Duration,
}

/// Why a call did not apply its batch.
pub(crate) enum CallError {
    /// An event or timer of the batch is to blame.
    Event(ApplyError),
    /// It set a timer that is due at this time, before the batch's last event.
    Due(Timestamp),
    /// The shard cannot go on.
    Stop(StopReason),
}

impl CallError {
    /// As a reason to stop, of a call whose batch spans no tick.
    pub(crate) fn due_is_a_fault(due: Timestamp) -> StopReason {
        StopReason::Fault(format!("a timer was due at {due}, within the call that set it"))
    }
}
