//! Checks rules that compare documents with the code.

use std::collections::BTreeSet;

use super::{Findings, RULES, Repository, code_of, generated};

/// Checks that every relative link of a Markdown file points to an existing file or folder.
pub(super) fn links_lead_somewhere(repository: &Repository) -> Findings {
    let documents = repository.texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let dead = documents.flat_map(|(path, text)| {
        links(text).into_iter().filter_map(move |(line, link)| {
            let target = resolve(path, link)?;
            (!repository.has(&target)).then(|| format!("{path}:{line}: `{link}` leads nowhere"))
        })
    });
    dead.collect()
}

/// Finds the targets of all links `[…](target)` outside of code blocks, with their line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        found.extend(targets.map(|target| (line, target)));
    }
    found
}

/// Returns the path in the repository to which a relative link points; `None` for other links.
fn resolve(document: &str, link: &str) -> Option<String> {
    let link = link.split('#').next().unwrap_or_default();
    if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<_> = document.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => (),
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Settings that are limits although their names do not end in `_max`.
const OTHER_LIMITS: [&str; 18] = [
    "log.kafka.queue_bytes",
    "log.kafka.dedup_window_events",
    "log.kafka.cache_bytes",
    "log.kafka.cursors",
    "live.window",
    "live.hello_ms",
    "live.pong_ms",
    "live.stall_ms",
    "log.queue_bytes",
    "log.disk_reserve_bytes",
    "log.dedup_window_events",
    "log.retention_bytes",
    "log.cache_bytes",
    "plugin.limits.compile_cpu_s",
    "plugin.limits.compile_memory_bytes",
    "plugin.limits.compile_wall_s",
    "plugin.limits.apply_ms",
    "engine.fuel_event",
];

/// Checks that `docs/limits.md` lists every setting that is a limit, and that every row names at
/// least one test that exists.
pub(super) fn limits_are_documented(repository: &Repository) -> Findings {
    const TABLE: &str = "docs/limits.md";
    let text = |path: &str| repository.texts.get(path).map(String::as_str).unwrap_or_default();
    let mut findings = Findings::default();
    let table = text(TABLE);
    for key in limit_keys(text("docs/config.md")) {
        if !table.contains(&format!("`{key}`")) {
            findings.breach(format!("{TABLE}: the limit `{key}` is not in it"));
        }
    }
    let tests: BTreeSet<_> = repository.rust().flat_map(|(_, text)| tests_of(text)).collect();
    for (line, row) in (1..).zip(table.lines()).filter(|(_, row)| row.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [limit, _, _, shown] = cells[..] else {
            findings.breach(format!("{TABLE}:{line}: a row has four cells"));
            continue;
        };
        if limit == "limit" {
            continue;
        }
        let named: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            findings.breach(format!("{TABLE}:{line}: no test shows `{limit}`"));
        }
        for test in named.into_iter().filter(|test| !tests.contains(*test)) {
            findings.breach(format!("{TABLE}:{line}: there is no test `{test}`"));
        }
    }
    findings
}

/// Finds the limits among the settings in `reference`, each as `section.key`.
fn limit_keys(reference: &str) -> Vec<String> {
    let (mut section, mut keys) = ("", Vec::new());
    for line in reference.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches('`').trim_matches(['[', ']']);
        } else if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            let whole = format!("{section}.{key}");
            if key.ends_with("_max") || OTHER_LIMITS.contains(&whole.as_str()) {
                keys.push(whole);
            }
        }
    }
    keys
}

/// Finds the names of the test functions in a source file.
fn tests_of(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut of_test = false;
    for line in text.lines().map(str::trim_start) {
        of_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
        if let (Some(name), false) = (name, line.starts_with("//")) {
            found.extend(of_test.then_some(name));
            of_test = false;
        }
    }
    found
}

/// Checks that `ARCHITECTURE.md` names every top folder and the folder of every member of the
/// workspace, and that `docs/invariants.md` names every rule.
pub(super) fn the_map_is_complete(repository: &Repository) -> Findings {
    const MAP: &str = "ARCHITECTURE.md";
    const INVARIANTS: &str = "docs/invariants.md";
    let text = repository.texts.get(MAP).map(String::as_str).unwrap_or_default();
    let mut findings = Findings::default();
    for member in repository.workspace.members() {
        // The document names the folder of the plugins, and not each plugin.
        let folder = member.folder.as_str();
        let shown = if folder.starts_with("plugins/") { "plugins" } else { folder };
        if !text.contains(&format!("`{shown}`")) && !text.contains(&format!("`{shown}/`")) {
            findings.breach(format!("{MAP}: `{shown}` is not on the map"));
        }
    }
    let paths = repository.texts.keys().chain(&repository.others);
    let tops: BTreeSet<_> = paths.filter_map(|path| Some(path.split_once('/')?.0)).collect();
    for top in tops.into_iter().filter(|top| !top.starts_with('.')) {
        if !text.contains(&format!("`{top}`")) && !text.contains(&format!("`{top}/")) {
            findings.breach(format!("{MAP}: the folder `{top}` is not on the map"));
        }
    }
    let invariants = repository.texts.get(INVARIANTS).map(String::as_str).unwrap_or_default();
    for (rule, _) in RULES {
        if !invariants.contains(&format!("`{rule}`")) {
            findings.breach(format!("{INVARIANTS}: the rule `{rule}` is not named"));
        }
    }
    findings
}

/// Checks that every code `LAN-dddd` in a source file of the host or in a document is in the table
/// of codes. So every code has a page.
pub(super) fn error_codes_have_pages(repository: &Repository) -> Findings {
    let known: BTreeSet<_> =
        generated::codes(repository).into_iter().map(|code| code.code).collect();
    let of_host = repository.sources().filter(|(path, _)| path.starts_with("host/"));
    let sources = of_host.map(|(path, text)| (path, code_of(text)));
    let documents = repository.texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let documents = documents.map(|(path, text)| (path.as_str(), text.as_str()));
    let unknown = sources.chain(documents).flat_map(|(path, text)| {
        let unknown = codes_in(text).filter(|code| !known.contains(*code));
        unknown.map(move |code| format!("{path}: `{code}` has no page")).collect::<Vec<_>>()
    });
    unknown.collect()
}

fn codes_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("LAN-").filter_map(|(at, _)| {
        let code = text.get(at..at + 8)?;
        code[4..].bytes().all(|b| b.is_ascii_digit()).then_some(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Package, Workspace};

    fn files(files: &[(&str, &str)]) -> Repository {
        Repository::of(Workspace::default(), files)
    }

    #[test]
    fn a_dead_link_is_a_breach() {
        let check = |text: &str, breaches: usize| {
            let found = links_lead_somewhere(&files(&[("docs/a.md", text), ("docs/b/c.md", "")]));
            assert_eq!(found.breaches.len(), breaches, "{text}");
        };
        check("[x](nowhere.md)", 1);
        check("![x](../docs/b/c.png)", 1);
        check("[x](b/c.md) [y](../docs/b#z) [z](#here) [w](https://example.com)", 0);
        check("```\n[x](nowhere.md)\n```", 0);
    }

    #[test]
    fn a_folder_or_a_rule_that_is_not_on_the_map_is_a_breach() {
        let member =
            |folder: &str| Package { folder: folder.into(), member: true, ..Package::default() };
        let workspace = Workspace { packages: vec![member("host/a"), member("plugins/b")] };
        let rules: String = RULES.iter().map(|(name, _)| format!("`{name}` ")).collect();
        let check = |text: &str, rules: &str, breaches: usize| {
            let files = [
                ("ARCHITECTURE.md", text),
                ("docs/invariants.md", rules),
                ("misc/a.rs", ""),
                (".ci/run", ""),
            ];
            let repository = Repository::of(workspace.clone(), &files);
            assert_eq!(the_map_is_complete(&repository).breaches.len(), breaches, "{text}");
        };
        check("`host/a` `plugins/` `docs/` `misc/b`", &rules, 0);
        check("`plugins` `docs` `misc`", &rules, 1);
        check("`host/a` `docs` `plugins`", &rules, 1);
        check("`host/a` `plugins/` `docs` `misc`", "", RULES.len());
    }

    #[test]
    fn a_code_without_a_page_is_a_breach() {
        let table = (
            "host/server/src/codes.rs",
            "const C: [X; 1] = [code(\"LAN-0001\", 0, \"t\", \"h\")];",
        );
        let check = |text: &str, breaches: usize| {
            let found = error_codes_have_pages(&files(&[table, ("host/a/src/a.rs", text)]));
            assert_eq!(found.breaches.len(), breaches, "{text}");
        };
        check("fn f() { g(\"LAN-0001\") }", 0);
        check("fn f() { g(\"LAN-0002\") }", 1);
        check("fn f() { g(\"see LAN-x\") }", 0);
    }

    #[test]
    fn a_limit_without_a_row_and_a_row_without_a_test_are_breaches() {
        let reference = "## `[http]`\n\n| key | default | |\n|---|---|---|\n\
                         | `body_bytes_max` | `1` | x |\n| `listen` | x | y |\n";
        let source = "#[test]\nfn bodies_are_bounded() {}\nfn other() {}";
        let check = |row: &str, breaches: usize| {
            let table =
                format!("| limit | default | at it | shown by |\n|---|---|---|---|\n{row}\n");
            let files = [
                ("docs/config.md", reference),
                ("docs/limits.md", table.as_str()),
                ("host/a/src/a.rs", source),
            ];
            let repository = Repository::of(Workspace::default(), &files);
            let found = limits_are_documented(&repository).breaches;
            assert_eq!(found.len(), breaches, "{row}: {found:?}");
        };
        check("| bodies | 1 (`http.body_bytes_max`) | 413 | `bodies_are_bounded` |", 0);
        check("| bodies | 1 (`http.body_bytes_max`) | 413 | `bodies_are_free` |", 1);
        check("| bodies | 1 (`http.body_bytes_max`) | 413 | `other` |", 1);
        check("| bodies | 1 (`http.body_bytes_max`) | 413 | |", 1);
        check("| bodies | 1 | 413 | `bodies_are_bounded` |", 1);
    }
}
