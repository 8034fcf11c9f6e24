//! What sources may say.

use super::{Findings, Repository, Source};
use crate::lex::{self, Kind, Token};

/// Paths that a deterministic crate must not name: these and all below them.
const OUTSIDE: [&str; 14] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::os",
    "std::hash::RandomState",
    "std::thread::sleep",
    "tokio",
    "rand",
    "fastrand",
    "jiff",
];

/// Paths through which one of those could be reached unseen.
const BACK_DOORS: [&str; 4] = ["std::time", "std::time::*", "std::*", "std"];

/// `core` and `engine` touch no clock, randomness, file, socket or runtime, but
/// in their tests: a test can run them whole under one seed.
pub(super) fn core_and_engine_touch_nothing_outside(repository: &Repository) -> Findings {
    let pure =
        |source: &&Source| source.in_folder("host/core/src") || source.in_folder("host/engine/src");
    let found = repository.sources.iter().filter(pure).flat_map(|source| {
        lex::paths(&source.code)
            .into_iter()
            .filter(|(path, _)| reaches_out(path))
            .map(|(path, line)| format!("{}:{line}: `{path}` reaches outside", source.path))
    });
    found.collect()
}

fn reaches_out(path: &str) -> bool {
    BACK_DOORS.contains(&path)
        || OUTSIDE.iter().any(|banned| {
            path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
}

/// Where `unsafe` may stand, once each.
const UNSAFE_FILES: [&str; 2] = ["host/plugin/src/cache.rs", "host/kafka/src/ids.rs"];

/// `unsafe` stands once in `plugin`, where precompiled code is loaded that a keyed
/// hash proves to be our own, once in `kafka`, for a call of librdkafka that its
/// crate does not offer, and nowhere else.
pub(super) fn unsafe_is_in_two_places(repository: &Repository) -> Findings {
    let places = repository.sources.iter().flat_map(|source| {
        let tokens = source.tokens.iter().filter(|token| token.is("unsafe"));
        tokens.map(move |token| (source, token.line))
    });
    let mut findings = Findings::default();
    let mut taken = Vec::new();
    for (source, line) in places {
        let path = source.path.as_str();
        let allowed = UNSAFE_FILES.contains(&path) && !taken.contains(&path);
        taken.push(path);
        if !allowed {
            findings.breach(format!("{}:{line}: `unsafe`", source.path));
        }
    }
    findings
}

/// Every plugin forbids unsafe code: what a template shows, people copy.
pub(super) fn plugins_forbid_unsafe(repository: &Repository) -> Findings {
    let guest = |source: &&Source| {
        let parts: Vec<_> = source.path.split('/').collect();
        matches!(parts[..], ["plugins", _, "src", "lib.rs"])
    };
    let lacking = |source: &&Source| {
        let names: Vec<_> = source.code.iter().filter_map(Token::ident).take(2).collect();
        names != ["forbid", "unsafe_code"]
    };
    let found = repository.sources.iter().filter(guest).filter(lacking);
    found
        .map(|source| format!("{}: begin it with `#![forbid(unsafe_code)]`", source.path))
        .collect()
}

/// Nothing unwraps outside of tests, and nothing allows itself to.
pub(super) fn nothing_unwraps(repository: &Repository) -> Findings {
    let found = repository.sources.iter().flat_map(|source| {
        let code = &source.code;
        (1..code.len()).filter(|at| unwraps(code, *at)).map(|at| {
            format!("{}:{}: `{}`", source.path, code[at].line, code[at].ident().unwrap_or_default())
        })
    });
    found.collect()
}

fn unwraps(code: &[Token], at: usize) -> bool {
    let called = |name: &str| {
        code[at].is(name)
            && code[at - 1].punct('.')
            && code.get(at + 1).is_some_and(|token| token.punct('('))
    };
    called("unwrap") || called("unwrap_err") || code[at].is("unwrap_used")
}

/// Lines of a file without its tests: more is warned of, and more is refused.
const FILE_LINES: usize = 600;
const FILE_LINES_MAX: usize = 800;
/// The same of a function.
const FUNCTION_LINES: usize = 70;
const FUNCTION_LINES_MAX: usize = 100;
/// What a comment on the spot begins with where more is needed.
const REASON: &str = "long because";
/// The lines above a function in which its reason may stand.
const REASON_LINES: usize = 12;

/// Files and functions are short, or say why not: `// Long because …` above the
/// function, or in the head of the file.
pub(super) fn files_and_functions_are_short(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for source in repository.sources.iter().filter(|source| !source.code.is_empty()) {
        let path = &source.path;
        let text = format!("{path}: {} lines without tests", source.lines);
        if source.lines > FILE_LINES && reason(source, 0, usize::MAX, true).is_none() {
            grade(&mut findings, source.lines > FILE_LINES_MAX, text, "head of the file");
        }
        for function in lex::functions(&source.code) {
            let lines = function.last - function.first + 1;
            let above = function.first.saturating_sub(REASON_LINES);
            let text = format!("{path}:{}: `{}` has {lines} lines", function.first, function.name);
            if lines > FUNCTION_LINES && reason(source, above, function.last, false).is_none() {
                grade(&mut findings, lines > FUNCTION_LINES_MAX, text, "function");
            }
        }
    }
    findings
}

fn grade(findings: &mut Findings, refused: bool, text: String, place: &str) {
    if refused {
        findings.breach(format!("{text}: split it, or say `// Long because …` at the {place}"));
    } else {
        findings.warnings.push(text);
    }
}

/// The comment between two lines that says why something is long.
fn reason(source: &Source, first: usize, last: usize, head: bool) -> Option<&str> {
    let lines = source.tokens.iter().filter(|token| (first..=last).contains(&token.line));
    let mut comments = lines.filter_map(|token| match &token.kind {
        Kind::InnerDoc(text) if head => Some(text.as_str()),
        Kind::Comment(text) | Kind::Doc(text) if !head => Some(text.as_str()),
        _ => None,
    });
    comments.find(|text| text.to_lowercase().contains(REASON))
}

/// Every file begins by saying what it is for, but those in a crate's sources
/// whose name says that they are its tests.
pub(super) fn files_say_what_they_are_for(repository: &Repository) -> Findings {
    let bound = |source: &&Source| !source.code.is_empty() || source.in_folder("tests");
    let silent = |source: &&Source| match source.tokens.first().map(|token| &token.kind) {
        Some(Kind::InnerDoc(text)) => text.trim() == "stub",
        _ => true,
    };
    let found = repository.sources.iter().filter(bound).filter(silent);
    found.map(|source| format!("{}: begin it with `//!` and what it is for", source.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    /// Checks how many breaches a rule finds in one file.
    fn check(rule: super::super::Rule, path: &str, text: &str, breaches: usize) -> Findings {
        let found = rule(&Repository::of(Workspace::default(), &[(path, text)]));
        assert_eq!(found.breaches.len(), breaches, "{path}: {text}\n{found:?}");
        found
    }

    #[test]
    fn a_clock_a_file_or_a_runtime_in_the_engine_is_a_breach() {
        let rule = core_and_engine_touch_nothing_outside;
        for text in [
            "use std::time::Instant;",
            "use std::{time::{Duration, SystemTime}, sync::Arc};",
            "use std::time; fn f() { time::Instant::now(); }",
            "fn f() { std::fs::read(x); }",
            "use tokio::sync::mpsc;",
            "fn f() { fastrand::u8(..); }",
        ] {
            check(rule, "host/engine/src/a.rs", text, 1);
            check(rule, "host/server/src/a.rs", text, 0);
        }
        for text in [
            "use std::time::Duration;",
            "// std::fs\nconst A: &str = \"std::net\";",
            "#[cfg(test)]\nmod tests { use std::time::Instant; }",
        ] {
            check(rule, "host/core/src/a.rs", text, 0);
        }
    }

    #[test]
    fn unsafe_outside_its_places_is_a_breach() {
        let rule = unsafe_is_in_two_places;
        check(rule, "host/store/src/a.rs", "fn f() { unsafe { g() } }", 1);
        check(rule, "host/plugin/src/cache.rs", "fn f() { unsafe { g() } }", 0);
        check(rule, "host/plugin/src/cache.rs", "fn f() { unsafe { g() } unsafe { h() } }", 1);
        check(rule, "sdk/rust/src/a.rs", "#[cfg(test)] mod t { unsafe fn f() {} }", 1);
        check(rule, "sdk/rust/src/a.rs", "#![forbid(unsafe_code)] // unsafe", 0);
    }

    #[test]
    fn a_plugin_that_does_not_forbid_unsafe_is_a_breach() {
        let rule = plugins_forbid_unsafe;
        check(rule, "plugins/a/src/lib.rs", "//! A.\nuse b::c;", 1);
        check(rule, "plugins/a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\nuse b::c;", 0);
        check(rule, "plugins/a/src/other.rs", "use b::c;", 0);
    }

    #[test]
    fn an_unwrap_outside_of_tests_is_a_breach() {
        let rule = nothing_unwraps;
        check(rule, "host/a/src/a.rs", "fn f() { g().unwrap(); }", 1);
        check(rule, "host/a/src/a.rs", "#![allow(clippy::unwrap_used, reason = \"\")]", 1);
        check(rule, "host/a/src/a.rs", "fn f() { g().unwrap_or(1); /* .unwrap() */ }", 0);
        check(rule, "host/a/src/a.rs", "#[test]\nfn f() { g().unwrap(); }", 0);
        check(rule, "host/a/tests/a.rs", "fn f() { g().unwrap(); }", 0);
    }

    #[test]
    fn what_is_too_long_is_a_breach_unless_it_says_why() {
        let rule = files_and_functions_are_short;
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines - 2));
        let path = "host/a/src/a.rs";
        assert_eq!(check(rule, path, &function(70), 0).warnings.len(), 0);
        assert_eq!(check(rule, path, &function(71), 0).warnings.len(), 1);
        check(rule, path, &function(101), 1);
        check(rule, path, &format!("// Long because of x.\n{}", function(101)), 0);
        let file = "fn f() {\n}\n".repeat(401);
        check(rule, path, &file, 1);
        check(rule, path, &format!("//! A.\n//! Long because of x.\n{file}"), 0);
        check(rule, path, &format!("#[cfg(test)]\nmod tests {{\n{file}}}\n"), 0);
    }

    #[test]
    fn a_file_without_a_head_is_a_breach() {
        let rule = files_say_what_they_are_for;
        check(rule, "host/a/src/a.rs", "use a::b;", 1);
        check(rule, "host/a/src/a.rs", "//! stub\nuse a::b;", 1);
        check(rule, "host/a/src/a.rs", "//! What it is for.\nuse a::b;", 0);
        check(rule, "host/a/src/tests/b.rs", "use a::b;", 0);
        check(rule, "tests/src/b.rs", "use a::b;", 1);
    }
}
