//! Tests `kill -9` at random moments while the server appends and folds events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lantern_tests::{PATIENCE, Server, guest, run};
use serde_json::Value;

use crate::{line, line_at, random};

/// The number of times that the server is killed.
const CYCLES: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_or_applied_twice() {
    let mut random = random();
    let mut server = Server::start(&["engine.commit_ms=10"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let http = reqwest::Client::new();
    // Each event is sent until the server acknowledges it. Several senders work in parallel.
    let sent = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (http, url) = (http.clone(), format!("{}/v1/events", server.url));
            let (sent, stop) = (sent.clone(), stop.clone());
            tokio::spawn(async move {
                let mut number = 0_u64;
                while stop.load(Ordering::Relaxed) == 0 {
                    let lines: String = (0..5)
                        .map(|n| {
                            let id = format!("{sender}-{}", number + n);
                            line(id, "probe.sent", &format!("s{sender}"), "{}")
                        })
                        .collect();
                    let request = http
                        .post(&url)
                        .header("content-type", "application/x-ndjson")
                        .timeout(Duration::from_secs(5))
                        .body(lines);
                    if request.send().await.is_ok_and(|answer| answer.status().is_success()) {
                        number += 5;
                        sent.fetch_add(5, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                number
            })
        })
        .collect();
    for cycle in 0..CYCLES {
        let goal = sent.load(Ordering::Relaxed) + random.u64(1..200);
        while sent.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.u64(0..20_000))).await;
        server.kill().unwrap();
        server.restart().unwrap_or_else(|error| panic!("cycle {cycle}: {error:#}"));
    }
    stop.store(1, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.push(sender.await.unwrap());
    }
    server.caught_up("rogue").await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    for (sender, number) in acknowledged.iter().enumerate() {
        let row = rows.iter().find(|(key, _)| *key == format!("s{sender}")).unwrap();
        let applied = row.1["events"].as_u64().unwrap();
        // The last lines sent may be in the log without an acknowledgement.
        assert!((*number..=number + 5).contains(&applied), "s{sender}: {applied}, sent {number}");
    }
    // The tables must equal those of a clean fold of the same log.
    server.project("clean", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    assert_eq!(server.rows("clean/seen").await.unwrap(), rows);
    let log = server.log().await.unwrap();
    let applied: u64 = rows.iter().map(|(_, row)| row["events"].as_u64().unwrap()).sum();
    assert_eq!(log.len() as u64, applied, "each event of the log is applied once");
    let ids = identities(&log);
    for (sender, number) in acknowledged.iter().enumerate() {
        let lost = (0..*number).find(|n| !ids.contains(&format!("test {sender}-{n}")));
        assert_eq!(lost, None, "acknowledged by sender {sender} and not in the log");
    }
}

/// Returns the source and id of each event. No two events may have the same.
fn identities(log: &[Value]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for logged in log {
        let text = |name: &str| logged["event"][name].as_str().unwrap();
        let identity = format!("{} {}", text("source"), text("id"));
        assert!(seen.insert(identity.clone()), "`{identity}` is in the log twice");
    }
    seen
}

/// Returns the probe `number`, an event that makes the guest `rogue` emit an event. Of every 200
/// probes, the first 100 have event times within 2 s, and the other 100 within the next 20 s. So
/// the rate of events drops after the first 100.
fn probe(number: u64) -> String {
    let (round, within) = (number / 200, number % 200);
    let ms = round * 22_000 + within.min(100) * 20 + within.saturating_sub(100) * 200;
    line_at(ms, number, "probe.sent", "s", r#"{"do":"emit"}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_events_are_in_the_log_once_each_however_often_the_server_dies() {
    let parameters = r#"{"type":"probe.sent","window_s":2,"lookback":2,"drop_pct":50,"z":null,"lateness_s":0,"clock":[]}"#;
    let mut random = random();
    // A heartbeat would close windows by the clock.
    let mut server = Server::start(&["engine.commit_ms=10", "upkeep.heartbeats=false"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    server.project("rate-alerts", &guest("rate-alerts"), parameters).await.unwrap();
    let mut sent = 0;
    for cycle in 0..CYCLES {
        for _ in 0..random.u64(1..10) {
            let more = random.u64(1..60);
            let lines: String = (sent..sent + more).map(probe).collect();
            server.events(lines).await.unwrap();
            sent += more;
        }
        // The server is killed while it folds, emits and appends events.
        tokio::time::sleep(Duration::from_micros(random.u64(0..20_000))).await;
        server.kill().unwrap();
        server.restart().unwrap_or_else(|error| panic!("cycle {cycle}: {error:#}"));
    }
    let of = |log: &[Value], kind: &str| -> Vec<Value> {
        let events = log.iter().filter(|logged| logged["event"]["type"] == kind);
        events.cloned().collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.ndjson");
    std::fs::write(&file, (0..sent).map(probe).collect::<String>()).unwrap();
    let alerts = guest("rate-alerts");
    let arguments = [
        "test",
        file.to_str().unwrap(),
        alerts.to_str().unwrap(),
        "--parameters",
        parameters,
        "--json",
    ];
    let output = run(&arguments).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let clean: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = data_of(clean["emitted"].as_array().unwrap());
    assert!(expected.len() > 3, "{expected:?}");
    let started = Instant::now();
    let log = loop {
        let log = server.log().await.unwrap();
        let (echoes, alerts) = (of(&log, "echo.sent").len(), of(&log, "alert.raised").len());
        if echoes as u64 >= sent && alerts >= expected.len() {
            break log;
        }
        let missing = format!("{echoes} of {sent} echoes, {alerts} of {} alerts", expected.len());
        assert!(started.elapsed() < PATIENCE, "{missing}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    identities(&log);
    // Each probe must have exactly one echo, whose id contains the probe's offset.
    let offsets = of(&log, "probe.sent").iter().map(|p| p["offset"].as_u64().unwrap()).collect();
    let echoes = of(&log, "echo.sent");
    let causes: BTreeSet<u64> = echoes.iter().map(cause).collect();
    assert_eq!(causes, offsets);
    assert_eq!(echoes.len() as u64, sent);
    let alerts: Vec<_> =
        of(&log, "alert.raised").iter().map(|alert| alert["event"].clone()).collect();
    assert_eq!(data_of(&alerts), expected);
    let rows = server.rows("rate-alerts/alerts").await.unwrap();
    assert_eq!(rows.len(), expected.len());
}

fn data_of(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| event["data"].clone()).collect()
}

/// Extracts, from the id of a derived event, the offset of the event that caused it.
fn cause(logged: &Value) -> u64 {
    let id = logged["event"]["id"].as_str().unwrap();
    id.rsplit('/').nth(1).and_then(|offset| offset.parse().ok()).unwrap_or_else(|| panic!("{id}"))
}
