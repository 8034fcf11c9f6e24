//! Kafka's own tools, and others', beside Lantern.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use lantern_tests::kafka::{self, Reading, Record};
use lantern_tests::{Launch, PATIENCE, Server, guest, root, without};
use serde_json::Value;

use super::{no_kafka, over};
use crate::line;

/// Lag by partition, as Lantern's API tells it of the active version.
async fn lag_of(server: &Server, projection: &str) -> BTreeMap<i32, i64> {
    let status = server.get(&format!("/v1/projections/{projection}")).await.unwrap();
    let shards = status["versions"][0]["shards"].as_array().unwrap();
    let lag = |shard: &Value| {
        let partition = shard["partition"].as_i64().unwrap().try_into().unwrap();
        (partition, shard["lag_events"].as_i64().unwrap_or(-1))
    };
    shards.iter().map(lag).collect()
}

/// Lag by partition, as `kafka-consumer-groups` tells it.
fn lag_of_group(group: &str) -> BTreeMap<i32, i64> {
    let all = kafka::shared().group(group).unwrap();
    all.into_iter().map(|((_, partition), lag)| (partition, lag.lag.unwrap_or(-1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_groups_show_the_lag_that_lantern_shows() {
    if no_kafka() {
        return;
    }
    let probes = |from: u64, count: u64| -> String {
        let probe = |n| line(n, "probe.sent", &format!("s{}", n % 40), "{}");
        (from..from + count).map(probe).collect()
    };
    let prefix = kafka::fresh_name("group");
    let named = format!("log.kafka.group_prefix={prefix}.");
    let (server, topic) = over(4, &[&named, "log.kafka.commit_ms=200"]);
    let group = format!("{prefix}.rogue");
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    server.events(probes(0, 1_000)).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let ends = kafka::shared().ends(&topic).unwrap();
    assert_eq!(ends.values().sum::<i64>(), 1_000);
    let none: BTreeMap<i32, i64> = (0..4).map(|partition| (partition, 0)).collect();
    assert_eq!(lag_of(&server, "rogue").await, none);
    eventually_lags(&group, &none).await;
    // A projection that stands still is behind, for both.
    let path = "/v1/projections/rogue/pause";
    let post = reqwest::Method::POST;
    server.request(post, path, "application/json", Vec::new()).await.unwrap();
    server.events(probes(1_000, 700)).await.unwrap();
    let after = kafka::shared().ends(&topic).unwrap();
    let behind: BTreeMap<i32, i64> =
        after.iter().map(|(partition, end)| (*partition, end - ends[partition])).collect();
    assert_eq!(behind.values().sum::<i64>(), 700);
    assert_eq!(lag_of(&server, "rogue").await, behind);
    eventually_lags(&group, &behind).await;
    // As the exporter has it.
    let metrics = server.text("/metrics").await.unwrap();
    for (partition, lag) in behind {
        let shown = metrics.lines().any(|line| {
            line.starts_with("lantern_shard_lag_events{")
                && line.contains(&format!("partition=\"{partition}\""))
                && line.ends_with(&format!(" {lag}"))
        });
        assert!(shown, "partition {partition} has no lag of {lag} in {metrics}");
    }
}

/// The position is committed to the group a little later than to the state.
async fn eventually_lags(group: &str, wanted: &BTreeMap<i32, i64>) {
    let started = Instant::now();
    loop {
        let lags = lag_of_group(group);
        if lags == *wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE / 4, "{group} has {lags:?}, and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_consumer_reads_what_ingest_produced() {
    if no_kafka() {
        return;
    }
    let (server, topic) = over(2, &[]);
    let lines: Vec<_> = (0..100)
        .map(|n| line(n, "probe.sent", &format!("s{}", n % 7), &format!("{{\"text\":\"{n}\"}}")))
        .collect();
    server.events(lines.concat()).await.unwrap();
    let reading = Reading { records: 100, headers: true, keys: true, committed: true };
    let found = kafka::shared().console_consumer(&topic, reading).unwrap();
    for n in 0..100 {
        let wanted = [format!("ce_id:{n},"), format!("\"text\":\"{n}\"")];
        let of_event: Vec<_> =
            found.iter().filter(|line| line.replace('\t', ",").contains(&wanted[0])).collect();
        assert_eq!(of_event.len(), 1, "{n}: {found:?}");
        for word in ["ce_specversion:1.0", "ce_source:test", "ce_type:probe.sent", &wanted[1]] {
            assert!(of_event[0].contains(word), "{word}: {of_event:?}");
        }
    }
    // One subject, one key, one partition.
    let records = kafka::records(kafka::shared(), &topic, true).unwrap();
    let mut partitions: BTreeMap<&str, i32> = BTreeMap::new();
    for record in &records {
        let subject = record.header("ce_subject").unwrap();
        assert_eq!(record.key.as_deref(), Some(subject.as_bytes()));
        assert_eq!(*partitions.entry(subject).or_insert(record.partition), record.partition);
    }
    assert_eq!(partitions.len(), 7);
    let of_subject = |record: &&Record| record.header("ce_subject") == Some("s3");
    let ids = records.iter().filter(of_subject).map(|r| r.header("ce_id").unwrap().to_owned());
    let expected: Vec<_> = (0..100).filter(|n| n % 7 == 3).map(|n| n.to_string()).collect();
    assert_eq!(ids.collect::<Vec<_>>(), expected, "in the order they were sent");
}

/// What README shows, between fences of this kind, that says `word`.
fn shown(kind: &str, word: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let fence = format!("```{kind}\n");
    let blocks = readme.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut found = blocks.filter(|block| block.contains(word));
    found.next().unwrap_or_else(|| panic!("README shows no `{word}` in {kind}")).to_owned()
}

/// The broker and the topic that README names, and what stands for them here.
fn here(shown: &str, topic: &str) -> String {
    shown.replace("localhost:9092", &kafka::shared().address()).replace("orders", topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_written_by_other_tools_is_read_with_the_configuration_that_readme_shows() {
    if no_kafka() {
        return;
    }
    let topic = kafka::fresh_name("orders");
    kafka::create_topic(kafka::shared(), &topic, 2, &[]).unwrap();
    // Kafka's own producer writes the JSON, and kcat a CloudEvent in headers.
    let lines = shown("json", "customer");
    kafka::shared().console_producer(&topic, &lines, &[]).unwrap();
    let mut expected = BTreeMap::from([("order.placed", 2), ("order.returned", 1)]);
    if without("kcat") {
        println!("skipped: no kcat");
    } else {
        let kcat = here(&shown("sh", "kcat -P"), &topic);
        let output = Command::new("sh").args(["-c", &kcat]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        expected.insert("order.placed", 3);
    }
    // One that fits nothing.
    kafka::shared().console_producer(&topic, "nonsense\n", &[]).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lantern.toml");
    std::fs::write(&config, here(&shown("toml", "[log.kafka.json.orders]"), &topic)).unwrap();
    let serve = here(&shown("sh", "--log kafka://"), &topic);
    let log = serve.split_whitespace().find(|word| word.starts_with("kafka://")).unwrap();
    let server = Server::launch(Launch {
        folder: folder.path().join("data"),
        address: "127.0.0.1:0".into(),
        log: Some(log.to_owned()),
        config: Some(config),
        ..Launch::default()
    })
    .unwrap();
    let mut found = BTreeMap::new();
    let mut events = BTreeMap::new();
    for partition in 0..2 {
        for logged in server.log_of(partition).await.unwrap() {
            let event = logged["event"].clone();
            *found.entry(event["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            events.insert(event["id"].as_str().unwrap_or_default().to_owned(), event);
        }
    }
    for (kind, count) in &expected {
        assert_eq!(found.get(*kind), Some(count), "{kind}: {events:#?}");
    }
    let text = |id: &str, name: &str| events[id][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("17", "type"), "order.placed");
    assert_eq!(text("17", "subject"), "u1");
    assert_eq!(text("18", "subject"), "u2");
    assert_eq!(text("19", "source"), "shop");
    assert!(text("19", "time").starts_with("2026-03-02T09:30:00"), "{}", events["19"]);
    assert_eq!(events["18"]["data"]["cents"], 1_250);
    if !without("kcat") {
        assert_eq!(
            (text("20", "subject"), &events["20"]["data"]["cents"]),
            ("u3".into(), &700.into())
        );
    }
}
