//! Handles plugins between the upload and the engine. It stores their files, compiles them, and
//! removes files that are not used.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lantern_core::{
    Log, Manifest, Plugin, StateStores, StoreError, VersionId, VersionRecord, VersionSource,
};
use lantern_engine::{
    Activation, Engine, EngineConfig, PluginError, PluginSource, Upload, Uploaded, determinism,
    sample, sample_warnings, version_id,
};
use lantern_plugin::{Language, LoadError, PluginHost};
use lantern_store::PluginFiles;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// The content of an upload: a plugin, source code, or an interpreter with source code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// The component; `None` if the host provides the interpreter for the source code.
    pub(crate) wasm: Option<Bytes>,
    /// The parameters, which are passed to `setup`.
    pub(crate) parameters: String,
    /// The source code, if the component is an interpreter.
    pub(crate) source: Option<VersionSource>,
}

/// The result of checking a plugin.
pub(crate) struct Checked {
    pub(crate) sha256: String,
    pub(crate) version: VersionId,
    pub(crate) events: u64,
    pub(crate) warnings: Vec<String>,
    pub(crate) manifest: Manifest,
}

/// The plugins on disk, and the host that runs them.
pub(crate) struct Plugins {
    files: PluginFiles,
    host: PluginHost,
    stores: Arc<dyn StateStores>,
    /// A lock that keeps the removal of unused files from running during an upload. An upload holds
    /// the lock while it stores a file for a version that is not in the catalogue yet. Uploads
    /// share the lock, so the check of a slow plugin does not delay other uploads. The removal
    /// holds the lock exclusively. The engine never takes the lock.
    changing: RwLock<()>,
}

impl Plugins {
    pub(crate) fn new(files: PluginFiles, host: PluginHost, stores: Arc<dyn StateStores>) -> Self {
        Self { files, host, stores, changing: RwLock::new(()) }
    }

    /// Compiles, checks and stores a plugin, and creates a version with it.
    pub(crate) fn upload(
        &self,
        engine: &Engine,
        content: &Content,
        name: Option<String>,
        activate: Activation,
        check: bool,
    ) -> Result<Uploaded, Problem> {
        // Compiling may take a minute, so it runs before the lock is taken.
        let (wasm, plugin) = self.load(content)?;
        let _changing = self.changing.read();
        let sha256 = self.files.put(&wasm)?;
        let Content { parameters, source, .. } = content.clone();
        // If the engine refuses the version, the next call of `sweep` removes the file.
        Ok(engine.upload(Upload { plugin, sha256, parameters, source, name, activate, check })?)
    }

    /// Returns the stores of the states in which checks fold.
    pub(crate) fn stores(&self) -> &dyn StateStores {
        &*self.stores
    }

    /// Loads the plugin of an upload. Also returns the plugin's component.
    fn load(&self, content: &Content) -> Result<(Bytes, Arc<dyn Plugin>), LoadError> {
        let Content { wasm, parameters, source } = content;
        let wasm = match (wasm, source) {
            (Some(wasm), _) => wasm.clone(),
            (None, Some(source)) => self.host.interpreter_for(source)?.into(),
            (None, None) => Bytes::new(),
        };
        let plugin = self.host.load_with(&wasm, parameters, source.as_ref())?;
        Ok((wasm, plugin))
    }

    /// Ends all compilations, because the server stops.
    pub(crate) fn stop_compiling(&self) {
        self.host.stop_compiling();
    }

    /// Compiles the interpreters that are not in the cache yet, until `stopping` is cancelled. A
    /// failure is only logged, because the next upload of source code reports it again.
    pub(crate) fn compile_interpreters(&self, stopping: &CancellationToken) {
        for language in Language::ALL {
            let (file, started) = (language.file(), Instant::now());
            match self.host.compile_interpreter(language) {
                Ok(true) => {
                    let seconds = started.elapsed().as_secs();
                    tracing::info!(file, seconds, "compiled an interpreter");
                }
                Ok(false) => {}
                Err(_) if stopping.is_cancelled() => return,
                Err(error) => tracing::warn!(file, %error, "an interpreter cannot be used"),
            }
        }
    }

    /// Does the same as an upload, but stores nothing. Also returns the plugin.
    pub(crate) fn check(
        &self,
        content: &Content,
        log: &dyn Log,
        config: &EngineConfig,
    ) -> Result<(Checked, Arc<dyn Plugin>), Problem> {
        let (wasm, plugin) = self.load(content)?;
        let manifest = plugin.manifest().clone();
        manifest.check().map_err(lantern_engine::EngineError::from)?;
        let sample = sample(&manifest, log, config)?;
        let events = determinism(&plugin, &sample, &*self.stores, config)?;
        let warnings = sample_warnings(&manifest, &sample);
        let sha256 = hex::encode(Sha256::digest(&wasm));
        let version = version_id(&sha256, &content.parameters, content.source.as_ref());
        Ok((Checked { sha256, version, events, warnings, manifest }, plugin))
    }

    /// Removes the files that no version needs. It does nothing while an upload is in progress.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be listed or removed.
    pub(crate) fn sweep(&self, engine: &Engine) -> Result<(), StoreError> {
        // If this call waited for the lock, all later uploads would have to wait for it.
        let Some(_changing) = self.changing.try_write() else { return Ok(()) };
        let stored = self.files.list()?;
        let projections = engine.status();
        let needed = |sha256: &String| {
            projections.iter().flat_map(|p| &p.versions).any(|v| v.sha256 == *sha256)
        };
        for sha256 in stored.iter().filter(|sha256| !needed(sha256)) {
            self.files.remove(sha256)?;
            tracing::info!(sha256, "removed a plugin that no version needs");
        }
        Ok(())
    }
}

impl PluginSource for Plugins {
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError> {
        let host = |error: StoreError| PluginError::Host(error.to_string());
        let wasm = self.files.get(&version.sha256).map_err(host)?;
        let wasm = wasm.ok_or_else(|| {
            PluginError::Unfit(format!(
                "the plugin's file `{}.wasm` is missing: upload it again",
                version.sha256
            ))
        })?;
        let VersionRecord { parameters, source, .. } = version;
        let plugin = self.host.load_with(&wasm, parameters, source.as_ref()).map_err(|error| {
            let reason = error.to_string();
            if error.may_pass() { PluginError::Host(reason) } else { PluginError::Unfit(reason) }
        })?;
        Ok(plugin)
    }
}
