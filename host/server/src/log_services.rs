//! The services of the configured log, in addition to reading and appending.

use std::sync::Arc;

use lantern_core::{CloseLog, CommittedOffsets, DeadLetters, Heartbeats, LogMaintenance};

/// The optional services of the log in use. A service is `None` if this kind of log does not
/// have it, or if the service is not configured.
#[derive(Clone)]
pub(crate) struct LogServices {
    /// Closes the log at shutdown.
    pub(crate) closing: Arc<dyn CloseLog>,
    /// Appends heartbeats to idle partitions.
    pub(crate) heartbeats: Arc<dyn Heartbeats>,
    /// Deletes old events. `None` over Kafka, where the broker does that.
    pub(crate) maintenance: Option<Arc<dyn LogMaintenance>>,
    /// Shows other programs how far projections have folded. `None` for the embedded
    /// log, which no other program reads.
    pub(crate) offsets: Option<Arc<dyn CommittedOffsets>>,
    /// Stores copies of parked events. `None` without a dead-letter topic.
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
}
