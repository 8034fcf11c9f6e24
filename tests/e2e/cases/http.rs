//! Tests that HTTP and WebSocket follow their standards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use lantern_tests::{PATIENCE, Server};
use reqwest::Method;

use super::{ask, get};

const ORIGIN: &str = "https://dash.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_origin_may_read_answers_and_errors_of_the_api() {
    let server = Server::start(&[&format!("http.origins=[\"{ORIGIN}\"]")]).unwrap();
    for (path, status) in [("/v1/status", 200), ("/v1/nothing", 404), ("/v1/tables/a/b", 404)] {
        let answer = get(&server, path, &[("origin", ORIGIN)]).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN, "{path}");
        let varies = answer.header("vary").to_ascii_lowercase();
        assert!(varies.contains("origin"), "{path}: {varies}");
        assert!(!answer.header("access-control-expose-headers").is_empty(), "{path}");
    }
    let headers = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let preflight = ask(&server, Method::OPTIONS, "/v1/events", &headers, "").await;
    assert_eq!(preflight.status, 204, "{}", preflight.text);
    assert_eq!(preflight.header("access-control-allow-origin"), ORIGIN);
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    let allowed = preflight.header("access-control-allow-headers").to_ascii_lowercase();
    assert!(allowed.contains("content-type"), "{allowed}");
    // A page of another origin must get none of these headers.
    let other = get(&server, "/v1/status", &[("origin", "https://evil.example")]).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
}

/// Sends bytes, and reads until the header part of an answer is complete.
fn exchange(server: &Server, request: &str) -> (TcpStream, String) {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_outlives_the_time_for_headers() {
    let server = Server::start(&["http.headers_ms_max=1000"]).unwrap();
    let (mut stream, head) = exchange(&server, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let mut body = [0; 3];
    stream.read_exact(&mut body).unwrap();
    // The server must send no byte and keep the connection open for three times its limit on the
    // time for headers.
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let silence = stream.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut again = [0; 12];
    stream.read_exact(&mut again).unwrap();
    assert_eq!(&again, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_refused_says_what_would_be_accepted() {
    let server = Server::start(&[]).unwrap();
    let ask = |more: &str| {
        let request = format!("GET /v1/feed HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        exchange(&server, &request).1
    };
    let upgrade =
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: lantern.v1.json\r\n";
    let line = |head: &str, line: &str| head.lines().any(|found| found == line);

    let plain = ask("");
    assert!(plain.starts_with("http/1.1 426"), "{plain}");
    assert!(line(&plain, "upgrade: websocket") && line(&plain, "connection: upgrade"), "{plain}");

    let key = "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let version = ask(&format!("{upgrade}{key}sec-websocket-version: 8\r\n"));
    assert!(version.starts_with("http/1.1 426"), "{version}");
    assert!(line(&version, "upgrade: websocket"), "{version}");
    assert!(line(&version, "sec-websocket-version: 13"), "{version}");

    let short = ask(&format!("{upgrade}sec-websocket-key: short\r\nsec-websocket-version: 13\r\n"));
    assert!(short.starts_with("http/1.1 400"), "{short}");

    let good = ask(&format!("{upgrade}{key}sec-websocket-version: 13\r\n"));
    assert!(good.starts_with("http/1.1 101"), "{good}");
}
