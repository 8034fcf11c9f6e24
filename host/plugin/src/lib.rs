//! Runs projection plugins: WebAssembly components in one engine, with limits of fuel,
//! memory and time. A plugin can reach nothing but the calls of the contract.
//!
//! [`PluginHost::load`] detects the format of an upload. A child process
//! ([`compile_child_main`]) wraps, checks and compiles it. Then the code is linked once,
//! and `setup` is called on two instances to compare their manifests. The result is a
//! [`lantern_core::Plugin`].
//!
//! Only this crate depends on wasmtime. It takes no decision about events and stores no
//! state of projections. A guest's failure never becomes a panic of the host. The limits
//! that affect the verdict on an event (fuel, memory, sizes) are the same on every
//! machine.

mod bindings;
mod cache;
mod compile;
mod config;
mod contract;
mod engine;
mod error;
mod host;
mod host_calls;
mod instance;
mod interpreters;
mod manifest;
mod pipeline;
mod preview1;
mod store_data;
mod upload_format;
mod wasi;

pub use compile::compile_child_main;
pub use config::{Compiler, PluginConfig, PluginLimits};
pub use error::{LoadError, PluginHostError};
pub use host::PluginHost;
pub use interpreters::{Language, source, source_media_type};
pub use preview1::componentize;
