//! Tests projections that break the rules, in each language with an interpreter. Each violation has
//! one of three effects: the event is parked, the upload is refused, or the projection reads a
//! constant instead of the real value. If the language knows the place, the message names file and
//! line. The honest projection on the same server is not affected.
//!
//! `hostile.rs` contains the same tests for Rust, and `sdk/conformance/rules.py` for C. The claim
//! `hostile-plugins` includes the latencies of the other projections.

use std::fs::read_to_string;

use lantern_tests::{
    Server, check_source, go_component, guest, interpreter_settings, lantern_with_interpreters,
    root, without,
};
use reqwest::Method;
use serde_json::Value;

use crate::{finish, line};

/// An event type that triggers a breach of the rules, and words of the reason for which the event
/// is parked.
type Breach = (&'static str, &'static [&'static str]);

/// Starts a server with the shipped interpreters, and with an honest projection that counts probes.
async fn server() -> Server {
    let [interpreters, cache] = interpreter_settings();
    let server = Server::start(&[&interpreters, &cache, "engine.fuel_event=400000000"]).unwrap();
    server.project("victim", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    server
}

/// Uploads a source. The command line compiles the interpreter before the upload, because that
/// takes longer than a request may take.
async fn upload(server: &Server, name: &str, media: &str, source: &str) -> (u16, Value) {
    let checked = check_source(name, source).unwrap();
    let path = format!("/v1/versions?source_name={name}");
    let answer = server.request(Method::POST, &path, media, source.into()).await.unwrap();
    assert_eq!(checked.status.success(), answer.0 == 201, "{checked:?} {}", answer.1);
    answer
}

/// Sends events to the projections `rules` and `victim`, and waits until both have folded them.
/// Then checks that the victim has counted all events that were sent to it, `sent` in total.
async fn fold(server: &Server, kinds: &[&str], sent: &mut u64) {
    let lines: String = kinds
        .iter()
        .flat_map(|kind| {
            *sent += 1;
            let id = format!("{sent}");
            [line(&id, kind, "s", "{}"), line(format!("v{id}"), "probe.sent", "s", "{}")]
        })
        .collect();
    server.events(lines).await.unwrap();
    server.caught_up("rules").await.unwrap();
    server.caught_up("victim").await.unwrap();
    let rows = server.rows("victim/seen").await.unwrap();
    assert_eq!(rows[0].1["events"], *sent, "{kinds:?}");
}

/// Folds events that break the rules among good events. Exactly the events that break a rule are
/// parked, with their reasons, and leave no row. An event of `constants` reads the environment:
/// each read must give the same value every time.
async fn check(name: &str, media: &str, breaches: &[Breach], constants: &[&str]) {
    let server = server().await;
    let source = read_to_string(root().join("sdk/conformance/rules").join(name)).unwrap();
    let (status, answer) = upload(&server, name, media, &source).await;
    assert_eq!(status, 201, "{answer}");
    check_on(&server, name, breaches, constants).await;
}

/// Checks a projection that is on the server already, as [`check`] does.
async fn check_on(server: &Server, name: &str, breaches: &[Breach], constants: &[&str]) {
    let pid = server.pid();
    let mut sent = 0;
    for (round, (kind, words)) in (1..).zip(breaches) {
        fold(server, &["r.count", kind, "r.count"], &mut sent).await;
        let parked = server.get("/v1/projections/rules/parked?limit=100").await.unwrap();
        assert_eq!(parked["total"], round, "{kind}: {parked:#}");
        let last = parked["parked"].as_array().unwrap().last().unwrap();
        let told = last["reason"].as_str().unwrap();
        println!("{name}: {kind}: {told}");
        for word in *words {
            assert!(told.contains(word), "{kind}: `{told}` does not say `{word}`");
        }
        let rows = server.rows("rules/counts").await.unwrap();
        let counted: Vec<_> =
            rows.iter().map(|(key, row)| (key.as_str(), &row["events"])).collect();
        assert_eq!(counted, [("r.count", &(2 * round).into())], "{kind}");
    }
    // The values must be the same in other calls, and in a second fold by other instances.
    let mut read = Vec::new();
    for _ in 0..2 {
        fold(server, constants, &mut sent).await;
        read.push(server.rows("rules/read").await.unwrap());
    }
    assert_eq!(read[0].len(), constants.len(), "{read:?}");
    assert_eq!(read[0], read[1]);
    println!("{name}: {:?}", read[0]);
    let mut verify = lantern_with_interpreters();
    finish(verify.args(["verify", "rules", "--server", server.url.as_str()]));
    assert_eq!(server.pid(), pid);
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);
}

const FUEL: &[&str] = &["it used up its fuel", "engine.fuel_event"];

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_python_that_breaks_the_rules_is_stopped() {
    if without("python3") {
        return;
    }
    let breaches: &[Breach] = &[
        ("r.error", &["refused by the projection", "rules.py:79"]),
        ("r.loop", FUEL),
        ("r.trap", &["os.abort: a projection cannot exit", "rules.py:83"]),
        ("r.recursion", &["RecursionError", "rules.py:20"]),
        ("r.memory", &["MemoryError", "rules.py:26"]),
        ("r.file", &["a projection has no files", "rules.py:30"]),
        ("r.write", &["a projection has no files", "rules.py:34"]),
        ("r.socket", &["a projection has no network", "rules.py:39"]),
        ("r.thread", &["a projection has no threads", "rules.py:44"]),
        ("r.process", &["a projection cannot start processes", "rules.py:49"]),
        ("r.pattern", FUEL),
        ("r.clock", &["a projection has no clock", "rules.py:69"]),
        ("r.random", &["a projection has no randomness", "rules.py:70"]),
    ];
    check("rules.py", "text/x-python", breaches, &["r.environment"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_javascript_that_breaks_the_rules_is_stopped() {
    if without("npm") {
        return;
    }
    let breaches: &[Breach] = &[
        ("r.error", &["refused by the projection", "rules.js:47"]),
        ("r.loop", FUEL),
        ("r.trap", &["TypeError", "rules.js:23"]),
        ("r.recursion", &["call stack exhausted"]),
        ("r.memory", &["out of memory", "rules.js:18"]),
        ("r.file", &["ReferenceError", "rules.js:26"]),
        ("r.socket", &["a projection has no network", "rules.js:27"]),
        ("r.thread", &["a projection has no threads", "rules.js:28"]),
        ("r.process", &["a projection has no `process`", "rules.js:29"]),
        ("r.later", &["a projection has no `setTimeout`", "rules.js:30"]),
        ("r.pattern", FUEL),
        ("r.clock", &["a projection has no clock", "rules.js:34"]),
        ("r.random", &["a projection has no randomness", "rules.js:35"]),
    ];
    check("rules.js", "text/javascript", breaches, &["r.environment"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_go_that_breaks_the_rules_is_stopped() {
    if without("go") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plugin = go_component("sdk/conformance/rules/go", dir.path()).unwrap();
    // `lantern test` compiles the plugin before the upload. During the upload, compiling would take
    // longer than a request may take.
    let good = dir.path().join("good.ndjson");
    std::fs::write(&good, line("1", "r.count", "s", "{}")).unwrap();
    finish(lantern_with_interpreters().arg("test").args([&good, &plugin]));
    // The check of determinism finds values that differ from instance to instance.
    let random: String = (0..20).map(|n| line(n, "r.unseeded", "s", "{}")).collect();
    let events = dir.path().join("random.ndjson");
    std::fs::write(&events, random).unwrap();
    let differs = lantern_with_interpreters().arg("test").args([&events, &plugin]).output();
    assert!(!differs.unwrap().status.success());

    let server = server().await;
    server.project("rules", &plugin, "").await.unwrap();
    let breaches: &[Breach] = &[
        ("r.error", &["refused by the projection"]),
        ("r.loop", FUEL),
        ("r.trap", &["index out of range", "rules.go:56"]),
        ("r.recursion", &["call stack exhausted"]),
        ("r.memory", &["out of memory", "plugin.limits.memory_bytes"]),
        ("r.file", &["/etc/passwd"]),
        ("r.write", &["/tmp/written"]),
        ("r.socket", &["127.0.0.1:80"]),
        ("r.process", &["open /dev/null"]),
        ("r.exit", &["unreachable"]),
        ("r.deadlock", &["all goroutines are asleep - deadlock!"]),
        ("r.goroutine", &["a goroutine panics", "rules.go:"]),
    ];
    let constants = ["r.thread", "r.sleep", "r.clock", "r.random", "r.environment"];
    check_on(&server, "rules.go", breaches, &constants).await;
}

/// Tests sources that break the rules while they are loaded. The server must refuse their upload.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_the_rules_when_it_is_loaded_is_refused() {
    if without("python3") || without("npm") {
        return;
    }
    let server = server().await;
    let nested = format!(
        "name: rules\nfrom: x\nwhere: {}1{}\ntables:\n  counts:\n    columns:\n      events: count()\n",
        "(".repeat(40),
        ")".repeat(40)
    );
    let aliases = "name: rules\nfrom: &a [x, x]\nb: &b [*a, *a, *a]\ntables: *b\n";
    for (name, media, source, code, words) in [
        ("a.py", "text/x-python", "x = 1\nopen('/etc/passwd')\n", "LAN-0129", "a.py:2"),
        ("a.py", "text/x-python", "import socket\nsocket.socket()\n", "LAN-0129", "a.py:"),
        (
            "a.py",
            "text/x-python",
            "import threading\nthreading.Thread(target=print).start()\n",
            "LAN-0129",
            "a.py:2",
        ),
        ("a.py", "text/x-python", "while True: pass\n", "LAN-0122", "fuel"),
        ("a.py", "text/x-python", "x = [0] * (1 << 30)\n", "LAN-0129", "a.py:1"),
        ("a.js", "text/javascript", "\nfor (;;);\n", "LAN-0122", "fuel"),
        ("a.js", "text/javascript", "\nimport fs from 'node:fs';\n", "LAN-0129", "a.js:2"),
        ("a.js", "text/javascript", "const f = () => f();\nf();\n", "LAN-0121", "stack exhausted"),
        ("a.yaml", "application/yaml", &nested, "LAN-0129", "a.yaml:3"),
        ("a.yaml", "application/yaml", aliases, "LAN-0129", "a.yaml:"),
    ] {
        let (status, answer) = upload(&server, name, media, source).await;
        let told = answer["detail"].as_str().unwrap_or_default();
        println!("{source:?}: {told}");
        assert_eq!((status, answer["code"].as_str()), (422, Some(code)), "{source}: {answer}");
        assert!(told.contains(words), "{source}: `{told}` does not say `{words}`");
    }
    let listed = server.get("/v1/projections").await.unwrap();
    assert_eq!(listed["projections"].as_array().unwrap().len(), 1, "{listed}");
}

/// A declaration cannot loop, but it can ask for very large texts.
#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_asks_for_too_much_is_stopped() {
    if without("python3") || without("npm") {
        return;
    }
    let server = server().await;
    // Each call makes the text sixteen times longer.
    let grown = (0..6).fold("data.text".to_owned(), |text, _| {
        format!("replace({text}, \"x\", \"{}\")", "x".repeat(16))
    });
    let source = format!(
        "name: rules\nfrom: r.*\ntables:\n  counts:\n    key: [type]\n    columns:\n      \
         events: count()\n  grown:\n    where: type == \"r.text\"\n    columns:\n      \
         text: last({grown})\n"
    );
    let (status, answer) = upload(&server, "rules.yaml", "application/yaml", &source).await;
    assert_eq!(status, 201, "{answer}");
    let mut sent = 0;
    fold(&server, &["r.count"], &mut sent).await;
    let event = line("text", "r.text", "s", r#"{"text":"x"}"#);
    server.events(event).await.unwrap();
    fold(&server, &["r.count"], &mut sent).await;
    let parked = server.get("/v1/projections/rules/parked").await.unwrap();
    assert_eq!((&parked["total"], &parked["parked"][0]["id"]), (&1.into(), &"text".into()));
    let told = parked["parked"][0]["reason"].as_str().unwrap();
    println!("{told}");
    assert!(told.contains("longer than 65536 bytes"), "{told}");
    let rows = server.rows("rules/counts").await.unwrap();
    assert_eq!((rows.len(), &rows[0].1["events"]), (1, &2.into()), "{rows:?}");
}
