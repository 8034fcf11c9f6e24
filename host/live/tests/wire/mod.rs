//! Implements a test client that reads and writes the protocol's messages itself, over a pipe.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_api::feed::ServerMessage;
use lantern_live::{Hub, SessionEnd};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The time that a test waits for a message before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the feed for tests.
pub struct Wire {
    pub ws: WebSocketStream<DuplexStream>,
    pub session: JoinHandle<SessionEnd>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Wire {
    /// Connects the client, which then sends nothing.
    pub async fn silent(hub: &Arc<Hub>, buffer: usize) -> Self {
        let (near, far) = tokio::io::duplex(buffer);
        let (shutdown, down) = oneshot::channel::<()>();
        let down = async move {
            if down.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let session = tokio::spawn(hub.clone().serve(near, down));
        let ws = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        Self { ws, session, shutdown: Some(shutdown) }
    }

    /// Connects the client, sends `hello` and receives `welcome`.
    pub async fn open(hub: &Arc<Hub>) -> Self {
        let mut wire = Self::silent(hub, 1 << 20).await;
        wire.say(json!({"t":"hello"})).await;
        assert_eq!(wire.hear().await["t"], "welcome");
        wire
    }

    /// Connects the client and subscribes to a table.
    pub async fn subscribed(hub: &Arc<Hub>, table: &str) -> Self {
        let mut wire = Self::open(hub).await;
        wire.say(json!({"t":"sub","id":1,"table":table})).await;
        assert_eq!(wire.hear().await["t"], "ok");
        wire
    }

    pub async fn say(&mut self, message: Value) {
        self.ws.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Returns the next message that is not a ping.
    pub async fn hear(&mut self) -> Value {
        loop {
            let heard = self.hear_any().await;
            if heard["t"] != "ping" {
                return heard;
            }
        }
    }

    pub async fn hear_any(&mut self) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.ws.next()).await;
        match message.expect("the server says something") {
            Some(Ok(Message::Text(text))) => {
                // Parsing a frame and writing the result again must give the same bytes.
                let message = ServerMessage::parse(&text).unwrap().expect("a known kind");
                assert_eq!(message.text(), text.as_str());
                serde_json::from_str(&text).unwrap()
            }
            other => panic!("no message but {other:?}"),
        }
    }

    /// Returns the next message of kind `kind`.
    pub async fn hear_a(&mut self, kind: &str) -> Value {
        loop {
            let heard = self.hear().await;
            if heard["t"] == kind {
                return heard;
            }
        }
    }

    /// Returns the code with which the server closes the session. Messages before the close are
    /// ignored.
    pub async fn close_code(mut self) -> u16 {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.ws.next()).await;
            match message.expect("the server closes") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    let code = frame.code.into();
                    // Reading on lets the library answer the close.
                    while let Some(Ok(_)) = self.ws.next().await {}
                    assert_eq!(self.session.await.unwrap(), SessionEnd::Server(code));
                    return code;
                }
                Some(Ok(_)) => {}
                other => panic!("no close but {other:?}"),
            }
        }
    }

    pub fn shut_down(&mut self) {
        let _ = self.shutdown.take().unwrap().send(());
    }
}
