//! Who may depend on whom, and on what.

use super::{Findings, Repository};
use crate::metadata::{Dependency, Package};

/// The algorithms that SDK and host must share. It names no crate of ours.
const SKETCH: &str = "lantern-sketch";

/// The wire types of the host. Clients may name it, so it names no crate of ours.
const API: &str = "lantern-api";

/// The host's crates and those of their own that each may name.
const STAR: [(&str, &[&str]); 11] = [
    (API, &[]),
    ("lantern-core", &[SKETCH]),
    ("lantern-cloudevents", &["lantern-core"]),
    ("lantern-kafka", &["lantern-core", "lantern-cloudevents"]),
    ("lantern-engine", &["lantern-core"]),
    ("lantern-log", &["lantern-core"]),
    ("lantern-plugin", &["lantern-core"]),
    ("lantern-store", &["lantern-core"]),
    ("lantern-live", &[API, "lantern-core"]),
    (
        "lantern-server",
        &[
            API,
            "lantern-core",
            "lantern-cloudevents",
            "lantern-kafka",
            "lantern-engine",
            "lantern-log",
            "lantern-plugin",
            "lantern-store",
            "lantern-live",
        ],
    ),
    (
        "lantern-cli",
        &[
            API,
            "lantern-core",
            "lantern-cloudevents",
            "lantern-kafka",
            "lantern-engine",
            "lantern-log",
            "lantern-plugin",
            "lantern-store",
            "lantern-live",
            "lantern-server",
            "lantern-client",
        ],
    ),
];

/// The host's crates form a star around `core`, also in their tests; what is
/// outside of the host (SDK, clients, plugins, xtask) names none of them, except that
/// clients name the wire types, and that tests use the real thing.
pub(super) fn dependencies_form_a_star(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for package in repository.workspace.members() {
        let own = package.dependencies.iter().filter(|d| d.name.starts_with("lantern-"));
        for dependency in own {
            if !edge_allowed(package, dependency) {
                findings.breach(format!(
                    "{}: `{}` must not depend on `{}`",
                    package.folder, package.name, dependency.name
                ));
            }
        }
        if package.folder.starts_with("host/") && allowed(&package.name).is_none() {
            findings.breach(format!("{}: a crate of the host that is in no plan", package.folder));
        }
    }
    findings
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    STAR.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, others)| *others)
}

fn edge_allowed(package: &Package, dependency: &Dependency) -> bool {
    let Dependency { name, dev } = dependency;
    // A crate may name itself, to turn on its own features in its tests.
    if *name == package.name {
        return true;
    }
    if package.name == SKETCH {
        return false;
    }
    let of_host = allowed(name).is_some();
    match (allowed(&package.name), package.folder.split('/').next()) {
        (Some(others), _) => others.contains(&name.as_str()),
        // End-to-end tests and benchmarks may look at everything.
        (None, Some("tests" | "bench")) => true,
        (None, Some("clients")) => *dev || !of_host || name == API,
        (None, _) => *dev || !of_host,
    }
}

/// What a large dependency is called, where it may be named, and why only there.
struct RestrictedDependency {
    /// The package's name begins with this.
    prefix: &'static str,
    crates: &'static [&'static str],
    why: &'static str,
    /// Whether tests of other crates may have it, to play the other side.
    tests_free: bool,
}

const FENCED: [RestrictedDependency; 8] = [
    fenced("wasmtime", &["lantern-plugin"], "plugins are a port"),
    fenced("wit-component", &["lantern-plugin"], "plugins are a port"),
    fenced("redb", &["lantern-store", "lantern-log"], "storage is a port"),
    fenced("rdkafka", &["lantern-kafka", "lantern-bench"], "the log is a port"),
    RestrictedDependency {
        tests_free: true,
        ..fenced("tungstenite", &["lantern-live", "lantern-client"], "the feed is theirs")
    },
    RestrictedDependency {
        tests_free: true,
        ..fenced("tokio-tungstenite", &["lantern-live", "lantern-client"], "the feed is theirs")
    },
    fenced("axum", &["lantern-server"], "HTTP is the server's"),
    fenced("wit-bindgen", &["lantern-sdk"], "guests speak through the SDK"),
];

const fn fenced(
    prefix: &'static str,
    crates: &'static [&'static str],
    why: &'static str,
) -> RestrictedDependency {
    RestrictedDependency { prefix, crates, why, tests_free: false }
}

/// Dependencies that `core` and `engine` must not have, since they reach outside.
const OUTSIDE: [&str; 12] = [
    "tokio",
    "mio",
    "rustix",
    "libc",
    "nix",
    "jiff",
    "chrono",
    "time",
    "rand",
    "fastrand",
    "getrandom",
    "tempfile",
];

/// Only `plugin` names wasmtime, only `store` and `log` redb, only `live` and
/// the client the WebSocket library; `core` and `engine` name nothing that
/// reaches outside. The tests of the crates are bound like the crates, but
/// for the other side of a WebSocket; end-to-end tests are free.
pub(super) fn big_dependencies_stay_in_their_crates(repository: &Repository) -> Findings {
    let mut findings = Findings::default();
    for package in repository.workspace.members() {
        if package.folder == "tests" || package.folder.starts_with("tests/") {
            continue;
        }
        for dependency in &package.dependencies {
            let name = &dependency.name;
            let fence = FENCED.iter().find(|f| name.starts_with(f.prefix));
            if let Some(fence) = fence
                && !(fence.tests_free && dependency.dev)
                && !fence.crates.contains(&package.name.as_str())
            {
                findings.breach(format!(
                    "{}: `{name}` belongs to {} alone: {}",
                    package.folder,
                    fence.crates.join(" and "),
                    fence.why
                ));
            }
            let pure = matches!(package.name.as_str(), "lantern-core" | "lantern-engine");
            if pure && !dependency.dev && OUTSIDE.contains(&name.as_str()) {
                findings.breach(format!("{}: `{name}` reaches outside", package.folder));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    /// A repository of one package with one dependency.
    fn one(folder: &str, name: &str, dependency: &str, dev: bool) -> Repository {
        let package = Package {
            name: name.into(),
            folder: folder.into(),
            member: true,
            dependencies: vec![Dependency { name: dependency.into(), dev }],
            ..Package::default()
        };
        Repository::of(Workspace { packages: vec![package] }, &[])
    }

    #[test]
    fn an_edge_off_the_star_is_a_breach() {
        let breaches = |folder, name, dependency| {
            dependencies_form_a_star(&one(folder, name, dependency, false)).breaches.len()
        };
        let in_tests = |folder, name, dependency| {
            dependencies_form_a_star(&one(folder, name, dependency, true)).breaches.len()
        };
        assert_eq!(in_tests("host/live", "lantern-live", "lantern-store"), 1);
        assert_eq!(in_tests("clients/rust", "lantern-client", "lantern-live"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-core"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-store"), 1);
        assert_eq!(breaches("host/core", "lantern-core", "lantern-engine"), 1);
        assert_eq!(breaches("host/server", "lantern-server", "lantern-cli"), 1);
        assert_eq!(breaches("host/live", "lantern-live", "lantern-api"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-api"), 1);
        assert_eq!(breaches("host/api", "lantern-api", "lantern-core"), 1);
        assert_eq!(breaches("clients/rust", "lantern-client", "lantern-api"), 0);
        assert_eq!(breaches("clients/rust", "lantern-client", "lantern-live"), 1);
        assert_eq!(breaches("sdk/rust", "lantern-sdk", "lantern-api"), 1);
        assert_eq!(breaches("sdk/rust", "lantern-sdk", "lantern-core"), 1);
        assert_eq!(breaches("sdk/rust", "lantern-sdk", "lantern-sdk-macros"), 0);
        assert_eq!(breaches("sdk/rust", "lantern-sdk", "lantern-sketch"), 0);
        assert_eq!(breaches("host/core", "lantern-core", "lantern-sketch"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-sketch"), 1);
        assert_eq!(breaches("sdk/sketch", "lantern-sketch", "lantern-sdk"), 1);
        assert_eq!(breaches("xtask", "xtask", "lantern-cli"), 1);
        assert_eq!(breaches("tests", "lantern-tests", "lantern-engine"), 0);
        assert_eq!(breaches("host/extra", "lantern-extra", "serde"), 1);
    }

    #[test]
    fn a_large_dependency_in_another_crate_is_a_breach() {
        let breaches = |folder, name, dependency, dev| {
            let found = big_dependencies_stay_in_their_crates(&one(folder, name, dependency, dev));
            found.breaches.len()
        };
        assert_eq!(breaches("host/plugin", "lantern-plugin", "wasmtime-wasi", false), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "wasmtime", true), 1);
        assert_eq!(breaches("host/server", "lantern-server", "redb", false), 1);
        assert_eq!(breaches("host/server", "lantern-server", "tokio-tungstenite", false), 1);
        assert_eq!(breaches("host/server", "lantern-server", "tokio-tungstenite", true), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "tokio", false), 1);
        assert_eq!(breaches("host/engine", "lantern-engine", "fastrand", true), 0);
        assert_eq!(breaches("tests", "lantern-tests", "tokio-tungstenite", false), 0);
    }
}
