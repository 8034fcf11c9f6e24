//! The component bindings of the contract, one module per major version.

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
        world: "projection",
        // A batch is lowered from the host's own columns, without a copy of them.
        ownership: Borrowing { duplicate_if_necessary: true },
        // A host call may end the guest's.
        imports: { default: trappable },
    });
}
