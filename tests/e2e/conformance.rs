//! The conformance projection, by the binary.

use std::process::Command;

use lantern_tests::{guest, root};

/// Folds every event file of `sdk/conformance` in batches of several sizes, and with
/// instances dropped, and compares the bytes of all rows with an independent computation.
#[test]
fn the_conformance_projection_gives_the_same_bytes_however_it_is_folded() {
    let suite = root().join("sdk/conformance");
    let expect = Command::new("python3").arg(suite.join("expect.py")).arg("--check").output();
    let expect = expect.unwrap();
    assert!(expect.status.success(), "{}", String::from_utf8_lossy(&expect.stderr));
    let check = Command::new("python3")
        .arg(suite.join("check.py"))
        .arg(guest("conformance"))
        .arg("--lantern")
        .arg(lantern_tests::lantern())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{printed}{}", String::from_utf8_lossy(&check.stderr));
    assert!(printed.contains("15 of 15 files as expected"), "{printed}");
}
