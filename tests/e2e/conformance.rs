//! Tests the conformance projection of each language with the command line.

use std::path::Path;
use std::process::Command;

use lantern_tests::{go, go_component, guest, lantern, root, with_interpreters, without};

use crate::finish;

/// Folds every event file of `sdk/conformance` in batches of several sizes, and with
/// instances dropped, and compares the bytes of all rows with an independent computation.
fn check(plugin: &Path, options: &[&str]) {
    let mut check = with_interpreters("python3".as_ref());
    check.arg(root().join("sdk/conformance/check.py")).arg(plugin).args(options);
    let printed = finish(check.arg("--lantern").arg(lantern()));
    assert!(printed.contains("15 of 15 files as expected"), "{printed}");
}

#[test]
fn the_conformance_projection_gives_the_same_bytes_however_it_is_folded() {
    let suite = root().join("sdk/conformance");
    finish(Command::new("python3").arg(suite.join("expect.py")).arg("--check"));
    check(&guest("conformance"), &[]);
}

#[test]
fn the_conformance_projection_in_python_gives_the_same_bytes() {
    if without("python3") {
        return;
    }
    check(&root().join("sdk/conformance/python/conformance.py"), &[]);
}

#[test]
fn the_conformance_projection_in_javascript_gives_the_same_bytes() {
    if without("npm") {
        return;
    }
    // A fresh instance reads the script again, and the determinism check drops many.
    let options = ["--checked-events-max", "310"];
    check(&root().join("sdk/conformance/js/conformance.js"), &options);
}

#[test]
fn the_conformance_projection_in_go_gives_the_same_bytes_natively_and_in_the_host() {
    if without("go") || without("python3") {
        return;
    }
    for folder in ["sdk/go", "sdk/conformance/go"] {
        finish(go().args(["test", "./..."]).current_dir(root().join(folder)));
    }
    let dir = tempfile::tempdir().unwrap();
    let component = go_component("sdk/conformance/go", dir.path()).unwrap();
    check(&component, &["--checked-events-max", "1000"]);
}
