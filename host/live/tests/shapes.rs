//! Tests subscriptions of clients that send the shape of the table that they were written for.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lantern_core::{FieldKind, FieldSpec, TableSpec};
use lantern_live::{Hub, LiveConfig};
use serde_json::{Map, Value, json};
use wire::Wire;
use world::World;

fn quiet() -> LiveConfig {
    LiveConfig { heartbeat_ms: 60_000, tick_ms: 60_000, ..LiveConfig::default() }
}

/// The shape of `shop/a`, as `lantern types` writes it, but without the hash.
fn shape() -> Value {
    json!({"fields":{"k":"text","n":"integer"},"units":{"n":"EUR"},"per_tenant":false})
}

async fn say(wire: &mut Wire, members: Value) {
    let mut message = json!({"t":"sub","id":1,"table":"shop/a"});
    message.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    wire.say(message).await;
}

/// Subscribes to `shop/a` with these other members, and returns the snapshot.
async fn subscribed(hub: &Arc<Hub>, members: Value) -> (Wire, Value) {
    let mut wire = Wire::open(hub).await;
    say(&mut wire, members).await;
    assert_eq!(wire.hear().await["t"], "ok");
    let snap = wire.hear().await;
    assert_eq!(snap["t"], "snap", "{snap}");
    (wire, snap)
}

fn add(name: &str, kind: FieldKind) -> impl Fn(&mut TableSpec) {
    let field = FieldSpec { name: name.into(), kind, ..FieldSpec::default() };
    move |table| table.fields.push(field.clone())
}

#[tokio::test]
async fn an_added_field_goes_on_and_changes_the_hash() {
    for members in [json!({"shape":shape()}), json!({})] {
        let world = World::new(1);
        let hub = world.serve(quiet());
        let mut wire = Wire::open(&hub).await;
        say(&mut wire, members).await;
        let ok = wire.hear().await;
        assert_eq!(wire.hear().await["t"], "snap");
        world.alter_a(add("more", FieldKind::Json));
        world.activate(1);
        let reset = wire.hear().await;
        assert_eq!((&reset["t"], &reset["why"]), (&json!("reset"), &json!("epoch")), "{reset}");
        assert_eq!(reset["fields"].as_array().unwrap().len(), 3);
        let (before, after) = (ok["shape"].as_str().unwrap(), reset["shape"].as_str().unwrap());
        assert!(before.len() == 16 && after.len() == 16 && before != after, "{before} {after}");
        assert_eq!(wire.hear().await["t"], "snap");
        world.commit(0, &[(0, "a", Some(1))]);
        assert_eq!(wire.hear().await["up"], json!({"a":{"k":"a","n":1}}));
    }
}

type Alter = Box<dyn Fn(&mut TableSpec)>;

/// Versions that break a client of the whole table, and the change that `end` lists.
fn breaking() -> Vec<(Alter, Value, &'static str)> {
    let n =
        |alter: fn(&mut FieldSpec)| -> Alter { Box::new(move |table| alter(&mut table.fields[1])) };
    let gone: Alter = Box::new(|table| drop(table.fields.pop()));
    let tenant: Alter = Box::new(|table| table.per_tenant = true);
    vec![
        (
            gone,
            json!({"field":"n","before":"integer (EUR)"}),
            "`n` was `integer (EUR)` and is gone:",
        ),
        (
            n(|n| n.name = "total".into()),
            json!({"field":"n","before":"integer (EUR)"}),
            "`n` was `integer (EUR)` and is gone, perhaps renamed to `total`:",
        ),
        (
            n(|n| n.kind = FieldKind::Number),
            json!({"field":"n","before":"integer (EUR)","after":"number (EUR)"}),
            "`n` was `integer (EUR)` and is `number (EUR)` now:",
        ),
        (
            n(|n| n.unit = String::new()),
            json!({"field":"n","before":"integer (EUR)","after":"integer"}),
            "`n` was `integer (EUR)` and is `integer` now:",
        ),
        (
            tenant,
            json!({"before":"key","after":"tenant, key"}),
            "the key was `key` and is `tenant, key` now:",
        ),
    ]
}

#[tokio::test]
async fn each_breaking_change_ends_the_subscription_with_the_names_of_the_fields() {
    for (alter, change, text) in breaking() {
        let world = World::new(1);
        let hub = world.serve(quiet());
        let (mut wire, snap) = subscribed(&hub, json!({"shape":shape()})).await;
        let (mut other, _) = subscribed(&hub, json!({})).await;
        world.alter_a(alter);
        world.activate(1);
        let end = wire.hear().await;
        assert_eq!(
            (&end["t"], &end["id"], &end["code"]),
            (&json!("end"), &json!(1), &json!("shape"))
        );
        assert_eq!(end["changes"], json!([change]));
        assert!(end["why"].as_str().unwrap().contains(text), "{end}");
        assert_eq!(other.hear().await["t"], "reset", "without a shape everything goes on");
        // The same holds for a new subscription, in memory and after a restart, and for a resume.
        for members in [json!({"shape":shape()}), json!({"shape":shape(),"resume":snap["tok"]})] {
            for restart in [false, true] {
                let hub = if restart { world.serve(quiet()) } else { hub.clone() };
                let mut wire = Wire::open(&hub).await;
                say(&mut wire, members.clone()).await;
                let err = wire.hear().await;
                assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!("shape")), "{err}");
                assert_eq!((&err["retry"], &err["parameter"]), (&json!(false), &json!("shape")));
                assert_eq!((&err["changes"], &err["msg"]), (&end["changes"], &end["why"]));
            }
        }
    }
}

#[tokio::test]
async fn only_the_fields_that_the_query_uses_matter() {
    let gone = |end: &Value| {
        let changes = end["changes"].as_array().unwrap();
        changes
            .iter()
            .map(|change| change["field"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (members, ends) in [
        (json!({"cols":["k"]}), None),
        (json!({"cols":["n"]}), Some("n")),
        (json!({"where":[["n",">",0]],"cols":["k"]}), Some("n")),
        (json!({}), Some("n")),
    ] {
        let world = World::new(1);
        let hub = world.serve(quiet());
        let mut with_shape = members.clone();
        with_shape["shape"] = shape();
        let (mut wire, _) = subscribed(&hub, with_shape).await;
        world.rename_n("m");
        world.activate(1);
        let next = wire.hear().await;
        match ends {
            None => assert_eq!(next["t"], "reset", "{next}"),
            Some(field) => {
                assert_eq!((&next["t"], &next["code"]), (&json!("end"), &json!("shape")), "{next}");
                assert_eq!(gone(&next), [field], "{members}");
            }
        }
    }
}

#[tokio::test]
async fn a_shape_may_name_only_what_the_client_reads() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    for shape in [
        json!({"fields":{}}),
        json!({"fields":{"n":"integer"}}),
        json!({"fields":{"n":"integer"},"units":{"n":"EUR"}}),
        json!({"fields":{"n":"text"},"hash":"01546bafe35e675e"}),
        Value::Null,
    ] {
        let (mut wire, _) = subscribed(&hub, json!({"shape":shape})).await;
        wire.say(json!({"t":"unsub","id":1})).await;
        assert_eq!(wire.hear().await["why"], "unsubscribed");
    }
}

#[tokio::test]
async fn a_malformed_shape_is_refused_with_the_field_and_the_fix() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let many: Map<String, Value> = (0..257).map(|n| (format!("f{n}"), json!("text"))).collect();
    for (shape, wrong, fix) in [
        (json!("9f86d081884c7d65"), "expected an object", "`{\"fields\": {"),
        (json!([{"n":"integer"}]), "expected an object", "`{\"fields\": {"),
        (json!({}), "missing field `fields`", "`lantern types`"),
        (json!({"fields":["n"]}), "expected a map", "`lantern types`"),
        (json!({"fields":{"n":7}}), "the kind of the field `n` is 7", "`lantern types`"),
        (
            json!({"fields":{"n":"int"}}),
            "the field `n` has the kind `int`",
            "one of `integer`, `number`",
        ),
        (json!({"fields":{},"units":{"n":"s"}}), "`units` has the field `n`", "`lantern types`"),
        (json!({"fields":{},"per_tenant":"no"}), "expected a boolean", "`lantern types`"),
        (json!({"fields":{},"key":[]}), "unknown field `key`", "`lantern types`"),
        (json!({"fields":many}), "it has 257 fields", "only the fields that the client reads"),
    ] {
        say(&mut wire, json!({"shape":shape})).await;
        let err = wire.hear().await;
        assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!("LAN-0426")), "{err}");
        assert_eq!((&err["parameter"], &err["retry"]), (&json!("shape"), &json!(false)));
        let msg = err["msg"].as_str().unwrap();
        assert!(msg.starts_with("`shape`: ") && msg.contains(wrong) && msg.contains(fix), "{msg}");
    }
    say(&mut wire, json!({"shape":shape()})).await;
    assert_eq!(wire.hear().await["t"], "ok");
}

#[tokio::test]
async fn a_sentence_names_some_fields_and_the_list_all() {
    let world = World::new(1);
    let hub = world.serve(quiet());
    let mut wire = Wire::open(&hub).await;
    let fields: Map<String, Value> =
        (0..256).map(|n| (format!("f{n:03}"), json!("json"))).collect();
    say(&mut wire, json!({"shape":{"fields":fields}})).await;
    let err = wire.hear().await;
    assert_eq!(err["changes"].as_array().unwrap().len(), 256);
    let msg = err["msg"].as_str().unwrap();
    assert!(msg.contains("`f007` was `json` and is gone; and 248 more: "), "{msg}");
}

/// Plays the client's part of an exchange of the conformance suite to the server. `act` is called
/// before each message.
async fn play(file: &str, world: &Arc<World>, act: impl Fn(&Map<String, Value>)) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/feed").join(file);
    let exchange: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let hub = world.serve(LiveConfig { window: 32, ..LiveConfig::default() });
    let (mut wire, mut tokens, mut ids) = (None, HashMap::new(), HashMap::new());
    for step in exchange["steps"].as_array().unwrap() {
        if step.get("connects") == Some(&json!(true)) {
            wire = Some(Wire::silent(&hub, 1 << 20).await);
        } else if step.get("cut").is_some() {
            wire = None;
        } else if let Some(Value::Object(message)) = step.get("client") {
            act(message);
            let mut message = message.clone();
            if let Some(Value::String(variable)) = message.get("id").cloned() {
                let id = ids.len();
                message.insert("id".into(), (*ids.entry(variable).or_insert(id)).into());
            }
            if let Some(Value::String(token)) = message.get("resume").cloned() {
                message.insert("resume".into(), Value::clone(&tokens[&token]));
            }
            wire.as_mut().unwrap().say(Value::Object(message)).await;
        } else if let Some(Value::Object(wanted)) = step.get("server") {
            act(wanted);
            let mut heard = wire.as_mut().unwrap().hear().await;
            // Epochs and tokens are those of the server.
            for member in ["epoch", "tok"] {
                if let Some(text) = wanted.get(member) {
                    let real = std::mem::replace(&mut heard[member], text.clone());
                    tokens.insert(text.as_str().unwrap().to_owned(), real);
                }
            }
            let mut wanted = wanted.clone();
            if let Some(Value::String(variable)) = wanted.get("id").cloned() {
                wanted.insert("id".into(), ids[&variable].into());
            }
            assert_eq!(heard, Value::Object(wanted));
        }
    }
}

#[tokio::test]
async fn the_server_follows_the_exchanges_about_shapes() {
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1))]);
    play("shape.json", &world, |message| match message["t"].as_str().unwrap() {
        "reset" => {
            world.alter_a(add("at", FieldKind::Timestamp));
            world.activate(1);
        }
        "delta" => drop(world.commit(0, &[(0, "x", Some(2))])),
        "end" => {
            world.rename_n("total");
            world.activate(1);
        }
        _ => {}
    })
    .await;
    let world = World::new(1);
    world.commit(0, &[(0, "x", Some(1))]);
    play("shape-refused.json", &world, |message| {
        if message.contains_key("resume") {
            world.alter_a(|table| table.fields[1].kind = FieldKind::Text);
            world.activate(1);
        }
    })
    .await;
}
