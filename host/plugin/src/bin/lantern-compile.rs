//! Runs the compiling child as a separate program, for the tests of this crate. The compiling child
//! is the process that compiles a plugin. The `lantern` program starts itself as the compiling
//! child. A test program cannot do this, because its `main` belongs to the test harness and does
//! not call [`lantern_plugin::compile_child_main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lantern_plugin::compile_child_main()
}
