//! Represents the log in use, either the embedded log or the log on Kafka.

use std::sync::Arc;

use lantern_core::Log;

use crate::log_services::LogServices;

/// The log in use, as the engine and the server use it.
pub(crate) struct ConfiguredLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) services: LogServices,
}
