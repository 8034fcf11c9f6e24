//! Declares the functions of the host that the SDK calls. In Wasm they are the imports of the
//! contract. In native builds they use tables in memory. Code outside of this module is the same
//! for both.

#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{
    cancel_timer, delete_many, emit, get, get_many, log, put_many, scan, set_timer, source_name,
    source_text,
};
