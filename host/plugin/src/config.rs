//! Defines the settings of the plugin host. The name of a setting ends in its unit. An unknown
//! setting is an error.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How plugins are loaded, compiled and run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// The folder in which compiled plugins are kept, in a folder for each engine. Not set: they
    /// are kept in memory only. The folder can be deleted while the server is stopped.
    pub cache_dir: Option<PathBuf>,
    /// The maximum size of the cache on disk, in bytes. If it is exceeded, the plugins
    /// that were not used for the longest time are removed. Default 4 GiB.
    pub cache_bytes_max: u64,
    /// Whether a plugin may import WASI 0.2, which some languages need. The host's WASI is
    /// deterministic. Its clock shows the watermark while timers fire, and 1970 while events are
    /// applied. Its random numbers have a fixed seed. It has no files and no network. Default true.
    pub allow_wasi: bool,
    /// The number of plugins that are compiled at the same time. Each uses a core and
    /// up to `plugin.limits.compile_memory_bytes`. Default 1.
    pub compiles_at_once: u32,
    /// The maximum number of plugins that wait to be compiled. Further uploads are
    /// refused. Default 64.
    pub compile_queue_max: u32,
    /// The folder with the interpreters for scripts and declarations: `python.wasm`,
    /// `javascript.wasm` and `declare.wasm`. If one is missing, uploads that need it are refused.
    /// Not set: the folder `interpreters` next to the program, or `../share/lantern/interpreters`.
    pub interpreters_dir: Option<PathBuf>,
    /// Whether interpreters that are not in the cache are compiled in the background when the
    /// server starts. The first script then does not wait for this. Default true.
    pub compile_interpreters: bool,
    /// Where plugins are compiled.
    #[serde(skip)]
    pub compiler: Compiler,
    /// The limits of plugins.
    pub limits: PluginLimits,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_bytes_max: 4 << 30,
            allow_wasi: true,
            compiles_at_once: 1,
            compile_queue_max: 64,
            interpreters_dir: None,
            compile_interpreters: true,
            compiler: Compiler::default(),
            limits: PluginLimits::default(),
        }
    }
}

/// Where a plugin is compiled. Hostile code can take minutes and gigabytes to compile, so it is
/// compiled in a separate process with limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A child process that is started as `command __compile …`. Its `main` must call
    /// [`crate::compile_child_main`].
    Child {
        /// The program; `None` means the running program.
        command: Option<PathBuf>,
    },
    /// The running process, without limits. For tests only.
    InProcess,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::Child { command: None }
    }
}

/// The limits of a plugin: of its upload, of compiling it and of each instance and call.
/// Limits that can park an event are deterministic: the same call exceeds them at the same
/// point on every machine.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// The maximum size of an upload, in bytes. Plugins in Rust have about 100 KiB, in
    /// JavaScript 2 to 12 MiB, in Python 20 MiB. Default 32 MiB.
    pub upload_bytes_max: usize,
    /// The maximum size of the parameters, in bytes. Default 1 MiB.
    pub parameters_bytes_max: usize,
    /// The maximum size of a version's source (a script or declaration), in bytes.
    /// Default 1 MiB.
    pub source_bytes_max: usize,
    /// The maximum CPU time for compiling a plugin, in seconds. Plugins in Python take
    /// 20 s on a fast machine. Default 300.
    pub compile_cpu_s: u64,
    /// The maximum address space of the process that compiles a plugin, in bytes.
    /// Default 2 GiB.
    pub compile_memory_bytes: u64,
    /// The maximum wall time for compiling a plugin, in seconds. Default 600.
    pub compile_wall_s: u64,
    /// The fuel limit for creating an instance and running its `setup`, about one unit per
    /// WebAssembly instruction. The limit is high because interpreters load their libraries then.
    /// Default 2,000 million.
    pub fuel_setup: u64,
    /// The maximum linear memory of an instance, all its memories together, in bytes.
    /// Default 64 MiB.
    pub memory_bytes_max: usize,
    /// The maximum number of elements in all WebAssembly tables of an instance together. Default
    /// 200,000.
    pub table_elements_max: usize,
    /// The maximum number of core instances in a component. In a Python plugin, each shared library
    /// is one. Default 100.
    pub core_instances_max: usize,
    /// The maximum number of memories in a component. Default 16.
    pub memories_max: usize,
    /// The maximum number of WebAssembly tables in a component. Default 100.
    pub tables_max: usize,
    /// The maximum number of resource handles that an instance holds at a time. Default
    /// 10,000.
    pub handles_max: usize,
    /// The maximum number of bytes that a plugin may pass to the host in one call.
    /// Default 32 MiB.
    pub host_call_bytes_max: usize,
    /// The maximum number of rows that one `scan` may return. Default 10,000.
    pub scan_rows_max: u32,
    /// The maximum number of bytes that one `get`, `get-many` or `scan` may return.
    /// Default 16 MiB.
    pub read_bytes_max: usize,
    /// The maximum size of the messages that one call may log, in bytes. Further messages are
    /// dropped, and a note takes their place. Default 64 KiB.
    pub log_bytes_max: usize,
    /// The maximum length of one log message or error message of a plugin, in bytes.
    /// Longer ones are cut. Default 4 KiB.
    pub message_bytes_max: usize,
    /// The maximum wall time of one call, in milliseconds. Fuel limits the work of a plugin. This
    /// limit is for time that fuel does not count, such as a host call that hangs. A call that
    /// exceeds it is a fault of the host: its events are tried again and never parked. Default 30
    /// s.
    pub apply_ms: u64,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            upload_bytes_max: 32 << 20,
            parameters_bytes_max: 1 << 20,
            source_bytes_max: 1 << 20,
            compile_cpu_s: 300,
            compile_memory_bytes: 2 << 30,
            compile_wall_s: 600,
            fuel_setup: 2_000_000_000,
            memory_bytes_max: 64 << 20,
            table_elements_max: 200_000,
            core_instances_max: 100,
            memories_max: 16,
            tables_max: 100,
            handles_max: 10_000,
            host_call_bytes_max: 32 << 20,
            scan_rows_max: 10_000,
            read_bytes_max: 16 << 20,
            log_bytes_max: 64 << 10,
            message_bytes_max: 4 << 10,
            apply_ms: 30_000,
        }
    }
}
