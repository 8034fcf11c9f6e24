//! Runs one session of the feed frame by frame, like a client that has a token.

use std::collections::BTreeMap;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_tests::{PATIENCE, Server};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// The rows that a client shows, and the token with which it can resume.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) rows: BTreeMap<String, Value>,
    pub(super) token: String,
    /// Whether the server has resumed the subscription.
    pub(super) resumed: bool,
    /// Whether the server has sent a reset.
    pub(super) reset: bool,
}

/// Subscribes to `table`, and reads frames until `shows` returns `true` for the rows. If there is a
/// `before`, the subscription resumes from its token.
pub(super) async fn session(
    server: &Server,
    table: &str,
    before: Option<&Shown>,
    shows: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> Shown {
    let url = format!("ws://{}/v1/feed", server.url.trim_start_matches("http://"));
    let mut request = url.into_client_request().unwrap();
    let protocol = "lantern.v1.json".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let mut sub = json!({"t": "sub", "id": 1, "table": table});
    if let Some(before) = before {
        sub["resume"] = before.token.as_str().into();
    }
    for message in [json!({"t": "hello"}), sub] {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let mut shown = before.cloned().unwrap_or_default();
    (shown.resumed, shown.reset) = (false, false);
    let (mut acknowledged, mut more, mut begun) = (0, false, false);
    let read = async {
        while !(begun && !more && shows(&shown.rows)) {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let mut answer = None;
            match message["t"].as_str().unwrap() {
                "ok" => {
                    shown.resumed = message["resumed"] == true;
                    begun = shown.resumed;
                }
                "reset" => {
                    shown.reset = true;
                    shown.rows.clear();
                }
                "ping" => answer = Some(json!({"t": "pong"})),
                "snap" | "delta" => {
                    begun = true;
                    shown.take(&message, more);
                    more = message["more"] == true;
                    acknowledged += 1;
                    answer = Some(json!({"t": "ack", "n": acknowledged}));
                }
                "err" | "end" => panic!("{message}"),
                _ => (),
            }
            if let Some(token) = message["tok"].as_str() {
                token.clone_into(&mut shown.token);
            }
            if let Some(answer) = answer {
                socket.send(Message::text(answer.to_string())).await.unwrap();
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE / 4, read).await;
    ended.unwrap_or_else(|_| panic!("the session shows {:?}", shown.rows.keys()));
    shown
}

impl Shown {
    fn take(&mut self, message: &Value, goes_on: bool) {
        let rows = |member: &str| message[member].as_object().cloned().unwrap_or_default();
        if message["t"] == "snap" && !goes_on {
            self.rows.clear();
        }
        self.rows.extend(rows("rows"));
        self.rows.extend(rows("up"));
        for key in message["del"].as_array().into_iter().flatten() {
            self.rows.remove(key.as_str().unwrap());
        }
    }
}
