//! Tests the packages of `cargo xtask dist`, installed on a machine without toolchains. The module
//! `languages` tests the packages of the SDKs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lantern_tests::without;
use serde_json::{Value, json};

use crate::browser::{Browser, no_page};
use crate::{finish, line};

/// The maximum time from the first command to a table that shows new rows.
const LIVE: Duration = Duration::from_secs(60);

/// Returns the folder of the packages, which `cargo xtask test` has written.
fn dist() -> PathBuf {
    std::env::var_os("LANTERN_DIST").expect("`cargo xtask test` sets LANTERN_DIST").into()
}

/// Returns the package with the binary whose name ends in `ending`.
fn package(ending: &str) -> PathBuf {
    only(&dist(), "lantern", ending)
}

/// Returns the package of an SDK whose name has this start and this ending.
pub(crate) fn sdk_package(start: &str, ending: &str) -> PathBuf {
    only(&dist().join("sdk"), start, ending)
}

fn only(folder: &Path, start: &str, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start) && name.ends_with(ending)
    };
    let mut found: Vec<_> = entries.filter(named).collect();
    assert_eq!(found.len(), 1, "{start}…{ending}: {found:?}");
    found.remove(0)
}

/// Prepares a call of `lantern` whose environment contains nothing except the program itself and a
/// home folder.
fn bare(lantern: &Path, home: &Path) -> Command {
    let mut command = Command::new(lantern);
    command.env_clear().env("PATH", lantern.parent().unwrap()).env("HOME", home);
    command.current_dir(home);
    command
}

/// Folds events with a declaration, for which the program must find its interpreter.
fn folds(lantern: &Path) {
    let home = tempfile::tempdir().unwrap();
    let declaration = "name: totals\nfrom: order.placed\ntables:\n  by_product:\n    key: [data.product]\n    columns:\n      orders: count()\n";
    std::fs::write(home.path().join("totals.yaml"), declaration).unwrap();
    let events: String =
        (0..3).map(|id| line(id, "order.placed", "u", r#"{"product":"p1"}"#)).collect();
    std::fs::write(home.path().join("events.ndjson"), events).unwrap();
    let mut test = bare(lantern, home.path());
    let out = finish(test.args(["test", "events.ndjson", "totals.yaml", "--json"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["tables"]["by_product"], json!({"p1": {"orders": 3}}));
}

fn installed_by_pip(folder: &Path) -> PathBuf {
    finish(Command::new("python3").args(["-m", "venv"]).arg(folder));
    let mut pip = Command::new(folder.join("bin/pip"));
    finish(pip.args(["install", "--quiet", "--no-index"]).arg(package(".whl")));
    folder.join("bin/lantern")
}

#[test]
fn the_wheel_gives_lantern_with_its_interpreters() {
    if without("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    folds(&installed_by_pip(&dir.path().join("venv")));
}

#[test]
fn the_npm_package_gives_lantern_with_its_interpreters() {
    if without("npm") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--offline", "--prefix"]).arg(dir.path());
    finish(npm.arg(package(".tgz")));
    folds(&dir.path().join("node_modules/.bin/lantern"));
}

#[test]
fn the_archive_and_the_debian_package_give_lantern_with_its_interpreters() {
    if without("python3") || without("npm") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    finish(Command::new("tar").arg("-xzf").arg(package(".tar.gz")).arg("-C").arg(dir.path()));
    let unpacked = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    folds(&unpacked.join("lantern"));
    finish(Command::new("dpkg-deb").arg("-x").arg(package(".deb")).arg(dir.path().join("root")));
    folds(&dir.path().join("root/usr/bin/lantern"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_lead_to_a_moving_table_in_the_browser_within_a_minute() {
    if no_page() || without("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lantern = installed_by_pip(&dir.path().join("venv"));
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let start = Instant::now();
    finish(bare(&lantern, &home).args(["new", "totals"]));
    let mut dev = bare(&lantern, &home)
        .args(["dev", "totals", "--shop", "20/s", "--listen", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(dev.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).unwrap();
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    let listening: Value = serde_json::from_str(&first).unwrap();
    let browser = Browser::open(listening["listening"].as_str().unwrap()).await;
    browser.click(".list .tables a").await;
    let before = browser.shows("page.viewed").await;
    loop {
        let now = browser.shows("page.viewed").await;
        if now != before {
            break;
        }
        assert!(start.elapsed() < LIVE, "the table does not move: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = start.elapsed();
    println!("from the first command to a moving table: {:.1} s", took.as_secs_f64());
    drop(dev.kill());
    drop(dev.wait());
    assert!(took < LIVE, "it took {took:?}");
}
