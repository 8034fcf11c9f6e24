//! Runs projection plugins: WebAssembly components in one engine, under limits
//! of fuel, memory and time, with nothing within reach but the contract's calls.
//!
//! [`PluginHost::load`] finds out the format of an upload, has it wrapped, checked
//! and compiled in a child process ([`compile_child_main`]), links it once,
//! sets it up twice and compares. What comes out is a [`lantern_core::Plugin`].
//!
//! Only this crate names wasmtime. It decides nothing over events and keeps no
//! state of projections; it never lets a guest's failure become a host panic,
//! and what decides over an event (fuel, memory, sizes) is the same on every
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
mod manifest;
mod pipeline;
mod store_data;
mod upload_format;
mod wasi;

pub use compile::compile_child_main;
pub use config::{Compiler, PluginConfig, PluginLimits};
pub use error::{LoadError, PluginHostError};
pub use host::PluginHost;
