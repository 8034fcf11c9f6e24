//! The compiling child alone, for the tests of this crate, whose own programs
//! are not it. The `lantern` program is its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    lantern_plugin::compile_child_main()
}
