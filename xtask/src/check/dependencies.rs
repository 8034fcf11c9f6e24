//! Checks the rules for dependencies: which crate may depend on which other crate of the workspace,
//! and on which external packages.

use super::{Findings, Repository};
use crate::metadata::{Dependency, Package};

/// The crate of the sketches, which the SDK and the host share. It depends on no crate
/// of the workspace.
const SKETCH: &str = "lantern-sketch";

/// The crate of the host's wire types. Clients may depend on it, so it depends on no
/// crate of the workspace.
const API: &str = "lantern-api";

/// The crate that the log and the store share. It contains how they use redb files.
const REDB_FILE: &str = "lantern-redb-file";

/// The host's crates, each with the crates of the workspace that it may depend on.
const STAR: [(&str, &[&str]); 14] = [
    (API, &[]),
    ("lantern-core", &[SKETCH]),
    ("lantern-cloudevents", &["lantern-core"]),
    ("lantern-kafka", &["lantern-core", "lantern-cloudevents"]),
    ("lantern-engine", &["lantern-core"]),
    (REDB_FILE, &[]),
    ("lantern-log", &["lantern-core", REDB_FILE]),
    ("lantern-plugin", &["lantern-core"]),
    ("lantern-store", &["lantern-core", REDB_FILE]),
    ("lantern-live", &[API, "lantern-core"]),
    ("lantern-query", &["lantern-core", SKETCH]),
    ("lantern-traces", &["lantern-core"]),
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
            "lantern-query",
            "lantern-traces",
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
            "lantern-query",
            "lantern-server",
            "lantern-client",
        ],
    ),
];

/// Checks that the host's crates form a star around `core`; this includes the dependencies of their
/// tests. Packages outside of the host (SDK, clients, plugins, xtask) depend on no crate of the
/// host. There are two exceptions: clients may depend on the wire types, and tests may depend on
/// any crate of the host.
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
    // A crate may depend on itself, to enable its own features in its tests.
    if *name == package.name {
        return true;
    }
    if package.name == SKETCH {
        return false;
    }
    let of_host = allowed(name).is_some();
    match (allowed(&package.name), package.folder.split('/').next()) {
        (Some(others), _) => others.contains(&name.as_str()),
        // End-to-end tests and benchmarks may depend on every crate.
        (None, Some("tests" | "bench")) => true,
        (None, Some("clients")) => *dev || !of_host || name == API,
        (None, _) => *dev || !of_host,
    }
}

/// A rule for a large dependency: the only crates that may depend on it, and the reason.
struct RestrictedDependency {
    /// The text with which the name of the package begins.
    prefix: &'static str,
    crates: &'static [&'static str],
    why: &'static str,
    /// Whether tests of all crates may depend on the package, because they use it as the
    /// other side of a connection.
    tests_free: bool,
}

const FENCED: [RestrictedDependency; 9] = [
    fenced("wasmtime", &["lantern-plugin"], "plugins are a port"),
    fenced("wit-component", &["lantern-plugin"], "plugins are a port"),
    fenced("redb", &["lantern-store", "lantern-log", REDB_FILE], "storage is a port"),
    fenced("rdkafka", &["lantern-kafka", "lantern-bench"], "the log is a port"),
    RestrictedDependency {
        tests_free: true,
        ..fenced("tungstenite", &["lantern-live", "lantern-client"], "the feed is theirs")
    },
    RestrictedDependency {
        tests_free: true,
        ..fenced("tokio-tungstenite", &["lantern-live", "lantern-client"], "the feed is theirs")
    },
    RestrictedDependency {
        tests_free: true,
        ..fenced("axum", &["lantern-server"], "HTTP is the server's")
    },
    fenced("opentelemetry", &["lantern-traces", "lantern-tests"], "traces are a port"),
    fenced("wit-bindgen", &["lantern-sdk"], "guests speak through the SDK"),
];

const fn fenced(
    prefix: &'static str,
    crates: &'static [&'static str],
    why: &'static str,
) -> RestrictedDependency {
    RestrictedDependency { prefix, crates, why, tests_free: false }
}

/// Packages for I/O, clocks and randomness, on which `core` and `engine` must not
/// depend.
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

/// Checks that only the crates in [`FENCED`] depend on the large packages: for instance only
/// `plugin` on wasmtime, only `store` and `log` on redb, and only `live` and the client on the
/// WebSocket library. `core` and `engine` must depend on no package in [`OUTSIDE`]. The same holds
/// for the tests of each crate, except that they may use the WebSocket library. End-to-end tests
/// may depend on every package.
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

    /// Creates a repository that contains one package with one dependency.
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
        assert_eq!(breaches("host/store", "lantern-store", "lantern-redb-file"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-redb-file"), 1);
        assert_eq!(breaches("host/redb-file", "lantern-redb-file", "lantern-core"), 1);
        assert_eq!(breaches("host/core", "lantern-core", "lantern-engine"), 1);
        assert_eq!(breaches("host/server", "lantern-server", "lantern-cli"), 1);
        assert_eq!(breaches("host/live", "lantern-live", "lantern-api"), 0);
        assert_eq!(breaches("host/engine", "lantern-engine", "lantern-api"), 1);
        assert_eq!(breaches("host/query", "lantern-query", "lantern-sketch"), 0);
        assert_eq!(breaches("host/query", "lantern-query", "lantern-live"), 1);
        assert_eq!(breaches("host/live", "lantern-live", "lantern-query"), 1);
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
