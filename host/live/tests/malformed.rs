//! Sends random `sub` messages. Each must be answered, a wrong one with an error that names the
//! member, and the session must continue. The test prints its seed.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use fastrand::Rng;
use lantern_live::LiveConfig;
use serde_json::{Value, json};
use wire::Wire;
use world::World;

/// Returns a random value of any kind. For some members it is valid.
fn value(rng: &mut Rng, depth: u8) -> Value {
    let texts = ["", "n", "k", "shop/a", "shop", "=", "in", "prefix", "~", "state", "\u{0}", "é"];
    match rng.u8(..if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i64(-3..100)),
        3 => json!(rng.f64() * 1e300),
        4 | 5 => json!(texts[rng.usize(..texts.len())]),
        6 => json!({texts[rng.usize(..texts.len())]: value(rng, depth - 1)}),
        // Often three elements, as a condition has.
        _ => (0..[1, 3, 3, 3][rng.usize(..4)]).map(|_| value(rng, depth - 1)).collect(),
    }
}

#[tokio::test]
async fn every_malformed_sub_is_answered_with_an_error_that_names_the_member() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1))]);
    let config = LiveConfig { heartbeat_ms: 600_000, tick_ms: 600_000, ..LiveConfig::default() };
    let hub = world.serve(LiveConfig { window: u32::MAX, ..config });
    let mut wire = Wire::open(&hub).await;
    let members = ["table", "where", "cols", "rollup", "mode", "rate_ms", "resume", "order"];
    let (mut accepted, mut refused) = (0, [0; 8]);
    for id in 0..3_000_u64 {
        let valid = json!({"t":"sub","id":id,"table":"shop/a","where":[["n",">=",0]],"cols":["n"]});
        let place = rng.usize(..members.len());
        let member = members[place];
        let mut message = valid;
        message[member] = value(&mut rng, 3);
        wire.say(message.clone()).await;
        let answer = wire.hear().await;
        if answer["t"] == "ok" {
            accepted += 1;
            assert_ne!(member, "order", "{message}");
            wire.hear_a("snap").await;
            wire.say(json!({"t":"unsub","id":id})).await;
            assert_eq!(wire.hear_a("end").await["id"], id);
            continue;
        }
        refused[place] += 1;
        assert_eq!((&answer["t"], &answer["id"]), (&json!("err"), &json!(id)), "{message}");
        let msg = answer["msg"].as_str().unwrap();
        match answer["code"].as_str().unwrap() {
            "no_such_table" => assert_eq!(member, "table", "{message}"),
            "LAN-0426" | "not_supported" => {
                assert_eq!(answer["parameter"], member, "{message}: {answer}");
                assert!(msg.contains(&format!("`{member}`")) || member == "mode", "{msg}");
            }
            _ => panic!("{message}: {answer}"),
        }
    }
    println!("accepted {accepted}, refused {refused:?}");
    assert!(accepted > 100 && refused.iter().all(|count| *count > 50));
}
