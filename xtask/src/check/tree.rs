//! What lies where.

use super::{Findings, Repository};
use crate::lex::{Kind, Token};
use crate::suite;

/// What the top folder holds, as the design draws it. Hidden files are free.
const TOP: [&str; 21] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bench",
    "clients",
    "clippy.toml",
    "deny.toml",
    "docs",
    "host",
    "lantern.toml",
    "plugins",
    "rustfmt.toml",
    "sdk",
    "tests",
    "web",
    "wit",
    "xtask",
    "data",
];

/// What may be missing of it.
const OPTIONAL: [&str; 3] = ["data", "lantern.toml", "web"];

/// The top folder holds what the design draws, and nothing else: its listing
/// reads as the list of parts.
pub(super) fn the_top_folder_is_as_drawn(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    let paths = repository.texts.keys().chain(&repository.others);
    let mut tops: Vec<_> = paths.filter_map(|path| path.split('/').next()).collect();
    tops.dedup();
    tops.retain(|top| !top.starts_with('.') && !TOP.contains(top));
    for top in tops {
        findings.breach(format!("{top}: not drawn in the design; put it where it belongs"));
    }
    for top in TOP.iter().filter(|top| !OPTIONAL.contains(top) && !repository.has(top)) {
        findings.breach(format!("{top}: missing"));
    }
    findings
}

/// What every member's manifest says: lints stand at the root only.
const SHARED: [&str; 2] = ["[lints]\nworkspace = true", "license.workspace = true"];

/// Every member takes lints and licence from the workspace.
pub(super) fn members_share_the_lints(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for member in repository.workspace.members() {
        let path = format!("{}/Cargo.toml", member.folder);
        let text = repository.texts.get(&path).map(String::as_str).unwrap_or_default();
        for line in SHARED.iter().filter(|line| !text.contains(*line)) {
            findings.breach(format!("{path}: add `{}`", line.replace('\n', " ")));
        }
    }
    findings
}

/// The guests that tests alone use.
const GUESTS: &str = "tests/guests/";

/// Every guest in `tests/guests` is named by a test: a hostile guest that
/// nothing runs proves nothing.
pub(super) fn guests_have_tests(repository: &Repository) -> Findings {
    let paths = repository.texts.keys().chain(&repository.others);
    let entries = paths.filter_map(|path| path.strip_prefix(GUESTS)?.split('/').next());
    let mut guests: Vec<_> = entries
        .filter(|name| !name.starts_with("README") && !name.ends_with(".toml"))
        .map(|name| name.split('.').next().unwrap_or(name))
        .collect();
    guests.dedup();
    let tests = || repository.sources.iter().filter(|s| !s.path.starts_with(GUESTS));
    let named = |guest: &str| {
        let underscored = guest.replace('-', "_");
        tests().flat_map(|source| &source.tokens).any(|token| match &token.kind {
            Kind::Str(text) => text.contains(guest) || text.contains(&underscored),
            Kind::Ident(name) => *name == underscored,
            _ => false,
        })
    };
    let lacking = guests.into_iter().filter(|guest| !named(guest));
    lacking.map(|guest| format!("{GUESTS}{guest}: no test names it")).collect()
}

/// A program that any Rust source starts by name is one that `cargo xtask
/// test` looks for first, so that a machine without it is told so in one line,
/// and CI installs each of them.
pub(super) fn test_programs_are_announced(repository: &Repository) -> Findings {
    let sources = repository.sources.iter().filter(|source| !source.in_folder("xtask"));
    let started = sources.flat_map(|source| {
        source
            .tokens
            .windows(6)
            .filter_map(move |tokens| program(tokens).map(|name| (source, tokens[0].line, name)))
    });
    let known = |name: &str| {
        // The toolchain, and what POSIX has everywhere.
        matches!(name, "cargo" | "rustc" | "git" | "sh")
            || suite::TOOLS.iter().any(|tool| tool.program == name)
    };
    let unknown = started.filter(|(_, _, name)| !known(name));
    let mut findings: Findings = unknown
        .map(|(source, line, name)| {
            format!("{}:{line}: add `{name}` to TOOLS of xtask", source.path)
        })
        .collect();
    let ci = repository.texts.get(CI).map(String::as_str).unwrap_or_default();
    for tool in suite::TOOLS.iter().filter(|tool| !installs(ci, tool.program, tool.package)) {
        findings.breach(format!("{CI}: add `need {} {}`", tool.program, tool.package));
    }
    findings
}

/// What CI runs.
const CI: &str = ".ci/run";

/// Whether a line of the script asks for the program by its package.
fn installs(script: &str, program: &str, package: &str) -> bool {
    script.lines().any(|line| line.split_whitespace().eq(["need", program, package]))
}

/// The program of `Command::new("program")`.
fn program(tokens: &[Token]) -> Option<&str> {
    let shape = tokens[0].is("Command")
        && tokens[1].punct(':')
        && tokens[2].punct(':')
        && tokens[3].is("new")
        && tokens[4].punct('(');
    match &tokens[5].kind {
        Kind::Str(name) if shape => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Package, Workspace};

    fn files(files: &[(&str, &str)]) -> Repository {
        Repository::of(Workspace::default(), files)
    }

    #[test]
    fn a_folder_nobody_drew_and_a_missing_one_are_breaches() {
        let found = the_top_folder_is_as_drawn(&files(&[("misc/a.rs", ""), (".ci/run", "")]));
        assert!(found.breaches.iter().any(|text| text.starts_with("misc:")), "{found:?}");
        assert!(found.breaches.iter().any(|text| text == "host: missing"), "{found:?}");
        assert!(!found.breaches.iter().any(|text| text.starts_with("web")), "{found:?}");
        assert!(!found.breaches.iter().any(|text| text.contains(".ci")), "{found:?}");
    }

    #[test]
    fn a_member_with_lints_of_its_own_is_a_breach() {
        let member = Package { folder: "host/a".into(), member: true, ..Package::default() };
        let workspace = Workspace { packages: vec![member] };
        let check = |toml: &str| {
            let repository = Repository::of(workspace.clone(), &[("host/a/Cargo.toml", toml)]);
            members_share_the_lints(&repository).breaches.len()
        };
        assert_eq!(check("license.workspace = true\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(check("license.workspace = true\n[lints.rust]\nunsafe_code = \"allow\"\n"), 1);
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
    fn a_program_nobody_looks_for_is_a_breach() {
        let ci: String =
            suite::TOOLS.iter().map(|t| format!("need {} {}\n", t.program, t.package)).collect();
        let with = |text: &str| {
            let repository = files(&[("tests/src/a.rs", text), (CI, &ci)]);
            test_programs_are_announced(&repository).breaches.len()
        };
        assert_eq!(with("fn f() { Command::new(\"frobnicate\"); }"), 1);
        assert_eq!(with("fn f() { Command::new(\"cargo\"); Command::new(lantern); }"), 0);
    }

    #[test]
    fn a_program_that_ci_does_not_install_is_a_breach() {
        assert!(installs("need a b\n  need jq jq", "jq", "jq"));
        assert!(!installs("# need jq\nneed jq other", "jq", "jq"));
    }
}
