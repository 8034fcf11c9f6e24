//! Tests metrics, traces, readiness and errors, as an operator sees them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use lantern_tests::{PATIENCE, Server, fresh_log, guest, lantern, without};
use serde_json::Value;

use crate::line;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_and_a_halted_projection_makes_the_server_not_ready() {
    let server = Server::start(&["engine.parked_in_a_row_max=3"]).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    let lines: String = (0..3).map(|n| line(n, "probe.sent", "s", "{}")).collect();
    server.events(lines).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let metrics = server.text("/metrics").await.unwrap();
    for name in [
        "lantern_log_events_total 3",
        "lantern_engine_commits_total{projection=\"rogue\"}",
        "lantern_shard_lag_events{",
        "lantern_shard_lag_seconds{",
        "lantern_shard_parked_events{",
        "lantern_shard_next_offset{",
        "lantern_shard_fuel",
        "lantern_shard_apply_seconds",
    ] {
        assert!(metrics.contains(name), "no `{name}` in {metrics}");
    }
    // The counters must rise by the number of events that they count.
    let counted = async |name: &str| {
        let metrics = server.text("/metrics").await.unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let counters = ["lantern_log_duplicates_total", "lantern_ingest_refused_total"];
    let before = [counted(counters[0]).await, counted(counters[1]).await];
    server.events(line(0, "probe.sent", "s", "{}")).await.unwrap();
    assert!(server.events("nonsense").await.is_err());
    for (name, before) in counters.into_iter().zip(before) {
        assert_eq!(counted(name).await, before + 1.0, "{name}");
    }
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);
    let lines: String = (10..20).map(|n| line(n, "probe.sent", "s", r#"{"do":"fail"}"#)).collect();
    server.events(lines).await.unwrap();
    server.until("rogue", |s| s["versions"][0]["activity"] == "halted").await.unwrap();
    let (status, answer) = server
        .request(reqwest::Method::GET, "/readyz", "application/json", Vec::new())
        .await
        .unwrap();
    assert_eq!(status, 503);
    assert!(answer.to_string().contains("rogue"), "{answer}");
    assert!(!server.text("/healthz").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_describes_itself() {
    let server = Server::start(&[]).unwrap();
    let api = server.get("/v1/openapi.json").await.unwrap();
    for path in ["/v1/events", "/v1/projections", "/v1/tables/{projection}/{table}"] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_sites_are_refused() {
    let server = Server::start(&[]).unwrap();
    let http = reqwest::Client::new();
    let url = format!("{}/v1/projections", server.url);
    let foreign_host = http.get(&url).header("host", "evil.example").send().await.unwrap();
    assert_eq!(foreign_host.status().as_u16(), 403);
    let foreign_origin =
        http.get(&url).header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(foreign_origin.status().as_u16(), 403);
}

/// Two traces, in the format of `traceparent` (W3C Trace Context).
const OF_REQUEST: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OF_EVENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_request_to_row_to_derived_event_and_every_log_line_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("stderr");
    let mut process = Command::new(lantern())
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--log-filter", "info,lantern_engine=debug,lantern_server=debug", "--data"])
        .arg(folder.path().join("data"))
        .args(fresh_log().unwrap().map(|log| format!("--log={log}")))
        .stdout(Stdio::piped())
        .stderr(File::create(&lines).unwrap())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let listening: Value = serde_json::from_str(&first).unwrap();
    let url = listening["listening"].as_str().unwrap();
    let server = Server::attach(url, process).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    let event = line(1, "probe.sent", "s", r#"{"do":"emit"}"#);
    let event = event.replacen('{', &format!("{{\"traceparent\":\"{OF_EVENT}\","), 1);
    let sent = reqwest::Client::new()
        .post(format!("{url}/v1/events"))
        .header("content-type", "application/x-ndjson")
        .header("traceparent", OF_REQUEST)
        .body(event)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status().as_u16(), 200);
    let started = Instant::now();
    let echo = loop {
        let log = server.log().await.unwrap();
        if let Some(echo) = log.iter().find(|logged| logged["event"]["type"] == "echo.sent") {
            break echo.clone();
        }
        assert!(started.elapsed() < PATIENCE, "{log:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(echo["event"]["traceparent"], OF_EVENT);
    let ended = server.terminate().unwrap();
    assert!(ended.success(), "{ended}");
    let text = std::fs::read_to_string(&lines).unwrap();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    let logged = |words: [&str; 2]| text.lines().any(|line| words.iter().all(|w| line.contains(w)));
    assert!(logged([OF_EVENT, "applied"]), "{text}");
    assert!(logged(["4bf92f3577b34da6a3ce929d0e0e4736", "request answered"]), "{text}");
}

/// A small file system in memory. Dropping this value unmounts it.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts such a file system. Returns `None` if the system does not allow it.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "lantern-e2e"]).arg(folder.path());
        mount.output().unwrap().status.success().then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_started_on_a_full_disk_is_not_ready_until_there_is_room() {
    if without("mount") || without("umount") {
        return;
    }
    let Some(disk) = Disk::mount() else {
        eprintln!("skipped: file systems may not be mounted here, so no disk was filled");
        return;
    };
    let folder = disk.0.path().join("data");
    // The log has no reserve, so that only a failing write reveals the full disk.
    let settings = ["log.disk_reserve_bytes=0"];
    let mut server = Server::start_in(&folder, "127.0.0.1:0", &settings).unwrap();
    server.events(line(0, "probe.sent", "s", "{}")).await.unwrap();
    let board = async |server: &Server, method, body: &str| {
        let answer = server.request(method, "/v1/boards/b", "application/json", body.into());
        answer.await.unwrap()
    };
    assert_eq!(board(&server, reqwest::Method::PUT, "{\"n\":1}").await.0, 201);
    server.stop().unwrap();
    let ballast = disk.0.path().join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    drop(file);
    server.restart().unwrap();
    let ready = async || server.request(reqwest::Method::GET, "/readyz", "", Vec::new()).await;
    let (status, answer) = ready().await.unwrap();
    assert_eq!(status, 503, "{answer}");
    assert!(answer["reasons"].to_string().contains("cannot be written"), "{answer}");
    let larger = format!("{{\"n\":\"{}\"}}", "x".repeat(200_000));
    let (status, answer) = board(&server, reqwest::Method::PUT, &larger).await;
    assert_eq!((status, &answer["code"]), (503, &"LAN-0213".into()), "{answer}");
    assert_eq!(board(&server, reqwest::Method::GET, "").await.1["n"], 1);
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(board(&server, reqwest::Method::PUT, &larger).await.0, 200);
    let started = Instant::now();
    while ready().await.unwrap().0 != 200 {
        assert!(started.elapsed() < PATIENCE, "it never became ready");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Without the cache of compiled code, a server compiles the interpreters in the background at its
/// start. This takes longer than a user waits for a server to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_compiles_interpreters_stops_before_they_are_compiled() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("cache");
    let settings = [
        "plugin.compile_interpreters=true".to_owned(),
        format!(
            "plugin.interpreters_dir={:?}",
            lantern_tests::interpreters().display().to_string()
        ),
        format!("plugin.cache_dir={:?}", cache.display().to_string()),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut server = Server::start_in(&home.path().join("data"), "127.0.0.1:0", &settings).unwrap();
    let child = format!("pgrep -P {} -f __compile", server.pid());
    let started = Instant::now();
    while !Command::new("sh").args(["-c", &child]).output().unwrap().status.success() {
        assert!(started.elapsed() < PATIENCE, "nothing is compiled");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(server.stop().unwrap().success());
    let compiled = std::fs::read_dir(&cache).map_or(0, |files| files.count());
    assert!(compiled < 3, "the server stopped after all three interpreters were compiled");
    server.restart().unwrap();
    assert!(server.text("/healthz").await.unwrap().contains("ok"));
}
