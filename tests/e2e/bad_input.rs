//! Tests that the server answers every invalid input with a clear error, and loses no data.

use std::path::Path;

use lantern_tests::{Server, guest, run};
use reqwest::Method;

use crate::line;

async fn count(server: &Server) -> u64 {
    server.get("/v1/events?partition=0&limit=1").await.unwrap()["end"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_event_is_refused_with_a_code_and_its_value_and_nothing_is_appended() {
    let server = Server::start(&[]).unwrap();
    server.events(line("good", "a.b", "s", "{}")).await.unwrap();
    let json = "application/cloudevents+json";
    let event = |more: &str| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"{more}}}")
    };
    let long = "x".repeat(2 << 20);
    let batch = "application/cloudevents-batch+json";
    let lines = "application/x-ndjson";
    let body = |replaced: &str, by: &str| event("").replace(replaced, by);
    let nested = format!(",\"data\":{}{}", "[".repeat(100), "]".repeat(100));
    let cases: Vec<(&str, String, u16, &str, &str)> = vec![
        (json, "nonsense".into(), 400, "LAN-0301", "JSON"),
        (json, "[]".into(), 400, "LAN-0301", "[]"),
        (json, event(",\"data\":{\"a\":"), 400, "LAN-0301", "column 67"),
        (json, event(",\"data\":\"\u{1}\""), 400, "LAN-0301", "control character"),
        (json, event(&format!(",\"data\":\"{long}\"")), 413, "LAN-0302", "1048576"),
        (json, event(&nested), 400, "LAN-0303", "64"),
        (json, "{}".into(), 400, "LAN-0304", "specversion"),
        (json, body("\"id\":\"1\"", "\"id\":\"\""), 400, "LAN-0304", "id"),
        (json, body(",\"type\":\"t\"", ""), 400, "LAN-0304", "type"),
        (json, body("\"id\":\"1\"", "\"id\":17"), 400, "LAN-0305", "17"),
        (json, event(",\"Bad-Name\":\"x\""), 400, "LAN-0305", "Bad-Name"),
        (json, event(",\"id\":\"2\""), 400, "LAN-0305", "twice"),
        (json, event(",\"tenant\":\"a\\u0000b\""), 400, "LAN-0305", "control"),
        (json, body("1.0", "0.3"), 400, "LAN-0306", "0.3"),
        (json, body("\"t\"", "\"lantern.heartbeat\""), 400, "LAN-0307", "lantern.heartbeat"),
        (json, event(",\"time\":\"yesterday\""), 400, "LAN-0308", "yesterday"),
        (json, event(",\"time\":\"2999-01-01T00:00:00Z\""), 400, "LAN-0309", "2999"),
        (json, event(",\"data\":1,\"data_base64\":\"\""), 400, "LAN-0310", "both"),
        (json, event(",\"data_base64\":\"*\""), 400, "LAN-0310", "base64"),
        ("text/html", event(""), 415, "LAN-0312", "text/html"),
        ("", event(""), 415, "LAN-0312", "Content-Type"),
        (batch, " ".repeat(17 << 20), 413, "LAN-0313", "16777216"),
        (batch, format!("[{},{{}}]", event("")), 400, "LAN-0314", "1 of 2"),
        (lines, format!("{}\n{{}}\n", event("")), 400, "LAN-0314", "line 2"),
    ];
    for (kind, body, expected, expected_code, word) in cases {
        let shown = body[..body.len().min(120)].to_owned();
        let (status, answer) =
            server.request(Method::POST, "/v1/events", kind, body.into_bytes()).await.unwrap();
        assert_eq!(status, expected, "{shown}: {answer}");
        assert_eq!(answer["code"], expected_code, "{shown}: {answer}");
        assert!(answer.to_string().contains(word), "{shown}: {answer} does not say {word}");
        assert!(!answer["help"].as_str().unwrap_or_default().is_empty(), "{shown}: {answer}");
        assert_eq!(count(&server).await, 1, "{shown}");
    }
    // With `partial`, the server appends the valid events around an invalid one.
    let body = format!("{}{{}}\n{}", line("a", "a.b", "s", "{}"), line("b", "a.b", "s", "{}"));
    let (status, answer) = server
        .request(Method::POST, "/v1/events?partial=true", "application/x-ndjson", body.into())
        .await
        .unwrap();
    assert!(status < 300, "{answer}");
    assert_eq!((&answer["appended"], &answer["rejected"]), (&2.into(), &1.into()), "{answer}");
    assert_eq!(count(&server).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_twice_is_in_the_log_once_also_after_a_restart() {
    let mut server = Server::start(&[]).unwrap();
    server.events(line("x", "a.b", "s", "{}")).await.unwrap();
    let again = server.events(line("x", "a.b", "s", "{}")).await.unwrap();
    assert_eq!((&again["appended"], &again["duplicates"]), (&0.into(), &1.into()));
    server.kill().unwrap();
    server.restart().unwrap();
    let again = server.events(line("x", "a.b", "s", "{}")).await.unwrap();
    assert_eq!(again["duplicates"], 1);
    assert_eq!(count(&server).await, 1);
}

/// The sections of a core module that imports `f` from `env`: `(type (func))`,
/// `(import "env" "f" (func 0))`.
const FOREIGN_IMPORT: &[u8] = b"\x01\x04\x01\x60\0\0\x02\x09\x01\x03env\x01f\0\0";
/// The sections of a component that imports an interface of another world:
/// `(type (instance))`, `(import "shop:cart/prices@2.0.0" (instance (type 0)))`.
const OTHER_WORLD: &[u8] = b"\x07\x03\x01\x42\0\x0a\x1b\x01\0\x16shop:cart/prices@2.0.0\x05\0";

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_plugin_are_refused_in_plain_words() {
    let server = Server::start(&[]).unwrap();
    let empty_module = b"\0asm\x01\0\0\0".to_vec();
    let empty_component = b"\0asm\x0d\0\x01\0".to_vec();
    let mut cut = std::fs::read(guest("revenue")).unwrap();
    cut.truncate(cut.len() / 2);
    let foreign = [&empty_module[..], FOREIGN_IMPORT].concat();
    let other_world = [&empty_component[..], OTHER_WORLD].concat();
    let cases: [(Vec<u8>, &str, &str); 8] = [
        (Vec::new(), "LAN-0101", "empty"),
        (b"fn main() {}".to_vec(), "LAN-0101", "fn main() {}"),
        (b"<html></html>".to_vec(), "LAN-0101", "an HTML page"),
        (cut, "LAN-0107", "unexpected"),
        (empty_module, "LAN-0104", "component"),
        (foreign, "LAN-0105", "env"),
        (empty_component, "LAN-0112", "lantern:projection/projector"),
        (other_world, "LAN-0108", "shop:cart/prices@2.0.0"),
    ];
    for (body, code, word) in cases {
        let path = "/v1/projections/x/versions";
        let (status, answer) =
            server.request(Method::POST, path, "application/wasm", body).await.unwrap();
        assert_eq!((status, answer["code"].as_str()), (422, Some(code)), "{answer}");
        assert!(answer.to_string().contains(word), "{answer} does not say {word}");
    }
    let path = "/v1/projections/x/versions";
    let (status, answer) =
        server.request(Method::POST, path, "text/plain", b"x".to_vec()).await.unwrap();
    assert_eq!((status, answer["code"].as_str()), (415, Some("LAN-0411")), "{answer}");
    assert!(answer.to_string().contains("text/plain"), "{answer}");
    let huge = vec![0; 33 << 20];
    let (status, answer) = server
        .request(Method::POST, "/v1/projections/x/versions", "application/wasm", huge)
        .await
        .unwrap();
    assert_eq!((status, answer["code"].as_str()), (413, Some("LAN-0102")), "{answer}");
    let (status, answer) = server.push("revenue", &guest("revenue"), r#"{"x":1}"#).await.unwrap();
    assert_eq!((status, answer["code"].as_str()), (422, Some("LAN-0120")), "{answer}");
    // No refused upload may leave a projection.
    assert_eq!(server.get("/v1/projections").await.unwrap()["projections"], serde_json::json!([]));
}

#[test]
fn a_second_process_on_the_same_folder_says_who_has_it() {
    let server = Server::start(&[]).unwrap();
    let data = server.folder().to_str().unwrap();
    let output = run(&["serve", "--data", data, "--listen", "127.0.0.1:0"]).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("LAN-0002") && text.contains(&server.pid().to_string()), "{text}");
}

#[test]
fn a_wrong_setting_and_a_public_address_stop_the_server_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refused = |arguments: &[&str], words: &[&str]| {
        let mut all = vec!["serve", "--data", data.to_str().unwrap()];
        all.extend(arguments);
        let output = run(&all).unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for word in words {
            assert!(text.contains(word), "{text} does not say {word}");
        }
    };
    refused(&["--set", "engine.thread=1"], &["LAN-0001", "engine.thread", "threads"]);
    refused(&["--listen", "0.0.0.0:0"], &["LAN-0003", "0.0.0.0", "loopback"]);
    assert!(!Path::new(&data).join("log.redb").exists());
}
