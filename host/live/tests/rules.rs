//! Tests the rules of the protocol and the close codes, one test for each.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt as _;
use lantern_core::{Checkpoint, Offset, ShardPoint, ShardProof};
use lantern_live::{LiveConfig, close};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use wire::Wire;
use world::World;

fn quiet() -> LiveConfig {
    LiveConfig { heartbeat_ms: 60_000, tick_ms: 60_000, ..LiveConfig::default() }
}

/// Sends a `sub` message. Returns the answer and the message after it, such as the snapshot.
async fn sub(wire: &mut Wire, message: Value) -> (Value, Value) {
    wire.say(message).await;
    let ok = wire.hear().await;
    assert_eq!(ok["t"], "ok", "{ok}");
    (ok, wire.hear().await)
}

fn token(frame: &Value) -> &str {
    frame["tok"].as_str().unwrap()
}

// ------------------------------------------------------------ close codes

#[tokio::test]
async fn what_is_no_message_of_the_protocol_closes_with_4400() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let hello = json!({"t":"hello","token":"ignored where access is not checked"});
    let cases: [(&str, Vec<Message>); 7] = [
        ("not hello first", vec![Message::text(r#"{"t":"pong"}"#)]),
        ("hello twice", vec![Message::text(hello.to_string()), Message::text(hello.to_string())]),
        ("no JSON", vec![Message::text("hello")]),
        ("no t", vec![Message::text("{}")]),
        ("unknown t", vec![Message::text(hello.to_string()), Message::text(r#"{"t":"x"}"#)]),
        (
            "ack ahead",
            vec![Message::text(hello.to_string()), Message::text(r#"{"t":"ack","n":1}"#)],
        ),
        ("sub without id", vec![Message::text(hello.to_string()), Message::text(r#"{"t":"sub"}"#)]),
    ];
    for (name, messages) in cases {
        let mut wire = Wire::silent(&hub, 1 << 16).await;
        for message in messages {
            wire.ws.send(message).await.unwrap();
        }
        assert_eq!(wire.close_code().await, close::BAD_MESSAGE, "{name}");
    }
    assert_eq!(hub.sessions(), 0);
}

#[tokio::test]
async fn what_breaks_websocket_itself_closes_with_the_codes_of_rfc_6455() {
    let hub = World::new(1).serve(quiet());
    let frame = |opcode, change: fn(&mut FrameHeader), payload: &[u8]| {
        let mut header = FrameHeader { opcode, ..FrameHeader::default() };
        header.mask = Some([1, 2, 3, 4]);
        change(&mut header);
        Message::Frame(Frame::from_payload(header, payload.to_vec().into()))
    };
    let text = OpCode::Data(Data::Text);
    for (name, message, code) in [
        ("a reserved bit", frame(text, |header| header.rsv1 = true, b"{}"), 1002),
        ("a reserved opcode", frame(OpCode::Data(Data::Reserved(3)), |_| (), b""), 1002),
        ("a continuation of nothing", frame(OpCode::Data(Data::Continue), |_| (), b""), 1002),
        ("a cut ping", frame(OpCode::Control(Control::Ping), |h| h.is_final = false, b""), 1002),
        ("text that is not UTF-8", frame(text, |_| (), b"\xff"), 1007),
        ("binary", Message::binary(vec![1]), 1003),
    ] {
        let mut wire = Wire::silent(&hub, 1 << 16).await;
        wire.ws.send(message).await.unwrap();
        assert_eq!(wire.close_code().await, code, "{name}");
    }
}

#[tokio::test]
async fn no_hello_in_time_closes_with_4400() {
    let hub = World::new(1).serve(LiveConfig { hello_ms: 20, ..quiet() });
    let wire = Wire::silent(&hub, 1 << 16).await;
    assert_eq!(wire.close_code().await, close::BAD_MESSAGE);
}

#[tokio::test]
async fn too_large_a_message_closes_with_4413() {
    let hub = World::new(1).serve(quiet());
    let mut wire = Wire::open(&hub).await;
    wire.say(json!({"t":"sub","id":1,"table":"x".repeat(65 << 10)})).await;
    assert_eq!(wire.close_code().await, close::TOO_LARGE);
}

#[tokio::test]
async fn one_session_too_many_closes_with_4429() {
    let hub = World::new(1).serve(LiveConfig { sessions_max: 1, ..quiet() });
    let _first = Wire::open(&hub).await;
    let second = Wire::silent(&hub, 1 << 16).await;
    assert_eq!(second.close_code().await, close::TOO_MANY);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_any_more_closes_with_4500() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { ring_commits_max: 1, window: 1, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    for n in 0..3 {
        world.commit(0, &[(0, "k", Some(n))]);
    }
    world.fail_next_read();
    wire.say(json!({"t":"ack","n":1})).await;
    assert_eq!(wire.close_code().await, close::ERROR);
}

#[tokio::test]
async fn a_shutdown_closes_with_4501() {
    let hub = World::new(1).serve(quiet());
    let mut wire = Wire::open(&hub).await;
    wire.shut_down();
    assert_eq!(wire.close_code().await, close::SHUTTING_DOWN);
}

#[tokio::test]
async fn a_reader_of_every_change_that_is_too_slow_closes_with_4502() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { ring_commits_max: 2, window: 1, ..quiet() });
    let mut wire = Wire::open(&hub).await;
    sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a","mode":"changes"})).await;
    for n in 0..5 {
        world.commit(0, &[(0, "k", Some(n))]);
    }
    wire.say(json!({"t":"ack","n":1})).await;
    assert_eq!(wire.close_code().await, close::TOO_SLOW);
}

#[tokio::test]
async fn a_snapshot_that_is_never_acknowledged_closes_with_4502() {
    let shared = LiveConfig { snapshot_ms_max: 50, window: 1, frame_bytes_max: 4096, ..quiet() };
    let streamed = LiveConfig { snapshot_shared_bytes_max: 1, ..shared.clone() };
    for config in [shared, streamed] {
        let world = World::new(1);
        fill(&world, 300);
        let hub = world.serve(config);
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        assert_eq!(wire.hear().await["more"], true);
        assert_eq!(wire.close_code().await, close::TOO_SLOW);
    }
}

#[tokio::test]
async fn no_answer_to_a_ping_closes_with_4504() {
    let hub = World::new(1).serve(LiveConfig { heartbeat_ms: 10, pong_ms: 30, ..quiet() });
    let mut wire = Wire::open(&hub).await;
    for _ in 0..3 {
        assert_eq!(wire.hear_any().await["t"], "ping");
        wire.say(json!({"t":"pong"})).await;
    }
    assert_eq!(wire.close_code().await, close::NO_PONG);
}

// ---------------------------------------------------------------- refusals

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused_with_a_code_and_the_session_goes_on() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { subs_max: 2, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    let cases = [
        (json!({"table":"shop/none"}), "no_such_table", false),
        (json!({"table":"shop/c"}), "no_such_table", false),
        (json!({"table":"none/a"}), "no_such_table", false),
        (json!({"table":"shop"}), "no_such_table", false),
        (json!({"table":"dark/a"}), "not_active", true),
        (json!({"table":"shop/a","order":"n"}), "not_supported", false),
        (json!({"table":"shop/a","mode":"fast"}), "not_supported", false),
        (json!({"table":"shop/a","id":1}), "id_in_use", false),
    ];
    for (mut message, code, retry) in cases {
        message["t"] = json!("sub");
        if message["id"].is_null() {
            message["id"] = json!(2);
        }
        wire.say(message.clone()).await;
        let err = wire.hear().await;
        assert_eq!((&err["t"], &err["id"]), (&json!("err"), &message["id"]), "{message}");
        assert_eq!((&err["code"], &err["retry"]), (&json!(code), &json!(retry)), "{message}");
        assert!(!err["msg"].as_str().unwrap().is_empty());
    }
    sub(&mut wire, json!({"t":"sub","id":2,"table":"shop/b"})).await;
    wire.say(json!({"t":"sub","id":3,"table":"shop/b"})).await;
    assert_eq!(wire.hear().await["code"], "too_many_subs");
    world.fail_next_read();
    wire.say(json!({"t":"unsub","id":2})).await;
    assert_eq!(wire.hear().await["t"], "end");
    wire.say(json!({"t":"sub","id":2,"table":"shop/b","resume":"damaged"})).await;
    let err = wire.hear().await;
    assert_eq!((&err["code"], &err["retry"]), (&json!("unavailable"), &json!(true)));
}

#[tokio::test]
async fn every_change_of_a_table_over_several_partitions_is_not_to_be_had() {
    let hub = World::new(2).serve(quiet());
    let mut wire = Wire::open(&hub).await;
    wire.say(json!({"t":"sub","id":1,"table":"shop/a","mode":"changes"})).await;
    assert_eq!(wire.hear().await["code"], "not_supported");
}

// ------------------------------------------------------------------- rules

#[tokio::test]
async fn a_subscription_begins_with_fields_epoch_position_and_rows() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    world.commit(0, &[(0, "t\u{0}1\"", Some(5))]);
    let mut wire = Wire::silent(&hub, 1 << 16).await;
    wire.say(json!({"t":"hello"})).await;
    let limits = json!({"subs":64,"frame":262_144,"window":32});
    assert_eq!(wire.hear().await, json!({"t":"welcome","heartbeat_ms":60_000,"limits":limits}));
    let (ok, snap) = sub(&mut wire, json!({"t":"sub","id":9,"table":"shop/a"})).await;
    let fields = json!([{"name":"k","kind":"text"},{"name":"n","kind":"integer","unit":"EUR"}]);
    let shape = "01546bafe35e675e";
    assert_eq!(ok, json!({"t":"ok","id":9,"ch":1,"fields":fields,"shape":shape,"resumed":false}));
    let rows = json!({"t\u{0}1\"":{"k":"t\u{0}1\"","n":5}});
    let tok = token(&snap);
    let expected = json!({"t":"snap","ch":1,"epoch":"1.v.0","commit":1,"rows":rows,"more":false,"offsets":{"0":10},"tok":tok});
    assert_eq!(snap, expected);
    world.commit(0, &[(0, "a", Some(1)), (0, "t\u{0}1\"", None)]);
    let delta = wire.hear().await;
    let (up, del) = (json!({"a":{"k":"a","n":1}}), json!(["t\u{0}1\""]));
    let tok = token(&delta);
    let expected =
        json!({"t":"delta","ch":1,"from":1,"to":2,"up":up,"del":del,"offsets":{"0":20},"tok":tok});
    assert_eq!(delta, expected);
}

#[tokio::test]
async fn a_commit_seen_in_the_snapshot_is_not_repeated_when_it_is_published() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    world.commit_unpublished(0, &[(0, "k", Some(1))]);
    world.commit_unpublished(0, &[(0, "k", Some(2))]);
    let mut wire = Wire::open(&hub).await;
    let (_, snap) = sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    assert_eq!((&snap["commit"], &snap["rows"]["k"]["n"]), (&json!(2), &json!(2)));
    world.publish();
    world.commit(0, &[(0, "k", Some(3))]);
    let delta = wire.hear().await;
    assert_eq!(
        (&delta["from"], &delta["to"], &delta["merged"]),
        (&json!(2), &json!(3), &Value::Null)
    );
}

#[tokio::test]
async fn a_large_snapshot_and_a_large_delta_come_in_parts_that_fit_a_frame() {
    let world = World::new(1);
    fill(&world, 300);
    for shared in [1, 1 << 20] {
        let config =
            LiveConfig { frame_bytes_max: 4096, snapshot_shared_bytes_max: shared, ..quiet() };
        let hub = world.serve(config);
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        let (mut rows, mut parts) = (0, 0);
        loop {
            let snap = wire.hear().await;
            assert!(snap.to_string().len() <= 4096);
            parts += 1;
            rows += snap["rows"].as_object().unwrap().len();
            if snap["more"] == false {
                break;
            }
            assert_eq!(snap["tok"], Value::Null);
        }
        assert!(rows == 300 && parts > 3, "{rows} rows in {parts} parts");
        fill(&world, 300);
        let (mut rows, mut more) = (0, true);
        while more {
            let delta = wire.hear().await;
            assert!(delta.to_string().len() <= 4096);
            assert_eq!(delta["from"].as_u64().unwrap() + 1, delta["to"].as_u64().unwrap());
            rows += delta["up"].as_object().unwrap().len();
            more = delta["more"] == true;
            assert_eq!(more, delta["tok"].is_null());
        }
        assert_eq!(rows, 300);
    }
}

#[tokio::test]
async fn a_row_that_fits_no_frame_ends_the_subscription_with_its_name() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { frame_bytes_max: 4096, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    let key = "x".repeat(3000);
    world.commit(0, &[(0, &key, Some(1))]);
    let end = wire.hear().await;
    assert_eq!(end["t"], "end");
    assert!(end["why"].as_str().unwrap().contains("frame_bytes_max"), "{end}");
    wire.say(json!({"t":"sub","id":1,"table":"shop/a"})).await;
    assert_eq!(wire.hear().await["code"], "too_large");
}

#[tokio::test]
async fn too_many_rows_for_a_snapshot_are_refused() {
    let world = World::new(1);
    fill(&world, 30);
    let hub = world.serve(LiveConfig { snapshot_rows_max: 29, ..quiet() });
    let mut wire = Wire::open(&hub).await;
    wire.say(json!({"t":"sub","id":1,"table":"shop/a"})).await;
    let err = wire.hear().await;
    assert_eq!(err["code"], "too_large", "{err}");
}

#[tokio::test]
async fn a_token_resumes_in_memory_and_after_a_restart_without_a_repeat() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        let mut hub = world.serve(quiet());
        let mut first = Wire::subscribed(&hub, "shop/a").await;
        let snap = first.hear().await;
        world.commit(0, &[(0, "k", Some(1)), (1, "other", Some(1))]);
        world.commit(0, &[(0, "j", Some(2)), (0, "k", None)]);
        for restart in [false, true] {
            if restart {
                hub = world.serve(quiet());
            }
            let mut wire = Wire::open(&hub).await;
            let message = json!({"t":"sub","id":1,"table":"shop/a","resume":token(&snap)});
            wire.say(message).await;
            assert_eq!(wire.hear().await["resumed"], true, "{partitions} {restart}");
            // If there are several partitions, the merged rows may not be in the ring yet.
            let delta = wire.hear_a("delta").await;
            assert_eq!((&delta["from"], &delta["to"]), (&json!(0), &json!(2)), "{delta}");
            assert_eq!(delta["up"], json!({"j":{"k":"j","n":2}}));
            assert_eq!(delta["del"], json!(["k"]));
            // If there are no changes, a tick follows at once.
            let message = json!({"t":"sub","id":2,"table":"shop/a","resume":token(&delta)});
            wire.say(message).await;
            let (ok, tick) = (wire.hear_a("ok").await, wire.hear_a("tick").await);
            assert_eq!(ok["resumed"], true);
            assert_eq!((&tick["from"], &tick["to"]), (&json!(2), &json!(2)), "{tick}");
        }
    }
}

#[tokio::test]
async fn a_token_that_does_not_fit_gives_a_reset_and_a_snapshot() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let (_, snap) = sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    wire.say(json!({"t":"unsub","id":1})).await;
    assert_eq!(wire.hear().await, json!({"t":"end","id":1,"why":"unsubscribed"}));
    world.commit(0, &[(0, "k", Some(1))]);
    let resume = |table: &str, token: &str| json!({"t":"sub","id":1,"table":table,"resume":token});
    let mut check = async |message: Value, why: &str| {
        let (ok, reset) = sub(&mut wire, message).await;
        assert_eq!((&ok["resumed"], &reset["t"]), (&json!(false), &json!("reset")), "{why}");
        assert_eq!(reset["why"], why);
        assert_eq!(wire.hear().await["t"], "snap");
        wire.say(json!({"t":"unsub","id":1})).await;
        wire.hear_a("end").await;
    };
    check(resume("shop/b", token(&snap)), "fields").await;
    check(resume("shop/a", "no token"), "fields").await;
    let hub = world.serve(quiet());
    drop(hub);
    world.forget_changes();
    check(resume("shop/a", token(&snap)), "too_old").await;
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    world.activate(1);
    let (_, reset) = sub(&mut wire, resume("shop/a", token(&snap))).await;
    assert_eq!(reset["why"], "epoch");
}

#[tokio::test]
async fn no_more_than_the_window_is_under_way_and_the_rest_is_merged() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { window: 2, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    for n in 1..=5 {
        world.commit(0, &[(0, "k", Some(n)), (0, &format!("k{n}"), (n % 2 == 0).then_some(n))]);
        if n == 1 {
            assert_eq!(wire.hear().await["to"], 1);
        }
    }
    // The server answers messages in order. This `err` comes first, so the server sent nothing else
    // while the window was full.
    wire.say(json!({"t":"sub","id":2,"table":"none/a"})).await;
    assert_eq!(wire.hear().await["t"], "err");
    wire.say(json!({"t":"ack","n":1})).await;
    let delta = wire.hear().await;
    assert_eq!(
        (&delta["from"], &delta["to"], &delta["merged"]),
        (&json!(1), &json!(5), &json!(true))
    );
    assert_eq!(delta["up"]["k"]["n"], 5);
    assert_eq!(delta["del"], json!(["k3", "k5"]));
}

#[tokio::test]
async fn open_sessions_are_listed_with_their_subscriptions_and_what_waits() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { window: 2, ..quiet() });
    assert_eq!(hub.open_sessions(), []);
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    let snap = wire.hear().await;
    let session = || hub.open_sessions().remove(0);
    let shown = || {
        let sub = session().subscriptions.remove(0);
        assert_eq!((sub.id, sub.table.as_str()), (1, "shop/a"));
        (sub.commit, sub.commits_behind)
    };
    assert_eq!((shown(), session().frames_waiting), ((snap["commit"].as_u64(), Some(0)), 1));
    assert!(session().bytes_waiting >= 50, "{:?}", session());
    for n in 1..=5 {
        world.commit(0, &[(0, "k", Some(n))]);
        if n == 1 {
            assert_eq!(wire.hear().await["to"], 1);
        }
    }
    // The window is full, and the client is four commits behind.
    assert_eq!((shown(), session().frames_waiting), ((Some(1), Some(4)), 2));
    wire.say(json!({"t":"ack","n":2})).await;
    assert_eq!(wire.hear().await["to"], 5);
    assert_eq!((shown(), session().frames_waiting), ((Some(5), Some(0)), 1));
    wire.say(json!({"t":"ack","n":3})).await;
    wire.say(json!({"t":"unsub","id":1})).await;
    assert_eq!(wire.hear().await["t"], "end");
    let status = session();
    assert_eq!((status.frames_waiting, status.bytes_waiting, status.waiting_ms), (0, 0, 0));
    assert_eq!((status.id, status.subscriptions, status.address), (1, vec![], None));
    let _second = Wire::open(&hub).await;
    assert_eq!(hub.open_sessions().len(), 2);
    wire.ws.close(None).await.unwrap();
    wire.session.await.unwrap();
    assert_eq!(session().id, 2, "the session that has ended is no longer listed");
}

#[tokio::test]
async fn past_the_limits_of_merging_a_slow_client_gets_a_snapshot_when_it_is_ready() {
    let few = LiveConfig { merge_keys_max: 2, window: 1, ..quiet() };
    let small = LiveConfig { merge_bytes_max: 20, window: 1, ..quiet() };
    let all = LiveConfig { merge_total_bytes_max: 20, window: 1, ..quiet() };
    let gone = LiveConfig { ring_commits_max: 1, ..few.clone() };
    for config in [few, small, all, gone] {
        let world = World::new(1);
        let hub = world.serve(config);
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        assert_eq!(wire.hear().await["t"], "snap");
        for n in 1..=3 {
            world.commit(0, &[(0, &format!("k{n}"), Some(n))]);
        }
        wire.say(json!({"t":"ack","n":1})).await;
        let reset = wire.hear().await;
        assert_eq!((&reset["t"], &reset["why"]), (&json!("reset"), &json!("overflow")));
        let snap = wire.hear().await;
        assert_eq!((&snap["t"], &snap["commit"]), (&json!("snap"), &json!(3)));
    }
}

#[tokio::test]
async fn a_reader_behind_the_ring_is_served_from_the_change_log() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { ring_commits_max: 1, window: 1, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    for n in 1..=3 {
        world.commit(0, &[(0, "k", Some(n))]);
    }
    wire.say(json!({"t":"ack","n":1})).await;
    let delta = wire.hear().await;
    assert_eq!(
        (&delta["t"], &delta["from"], &delta["to"]),
        (&json!("delta"), &json!(0), &json!(3))
    );
    assert_eq!(delta["merged"], true);
}

#[tokio::test]
async fn mode_changes_hands_out_every_commit_also_after_a_resume() {
    let world = World::new(1);
    let mut hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let message = json!({"t":"sub","id":1,"table":"shop/a","mode":"changes"});
    let (_, snap) = sub(&mut wire, message.clone()).await;
    for n in 1..=3 {
        world.commit(0, &[(0, "k", Some(n))]);
        world.commit(0, &[(1, "k", Some(n))]);
    }
    for restart in [false, true] {
        let mut from = 0;
        for n in 1..=3 {
            let delta = wire.hear_a("delta").await;
            assert_eq!((&delta["from"], &delta["up"]["k"]["n"]), (&json!(from), &json!(n)));
            assert_eq!(delta["merged"], Value::Null);
            from = delta["to"].as_u64().unwrap();
        }
        if !restart {
            hub = world.serve(quiet());
            wire = Wire::open(&hub).await;
            let mut message = message.clone();
            message["resume"] = json!(token(&snap));
            wire.say(message).await;
            assert_eq!(wire.hear().await["resumed"], true);
        }
    }
    // The last commit changed another table, so a tick announces it.
    assert_eq!(wire.hear_a("tick").await["to"], 6);
}

#[tokio::test]
async fn a_rate_lets_changes_come_no_faster() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a","rate_ms":100})).await;
    world.commit(0, &[(0, "k", Some(1))]);
    let first = wire.hear().await;
    let came = tokio::time::Instant::now();
    world.commit(0, &[(0, "k", Some(2))]);
    world.commit(0, &[(0, "k", Some(3))]);
    let second = wire.hear().await;
    assert_eq!((&first["to"], &second["from"], &second["to"]), (&json!(1), &json!(1), &json!(3)));
    assert!(came.elapsed() >= Duration::from_millis(80), "{:?}", came.elapsed());
}

#[tokio::test]
async fn a_reader_that_fell_behind_continues_from_the_commit_that_it_has() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { ring_commits_max: 1, window: 1, ..quiet() });
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["commit"], 0);
    // The change log does not contain the first two commits, because they change no row.
    let no_writes = &[][..];
    for writes in [no_writes, no_writes, &[(0, "k", Some(1))], &[(0, "k", Some(2))]] {
        world.commit(0, writes);
    }
    wire.say(json!({"t":"ack","n":1})).await;
    let delta = wire.hear_a("delta").await;
    assert_eq!((&delta["from"], &delta["to"]), (&json!(0), &json!(4)), "{delta}");
    assert_eq!(delta["up"], json!({"k":{"k":"k","n":2}}));
}

#[tokio::test]
async fn equal_subscriptions_share_one_read_of_the_store() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut first = Wire::subscribed(&hub, "shop/a").await;
    let snap = first.hear().await;
    let views = world.views();
    for _ in 0..10 {
        let mut wire = Wire::open(&hub).await;
        let (_, shared) = sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
        assert_eq!(shared["rows"], snap["rows"]);
        let message = json!({"t":"sub","id":2,"table":"shop/a","resume":token(&snap)});
        sub(&mut wire, message).await;
    }
    assert_eq!(world.views(), views);
}

#[tokio::test]
async fn another_version_gives_a_reset_with_its_fields_and_a_snapshot() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        let hub = world.serve(quiet());
        world.commit(0, &[(0, "old", Some(1))]);
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        assert_eq!(wire.hear().await["commit"], 1);
        let epoch = world.activate(partitions);
        let reset = wire.hear().await;
        assert_eq!((&reset["t"], &reset["why"]), (&json!("reset"), &json!("epoch")));
        assert_eq!(reset["fields"][1]["unit"], "EUR");
        let snap = wire.hear().await;
        let (of, rows) = (&snap["epoch"], &snap["rows"]);
        assert_eq!((of, &snap["commit"], rows), (&json!(epoch), &json!(0), &json!({})));
        world.commit(0, &[(0, "new", Some(1))]);
        assert_eq!(wire.hear().await["up"], json!({"new":{"k":"new","n":1}}));
    }
}

#[tokio::test]
async fn every_subscriber_gets_the_snapshot_of_another_version_at_once() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wires = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        assert_eq!(wire.hear().await["t"], "snap");
        wires.push(wire);
    }
    for _ in 0..5 {
        let epoch = world.activate(1);
        for wire in &mut wires {
            assert_eq!(wire.hear().await["why"], "epoch");
            assert_eq!(wire.hear().await["epoch"], epoch.as_str());
        }
    }
}

#[tokio::test]
async fn a_table_or_projection_that_goes_ends_its_subscriptions() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    sub(&mut wire, json!({"t":"sub","id":2,"table":"shop/b"})).await;
    world.rename_b("z");
    world.activate(1);
    // The other subscription must show the new version before the projection is deleted. If it still
    // reads its table then, it ends because there is no such table.
    let (mut end, mut shown) = (None, false);
    while end.is_none() || !shown {
        let message = wire.hear().await;
        match message["t"].as_str() {
            Some("end") => end = Some(message),
            Some("snap") => shown = true,
            _ => {}
        }
    }
    assert_eq!(end.unwrap()["id"], 2);
    world.delete();
    let end = wire.hear_a("end").await;
    assert_eq!((&end["id"], &end["why"]), (&json!(1), &json!("the projection was deleted")));
}

#[tokio::test]
async fn an_idle_subscription_ticks_with_log_position_and_lag() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { heartbeat_ms: 20, ..quiet() });
    world.commit(0, &[(0, "k", Some(1))]);
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    assert_eq!(wire.hear().await["t"], "snap");
    let tick = wire.hear().await;
    assert_eq!((&tick["t"], &tick["from"], &tick["to"]), (&json!("tick"), &json!(1), &json!(1)));
    assert_eq!((&tick["offsets"], &tick["lag"]), (&json!({"0":10}), &json!({"events":3,"ms":12})));
}

#[tokio::test]
async fn a_position_that_moves_without_a_change_is_told() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        let hub = world.serve(LiveConfig { tick_ms: 10, ..quiet() });
        let mut wire = Wire::subscribed(&hub, "shop/a").await;
        assert_eq!(wire.hear().await["t"], "snap");
        world.commit(0, &[(1, "k", Some(1))]);
        world.commit(0, &[]);
        let mut tick = wire.hear().await;
        while tick["to"] != 2 {
            tick = wire.hear().await;
        }
        assert_eq!(tick["t"], "tick");
    }
}

#[tokio::test]
async fn where_one_table_moves_the_others_of_its_projection_follow() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    sub(&mut wire, json!({"t":"sub","id":2,"table":"shop/b"})).await;
    world.commit(0, &[(0, "k", Some(1))]);
    let (delta, tick) = (wire.hear().await, wire.hear().await);
    assert_eq!((&delta["t"], &delta["ch"], &delta["to"]), (&json!("delta"), &json!(1), &json!(1)));
    assert_eq!((&tick["t"], &tick["ch"], &tick["to"]), (&json!("tick"), &json!(2), &json!(1)));
}

#[tokio::test]
async fn rows_of_several_partitions_are_merged_in_snapshot_and_deltas() {
    let world = World::new(2);
    let hub = world.serve(quiet());
    world.commit(0, &[(0, "k", Some(1))]);
    world.commit(1, &[(0, "k", Some(10))]);
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    let snap = wire.hear().await;
    assert_eq!((&snap["commit"], &snap["rows"]["k"]["n"]), (&json!(2), &json!(11)));
    world.commit(0, &[(0, "k", None)]);
    let delta = wire.hear().await;
    assert_eq!((&delta["to"], &delta["up"]["k"]["n"]), (&json!(3), &json!(10)));
    world.commit(1, &[(0, "k", None)]);
    assert_eq!(wire.hear().await["del"], json!(["k"]));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_session_and_topic_along() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::subscribed(&hub, "shop/a").await;
    wire.ws.close(None).await.unwrap();
    assert_eq!(wire.session.await.unwrap(), lantern_live::SessionEnd::Client(None));
    let wire = Wire::subscribed(&hub, "shop/a").await;
    drop(wire.ws);
    assert_eq!(wire.session.await.unwrap(), lantern_live::SessionEnd::Cut);
    assert_eq!(hub.sessions(), 0);
    // Tasks of the feed and of the session also hold the hub. They must release it when the session
    // ends.
    *world.hub.lock() = None;
    while Arc::strong_count(&hub) > 1 {
        tokio::task::yield_now().await;
    }
}

/// Makes one commit with `rows` rows of about 100 bytes.
fn fill(world: &World, rows: usize) {
    let keys: Vec<String> = (0..rows).map(|i| format!("{i:040}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| (0, key.as_str(), Some(7))).collect();
    world.commit(0, &writes);
}

#[tokio::test]
async fn who_subscribes_anew_is_not_led_back() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    world.commit(0, &[(0, "k", Some(1))]);
    // This creates a snapshot that the topic keeps for other subscribers.
    let mut other = Wire::open(&hub).await;
    let (_, snap) = sub(&mut other, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    assert_eq!(snap["commit"], 1);
    let mut wire = Wire::open(&hub).await;
    sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await;
    world.commit(0, &[(0, "k", Some(2))]);
    assert_eq!(wire.hear_a("delta").await["to"], 2);
    wire.say(json!({"t":"unsub","id":1})).await;
    wire.hear_a("end").await;
    let (_, snap) = sub(&mut wire, json!({"t":"sub","id":2,"table":"shop/a"})).await;
    assert_eq!(snap["commit"], 2, "{snap}");
}

#[tokio::test]
async fn a_token_whose_positions_add_up_to_nothing_sane_starts_anew() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        let hub = world.serve(quiet());
        world.commit(0, &[(0, "k", Some(1))]);
        let mut other = Wire::subscribed(&hub, "shop/a").await;
        other.hear_a("snap").await;
        let (_, snap) = {
            let mut wire = Wire::open(&hub).await;
            sub(&mut wire, json!({"t":"sub","id":1,"table":"shop/a"})).await
        };
        let ((epoch, commit), _, query) = lantern_live::fuzzing::token(token(&snap)).unwrap();
        for at in [vec![u64::MAX, 1], vec![u64::MAX], vec![0; 1000], vec![u64::MAX; 9]] {
            let point = |next| ShardPoint { next: Offset(next), ..ShardPoint::default() };
            let at =
                Checkpoint::new(at.into_iter().map(|next| (point(next), ShardProof::default())));
            let text = lantern_live::fuzzing::encode_token((&epoch, commit), &at, query);
            let mut wire = Wire::open(&hub).await;
            let message = json!({"t":"sub","id":1,"table":"shop/a","resume":text});
            let (ok, reset) = sub(&mut wire, message).await;
            assert_eq!((&ok["resumed"], &reset["why"]), (&json!(false), &json!("history")));
            assert_eq!(wire.hear_a("snap").await["commit"], 1);
        }
    }
}

#[tokio::test]
async fn a_client_whose_connection_takes_no_byte_is_cut() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { stall_ms: 50, ..quiet() });
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| (0, key.as_str(), Some(1))).collect();
    world.commit(0, &writes);
    // The client reads nothing, and a snapshot does not fit into this pipe.
    let mut wire = Wire::silent(&hub, 1_024).await;
    wire.say(json!({"t":"hello"})).await;
    wire.say(json!({"t":"sub","id":1,"table":"shop/a"})).await;
    let end = tokio::time::timeout(Duration::from_secs(20), wire.session).await;
    assert_eq!(end.expect("it is cut").unwrap(), lantern_live::SessionEnd::Cut);
}
