//! Checks the licences and the origin of external packages against the lists in `deny.toml`. This
//! works without cargo-deny, which CI does not install because building it takes minutes.

use super::{Findings, Repository};
use crate::metadata::Package;

/// The file that contains the list of allowed licences.
const FILE: &str = "deny.toml";
/// The name of the registry crates.io in cargo's metadata.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks that every external package comes from crates.io, and that `deny.toml` allows its
/// licences.
pub(super) fn packages_are_allowed(repository: &Repository) -> Findings {
    let names = repository.texts.get(FILE).map(|text| allowed(text)).unwrap_or_default();
    let outside = repository.workspace.packages.iter().filter(|package| !package.member);
    let wrong = outside.filter_map(|Package { name, version, license, source, .. }| {
        let license = license.as_deref().unwrap_or_default();
        if source.as_deref() != Some(REGISTRY) {
            Some(format!("{name} {version}: does not come from crates.io, but {source:?}"))
        } else if !holds(&license.replace('/', " OR "), &names) {
            Some(format!("{name} {version}: the licence `{license}` is not in {FILE}"))
        } else {
            None
        }
    });
    wrong.collect()
}

/// Reads the licences in the list `allow` of the section `[licenses]`.
fn allowed(toml: &str) -> Vec<&str> {
    let section = toml.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split("allow = [").nth(1).and_then(|list| list.split(']').next());
    let lines = list.unwrap_or_default().lines().filter_map(|line| line.split('#').next());
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

/// Returns whether the allowed licences satisfy an SPDX expression.
fn holds(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.trim();
    if let Some((left, right)) = split(expression, " OR ") {
        return holds(left, allowed) || holds(right, allowed);
    }
    if let Some((left, right)) = split(expression, " AND ") {
        return holds(left, allowed) && holds(right, allowed);
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inside) => holds(inside, allowed),
        None => allowed.contains(&expression),
    }
}

/// Splits an expression at the first `operator` outside of parentheses.
fn split<'a>(expression: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let mut sides = expression.match_indices(operator);
    let outside = |text: &str| text.matches('(').count() == text.matches(')').count();
    let (at, _) = sides.find(|(at, _)| outside(&expression[..*at]))?;
    Some((&expression[..at], &expression[at + operator.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    const DENY: &str = "[licenses]\nallow = [\n  \"MIT\", # \"X\"\n  \"Apache-2.0\",\n  \
                        \"Apache-2.0 WITH LLVM-exception\",\n]\n[bans]\nallow = [\"x\"]\n";

    fn breaches(license: Option<&str>, source: Option<&str>) -> usize {
        let text = |text: &str| text.to_owned();
        let (license, source) = (license.map(text), source.map(text));
        let package = Package { name: "a".into(), license, source, ..Package::default() };
        let workspace = Workspace { packages: vec![package] };
        packages_are_allowed(&Repository::of(workspace, &[("deny.toml", DENY)])).breaches.len()
    }

    #[test]
    fn a_licence_off_the_list_is_a_breach() {
        for license in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR (MIT AND Apache-2.0)",
            "(GPL-3.0 OR MIT) AND (MIT OR X)",
            "Unlicense/MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(breaches(Some(license), Some(REGISTRY)), 0, "{license}");
        }
        for license in
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND X", "x", "MIT MIT", "", "X"]
        {
            assert_eq!(breaches(Some(license), Some(REGISTRY)), 1, "{license}");
        }
        assert_eq!(breaches(None, Some(REGISTRY)), 1);
    }

    #[test]
    fn a_package_from_elsewhere_is_a_breach() {
        assert_eq!(breaches(Some("MIT"), Some("git+https://example.com/a")), 1);
        assert_eq!(breaches(Some("MIT"), None), 1);
    }
}
