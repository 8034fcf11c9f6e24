//! Lists the ports that the engine needs.

use std::sync::Arc;

use lantern_core::{
    Catalog, Clock, CommitSink, EventTraces, Log, Plugin, Random, StateStores, VersionRecord,
};

use crate::stop_reason::StopReason;

/// The ports through which the engine uses everything outside of it.
#[derive(Clone)]
pub struct Ports {
    /// The event log that the projections fold.
    pub log: Arc<dyn Log>,
    /// The states of all shards.
    pub stores: Arc<dyn StateStores>,
    /// The catalogue of projections and versions.
    pub catalog: Arc<dyn Catalog>,
    /// Receives the commits that readers may see.
    pub publish: Arc<dyn CommitSink>,
    /// The clock for waits and limits of speed.
    pub clock: Arc<dyn Clock>,
    /// Draws the random part of epochs.
    pub random: Arc<dyn Random>,
    /// Loads plugins.
    pub plugins: Arc<dyn PluginSource>,
    /// Records traces of events; `None` if no traces are recorded.
    pub traces: Option<Arc<dyn EventTraces>>,
}

/// Why the plugin of a version cannot be loaded. Contains the reason as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The machine lacks a resource now. The engine tries again.
    #[error("{0}")]
    Host(String),
    /// The plugin cannot run on this host. An operator must act.
    #[error("{0}")]
    Unfit(String),
}

impl From<PluginError> for StopReason {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Host(reason) => Self::Fault(reason),
            PluginError::Unfit(reason) => Self::Halt(reason),
        }
    }
}

/// Loads the plugin of a version that is in the catalogue.
pub trait PluginSource: Send + Sync {
    /// Returns the compiled plugin of a version.
    ///
    /// # Errors
    /// Returns [`PluginError`] if the plugin cannot be loaded.
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError>;

    /// Reports that no version uses the plugin with this SHA-256 any more.
    fn forget(&self, _sha256: &str) {}
}
