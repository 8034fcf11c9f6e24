use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::*;
use crate::{Server, StartError};

/// Sends one request on a connection of its own, and returns the whole answer.
async fn raw(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Lists the clients of the feed.
const CLIENTS: &str =
    "GET /v1/feed/clients HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn push(body: &str) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_server_keeps_what_it_acknowledged_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2_u32 {
        let server = Server::start(config(dir.path())).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run_until(async {
            stopped.await.unwrap();
        }));
        let answer = raw(address, &push(&event("same", "t", "s"))).await;
        let expected = format!("\"duplicates\":{round}");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&expected), "{answer}");

        let other = Server::start(config(dir.path())).await.err().unwrap();
        assert!(
            matches!(&other, StartError::InUse { pid: Some(pid), .. } if *pid == std::process::id())
        );
        assert_eq!(other.code(), "LAN-0002");
        assert!(other.help().contains("--data"));

        stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn addresses_that_others_reach_are_refused_and_taken_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut public = config(dir.path());
    public.http.listen = "0.0.0.0:0".parse().unwrap();
    let error = Server::start(public).await.err().unwrap();
    assert_eq!(error.code(), "LAN-0003");
    assert!(error.to_string().contains("`0.0.0.0:0`") && error.help().contains("proxy"));
    assert!(!dir.path().join("data").exists());

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut second = config(dir.path());
    second.http.listen = taken.local_addr().unwrap();
    let error = Server::start(second).await.err().unwrap();
    assert_eq!(error.code(), "LAN-0004");
}

#[tokio::test]
async fn a_feed_shows_rows_as_they_come_and_ends_with_4501_at_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config(dir.path())).await.unwrap();
    let address = server.address();
    let engine = Arc::clone(server.engine());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run_until(async {
        stopped.await.unwrap();
    }));
    let upload = unchecked(counts());
    tokio::task::spawn_blocking(move || engine.upload(upload)).await.unwrap().unwrap();
    raw(address, &push(&event("1", "t", "first"))).await;

    let mut request = format!("ws://{address}/v1/feed").into_client_request().unwrap();
    let subprotocol = lantern_live::SUBPROTOCOL.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", subprotocol);
    let stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], lantern_live::SUBPROTOCOL);
    let hello = r#"{"t":"hello"}"#;
    let sub = r#"{"t":"sub","id":1,"table":"counts/by_subject"}"#;
    socket.send(Message::text(hello)).await.unwrap();
    socket.send(Message::text(sub)).await.unwrap();

    let (mut keys, mut sent, mut stop) = (std::collections::BTreeSet::new(), false, Some(stop));
    let watching = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    for rows in [&frame["rows"], &frame["up"]] {
                        keys.extend(rows.as_object().into_iter().flatten().map(|(k, _)| k.clone()));
                    }
                    // If the projection has no active version yet, the test subscribes again.
                    if frame["t"] == "err" {
                        socket.send(Message::text(sub)).await.unwrap();
                    }
                    if keys.contains("first") && !sent {
                        sent = true;
                        raw(address, &push(&event("2", "t", "second"))).await;
                    }
                    if keys.contains("second")
                        && let Some(stop) = stop.take()
                    {
                        let listed = raw(address, CLIENTS).await;
                        for words in [
                            format!("\"address\":\"{own}\""),
                            "\"open\":1".to_owned(),
                            "\"table\":\"counts/by_subject\"".to_owned(),
                        ] {
                            assert!(listed.contains(&words), "{listed} does not say {words}");
                        }
                        stop.send(()).unwrap();
                    }
                }
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => (),
                other => panic!("the feed ended: {other:?}"),
            }
        }
    };
    let code = tokio::time::timeout(PATIENCE, watching).await.expect("the rows never came");
    assert_eq!(code, lantern_live::close::SHUTTING_DOWN);
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}
