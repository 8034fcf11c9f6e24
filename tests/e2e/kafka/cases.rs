//! Tests records of a topic that similar systems or earlier versions of Lantern handled wrongly.
//! Other programs write to the topic, and Lantern must read all of their records.

use lantern_tests::kafka::{self, Written};
use lantern_tests::{Launch, Server, guest};
use reqwest::Method;
use serde_json::Value;

use super::{no_kafka, over};
use crate::cases::{ask, get, parked, push, send, verified};

/// Returns the record of an event in binary mode.
fn event<'a>(key: &'a str, kind: &'a str, id: &'a str, value: &'a str) -> Written<'a> {
    Written {
        key: (!key.is_empty()).then_some(key),
        value: Some(value),
        headers: vec![
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/s"),
            ("ce_type", kind),
            ("content-type", "application/json"),
        ],
    }
}

fn tombstone(key: &str) -> Written<'_> {
    Written { key: Some(key), value: None, headers: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_records_without_a_value_halt_no_projection() {
    if no_kafka() {
        return;
    }
    let (server, topic) = over(1, &[]);
    server.project("revenue", &guest("revenue"), "").await.unwrap();
    let keys: Vec<_> = (1..=1_001).map(|number| format!("k{number}")).collect();
    let records: Vec<_> = keys.iter().map(|key| tombstone(key)).collect();
    kafka::write(kafka::shared(), &topic, &records).unwrap();
    server.until("revenue", |status| next(status) >= 1_001).await.unwrap();
    let order = r#"{"product":"p","quantity":1,"cents":5}"#;
    kafka::write(kafka::shared(), &topic, &[event("", "order.placed", "1", order)]).unwrap();
    server.until("revenue", |status| next(status) >= 1_002).await.unwrap();
    server.caught_up("revenue").await.unwrap();
    let ready = get(&server, "/readyz", &[]).await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()), "{}", ready.text);
    let rows = server.rows("revenue/by_product").await.unwrap();
    assert_eq!(rows[0].1["orders"], 1, "{rows:?}");
}

/// Returns the next offset of the first shard of the newest version.
fn next(status: &Value) -> u64 {
    status["versions"][0]["shards"][0]["next"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_value_blocks_no_subject_live_or_folded_again() {
    if no_kafka() {
        return;
    }
    let (server, topic) = over(1, &[]);
    push(&server, "subj").await;
    let subject = |key: &'static str, id: &'static str| {
        let mut record = event(key, "acct.x", id, "{}");
        record.headers.push(("ce_subject", key));
        record
    };
    // The records are sent one by one. So the tombstone comes before the events of its key, in a
    // batch of its own.
    for (number, record) in
        [tombstone("u1"), subject("u1", "a"), subject("u1", "b"), subject("u2", "c")]
            .into_iter()
            .enumerate()
    {
        kafka::write(kafka::shared(), &topic, &[record]).unwrap();
        server.until("subj", |status| next(status) > number as u64).await.unwrap();
    }
    server.caught_up("subj").await.unwrap();
    let live = (server.lines("subj/sums").await.unwrap(), parked(&server, "subj").await);
    let rows = server.rows("subj/sums").await.unwrap();
    let counts: Vec<_> = rows.iter().map(|(key, row)| (key.as_str(), &row["events"])).collect();
    assert_eq!(counts, [("/u1", &2.into()), ("/u2", &1.into())], "{rows:?}");
    assert!(live.1.iter().all(|(_, kind, _, _)| kind != "waiting"), "{live:?}");
    verified(&server, "subj");
    let active = server.get("/v1/projections/subj").await.unwrap()["active"].clone();
    let path = format!("/v1/projections/subj/versions/{}/rebuild", active.as_str().unwrap());
    let rebuilt = ask(&server, Method::POST, &path, &[], "").await;
    assert!((200..300).contains(&rebuilt.status), "{}", rebuilt.text);
    server.caught_up("subj").await.unwrap();
    let again = (server.lines("subj/sums").await.unwrap(), parked(&server, "subj").await);
    assert_eq!(live, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_for_the_topic_is_refused_for_good_and_blocks_no_outbox() {
    if no_kafka() {
        return;
    }
    let topic = kafka::fresh_name("small");
    kafka::create_topic(kafka::shared(), &topic, 1, &["max.message.bytes=10000"]).unwrap();
    let server = super::serve(&topic, &[]);
    push(&server, "emitter").await;
    let big = "y".repeat(40_000);
    let event = format!(
        r#"{{"specversion":"1.0","id":"large-one","source":"/s","type":"x.y","data":"{big}"}}"#
    );
    let refused = send(&server, event).await;
    assert_eq!(refused.status, 413, "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "", "a permanent error is not worth a retry");
    assert!(refused.text.contains("10000"), "{}", refused.text);
    let go_event = |id: &str, size: u64| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"go","data":{{"size":{size}}}}}"#
        )
    };
    assert_eq!(send(&server, go_event("g1", 40_000)).await.status, 200);
    assert_eq!(send(&server, go_event("g2", 10)).await.status, 200);
    // The event that `g2` caused is in the topic. The event that `g1` caused is too large and
    // is set aside.
    let started = std::time::Instant::now();
    let went = loop {
        let log = server.log().await.unwrap();
        let went: Vec<_> =
            log.into_iter().filter(|logged| logged["event"]["type"] == "went").collect();
        let parked = parked(&server, "emitter").await;
        if !went.is_empty() && !parked.is_empty() {
            break went;
        }
        let patience = lantern_tests::PATIENCE / 2;
        assert!(started.elapsed() < patience, "emitted {went:?}, parked {parked:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(went[0]["event"]["data"]["text"], "x".repeat(10), "{went:?}");
    let parked = parked(&server, "emitter").await;
    assert_eq!((parked.len(), parked[0].1.as_str()), (1, "emitted"), "{parked:?}");
    for part in ["emitted by the event at offset 0", "10000"] {
        assert!(parked[0].3.contains(part), "{parked:?}");
    }
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);
    // Lantern must not send the refused event again and again. If it did, the topic would grow.
    let end = kafka::bounds(kafka::shared(), &topic, 0).unwrap().1;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(kafka::bounds(kafka::shared(), &topic, 0).unwrap().1, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_out_of_range_are_unreadable_and_the_reason_names_the_unit() {
    if no_kafka() {
        return;
    }
    let topic = kafka::fresh_name("times");
    kafka::create_topic(kafka::shared(), &topic, 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lantern.toml");
    let address = kafka::shared().address();
    let text = format!(
        "[log.kafka]\nservers = \"{address}\"\ntopics = [\"{topic}\"]\n\
         [log.kafka.json.\"{topic}\"]\ntype = \"constant:order.placed\"\ntime = \"field:at\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let server = Server::launch(Launch {
        folder: folder.path().join("data"),
        address: "127.0.0.1:0".into(),
        config: Some(config),
        ..Launch::default()
    })
    .unwrap();
    server.project("revenue", &guest("revenue"), "").await.unwrap();
    let orders: Vec<_> = ["1767225600", "1767225600000000", "-1", "1767225600000"]
        .iter()
        .map(|at| format!(r#"{{"product":"p","quantity":1,"cents":1,"at":{at}}}"#))
        .collect();
    let records: Vec<_> = orders
        .iter()
        .map(|order| Written { key: None, value: Some(order), headers: Vec::new() })
        .collect();
    kafka::write(kafka::shared(), &topic, &records).unwrap();
    server.until("revenue", |status| next(status) >= 4).await.unwrap();
    server.caught_up("revenue").await.unwrap();
    let parked = parked(&server, "revenue").await;
    // The reason must name the unit in which the number is a plausible time.
    for offset in [0, 1] {
        let of = parked.iter().find(|(at, ..)| *at == offset);
        let reason = of.map(|(.., reason)| reason.as_str()).unwrap_or_default();
        assert!(reason.contains("2026-01-01T00:00:00"), "{offset}: {reason}");
    }
    // Every row's key is a time between the years 0001 and 9999, and the log shows the same time as
    // the fold.
    let minutes = server.rows("revenue/by_minute").await.unwrap();
    let applied = 4 - parked.len();
    let orders: u64 = minutes.iter().map(|(_, row)| row["orders"].as_u64().unwrap()).sum();
    assert_eq!(orders, applied as u64, "{minutes:?} {parked:?}");
    let log = server.log().await.unwrap();
    for (key, _) in &minutes {
        let year = &key[..4];
        assert!(year.bytes().all(|b| b.is_ascii_digit()) && year > "0000", "{key}");
        let minute = &key[..16];
        let told = |logged: &Value| {
            logged["event"]["time"].as_str().is_some_and(|time| time.starts_with(minute))
        };
        assert!(log.iter().any(told), "no event of {minute}: {log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_markers_from_outside_are_not_taken_for_the_hosts() {
    if no_kafka() {
        return;
    }
    let (server, topic) = over(1, &[]);
    push(&server, "wins").await;
    let lines = [
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"page.viewed","time":"2026-03-01T12:00:00Z","data":{"product":"p"}}"#,
        r#"{"specversion":"1.0","id":"2","source":"/s","type":"lantern.heartbeat","time":"9998-01-01T00:00:00Z"}"#,
        r#"{"specversion":"1.0","id":"3","source":"/s","type":"page.viewed","time":"2026-03-01T12:00:01Z","data":{"product":"p"}}"#,
        r#"{"specversion":"1.0","id":"4","source":"/s","type":"lantern.unreadable","time":"2026-03-01T12:00:02Z","subject":"u1","reason":"\u202etext of the sender"}"#,
    ];
    for (number, line) in lines.iter().enumerate() {
        let headers = vec![("content-type", "application/cloudevents+json")];
        let record = Written { key: None, value: Some(line), headers };
        kafka::write(kafka::shared(), &topic, &[record]).unwrap();
        server.until("wins", |status| next(status) > number as u64).await.unwrap();
    }
    server.caught_up("wins").await.unwrap();
    assert_eq!(server.rows("wins/late").await.unwrap(), [], "event 3 is late");
    let parked = parked(&server, "wins").await;
    for (.., reason) in &parked {
        assert!(!reason.contains("text of the sender"), "{reason}");
    }
    let reserved = parked.iter().filter(|(.., reason)| reason.contains("lantern.unreadable"));
    assert_eq!(reserved.count(), 1, "{parked:?}");
}
