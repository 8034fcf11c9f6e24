//! Tests the client with the real feed over loopback TCP. For faults that the real feed does not
//! have, a scripted server takes its place.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod server;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_client::{Change, Client, Error, Options, Resume, Status, Table, TableOptions};
use lantern_core::FieldSpec;
use lantern_live::LiveConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use server::{Server, options, upgrade, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use world::World;

#[derive(Debug, Deserialize, PartialEq)]
struct Row {
    k: String,
    n: i64,
}

fn config() -> LiveConfig {
    LiveConfig {
        heartbeat_ms: 30,
        tick_ms: 5,
        window: 4,
        ring_commits_max: 8,
        ..LiveConfig::default()
    }
}

/// The filtered tables of the tests have the rows whose `n` is at least this number, and only the
/// field `n` of these rows.
const LEAST: i64 = 0;

/// Checks that the rows that `table` shows equal the rows that `world` had at the same commit.
fn check(world: &World, table: &Table, filtered: bool) {
    let epoch = table.epoch();
    let shown = table.with(|rows, pos| {
        let rows: BTreeMap<String, Value> =
            rows.iter().map(|(key, row)| (key.clone(), row.read().unwrap())).collect();
        Some((rows, pos?))
    });
    // The epoch, the commit and the rows are read one after another. They belong together only if
    // the epoch did not change.
    if let (Some((rows, pos)), Some(epoch)) = (shown, epoch.clone())
        && table.epoch() == Some(epoch.clone())
    {
        let mut expected = world.rows_at(&epoch, pos, 0);
        if filtered {
            expected.retain(|_, row| row["n"].as_i64() >= Some(LEAST));
            expected.values_mut().for_each(|row| *row = json!({"n": row["n"]}));
        }
        assert_eq!(rows, expected, "at {epoch} {pos}");
    }
}

#[tokio::test]
async fn a_table_is_mirrored_typed_and_followed() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    world.commit(0, &[(0, "a", Some(1)), (0, "b", Some(2))]);
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let table = client.table("shop/a");
    let mut changes = table.changes();
    let first = within(changes.next()).await;
    assert!(matches!(first, Some(Change::Snapshot { commit: 1, .. })), "{first:?}");
    assert!(within(table.wait_for_status(Status::is_live)).await.is_live());
    assert_eq!(table.get::<Row>("a").unwrap(), Some(Row { k: "a".into(), n: 1 }));
    assert_eq!((table.len(), table.fields()[1].unit.as_str()), (2, "EUR"));
    let pos = world.commit(0, &[(0, "a", Some(5)), (0, "b", None)]);
    within(table.wait_for(0, pos * 10 - 1)).await.unwrap();
    assert_eq!(table.get::<Row>("a").unwrap(), Some(Row { k: "a".into(), n: 5 }));
    assert_eq!((table.len(), table.commit()), (1, Some(2)));
    loop {
        match within(changes.next()).await.unwrap() {
            Change::Delta { from: 1, to: 2, up, del, merged: false } => {
                assert_eq!((up[0].0.as_str(), &del[..]), ("a", &["b".to_owned()][..]));
                break;
            }
            Change::Tick { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    while table.lag().is_none() {
        within(changes.next()).await.unwrap();
    }
    // If a row has another form, this is an error and not a missing row.
    assert!(table.get::<Vec<u8>>("a").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_random_and_the_server_restarted_it_ends_with_exactly_the_rows() {
    for (seed, partitions, filtered) in
        [(1, 1, false), (2, 1, true), (3, 2, false), (4, 2, true), (5, 1, true)]
    {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(partitions);
        let server = Server::start(world.serve(config())).await;
        let client = within(Client::connect(&server.url, options())).await.unwrap();
        let options = if filtered {
            TableOptions::default().condition("n", ">=", LEAST).columns(["n"])
        } else {
            TableOptions::default()
        };
        let table = client.table_with("shop/a", options);
        let (of, watched) = (world.clone(), table.clone());
        let checker = tokio::spawn(async move {
            let mut changes = watched.changes();
            while let Some(change) = changes.next().await {
                check(&of, &watched, filtered);
                if let Change::Ended(_) = change {
                    return;
                }
            }
        });
        for _ in 0..400 {
            let key = format!("k{}", rng.u8(..50));
            let write = (0, key.as_str(), (rng.u8(..4) > 0).then(|| rng.i64(..) / 4));
            world.commit(rng.u32(..u32::try_from(partitions).unwrap()), &[write]);
            match rng.u8(..40) {
                0 => server.cut(),
                1 => server.restart(world.serve(config())),
                2 => {
                    world.activate(partitions);
                }
                3 => world.forget_changes(),
                4..14 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => tokio::task::yield_now().await,
            }
        }
        let (epoch, pos) = world.head();
        within(async {
            while table.epoch().as_ref() != Some(&epoch) || table.commit() != Some(pos) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        check(&world, &table, filtered);
        client.close();
        within(checker).await.unwrap();
        assert!(matches!(table.status(), Status::Ended(Error::Closed)));
    }
}

#[tokio::test]
async fn a_lost_server_makes_rows_stale_and_they_come_alive_again() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    world.commit(0, &[(0, "a", Some(1))]);
    let slow = Options { backoff_min: Duration::from_millis(100), ..options() };
    let client = within(Client::connect(&server.url, slow)).await.unwrap();
    let table = client.table("shop/a");
    assert!(matches!(table.status(), Status::Connecting));
    within(table.wait_for_status(Status::is_live)).await;
    server.cut();
    within(table.wait_for_status(|status| matches!(status, Status::Stale))).await;
    assert_eq!(table.len(), 1);
    within(table.wait_for_status(Status::is_live)).await;
    // The client answers pings, so the connection exists for many heartbeats.
    let mut changes = table.changes();
    // The stream begins with the rows that are already shown.
    assert!(matches!(within(changes.next()).await, Some(Change::Snapshot { .. })));
    for _ in 0..10 {
        assert!(matches!(within(changes.next()).await, Some(Change::Tick { .. })));
    }
}

#[tokio::test]
async fn rows_and_token_go_on_in_another_client() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    world.commit(0, &[(0, "a", Some(1)), (0, "b", Some(2))]);
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let table = client.table("shop/a");
    within(table.wait_for(0, 9)).await.unwrap();
    let saved = table.saved().unwrap();
    assert_eq!(table.resume_token(), Some(saved.token.clone()));
    drop((table, client));
    world.commit(0, &[(0, "b", Some(3))]);
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let resume = Some(Resume { ..saved });
    let table = client.table_with("shop/a", TableOptions { resume, ..TableOptions::default() });
    let mut changes = table.changes();
    let first = within(changes.next()).await.unwrap();
    assert!(matches!(first, Change::Delta { from: 1, to: 2, .. }), "{first:?}");
    assert_eq!(table.get::<Row>("a").unwrap().unwrap().n, 1);
    assert_eq!(table.get::<Row>("b").unwrap().unwrap().n, 3);
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_ends_with_the_servers_words() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let table = client.table("shop/none");
    let error = within(table.wait_for(0, 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no public table `shop/none` (no_such_table)");
    let gone = client.table("shop/a");
    within(gone.wait_for_status(Status::is_live)).await;
    world.delete();
    let error = within(gone.wait_for(0, 1000)).await.unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(client.status().is_live());
}

#[tokio::test]
async fn a_program_survives_added_fields_and_learns_which_field_is_gone() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let written_for = TableOptions::default().written_for([("k", "text"), ("n", "integer")]);
    let table = client.table_with("shop/a", written_for.clone());
    within(table.wait_for_status(Status::is_live)).await;
    let first = table.shape().unwrap();
    let added = FieldSpec { name: "more".into(), ..FieldSpec::default() };
    world.alter_a(|table| table.fields.push(added));
    world.activate(1);
    world.commit(0, &[(0, "a", Some(1))]);
    within(async {
        while table.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(table.fields().len(), 3);
    assert_ne!(table.shape(), Some(first));
    world.rename_n("total");
    world.activate(1);
    let mut changes = table.changes();
    let ended = within(async {
        loop {
            if let Some(Change::Ended(error)) = changes.next().await {
                return error;
            }
        }
    })
    .await;
    let gone = |error: &Error| {
        let Error::Shape { table, changes, .. } = error else { panic!("{error}") };
        assert_eq!((table.as_str(), changes.len()), ("shop/a", 1));
        assert_eq!(changes[0].field.as_deref(), Some("n"));
        assert!(error.to_string().contains("`n` was `integer` and is gone"), "{error}");
    };
    gone(&ended);
    assert_eq!(table.len(), 1, "the rows stay");
    // A program of the old version that starts now gets the same error, and the connection lives.
    let again = client.table_with("shop/a", written_for);
    gone(&within(again.wait_for(0, 1)).await.unwrap_err());
    within(client.table("shop/a").wait_for_status(Status::is_live)).await;
}

#[tokio::test]
async fn an_invalid_or_silent_address_is_reported_at_once() {
    for url in ["http://127.0.0.1:1/", "wss://localhost/", "nonsense"] {
        let error = within(Client::connect(url, options())).await.err().unwrap();
        assert!(matches!(error, Error::Address { .. }), "{url}: {error}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = within(Client::connect(&url, options())).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

// ------------------------------------------------- a scripted server

/// Accepts the next client of a scripted server, and returns the connection after
/// `welcome`.
async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (socket, _) = within(listener.accept()).await.unwrap();
    let socket = upgrade(socket).await.unwrap();
    let mut ws = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    assert_eq!(hear(&mut ws).await, json!({"t":"hello"}));
    say(&mut ws, json!({"t":"welcome","heartbeat_ms":15_000,"limits":{"subs":64,"frame":262_144,"window":4}})).await;
    ws
}

async fn hear(ws: &mut WebSocketStream<TcpStream>) -> Value {
    match within(ws.next()).await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
        other => panic!("no message but {other:?}"),
    }
}

async fn say(ws: &mut WebSocketStream<TcpStream>, message: Value) {
    ws.send(Message::text(message.to_string())).await.unwrap();
}

async fn by_hand() -> (TcpListener, Client, Table, WebSocketStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let connect = tokio::spawn(async move { Client::connect(&url, options()).await.unwrap() });
    let mut ws = accept(&listener).await;
    let client = within(connect).await.unwrap();
    let table = client.table("p/t");
    let sub = json!({"t":"sub","id":1,"table":"p/t","mode":"state"});
    assert_eq!(hear(&mut ws).await, sub);
    say(&mut ws, json!({"t":"ok","id":1,"ch":7,"fields":[],"resumed":false})).await;
    let snap = json!({"t":"snap","ch":7,"epoch":"e","commit":5,"rows":{"k":{"n":1}},"more":false,"offsets":{"0":50},"tok":"t5"});
    say(&mut ws, snap).await;
    assert_eq!(hear(&mut ws).await, json!({"t":"ack","n":1}));
    within(table.wait_for(0, 49)).await.unwrap();
    (listener, client, table, ws)
}

#[tokio::test]
async fn a_delta_that_does_not_follow_is_never_shown_and_the_table_is_subscribed_again() {
    let (_listener, _client, table, mut ws) = by_hand().await;
    let delta = json!({"t":"delta","ch":7,"from":6,"to":7,"up":{"k":{"n":2}},"del":[],"tok":"t7"});
    say(&mut ws, delta).await;
    assert_eq!(hear(&mut ws).await, json!({"t":"unsub","id":1}));
    assert_eq!(hear(&mut ws).await, json!({"t":"sub","id":2,"table":"p/t","mode":"state"}));
    assert_eq!((table.commit(), table.get::<Value>("k").unwrap()), (Some(5), Some(json!({"n":1}))));
    // Frames that still arrive on the old channel are acknowledged and otherwise ignored.
    assert_eq!(hear(&mut ws).await, json!({"t":"ack","n":2}));
    say(&mut ws, json!({"t":"tick","ch":7,"from":7,"to":8})).await;
    assert_eq!(hear(&mut ws).await, json!({"t":"ack","n":3}));
    assert_eq!(table.commit(), Some(5));
}

#[tokio::test]
async fn an_older_snapshot_is_held_back_until_changes_have_brought_it_there() {
    let (_listener, _client, table, mut ws) = by_hand().await;
    let delta = json!({"t":"delta","ch":7,"from":6,"to":7,"up":{},"del":[],"tok":"t7"});
    say(&mut ws, delta).await;
    assert_eq!(hear(&mut ws).await["t"], "unsub");
    assert_eq!(hear(&mut ws).await["t"], "sub");
    assert_eq!(hear(&mut ws).await["t"], "ack");
    let mut changes = table.changes();
    assert!(matches!(within(changes.next()).await, Some(Change::Snapshot { commit: 5, .. })));
    say(&mut ws, json!({"t":"ok","id":2,"ch":8,"fields":[],"resumed":false})).await;
    for frame in [
        json!({"t":"snap","ch":8,"epoch":"e","commit":3,"rows":{"old":{"n":0}},"more":false,"tok":"t3"}),
        json!({"t":"delta","ch":8,"from":3,"to":4,"up":{"k":{"n":9}},"del":[],"tok":"t4"}),
    ] {
        say(&mut ws, frame).await;
        assert_eq!(hear(&mut ws).await["t"], "ack");
        assert_eq!((table.commit(), table.len()), (Some(5), 1));
        assert_eq!(table.get::<Value>("k").unwrap(), Some(json!({"n":1})));
    }
    let last =
        json!({"t":"delta","ch":8,"from":4,"to":6,"up":{"k":{"n":2}},"del":["old"],"tok":"t6"});
    say(&mut ws, last).await;
    assert!(matches!(within(changes.next()).await, Some(Change::Snapshot { commit: 6, .. })));
    assert_eq!(table.rows().into_keys().collect::<Vec<_>>(), ["k"]);
    assert_eq!(table.get::<Value>("k").unwrap(), Some(json!({"n":2})));
    assert_eq!(table.resume_token().as_deref(), Some("t6"));
}

#[tokio::test]
async fn a_stream_of_changes_that_begins_late_misses_nothing() {
    let (_listener, client, table, mut ws) = by_hand().await;
    let mut changes = table.changes();
    assert!(matches!(within(changes.next()).await, Some(Change::Snapshot { commit: 5, .. })));
    say(&mut ws, json!({"t":"tick","ch":7,"from":5,"to":6,"tok":"t6"})).await;
    assert!(matches!(within(changes.next()).await, Some(Change::Tick { commit: 6, .. })));
    client.close();
    within(table.wait_for_status(|status| matches!(status, Status::Ended(_)))).await;
    let mut late = table.changes();
    assert!(matches!(within(late.next()).await, Some(Change::Snapshot { commit: 6, .. })));
    assert!(matches!(within(late.next()).await, Some(Change::Ended(_))));
}

#[tokio::test]
async fn parts_are_applied_at_once_and_dropped_at_a_reset() {
    let (_listener, _client, table, mut ws) = by_hand().await;
    let part = |n: i64, more: bool| {
        let key = format!("k{n}");
        json!({"t":"delta","ch":7,"from":5,"to":9,"up":{key:{"n":n}},"del":["k"],"more":more,"offsets":{"0":90},"tok":"t9"})
    };
    say(&mut ws, part(1, true)).await;
    assert_eq!(hear(&mut ws).await["t"], "ack");
    assert_eq!((table.commit(), table.len()), (Some(5), 1));
    say(&mut ws, part(2, false)).await;
    within(table.wait_for(0, 89)).await.unwrap();
    assert_eq!(table.rows().into_keys().collect::<Vec<_>>(), ["k1", "k2"]);
    let snap = |rows: Value, more: bool| json!({"t":"snap","ch":7,"epoch":"f","commit":1,"rows":rows,"more":more,"tok":"f1"});
    say(&mut ws, snap(json!({"x":{}}), true)).await;
    say(&mut ws, json!({"t":"reset","ch":7,"why":"epoch"})).await;
    within(table.wait_for_status(|status| matches!(status, Status::CatchingUp))).await;
    assert_eq!(table.len(), 2);
    say(&mut ws, snap(json!({"y":{}}), false)).await;
    within(table.wait_for_status(Status::is_live)).await;
    assert_eq!(table.rows().into_keys().collect::<Vec<_>>(), ["y"]);
    assert_eq!((table.epoch().as_deref(), table.commit()), (Some("f"), Some(1)));
}

#[tokio::test]
async fn codes_from_4400_stop_the_client_and_codes_from_4500_bring_it_back_with_its_token() {
    let (listener, client, table, ws) = by_hand().await;
    let mut current = ws;
    for code in [4500, 4501, 4502, 4504, 1001] {
        let frame = CloseFrame { code: code.into(), reason: "later".into() };
        current.close(Some(frame)).await.unwrap();
        current = accept(&listener).await;
        let sub = json!({"t":"sub","id":1,"table":"p/t","mode":"state","resume":"t5"});
        assert_eq!(hear(&mut current).await, sub, "{code}");
    }
    let frame = CloseFrame { code: 4403.into(), reason: "not yours".into() };
    current.close(Some(frame)).await.unwrap();
    let status = within(table.wait_for_status(|status| matches!(status, Status::Ended(_)))).await;
    let Status::Ended(Error::Refused { code: 4403, why }) = status else { panic!("{status:?}") };
    assert_eq!(why, "not yours");
    assert!(matches!(client.status(), Status::Ended(_)));
    assert!(matches!(client.table("p/other").status(), Status::Ended(_)));
}

#[tokio::test]
async fn pings_are_answered_and_a_table_without_handles_is_unsubscribed() {
    let (_listener, client, table, mut ws) = by_hand().await;
    say(&mut ws, json!({"t":"ping"})).await;
    assert_eq!(hear(&mut ws).await, json!({"t":"pong"}));
    let again = client.table("p/t");
    assert_eq!(hear(&mut ws).await["id"], 2);
    drop(table);
    assert_eq!(hear(&mut ws).await, json!({"t":"unsub","id":1}));
    say(&mut ws, json!({"t":"err","id":2,"code":"not_active","msg":"soon","retry":true})).await;
    // The client tries again after a pause, because the server reported that the refusal is
    // temporary.
    assert_eq!(hear(&mut ws).await["id"], 3);
    drop(again);
}

#[tokio::test]
async fn a_client_returns_when_there_is_room_for_its_session() {
    let world = World::new(1);
    let server = Server::start(world.serve(config())).await;
    let client = within(Client::connect(&server.url, options())).await.unwrap();
    let table = client.table("shop/a");
    within(table.wait_for_status(Status::is_live)).await;
    // After the restart there is room for only one session, which another client uses.
    let full = world.serve(LiveConfig { sessions_max: 1, ..config() });
    let (other, socket) = tokio::io::duplex(1 << 16);
    let session = tokio::spawn(full.clone().serve(socket, std::future::pending()));
    while full.sessions() < 1 {
        tokio::task::yield_now().await;
    }
    server.restart(full);
    let refused = within(Client::connect(&server.url, options())).await;
    assert!(matches!(refused, Err(Error::Refused { code: 4429, .. })));
    // Each attempt of the first client to reconnect is a session here, which the server refuses.
    let attempts = || server.sessions.lock().len();
    within(async {
        while attempts() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(matches!(table.status(), Status::Stale), "{:?}", table.status());
    drop(other);
    within(session).await.unwrap();
    world.commit(0, &[(0, "k", Some(1))]);
    within(table.wait_for_status(Status::is_live)).await;
    within(table.wait_for(0, 9)).await.unwrap();
    assert_eq!(table.get::<Row>("k").unwrap(), Some(Row { k: "k".into(), n: 1 }));
}
