//! The host, as the SDK calls it: the contract's imports in Wasm, tables in memory
//! elsewhere. Code outside this module does not know which one it uses.

#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{
    cancel_timer, delete_many, emit, get, get_many, log, put_many, scan, set_timer,
};
