//! Runs programs of other projects against Lantern: the official SDKs of CloudEvents, schemathesis,
//! promtool. They test whether Lantern follows the standards.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use lantern_tests::{Server, guest, root, without};

use crate::{finish, line};

/// Returns the folder that contains the sources of these programs.
fn sources(folder: &str) -> PathBuf {
    root().join("tests/standards").join(folder)
}

/// Returns the folder in which the packages of these programs are installed.
fn installed(folder: &str) -> PathBuf {
    root().join("target/standards").join(folder)
}

/// Allows only one installation at a time, because tests run in parallel.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs the packages in `manifest` below `folder`, unless the same manifest was
/// installed before.
fn install(folder: &Path, manifest: &Path, install: impl FnOnce()) {
    let _one = INSTALLING.lock().unwrap();
    let (wanted, stamp) = (std::fs::read(manifest).unwrap(), folder.join("installed"));
    if std::fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return;
    }
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).unwrap();
    install();
    std::fs::write(stamp, wanted).unwrap();
}

/// Returns the folder in which the Python programs are installed.
fn python() -> PathBuf {
    let (folder, wanted) = (installed("python"), sources("python").join("requirements.txt"));
    install(&folder, &wanted, || {
        finish(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let mut pip = Command::new(folder.join("bin/pip"));
        finish(pip.args(["install", "--quiet", "--requirement"]).arg(&wanted));
    });
    folder.join("bin")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_python_sends_and_reads_every_mode() {
    if without("python3") {
        return;
    }
    let server = Server::start(&[]).unwrap();
    let mut sdk = Command::new(python().join("python"));
    let out = finish(sdk.arg(sources("python").join("sdk.py")).arg(&server.url));
    assert_eq!(out, "9 events\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_javascript_sends_and_reads_every_mode() {
    if without("node") || without("npm") {
        return;
    }
    let (from, folder) = (sources("js"), installed("js"));
    install(&folder, &from.join("package-lock.json"), || {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        finish(Command::new("npm").args(["ci", "--silent"]).current_dir(&folder));
    });
    std::fs::copy(from.join("sdk.js"), folder.join("sdk.js")).unwrap();
    let server = Server::start(&[]).unwrap();
    let out = finish(Command::new("node").arg(folder.join("sdk.js")).arg(&server.url));
    assert_eq!(out, "9 events\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_go_sends_and_reads_every_mode() {
    if without("go") {
        return;
    }
    let server = Server::start(&[]).unwrap();
    let mut go = Command::new("go");
    let out = finish(go.args(["run", "."]).arg(&server.url).current_dir(sources("go")));
    assert_eq!(out, "9 events\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    if without("promtool") {
        return;
    }
    let server = Server::start(&[]).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    server.events(line(0, "probe.sent", "s", "{}")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let metrics = server.text("/metrics").await.unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_what_its_description_says() {
    if without("python3") {
        return;
    }
    // The description of the API is the same over any log.
    let server = Server::start_over(None, &[]).unwrap();
    server.project("revenue", &guest("revenue"), "{}").await.unwrap();
    let order = r#"{"product":"p1","cents":340}"#;
    server.events(line(0, "order.placed", "s", order)).await.unwrap();
    server.caught_up("revenue").await.unwrap();
    let mut schemathesis = Command::new(python().join("schemathesis"));
    schemathesis.arg("--config-file").arg(sources("python").join("schemathesis.toml"));
    schemathesis.args(["run", &format!("{}/v1/openapi.json", server.url)]);
    // The program stores its findings in the folder in which it runs.
    schemathesis.current_dir(installed("python")).env("NO_COLOR", "1");
    finish(&mut schemathesis);
}
