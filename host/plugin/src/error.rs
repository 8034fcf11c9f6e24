//! Defines the errors of loading a plugin. Their texts are for the plugin's author.

use lantern_core::ManifestError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The reason why [`crate::PluginHost::new`] failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PluginHostError {
    /// The WebAssembly engine cannot start on this machine.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The folder with compiled plugins cannot be used.
    #[error("the cache of compiled plugins at `{path}` cannot be used: {reason}")]
    Cache {
        /// The path of the folder.
        path: String,
        /// The error that the system returned.
        reason: String,
    },
}

/// Why a plugin was not loaded. Each error has a stable [`LoadError::code`] and a
/// [`LoadError::help`]. The compiling child returns it as JSON.
#[derive(Clone, Debug, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LoadError {
    /// The upload is not WebAssembly.
    #[error("this is not WebAssembly: {actual}; upload the .wasm file that your compiler wrote")]
    NotWasm {
        /// The format of the upload, or its first bytes.
        actual: String,
    },
    /// The upload is larger than the limit.
    #[error(
        "the plugin has {bytes} bytes, and the limit is {limit} (`plugin.limits.upload_bytes_max`)"
    )]
    TooLarge {
        /// The size of the upload, in bytes.
        bytes: usize,
        /// The maximum size, in bytes.
        limit: usize,
    },
    /// The parameters are larger than the limit.
    #[error(
        "the parameters have {bytes} bytes, and the limit is {limit} (`plugin.limits.parameters_bytes_max`)"
    )]
    ParametersTooLarge {
        /// The size of the parameters, in bytes.
        bytes: usize,
        /// The maximum size, in bytes.
        limit: usize,
    },
    /// The upload is a core module that was not built with an SDK and does not export the functions
    /// of the contract.
    #[error(
        "this is a core WebAssembly module without a `component-type` section and without the \
         contract's exports, so it is not a projection"
    )]
    NoMetadata,
    /// The upload is a core module with an import that no host can provide.
    #[error("the module imports `{name}` from `{module}`, which projections cannot import: {why}")]
    CoreImport {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// The probable reason for the import.
        why: String,
    },
    /// The upload is a core module that cannot be converted to a component.
    #[error("the module cannot be turned into a component: {reason}")]
    Wrap {
        /// The reason why the module cannot be converted.
        reason: String,
    },
    /// The upload is damaged, or uses a WebAssembly feature that is not enabled.
    #[error(
        "this WebAssembly is invalid, or uses a feature that this host does not support: {reason}"
    )]
    Invalid {
        /// The error of the validator.
        reason: String,
    },
    /// The plugin imports something that is not in the contract.
    #[error("the plugin imports `{name}`, which this host does not provide; {have}")]
    Import {
        /// The name of the imported interface or function.
        name: String,
        /// The interfaces or functions that the host provides.
        have: String,
    },
    /// The plugin was built for another version of the contract.
    #[error(
        "the plugin was built for version {expected} of the contract (it {verb} `{name}`), but this host has version {have}"
    )]
    Version {
        /// The name of the interface.
        name: String,
        /// How the plugin uses the interface: `imports` or `exports`.
        verb: String,
        /// The version of the contract in the plugin.
        expected: String,
        /// The version of the contract in the host.
        have: String,
    },
    /// The plugin imports a part of WASI that the host does not provide.
    #[error("the plugin imports `{name}`: {why}")]
    Wasi {
        /// The name of the interface.
        name: String,
        /// Why the host does not provide the interface.
        why: String,
    },
    /// A function's parameters or results differ from the contract.
    #[error(
        "`{function}` is `{actual}` in the plugin, but `{expected}` in version {version} of the \
         contract"
    )]
    Signature {
        /// The names of the interface and the function.
        function: String,
        /// The function's signature in the plugin.
        actual: String,
        /// The function's signature in the contract.
        expected: String,
        /// The version of the contract.
        version: String,
    },
    /// The component is not a projection.
    #[error(
        "the component does not export `{expected}`, so it is not a projection; it exports {exports}"
    )]
    NoProjector {
        /// The interface that the component does not export.
        expected: String,
        /// What the component exports instead.
        exports: String,
    },
    /// The component cannot be linked, for a reason that has no error of its own.
    #[error("the plugin does not match this host's contract: {reason}")]
    Link {
        /// The error of the engine.
        reason: String,
    },
    /// Compiling took too much processor time.
    #[error(
        "compiling took more than {limit_s} s of processor time; raise `plugin.limits.compile_cpu_s`"
    )]
    CompileCpu {
        /// The maximum processor time, in seconds.
        limit_s: u64,
    },
    /// Compiling took too much memory.
    #[error(
        "compiling took more than {limit_bytes} bytes of memory; raise `plugin.limits.compile_memory_bytes`"
    )]
    CompileMemory {
        /// The maximum memory, in bytes.
        limit_bytes: u64,
    },
    /// Compiling took too much wall time.
    #[error("compiling took longer than {limit_s} s; raise `plugin.limits.compile_wall_s`")]
    CompileWall {
        /// The maximum wall time, in seconds.
        limit_s: u64,
    },
    /// The compiler crashed or panicked.
    #[error("the compiler crashed on this plugin: {reason}")]
    CompilerBroke {
        /// Why the compiler failed.
        reason: String,
    },
    /// A signal that does not show the reason killed the compiler.
    #[error(
        "the compiler was killed (signal 9): memory ran out, its processor time was used up, or someone ended it"
    )]
    CompilerKilled,
    /// Too many plugins wait to be compiled.
    #[error("{waiting} plugins are waiting to be compiled; try again later")]
    CompileQueue {
        /// The number of waiting plugins.
        waiting: u32,
    },
    /// No instance can be created within the limits.
    #[error("no instance of the plugin can be created: {reason}")]
    Instance {
        /// Why there is no instance.
        reason: String,
    },
    /// The plugin's `setup` returned an error.
    #[error("the plugin's setup failed: {message}")]
    Setup {
        /// The error message of the plugin.
        message: String,
    },
    /// The interpreter has refused the source code.
    #[error("the source is refused: {message}")]
    SourceRefused {
        /// The interpreter's message. It begins with the name of the source file and the line.
        message: String,
    },
    /// The plugin is an interpreter, but the upload has no source code for it.
    #[error("the plugin is an interpreter, and was uploaded without a source to run")]
    NoSource,
    /// The upload has source code, but the plugin is not an interpreter.
    #[error("the plugin is not an interpreter, but was uploaded with the source `{name}`")]
    UnusedSource {
        /// The name of the source file.
        name: String,
    },
    /// The source code is larger than the limit.
    #[error(
        "the source `{name}` has {bytes} bytes, and the limit is {limit} (`plugin.limits.source_bytes_max`)"
    )]
    SourceTooLarge {
        /// The name of the source file.
        name: String,
        /// The size of the source code, in bytes.
        bytes: usize,
        /// The maximum size, in bytes.
        limit: usize,
    },
    /// The name is not allowed for a source file.
    #[error(
        "`{name}` is not the name of a source: a name has at most 128 bytes and no folders, and ends in .py, .js, .mjs, .ts, .mts, .yaml, .yml or .json"
    )]
    SourceName {
        /// The name; if it is long, only its beginning.
        name: String,
    },
    /// The source code is not text.
    #[error("line {line} of the source `{name}` is not UTF-8 text")]
    SourceText {
        /// The name of the source file.
        name: String,
        /// The first line that is not UTF-8.
        line: usize,
    },
    /// The host has no interpreter for the source code.
    #[error("the source `{name}` needs the interpreter `{path}`, which does not exist")]
    NoInterpreter {
        /// The name of the source file.
        name: String,
        /// The path at which the host looks for the interpreter.
        path: String,
    },
    /// The plugin's `setup` trapped or exceeded a limit.
    #[error("the plugin's setup failed: {message}")]
    SetupTrapped {
        /// Why `setup` trapped, or which limit it exceeded.
        message: String,
        /// The plugin's call stack; may be empty.
        backtrace: String,
    },
    /// The plugin's `setup` used more fuel than it may.
    #[error(
        "the plugin's setup used up its fuel of {limit}: look for an endless loop, or raise `plugin.limits.fuel_setup`"
    )]
    SetupFuel {
        /// The limit, in units of fuel.
        limit: u64,
        /// The plugin's call stack; may be empty.
        backtrace: String,
    },
    /// The second call of `setup` returned another manifest.
    #[error(
        "setup returned two different manifests for the same parameters: they differ in the {field}"
    )]
    Varies {
        /// The first field of the manifest that differs.
        field: String,
    },
    /// The manifest breaks a rule.
    #[error("the manifest is refused: {0}")]
    #[serde(skip)]
    Manifest(#[from] ManifestError),
    /// The host failed; the plugin is not the reason.
    #[error("the plugin cannot be loaded now: {reason}")]
    Host {
        /// Why the host failed.
        reason: String,
    },
}

impl LoadError {
    /// Returns whether the same plugin may load later: the machine lacks a resource or is busy. The
    /// plugin or a limit causes all other errors.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Host { .. }
                | Self::CompileQueue { .. }
                | Self::CompileCpu { .. }
                | Self::CompileMemory { .. }
                | Self::CompileWall { .. }
                | Self::CompilerBroke { .. }
                | Self::CompilerKilled
        )
    }

    /// Returns the code of the error in the documentation. It never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotWasm { .. } => "LAN-0101",
            Self::TooLarge { .. } => "LAN-0102",
            Self::ParametersTooLarge { .. } => "LAN-0103",
            Self::NoMetadata => "LAN-0104",
            Self::CoreImport { .. } => "LAN-0105",
            Self::Wrap { .. } => "LAN-0106",
            Self::Invalid { .. } => "LAN-0107",
            Self::Import { .. } => "LAN-0108",
            Self::Version { .. } => "LAN-0109",
            Self::Wasi { .. } => "LAN-0110",
            Self::Signature { .. } => "LAN-0111",
            Self::NoProjector { .. } => "LAN-0112",
            Self::Link { .. } => "LAN-0113",
            Self::CompileCpu { .. } => "LAN-0114",
            Self::CompileMemory { .. } => "LAN-0115",
            Self::CompileWall { .. } => "LAN-0116",
            Self::CompilerBroke { .. } => "LAN-0117",
            Self::CompileQueue { .. } => "LAN-0118",
            Self::Instance { .. } => "LAN-0119",
            Self::Setup { .. } => "LAN-0120",
            Self::SetupTrapped { .. } => "LAN-0121",
            Self::SetupFuel { .. } => "LAN-0122",
            Self::Varies { .. } => "LAN-0123",
            Self::Manifest(_) => "LAN-0124",
            Self::Host { .. } => "LAN-0125",
            Self::NoSource => "LAN-0126",
            Self::UnusedSource { .. } => "LAN-0127",
            Self::SourceTooLarge { .. } => "LAN-0128",
            Self::SourceRefused { .. } => "LAN-0129",
            Self::SourceName { .. } => "LAN-0130",
            Self::SourceText { .. } => "LAN-0131",
            Self::NoInterpreter { .. } => "LAN-0132",
            Self::CompilerKilled => "LAN-0133",
        }
    }

    /// Returns what to do about the error, in one sentence.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one sentence for each error")]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NotWasm { .. } => {
                "upload the compiler's .wasm output, such as \
                 target/wasm32-unknown-unknown/release/<name>.wasm"
            }
            Self::TooLarge { .. } => {
                "build it smaller (strip it, leave unused libraries out), or raise \
                 `plugin.limits.upload_bytes_max`"
            }
            Self::ParametersTooLarge { .. } => {
                "make the parameters shorter, or raise `plugin.limits.parameters_bytes_max`"
            }
            Self::NoMetadata => {
                "build it with Lantern's SDK for your language; a module without an SDK exports \
                 `lantern:projection/projector@0.2.0#setup` and `#apply`, see \
                 docs/guide/by-hand.md"
            }
            Self::CoreImport { .. } => {
                "in Rust, build for wasm32-unknown-unknown (no WASI) or wasm32-wasip2, and use \
                 `chrono` without its default features, which import JavaScript; elsewhere, link \
                 everything in and use the SDK's own build step"
            }
            Self::Wrap { .. } => {
                "build it with the SDK of this host's version, and with one version of \
                 wit-bindgen"
            }
            Self::Invalid { .. } => {
                "build it again without threads, 64-bit memory, tail calls, garbage collection, \
                 exceptions or relaxed SIMD"
            }
            Self::Import { .. } => {
                "remove the code that needs it: a projection can import only the contract"
            }
            Self::Version { .. } => {
                "rebuild the plugin with the SDK of this server's release (`sdk/rust` next to its \
                 `wit/projection.wit`), or run a server of the plugin's release"
            }
            Self::Wasi { .. } => {
                "remove the code that needs it: a projection can access events and tables, never files, the \
                 network or the time of day"
            }
            Self::Signature { .. } | Self::Link { .. } => {
                "build the plugin against this host's wit/projection.wit, unchanged"
            }
            Self::NoProjector { .. } => {
                "build it with Lantern's SDK, which exports `lantern:projection/projector`"
            }
            Self::CompileCpu { .. } | Self::CompileMemory { .. } | Self::CompileWall { .. } => {
                "look for one huge generated function and split it, or raise the limit"
            }
            Self::CompilerBroke { .. } => {
                "build it with another compiler version or at a lower level of optimisation, and \
                 report it"
            }
            Self::CompilerKilled => {
                "upload it again; if that fails too, look in the system's log for a process that was \
                 killed because memory ran out"
            }
            Self::CompileQueue { .. } => "wait, or raise `plugin.compile_queue_max`",
            Self::Instance { .. } => {
                "make its initial memory and tables smaller, or raise the limit that the message names"
            }
            Self::Setup { .. } => "correct the parameters that the message names",
            Self::SetupTrapped { .. } => {
                "run the plugin's tests with the same parameters, and see the backtrace"
            }
            Self::SetupFuel { .. } => "look for an endless loop in setup",
            Self::Varies { .. } => {
                "setup must return the same manifest for the same parameters: use no randomness, \
                 clock or map order in it"
            }
            Self::Manifest(_) => "correct the manifest that the plugin's setup returns",
            Self::Host { .. } => "see the host's log; the plugin is not at fault",
            other => other.source_help(),
        }
    }

    /// Returns what to do about an error in the source code.
    fn source_help(&self) -> &'static str {
        match self {
            Self::NoSource => {
                "upload the script or declaration itself: the host runs it with the interpreter \
                 for its kind of file"
            }
            Self::UnusedSource { .. } => {
                "upload the plugin without a source, or import `lantern:projection/source` in it"
            }
            Self::SourceTooLarge { .. } => {
                "make the source shorter, or raise `plugin.limits.source_bytes_max`"
            }
            Self::SourceRefused { .. } => "correct the source at the line that the message names",
            Self::SourceName { .. } => "name the source as its file is named, such as `totals.py`",
            Self::SourceText { .. } => "save the source as UTF-8",
            Self::NoInterpreter { .. } => {
                "put the interpreter into this folder (`cargo xtask interpreters` builds all of \
                 them into target/interpreters), or set `plugin.interpreters_dir` to the folder \
                 that has it"
            }
            _ => "see the message",
        }
    }

    /// Returns the plugin's call stack, if the error has one; otherwise an empty text.
    #[must_use]
    pub fn backtrace(&self) -> &str {
        match self {
            Self::SetupTrapped { backtrace, .. } | Self::SetupFuel { backtrace, .. } => backtrace,
            _ => "",
        }
    }
}
