//! Generates documents: a page for each error code from the table of codes, the reference
//! of the settings from their JSON Schema, and `docs/llms.txt` from sections of other
//! documents.
//!
//! All input is read as text, so that the check needs no build. Tests of `lantern-server`
//! compare the schema with the settings, and the documents of the API with the types in
//! `host/api`.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Findings, Repository, llms, settings};
use crate::shell;

/// The file that contains the table of error codes.
const CODES: &str = "host/server/src/codes.rs";
/// The folder that contains a page for each error code.
const PAGES: &str = "docs/errors";
/// The JSON Schema of the settings. Editors read it, and the reference of the settings is
/// generated from it.
const SCHEMA: &str = "docs/config.schema.json";
const REFERENCE: &str = "docs/config.md";
/// The first line of every generated file.
const MARK: &str = "<!-- Made by `cargo xtask docs` from the sources: change it there. -->\n";

/// Checks that the generated files are identical to what the sources generate.
pub(super) fn generated_files_are_fresh(repository: &Repository) -> Findings {
    let made = match make(repository) {
        Ok(made) => made,
        Err(error) => return Findings::from_iter([format!("{SCHEMA}: {error:#}")]),
    };
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

/// Writes the generated files, and returns how many there are. Before that, two tests
/// write the schema of the settings and the documents of the API, because these come from
/// Rust types. With `no_build` these tests do not run.
pub(crate) fn write(no_build: bool) -> Result<usize> {
    if !no_build {
        shell::step("Writing the schema of the settings and the documents of the API");
        // The whole workspace is selected, so that dependencies keep the features with
        // which they are already built.
        let test = ["test", "--quiet", "--workspace", "--test"];
        let tests = test.into_iter().chain(["settings_schema", "--test", "api_documents"]);
        shell::run(shell::cargo(tests).env("LANTERN_WRITE_SCHEMA", "1"))?;
    }
    let made = make(&Repository::load()?)?;
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

/// Generates the text of every file, by path.
fn make(repository: &Repository) -> Result<BTreeMap<String, String>> {
    let codes = codes(repository);
    let mut made: BTreeMap<_, _> = codes.iter().map(page).collect();
    made.insert(format!("{PAGES}/README.md"), index(&codes));
    let schema = repository.texts.get(SCHEMA).context("missing; run `cargo xtask docs`")?;
    let schema: Value = serde_json::from_str(schema)?;
    made.insert(REFERENCE.into(), format!("{MARK}{}", settings::document(&schema)));
    made.insert(llms::PATH.into(), llms::document(repository)?);
    Ok(made)
}

/// An error code, with the texts of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) code: String,
    status: u16,
    title: String,
    help: String,
}

/// Reads the table of codes: every call `code("LAN-…", status, "title", "help")` in its file.
pub(super) fn codes(repository: &Repository) -> Vec<Code> {
    let text = repository.texts.get(CODES).map(String::as_str).unwrap_or_default();
    text.split("code(").filter_map(entry).collect()
}

fn entry(text: &str) -> Option<Code> {
    let (code, rest) = literal(text)?;
    let (status, rest) = rest.trim_start_matches([',', ' ', '\n']).split_once(',')?;
    let (title, rest) = literal(rest)?;
    let (help, _) = literal(rest.strip_prefix(',')?)?;
    Some(Code { code, status: status.parse().ok()?, title, help })
}

/// Reads the string literal at the beginning of `text`. Returns it with the text after it.
fn literal(text: &str) -> Option<(String, &str)> {
    let inside = text.trim_start().strip_prefix('"')?;
    let ends = inside.match_indices('"').map(|(at, _)| at);
    let end = ends.into_iter().find(|at| !inside[..*at].ends_with('\\'))?;
    Some((inside[..end].replace("\\\"", "\""), &inside[end + 1..]))
}

fn page(code: &Code) -> (String, String) {
    let Code { code: name, status, title, help } = code;
    let answer = match status {
        0 => "No request is answered with this code: the server prints or logs it.".to_owned(),
        _ => format!("Requests are answered with HTTP status {status}."),
    };
    let text = format!(
        "{MARK}# {name}: {title}\n\n{answer}\n\n**What to do:** {help}.\n\n[All codes](README.md)\n"
    );
    (format!("{PAGES}/{name}.md"), text)
}

fn index(codes: &[Code]) -> String {
    let mut text = format!(
        "{MARK}# Errors\n\nEvery error has a stable code. Over HTTP it is the member `code` \
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

    const TABLE: &str = "const fn code(code: &'static str) {}\npub const CODES: &[Code] = &[\n\
        code(\n    \"LAN-0001\",\n    0,\n    \"it is wrong\",\n    \"mend \\\"it\\\"\",\n),\n\
        code(\"LAN-0101\", 400, \"bad\", \"send better\"),\n];";

    #[test]
    fn a_stale_a_missing_and_a_left_over_page_are_breaches() {
        let root = shell::root();
        let documents = llms::sources().map(|path| {
            (path, std::fs::read_to_string(root.join(path)).expect("the document exists"))
        });
        let documents: Vec<_> = documents.collect();
        let mut sources = vec![(CODES, TABLE), (SCHEMA, "{}")];
        sources.extend(documents.iter().map(|(path, text)| (*path, text.as_str())));
        let fresh = make(&Repository::of(Workspace::default(), &sources)).unwrap();
        assert!(fresh["docs/errors/LAN-0001.md"].contains("mend \"it\"."));
        let check = |change: &dyn Fn(&mut BTreeMap<String, String>), breaches: usize| {
            let mut files = fresh.clone();
            change(&mut files);
            let mut listed: Vec<_> =
                files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            listed.extend(&sources);
            let found = generated_files_are_fresh(&Repository::of(Workspace::default(), &listed));
            assert_eq!(found.breaches.len(), breaches, "{found:?}");
        };
        check(&|_| (), 0);
        check(&|files| files.get_mut("docs/config.md").into_iter().for_each(|t| t.push('x')), 1);
        check(&|files| drop(files.remove("docs/errors/LAN-0101.md")), 1);
        check(&|files| drop(files.insert("docs/errors/LAN-9999.md".into(), String::new())), 1);
    }
}
