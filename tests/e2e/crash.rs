//! `kill -9` at random moments of ingest and fold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lantern_tests::{Server, guest};

use crate::line;

/// How often the server is killed.
const CYCLES: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_or_applied_twice() {
    let seed = std::env::var("LANTERN_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("LANTERN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start(&["engine.commit_ms=10"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let http = reqwest::Client::new();
    // Each event is sent until it is acknowledged, by one sender of many.
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
    // The tables equal a clean fold of the same log.
    server.project("clean", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    assert_eq!(server.rows("clean/seen").await.unwrap(), rows);
    let page = server.get("/v1/events?partition=0&limit=1").await.unwrap();
    let applied: u64 = rows.iter().map(|(_, row)| row["events"].as_u64().unwrap()).sum();
    assert_eq!(page["end"], applied, "each event of the log is applied once");
}
