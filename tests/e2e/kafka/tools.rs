//! Tests tools of Kafka and of other projects together with Lantern.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lantern_tests::kafka::{self, Reading, Record};
use lantern_tests::{Launch, PATIENCE, Server, guest, root, without};
use serde_json::Value;

use super::{no_kafka, over};
use crate::line;

/// Reads the lag of the active version per partition, from Lantern's API.
async fn lag_of(server: &Server, projection: &str) -> BTreeMap<i32, i64> {
    let status = server.get(&format!("/v1/projections/{projection}")).await.unwrap();
    let shards = status["versions"][0]["shards"].as_array().unwrap();
    let lag = |shard: &Value| {
        let partition = shard["partition"].as_i64().unwrap().try_into().unwrap();
        (partition, shard["lag_events"].as_i64().unwrap_or(-1))
    };
    shards.iter().map(lag).collect()
}

/// Reads the lag of a consumer group per partition, with `kafka-consumer-groups`.
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
    // If a projection is paused, Lantern and Kafka must report the same lag.
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
    // The metrics must show the same lag.
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

/// Waits until the group has the given lags. Lantern commits the group's offsets a little later
/// than the state.
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
    // All records of a subject have the same key and are in the same partition.
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

/// Returns the first block of code of this kind in docs/kafka.md that contains `word`.
fn shown(kind: &str, word: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/kafka.md")).unwrap();
    let fence = format!("```{kind}\n");
    let mut blocks = page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    let found = blocks.find(|block| block.contains(word));
    found.unwrap_or_else(|| panic!("docs/kafka.md shows no `{word}` in {kind}")).to_owned()
}

/// Creates a folder with Kafka's scripts, as a download of Kafka has it.
fn scripts(folder: &Path) {
    for (name, class) in [
        ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
        ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ] {
        let tool = kafka::shared().tool(class);
        let words: Vec<_> = tool.get_args().map(|word| word.to_str().unwrap()).collect();
        // The last two arguments name the broker. They are left out, because the commands of the
        // document name it themselves.
        let words = &words[..words.len() - 2];
        let script = format!("#!/bin/sh\nexec java '{}' \"$@\"\n", words.join("' '"));
        let path = folder.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_written_by_other_tools_is_read_with_the_configuration_of_the_docs() {
    if no_kafka() {
        return;
    }
    let topic = kafka::fresh_name("orders");
    kafka::create_topic(kafka::shared(), &topic, 2, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    scripts(folder.path());
    let here = |shown: String| {
        shown.replace("localhost:9092", &kafka::shared().address()).replace("orders", &topic)
    };
    let sh = |commands: &str| {
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh").args(["-c", commands]).env("PATH", path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{commands}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Kafka's own producer writes JSON, kcat writes a CloudEvent in headers, and the
    // last record is not an event.
    let commands = here(shown("sh", "kafka-console-producer.sh"));
    let (produce, rest) = commands.split_once("lantern events tail\n").unwrap();
    sh(produce);
    if without("kcat") {
        println!("skipped: no kcat");
    } else {
        sh(&here(shown("sh", "kcat -P")));
    }
    kafka::shared().console_producer(&topic, "nonsense\n", &[]).unwrap();

    let config = folder.path().join("lantern.toml");
    std::fs::write(&config, here(shown("toml", "[log.kafka.json.orders]"))).unwrap();
    let server = Server::launch(Launch {
        folder: folder.path().join("data"),
        address: "127.0.0.1:0".into(),
        config: Some(config),
        settings: vec!["log.kafka.commit_ms=200".into()],
        ..Launch::default()
    })
    .unwrap();
    let mut events = Vec::new();
    for partition in 0..2 {
        events.extend(server.log_of(partition).await.unwrap());
    }
    let of = |subject: &str| {
        let found = events.iter().find(|logged| logged["event"]["subject"] == subject);
        found.unwrap_or_else(|| panic!("no `{subject}`: {events:#?}"))["event"].clone()
    };
    let json = of("1841");
    assert_eq!((&json["type"], &json["data"]["cents"]), (&"placed".into(), &500.into()), "{json}");
    assert!(json["time"].as_str().unwrap().starts_with("2026-01-01T00:00:00"), "{json}");
    if !without("kcat") {
        let headers = of("1842");
        assert_eq!(headers["data"]["cents"], 700, "{headers}");
        assert_eq!((&headers["source"], &headers["id"]), (&"shop".into(), &"1".into()));
    }
    // The record that is not an event must be parked, with its partition and offset.
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
    assert_eq!(parked["total"], 1, "{parked:#}");
    let reason = parked["parked"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(&topic) || reason.contains("record"), "{reason}");
    assert!(parked["parked"][0]["offset"].is_u64(), "{parked:#}");
    // The output must show the group as the page does.
    let started = Instant::now();
    let groups = rest.replace("PROJECTION", "rogue");
    loop {
        let shown = sh(&groups);
        if shown.contains(&topic) {
            break;
        }
        assert!(started.elapsed() < PATIENCE / 4, "`{groups}` does not show {topic}: {shown}");
    }
}

/// Writes a record with a header name that is not text, if `kcat` is installed.
fn write_record_with_broken_header(topic: &str) -> bool {
    if without("kcat") {
        println!("skipped: no kcat");
        return false;
    }
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", &kafka::shared().address(), "-t", topic, "-H"]);
    kcat.arg(OsStr::from_bytes(b"\xff=1")).arg("/etc/hostname");
    assert!(kcat.status().unwrap().success());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_copied_with_their_reasons_and_sent_again_from_there() {
    if no_kafka() {
        return;
    }
    let letters = kafka::fresh_name("dead");
    kafka::create_topic(kafka::shared(), &letters, 2, &[]).unwrap();
    let (server, topic) = over(1, &[&format!("log.kafka.dead_letter_topic={letters}")]);
    server.project("rogue", &guest("rogue"), "").await.unwrap();
    // Three events need a row that does not exist yet. One event can never be applied.
    let orders = [("a", "need"), ("b", "need"), ("c", "need"), ("d", "fail"), ("e", "")];
    let line_of = |(n, (subject, what)): (u64, (&str, &str))| {
        line(n, "probe.sent", subject, &format!("{{\"do\":\"{what}\"}}"))
    };
    server.events((0..).zip(orders).map(line_of).collect::<String>()).await.unwrap();
    server.until("rogue", |status| parked(status) == 4).await.unwrap();
    // A record that another program wrote into the topic of dead letters must do no harm.
    kafka::shared().console_producer(&letters, "not a letter\n", &[]).unwrap();
    let started = Instant::now();
    let copies = loop {
        let records = kafka::records(kafka::shared(), &letters, true).unwrap();
        if records.len() == 5 {
            break records;
        }
        assert!(started.elapsed() < PATIENCE, "{} letters", records.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let header = |copy: &Record, name: &str| copy.header(name).map(str::to_owned);
    let mut reasons: Vec<_> = copies
        .iter()
        .filter_map(|copy| {
            assert!(copy.headers.is_empty() || header(copy, "lantern_topic")? == topic);
            Some((header(copy, "ce_subject")?, header(copy, "lantern_reason")?))
        })
        .collect();
    reasons.sort();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(reasons[0].0 == "a" && reasons[0].1.contains("nothing is seen of `needed` yet"));
    assert!(reasons[3].0 == "d" && reasons[3].1.contains("told to fail"), "{reasons:?}");

    // A record with a header name that is not text must do no harm, either.
    let foreign = if write_record_with_broken_header(&letters) { 2 } else { 1 };

    let resend = |query: &'static str| {
        let path = format!("/v1/dead-letters/resend{query}");
        let server = &server;
        async move {
            let post = reqwest::Method::POST;
            server.request(post, &path, "application/json", Vec::new()).await.unwrap()
        }
    };
    let counts = |letters: u64, foreign: u64, applied: u64, failed: u64, gone: u64| {
        serde_json::json!({
            "letters": letters, "foreign": foreign, "applied": applied, "failed": failed,
            "waiting": 0, "gone": gone,
        })
    };
    assert_eq!(resend("").await, (200, counts(4 + foreign, foreign, 0, 4, 0)));
    server.events(line(10, "probe.sent", "needed", "{}")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    // The topic has no new dead letters. If it is read from the beginning, each dead letter is
    // tried again.
    assert_eq!(resend("").await, (200, counts(0, 0, 0, 0, 0)));
    assert_eq!(resend("?from_beginning=true").await, (200, counts(4 + foreign, foreign, 3, 1, 0)));
    assert_eq!(resend("?from_beginning=true").await, (200, counts(4 + foreign, foreign, 0, 1, 3)));
    let rows = server.rows("rogue/seen").await.unwrap();
    let mut subjects: Vec<_> = rows.iter().map(|(key, _)| key.as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["a", "b", "c", "e", "needed"]);
    assert!(rows.iter().all(|(key, row)| key == "needed" || row["events"] == 1), "{rows:?}");
    // The events were retried only in the projection, so the topic has no second copy of them.
    assert_eq!(kafka::records(kafka::shared(), &topic, true).unwrap().len(), 6);
}

/// Returns the number of events that are parked now.
fn parked(status: &Value) -> u64 {
    let shards = status["versions"][0]["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["parked"].as_u64().unwrap()).sum()
}
