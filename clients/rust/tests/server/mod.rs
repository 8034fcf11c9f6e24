//! Serves a feed over loopback TCP to the client.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use lantern_client::Options;
use lantern_live::{Hub, accept_key};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The maximum time that a test waits for something.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server on loopback. A test can replace its feed, and its connections can be cut.
pub struct Server {
    pub url: String,
    hub: Arc<Mutex<Arc<Hub>>>,
    pub sessions: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    pub async fn start(hub: Arc<Hub>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/feed", listener.local_addr().unwrap());
        let hub = Arc::new(Mutex::new(hub));
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let (of, all) = (hub.clone(), sessions.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let hub = of.lock().clone();
                all.lock().push(tokio::spawn(async move {
                    if let Some(socket) = upgrade(socket).await {
                        hub.serve(socket, std::future::pending()).await;
                    }
                }));
            }
        });
        Self { url, hub, sessions }
    }

    /// Cuts every connection without a close frame.
    pub fn cut(&self) {
        self.sessions.lock().drain(..).for_each(|session| session.abort());
    }

    /// Replaces the hub, which has the same effect as a restart of the server.
    pub fn restart(&self, hub: Arc<Hub>) {
        *self.hub.lock() = hub;
        self.cut();
    }
}

/// Accepts the upgrade of a connection to WebSocket, as a server does.
pub async fn upgrade(mut socket: TcpStream) -> Option<TcpStream> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(socket.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).unwrap();
    let header = |name: &str| {
        let line = request.lines().find(|line| line.to_lowercase().starts_with(name));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    assert_eq!(header("sec-websocket-protocol").as_deref(), Some(lantern_live::SUBPROTOCOL));
    let accept = accept_key(header("sec-websocket-key").unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: {}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
        lantern_live::SUBPROTOCOL
    );
    socket.write_all(answer.as_bytes()).await.ok()?;
    Some(socket)
}

pub fn options() -> Options {
    Options {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        shutdown_spread: Duration::from_millis(5),
        ..Options::default()
    }
}

/// Waits for `future`, at most [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}
