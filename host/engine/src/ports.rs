//! The ports of the engine.

use std::sync::Arc;

use lantern_core::{Catalog, Clock, CommitSink, Log, Plugin, Random, StateStores, VersionRecord};

use crate::stop_reason::StopReason;

/// Everything outside of the engine that it uses.
#[derive(Clone)]
pub struct Ports {
    /// The event log.
    pub log: Arc<dyn Log>,
    /// The shards' states.
    pub stores: Arc<dyn StateStores>,
    /// The projections and their versions.
    pub catalog: Arc<dyn Catalog>,
    /// Takes commits for readers.
    pub publish: Arc<dyn CommitSink>,
    /// Time for pacing.
    pub clock: Arc<dyn Clock>,
    /// Draws the random part of epochs.
    pub random: Arc<dyn Random>,
    /// Loads plugins.
    pub plugins: Arc<dyn PluginSource>,
}

/// Why the plugin of a version cannot be loaded, as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The machine lacks a resource now; the engine tries again.
    #[error("{0}")]
    Host(String),
    /// The plugin does not fit this host; an operator must act.
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
    /// The plugin, compiled.
    ///
    /// # Errors
    /// [`PluginError`].
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError>;

    /// Called when no version uses the plugin with this SHA-256 any more.
    fn forget(&self, _sha256: &str) {}
}
