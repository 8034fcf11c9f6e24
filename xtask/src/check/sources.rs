//! Checks rules for Rust sources that clippy cannot check.

use super::{Findings, Repository, code_lines, code_of};

/// The files that may contain one `allow` of `unsafe_code` each. The workspace's lint
/// forbids unsafe code elsewhere.
const UNSAFE_FILES: [&str; 3] =
    ["host/plugin/src/cache.rs", "host/kafka/src/librdkafka.rs", "sdk/rust/src/bindings.rs"];

/// Checks that the lint `unsafe_code` is allowed in three files, once in each:
///
/// - in `plugin`, to load precompiled code after a keyed hash has proved that this host compiled
///   it;
/// - in `kafka`, to call functions of librdkafka that its Rust crate does not offer;
/// - in the SDK, for generated code.
///
/// Every example plugin forbids unsafe code, because authors of plugins copy the examples.
pub(super) fn unsafe_code_is_listed(repository: &Repository) -> Findings {
    const FORBID: &str = "#![forbid(unsafe_code)]";
    let mut findings = Findings::default();
    for (path, text) in repository.rust().filter(|(path, _)| !path.starts_with("xtask/")) {
        let lifted = code_lines(text).filter(|(_, line)| {
            line.contains("unsafe_code") && !line.contains("forbid(unsafe_code)")
        });
        for (nth, (line, _)) in lifted.enumerate() {
            if nth > 0 || !UNSAFE_FILES.contains(&path) {
                findings.breach(format!("{path}:{line}: unsafe code is not allowed here"));
            }
        }
        let parts: Vec<_> = path.split('/').collect();
        let is_plugin = matches!(parts[..], ["plugins", _, "src", "lib.rs"]);
        if is_plugin && !text.contains(FORBID) {
            findings.breach(format!("{path}: add `{FORBID}`"));
        }
    }
    findings
}

/// The maximum number of lines of a file without its tests. Clippy checks the length of
/// functions.
const FILE_LINES_MAX: usize = 600;
/// The maximum number of fields of a type.
const FIELDS_MAX: usize = 15;
/// A comment with the reason why a file or a type is larger than allowed begins with these words.
const REASON: &str = "Long because";
/// The number of lines before a type in which its reason is searched.
const REASON_LINES: usize = 12;

/// Checks that files and types do not exceed their maximum size, or give a reason: `Long because …`
/// in the comment at the top of the file, or in a comment before the type.
pub(super) fn files_and_types_are_short(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for (path, text) in repository.sources() {
        let code = code_of(text);
        let lines = code.lines().count();
        let mut too_large = |what: &str, why: String| {
            findings.breach(format!("{what}: {why}; split it, or add `{REASON} …`"));
        };
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        if lines > FILE_LINES_MAX && !head.into_iter().any(|line| line.contains(REASON)) {
            too_large(path, format!("{lines} lines, at most {FILE_LINES_MAX}"));
        }
        for (name, fields) in large_types(code) {
            too_large(&format!("{path}: {name}"), format!("{fields} fields, at most {FIELDS_MAX}"));
        }
    }
    findings
}

/// Finds the structs that have too many fields and no reason, each with its number of fields. The
/// code must be formatted by rustfmt: each field on its own line, and the closing brace at the
/// indentation of the struct.
fn large_types(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<_> = line.split([' ', '<', '(']).collect();
        let Some(name) = words.windows(2).find(|pair| pair[0] == "struct").map(|pair| pair[1])
        else {
            continue;
        };
        if !line.ends_with('{') || line.trim_start().starts_with("//") {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let body = lines[at + 1..].iter().take_while(|line| **line != end);
        let fields = body.filter(|line| is_field(line, indent + 4)).count();
        let above = &lines[at.saturating_sub(REASON_LINES)..at];
        let reason = above.iter().rev().take_while(|line| !line.trim().is_empty());
        if fields > FIELDS_MAX && !reason.into_iter().any(|line| line.contains(REASON)) {
            found.push((name, fields));
        }
    }
    found
}

/// Returns whether a line begins a field: `indent` spaces, then a name and a colon.
fn is_field(line: &str, indent: usize) -> bool {
    let Some(text) = line.get(indent..).filter(|_| line[..indent].trim().is_empty()) else {
        return false;
    };
    let text = match text.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, rest)| rest),
        Some(rest) if rest.starts_with(' ') => &rest[1..],
        _ => text,
    };
    let name = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
    name > 0 && text[name..].starts_with(": ")
}

/// Checks that every file begins with a `//!` comment that states its purpose. Files that contain
/// only unit tests need none.
pub(super) fn files_say_what_they_are_for(repository: &Repository) -> Findings {
    let bound = repository
        .rust()
        .filter(|(path, _)| !super::is_test_file(path) || path.starts_with("tests/"));
    let silent = bound.filter(|(_, text)| !text.starts_with("//! "));
    silent.map(|(path, _)| format!("{path}: begin it with `//!` and what it is for")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    /// Asserts that a rule finds the given number of breaches in one file.
    fn check(rule: super::super::Rule, path: &str, text: &str, breaches: usize) {
        let found = rule(&Repository::of(Workspace::default(), &[(path, text)]));
        assert_eq!(found.breaches.len(), breaches, "{path}: {text}\n{found:?}");
    }

    #[test]
    fn unsafe_code_outside_its_files_is_a_breach() {
        let rule = unsafe_code_is_listed;
        let lifted = "#[expect(\n    unsafe_code,\n    reason = \"x\"\n)]\n";
        check(rule, "host/store/src/a.rs", lifted, 1);
        check(rule, "host/store/src/a.rs", "#![allow(unsafe_code, reason = \"\")]", 1);
        check(rule, "host/plugin/src/cache.rs", lifted, 0);
        check(rule, "host/plugin/src/cache.rs", &lifted.repeat(2), 1);
        check(rule, "host/store/src/a.rs", "#![forbid(unsafe_code)]\n// unsafe_code", 0);
    }

    #[test]
    fn a_plugin_that_does_not_forbid_unsafe_code_is_a_breach() {
        let rule = unsafe_code_is_listed;
        check(rule, "plugins/a/src/lib.rs", "//! A.\nuse b::c;", 1);
        check(rule, "plugins/a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\nuse b::c;", 0);
        check(rule, "plugins/a/src/other.rs", "use b::c;", 0);
    }

    #[test]
    fn a_long_file_is_a_breach_unless_it_says_why() {
        let rule = files_and_types_are_short;
        let path = "host/a/src/a.rs";
        let file = "fn f() {\n}\n".repeat(300);
        check(rule, path, &file, 0);
        check(rule, path, &format!("//! A.\n{file}"), 1);
        check(rule, path, &format!("//! A.\n//! Long because of x.\n{file}"), 0);
        check(rule, path, &format!("//! A.\n#[cfg(test)]\nmod tests {{\n{file}}}\n"), 0);
    }

    #[test]
    fn a_type_with_many_fields_is_a_breach_unless_it_says_why() {
        let rule = files_and_types_are_short;
        let path = "host/a/src/a.rs";
        let fields =
            |count| "    /// A: b.\n    #[serde(default)]\n    pub(crate) a: u8,\n".repeat(count);
        let text = |count| {
            format!("pub struct A<T> {{\n{}}}\nstruct B {{\n    a: u8,\n}}\n", fields(count))
        };
        check(rule, path, &text(15), 0);
        check(rule, path, &text(16), 1);
        check(rule, path, &format!("/// Long because of x.\n#[derive(Debug)]\n{}", text(16)), 0);
    }

    #[test]
    fn a_file_without_a_head_is_a_breach() {
        let rule = files_say_what_they_are_for;
        check(rule, "host/a/src/a.rs", "use a::b;", 1);
        check(rule, "host/a/src/a.rs", "//! What it is for.\nuse a::b;", 0);
        check(rule, "host/a/src/tests/b.rs", "use a::b;", 0);
        check(rule, "tests/src/b.rs", "use a::b;", 1);
    }
}
