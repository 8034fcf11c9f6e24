//! Documents made from the sources: one page an error code, and the reference
//! of the configuration.
//!
//! They are read from the text of the sources and not from the built program,
//! so that checking them builds nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use super::{Findings, Repository};
use crate::configuration;
use crate::lex::{Kind, Token};
use crate::shell;

/// Where the table of error codes stands.
const CODES: &str = "host/server/src/codes.rs";
/// Where the pages of codes go.
const PAGES: &str = "docs/errors";
/// What every generated file says of itself.
const MARK: &str = "<!-- Made by `cargo xtask docs` from the sources: change it there. -->\n";

/// The generated files say what the sources say.
pub(super) fn generated_files_are_fresh(repository: &Repository) -> Findings {
    let made = make(repository);
    let mut findings = Findings::default();
    for (path, text) in &made {
        match repository.texts.get(path) {
            Some(old) if old == text => (),
            Some(_) => findings.breach(format!("{path}: out of date; run `cargo xtask docs`")),
            None => findings.breach(format!("{path}: missing; run `cargo xtask docs`")),
        }
    }
    let pages = repository.texts.keys().filter(|path| path.starts_with(PAGES));
    for path in pages.filter(|path| !made.contains_key(*path)) {
        findings.breach(format!("{path}: of a code that is gone; run `cargo xtask docs`"));
    }
    findings
}

/// Writes the generated files; how many there are.
pub(crate) fn write() -> Result<usize> {
    let made = make(&Repository::load()?);
    let pages = shell::root().join(PAGES);
    if pages.is_dir() {
        std::fs::remove_dir_all(&pages)?;
    }
    std::fs::create_dir_all(&pages)?;
    for (path, text) in &made {
        std::fs::write(shell::root().join(path), text)?;
    }
    Ok(made.len())
}

/// Every generated file's text, by path.
fn make(repository: &Repository) -> BTreeMap<String, String> {
    let codes = codes(repository);
    let mut made: BTreeMap<_, _> = codes.iter().map(page).collect();
    made.insert(format!("{PAGES}/README.md"), index(&codes));
    made.insert("docs/config.md".into(), format!("{MARK}{}", configuration::document(repository)));
    made
}

/// One error code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) code: String,
    status: u16,
    title: String,
    help: String,
}

/// The table of codes: every `code("LAN-…", status, "title", "help")`.
pub(super) fn codes(repository: &Repository) -> Vec<Code> {
    let source = repository.sources.iter().find(|source| source.path == CODES);
    let tokens = source.map(|source| source.code.as_slice()).unwrap_or_default();
    (0..tokens.len()).filter_map(|at| entry(&tokens[at..])).collect()
}

fn entry(tokens: &[Token]) -> Option<Code> {
    let (name, open) = (tokens.first()?, tokens.get(1)?);
    if !name.is("code") || !open.punct('(') {
        return None;
    }
    let mut values = tokens[2..].iter().filter(|token| !token.punct(',')).map(|token| &token.kind);
    match (values.next()?, values.next()?, values.next()?, values.next()?) {
        (Kind::Str(code), Kind::Number(status), Kind::Str(title), Kind::Str(help)) => Some(Code {
            code: code.clone(),
            status: status.parse().ok()?,
            title: title.clone(),
            help: help.clone(),
        }),
        _ => None,
    }
}

fn page(code: &Code) -> (String, String) {
    let Code { code: name, status, title, help } = code;
    let place = match status {
        0 => "The server, or a plugin on it, is stopped by this; no request is answered with it."
            .to_owned(),
        _ => format!("Requests are answered with HTTP status {status}."),
    };
    let text = format!(
        "{MARK}# {name}: {title}\n\n{place}\n\n**What to do:** {help}.\n\n[All codes](README.md)\n"
    );
    (format!("{PAGES}/{name}.md"), text)
}

fn index(codes: &[Code]) -> String {
    let mut text = format!(
        "{MARK}# Errors\n\nEvery error has a stable code. Over HTTP it stands in the member `code` \
         of the answer (`application/problem+json`, RFC 9457); on a terminal as \
         `error[LAN-0101]: …`.\n\n| code | status | what went wrong |\n|---|---|---|\n"
    );
    for Code { code, status, title, .. } in codes {
        let status = if *status == 0 { "–".to_owned() } else { status.to_string() };
        let _ = writeln!(text, "| [{code}]({code}.md) | {status} | {title} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    const TABLE: &str = "const fn code() {}\npub const CODES: &[Code] = &[\n\
        code(\"LAN-0001\", 0, \"it is wrong\", \"mend \\\"it\\\"\"),\n\
        code(\"LAN-0101\", 400, \"bad\", \"send better\"),\n];";

    #[test]
    fn a_stale_a_missing_and_a_left_over_page_are_breaches() {
        let fresh = make(&Repository::of(Workspace::default(), &[(CODES, TABLE)]));
        assert!(fresh["docs/errors/LAN-0001.md"].contains("mend \"it\"."));
        let check = |change: &dyn Fn(&mut BTreeMap<String, String>), breaches: usize| {
            let mut files = fresh.clone();
            change(&mut files);
            let mut listed: Vec<_> =
                files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            listed.push((CODES, TABLE));
            let found = generated_files_are_fresh(&Repository::of(Workspace::default(), &listed));
            assert_eq!(found.breaches.len(), breaches, "{found:?}");
        };
        check(&|_| (), 0);
        check(&|files| files.get_mut("docs/config.md").into_iter().for_each(|t| t.push('x')), 1);
        check(&|files| drop(files.remove("docs/errors/LAN-0101.md")), 1);
        check(&|files| drop(files.insert("docs/errors/LAN-9999.md".into(), String::new())), 1);
    }
}
