//! Searches phrases that make comments, documents and error texts hard to read, and names what to
//! write instead.
//!
//! The list is short. It contains phrases that this project once used in many different
//! meanings, and that a search finds reliably. `cargo xtask prose` prints every place that
//! has one of them.

use std::collections::BTreeMap;

use super::{Findings, Repository};

/// Phrases to avoid, separated by `|`, and what to write instead.
const AVOID: &[(&str, &str)] = &[
    ("anew", "again, recreated, from scratch"),
    ("whoever|nobody|somebody", "the caller, the reader, no reader"),
    ("let go|lets go|letting go|give up its place", "release, evict, delete"),
    ("under way|on its way|on their way", "in progress, pending"),
    ("beside", "next to, in parallel with, in addition"),
    ("so many|so long|as many as", "N, up to N"),
    ("is told|are told|be told|says so|say so", "returns, reports, logs"),
    ("stands|stand|lies|lie", "is, is stored"),
    ("way out|way back", "path, procedure, recovery"),
    ("of one whose|of those whose|of one that", "if its …, an X whose …"),
    (
        "where there is|where there are|where it is|where none is|where one is|where they are",
        "if …; when … for time",
    ),
];

/// The maximum number of avoided phrases in each tree. Lower a ceiling when a phrase is
/// removed, and never raise it.
const CEILINGS: &[(&str, usize)] = &[
    ("bench", 0),
    ("clients", 0),
    ("docs", 0),
    ("host/cli", 0),
    ("host/cloudevents", 0),
    ("host/core", 0),
    ("host/engine", 0),
    ("host/kafka", 0),
    ("host/live", 0),
    ("host/log", 0),
    ("host/plugin", 0),
    ("host/server", 0),
    ("host/store", 0),
    ("plugins", 0),
    ("sdk", 0),
    ("tests", 0),
    ("top", 0),
    ("web", 0),
];

/// Files that are not searched: this list itself, and files that are generated from other
/// files that are searched.
const LEFT_OUT: [&str; 3] = ["docs/errors/", "docs/config.md", "xtask/src/check/prose.rs"];

/// A place at which a text contains an avoided phrase.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file and the line number (from 1) of the phrase.
    pub(crate) place: String,
    phrase: &'static str,
    instead: &'static str,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}`; write {}", self.place, self.phrase, self.instead)
    }
}

/// The avoided phrases that were found in one tree.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) lines: usize,
    pub(crate) found: Vec<Found>,
}

impl Tree {
    /// The number of avoided phrases per thousand lines.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub(crate) fn per_thousand(&self) -> f64 {
        self.found.len() as f64 * 1000.0 / self.lines.max(1) as f64
    }
}

/// The avoided phrases in sources of Rust and TypeScript, Markdown files and the web page, by tree.
pub(crate) fn trees(repository: &Repository) -> BTreeMap<String, Tree> {
    let mut trees = BTreeMap::<_, Tree>::new();
    for (path, text) in &repository.texts {
        let is_prose =
            [".rs", ".md", ".html", ".js", ".ts", ".tsx"].iter().any(|end| path.ends_with(end));
        if !is_prose || LEFT_OUT.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        let tree = trees.entry(tree_of(path)).or_default();
        tree.lines += text.lines().count();
        tree.found.extend(phrases(path, text));
    }
    trees
}

/// Returns the tree of a file: a crate of the host, another top folder, or `top` for files in no
/// folder.
fn tree_of(path: &str) -> String {
    match *path.split('/').collect::<Vec<_>>() {
        ["host", name, _, ..] => format!("host/{name}"),
        [top, _, ..] => top.to_owned(),
        _ => "top".to_owned(),
    }
}

/// Searches the words of `text`, so that a phrase is also found across two lines
/// of a comment.
fn phrases(path: &str, text: &str) -> Vec<Found> {
    let words: Vec<(usize, String)> = (1..)
        .zip(text.lines())
        .flat_map(|(line, text)| {
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.filter(|word| !word.is_empty()).map(move |word| (line, word.to_lowercase()))
        })
        .collect();
    let mut found = Vec::new();
    for (phrases, instead) in AVOID {
        for phrase in phrases.split('|') {
            let wanted: Vec<_> = phrase.split(' ').collect();
            let hits = words
                .windows(wanted.len())
                .filter(|some| some.iter().zip(&wanted).all(|((_, word), wanted)| word == wanted));
            found.extend(hits.map(|hit| Found {
                place: format!("{path}:{}", hit[0].0),
                phrase,
                instead,
            }));
        }
    }
    found
}

/// Checks that the number of avoided phrases in each tree is at most its ceiling.
pub(super) fn words_are_plain(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for (name, tree) in trees(repository) {
        let ceiling = CEILINGS.iter().find(|(tree, _)| *tree == name).map_or(0, |(_, max)| *max);
        let what = format!("phrases to avoid in `{name}` (`cargo xtask prose {name}` lists them)");
        findings.ceiling(&what, tree.found.len(), ceiling);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    #[test]
    fn a_phrase_is_found_by_whole_words_and_across_lines() {
        let text = "// It is read anew.\n/// While a commit is under\n/// way, canew waits.\n\
                    fn f() { error(\"nobody reads\") }\n";
        let found: Vec<_> = phrases("a.rs", text).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a.rs:1: `anew`; write again, recreated, from scratch",
                "a.rs:4: `nobody`; write the caller, the reader, no reader",
                "a.rs:2: `under way`; write in progress, pending",
            ]
        );
    }

    #[test]
    fn a_phrase_above_the_ceiling_is_a_breach() {
        let check = |path: &str, text: &str, breaches: usize| {
            let found = words_are_plain(&Repository::of(Workspace::default(), &[(path, text)]));
            assert_eq!(found.breaches.len(), breaches, "{path}: {found:?}");
        };
        check("newtree/a.md", "made anew", 1);
        check("newtree/a.md", "recreated", 0);
        check("newtree/a.toml", "made anew", 0);
        check("docs/errors/LAN-0001.md", &"anew ".repeat(10_000), 0);
    }
}
