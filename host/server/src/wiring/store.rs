//! Opens the files in which projections are stored: states, catalogue and plugins.

use std::sync::Arc;

use lantern_core::{Catalog, Documents, StateStores};
use lantern_plugin::PluginHost;
use lantern_store::{CatalogFile, PluginFiles, StateDir};

use crate::config::ServerConfig;
use crate::data::DataDir;
use crate::plugins::Plugins;
use crate::start_error::StartError;

/// The stores with the files of projections.
pub(super) struct Stores {
    pub(super) state: Arc<dyn StateStores>,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) documents: Arc<dyn Documents>,
    pub(super) plugins: Arc<Plugins>,
}

/// Opens the stores, and starts the plugin host.
pub(super) fn open(config: &ServerConfig, data: &DataDir) -> Result<Stores, StartError> {
    let state = StateDir::open(data.state(), config.store.clone())
        .map_err(|error| StartError::store(data.state(), error))?;
    let state: Arc<dyn StateStores> = Arc::new(state);
    let catalog = CatalogFile::open(data.catalog())
        .map_err(|error| StartError::store(data.catalog(), error))?;
    let catalog = Arc::new(catalog);
    let documents: Arc<dyn Documents> = Arc::clone(&catalog) as _;
    let files = PluginFiles::open(data.plugins())
        .map_err(|error| StartError::store(data.plugins(), error))?;
    let mut plugin = config.plugin.clone();
    plugin.cache_dir.get_or_insert_with(|| data.cache());
    let host = PluginHost::new(plugin).map_err(|error| StartError::data(data.cache(), error))?;
    let plugins = Arc::new(Plugins::new(files, host, Arc::clone(&state)));
    Ok(Stores { state, catalog, documents, plugins })
}
