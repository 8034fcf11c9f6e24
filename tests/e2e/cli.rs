//! Tests the steps of the README: create, build, test, push and watch a plugin.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use lantern_tests::{Server, guest, lantern, root, run};
use serde_json::Value;

use crate::line;

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{arguments:?}: {e}: {}", String::from_utf8_lossy(&output.stdout))
    })
}

fn cargo(dir: &Path, arguments: &[&str]) {
    // The template's build gets the lock file of the workspace. So it needs the same versions of
    // packages as the workspace, and downloads nothing. The template uses no other file of the
    // workspace.
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", root().join("target/new"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Creates a plugin from the template, tests and builds it. Returns the paths of its component and
/// of its sample events. The folder stays until the process ends.
pub(crate) fn template() -> (PathBuf, PathBuf) {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (folder, wasm) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("order-counts");
        let sdk = root().join("sdk/rust");
        let words =
            ["new", "order-counts", "--lang", "rust", "--dir", dir.to_str().unwrap(), "--sdk"];
        let output = run(&[&words[..], &[sdk.to_str().unwrap()]].concat()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cargo(&dir, &["test"]);
        cargo(&dir, &["build", "--release", "--target", "wasm32-unknown-unknown"]);
        let wasm = root().join("target/new/wasm32-unknown-unknown/release/order_counts.wasm");
        (folder, wasm)
    });
    (wasm.clone(), folder.path().join("order-counts/events.ndjson"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_created_by_new_is_built_tested_pushed_and_served_live() {
    let (wasm, events) = template();
    let wasm = wasm.to_str().unwrap();
    let output = run(&["test", events.to_str().unwrap(), wasm]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("by_type"), "{text}");

    let server = Server::start(&[]).unwrap();
    let at = ["--server", server.url.as_str(), "--json"];
    let pushed = run(&[&["plugin", "push", wasm, "--wait"], at.as_slice()].concat()).unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let mut watch = Command::new(lantern())
        .args(["table", "watch", "order-counts/by_type"])
        .args(at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = watch.stdout.take().unwrap();
    let (send, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            drop(send.send(line.unwrap()));
        }
    });
    // The first line shows the rows that exist now. Then an event creates another row.
    seen.recv_timeout(lantern_tests::PATIENCE).unwrap();
    server.events(line(1, "order.placed", "u1", "{}")).await.unwrap();
    loop {
        let line = seen.recv_timeout(lantern_tests::PATIENCE).unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if line.contains("order.placed") {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_json_and_ends_with_its_exit_code() {
    let server = Server::start(&[]).unwrap();
    let at = ["--server", server.url.as_str(), "--json"];
    let with = |words: &[&'static str]| -> Vec<String> {
        words.iter().chain(&at).map(|word| (*word).to_owned()).collect()
    };
    let parsed = |words: &[&'static str]| {
        let all = with(words);
        json(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let code = |words: &[&str]| {
        let all: Vec<&str> = words.iter().copied().chain(at).collect();
        run(&all).unwrap().status.code().unwrap()
    };
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    let lines = format!(
        "{}{}",
        line(1, "probe.sent", "s", "{}"),
        line(2, "probe.sent", "s", r#"{"do":"fail"}"#)
    );
    server.events(lines).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    assert!(parsed(&["plugin", "list"]).to_string().contains("rogue"));
    assert!(parsed(&["plugin", "status", "rogue"]).to_string().contains("active"));
    assert!(parsed(&["parked", "list", "rogue"]).to_string().contains("told to fail"));
    assert!(parsed(&["table", "get", "rogue/seen", "s"]).to_string().contains("events"));
    assert_eq!(code(&["parked", "retry", "rogue", "--all"]), 1);
    assert_eq!(code(&["parked", "drop", "rogue", "--all", "--yes"]), 0);
    assert_eq!(code(&["plugin", "status", "absent"]), 4);
    assert_eq!(code(&["plugin", "push", root().join("README.md").to_str().unwrap()]), 5);
    assert_eq!(code(&["plugin", "fly"]), 2);
    let unreachable = run(&["plugin", "list", "--server", "http://127.0.0.1:1"]).unwrap();
    assert_eq!(unreachable.status.code(), Some(3));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).unwrap().stdout.len() > 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_made_imported_and_read_back_from_the_command_line() {
    let server = Server::start(&[]).unwrap();
    let at = ["--server", server.url.as_str(), "--json"];
    let with = |words: &[&str]| run(&[words, at.as_slice()].concat()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.ndjson.zst");
    let file = file.to_str().unwrap();
    let made = run(&["events", "generate", "--events", "2500", "--to", file]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let first = json(&[&["events", "import", file], at.as_slice()].concat());
    assert_eq!((&first["appended"], &first["duplicates"]), (&2_500.into(), &0.into()), "{first}");
    let again = json(&[&["events", "import", file], at.as_slice()].concat());
    assert_eq!((&again["appended"], &again["duplicates"]), (&0.into(), &2_500.into()), "{again}");
    // The output must contain the events of the input, in order.
    let tail = with(&["events", "tail", "--from", "start", "--no-follow"]);
    let lines = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let (lines, tail) =
        (String::from_utf8(lines).unwrap(), String::from_utf8(tail.stdout).unwrap());
    assert_eq!(tail.lines().count(), 2_500);
    for (offset, (sent, logged)) in lines.lines().zip(tail.lines()).enumerate() {
        let (sent, logged): (Value, Value) =
            (serde_json::from_str(sent).unwrap(), serde_json::from_str(logged).unwrap());
        assert_eq!(logged["offset"], offset);
        for name in ["id", "type", "subject", "tenant", "data"] {
            assert_eq!(logged["event"][name], sent[name], "{name} at {offset}");
        }
    }
    // The error must name the invalid line by its number in the file, and no event of the same
    // request may be appended.
    let bad = folder.path().join("bad.ndjson");
    let text = format!("{}{{\"id\":1}}\n", line("good", "a.b", "s", "{}"));
    std::fs::write(&bad, text).unwrap();
    let refused = with(&["events", "import", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(5));
    let said: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert!(said["error"]["message"].as_str().unwrap().contains("line 2"), "{said}");
    assert_eq!(said["error"]["exit"], 5);
    assert_eq!(server.log().await.unwrap().len(), 2_500);
}

#[test]
fn test_folds_a_file_as_a_server_would_and_fails_where_an_event_is_parked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.ndjson");
    let data = |n| match n {
        1 => r#"{"do":"fail"}"#,
        2 => r#"{"do":"emit"}"#,
        _ => "{}",
    };
    let lines: String = (0..30).map(|n| line(n, "probe.sent", "s", data(n))).collect();
    std::fs::write(&file, lines).unwrap();
    let (file, rogue) = (file.to_str().unwrap(), guest("rogue"));
    let words = ["test", file, rogue.to_str().unwrap(), "--json"];
    let output = run(&words).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let folded: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(folded["tables"]["seen"]["s"]["events"], 29);
    assert_eq!(folded["parked"][0]["id"], "1");
    assert_eq!(folded["emitted"][0]["type"], "echo.sent");
    assert_eq!(json(&[words.as_slice(), &["--allow-parked"]].concat()), folded);
    let cheat = [words.as_slice(), &["--allow-parked", "--parameters", r#"{"cheat_from":0}"#]];
    let output = run(&cheat.concat()).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LAN-0208"));
}

#[test]
fn test_finds_a_plugin_that_is_honest_for_ten_thousand_events_and_then_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.ndjson");
    let lines = |events| (0..events).map(|n| line(n, "probe.sent", &format!("s{}", n % 5), "{}"));
    std::fs::write(&file, lines(10_500).collect::<String>()).unwrap();
    let (file, rogue) = (file.to_str().unwrap(), guest("rogue"));
    let test =
        |words: &[&str]| run(&[&["test", file, rogue.to_str().unwrap()], words].concat()).unwrap();
    let late = ["--parameters", r#"{"cheat_from":10000}"#];
    let found = test(&late);
    let text = String::from_utf8_lossy(&found.stderr);
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains("LAN-0208") && text.contains("table `seen`"), "{text}");
    // `plugin check` must also read the whole file.
    let words = ["plugin", "check", rogue.to_str().unwrap(), "--events", file];
    let checked = run(&[&words[..], &late].concat()).unwrap();
    let text = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && text.contains("LAN-0208"), "{text}");
    // The first events alone do not show that the plugin is not deterministic. A deterministic
    // plugin passes the same test.
    let first = test(&[&late[..], &["--check-events", "5000"]].concat());
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let honest = test(&["--json"]);
    let folded: Value = serde_json::from_slice(&honest.stdout).unwrap();
    assert_eq!(folded["checked_events"], 10_500, "{folded}");
}
