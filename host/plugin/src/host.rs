//! Loads plugins: creates a [`Plugin`] from an upload. A [`Plugin`] creates instances. All plugins
//! that were loaded from the same bytes share the compiled code.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lantern_core::{Plugin, VersionSource};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::v0_2::{Interpreter, InterpreterPre};
use crate::cache::{CodeCache, CompiledCode, UploadHash};
use crate::compile::{CompileOrder, Compilers};
use crate::instance::{Linked, LoadedPlugin};
use crate::interpreters::{Interpreters, Language};
use crate::store_data::GuestState;
use crate::upload_format::detect_format;
use crate::{LoadError, PluginConfig, PluginHostError, PluginLimits, contract, engine, wasi};

/// Loads plugins. Contains the engine that runs them, and the code that they share.
pub struct PluginHost {
    engine: Engine,
    limits: Arc<PluginLimits>,
    allow_wasi: bool,
    compilers: Compilers,
    cache: Option<CodeCache>,
    interpreters: Interpreters,
    /// Links plugins that use only the contract.
    bare: Linker<GuestState>,
    /// Links plugins that use the contract and WASI.
    with_wasi: Linker<GuestState>,
    /// The loaded code, by upload. An entry is locked while its upload is compiled. So if the same
    /// upload is loaded several times at once, it is compiled only once.
    slots: Mutex<HashMap<UploadHash, Arc<SharedCode>>>,
}

/// The code of an upload. It is kept only while it is in use.
type SharedCode = Mutex<Weak<Linked>>;

impl PluginHost {
    /// Starts the engine.
    ///
    /// # Errors
    /// Returns [`PluginHostError`] if the engine cannot run on this machine, or the folder of the
    /// cache is unusable.
    pub fn new(config: PluginConfig) -> Result<Self, PluginHostError> {
        let broken = |error: wasmtime::Error| PluginHostError::Engine(format!("{error:#}"));
        let engine = engine::new().map_err(broken)?;
        engine::tick(&engine).map_err(|error| PluginHostError::Engine(error.to_string()))?;
        let cache = match &config.cache_dir {
            Some(dir) => {
                let opened = CodeCache::open(dir, &engine::id(&engine), config.cache_bytes_max);
                Some(opened.map_err(|error| PluginHostError::Cache {
                    path: dir.display().to_string(),
                    reason: error.to_string(),
                })?)
            }
            None => None,
        };
        let bare = linker(&engine, false).map_err(broken)?;
        let with_wasi = linker(&engine, true).map_err(broken)?;
        Ok(Self {
            engine,
            allow_wasi: config.allow_wasi,
            compilers: Compilers::new(&config),
            interpreters: Interpreters::new(config.interpreters_dir.as_deref()),
            limits: Arc::new(config.limits),
            cache,
            bare,
            with_wasi,
            slots: Mutex::default(),
        })
    }

    /// Loads a plugin from `bytes`, a component or a core module that an SDK has built. Passes
    /// `parameters` to its `setup`. The call blocks while the code is compiled, at most for the
    /// time that the limits allow.
    ///
    /// # Errors
    /// Returns a [`LoadError`] with the reason and what to do.
    pub fn load(&self, bytes: &[u8], parameters: &str) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load_with(bytes, parameters, None)
    }

    /// Loads a plugin like [`PluginHost::load`]. `source` is the source code that the plugin runs
    /// if it is an interpreter.
    ///
    /// # Errors
    /// Returns the errors of [`PluginHost::load`], and [`LoadError::SourceRefused`] if the
    /// interpreter does not accept the source code.
    pub fn load_with(
        &self,
        bytes: &[u8],
        parameters: &str,
        source: Option<&VersionSource>,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        let limit = self.limits.upload_bytes_max;
        if bytes.len() > limit {
            return Err(LoadError::TooLarge { bytes: bytes.len(), limit });
        }
        let limit = self.limits.parameters_bytes_max;
        if parameters.len() > limit {
            return Err(LoadError::ParametersTooLarge { bytes: parameters.len(), limit });
        }
        let limit = self.limits.source_bytes_max;
        if let Some(VersionSource { name, text, .. }) = source
            && text.len() > limit
        {
            let (name, bytes) = (name.clone(), text.len());
            return Err(LoadError::SourceTooLarge { name, bytes, limit });
        }
        detect_format(bytes)?;
        let linked = self.linked(bytes, CompileOrder::Queued)?;
        Ok(Arc::new(LoadedPlugin::load(linked, parameters, source)?))
    }

    /// Returns the component of the interpreter that runs `source`.
    ///
    /// # Errors
    /// Returns [`LoadError::NoInterpreter`] if this host does not have it.
    pub fn interpreter_for(&self, source: &VersionSource) -> Result<Vec<u8>, LoadError> {
        self.interpreters.component_for(source)
    }

    /// Compiles the interpreter of `language` and stores its code in the cache. Other compilations
    /// do not wait for it. Returns `false` if nothing was compiled: this host does not have the
    /// interpreter, the cache already has its code, or there is no cache.
    ///
    /// # Errors
    /// Returns the errors of [`PluginHost::load`].
    pub fn compile_interpreter(&self, language: Language) -> Result<bool, LoadError> {
        let Some(cache) = &self.cache else { return Ok(false) };
        let Some(bytes) = self.interpreters.component(language)? else { return Ok(false) };
        let sha = Sha256::digest(&bytes).into();
        if cache.has(&sha) {
            return Ok(false);
        }
        let before = self.compiled();
        self.linked(&bytes, CompileOrder::AtOnce)?;
        Ok(self.compiled() > before)
    }

    /// Ends all compilations. From now on, uploads that must be compiled are refused. A server
    /// calls this when it stops.
    pub fn stop_compiling(&self) {
        self.compilers.stop();
    }

    /// Returns the number of uploads that were compiled since the start. Uploads whose code was
    /// already in use or in the cache are not counted.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.compilers.started()
    }

    /// Returns the linked code of an upload: code that is already in use, otherwise code from the
    /// cache. If there is neither, it compiles the upload.
    fn linked(&self, bytes: &[u8], order: CompileOrder) -> Result<Arc<Linked>, LoadError> {
        let sha = Sha256::digest(bytes).into();
        let slot = self.slot(sha);
        let mut loaded = lock(&slot);
        if let Some(linked) = loaded.upgrade() {
            hit("memory");
            return Ok(linked);
        }
        let linked = Arc::new(self.make(&sha, bytes, order)?);
        *loaded = Arc::downgrade(&linked);
        Ok(linked)
    }

    fn slot(&self, sha: UploadHash) -> Arc<SharedCode> {
        let mut slots = lock(&self.slots);
        // Removes the entries that have no caller and no code in use.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || lock(slot).strong_count() > 0);
        Arc::clone(slots.entry(sha).or_default())
    }

    fn make(
        &self,
        sha: &UploadHash,
        bytes: &[u8],
        order: CompileOrder,
    ) -> Result<Linked, LoadError> {
        if let Some(component) = self.cached(sha) {
            hit("disk");
            return self.link(&component);
        }
        metrics::counter!("lantern_plugin_cache_misses_total").increment(1);
        let code = self.compilers.compile(&self.engine, bytes, order)?;
        let code = CompiledCode::from_compiler(code);
        let component = code
            .deserialize(&self.engine)
            .map_err(|error| LoadError::Host { reason: format!("{error:#}") })?;
        let linked = self.link(&component)?;
        let Some(cache) = &self.cache else { return Ok(linked) };
        if let Err(error) = cache.store(sha, &code) {
            // The only consequence is that the plugin is compiled again after the next start.
            tracing::warn!(%error, "a compiled plugin could not be stored in the cache");
            return Ok(linked);
        }
        // Code takes less memory if it is loaded from its file.
        self.cached(sha).map_or(Ok(linked), |component| self.link(&component))
    }

    /// Returns the code of an upload, if it is in the cache.
    fn cached(&self, sha: &UploadHash) -> Option<Component> {
        let code = self.cache.as_ref()?.load(sha)?;
        let loaded = code.deserialize(&self.engine);
        loaded
            .inspect_err(
                |error| tracing::warn!(%error, "a compiled plugin of the cache cannot be loaded; the plugin is compiled again"),
            )
            .ok()
    }

    fn link(&self, component: &Component) -> Result<Linked, LoadError> {
        let (mut wasi, mut source) = (false, false);
        let ty = component.component_type();
        // The setting `allow_wasi` may have been changed since the cached code was checked.
        for (name, _) in ty.imports(&self.engine) {
            contract::check_import(name, self.allow_wasi)?;
            wasi |= name.starts_with("wasi:");
            source |= contract::is_source(name);
        }
        let linker = if wasi { &self.with_wasi } else { &self.bare };
        let link = |error: wasmtime::Error| LoadError::Link { reason: format!("{error:#}") };
        let pre = linker.instantiate_pre(component).map_err(link)?;
        let pre = InterpreterPre::new(pre).map_err(|_| {
            let exports: Vec<_> =
                ty.exports(&self.engine).map(|(name, _)| name.to_owned()).collect();
            contract::no_projector(&contract::version(), &exports)
        })?;
        let (engine, limits) = (self.engine.clone(), Arc::clone(&self.limits));
        Ok(Linked { engine, limits, pre, wasi, source })
    }
}

fn linker(engine: &Engine, wasi: bool) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    Interpreter::add_to_linker::<GuestState, HasSelf<GuestState>>(&mut linker, |state| state)?;
    if wasi {
        wasi::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hit(place: &'static str) {
    metrics::counter!("lantern_plugin_cache_hits_total", "place" => place).increment(1);
}
