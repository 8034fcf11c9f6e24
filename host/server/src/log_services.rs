//! Provides the services that a log provides in addition to reading and appending.

use std::sync::Arc;

use lantern_core::{CloseLog, CommittedOffsets, DeadLetters, Heartbeats, LogMaintenance};

/// The optional services of the log. A service is `None` if this kind of log does not have it or if
/// it is not configured.
#[derive(Clone)]
pub(crate) struct LogServices {
    /// Closes the log when the server shuts down.
    pub(crate) closing: Arc<dyn CloseLog>,
    /// Appends heartbeats to idle partitions.
    pub(crate) heartbeats: Arc<dyn Heartbeats>,
    /// Deletes old events. It is `None` for Kafka, where the broker deletes them.
    pub(crate) maintenance: Option<Arc<dyn LogMaintenance>>,
    /// Shows other programs how far projections have folded the log. It is `None` for the embedded
    /// log, which no other program reads.
    pub(crate) offsets: Option<Arc<dyn CommittedOffsets>>,
    /// Stores copies of parked events. It is `None` if there is no dead-letter topic.
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
}
