//! Checks before a build that the system has the programs and libraries that the build
//! needs.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::shell;

/// A program or library of the system that the default build needs.
struct Prerequisite {
    /// The name that is printed if the program or library is missing.
    what: &'static str,
    /// The Debian package that contains the program or library.
    package: &'static str,
    found: fn() -> bool,
}

/// The programs and libraries that build the C code of dependencies (librdkafka, zstd,
/// mimalloc). The README names the same packages under "You need"; a test compares the
/// two.
const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite { what: "a C compiler (`cc`)", package: "gcc", found: || shell::installed("cc") },
    // Only librdkafka's configure script needs this program, and fails without it.
    Prerequisite {
        what: "a C++ compiler (`c++`)",
        package: "g++",
        found: || ["c++", "g++", "clang++"].iter().any(|program| shell::installed(program)),
    },
    Prerequisite { what: "the headers of the C library", package: "libc6-dev", found: c_compiles },
    Prerequisite { what: "`make`", package: "make", found: || shell::installed("make") },
    Prerequisite { what: "`git`", package: "git", found: || shell::installed("git") },
    Prerequisite {
        what: "`pkg-config`",
        package: "pkg-config",
        found: || shell::installed("pkg-config") || openssl_is_set(),
    },
    Prerequisite { what: "OpenSSL's headers", package: "libssl-dev", found: openssl },
];

/// Returns an error that names the missing packages and the command that installs them,
/// if any are missing.
pub(crate) fn check() -> Result<()> {
    let missing: Vec<_> = PREREQUISITES.iter().filter(|needed| !(needed.found)()).collect();
    match message(&missing) {
        None => Ok(()),
        Some(message) => bail!(message),
    }
}

fn message(missing: &[&Prerequisite]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let what: Vec<_> = missing.iter().map(|needed| needed.what).collect();
    let packages: Vec<_> = missing.iter().map(|needed| needed.package).collect();
    Some(format!(
        "missing: {}; on Debian and Ubuntu: `sudo apt-get install {}`",
        what.join(", "),
        packages.join(" ")
    ))
}

/// Returns whether a program that includes a header of the C library can be compiled.
fn c_compiles() -> bool {
    if !shell::installed("cc") {
        return Path::new("/usr/include/stdlib.h").is_file();
    }
    let compile = "echo '#include <stdlib.h>' | cc -x c -fsyntax-only - 2>/dev/null";
    succeeds(Command::new("sh").args(["-c", compile]))
}

fn openssl() -> bool {
    openssl_is_set() || succeeds(Command::new("pkg-config").args(["--exists", "openssl"]))
}

/// Returns whether the environment names an OpenSSL, as the crate `openssl-sys` reads it.
fn openssl_is_set() -> bool {
    ["OPENSSL_DIR", "OPENSSL_LIB_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_named_in_one_line_with_the_command_that_installs_them() {
        assert!(message(&[]).is_none());
        let missing: Vec<_> = PREREQUISITES.iter().skip(5).collect();
        assert_eq!(
            message(&missing).unwrap_or_default(),
            "missing: `pkg-config`, OpenSSL's headers; on Debian and Ubuntu: `sudo apt-get install pkg-config libssl-dev`"
        );
    }

    #[test]
    fn the_readme_names_every_package_that_a_build_needs() {
        let readme = std::fs::read_to_string(shell::root().join("README.md"));
        let readme = readme.unwrap_or_default();
        let line = readme.lines().find(|line| line.starts_with("sudo apt-get install gcc"));
        let named: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        for needed in PREREQUISITES {
            assert!(named.contains(&needed.package), "README leaves out {}", needed.package);
        }
    }
}
