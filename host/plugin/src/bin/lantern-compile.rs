//! The compiling child as a separate program, for the tests of this crate: their own
//! programs cannot be the child. The `lantern` program is its own compiling child.

use std::process::ExitCode;

fn main() -> ExitCode {
    lantern_plugin::compile_child_main()
}
