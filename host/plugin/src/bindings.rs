//! Contains the bindings of the plugin contract, generated from its WIT file. Each major version
//! has a module.

/// Version 0.2 of the contract.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated from the contract, which has the documentation"
)]
pub(crate) mod v0_2 {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "interpreter",
        // A batch is passed to the guest directly from the host's columns, without another copy.
        ownership: Borrowing { duplicate_if_necessary: true },
        // A host call may end the call of the guest with an error.
        imports: { default: trappable },
    });
}
