//! Includes the simulated disk and the experiment on it, which this program shares with
//! `tests/proof`.

#[path = "../../proof/src/power/redb_only.rs"]
pub(crate) mod redb_only;
#[path = "../../proof/src/power/disk.rs"]
pub(crate) mod disk;
