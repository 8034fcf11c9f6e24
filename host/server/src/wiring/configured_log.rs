//! The log in use, whichever it is.

use std::sync::Arc;

use lantern_core::Log;

use crate::log_services::LogServices;

/// The log in use, as engine and server see it.
pub(crate) struct ConfiguredLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) services: LogServices,
}
