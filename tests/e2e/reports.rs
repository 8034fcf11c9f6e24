//! Tests the reports of the command line: versions that fail, late events, exit codes. No line is
//! wider than the terminal.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use lantern_tests::{PATIENCE, Server, guest, lantern, root, run, without};
use reqwest::Method;
use serde_json::Value;

use crate::{line, line_at};

const FIXED: &str = r#"{"fixed":true}"#;
/// Parameters of the guest `rogue`: it fails on events that request a failure, and its
/// failure policy is `park-subject`.
const BROKEN: &str = r#"{"by_subject":true}"#;

/// Runs a command of the command line against `server`.
fn at(server: &Server, words: &[&str]) -> Output {
    run(&[words, &["--server", server.url.as_str()]].concat()).unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Starts a server with a hundred events of ten subjects. The first event of the subject `s3`
/// fails.
async fn with_a_bad_event(server: &Server) {
    let data = |n| if n == 3 { r#"{"do":"fail"}"# } else { "{}" };
    let lines = (0..100).map(|n| line(n, "probe.sent", &format!("s{}", n % 10), data(n)));
    server.events(lines.collect::<String>()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_halts_is_a_warning_while_the_active_one_serves_readers() {
    let server = Server::start(&["engine.parked_in_a_row_max=3"]).unwrap();
    let fail = |n| line(n, "probe.sent", &format!("s{n}"), r#"{"do":"fail"}"#);
    server.events((0..10).map(fail).collect::<String>()).await.unwrap();
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    let (status, answer) = server.push("rogue", &guest("rogue"), BROKEN).await.unwrap();
    assert!((200..300).contains(&status), "{answer}");
    server.until("rogue", |s| s["versions"][1]["activity"] == "halted").await.unwrap();
    let ready = server.get("/readyz").await.unwrap();
    assert_eq!(ready["ready"], true);
    let warnings = ready["warnings"].to_string();
    assert!(warnings.contains("is halted and does not become active"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_version_is_reported_everywhere_and_not_activated_without_force() {
    let server = Server::start(&[]).unwrap();
    with_a_bad_event(&server).await;
    let first = server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    let rogue = guest("rogue");
    let push = ["plugin", "push", rogue.to_str().unwrap(), "--parameters", BROKEN, "--wait"];
    let pushed = at(&server, &push);
    assert_eq!(code(&pushed), 1, "{}{}", out(&pushed), err(&pushed));
    let said = err(&pushed);
    assert!(said.contains("error[LAN-0220]"), "{said}");
    assert!(said.contains("fails on 1 event and holds back 9 behind them"), "{said}");
    assert!(said.contains("--force"), "{said}");
    let status = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(status["active"], first["version"]);
    let broken = &status["versions"][1];
    assert_eq!((&broken["parked"], &broken["waiting"]), (&10.into(), &9.into()), "{broken}");
    let id = broken["id"].as_str().unwrap();
    for words in [&["plugin", "list"][..], &["plugin", "status", "rogue"]] {
        let shown = out(&at(&server, words));
        assert!(shown.contains("not activated"), "{shown}");
    }
    let ready = server.get("/readyz").await.unwrap();
    assert!(ready["warnings"][0].as_str().unwrap().contains("was not activated"), "{ready}");
    // The list distinguishes the failed event from the events that wait behind it, and counts
    // both kinds.
    let list = at(&server, &["parked", "list", "rogue", "--version-id", id]);
    let shown = out(&list);
    assert!(shown.contains("1 failed event and 9 that wait behind are parked"), "{shown}");
    assert!(shown.contains("told to fail"), "{shown}");
    let waiting =
        at(&server, &["parked", "list", "rogue", "--version-id", id, "--waiting", "--json"]);
    assert_eq!(out(&waiting).lines().count(), 9);
    let path = format!("/v1/projections/rogue/parked/reasons?version={id}");
    let reasons = server.get(&path).await.unwrap();
    assert_eq!((&reasons["failed"], &reasons["waiting"]), (&1.into(), &9.into()), "{reasons}");
    assert_eq!(reasons["reasons"][0]["waiting"], 9);
    // The command must refuse the activation, and so must the server over HTTP.
    let refused = at(&server, &["plugin", "activate", "rogue", id]);
    assert_eq!(code(&refused), 5);
    let path = format!("/v1/projections/rogue/versions/{id}/activate");
    let post = async |path: &str| {
        server.request(Method::POST, path, "application/json", Vec::new()).await.unwrap()
    };
    let (status, problem) = post(&path).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("LAN-0220")), "{problem}");
    let forced = at(&server, &["plugin", "activate", "rogue", id, "--force"]);
    assert_eq!(code(&forced), 0, "{}", err(&forced));
    assert!(out(&forced).contains("parked list rogue"), "{}", out(&forced));
    assert_eq!(server.get("/v1/projections/rogue").await.unwrap()["active"], id);
    let ready = server.get("/readyz").await.unwrap();
    assert!(ready["warnings"][0].as_str().unwrap().contains("waiting behind them 9"), "{ready}");
    assert_eq!(code(&at(&server, &["plugin", "rollback", "rogue"])), 0);
    let (status, _) = post(&format!("{path}?force=true")).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn push_with_force_activates_a_version_that_parks_more() {
    let server = Server::start(&[]).unwrap();
    with_a_bad_event(&server).await;
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    let rogue = guest("rogue");
    let push = ["plugin", "push", rogue.to_str().unwrap(), "--parameters", BROKEN, "--wait"];
    let force = [&push[..], &["--force"]].concat();
    let pushed = at(&server, &force);
    assert_eq!(code(&pushed), 0, "{}", err(&pushed));
    // The output states how many events the tables do not contain.
    assert!(out(&pushed).contains("1 failed event and 9 that wait behind"), "{}", out(&pushed));
    let active = async || {
        let status = server.get("/v1/projections/rogue").await.unwrap();
        status["active"].as_str().unwrap().to_owned()
    };
    let broken = active().await;
    // A version that was uploaded before and refused must be treated in the same way.
    for words in
        [&["plugin", "rollback", "rogue"][..], &["plugin", "delete", "rogue", &broken, "--yes"]]
    {
        assert_eq!(code(&at(&server, words)), 0);
    }
    assert_eq!(code(&at(&server, &push)), 1);
    assert_ne!(active().await, broken);
    let forced = at(&server, &force);
    assert_eq!(code(&forced), 0, "{}", err(&forced));
    assert_eq!(active().await, broken);
    // The two flags exclude each other, so the command must refuse them.
    assert_eq!(code(&at(&server, &[&force[..], &["--no-activate"]].concat())), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_history_reports_late_events_and_waits_for_the_tables() {
    let server = Server::start(&[]).unwrap();
    server.project("rate-alerts", &guest("rate-alerts"), "{}").await.unwrap();
    let hour = 3_600_000;
    let order = |n: u64, ms| line_at(ms, n, "page.viewed", "u1", "{}");
    server.events(order(0, 12 * hour)).await.unwrap();
    server.caught_up("rate-alerts").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.ndjson");
    std::fs::write(&file, (1..=500).map(|n| order(n, n * 1_000)).collect::<String>()).unwrap();
    let words = ["events", "import", file.to_str().unwrap(), "--wait", "--json"];
    let imported = at(&server, &words);
    assert_eq!(code(&imported), 0, "{}", err(&imported));
    let summary: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!(summary["late"]["rate-alerts"], 500, "{summary}");
    assert_eq!(summary["applied_by_all"], true);
    let status = server.get("/v1/projections/rate-alerts").await.unwrap();
    assert_eq!(status["versions"][0]["shards"][0]["next"], 501);
    // The output for people must explain what to do. A second import has no late events.
    std::fs::write(&file, order(1_000, 1_000)).unwrap();
    let imported = at(&server, &words[..4]);
    assert!(out(&imported).contains("1 event was late for `rate-alerts`"), "{}", out(&imported));
    let again = at(&server, &words);
    let summary: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert!(summary["late"].as_object().unwrap().is_empty(), "{summary}");
    // A paused projection cannot contain the events yet, and the output must name it.
    let pause = "/v1/projections/rate-alerts/pause";
    server.request(Method::POST, pause, "application/json", Vec::new()).await.unwrap();
    std::fs::write(&file, order(1_001, 13 * hour)).unwrap();
    let stuck = at(&server, &words[..4]);
    assert_eq!(code(&stuck), 1);
    assert!(err(&stuck).contains("`rate-alerts` has stopped"), "{}", err(&stuck));
}

/// Starts a server that answers each request with `status`. Each request is reported to the
/// returned receiver.
fn answering(status: &'static str) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4_096];
            // The content of the request does not matter here. If the client has closed the
            // connection, this does not matter either.
            let _ = stream.read(&mut request);
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = stream.write_all(answer.as_bytes());
            let _ = asked.send(());
        }
    });
    (url, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_is_as_documented_and_its_error_is_json_under_json() {
    let server = Server::start(&[]).unwrap();
    with_a_bad_event(&server).await;
    server.project("rogue", &guest("rogue"), BROKEN).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let (none, data) = (none.to_str().unwrap(), server.folder().to_str().unwrap());
    let (busy, broken) = (answering("503 Busy").0, answering("500 Broken").0);
    let readme = root().join("README.md");
    let url = server.url.as_str();
    let cases: &[(i32, &[&str])] = &[
        (0, &["plugin", "list", "--server", url]),
        (1, &["plugin", "list", "--server", &broken]),
        (1, &["parked", "retry", "rogue", "--all", "--server", url]),
        (2, &["plugin", "fly"]),
        (2, &["plugin"]),
        (2, &[]),
        (2, &["table", "get", "rogue", "x"]),
        (2, &["events", "generate", "--span", "soon"]),
        (2, &["parked", "drop", "rogue", "--all", "--server", url]),
        (2, &["parked", "retry", "rogue", "--server", url]),
        (3, &["plugin", "list", "--server", "http://127.0.0.1:1"]),
        (4, &["plugin", "status", "absent", "--server", url]),
        (4, &["table", "get", "rogue/seen", "absent", "--server", url]),
        (4, &["table", "get", "rogue/nothing", "x", "--server", url]),
        (4, &["events", "push", none, "--server", url]),
        (4, &["doctor", "--data", none]),
        (5, &["plugin", "push", readme.to_str().unwrap(), "--server", url]),
        (5, &["events", "push", readme.to_str().unwrap(), "--server", url]),
        (5, &["doctor", "--data", data]),
        (6, &["plugin", "list", "--server", &busy]),
    ];
    for (expected, words) in cases {
        let output = run(words).unwrap();
        assert_eq!(code(&output), *expected, "{words:?}: {}{}", out(&output), err(&output));
        if *expected == 0 {
            continue;
        }
        let output = run(&[words, &["--json"][..]].concat()).unwrap();
        assert_eq!(code(&output), *expected, "{words:?} --json");
        let said: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|e| panic!("{words:?}: {e}: {}", err(&output)));
        assert_eq!(said["error"]["exit"], *expected, "{words:?}: {said}");
        assert!(!said["error"]["message"].as_str().unwrap().is_empty(), "{words:?}: {said}");
    }
    // A request for help is never an error, whatever the other arguments are.
    assert_eq!(code(&run(&["plugin", "--help", "--json"]).unwrap()), 0);
    let page = std::fs::read_to_string(root().join("docs/guide/command-line.md")).unwrap();
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 130] {
        assert!(page.contains(&format!("\n| {code} | ")), "the guide leaves out exit code {code}");
    }
}

#[test]
fn an_import_that_is_interrupted_ends_with_130() {
    let (url, requests) = answering("503 Busy");
    let mut import = Command::new(lantern())
        .args(["events", "import", "-", "--server", &url])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = import.stdin.take().unwrap();
    stdin.write_all(line(1, "probe.sent", "s", "{}").as_bytes()).unwrap();
    drop(stdin);
    // The command sends one request that lists the projections, and one with the event. Then
    // it waits before it tries again.
    for _ in 0..2 {
        requests.recv_timeout(PATIENCE).unwrap();
    }
    let ask = format!("kill -INT {}", import.id());
    assert!(Command::new("sh").args(["-c", &ask]).status().unwrap().success());
    assert_eq!(import.wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_printed_is_wider_than_the_terminal() {
    let server = Server::start(&[]).unwrap();
    let long = "x".repeat(300);
    let text = format!(r#"{{"text":"{long}"}}"#);
    let lines = format!(
        "{}{}",
        line(1, "probe.sent", "s", &text),
        line(2, "probe.sent", &long, r#"{"do":"fail"}"#)
    );
    server.events(lines).await.unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    let file = guest("rogue");
    let cases: &[&[&str]] = &[
        &["plugin", "list"],
        &["plugin", "status", "rogue"],
        &["plugin", "check", file.to_str().unwrap()],
        &["plugin", "logs", "rogue"],
        &["plugin", "status", "absent"],
        &["plugin", "activate", "rogue", "0123456789abcdef"],
        &["plugin", "fly", "--to-the-moon-and-back-again-and-then-once-more"],
        &["parked", "list", "rogue"],
        &["parked", "list", "rogue", "--long"],
        &["parked", "retry", "rogue", "--all"],
        &["table", "scan", "rogue/seen"],
        &["table", "get", "rogue/seen", "s"],
        &["table", "get", "rogue/seen", "absent"],
        &["events", "tail", "--from", "start", "--no-follow"],
        &["verify", "rogue"],
        &["--help"],
        &["events", "import", "--help"],
        &["plugin", "push", "--help"],
        &["completions", "--help"],
    ];
    for width in ["60", "100"] {
        for words in cases {
            let output = Command::new(lantern())
                .args(*words)
                .args(["--server", server.url.as_str()])
                .env("COLUMNS", width)
                .output()
                .unwrap();
            let most: usize = width.parse().unwrap();
            for line in out(&output).lines().chain(err(&output).lines()) {
                let wide = line.chars().count();
                assert!(wide <= most, "{words:?} at {width}: {wide}: {line}");
            }
        }
    }
}

/// Returns the first block of code in the guide's page on events that contains `word`.
fn shown(word: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/guide/events.md")).unwrap();
    let mut blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found = blocks.find(|block| block.contains(word));
    found.unwrap_or_else(|| panic!("docs/guide/events.md shows no `{word}`")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_the_guide_work_and_damage_no_example_plugin() {
    if without("curl") {
        println!("skipped: no curl");
        return;
    }
    let server = Server::start(&[]).unwrap();
    let plugins = ["flight-delays", "funnel", "rate-alerts", "revenue"];
    for plugin in plugins {
        server.project(plugin, &guest(plugin), "{}").await.unwrap();
    }
    let (wasm, events) = crate::cli::template();
    server.project("order-counts", &wasm, "").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(events, folder.path().join("events.ndjson")).unwrap();
    let address = server.url.trim_start_matches("http://");
    // A request on the page may wait for an offset that only a longer log has.
    let block =
        shown("curl localhost:7420/v1/events").replace("min_offset=0:501", "min_offset=0:4");
    let block = block.replace("localhost:7420", address);
    assert_eq!(block.matches("curl ").count(), 6, "{block}");
    let (sends, reads) = block.split_once("# out").unwrap();
    for part in [sends, reads] {
        let script = format!("set -e\n{}", part.replace("curl ", "curl -sS --fail-with-body "));
        let output =
            Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {}{}", out(&output), err(&output));
        server.caught_up("order-counts").await.unwrap();
    }
    for plugin in plugins {
        let status = server.caught_up(plugin).await.unwrap();
        let version = &status["versions"][0];
        assert_eq!(version["parked"], 0, "{plugin}: {version:#}");
    }
    // Every complete event in the README, the guide and the help texts must be valid, too.
    let mut texts = vec![out(&run(&["events", "push", "--help"]).unwrap())];
    let guide = std::fs::read_dir(root().join("docs/guide")).unwrap();
    let mut pages: Vec<_> = guide.map(|page| page.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.extend(["README.md", "docs/kafka.md"].map(|page| root().join(page)));
    texts.extend(pages.iter().map(|page| std::fs::read_to_string(page).unwrap()));
    let mut sent = 0;
    for text in &texts {
        for (at, _) in text.match_indices("{\"specversion\"") {
            let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
            let mut event = values.next().unwrap().unwrap();
            event["id"] = format!("doc-{sent}").into();
            server.events(format!("{event}\n")).await.unwrap();
            sent += 1;
        }
    }
    assert!(sent >= 3, "{sent} events were found");
    for plugin in plugins {
        let status = server.caught_up(plugin).await.unwrap();
        assert_eq!(status["versions"][0]["parked"], 0, "{plugin}: {status:#}");
    }
}
