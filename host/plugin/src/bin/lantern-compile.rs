//! Runs the compiling child, the process that compiles a plugin, as a program of its own for the
//! tests of this crate.
//!
//! The `lantern` program starts itself as the compiling child. A test program cannot do this: its
//! `main` belongs to the test harness and does not call [`lantern_plugin::compile_child_main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lantern_plugin::compile_child_main()
}
