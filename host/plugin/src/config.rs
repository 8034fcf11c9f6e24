//! What can be configured, with every default and its reason. Units come last
//! in names; unknown keys are errors.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How plugins are loaded, compiled and run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// Where compiled plugins are kept, under a folder for each engine; none
    /// keeps them in memory only. Safe to delete while the host is down.
    pub cache_dir: Option<PathBuf>,
    /// The most the cache may take on disk, in bytes; what was used longest ago
    /// goes first. 4 GiB.
    pub cache_bytes_max: u64,
    /// Whether a plugin may import WASI 0.2, which is then deterministic: a
    /// clock that shows the batch's watermark, randomness from a fixed seed, no
    /// files, no network. On, for languages that cannot do without.
    pub allow_wasi: bool,
    /// How many plugins are compiled at once. 1: a compiler takes a core and up
    /// to `plugin.limits.compile_memory_bytes`.
    pub compiles_at_once: u32,
    /// How many may wait to be compiled; more are refused. 64.
    pub compile_queue_max: u32,
    /// The folder with the interpreters for scripts and declarations: `python.wasm`,
    /// `javascript.wasm` and `declare.wasm`. A host without one of them refuses its
    /// sources. If left out: the folder `interpreters` next to the program, or
    /// `../share/lantern/interpreters`.
    pub interpreters_dir: Option<PathBuf>,
    /// Whether the interpreters are compiled in the background when the server
    /// starts, unless they are in the cache. The first script then need not wait.
    /// On.
    pub compile_interpreters: bool,
    /// What compiles.
    #[serde(skip)]
    pub compiler: Compiler,
    /// The limits plugins run under.
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

/// Where a plugin is compiled. Hostile code can take minutes and gigabytes to compile, so
/// it is compiled in a separate process, with limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A child process that is started as `command __compile …`. Its `main` must call
    /// [`crate::compile_child_main`].
    Child {
        /// The program; `None` for the running one.
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

/// The limits of a plugin: of its upload, of compiling it and of each instance
/// and call. Those that decide over an event are deterministic: the same call
/// meets them at the same point on every machine.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// The largest upload, in bytes. 32 MiB: Rust makes 100 KiB, JavaScript 2 to 12
    /// MiB, Python 20 MiB.
    pub upload_bytes_max: usize,
    /// The longest parameters, in bytes. 1 MiB.
    pub parameters_bytes_max: usize,
    /// The longest source of a version (a script or declaration), in bytes. 1 MiB.
    pub source_bytes_max: usize,
    /// Processor time of compiling, in seconds. 300: Python takes 20 s on a fast
    /// machine.
    pub compile_cpu_s: u64,
    /// Address space of the compiling process, in bytes. 2 GiB.
    pub compile_memory_bytes: u64,
    /// Time on the clock for compiling, in seconds. 600.
    pub compile_wall_s: u64,
    /// Fuel of making an instance and of its `setup`; about one a WebAssembly
    /// instruction. 2,000 million: interpreters read their libraries then.
    pub fuel_setup: u64,
    /// Linear memory of an instance, all its memories together, in bytes.
    /// 64 MiB.
    pub memory_bytes_max: usize,
    /// Elements of all tables of an instance together. 200,000.
    pub table_elements_max: usize,
    /// Core instances in a component. 100: Python's shared libraries are one
    /// each.
    pub core_instances_max: usize,
    /// Memories in a component. 16.
    pub memories_max: usize,
    /// Tables in a component. 100.
    pub tables_max: usize,
    /// Handles of resources an instance holds at once. 10,000.
    pub handles_max: usize,
    /// What one host call may carry out of the plugin, in bytes. 32 MiB.
    pub host_call_bytes_max: usize,
    /// Rows one `scan` may return. 10,000.
    pub scan_rows_max: u32,
    /// What one `get`, `get-many` or `scan` may return, in bytes. 16 MiB.
    pub read_bytes_max: usize,
    /// What one call may log, in bytes; the rest is dropped with a note.
    /// 64 KiB.
    pub log_bytes_max: usize,
    /// The longest message a plugin may log or fail with, in bytes; longer
    /// ones are cut. 4 KiB.
    pub message_bytes_max: usize,
    /// Time on the clock of one call, in milliseconds: a guard for what fuel
    /// does not bound, such as a host call that hangs. Hitting it is the host's
    /// fault and never a verdict on an event. 30 s.
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
