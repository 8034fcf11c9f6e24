//! Implements what the log and the store do in the same way with redb files:
//!
//! * They catch redb's panics.
//! * They write so that a commit survives power loss.
//! * They open a file again after a disk error.
//! * They read a file without changing it.
//!
//! This crate knows no table, and does not decide what happens after an error.

mod database_file;
mod panics;
mod read_only;

pub use database_file::{OpenFile, begin_durable_write, forget_cached_pages};
pub use panics::{RedbPanic, catch_panic};
pub use read_only::{open_read_only, open_read_only_with};
