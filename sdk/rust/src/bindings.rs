//! Contains the bindings of a guest to the plugin contract, generated from `wit/projection.wit`.
//!
//! Only [`crate::export!`] and this crate may use them. The other modules of the crate contain
//! everything that a plugin needs, with documentation.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "interpreter",
    pub_export_macro: true,
    export_macro_name: "export_projector",
    default_bindings_module: "lantern_sdk::bindings",
});
