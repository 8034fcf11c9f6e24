//! How the log and the store use redb files: they catch redb's panics, write so that a
//! commit survives power loss, reopen a file after a disk error, and read a file without
//! changing it.
//!
//! This crate knows no table. It must not decide what is done about an error.

mod database_file;
mod panics;
mod read_only;

pub use database_file::{OpenFile, begin_durable_write, forget_cached_pages};
pub use panics::{RedbPanic, catch_panic};
pub use read_only::{open_read_only, open_read_only_with};
