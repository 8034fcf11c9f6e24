//! The rules that the repository keeps. Each is a function that names what
//! breaks it, and each has a test that shows it a breach.

mod dependencies;
mod documents;
mod generated;
mod licences;
mod sources;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::lex::{self, Token};
use crate::metadata::Workspace;
use crate::shell;
use crate::suite::Summary;

pub(crate) use generated::write as write_generated;

/// What a rule finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// What breaks it, each with its place.
    pub(crate) breaches: Vec<String>,
    /// What comes near.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    fn breach(&mut self, text: impl Into<String>) {
        self.breaches.push(text.into());
    }
}

impl FromIterator<String> for Findings {
    fn from_iter<T: IntoIterator<Item = String>>(breaches: T) -> Self {
        Self { breaches: breaches.into_iter().collect(), warnings: Vec::new() }
    }
}

/// One source file.
pub(crate) struct Source {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    /// All tokens.
    pub(crate) tokens: Vec<Token>,
    /// The tokens that are neither comments nor of tests.
    pub(crate) code: Vec<Token>,
    /// How many lines it has without its tests.
    pub(crate) lines: usize,
}

impl Source {
    /// Reads one.
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        let path = path.into();
        let tokens = lex::tokens(text);
        let (kept, test_lines) = lex::without_tests(&tokens);
        let of_tests = is_test_file(&path);
        Self {
            code: if of_tests { Vec::new() } else { lex::code(&kept) },
            lines: text.lines().count().saturating_sub(test_lines),
            path,
            tokens,
        }
    }

    /// Whether it lies in this folder.
    pub(crate) fn in_folder(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Whether all of a file is tests, by its name.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.split('/').any(|part| part == "tests" || part == "benches")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
}

/// Everything that rules look at.
pub(crate) struct Repository {
    pub(crate) workspace: Workspace,
    /// Rust sources, by path.
    pub(crate) sources: Vec<Source>,
    /// Every file that is not built or ignored, by path; texts only.
    pub(crate) texts: BTreeMap<String, String>,
    /// Every other file.
    pub(crate) others: Vec<String>,
}

/// Folders that hold nothing of the repository's own.
const LEFT_OUT: [&str; 4] = [".git", "target", "node_modules", "data"];

impl Repository {
    /// Reads the work tree.
    pub(crate) fn load() -> Result<Self> {
        let mut found = Self::of(Workspace::load()?, &[]);
        walk(&shell::root(), "", &mut found)?;
        let rust = found.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        found.sources = rust.map(|(path, text)| Source::new(path, text)).collect();
        Ok(found)
    }

    /// One of these files, for tests.
    pub(crate) fn of(workspace: Workspace, files: &[(&str, &str)]) -> Self {
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        Self {
            workspace,
            sources: rust.map(|(path, text)| Source::new(*path, text)).collect(),
            texts: files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect(),
            others: Vec::new(),
        }
    }

    /// Whether there is such a file or folder.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        let paths = || self.texts.keys().chain(&self.others);
        path.is_empty() || paths().any(|file| file == path || file.starts_with(&folder))
    }
}

/// Collects the files under `folder`.
fn walk(root: &Path, folder: &str, found: &mut Repository) -> Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            // `data` is left out at the top alone: there it is a server's.
            if !LEFT_OUT.contains(&name.as_str()) || (name == "data" && !folder.is_empty()) {
                walk(root, &path, found)?;
            }
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            found.texts.insert(path, text);
        } else {
            found.others.push(path);
        }
    }
    Ok(())
}

/// A rule over the files and the workspace.
type Rule = fn(&Repository) -> Findings;

/// Every rule, with the name that `ARCHITECTURE.md` cites.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("dependencies_form_a_star", dependencies::dependencies_form_a_star),
    ("big_dependencies_stay_in_their_crates", dependencies::big_dependencies_stay_in_their_crates),
    ("core_and_engine_touch_nothing_outside", sources::core_and_engine_touch_nothing_outside),
    ("unsafe_is_in_two_places", sources::unsafe_is_in_two_places),
    ("plugins_forbid_unsafe", sources::plugins_forbid_unsafe),
    ("nothing_unwraps", sources::nothing_unwraps),
    ("files_and_functions_are_short", sources::files_and_functions_are_short),
    ("files_say_what_they_are_for", sources::files_say_what_they_are_for),
    ("members_share_the_lints", tree::members_share_the_lints),
    ("guests_have_tests", tree::guests_have_tests),
    ("test_programs_are_announced", tree::test_programs_are_announced),
    ("the_top_folder_is_as_drawn", tree::the_top_folder_is_as_drawn),
    ("licences_are_allowed", licences::licences_are_allowed),
    ("packages_come_from_the_registry", licences::packages_come_from_the_registry),
    ("links_lead_somewhere", documents::links_lead_somewhere),
    ("the_map_is_complete", documents::the_map_is_complete),
    ("limits_are_documented", documents::limits_are_documented),
    ("error_codes_have_pages", documents::error_codes_have_pages),
    ("generated_files_are_fresh", generated::generated_files_are_fresh),
];

/// The most breaches of one rule that are shown.
const SHOWN_MAX: usize = 40;

/// Runs every rule and every checker; what passed and what did not.
pub(crate) fn run(rules_only: bool) -> Result<Summary> {
    let mut summary = Summary::default();
    shell::step("Checking the rules of the repository");
    let repository = Repository::load()?;
    for (name, rule) in RULES {
        let start = Instant::now();
        let findings = rule(&repository);
        show(name, &findings, start);
        summary.count(findings.breaches.is_empty());
    }
    if rules_only {
        return Ok(summary);
    }
    for (what, mut command) in checkers() {
        shell::step(what);
        let passed = shell::run(&mut command);
        if let Err(error) = &passed {
            eprintln!("{error:#}");
        }
        summary.count(passed.is_ok());
    }
    deny(&mut summary);
    Ok(summary)
}

fn show(name: &str, findings: &Findings, start: Instant) {
    let word = if findings.breaches.is_empty() { "ok" } else { "FAILED" };
    eprintln!("rule {name} ... {word} ({} ms)", start.elapsed().as_millis());
    for text in findings.breaches.iter().take(SHOWN_MAX) {
        eprintln!("    {text}");
    }
    if let Some(more @ 1..) = findings.breaches.len().checked_sub(SHOWN_MAX) {
        eprintln!("    and {more} more");
    }
    for text in &findings.warnings {
        eprintln!("    warning: {text}");
    }
}

/// The compiler's own checkers.
fn checkers() -> Vec<(&'static str, std::process::Command)> {
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    let mut rustdoc = shell::cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
    rustdoc.env("RUSTDOCFLAGS", "--deny warnings");
    vec![
        ("Checking the format", shell::cargo(["fmt", "--all", "--check"])),
        ("Checking with clippy", shell::cargo(clippy)),
        ("Checking the documentation", rustdoc),
    ]
}

/// What only cargo-deny can tell, where it is installed.
fn deny(summary: &mut Summary) {
    shell::step("Checking with cargo-deny");
    if !shell::installed("cargo-deny") {
        summary.skip(
            "cargo-deny is not installed, so known vulnerabilities were not looked up (licences \
             and origins were checked without it)",
            "`cargo install --locked cargo-deny`; it also needs to reach github.com",
        );
        return;
    }
    let offline = ["deny", "--offline", "check", "bans", "licenses", "sources"];
    summary.count(shell::run(&mut shell::cargo(offline)).is_ok());
    // The list of vulnerabilities lies on GitHub, which not every machine may reach.
    let fetched = shell::output(&mut shell::cargo(["deny", "fetch", "db"]));
    if let Err(error) = fetched {
        summary.skip(
            &format!("the list of known vulnerabilities cannot be fetched: {error:#}"),
            "run `cargo deny check advisories` where github.com can be reached",
        );
        return;
    }
    summary.count(shell::run(&mut shell::cargo(["deny", "check", "advisories"])).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_different_names() {
        let names: std::collections::BTreeSet<_> = RULES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), RULES.len());
    }

    #[test]
    fn files_of_tests_are_known_by_name() {
        for path in ["host/a/src/x_tests.rs", "host/a/src/b/tests.rs", "tests/src/a.rs"] {
            assert!(is_test_file(path), "{path}");
        }
        assert!(!is_test_file("host/cli/src/commands/test.rs"));
        assert!(!is_test_file("sdk/rust/src/testing/fold.rs"));
    }
}
