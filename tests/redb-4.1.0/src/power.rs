//! The simulated disk and the experiment on it, shared with `tests/proof`.

#[path = "../../proof/src/power/bare.rs"]
pub(crate) mod bare;
#[path = "../../proof/src/power/disk.rs"]
pub(crate) mod disk;
