//! Tests subscriptions whose queries have a filter or select columns.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::sync::Arc;

use lantern_live::{Hub, LiveConfig};
use serde_json::{Value, json};
use wire::Wire;
use world::World;

fn quiet() -> LiveConfig {
    LiveConfig { heartbeat_ms: 60_000, tick_ms: 60_000, ..LiveConfig::default() }
}

/// Returns a `sub` message for `shop/a`. `members` are added to the message and may replace its
/// `table`.
fn subscribe(id: u64, members: &Value) -> Value {
    let mut message = json!({"t":"sub","id":id,"table":"shop/a"});
    message.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    message
}

/// Subscribes to `shop/a` with these other members. Returns the answer and the message after
/// it.
async fn sub(wire: &mut Wire, id: u64, members: Value) -> (Value, Value) {
    wire.say(subscribe(id, &members)).await;
    let ok = wire.hear().await;
    assert_eq!(ok["t"], "ok", "{ok}");
    (ok, wire.hear().await)
}

/// A client that is subscribed to the rows with `n >= 10`, with the column `n`.
async fn filtered(hub: &Arc<Hub>) -> (Wire, Value) {
    let mut wire = Wire::open(hub).await;
    let (_, snap) = sub(&mut wire, 1, json!({"where":[["n",">=",10]],"cols":["n"]})).await;
    (wire, snap)
}

fn changes(delta: &Value) -> (Value, Value) {
    assert_eq!(delta["t"], "delta", "{delta}");
    let mut del: Vec<&str> =
        delta["del"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    del.sort_unstable();
    (delta["up"].clone(), json!(del))
}

#[tokio::test]
async fn only_matching_rows_and_chosen_fields_are_sent() {
    let world = World::new(1);
    world.commit(0, &[(0, "low", Some(9)), (0, "high", Some(10))]);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let members = json!({"where":[["n",">=",10]],"cols":["n"]});
    let (ok, snap) = sub(&mut wire, 1, members).await;
    assert_eq!(ok["fields"], json!([{"name":"n","kind":"integer","unit":"EUR"}]));
    assert_eq!(snap["rows"], json!({"high":{"n":10}}));
    let members = json!({"where":[["k","in",["low","x"]],["n","<",100]]});
    let (ok, snap) = sub(&mut wire, 2, members).await;
    assert_eq!(ok["fields"].as_array().unwrap().len(), 2);
    assert_eq!(snap["rows"], json!({"low":{"k":"low","n":9}}));
}

#[tokio::test]
async fn rows_enter_and_leave_the_filter_and_other_changes_are_not_sent() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(10)), (0, "b", Some(1))]);
    let hub = world.serve(quiet());
    let (mut wire, snap) = filtered(&hub).await;
    assert_eq!((&snap["commit"], &snap["rows"]), (&json!(1), &json!({"a":{"n":10}})));
    // The row `b` enters.
    world.commit(0, &[(0, "b", Some(20))]);
    assert_eq!(changes(&wire.hear().await), (json!({"b":{"n":20}}), json!([])));
    // `a` leaves the filter. `c` never matched it, but the server does not know that yet, so it
    // sends a deletion.
    world.commit(0, &[(0, "a", Some(9)), (0, "c", Some(1))]);
    assert_eq!(changes(&wire.hear().await), (json!({}), json!(["a", "c"])));
    // The client sees none of these changes: the rows are outside of the filter, or the columns
    // that the client gets have not changed.
    for commit in [(0, "a", Some(8)), (0, "c", None), (0, "b", Some(20)), (1, "b", Some(5))] {
        world.commit(0, &[commit]);
    }
    world.commit(0, &[(0, "a", None), (0, "b", None)]);
    let delta = wire.hear().await;
    assert_eq!(changes(&delta), (json!({}), json!(["b"])));
    assert_eq!((&delta["from"], &delta["to"]), (&json!(3), &json!(8)));
    assert_eq!(delta["merged"], Value::Null, "one commit changes rows of the subscription");
}

#[tokio::test]
async fn a_slow_client_gets_the_merged_changes_of_its_filter() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { window: 1, ..quiet() });
    let (mut wire, _) = filtered(&hub).await;
    world.commit(0, &[(0, "a", Some(10))]);
    world.commit(0, &[(0, "b", Some(10))]);
    world.commit(0, &[(0, "b", Some(1)), (0, "c", Some(30))]);
    wire.say(json!({"t":"ack","n":1})).await;
    let delta = wire.hear().await;
    assert_eq!(changes(&delta), (json!({"a":{"n":10},"c":{"n":30}}), json!(["b"])));
    assert_eq!((&delta["from"], &delta["to"]), (&json!(0), &json!(3)));
    assert_eq!(delta["merged"], true);
}

#[tokio::test]
async fn a_filter_sees_the_rows_merged_over_partitions() {
    let world = World::new(2);
    world.commit(0, &[(0, "a", Some(6)), (0, "b", Some(6))]);
    world.commit(1, &[(0, "a", Some(6))]);
    let hub = world.serve(quiet());
    let (mut wire, snap) = filtered(&hub).await;
    assert_eq!(snap["rows"], json!({"a":{"n":12}}));
    world.commit(1, &[(0, "b", Some(6))]);
    assert_eq!(changes(&wire.hear_a("delta").await).0, json!({"b":{"n":12}}));
    world.commit(0, &[(0, "a", Some(1))]);
    assert_eq!(changes(&wire.hear_a("delta").await).1, json!(["a"]));
}

#[tokio::test]
async fn a_filtered_feed_resumes_in_memory_and_from_the_change_log() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        world.commit(0, &[(0, "a", Some(10)), (0, "b", Some(10)), (0, "z", Some(1))]);
        let mut hub = world.serve(quiet());
        let (_first, snap) = filtered(&hub).await;
        world.commit(0, &[(0, "a", Some(1)), (0, "c", Some(10)), (0, "z", Some(2))]);
        world.commit(0, &[(0, "b", None), (1, "other", Some(10))]);
        for restart in [false, true] {
            if restart {
                hub = world.serve(quiet());
            }
            let mut wire = Wire::open(&hub).await;
            let members = json!({"where":[["n",">=",10]],"cols":["n"],"resume":snap["tok"]});
            wire.say(json!({"t":"unsub","id":9})).await;
            wire.say(subscribe(1, &members)).await;
            assert_eq!(wire.hear().await["resumed"], true, "{partitions} {restart}");
            let delta = wire.hear_a("delta").await;
            assert_eq!((&delta["from"], &delta["to"]), (&json!(1), &json!(3)), "{delta}");
            // `z` never was in the filter, so its deletion has no effect.
            let expected = (json!({"c":{"n":10}}), json!(["a", "b", "z"]));
            assert_eq!(changes(&delta), expected, "{partitions} {restart}");
        }
    }
}

#[tokio::test]
async fn a_token_of_another_filter_is_refused() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let (mut wire, snap) = filtered(&hub).await;
    for members in [
        json!({}),
        json!({"where":[["n",">=",11]],"cols":["n"]}),
        json!({"where":[["n",">=",10]]}),
        json!({"cols":["n"]}),
    ] {
        let mut message = members.clone();
        message["resume"] = snap["tok"].clone();
        let (ok, reset) = sub(&mut wire, 2, message).await;
        assert_eq!((&ok["resumed"], &reset["why"]), (&json!(false), &json!("fields")), "{members}");
        assert_eq!(wire.hear().await["t"], "snap");
        wire.say(json!({"t":"unsub","id":2})).await;
        assert_eq!(wire.hear().await["t"], "end");
    }
    // Order and repetition of conditions are not part of the query.
    let members = json!({"where":[["n",">=",10],["n",">=",10]],"cols":["n"],"resume":snap["tok"]});
    assert_eq!(sub(&mut wire, 2, members).await.0["resumed"], true);
}

#[tokio::test]
async fn mode_changes_with_a_filter_sends_each_commit_that_changes_its_rows() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1))]);
    let hub = world.serve(LiveConfig { window: 1, ..quiet() });
    let mut wire = Wire::open(&hub).await;
    let filter = json!([["n", ">=", 10]]);
    let members = json!({"where":filter,"mode":"changes"});
    let (_, snap) = sub(&mut wire, 1, members).await;
    world.commit(0, &[(0, "a", Some(11))]);
    world.commit(0, &[(1, "a", Some(11))]);
    world.commit(0, &[(0, "a", Some(12))]);
    world.commit(0, &[(0, "a", Some(2))]);
    world.commit(0, &[(0, "a", Some(3))]);
    let row = |n: i64| json!({"a":{"k":"a","n":n}});
    for (n, ends, expected) in [
        (1, (1, 2), (row(11), json!([]))),
        (2, (2, 4), (row(12), json!([]))),
        (3, (4, 5), (json!({}), json!(["a"]))),
    ] {
        wire.say(json!({"t":"ack","n":n})).await;
        let delta = wire.hear().await;
        assert_eq!((&delta["from"], &delta["to"]), (&json!(ends.0), &json!(ends.1)));
        assert_eq!(changes(&delta), expected);
    }
    // From the change log the client gets one delta for each commit to the table.
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let members = json!({"where":filter,"mode":"changes","resume":snap["tok"]});
    let (ok, first) = sub(&mut wire, 1, members).await;
    assert_eq!((&ok["resumed"], changes(&first)), (&json!(true), (row(11), json!([]))));
    assert_eq!(changes(&wire.hear().await), (row(12), json!([])));
    for _ in 0..2 {
        assert_eq!(changes(&wire.hear().await), (json!({}), json!(["a"])));
    }
}

#[tokio::test]
async fn a_reader_behind_the_ring_continues_with_its_filter() {
    let world = World::new(1);
    let hub = world.serve(LiveConfig { ring_commits_max: 1, window: 1, ..quiet() });
    let (mut wire, _) = filtered(&hub).await;
    for n in 9..=12 {
        world.commit(0, &[(0, "a", Some(n)), (0, &format!("{n}"), Some(n))]);
    }
    wire.say(json!({"t":"ack","n":1})).await;
    let delta = wire.hear().await;
    let up = json!({"10":{"n":10},"11":{"n":11},"12":{"n":12},"a":{"n":12}});
    assert_eq!(changes(&delta), (up, json!(["9"])));
}

#[tokio::test]
async fn wrong_filters_and_columns_are_refused_with_the_field_and_the_fix() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    for (members, parameter, text) in [
        (json!({"where":[["m","=",1]]}), "where", "no field `m`"),
        (json!({"where":[["n","~",1]]}), "where", "write a field, an operator"),
        (json!({"where":[["n","prefix","1"]]}), "where", "is for text"),
        (json!({"where":[["n","=","one"]]}), "where", "write a whole number"),
        (json!({"where":[["n","in",[]]]}), "where", "must have 1 to 1000"),
        (json!({"where":{"n":1}}), "where", "write an array of conditions"),
        (json!({"where":[["n","="]]}), "where", "write an array of conditions"),
        (json!({"cols":["nn"]}), "cols", "did you mean `n`"),
        (json!({"cols":["n","n"]}), "cols", "twice"),
        (json!({"cols":"n"}), "cols", "write an array of names"),
        (json!({"rate_ms":"fast"}), "rate_ms", "milliseconds"),
        (json!({"resume":7}), "resume", "`tok`"),
        (json!({"table":["shop/a"]}), "table", "projection/table"),
    ] {
        wire.say(subscribe(1, &members)).await;
        let err = wire.hear().await;
        assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!("LAN-0426")), "{err}");
        assert_eq!((&err["parameter"], &err["retry"]), (&json!(parameter), &json!(false)));
        let msg = err["msg"].as_str().unwrap();
        assert!(msg.starts_with(&format!("`{parameter}`: ")) && msg.contains(text), "{msg}");
    }
    let conditions: Vec<Value> = (0..65).map(|n| json!(["n", "!=", n])).collect();
    wire.say(json!({"t":"sub","id":1,"table":"shop/a","where":conditions})).await;
    assert!(wire.hear().await["msg"].as_str().unwrap().contains("the limit is 64"));
    sub(&mut wire, 1, json!({})).await;
}

#[tokio::test]
async fn a_version_without_a_field_of_the_filter_ends_the_subscription() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let (mut wire, _) = filtered(&hub).await;
    world.rename_n("m");
    world.activate(1);
    let end = wire.hear().await;
    assert_eq!((&end["t"], &end["code"]), (&json!("end"), &json!("LAN-0426")), "{end}");
    assert!(end["why"].as_str().unwrap().contains("no field `n`"), "{end}");
}

#[tokio::test]
async fn after_another_version_the_filter_applies_to_its_rows() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(10))]);
    let hub = world.serve(quiet());
    let (mut wire, _) = filtered(&hub).await;
    world.activate(1);
    let reset = wire.hear().await;
    assert_eq!((&reset["t"], &reset["why"]), (&json!("reset"), &json!("epoch")));
    assert_eq!(reset["fields"].as_array().unwrap().len(), 1);
    assert_eq!(wire.hear().await["rows"], json!({}));
    world.commit(0, &[(0, "a", Some(9)), (0, "b", Some(12))]);
    assert_eq!(changes(&wire.hear().await), (json!({"b":{"n":12}}), json!(["a"])));
}
