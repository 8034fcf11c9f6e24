//! Tests inputs of clients: names, encodings and header values.

use std::io::Read as _;
use std::process::{Command, Stdio};

use lantern_tests::Server;
use reqwest::Method;

use super::{ask, send};

const BINARY: [(&str, &str); 3] =
    [("ce-specversion", "1.0"), ("ce-source", "/s"), ("ce-type", "x.y")];

#[tokio::test(flavor = "multi_thread")]
async fn null_members_are_absent_and_long_attribute_names_are_accepted() {
    let server = Server::start(&[]).unwrap();
    let event = |id: u8, more: &str| {
        format!(
            r#"{{"specversion":"1.0","source":"/s","type":"order.placed","time":"2026-03-01T12:00:00Z","data":{{"product":"p","quantity":1,"cents":1}},"id":"{id}",{more}}}"#
        )
    };
    let taken = [
        r#""connectortransactiontotal":null"#,
        r#""connectorTxId":null"#,
        r#""trace_id":null"#,
        r#""abcdefghijklmnopqrstu":"x""#,
        r#""connectortransactiontotal":"7""#,
    ];
    for (id, more) in (0..).zip(taken) {
        let answer = send(&server, event(id, more)).await;
        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
    }
    let log = server.log().await.unwrap();
    for logged in &log[..3] {
        let names: Vec<_> = logged["event"].as_object().unwrap().keys().collect();
        assert!(!names.iter().any(|n| n.contains("onnector") || n.contains("trace")), "{names:?}");
    }
    assert_eq!(log[3]["event"]["abcdefghijklmnopqrstu"], "x");
    assert_eq!(log[4]["event"]["connectortransactiontotal"], "7");
    // A tenant is text. The server may either take a number as its text or refuse it.
    let number = send(&server, event(5, r#""tenant":42"#)).await;
    match number.status {
        200 => assert_eq!(server.log().await.unwrap()[5]["event"]["tenant"], "42"),
        status => assert_eq!(status, 400, "{}", number.text),
    }
}

fn packed(program: &str, text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_are_unpacked_and_unknown_encodings_are_refused() {
    let server = Server::start(&[]).unwrap();
    let binary = |id: &'static str, encoding: &'static str| {
        [BINARY.as_slice(), &[("ce-id", id), ("content-type", "text/plain")]]
            .concat()
            .into_iter()
            .chain([("content-encoding", encoding)])
            .collect::<Vec<_>>()
    };
    let post = Method::POST;
    let gzip = packed("gzip", "a line of plain text");
    let answer = ask(&server, post.clone(), "/v1/events", &binary("1", "gzip"), gzip).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let zstd = zstd::encode_all(&b"another line"[..], 3).unwrap();
    let answer = ask(&server, post.clone(), "/v1/events", &binary("2", "zstd"), zstd).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let line = "{\"specversion\":\"1.0\",\"id\":\"3\",\"source\":\"/s\",\"type\":\"x.y\"}\n";
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let answer = ask(&server, post.clone(), "/v1/events", &headers, packed("gzip", line)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let log = server.log().await.unwrap();
    assert_eq!(log[0]["event"]["data"], "a line of plain text");
    assert_eq!(log[1]["event"]["data"], "another line");
    assert_eq!(log.len(), 3);
    // The bytes do not match the header, or the content coding is unknown.
    let answer = ask(&server, post.clone(), "/v1/events", &binary("4", "gzip"), "plain").await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    let answer = ask(&server, post, "/v1/events", &binary("5", "br"), "plain").await;
    assert_eq!(answer.status, 415, "{}", answer.text);
    let accepted = answer.header("accept-encoding");
    assert!(accepted.contains("gzip") && accepted.contains("zstd"), "{accepted}");
    assert_eq!(server.log().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_that_unpacks_to_more_than_the_limit_is_refused() {
    let server = Server::start(&[]).unwrap();
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(64 << 20), 3).unwrap();
    assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
    for media in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
        let headers = [("content-type", media), ("content-encoding", "zstd")];
        let answer = ask(&server, Method::POST, "/v1/events", &headers, bomb.clone()).await;
        assert_eq!(answer.status, 413, "{media}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quoted_and_encoded_header_values_are_decoded() {
    let server = Server::start(&[]).unwrap();
    let subject = r#""say \"hi\" \\ 5%20%E2%82%AC""#;
    let headers = [
        &BINARY,
        [("ce-id", "1"), ("ce-subject", subject), ("content-type", "application/json")].as_slice(),
    ]
    .concat();
    let answer = ask(&server, Method::POST, "/v1/events", &headers, "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let log = server.log().await.unwrap();
    assert_eq!(log[0]["event"]["subject"], r#"say "hi" \ 5 €"#);
}
