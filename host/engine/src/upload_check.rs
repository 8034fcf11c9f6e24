//! What a dry run of an upload needs from the engine.

use std::sync::Arc;

use lantern_core::{Manifest, Plugin, VersionId};

use crate::lifecycle::check_upload;
use crate::{Engine, EngineError};

/// A version, and its plugin.
pub type VersionPlugin = (VersionId, Arc<dyn Plugin>);

impl Engine {
    /// Checks the rules for an upload of a version with `manifest`. Returns the projection's name:
    /// `name`, or the name in the manifest.
    ///
    /// # Errors
    /// [`EngineError::Manifest`], [`EngineError::Cycle`].
    pub fn check_version(
        &self,
        name: Option<&str>,
        manifest: &Manifest,
    ) -> Result<String, EngineError> {
        let name = name.unwrap_or(&manifest.name);
        check_upload(name, manifest)?;
        self.check_cycles(name, manifest, true)?;
        self.record_with_room(name)?;
        Ok(name.to_owned())
    }

    /// The active version of a projection and its plugin; `None` if there is none.
    ///
    /// # Errors
    /// [`EngineError::Plugin`] or [`EngineError::Host`] if the plugin cannot be loaded.
    pub fn active_plugin(&self, projection: &str) -> Result<Option<VersionPlugin>, EngineError> {
        let Ok((build, _)) = self.registry.active_build(projection) else { return Ok(None) };
        let plugin = self.plugin_of(&build)?;
        Ok(Some((build.version.id.clone(), plugin)))
    }
}
