//! What the packages from outside are licensed under, and where they come from.
//!
//! The same that `cargo deny check licenses sources` says, from the same
//! `deny.toml`, for machines that do not have it.

use super::{Findings, Repository};

/// Where the list of licences stands.
const FILE: &str = "deny.toml";
/// The registry of crates.io, as cargo names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every package from outside can be used under licences that `deny.toml` allows.
pub(super) fn licences_are_allowed(repository: &Repository) -> Findings {
    let Some(allowed) = repository.texts.get(FILE).and_then(|text| allowed(text)) else {
        return Findings::from_iter([format!("{FILE}: no list `allow` in `[licenses]`")]);
    };
    let outside = repository.workspace.packages.iter().filter(|package| !package.member);
    let refused = outside.filter(|package| match &package.license {
        Some(expression) => !holds(expression, &allowed),
        None => true,
    });
    refused
        .map(|package| {
            let license = package.license.as_deref().unwrap_or("no licence named");
            format!("{} {}: {license}", package.name, package.version)
        })
        .collect()
}

/// Every package comes from crates.io, or lies in the repository.
pub(super) fn packages_come_from_the_registry(repository: &Repository) -> Findings {
    let foreign = repository.workspace.packages.iter().filter(|package| match &package.source {
        Some(source) => source != REGISTRY,
        None => !package.member,
    });
    foreign
        .map(|package| {
            let source = package.source.as_deref().unwrap_or("a folder outside");
            format!("{} {}: from {source}", package.name, package.version)
        })
        .collect()
}

/// The names in `allow` of `[licenses]`.
fn allowed(toml: &str) -> Option<Vec<String>> {
    let section = toml.split("[licenses]").nth(1)?;
    let list = section.split("allow = [").nth(1)?.split(']').next()?;
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    Some(names.map(str::to_owned).collect())
}

/// Whether an SPDX expression can be met with the allowed licences.
fn holds(expression: &str, allowed: &[String]) -> bool {
    // An older way to write `OR`.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let held = any(&words, &mut at, allowed);
    held && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut held = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        // Both sides are read, whatever the first says.
        let other = all(words, at, allowed);
        held |= other;
    }
    held
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut held = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        let other = one(words, at, allowed);
        held &= other;
    }
    held
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let held = any(words, at, allowed);
        *at += 1;
        return held;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::metadata::{Package, Workspace};

    const DENY: &str = "[licenses]\nallow = [\n  \"MIT\", # a\n  \"Apache-2.0\",\n  \
                        \"Apache-2.0 WITH LLVM-exception\",\n]\n[bans]\nallow = [\"x\"]\n";

    fn package(license: Option<&str>, source: Option<&str>) -> Repository {
        let package = Package {
            name: "a".into(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
            ..Package::default()
        };
        Repository::of(Workspace { packages: vec![package] }, &[("deny.toml", DENY)])
    }

    #[test]
    fn a_licence_off_the_list_is_a_breach() {
        let breaches = |license| licences_are_allowed(&package(license, None)).breaches.len();
        for license in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR (MIT AND Apache-2.0)",
            "Unlicense/MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(breaches(Some(license)), 0, "{license}");
        }
        for license in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND X", "x", "MIT MIT"] {
            assert_eq!(breaches(Some(license)), 1, "{license}");
        }
        assert_eq!(breaches(None), 1);
    }

    #[test]
    fn a_package_from_elsewhere_is_a_breach() {
        let breaches = |source| packages_come_from_the_registry(&package(None, source)).breaches;
        assert!(breaches(Some(REGISTRY)).is_empty());
        assert_eq!(breaches(Some("git+https://example.com/a")).len(), 1);
        assert_eq!(breaches(None).len(), 1);
    }

    #[test]
    fn the_list_is_read_without_comments() {
        let names = allowed(DENY).unwrap();
        assert_eq!(names, ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
    }
}
