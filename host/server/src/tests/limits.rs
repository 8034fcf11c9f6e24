//! Tests limits that need a socket or several requests at the same time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::*;
use crate::Server;

/// Starts a server on a socket. It stops when the sender is dropped.
async fn serve(change: impl FnOnce(&mut ServerConfig)) -> (SocketAddr, oneshot::Sender<()>) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let server = Server::start(config).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let _dir = dir;
        server
            .run_until(async {
                let _ = stopped.await;
            })
            .await;
    });
    (address, stop)
}

/// Reads everything that arrives, until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes").unwrap();
    String::from_utf8(answer).unwrap()
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/cloudevents+json\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn headers_and_bodies_that_do_not_come_end_the_connection() {
    let (address, _stop) = serve(|config| {
        config.http.headers_ms_max = 100;
        config.http.body_idle_ms_max = 100;
    })
    .await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
    let answer = rest(&mut half).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("LAN-0417"), "{answer}");

    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(format!("{}{{", head(1_000)).as_bytes()).await.unwrap();
    let answer = rest(&mut half).await;
    assert!(answer.contains("LAN-0408") && answer.contains("paused"), "{answer}");
}

#[tokio::test]
async fn headers_larger_than_their_buffer_are_refused() {
    let (address, _stop) = serve(|_| ()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("LAN-0416"), "{answer}");
}

#[tokio::test]
async fn a_request_that_is_no_http_gets_a_problem_on_any_request_of_a_connection() {
    let (address, _stop) = serve(|_| ()).await;
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for bad in [
        "GET\r\n\r\n",
        "nonsense\r\n\r\n",
        "G\u{7f}T / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /?key=%zz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        for before in ["", good] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{before}{bad}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = rest(&mut stream).await;
            if !before.is_empty() {
                let end = answer.find("ok\n").expect("the first request is answered") + 3;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                answer = answer.split_off(end);
            }
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            assert!(head.starts_with("HTTP/1.1 4"), "{bad:?}: {head}");
            assert!(head.contains(crate::PROBLEM), "{bad:?}: {head}");
            let problem: Value = serde_json::from_str(body).unwrap();
            assert!(problem["code"].as_str().unwrap().starts_with("LAN-04"), "{bad:?}: {body}");
        }
    }
}

#[tokio::test]
async fn an_idle_connection_stays_open_past_the_time_for_headers() {
    let (address, _stop) = serve(|config| {
        config.http.headers_ms_max = 50;
        config.http.idle_ms_max = 400;
    })
    .await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut piece = [0; 1_024];
    let started = Instant::now();
    for _ in 0..2 {
        stream.write_all(ask).await.unwrap();
        assert!(timeout(PATIENCE, stream.read(&mut piece)).await.unwrap().unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(rest(&mut stream).await, "", "an idle connection ends without a word");
    assert!(started.elapsed() > Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_too_many_is_for_administration_alone_and_one_more_waits() {
    let (address, _stop) = serve(|config| {
        config.http.connections_max = 1;
        config.http.connections_reserved = 1;
    })
    .await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    // The only unreserved connection is in use, because the body of its request does not end.
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(format!("{}{{", head(1_000)).as_bytes()).await.unwrap();
    for (path, status, words) in [
        ("/healthz", "200", "ok"),
        ("/readyz", "200", "ready"),
        ("/metrics", "200", "lantern_"),
        ("/v1/projections", "200", "projections"),
        ("/v1/events", "503", "LAN-0420"),
    ] {
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(ask(path).as_bytes()).await.unwrap();
        let answer = rest(&mut second).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(words), "{path}: {answer}");
        assert!(answer.contains("connection: close"), "{path}: {answer}");
    }
    // The reserved connection is in use too, so the next client has to wait for it.
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(ask("/healthz").as_bytes()).await.unwrap();
    second.write_all(b"alhost\r\n\r\n").await.unwrap();
    assert!(rest(&mut second).await.contains("200"));
    assert!(rest(&mut third).await.contains("200"));
    drop(first);
}

#[tokio::test]
async fn a_pending_request_is_cut_off_at_the_end_of_a_shutdown() {
    let (address, stop) = serve(|config| config.http.shutdown_ms_max = 100).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(format!("{}{{", head(1_000)).as_bytes()).await.unwrap();
    // A later connection gets an answer, so this one was accepted.
    let mut other = TcpStream::connect(address).await.unwrap();
    let ask = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    other.write_all(ask.as_bytes()).await.unwrap();
    rest(&mut other).await;
    let started = Instant::now();
    stop.send(()).unwrap();
    let mut answer = Vec::new();
    let _ =
        timeout(PATIENCE, half.read_to_end(&mut answer)).await.expect("the connection is cut off");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_sees_the_reason() {
    let (address, _stop) = serve(|config| config.http.body_bytes_max = 1 << 20).await;
    let body = vec![b'x'; 8 << 20];
    for (path, host, kind, code) in [
        ("/v1/events", "localhost", "text/html", "LAN-0312"),
        ("/v1/events", "evil.example", "application/x-ndjson", "LAN-0409"),
        ("/nowhere", "localhost", "text/html", "LAN-0401"),
        ("/v1/status", "localhost", "text/html", "LAN-0402"),
        ("/v1/events", "localhost", "application/cloudevents-batch+json", "LAN-0313"),
        ("/v1/events", "localhost", "application/x-ndjson", "LAN-0302"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let sent = timeout(PATIENCE, stream.write_all(&body)).await.unwrap();
        sent.unwrap_or_else(|error| panic!("{code}: cut off while sending: {error}"));
        let answer = rest(&mut stream).await;
        assert!(answer.contains(code), "{code}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_ends_at_its_limit_of_bytes_and_names_a_cursor() {
    let fixture = Fixture::with(|config| config.http.query_bytes_max = 1_024);
    let lines: String =
        (0..100).map(|n| event(&n.to_string(), "t", &format!("s{n}")) + "\n").collect();
    fixture.post("/v1/events", "application/x-ndjson", lines).await.expect_ok();
    let page = fixture.get("/v1/events?limit=100").await.expect_ok().json();
    let events = page["events"].as_array().unwrap().len();
    assert!((1..30).contains(&events) && page["next"] == events, "{events} events");
    fixture.project(counts()).await;
    let path = "/v1/tables/counts/by_subject";
    let whole = |answer: &Answer| answer.headers.get("lantern-commit").is_some();
    let page = fixture.until(path, |a| whole(a) && !a.json()["next"].is_null()).await.json();
    let rows = page["rows"].as_object().unwrap().len();
    assert!((1..100).contains(&rows), "{rows} rows");
}

#[tokio::test]
async fn an_answer_names_no_more_bad_events_than_allowed() {
    let fixture = Fixture::with(|config| config.ingest.errors_max = 3);
    let batch = format!("[{}]", ["{}"; 10].join(","));
    let answer = fixture.post("/v1/events", crate::cloudevents::BATCH, batch).await;
    answer.is_problem("LAN-0314", "10 of 10");
    assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn no_more_large_bodies_and_queries_are_held_than_allowed() {
    let fixture = Fixture::with(|config| {
        config.http.bodies_max = 1;
        config.http.queries_max = 1;
    });
    let held = Arc::clone(&fixture.app.permits.bodies).acquire_owned().await.unwrap();
    let large = format!("[{}]", " ".repeat(100_000));
    let request = || {
        let length = large.len().to_string();
        let headers =
            [(CONTENT_TYPE.as_str(), crate::cloudevents::BATCH), ("content-length", &*length)];
        request(Method::POST, "/v1/events", &headers, large.clone())
    };
    let waits = timeout(Duration::from_millis(50), fixture.send(request())).await;
    assert!(waits.is_err(), "two large bodies are held at a time");
    drop(held);
    fixture.send(request()).await.expect_ok();

    let held = fixture.app.permits.reads.acquire().await.unwrap();
    let waits = timeout(Duration::from_millis(50), fixture.get("/v1/events")).await;
    assert!(waits.is_err(), "two queries run at a time");
    drop(held);
    fixture.get("/v1/events").await.expect_ok();
}

#[tokio::test]
async fn no_more_rows_are_asked_for_than_allowed() {
    let fixture = Fixture::with(|config| config.http.query_rows_max = 5);
    let answer = fixture.get("/v1/events?limit=6").await;
    answer.is_problem("LAN-0403", "`limit` is 6: it must be 1 to 5");
    fixture.get("/v1/events?limit=5").await.expect_ok();
}

#[tokio::test]
async fn an_upload_larger_than_its_form_may_be_is_refused() {
    let fixture = Fixture::with(|config| config.http.upload_bytes_max = 1_000);
    let path = "/v1/projections/x/versions";
    let answer = fixture.post(path, "application/wasm", vec![0; 1_001]).await;
    answer.is_problem("LAN-0313", "1000");
}
