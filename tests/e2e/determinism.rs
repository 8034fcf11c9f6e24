//! Tests that the same log always gives the same bytes of state, and that a plugin that is not
//! deterministic is refused.

use std::time::Duration;

use lantern_tests::{Server, guest};

use crate::{line, random};

/// The number of events, which is enough for a batch of 16,384.
const EVENTS: u64 = 40_000;
/// The number of times that the server is killed while it folds.
const KILLS: u64 = 3;
/// Plugins that depend on the order of events, on batches, and on timers.
const PLUGINS: [&str; 3] = ["revenue", "funnel", "rate-alerts"];

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_byte_identical_whatever_the_batch_sizes_and_restarts() {
    let mut random = random();
    let shop = lantern_cli::generate::Shop::new(lantern_cli::generate::Options {
        events: EVENTS,
        ..lantern_cli::generate::Options::default()
    });
    let mut lines = Vec::new();
    (0..EVENTS).for_each(|index| shop.write_line(index, &mut lines));
    let mut first: Option<String> = None;
    for batch in [1, 7, 1_000, 16_384] {
        let setting = format!("engine.batch_events_max={batch}");
        // A heartbeat would be an additional event at a time that depends on the clock.
        let settings = [setting.as_str(), "engine.commit_ms=50", "upkeep.heartbeats=false"];
        let mut server = Server::start(&settings).unwrap();
        server.events(lines.clone()).await.unwrap();
        for name in PLUGINS {
            let (status, answer) = server.push(name, &guest(name), "").await.unwrap();
            assert!(status < 300, "{answer}");
        }
        // The server is killed while it catches up, or just after it has caught up.
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
            server.kill().unwrap();
            server.restart().unwrap();
        }
        let mut tables = String::new();
        for name in PLUGINS {
            let status = server.caught_up(name).await.unwrap();
            for table in status["versions"][0]["tables"].as_array().unwrap() {
                if table["public"] == true {
                    let table = format!("{name}/{}", table["name"].as_str().unwrap());
                    tables += &format!("{table}\n{}", server.lines(&table).await.unwrap());
                }
            }
        }
        assert!(tables.lines().count() > 2_000, "{tables}");
        let expected = first.get_or_insert_with(|| tables.clone());
        for (found, expected) in tables.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "batches of {batch}");
        }
        assert!(tables == *expected, "batches of {batch}: more or fewer rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_state_in_memory_is_refused_with_the_row_that_differs() {
    let server = Server::start(&[]).unwrap();
    let lines: String =
        (0..50).map(|n| line(n, "probe.sent", &format!("s{}", n % 3), "{}")).collect();
    server.events(lines).await.unwrap();
    let (status, answer) =
        server.push("rogue", &guest("rogue"), r#"{"cheat_from":0}"#).await.unwrap();
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["code"], "LAN-0208");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("table `seen`") && detail.contains("key `s"), "{detail}");
    assert!(detail.contains(r#""calls":"#), "{detail}");
    assert_eq!(server.get("/v1/projections").await.unwrap()["projections"], serde_json::json!([]));
}
