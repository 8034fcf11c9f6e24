//! Runs projection plugins: WebAssembly components in one engine, with limits for fuel, memory and
//! time. A plugin can only make the host calls of the contract.
//!
//! [`PluginHost::load`] detects the format of an upload. A child process ([`compile_child_main`])
//! converts it to a component if needed, checks it and compiles it. Then the host links the code
//! once, calls `setup` on two instances, and compares the two manifests. The result is a
//! [`lantern_core::Plugin`].
//!
//! Only this crate depends on wasmtime. It does not decide what happens to events, and stores no
//! state of projections. The failure of a guest never makes the host panic. The limits that can
//! lead to a parked event (fuel, memory, sizes) have the same effect on every machine.

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
