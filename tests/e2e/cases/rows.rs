//! Tests that an accepted payload can be read back unchanged.

use std::io::Write as _;
use std::process::{Command, Stdio};

use lantern_tests::{Server, guest};
use reqwest::Method;
use serde_json::Value;

use super::{ask, folding, get, lantern, send};

/// Documents as JSON text, each with the subject of its event.
const DOCS: [(&str, &str); 4] = [
    ("text", r#"{"t":"half \ud83d"}"#),
    ("large", r#"{"n":1e400}"#),
    ("whole", r#"{"n":18446744073709551617}"#),
    ("digits", r#"{"x":236.726747597707184,"price":0.10}"#),
];

fn event(subject: &str, doc: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{subject}","source":"/s","type":"doc.saved","time":"2026-03-01T12:00:00Z","subject":"{subject}","data":{{"doc":{doc}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_text_of_rows_are_returned_as_they_were_sent_or_refused_on_arrival() {
    let server = folding("docs").await;
    let mut kept = Vec::new();
    for (subject, doc) in DOCS {
        let answer = send(&server, event(subject, doc)).await;
        match answer.status {
            200 => kept.push((subject, doc)),
            // Half of a surrogate pair is not valid Unicode text.
            status => assert_eq!((subject, status), ("text", 400), "{}", answer.text),
        }
    }
    server.caught_up("docs").await.unwrap();
    // An event with a number beyond the range of a double must be parked, with the reason.
    for (_, _, id, reason) in super::parked(&server, "docs").await {
        assert_eq!(id, "large", "{reason}");
        assert!(reason.contains("doc"), "{reason}");
        kept.retain(|(subject, _)| *subject != "large");
    }
    assert!(kept.len() >= 2, "{kept:?}");
    let path = "/v1/tables/docs/docs";
    let json = get(&server, path, &[]).await.text;
    let csv = get(&server, path, &[("accept", "text/csv")]).await.text;
    let (code, scanned, errors) = lantern(&server, &["table", "scan", "docs/docs", "--json"]);
    assert_eq!(code, 0, "{errors}");
    let (code, tail, errors) =
        lantern(&server, &["events", "tail", "--from", "start", "--no-follow", "--json"]);
    assert_eq!(code, 0, "{errors}");
    for (subject, doc) in &kept {
        assert!(json.contains(doc), "{subject}: {json}");
        let quoted = format!("\"{}\"", doc.replace('"', "\"\""));
        assert!(csv.contains(&quoted), "{subject}: {csv}");
        assert!(scanned.replace(' ', "").contains(doc), "{subject}: {scanned}");
        assert!(tail.contains(doc), "{subject}: {tail}");
        let (code, row, errors) = lantern(&server, &["table", "get", "docs/docs", subject]);
        assert_eq!(code, 0, "{row}{errors}");
        assert!(row.contains("kept"), "{row}");
    }
    assert_eq!(csv.matches("kept").count(), kept.len(), "{csv}");
    // The output for people must contain the same values.
    for words in [
        ["table", "scan", "docs/docs"].as_slice(),
        &["events", "tail", "--from", "start", "--no-follow"],
    ] {
        let (code, output, errors) = lantern(&server, words);
        assert_eq!(code, 0, "{words:?}: {output}{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_shows_numbers_as_they_were_sent() {
    let server = folding("docs").await;
    for (subject, doc) in &DOCS[2..] {
        assert_eq!(send(&server, event(subject, doc)).await.status, 200);
    }
    server.caught_up("docs").await.unwrap();
    let mut watch = Command::new(lantern_tests::lantern())
        .args(["--server", &server.url, "--json", "table", "watch", "docs/docs"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(watch.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut lines, &mut first).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    for (subject, doc) in &DOCS[2..] {
        assert!(first.contains(doc), "{subject}: {first}");
    }
}

/// Sends an event in binary mode.
async fn binary(server: &Server, id: &str, media: &str, body: Vec<u8>) {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-source", "/s"),
        ("ce-type", "x.y"),
        ("ce-id", id),
        ("content-type", media),
    ];
    let answer = ask(server, Method::POST, "/v1/events", &headers, body).await;
    assert_eq!(answer.status, 200, "{id}: {}", answer.text);
}

fn events_of(log: Vec<Value>) -> Vec<Value> {
    log.into_iter().map(|logged| logged["event"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_log_is_imported_whole() {
    let server = Server::start(&[]).unwrap();
    binary(&server, "plain", "application/json", b"{}".to_vec()).await;
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    binary(&server, "deep", "application/json", deep.into_bytes()).await;
    binary(&server, "big", "application/octet-stream", vec![0; 800_000]).await;
    let tail = ["--json", "events", "tail", "--from", "start", "--no-follow"];
    let (code, tail, errors) = lantern(&server, &tail);
    assert_eq!(code, 0, "{errors}");
    let ndjson =
        get(&server, "/v1/events?limit=100", &[("accept", "application/x-ndjson")]).await.text;
    let log = events_of(server.log().await.unwrap());
    for (name, export) in [("tail --json", tail), ("NDJSON", ndjson)] {
        let empty = Server::start(&[]).unwrap();
        let mut file = tempfile::Builder::new().suffix(".ndjson").tempfile().unwrap();
        file.write_all(export.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let (code, output, errors) = lantern(&empty, &["--json", "events", "import", path]);
        assert_eq!(code, 0, "{name}: {output}{errors}");
        let imported: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(imported["appended"], 3, "{name}: {imported}");
        assert_eq!(events_of(empty.log().await.unwrap()), log, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_integers_beyond_2_to_the_53_exactly() {
    if crate::browser::no_page() {
        return;
    }
    let server = Server::start(&[]).unwrap();
    server.project("revenue", &guest("revenue"), "").await.unwrap();
    let order = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.placed","time":"2026-03-01T12:00:00Z","data":{"product":"p","quantity":1,"cents":9007199254740993}}"#;
    assert_eq!(send(&server, order).await.status, 200);
    let browser =
        crate::browser::Browser::open(&format!("{}/t/revenue/by_product", server.url)).await;
    browser.shows("9,007,199,254,740,993").await;
}
