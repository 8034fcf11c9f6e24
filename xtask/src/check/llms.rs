//! Generates `docs/llms.txt`, a reference in one file for language models and other readers
//! that read only one file. It consists of an introduction and of sections of other
//! documents.

use anyhow::{Context, Result, bail};

use super::Repository;

/// The path of the generated file.
pub(super) const PATH: &str = "docs/llms.txt";
/// The introduction, with `{{FILE#SECTION}}` for each included section. An empty SECTION
/// includes the text between the title of FILE and its first section.
const TEMPLATE: &str = include_str!("llms.md.tmpl");
/// The maximum size of the file. A token has at least 3.3 bytes of such a text, so this is
/// at most 12,000 tokens.
const BYTES_MAX: usize = 39_600;

/// Generates the text of the file.
pub(super) fn document(repository: &Repository) -> Result<String> {
    let mut text = String::new();
    for line in TEMPLATE.lines() {
        match line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}")) {
            Some(include) => text.push_str(&included(repository, include)?),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    if text.len() > BYTES_MAX {
        bail!("{PATH}: {} bytes, and at most {BYTES_MAX} are allowed", text.len());
    }
    Ok(text)
}

/// Returns the paths of the documents that the file includes parts of.
#[cfg(test)]
pub(super) fn sources() -> impl Iterator<Item = &'static str> {
    let places = TEMPLATE.lines().filter_map(|line| line.strip_prefix("{{")?.split_once('#'));
    let mut paths: Vec<_> = places.map(|(path, _)| path).collect();
    paths.dedup();
    paths.into_iter()
}

fn included(repository: &Repository, include: &str) -> Result<String> {
    let (path, title) = include.split_once('#').context("a section is written FILE#SECTION")?;
    let document = repository.texts.get(path).with_context(|| format!("{path} is missing"))?;
    let found = section(document, title)
        .with_context(|| format!("{path} has no section `{title}`, which {PATH} includes"))?;
    let lines = found.lines().map(|line| match line.strip_prefix("#") {
        Some(deeper) if deeper.starts_with('#') => format!("#{line}"),
        _ => without_links(without_prompt(line)),
    });
    Ok(lines.collect::<Vec<_>>().join("\n").trim().to_owned())
}

/// Returns the text below the second-level heading `title` or, if `title` is empty, below the
/// document's title. It ends at the next second-level heading.
fn section<'a>(document: &'a str, title: &str) -> Option<&'a str> {
    let start = match title {
        "" => document.find('\n')?,
        _ => {
            let heading = format!("\n## {title}\n");
            document.find(&heading)? + heading.len()
        }
    };
    let rest = &document[start..];
    Some(rest.find("\n## ").map_or(rest, |end| &rest[..end]))
}

/// Returns a line of an example without the prompt of Python's console.
fn without_prompt(line: &str) -> &str {
    [">>> ", "... "].iter().find_map(|prompt| line.strip_prefix(prompt)).unwrap_or(line)
}

/// Returns a line in which each link to another file is replaced by the text of the link.
fn without_links(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once("](") {
        let (Some((head, text)), Some((target, after))) =
            (before.rsplit_once('['), link.split_once(')'))
        else {
            break;
        };
        // Code such as `items[i](x)` looks like a link and is none.
        if target.contains([' ', '"']) {
            break;
        }
        out.push_str(head);
        out.push_str(text);
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_section_ends_at_the_next_heading() {
        let document = "# A\n\nfirst\n\n## B\n\nsecond\n\n### C\n\nthird\n\n## D\n\nfourth\n";
        assert_eq!(section(document, "").unwrap().trim(), "first");
        assert_eq!(section(document, "B").unwrap().trim(), "second\n\n### C\n\nthird");
        assert_eq!(section(document, "D").unwrap().trim(), "fourth");
        assert!(section(document, "E").is_none());
    }

    #[test]
    fn links_become_texts() {
        assert_eq!(without_links("see [a](b.md) and [`c`](d#e)."), "see a and `c`.");
        assert_eq!(without_links("call [a](b, c)"), "call [a](b, c)");
        assert_eq!(without_prompt(">>> x = 1"), "x = 1");
    }
}
