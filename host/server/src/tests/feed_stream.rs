//! Tests the feed as an event stream, with sockets where the connection matters.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::Server;

/// Returns `text` as the value of a parameter.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'_' | b'-' => {
            text + &char::from(byte).to_string()
        }
        _ => text + &format!("%{byte:02X}"),
    })
}

fn target(subs: &[&str]) -> String {
    let subs: Vec<_> = subs.iter().map(|sub| format!("sub={}", encoded(sub))).collect();
    format!("/v1/feed/sse?{}", subs.join("&"))
}

/// A server on a socket with the projection `counts`.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        let (address, engine) = (server.address(), Arc::clone(server.engine()));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run_until(async {
            let _ = stopped.await;
        }));
        let upload = unchecked(counts());
        tokio::task::spawn_blocking(move || engine.upload(upload)).await.unwrap().unwrap();
        let running = Self { address, stop, server, _dir: dir };
        running.until("/v1/tables/counts/by_subject", "200 OK").await;
        running
    }

    /// Sends one request on a connection of its own, and returns the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    async fn get(&self, target: &str) -> String {
        let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close";
        self.ask(&format!("GET {target} {head}\r\n\r\n")).await
    }

    /// Repeats a request until its answer contains `words`.
    async fn until(&self, target: &str, words: &str) -> String {
        let repeated = async {
            loop {
                let answer = self.get(target).await;
                if answer.contains(words) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answer = timeout(PATIENCE, repeated).await;
        answer.unwrap_or_else(|_| panic!("`{target}` never contains {words}"))
    }

    async fn push(&self, lines: &str) {
        let answer = self
            .ask(&format!(
                "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                 content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{lines}",
                lines.len()
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// A client of an event stream. It uses HTTP/1.0, so that its answer is not cut into chunks.
struct Client {
    stream: BufReader<TcpStream>,
    cursor: String,
}

impl Client {
    async fn open(address: SocketAddr, target: &str, headers: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut client = Self { stream: BufReader::new(stream), cursor: String::new() };
        let request = format!("GET {target} HTTP/1.0\r\nhost: localhost\r\n{headers}\r\n");
        client.stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while head.last().is_none_or(|line: &String| !line.is_empty()) {
            head.push(client.line().await.to_lowercase());
        }
        assert!(head[0].contains("200"), "{head:?}");
        for line in [
            "content-type: text/event-stream",
            "cache-control: no-cache, no-transform",
            "x-accel-buffering: no",
            "connection: close",
        ] {
            assert!(head.iter().any(|found| found == line), "no {line} in {head:?}");
        }
        client
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    /// Reads up to the next event of this kind, and returns its data.
    async fn next(&mut self, event: &str) -> Value {
        loop {
            let line = self.line().await;
            if let Some(cursor) = line.strip_prefix("id: ") {
                cursor.clone_into(&mut self.cursor);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if data["t"] == event {
                    return data;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_event_stream_resumes_by_header_or_parameter_and_ends_with_4501_at_shutdown() {
    let server = Running::new(|_| ()).await;
    server.push(&event("1", "t", "first")).await;
    server.until("/v1/tables/counts/by_subject", "first").await;
    let filtered = r#"{"table":"counts/by_subject","where":[["count",">",1]]}"#;
    let target = target(&["counts/by_subject", filtered]);
    let mut client = Client::open(server.address, &target, "").await;
    assert_eq!(client.next("welcome").await["limits"]["subs"], 64);
    let snaps = [client.next("snap").await, client.next("snap").await];
    for snap in &snaps {
        let whole = snap["ch"] == 1;
        assert_eq!(snap["rows"].get("first").is_some(), whole, "{snaps:?}");
    }
    assert_ne!(snaps[0]["ch"], snaps[1]["ch"]);
    let own = client.stream.get_ref().local_addr().unwrap();
    let listed = server.get("/v1/feed/clients").await;
    for words in [format!("\"address\":\"{own}\""), "\"transport\":\"sse\"".into()] {
        assert!(listed.contains(&words), "{listed} does not say {words}");
    }
    let cursor = client.cursor.clone();
    drop(client);
    server.until("/v1/feed/clients", "\"open\":0").await;

    server.push(&event("2", "t", "first")).await;
    let header = format!("last-event-id: {cursor}\r\n");
    let parameter = format!("{target}&resume={cursor}");
    let other = format!("{target}&resume=other");
    let mut clients = Vec::new();
    for (target, headers) in [(&target, &*header), (&parameter, ""), (&other, &*header)] {
        let mut client = Client::open(server.address, target, headers).await;
        for _ in 0..2 {
            let ok = client.next("ok").await;
            assert_eq!(ok["resumed"], true, "{ok}");
        }
        for _ in 0..2 {
            let delta = client.next("delta").await;
            assert_eq!(delta["up"]["first"]["count"], 2, "{delta}");
        }
        clients.push(client);
    }
    server.stop.send(()).unwrap();
    for mut client in clients {
        let close = client.next("close").await;
        assert_eq!(close["code"], lantern_live::close::SHUTTING_DOWN);
        let mut rest = String::new();
        timeout(PATIENCE, client.stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest.trim(), "");
    }
    timeout(PATIENCE, server.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn event_streams_are_not_counted_as_connections_for_requests() {
    let server = Running::new(|config| {
        config.http.connections_max = 2;
        config.live.sessions_max = 5;
    })
    .await;
    let target = target(&["counts/by_subject"]);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::open(server.address, &target, "").await;
        client.next("snap").await;
        clients.push(client);
    }
    let refused = server.get(&target).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("LAN-0444") && refused.contains("live.sessions_max"), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: "), "{refused}");
    // A request for a table needs a connection that is not reserved.
    let answer = server.get("/v1/tables/counts/by_subject").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_of_an_event_stream_that_reads_nothing_is_cut() {
    let server = Running::new(|config| config.live.stall_ms = 300).await;
    // The rows do not fit into the buffers of the system.
    for batch in 0..4 {
        let lines = (0..2_000).map(|n| {
            let id = format!("{batch}-{n}");
            event(&id, "t", &format!("{id}-{}", "x".repeat(900))) + "\n"
        });
        server.push(&lines.collect::<String>()).await;
    }
    server.until("/v1/tables/counts/by_subject?prefix=3-1999-&cols=count", "3-1999-").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let request =
        format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", target(&["counts/by_subject"]));
    stream.write_all(request.as_bytes()).await.unwrap();
    server.until("/v1/feed/clients", "\"frames_waiting\":1").await;
    server.until("/v1/feed/clients", "\"open\":0").await;
    let mut read = Vec::new();
    // The system reports the cut as a reset if bytes were not delivered.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the server cuts");
    assert!(read.len() < 14_000_000, "{}", read.len());
}

#[tokio::test]
async fn a_wrong_event_stream_is_refused_with_the_field_and_the_fix() {
    let fixture = Fixture::with(|config| config.live.subs_max = 2);
    fixture.project(counts()).await;
    let table = "counts/by_subject";
    let check = async |subs: &[&str], code: &str, status: u16, words: &str| {
        let answer = fixture.get(&target(subs)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer.is_problem(code, words);
        answer.json()
    };
    fixture.get("/v1/feed/sse").await.is_problem("LAN-0403", "`sub` is missing");
    fixture.get("/v1/feed/sse?table=x").await.is_problem("LAN-0403", "`table`");
    fixture.get("/v1/feed/sse?sub=a/b&resume=x&resume=y").await.is_problem("LAN-0403", "`resume`");
    let problem =
        check(&[table, r#"{"table":"#], "LAN-0426", 400, "in subscription 2: `sub`").await;
    assert_eq!((&problem["sub"], &problem["parameter"]), (&json!(2), &json!("sub")));
    let wrong = r#"{"table":"counts/by_subject","where":[["coun",">",1]]}"#;
    let problem = check(&[wrong], "LAN-0426", 400, "did you mean `count`?").await;
    assert_eq!(problem["parameter"], "where");
    check(&["counts"], "LAN-0426", 400, "`projection/table`").await;
    check(&[table, "counts/none"], "LAN-0404", 404, "`counts/none`").await;
    let problem = check(&[table, table, table], "LAN-0427", 400, "2 subscriptions").await;
    assert_eq!(problem["setting"], "live.subs_max");
    let rollup = r#"{"table":"counts/by_subject","rollup":{"by":["none"]}}"#;
    check(&[rollup], "LAN-0426", 400, "`none`").await;
    fixture.app.tasks.stopping.cancel();
    check(&[table], "LAN-0215", 503, "shutting down").await;
}
