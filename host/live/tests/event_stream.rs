//! Tests event streams: the same frames as over a WebSocket, as server-sent events.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use lantern_api::feed::ServerMessage;
use lantern_live::{Hub, LiveConfig, Refused, SessionEnd, StreamRefusal, StreamRequest, close};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wire::{PATIENCE, Wire};
use world::{Rows, World};

fn quiet() -> LiveConfig {
    LiveConfig { heartbeat_ms: 60_000, tick_ms: 60_000, ..LiveConfig::default() }
}

/// A client of an event stream, which reads it as a browser does.
struct Events {
    pieces: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    read: VecDeque<u8>,
    session: JoinHandle<SessionEnd>,
    shutdown: Option<oneshot::Sender<()>>,
    /// The last `id`.
    cursor: Option<String>,
    retry_ms: Option<u64>,
    comments: usize,
    /// The rows of each table, by the channel of its subscription, and the parts of an incomplete
    /// snapshot or delta.
    tables: BTreeMap<u64, Rows>,
    parts: BTreeMap<u64, Vec<Value>>,
}

impl Events {
    async fn open(
        hub: &Arc<Hub>,
        subs: &[&str],
        cursor: Option<&str>,
    ) -> Result<Self, StreamRefusal> {
        let (shutdown, down) = oneshot::channel::<()>();
        let down = async move {
            if down.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let subs = subs.iter().map(|&sub| sub.to_owned()).collect();
        let request = StreamRequest { subs, cursor: cursor.map(str::to_owned), address: None };
        let (stream, session) = Arc::clone(hub).stream(request, down);
        let session = tokio::spawn(session);
        let pieces = tokio::time::timeout(PATIENCE, stream.open()).await.unwrap()?;
        Ok(Self {
            pieces: Box::pin(pieces),
            read: VecDeque::new(),
            session,
            shutdown: Some(shutdown),
            cursor: None,
            retry_ms: None,
            comments: 0,
            tables: BTreeMap::new(),
            parts: BTreeMap::new(),
        })
    }

    async fn welcomed(hub: &Arc<Hub>, subs: &[&str], cursor: Option<&str>) -> Self {
        let mut events = Self::open(hub, subs, cursor).await.unwrap();
        assert_eq!(events.next().await["t"], "welcome");
        events
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            let piece = tokio::time::timeout(PATIENCE, self.pieces.next()).await.unwrap()?;
            self.read.extend(piece);
        }
    }

    /// Returns the next frame; `None` at the end of the stream.
    async fn try_next(&mut self) -> Option<Value> {
        let (mut event, mut data) = (None, None);
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("event", name)) => event = Some(name.to_owned()),
                Some(("data", text)) => assert_eq!(data.replace(text.to_owned()), None),
                Some(("id", id)) => self.cursor = Some(id.to_owned()),
                Some(("retry", ms)) => self.retry_ms = Some(ms.parse().unwrap()),
                None if line == ":" => self.comments += 1,
                None if line.is_empty() && data.is_none() => {}
                None if line.is_empty() => {
                    let (event, data) = (event.unwrap(), data.unwrap());
                    let message = ServerMessage::parse(&data).unwrap().expect("a known kind");
                    assert_eq!(message.text(), data);
                    let frame: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!(frame["t"], event);
                    self.apply(&frame);
                    return Some(frame);
                }
                _ => panic!("{line}"),
            }
        }
    }

    async fn next(&mut self) -> Value {
        self.try_next().await.expect("the stream goes on")
    }

    /// Applies a frame to the rows.
    fn apply(&mut self, frame: &Value) {
        let Some(ch) = frame["ch"].as_u64().filter(|_| frame["t"] != "ok") else { return };
        let parts = self.parts.entry(ch).or_default();
        parts.push(frame.clone());
        if frame["more"] == true {
            return;
        }
        for part in std::mem::take(parts) {
            let rows = self.tables.entry(ch).or_default();
            if part["t"] == "reset" {
                rows.clear();
            }
            for up in [&part["rows"], &part["up"]] {
                rows.extend(
                    up.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())),
                );
            }
            for key in part["del"].as_array().into_iter().flatten() {
                rows.remove(key.as_str().unwrap());
            }
        }
    }

    /// Reads frames until one is of the kind `kind`, and returns it.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["t"] == kind {
                return frame;
            }
        }
    }

    /// Reads the rest of the stream, and returns the code with which it was closed.
    async fn close_code(mut self) -> u64 {
        let code = self.next_of("close").await["code"].as_u64().unwrap();
        assert_eq!(self.try_next().await, None);
        assert_eq!(self.session.await.unwrap(), SessionEnd::Server(code.try_into().unwrap()));
        code
    }
}

async fn refusal(hub: &Arc<Hub>, subs: &[&str]) -> Refused {
    match Events::open(hub, subs, None).await.map(drop) {
        Err(StreamRefusal::Subscription(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_tables_come_on_one_stream_with_the_frames_of_a_websocket() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1)), (1, "y", Some(2))]);
    let hub = world.serve(quiet());
    let mut events =
        Events::welcomed(&hub, &["shop/a", r#"{"id":7,"table":"shop/b"}"#], None).await;
    assert!(events.retry_ms.is_some_and(|ms| (1_000..3_000).contains(&ms)));
    assert_eq!(events.cursor, None);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(events.next().await);
    }
    let mut wire = Wire::open(&hub).await;
    for (id, table) in [(1, "shop/a"), (7, "shop/b")] {
        wire.say(json!({"t":"sub","id":id,"table":table})).await;
        for t in ["ok", "snap"] {
            let frame = wire.hear_a(t).await;
            assert!(seen.contains(&frame), "{frame} is not among {seen:?}");
        }
    }
    world.commit(0, &[(0, "x", None), (0, "z", Some(3))]);
    let delta = events.next_of("delta").await;
    assert_eq!(delta, wire.hear_a("delta").await);
    assert_eq!(events.next_of("tick").await, wire.hear_a("tick").await);
    assert_eq!(events.tables[&1], world.rows_at(&world.head().0, 2, 0));
    assert_eq!(events.tables[&2], world.rows_at(&world.head().0, 2, 1));
}

#[tokio::test]
async fn one_cursor_resumes_every_subscription_also_after_a_restart() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1)), (1, "y", Some(2))]);
    let hub = world.serve(quiet());
    let subs = ["shop/a", "shop/b", r#"{"table":"shop/a","where":[["n",">",1]],"cols":["n"]}"#];
    let mut events = Events::welcomed(&hub, &subs, None).await;
    while events.tables.len() < 3 {
        events.next_of("snap").await;
    }
    let (mut cursor, mut tables) = (events.cursor.clone().unwrap(), events.tables.clone());
    drop(events);
    for round in 2..5_u32 {
        world.commit(0, &[(round % 2, "x", Some(i64::from(round)))]);
        // A new hub has nothing in memory, like a server after a restart.
        let hub = if round == 3 { hub.clone() } else { world.serve(quiet()) };
        let mut events = Events::welcomed(&hub, &subs, Some(&cursor)).await;
        let (mut ids, mut current) = (Vec::new(), BTreeSet::new());
        while ids.len() < 3 || current.len() < 3 {
            let frame = events.next().await;
            match frame["t"].as_str().unwrap() {
                "ok" => {
                    assert_eq!(frame["resumed"], true, "{frame}");
                    let (id, ch) = (frame["id"].as_u64().unwrap(), frame["ch"].as_u64().unwrap());
                    events.tables.insert(ch, tables[&id].clone());
                    ids.push((id, ch));
                }
                "delta" | "tick" if frame["to"] == round => {
                    current.insert(frame["ch"].as_u64().unwrap());
                }
                "delta" | "tick" => {}
                _ => panic!("{frame}"),
            }
        }
        tables = ids.iter().map(|(id, ch)| (*id, events.tables[ch].clone())).collect();
        let (epoch, commit) = world.head();
        assert_eq!(tables[&1], world.rows_at(&epoch, commit, 0));
        assert_eq!(tables[&2], world.rows_at(&epoch, commit, 1));
        let filtered = world.rows_at(&epoch, commit, 0).into_iter();
        let filtered = filtered.filter(|(_, row)| row["n"].as_i64() > Some(1));
        let filtered: Rows = filtered.map(|(key, row)| (key, json!({"n": row["n"]}))).collect();
        assert_eq!(tables[&3], filtered);
        cursor = events.cursor.clone().unwrap();
    }
}

#[tokio::test]
async fn a_cursor_that_does_not_fit_gives_a_reset_and_a_snapshot() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1))]);
    let hub = world.serve(quiet());
    let mut events = Events::welcomed(&hub, &["shop/a"], None).await;
    events.next_of("snap").await;
    let cursor = events.cursor.clone().unwrap();
    for (sub, cursor, why) in [
        ("shop/a", "nonsense", Some("fields")),
        (r#"{"table":"shop/a","cols":["n"]}"#, cursor.as_str(), Some("fields")),
        (r#"{"id":2,"table":"shop/a"}"#, cursor.as_str(), None),
    ] {
        let mut events = Events::welcomed(&hub, &[sub], Some(cursor)).await;
        assert_eq!(events.next().await["resumed"], false);
        if let Some(why) = why {
            assert_eq!(events.next().await["why"], why);
        }
        assert_eq!(events.next().await["t"], "snap");
    }
}

#[tokio::test]
async fn a_slow_reader_holds_back_its_session_and_gets_merged_changes() {
    let world = World::new(1);
    world.commit(0, &[(0, "k", Some(0))]);
    let hub = world.serve(quiet());
    let mut events = Events::welcomed(&hub, &["shop/a"], None).await;
    events.next_of("snap").await;
    for n in 1..=500 {
        world.commit(0, &[(0, "k", Some(n)), (0, &format!("k{}", n % 10), Some(n))]);
        tokio::task::yield_now().await;
    }
    // The session has written at most the first changes, and waits until they are taken.
    let status = loop {
        let status = hub.open_sessions().remove(0);
        if status.frames_waiting > 0 {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(status.frames_waiting, 1);
    assert_eq!(hub.merged_bytes(), 0);
    let mut frames = 0;
    loop {
        let delta = events.next_of("delta").await;
        frames += 1;
        if delta["to"] == 501 {
            assert_eq!(delta["merged"], true);
            break;
        }
    }
    assert!(frames <= 3, "{frames} frames for 500 commits");
    assert_eq!(events.tables[&1], world.rows_at(&world.head().0, 501, 0));
    let taken = async {
        while hub.open_sessions()[0].frames_waiting > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    assert_eq!(hub.open_sessions()[0].subscriptions[0].commit, Some(501));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { stall_ms: 100, ..quiet() });
    let events = Events::open(&hub, &["shop/a"], None).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, events.session).await.unwrap().unwrap();
    assert_eq!(ended, SessionEnd::Cut);
    assert_eq!(hub.sessions(), 0);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_session_along() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let Events { pieces, session, .. } = Events::welcomed(&hub, &["shop/a"], None).await;
    drop(pieces);
    assert_eq!(session.await.unwrap(), SessionEnd::Cut);
    assert_eq!(hub.sessions(), 0);
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_refused_before_it_starts() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { subs_max: 3, sessions_max: 1, ..quiet() });
    for (subs, id, code, parameter) in [
        (&["shop"][..], 1, "no_such_table", Some("table")),
        (&["shop/a", "shop/none"], 2, "no_such_table", None),
        (&["shop/a", "{"], 2, "LAN-0426", Some("sub")),
        (&[r#"{"table":"shop/a","where":[["m","=",1]]}"#], 1, "LAN-0426", Some("where")),
        (&[r#"{"table":"shop/a","mode":"x"}"#], 1, "not_supported", Some("mode")),
        (&[r#"{"table":"shop/a","order":"n"}"#], 1, "not_supported", Some("order")),
        (&["shop/a", r#"{"id":1,"table":"shop/b"}"#], 1, "id_in_use", Some("id")),
        (&["shop/a", "shop/a", "shop/a", "shop/a"], 4, "too_many_subs", None),
    ] {
        let refused = refusal(&hub, subs).await;
        let found = (refused.id, &*refused.code, refused.parameter.as_deref());
        assert_eq!(found, (id, code, parameter), "{subs:?}: {}", refused.msg);
    }
    let first = Events::welcomed(&hub, &["shop/a", "shop/a", "shop/a"], None).await;
    let second = Events::open(&hub, &["shop/a"], None).await.map(drop);
    assert_eq!(second, Err(StreamRefusal::TooManySessions(1)));
    drop(first);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_yet_is_tried_again() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1))]);
    let hub = world.serve(quiet());
    world.fail_next_read();
    let mut events = Events::welcomed(&hub, &["shop/a"], None).await;
    let refused = events.next().await;
    assert_eq!((&refused["t"], &refused["retry"]), (&json!("err"), &json!(true)), "{refused}");
    assert_eq!(events.next().await["t"], "ok");
    assert_eq!(events.next().await["t"], "snap");
}

#[tokio::test]
async fn another_version_and_a_deletion_have_the_frames_of_a_websocket() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1))]);
    let hub = world.serve(quiet());
    let subs = ["shop/a", "shop/b"];
    let mut events = Events::welcomed(&hub, &subs, None).await;
    events.next_of("snap").await;
    events.next_of("snap").await;
    world.rename_b("c");
    let epoch = world.activate(1);
    let (mut reset, mut ended) = (false, false);
    while !reset || !ended {
        let frame = events.next().await;
        match frame["t"].as_str().unwrap() {
            "reset" => assert_eq!((&frame["why"], &frame["ch"]), (&json!("epoch"), &json!(1))),
            "snap" => reset = frame["epoch"] == epoch.as_str(),
            "end" => ended = frame["id"] == 2,
            _ => panic!("{frame}"),
        }
    }
    // A client that connects again keeps the table that is left, and learns of the other.
    let cursor = events.cursor.clone().unwrap();
    let mut again = Events::welcomed(&hub, &subs, Some(&cursor)).await;
    let refused = again.next().await;
    assert_eq!((&refused["t"], &refused["id"]), (&json!("err"), &json!(2)), "{refused}");
    let ok = again.next().await;
    assert_eq!((&ok["id"], &ok["resumed"]), (&json!(1), &json!(true)), "{ok}");
    world.delete();
    assert_eq!(again.next_of("end").await["id"], 1);
    assert_eq!(again.close_code().await, u64::from(close::NORMAL));
    // After the last subscription has ended, the server refuses the stream.
    let refused = Events::open(&hub, &subs, Some(&cursor)).await.map(drop);
    assert!(matches!(refused, Err(StreamRefusal::Subscription(_))), "{refused:?}");
}

#[tokio::test]
async fn a_shutdown_is_told_and_an_idle_stream_has_comments() {
    let world = World::new(1);
    let config = LiveConfig { heartbeat_ms: 20, tick_ms: 60_000, ..LiveConfig::default() };
    let hub = world.serve(config);
    let mut events = Events::welcomed(&hub, &["shop/a"], None).await;
    while events.comments < 3 {
        assert_ne!(events.next_of("tick").await["t"], "ping");
    }
    events.shutdown.take().unwrap().send(()).unwrap();
    assert_eq!(events.close_code().await, u64::from(close::SHUTTING_DOWN));
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts_and_only_the_last_has_an_id() {
    let world = World::new(1);
    let keys: Vec<String> = (0..2_000).map(|n| format!("key-{n}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| (0, key.as_str(), Some(1))).collect();
    world.commit(0, &writes);
    let config = LiveConfig { frame_bytes_max: 8 << 10, snapshot_shared_bytes_max: 0, ..quiet() };
    let hub = world.serve(config);
    let mut events = Events::welcomed(&hub, &["shop/a"], None).await;
    let mut parts = 0;
    while events.next_of("snap").await["more"] == true {
        assert_eq!(events.cursor, None);
        parts += 1;
    }
    assert!(parts > 5 && events.cursor.is_some());
    assert_eq!(events.tables[&1], world.rows_at(&world.head().0, 1, 0));
}
