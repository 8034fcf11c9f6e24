//! Lists the packages of the workspace and its dependencies, as `cargo metadata` lists them.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell;

/// A dependency that the manifest of a package declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The name of the package that is needed.
    pub(crate) name: String,
    /// Whether only tests and benchmarks need the dependency.
    pub(crate) dev: bool,
}

/// A package: a member of the workspace, or an external one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The package's folder in the repository, with `/` as separator; empty for external packages.
    pub(crate) folder: String,
    pub(crate) member: bool,
    /// Whether the package builds a `cdylib`, as guests do.
    pub(crate) cdylib: bool,
    /// The licence in the package's manifest, an SPDX expression.
    pub(crate) license: Option<String>,
    /// The registry or repository from which the package comes. `None` for a package in a local
    /// folder.
    pub(crate) source: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// All packages: the members of the workspace and their dependencies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Reads the output of `cargo metadata`.
    pub(crate) fn load() -> Result<Self> {
        let text = shell::output(&mut shell::cargo(["metadata", "--format-version", "1"]))?;
        let root = shell::root();
        Self::parse(&text, &root.to_string_lossy()).context("cargo's metadata is not as expected")
    }

    /// Returns the members of the workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.member)
    }

    fn parse(text: &str, root: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let list = |name: &str| json[name].as_array().context("a list is missing");
        let members = list("workspace_members")?;
        let package = |json: &Value| package(json, members.contains(&json["id"]), root);
        Ok(Self {
            packages: list("packages")?
                .iter()
                .map(package)
                .collect::<Option<_>>()
                .context("a package")?,
        })
    }
}

fn package(json: &Value, member: bool, root: &str) -> Option<Package> {
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let manifest = text("manifest_path")?.replace('\\', "/");
    let folder = manifest.strip_prefix(root).and_then(|path| path.strip_suffix("Cargo.toml"));
    let targets = json["targets"].as_array()?;
    let kinds = targets.iter().filter_map(|target| target["kind"].as_array()).flatten();
    let dependencies = json["dependencies"].as_array()?.iter().map(|json| {
        Some(Dependency {
            name: json["name"].as_str()?.to_owned(),
            dev: json["kind"].as_str() == Some("dev"),
        })
    });
    Some(Package {
        name: text("name")?,
        version: text("version")?,
        folder: folder.filter(|_| member).unwrap_or_default().trim_matches('/').to_owned(),
        member,
        cdylib: kinds.filter_map(Value::as_str).any(|kind| kind == "cdylib"),
        license: text("license"),
        source: text("source"),
        dependencies: dependencies.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn members_are_distinguished_from_external_packages() {
        let json = r#"{"workspace_members":["a"],"packages":[
            {"id":"a","name":"revenue","version":"0.1.0","manifest_path":"/r/plugins/revenue/Cargo.toml",
             "license":"Apache-2.0","source":null,"targets":[{"kind":["cdylib","rlib"]}],
             "dependencies":[{"name":"serde","kind":null},{"name":"proptest","kind":"dev"}]},
            {"id":"b","name":"serde","version":"1.0.0","manifest_path":"/elsewhere/serde/Cargo.toml",
             "license":"MIT","source":"registry+x","targets":[{"kind":["lib"]}],"dependencies":[]}]}"#;
        let workspace = Workspace::parse(json, "/r").unwrap();
        let revenue = workspace.members().next().unwrap();
        assert_eq!(workspace.members().count(), 1);
        assert_eq!(revenue.folder, "plugins/revenue");
        assert!(revenue.cdylib);
        assert_eq!(revenue.dependencies.iter().filter(|d| d.dev).count(), 1);
        assert_eq!(workspace.packages[1].source.as_deref(), Some("registry+x"));
    }
}
