//! Checks the rules of the repository. Each rule is a function that returns the breaches of the
//! rule, and has a test with a breach that it must find.

mod dependencies;
mod documents;
mod generated;
mod graph;
mod licences;
mod llms;
mod prose;
mod settings;
mod sources;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::metadata::Workspace;
use crate::shell;
use crate::suite::Summary;

pub(crate) use generated::write as write_generated;

/// The result of checking a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The breaches of the rule, each with its place. One breach makes the check fail.
    pub(crate) breaches: Vec<String>,
    /// Hints that do not make the check fail, for instance that a ceiling can be lowered.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    fn breach(&mut self, text: impl Into<String>) {
        self.breaches.push(text.into());
    }

    /// Compares a count with its ceiling. A higher count is a breach. A lower count gives a hint to
    /// lower the ceiling.
    fn ceiling(&mut self, what: &str, count: usize, ceiling: usize) {
        if count > ceiling {
            self.breach(format!("{count} {what}; accepted are {ceiling}"));
        } else if count < ceiling {
            self.warnings.push(format!("{count} {what}: lower the ceiling, which is {ceiling}"));
        }
    }
}

impl FromIterator<String> for Findings {
    fn from_iter<T: IntoIterator<Item = String>>(breaches: T) -> Self {
        Self { breaches: breaches.into_iter().collect(), warnings: Vec::new() }
    }
}

/// Returns the text of a Rust source up to its module of tests.
fn code_of(text: &str) -> &str {
    let mut tests = text.match_indices("#[cfg(test)]\nmod ");
    let start = tests.find(|(at, _)| {
        let line = text[*at..].lines().nth(1).unwrap_or_default();
        line.ends_with('{') || line.ends_with('}')
    });
    start.map_or(text, |(at, _)| &text[..at])
}

/// Returns the lines of a source that are not comments, with their line numbers (from 1).
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Returns whether a file contains only test code, judged by its path.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.split('/').any(|part| part == "tests" || part == "benches")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
}

/// The files and packages of the repository, which the rules check.
pub(crate) struct Repository {
    pub(crate) workspace: Workspace,
    /// The content of every text file by path, without the folders [`LEFT_OUT`].
    pub(crate) texts: BTreeMap<String, String>,
    /// The paths of all files that are not text.
    pub(crate) others: Vec<String>,
}

/// Folders that are not searched: they contain no sources of the repository.
const LEFT_OUT: [&str; 5] = [".git", "target", "node_modules", "data", "dist"];

impl Repository {
    /// Reads the files of the work tree.
    pub(crate) fn load() -> Result<Self> {
        let mut found = Self::of(Workspace::load()?, &[]);
        walk(&shell::root(), "", &mut found)?;
        Ok(found)
    }

    /// Creates a repository that consists of `files`, for tests.
    pub(crate) fn of(workspace: Workspace, files: &[(&str, &str)]) -> Self {
        Self {
            workspace,
            texts: files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect(),
            others: Vec::new(),
        }
    }

    /// Returns the Rust sources, each with its path.
    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        texts.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Returns the Rust sources that do not consist of tests only.
    fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rust().filter(|(path, _)| !is_test_file(path))
    }

    /// Returns whether `path` is a file or folder of the repository.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        let paths = || self.texts.keys().chain(&self.others);
        path.is_empty() || paths().any(|file| file == path || file.starts_with(&folder))
    }
}

/// Adds the files below `folder` to `found`.
fn walk(root: &Path, folder: &str, found: &mut Repository) -> Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            // `data` is skipped only in the root folder, because there it is the data folder of a
            // server.
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

/// A rule: it checks the files and the workspace.
type Rule = fn(&Repository) -> Findings;

/// Every rule with its name, which `docs/invariants.md` must contain.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("dependencies_form_a_star", dependencies::dependencies_form_a_star),
    ("big_dependencies_stay_in_their_crates", dependencies::big_dependencies_stay_in_their_crates),
    ("unsafe_code_is_listed", sources::unsafe_code_is_listed),
    ("files_and_types_are_short", sources::files_and_types_are_short),
    ("files_say_what_they_are_for", sources::files_say_what_they_are_for),
    ("members_share_the_lints", tree::members_share_the_lints),
    ("guests_have_tests", tree::guests_have_tests),
    ("test_programs_are_announced", tree::test_programs_are_announced),
    ("packages_are_allowed", licences::packages_are_allowed),
    ("links_lead_somewhere", documents::links_lead_somewhere),
    ("the_map_is_complete", documents::the_map_is_complete),
    ("limits_are_documented", documents::limits_are_documented),
    ("error_codes_have_pages", documents::error_codes_have_pages),
    ("generated_files_are_fresh", generated::generated_files_are_fresh),
    ("words_are_plain", prose::words_are_plain),
    ("files_import_one_way", graph::files_import_one_way),
];

/// Prints which file of a crate imports which other file, and the circles.
pub(crate) fn print_graph(folder: &str) -> Result<()> {
    let folder = folder.trim_end_matches('/');
    let folder = if folder.contains('/') { folder.into() } else { format!("host/{folder}") };
    print!("{}", graph::Graph::new(&Repository::load()?, &folder));
    Ok(())
}

/// Prints every avoided phrase in the files whose paths begin with `path`, and the
/// number of phrases in each of their trees.
pub(crate) fn print_prose(path: &str) -> Result<()> {
    for (name, tree) in prose::trees(&Repository::load()?) {
        let found: Vec<_> =
            tree.found.iter().filter(|found| found.place.starts_with(path)).collect();
        for found in &found {
            println!("{found}");
        }
        if !found.is_empty() || name == path {
            let (count, lines, rate) = (tree.found.len(), tree.lines, tree.per_thousand());
            println!("{name}: {count} in {lines} lines, {rate:.1} per thousand\n");
        }
    }
    Ok(())
}

/// The maximum number of breaches that are printed for a rule.
const SHOWN_MAX: usize = 40;

/// Runs every rule and, unless `rules_only`, every checker. Returns how many passed and
/// failed.
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

/// Lists the checks that use the tools of the Rust toolchain.
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

/// Runs cargo-deny, if it is installed.
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
    // The list of vulnerabilities is on GitHub, and some machines have no access to it.
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
