//! Tests changes of topics and brokers. After each change, Lantern must continue correctly or
//! report the problem.

use std::time::{Duration, Instant};

use lantern_tests::kafka::{self, Broker};
use lantern_tests::{PATIENCE, Server, guest};
use reqwest::Method;
use serde_json::Value;

use super::{no_kafka, over, serve};
use crate::line;

const FIXED: &str = r#"{"fixed":true}"#;

/// Returns the probes `from` to `to`, with 40 subjects.
fn probes(from: u64, to: u64) -> String {
    (from..to).map(|n| line(n, "probe.sent", &format!("s{}", n % 40), "{}")).collect()
}

/// Returns the sum of the counts in all rows of `rogue`.
async fn counted(server: &Server) -> u64 {
    let rows = server.rows("rogue/seen").await.unwrap();
    rows.iter().map(|(_, row)| row["events"].as_u64().unwrap()).sum()
}

/// Waits until `rogue` has counted `wanted` events and has folded the whole log. Then checks that
/// it has not counted more events.
async fn counts(server: &Server, wanted: u64) {
    let started = Instant::now();
    while counted(server).await < wanted {
        let status = server.get("/v1/projections/rogue").await.unwrap();
        assert!(started.elapsed() < PATIENCE, "not {wanted}: {status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.caught_up("rogue").await.unwrap();
    assert_eq!(counted(server).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_codec_and_of_committed_transactions_are_read_and_no_others() {
    if no_kafka() {
        return;
    }
    let (server, topic) = over(2, &[]);
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    let address = kafka::shared().address();
    let mut sent = 0;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        kafka::produce(&address, &topic, codec, &probes(sent, sent + 100)).unwrap();
        sent += 100;
    }
    counts(&server, 500).await;
    // Transaction markers take offsets. Aborted records are in the topic, and Lantern must not fold
    // them.
    kafka::produce_in_transaction(&address, &topic, &probes(1_000, 1_100), true).unwrap();
    kafka::produce_in_transaction(&address, &topic, &probes(2_000, 2_050), false).unwrap();
    counts(&server, 600).await;
    let ends: i64 = kafka::shared().ends(&topic).unwrap().values().sum();
    assert!(ends > 652, "{ends}: with what was aborted, and markers of both partitions");
    assert_eq!(kafka::records(kafka::shared(), &topic, true).unwrap().len(), 600);
    // After the markers there is nothing left to fold.
    let status = server.caught_up("rogue").await.unwrap();
    for shard in status["versions"][0]["shards"].as_array().unwrap() {
        assert_eq!(shard["lag_events"], 0, "{shard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_projection_folds_several_topics() {
    if no_kafka() {
        return;
    }
    let (first, second) = (kafka::fresh_name("orders"), kafka::fresh_name("returns"));
    kafka::create_topic(kafka::shared(), &first, 2, &[]).unwrap();
    kafka::create_topic(kafka::shared(), &second, 3, &[]).unwrap();
    let address = kafka::shared().address();
    kafka::produce(&address, &first, "none", &probes(0, 300)).unwrap();
    kafka::produce(&address, &second, "none", &probes(300, 500)).unwrap();
    let server = serve(&format!("{first},{second}"), &[]);
    let status = server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    assert!(status["version"].is_string());
    counts(&server, 500).await;
    kafka::produce(&address, &second, "none", &probes(500, 600)).unwrap();
    counts(&server, 600).await;
    let status = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(status["versions"][0]["shards"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_folded_too() {
    if no_kafka() {
        return;
    }
    let (mut server, topic) = over(1, &[]);
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    server.events(probes(0, 100)).await.unwrap();
    counts(&server, 100).await;
    kafka::shared().add_partitions(&topic, 3).unwrap();
    kafka::produce(&kafka::shared().address(), &topic, "none", &probes(100, 400)).unwrap();
    let of_new: i64 = kafka::shared().ends(&topic).unwrap().range(1..).map(|(_, end)| end).sum();
    assert!(of_new > 0, "no record is in a new partition");
    // Lantern finds the partition by itself, or reports that it must be restarted.
    let started = Instant::now();
    loop {
        if counted(&server).await == 400 {
            break;
        }
        let ready = server.text("/readyz").await.unwrap();
        if ready.contains(&format!("{topic}[1] was added")) && ready.contains("restart") {
            assert!(server.stop().unwrap().success());
            server.restart().unwrap();
            break;
        }
        assert!(started.elapsed() < PATIENCE / 2, "the new partition is not reported: {ready}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    counts(&server, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_that_retention_overtook_halts_and_says_what_can_be_done() {
    if no_kafka() {
        return;
    }
    let (mut server, topic) = over(1, &[]);
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    server.events(probes(0, 100)).await.unwrap();
    counts(&server, 100).await;
    assert!(server.stop().unwrap().success());
    let address = kafka::shared().address();
    kafka::produce(&address, &topic, "none", &probes(100, 300)).unwrap();
    kafka::shared().delete_records(&topic, 0, 250).unwrap();
    server.restart().unwrap();
    let halted = |status: &Value| status["versions"][0]["shards"][0]["activity"] == "halted";
    let status = server.until("rogue", halted).await.unwrap();
    let reason = status["versions"][0]["shards"][0]["reason"].as_str().unwrap().to_owned();
    for word in ["offset 100", "begins at 250", "rebuild"] {
        assert!(reason.contains(word), "{reason} does not say {word}");
    }
    // Events that are folded must be served, and no event may be skipped without a report.
    assert_eq!(counted(&server).await, 100);
    let ready = server.text("/readyz").await.unwrap();
    assert!(ready.contains("rogue"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_recreated_is_not_taken_for_the_old_one() {
    if no_kafka() {
        return;
    }
    let (mut server, topic) = over(1, &[]);
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    server.events(probes(0, 100)).await.unwrap();
    counts(&server, 100).await;
    kafka::shared().delete_topic(&topic).unwrap();
    kafka::create_topic_when_gone(kafka::shared(), &topic, 1).unwrap();
    // The new topic is longer than the folded part, so no offset reveals the change.
    let address = kafka::shared().address();
    kafka::produce(&address, &topic, "none", &probes(500, 650)).unwrap();
    halts_over_another_topic(&server).await;
    // The projection must not continue at offset 100 of another topic, neither now nor after a
    // restart.
    assert_eq!(counted(&server).await, 100);
    server.kill().unwrap();
    server.restart().unwrap();
    halts_over_another_topic(&server).await;
    assert_eq!(counted(&server).await, 100);
    // The log must not treat the events as duplicates of events in the old topic.
    server.events(probes(0, 10)).await.unwrap();
    let status = server.get("/v1/projections/rogue").await.unwrap();
    let version = status["active"].as_str().unwrap();
    let rebuild = format!("/v1/projections/rogue/versions/{version}/rebuild");
    let (status, answer) =
        server.request(reqwest::Method::POST, &rebuild, "application/json", vec![]).await.unwrap();
    assert!((200..300).contains(&status), "{status}: {answer}");
    counts(&server, 160).await;
}

/// Waits until `rogue` halts because the topic was replaced by another one.
async fn halts_over_another_topic(server: &Server) {
    let started = Instant::now();
    loop {
        let status = server.get("/v1/projections/rogue").await.unwrap();
        let shard = &status["versions"][0]["shards"][0];
        let reason = shard["reason"].as_str().unwrap_or_default();
        let ready = server.text("/readyz").await.unwrap();
        let clear = ["not the one", "up to offset 100", "recreated", "rebuild"];
        if clear.iter().all(|word| reason.contains(word)) && ready.contains(reason) {
            return;
        }
        assert!(started.elapsed() < PATIENCE / 2, "the halt is not reported: {ready} {status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn post(server: &Server, lines: String) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{}/v1/events", server.url));
    let request = request.header("content-type", "application/x-ndjson").timeout(PATIENCE);
    request.body(lines).send().await.unwrap()
}

/// Starts a broker, and a server over a topic of this broker.
fn alone(partitions: u32, settings: &[&str]) -> (Server, Broker) {
    let broker = kafka::start().unwrap();
    kafka::create_topic(&broker, "events", partitions, &[]).unwrap();
    let log = format!("kafka://{}/events", broker.address());
    (Server::start_over(Some(&log), settings).unwrap(), broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_events_are_refused_for_now_and_tables_are_served() {
    if no_kafka() {
        return;
    }
    let (mut server, mut broker) = alone(2, &["log.kafka.delivery_ms_max=2000"]);
    server.project("rogue", &guest("rogue"), FIXED).await.unwrap();
    server.events(probes(0, 100)).await.unwrap();
    counts(&server, 100).await;
    broker.kill().unwrap();
    let refused = post(&server, probes(100, 200)).await;
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    let problem = refused.text().await.unwrap();
    assert!(problem.contains("LAN-") && problem.to_lowercase().contains("kafka"), "{problem}");
    assert_eq!(counted(&server).await, 100);
    let ready = server.text("/readyz").await.unwrap();
    assert!(ready.contains("\"ready\":false") && !ready.contains("\"reasons\":[]"), "{ready}");
    // After a clean stop, the server is started without a broker. It must serve the stored state,
    // and wait.
    server.stop().unwrap();
    server.restart().unwrap();
    assert_eq!(counted(&server).await, 100);
    // After a kill, readers may have seen later rows than the stored ones. So the server must
    // refuse reads, with the reason, until it has folded the events again.
    server.kill().unwrap();
    server.restart().unwrap();
    let path = "/v1/tables/rogue/seen";
    let (status, answer) = server.request(Method::GET, path, "", Vec::new()).await.unwrap();
    let waits = status == 503 && answer["code"] == "LAN-0224";
    assert!(waits || counted(&server).await == 100, "{status}: {answer}");
    broker.restart().unwrap();
    let started = Instant::now();
    while !post(&server, probes(100, 200)).await.status().is_success() {
        assert!(started.elapsed() < PATIENCE, "the broker is back, and nothing is taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    counts(&server, 200).await;
    let started = Instant::now();
    while server.get("/readyz").await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the broker is back, and it is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_costs_no_more_memory_than_is_allowed() {
    if no_kafka() {
        return;
    }
    let settings = ["log.kafka.delivery_ms_max=3000", "log.kafka.queue_bytes=8388608"];
    let (server, broker) = alone(1, &settings);
    server.events(probes(0, 10)).await.unwrap();
    broker.freeze().unwrap();
    let padding = "x".repeat(10_000);
    let body = |round: u64| -> String {
        let data = format!("{{\"text\":\"{padding}\"}}");
        (0..200).map(|n| line(format!("{round}-{n}"), "probe.sent", "s", &data)).collect()
    };
    // Each round sends 16 MB. Requests beyond the limit on waiting bytes are refused at once.
    // Requests within the limit wait, and are refused after the time limit.
    let mut after_first = 0.0;
    for round in 0..12_u64 {
        let all = (0..8).map(|n| post(&server, body(round * 8 + n)));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.status().as_u16(), 503);
            assert!(answer.headers().contains_key("retry-after"));
        }
        let mut resident = resident_mib(server.pid());
        println!("after round {round}: {resident} MiB");
        if round == 2 {
            after_first = resident;
        }
        // The limit includes requests that the server is reading, parsing or refusing. They take
        // memory until they are answered.
        let started = Instant::now();
        while round > 2 && resident >= after_first + 48.0 {
            assert!(started.elapsed() < PATIENCE, "{after_first} MiB, then {resident}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            resident = resident_mib(server.pid());
        }
    }
    broker.thaw().unwrap();
    let started = Instant::now();
    while !post(&server, line("last", "probe.sent", "s", "{}")).await.status().is_success() {
        assert!(started.elapsed() < PATIENCE, "the broker goes on, and nothing is taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}
