//! The disk and what is tried on it, as `tests/proof` has them.

#[path = "../../proof/src/power/bare.rs"]
pub(crate) mod bare;
#[path = "../../proof/src/power/disk.rs"]
pub(crate) mod disk;
