//! Whatever is sent: a clear answer, and nothing is lost.

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
    let cases: Vec<(&str, String, u16, &str)> = vec![
        (json, "nonsense".into(), 400, "JSON"),
        (json, "[]".into(), 400, ""),
        (json, "{}".into(), 400, "specversion"),
        (json, event("").replace("1.0", "0.3"), 400, "0.3"),
        (json, event("").replace("\"id\":\"1\"", "\"id\":\"\""), 400, "id"),
        (json, event("").replace(",\"type\":\"t\"", ""), 400, "type"),
        (json, event("").replace("\"t\"", "\"lantern.heartbeat\""), 400, "lantern.heartbeat"),
        (json, event(",\"time\":\"yesterday\""), 400, "yesterday"),
        (json, event(",\"time\":\"2999-01-01T00:00:00Z\""), 400, "2999"),
        (json, event(",\"Bad-Name\":\"x\""), 400, "Bad-Name"),
        (json, event(",\"data\":{\"a\":"), 400, ""),
        (json, event(&format!(",\"data\":\"{long}\"")), 413, ""),
        (json, event(&format!(",\"data\":{}{}", "[".repeat(100), "]".repeat(100))), 400, "64"),
        ("text/html", event(""), 415, "text/html"),
        ("application/cloudevents-batch+json", format!("[{},{{}}]", event("")), 400, ""),
        ("application/x-ndjson", format!("{}\n{{}}\n", event("")), 400, "line 2"),
    ];
    for (kind, body, expected, word) in cases {
        let shown = body[..body.len().min(120)].to_owned();
        let (status, answer) =
            server.request(Method::POST, "/v1/events", kind, body.into_bytes()).await.unwrap();
        assert_eq!(status, expected, "{shown}: {answer}");
        let code = answer["code"].as_str().unwrap_or_default();
        assert!(code.starts_with("LAN-"), "{shown}: {answer}");
        assert!(answer.to_string().contains(word), "{shown}: {answer} does not say {word}");
        assert!(!answer["help"].as_str().unwrap_or_default().is_empty(), "{shown}: {answer}");
        assert_eq!(count(&server).await, 1, "{shown}");
    }
    // With `partial`, the good ones around a bad one are in.
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plugin_is_refused_in_plain_words() {
    let server = Server::start(&[]).unwrap();
    let empty_module = b"\0asm\x01\0\0\0".to_vec();
    let empty_component = b"\0asm\x0d\0\x01\0".to_vec();
    let mut cut = std::fs::read(guest("revenue")).unwrap();
    cut.truncate(cut.len() / 2);
    let cases: [(Vec<u8>, &str); 6] = [
        (Vec::new(), "empty"),
        (b"fn main() {}".to_vec(), "fn main() {}"),
        (b"<html></html>".to_vec(), "an HTML page"),
        (empty_module, "component"),
        (empty_component, "lantern:projection/projector"),
        (cut, ""),
    ];
    for (body, word) in cases {
        let path = "/v1/projections/x/versions";
        let (status, answer) =
            server.request(Method::POST, path, "application/wasm", body).await.unwrap();
        assert!((400..500).contains(&status), "{word}: {status} {answer}");
        assert!(answer["code"].as_str().unwrap().starts_with("LAN-01"), "{answer}");
        assert!(answer.to_string().contains(word), "{answer} does not say {word}");
    }
    let huge = vec![0; 17 << 20];
    let (status, answer) = server
        .request(Method::POST, "/v1/projections/x/versions", "application/wasm", huge)
        .await
        .unwrap();
    assert_eq!(status, 413, "{answer}");
    let parameters = server.push("revenue", &guest("revenue"), r#"{"x":1}"#).await.unwrap();
    assert_eq!(parameters.0, 422, "{parameters:?}");
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
