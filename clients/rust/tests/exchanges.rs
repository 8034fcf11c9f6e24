//! Runs the conformance suite of the feed: plays the exchanges in `docs/feed` to the client over
//! loopback TCP. `docs/feed/README.md` describes their format.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(clippy::result_large_err, reason = "the type of the WebSocket library's callback")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_client::{Client, Condition, Options, RollUp, Status, Table, TableOptions, TableShape};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// The maximum time that a test waits for something.
const PATIENCE: Duration = Duration::from_secs(20);
/// If a client must not reconnect, the test waits for this time to check that it does not.
const AWAY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    about: String,
    #[serde(default)]
    unlisted: bool,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Step {
    Subscribe {
        subscribe: String,
        #[serde(default)]
        query: Selection,
    },
    Connects {
        connects: bool,
    },
    Client {
        client: Map<String, Value>,
    },
    Server {
        server: Map<String, Value>,
    },
    Shows {
        shows: Shows,
    },
    Cut {
        cut: bool,
    },
    Close {
        close: u16,
        why: String,
    },
}

/// What a subscription selects.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Selection {
    r#where: Vec<Condition>,
    cols: Option<Vec<String>>,
    rollup: Option<RollUp>,
    shape: Option<TableShape>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shows {
    table: String,
    status: Option<String>,
    epoch: Option<String>,
    commit: Option<u64>,
    offsets: Option<BTreeMap<String, u64>>,
    rows: Option<BTreeMap<String, Value>>,
}

/// The epoch and commit, and the rows, of each state that a table has shown, as text.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// Plays the part of the server in an exchange, and records what the client shows.
struct Player {
    listener: TcpListener,
    url: String,
    ws: Option<WebSocketStream<TcpStream>>,
    client: Option<Client>,
    connecting: Option<JoinHandle<Client>>,
    /// Tables to subscribe to once the client is connected.
    wanted: Vec<(String, Selection)>,
    tables: HashMap<String, Table>,
    seen: Seen,
    listed: Vec<(String, String)>,
    variables: HashMap<String, Value>,
    window: u64,
    sent: u64,
    acked: u64,
}

impl Player {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/feed", listener.local_addr().unwrap());
        Self {
            listener,
            url,
            ws: None,
            client: None,
            connecting: None,
            wanted: Vec::new(),
            tables: HashMap::new(),
            seen: Seen::default(),
            listed: Vec::new(),
            variables: HashMap::new(),
            window: u64::MAX,
            sent: 0,
            acked: 0,
        }
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::Subscribe { subscribe, query } => self.wanted.push((subscribe, query)),
            Step::Connects { connects: true } => self.accept().await,
            Step::Connects { connects: false } => {
                assert!(timeout(AWAY, self.listener.accept()).await.is_err(), "it came back");
            }
            Step::Client { client } => self.expect(&client).await,
            Step::Server { server } => self.send(server).await,
            Step::Shows { shows } => self.shows(shows).await,
            Step::Cut { cut } => {
                assert!(cut);
                self.ws = None;
            }
            Step::Close { close, why } => {
                let frame = CloseFrame { code: close.into(), reason: why.into() };
                let mut ws = self.ws.take().unwrap();
                ws.close(Some(frame)).await.unwrap();
                // This reads until the client ends the connection. If the connection were dropped
                // while there are unread messages, the close frame could be lost.
                tokio::spawn(async move { while let Some(Ok(_)) = ws.next().await {} });
            }
        }
    }

    async fn accept(&mut self) {
        if self.client.is_none() && self.connecting.is_none() {
            let url = self.url.clone();
            self.connecting = Some(tokio::spawn(async move {
                let quick = Options {
                    backoff_min: Duration::from_millis(2),
                    backoff_max: Duration::from_millis(20),
                    shutdown_spread: Duration::from_millis(5),
                    ..Options::default()
                };
                Client::connect(&url, quick).await.unwrap()
            }));
        }
        let (socket, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let protocol = |request: &Request, mut response: Response| {
            let wanted = request.headers().get("Sec-WebSocket-Protocol").unwrap();
            assert_eq!(wanted, "lantern.v1.json");
            response.headers_mut().insert("Sec-WebSocket-Protocol", wanted.clone());
            Ok(response)
        };
        let ws = tokio_tungstenite::accept_hdr_async(socket, protocol).await.unwrap();
        self.ws = Some(ws);
        (self.window, self.sent, self.acked) = (u64::MAX, 0, 0);
    }

    /// Returns the next message of the client. Acknowledgements are checked and not returned.
    async fn receive(&mut self) -> Option<Map<String, Value>> {
        let next = self.ws.as_mut().unwrap().next();
        let message = timeout(PATIENCE, next).await.expect("the client sends a message");
        let text = message.unwrap().unwrap().into_text().unwrap();
        let mut frame: Map<String, Value> = serde_json::from_str(&text).unwrap();
        if frame["t"] == "ack" {
            let n = frame["n"].as_u64().unwrap();
            assert!(n > self.acked && n <= self.sent, "{frame:?} after {} frames", self.sent);
            self.acked = n;
            return None;
        }
        frame.retain(|name, value| {
            let default = (name == "mode" && value == "state") || (name == "rate_ms" && value == 0);
            !value.is_null() && !default
        });
        Some(frame)
    }

    async fn expect(&mut self, wanted: &Map<String, Value>) {
        let frame = loop {
            if let Some(frame) = self.receive().await {
                break frame;
            }
        };
        if let Some(Value::String(variable)) = wanted.get("id") {
            self.variables.entry(variable.clone()).or_insert_with(|| frame["id"].clone());
        }
        assert_eq!(frame, self.bound(wanted.clone()));
    }

    /// Returns the message after its variables were replaced by their values.
    fn bound(&self, mut frame: Map<String, Value>) -> Map<String, Value> {
        if let Some(Value::String(variable)) = frame.get("id") {
            let number = self.variables[variable].clone();
            frame.insert("id".into(), number);
        }
        frame
    }

    async fn send(&mut self, frame: Map<String, Value>) {
        let frame = self.bound(frame);
        let kind = frame["t"].as_str().unwrap().to_owned();
        if ["snap", "delta", "tick"].contains(&kind.as_str()) {
            while self.sent - self.acked >= self.window {
                let other = self.receive().await;
                assert!(other.is_none(), "not acknowledged: {other:?}");
            }
            self.sent += 1;
        }
        let text = serde_json::to_string(&frame).unwrap();
        self.ws.as_mut().unwrap().send(Message::text(text)).await.unwrap();
        if kind == "welcome" {
            self.window = frame["limits"]["window"].as_u64().unwrap();
            if let Some(connecting) = self.connecting.take() {
                let client = timeout(PATIENCE, connecting).await.unwrap().unwrap();
                for (name, query) in self.wanted.drain(..) {
                    let options = TableOptions {
                        conditions: query.r#where,
                        columns: query.cols,
                        roll_up: query.rollup,
                        shape: query.shape,
                        ..TableOptions::default()
                    };
                    let table = client.table_with(&name, options);
                    watch(&table, self.seen.clone());
                    self.tables.insert(name, table);
                }
                self.client = Some(client);
            }
        }
    }

    /// Waits until the table shows the expected state.
    async fn shows(&mut self, wanted: Shows) {
        let table = &self.tables[&wanted.table];
        let shown = async {
            while differs(table, &wanted).is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(PATIENCE, shown).await.is_err() {
            panic!("{:?} instead of {wanted:?}", differs(table, &wanted));
        }
        if let (Some(epoch), Some(commit), Some(rows)) = (wanted.epoch, wanted.commit, wanted.rows)
        {
            self.listed.push((wanted.table, json!([epoch, commit, rows]).to_string()));
        }
    }
}

/// Returns the state of the table, if it differs from `wanted`.
fn differs(table: &Table, wanted: &Shows) -> Option<Shows> {
    let status = match table.status() {
        Status::Live => "live",
        Status::Ended(_) => "closed",
        _ if table.commit().is_none() => "connecting",
        _ => "stale",
    };
    let rows = table.rows().into_iter().map(|(key, row)| (key, row.read().unwrap())).collect();
    let now = Shows {
        table: table.name().to_owned(),
        status: Some(status.to_owned()),
        epoch: table.epoch(),
        commit: table.commit(),
        offsets: Some(table.offsets().iter().map(|(p, next)| (p.to_string(), *next)).collect()),
        rows: Some(rows),
    };
    fn same<T: PartialEq>(wanted: &Option<T>, now: &Option<T>) -> bool {
        wanted.is_none() || wanted == now
    }
    let equal = same(&wanted.status, &now.status)
        && same(&wanted.epoch, &now.epoch)
        && same(&wanted.commit, &now.commit)
        && same(&wanted.offsets, &now.offsets)
        && same(&wanted.rows, &now.rows);
    (!equal).then_some(now)
}

/// Records every state that the table shows.
fn watch(table: &Table, seen: Seen) {
    let (table, mut changes) = (table.clone(), table.changes());
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            let epoch = table.epoch();
            let state = table.with(|rows, commit| {
                let rows: BTreeMap<_, Value> =
                    rows.iter().map(|(key, row)| (key, row.read().unwrap())).collect();
                commit.map(|commit| json!([epoch, commit, rows]).to_string())
            });
            // The epoch and the rows are read one after another. They belong together only if the
            // epoch did not change.
            if let Some(state) = state
                && table.epoch() == epoch
            {
                seen.lock().push((table.name().to_owned(), state));
            }
        }
    });
}

#[tokio::test]
async fn every_exchange_of_the_conformance_suite_is_followed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/feed");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        println!("{}", path.display());
        let exchange: Exchange = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut player = Player::new().await;
        for step in exchange.steps {
            player.play(step).await;
        }
        if !exchange.unlisted {
            for seen in &*player.seen.lock() {
                assert!(player.listed.contains(seen), "{}: {seen:?}", exchange.about);
            }
        }
        played += 1;
    }
    assert!(played > 10, "{played} exchanges");
}
