//! Checks rules for the folders of the repository.

use super::{Findings, Repository, code_lines};
use crate::suite;

/// The texts that the manifest of every member of the workspace must contain. Lints and licence are
/// set only in the root manifest, and a member refers to them.
const SHARED: [&str; 2] = ["[lints]\nworkspace = true", "license.workspace = true"];

/// Checks that every member of the workspace takes lints and licence from the workspace. Clippy
/// reads only one `clippy.toml`. So if a member has its own `clippy.toml`, this file must repeat
/// every line of the workspace's file. The deterministic crates must have a `clippy.toml` of their
/// own, which bans clocks, files, sockets and randomness.
pub(super) fn members_share_the_lints(repository: &Repository) -> Findings {
    const DETERMINISTIC: [&str; 2] = ["host/core", "host/engine"];
    let mut findings = Findings::default();
    let text = |path: &str| repository.texts.get(path).map(String::as_str).unwrap_or_default();
    for member in repository.workspace.members() {
        let path = format!("{}/Cargo.toml", member.folder);
        for line in SHARED.iter().filter(|line| !text(&path).contains(*line)) {
            findings.breach(format!("{path}: add `{}`", line.replace('\n', " ")));
        }
        let path = format!("{}/clippy.toml", member.folder);
        let own = text(&path);
        if DETERMINISTIC.contains(&member.folder.as_str()) && !own.contains("std::time::Instant") {
            findings.breach(format!("{path}: ban clocks, files, sockets and randomness"));
        }
        let shared = text("clippy.toml").lines().filter(|line| !line.starts_with('#'));
        for line in shared.filter(|_| !own.is_empty()).filter(|line| !own.contains(line)) {
            findings.breach(format!("{path}: add `{line}` of the workspace's clippy.toml"));
        }
    }
    findings
}

/// The folder that contains the guests that only tests use.
const GUESTS: &str = "tests/guests/";

/// Checks that a test names every guest in `tests/guests`, because a guest that no test runs would
/// prove nothing.
pub(super) fn guests_have_tests(repository: &Repository) -> Findings {
    let paths = repository.texts.keys().chain(&repository.others);
    let entries = paths.filter_map(|path| path.strip_prefix(GUESTS)?.split('/').next());
    let mut guests: Vec<_> = entries
        .filter(|name| !name.starts_with("README") && !name.ends_with(".toml"))
        .map(|name| name.split('.').next().unwrap_or(name))
        .collect();
    guests.dedup();
    let lines = repository.rust().filter(|(path, _)| !path.starts_with(GUESTS));
    let lines: Vec<_> = lines.flat_map(|(_, text)| code_lines(text)).collect();
    let named = |guest: &str| {
        let underscored = guest.replace('-', "_");
        lines.iter().any(|(_, line)| line.contains(guest) || line.contains(&underscored))
    };
    let lacking = guests.into_iter().filter(|guest| !named(guest));
    lacking.map(|guest| format!("{GUESTS}{guest}: no test names it")).collect()
}

/// Checks that the list of [`suite::CI`] contains every program that a Rust source file outside of
/// xtask starts by name. So CI installs the program, and `cargo xtask test` reports it if it is
/// missing.
pub(super) fn test_programs_are_announced(repository: &Repository) -> Findings {
    const START: &str = "Command::new(\"";
    let tools = suite::tools(repository.texts.get(suite::CI).map_or("", String::as_str));
    let known = |name: &str| {
        // These programs are always installed: the Rust toolchain, git and the POSIX shell.
        matches!(name, "cargo" | "rustc" | "git" | "sh")
            || tools.iter().any(|tool| tool.program == name)
    };
    let sources = repository.rust().filter(|(path, _)| !path.starts_with("xtask/"));
    let started = sources.flat_map(|(path, text)| {
        code_lines(text).filter_map(move |(line, text)| {
            Some((path, line, text.split_once(START)?.1.split('"').next()?))
        })
    });
    let unknown = started.filter(|(_, _, name)| !known(name));
    unknown
        .map(|(path, line, name)| {
            format!("{path}:{line}: add `need {name} PACKAGE # what is not shown` to {}", suite::CI)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Package, Workspace};

    fn files(files: &[(&str, &str)]) -> Repository {
        Repository::of(Workspace::default(), files)
    }

    #[test]
    fn a_member_with_lints_of_its_own_is_a_breach() {
        let check = |folder: &str, toml: &str, clippy: &str, breaches: usize| {
            let member = Package { folder: folder.into(), member: true, ..Package::default() };
            let workspace = Workspace { packages: vec![member] };
            let paths = [format!("{folder}/Cargo.toml"), format!("{folder}/clippy.toml")];
            let mut files = vec![(paths[0].as_str(), toml), ("clippy.toml", "# x\na = 1\n")];
            files.extend((!clippy.is_empty()).then_some((paths[1].as_str(), clippy)));
            let found = members_share_the_lints(&Repository::of(workspace, &files));
            assert_eq!(found.breaches.len(), breaches, "{found:?}");
        };
        let shared = "license.workspace = true\n[lints]\nworkspace = true\n";
        check("host/a", shared, "", 0);
        check("host/a", "license.workspace = true\n[lints.rust]\nunsafe_code = \"allow\"\n", "", 1);
        check("host/a", shared, "a = 1\nb = 2\n", 0);
        check("host/a", shared, "b = 2\n", 1);
        check("host/core", shared, "", 1);
        check("host/core", shared, "a = 1\nb = [\"std::time::Instant\"]\n", 0);
    }

    #[test]
    fn a_guest_without_a_test_is_a_breach() {
        let with = |test: &str| {
            let guest = ("tests/guests/eats-memory/src/lib.rs", "//! eats-memory");
            let repository =
                files(&[guest, ("tests/guests/README.md", ""), ("tests/src/a.rs", test)]);
            guests_have_tests(&repository).breaches.len()
        };
        assert_eq!(with("//! eats-memory\nfn f() {}"), 1);
        assert_eq!(with("fn f() { check(\"eats-memory\"); }"), 0);
        assert_eq!(with("fn eats_memory() {}"), 0);
    }

    #[test]
    fn a_program_that_ci_does_not_install_is_a_breach() {
        let with = |text: &str| {
            let ci = "need frob frob-tools # x is not tested\nneed cc gcc\n";
            let repository = files(&[("tests/src/a.rs", text), (suite::CI, ci)]);
            test_programs_are_announced(&repository).breaches.len()
        };
        assert_eq!(with("fn f() { Command::new(\"frobnicate\"); }"), 1);
        assert_eq!(with("fn f() { Command::new(\"cc\"); }"), 1);
        assert_eq!(with("fn f() {\n    Command::new(\"frob\");\n    Command::new(lantern);\n}"), 0);
    }
}
