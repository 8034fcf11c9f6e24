//! Tests live roll-ups: the server, the frames and the client, over tables in memory.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod server;
#[path = "../../../host/live/tests/wire/mod.rs"]
mod wire;
#[path = "../../../tests/proof/src/feed/world.rs"]
mod world;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lantern_client::{Change, Client, RollUp, Status, Table, TableOptions};
use lantern_core::{FieldKind, FieldSpec};
use lantern_live::{Hub, LiveConfig};
use lantern_query::{LiveRollUps, QueryConfig};
use serde_json::{Value, json};
use server::{Server, options, within};
use wire::Wire;
use world::{Numbers, World};

fn config() -> LiveConfig {
    LiveConfig { heartbeat_ms: 60_000, tick_ms: 60_000, roll_up_ms: 1, ..LiveConfig::default() }
}

/// Starts a feed with roll-ups over `world`.
fn serve(world: &Arc<World>, config: LiveConfig) -> Arc<Hub> {
    serve_limited(world, config, QueryConfig::default())
}

fn serve_limited(world: &Arc<World>, config: LiveConfig, query: QueryConfig) -> Arc<Hub> {
    world.serve_with(config, Some(Arc::new(LiveRollUps::new(query))))
}

/// Subscribes to the roll-up of `shop/a`, with these other members. Returns the answer.
async fn sub(wire: &mut Wire, id: u64, rollup: &Value, members: Value) -> Value {
    let mut message = json!({"t":"sub","id":id,"table":"shop/a","rollup":rollup});
    message.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    wire.say(message).await;
    wire.hear().await
}

/// Opens a session and subscribes to a roll-up. Returns the snapshot, too.
async fn subscribed(hub: &Arc<Hub>, rollup: &Value) -> (Wire, Value) {
    let mut wire = Wire::open(hub).await;
    let ok = sub(&mut wire, 1, rollup, json!({})).await;
    assert_eq!((&ok["t"], &ok["resumed"]), (&json!("ok"), &json!(false)), "{ok}");
    let snap = wire.hear().await;
    assert_eq!(snap["t"], "snap", "{snap}");
    (wire, snap)
}

/// Waits until no roll-up takes memory.
async fn released(hub: &Hub) {
    within(async {
        while hub.roll_up_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn by_n() -> Value {
    json!({"by":["n"],"agg":{"rows":["count"]}})
}

fn largest() -> Value {
    json!({"agg":{"max":["max","n"]}})
}

// ------------------------------------------------------------ frames

#[tokio::test]
async fn groups_are_sent_as_rows_and_follow_the_table() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1)), (0, "b", Some(1)), (0, "c", Some(2))]);
    let hub = serve(&world, config());
    let mut wire = Wire::open(&hub).await;
    let rollup = json!({"by":["n"],"agg":{"rows":["count"],"total":["sum","n"]}});
    let ok = sub(&mut wire, 1, &rollup, json!({"where":[["k","!=","x"]]})).await;
    let fields = json!([
        {"name":"n","kind":"integer","unit":"EUR"},
        {"name":"rows","kind":"integer"},
        {"name":"total","kind":"integer","unit":"EUR"},
    ]);
    assert_eq!(ok["fields"], fields);
    let snap = wire.hear().await;
    let rows = json!({"[1]":{"n":1,"rows":2,"total":2},"[2]":{"n":2,"rows":1,"total":2}});
    assert_eq!((&snap["rows"], &snap["commit"]), (&rows, &json!(1)));
    // One group goes, one appears and one changes.
    world.commit(0, &[(0, "c", Some(1)), (0, "d", Some(3)), (0, "x", Some(1))]);
    let delta = wire.hear().await;
    assert_eq!((&delta["from"], &delta["to"]), (&json!(1), &json!(2)), "{delta}");
    let up = json!({"[1]":{"n":1,"rows":3,"total":3},"[3]":{"n":3,"rows":1,"total":3}});
    assert_eq!((&delta["up"], &delta["del"]), (&up, &json!(["[2]"])));
    assert_eq!(delta["offsets"], json!({"0":20}));
}

#[tokio::test]
async fn a_commit_that_changes_no_group_is_a_tick() {
    let world = World::new(1);
    let hub = serve(&world, LiveConfig { tick_ms: 5, ..config() });
    let (mut wire, snap) = subscribed(&hub, &json!({"agg":{"rows":["count"]}})).await;
    assert_eq!(snap["rows"], json!({"[]":{"rows":0}}), "one group that always exists");
    for commit in 1..4 {
        world.commit(0, &[(1, "b", Some(1))]);
        let tick = wire.hear().await;
        assert_eq!(tick["t"], "tick", "{tick}");
        assert_eq!((&tick["from"], &tick["to"]), (&json!(commit - 1), &json!(commit)));
    }
}

#[tokio::test]
async fn a_roll_up_resumes_from_memory_and_gets_a_snapshot_otherwise() {
    for partitions in [1, 2] {
        let world = World::new(partitions);
        world.commit(0, &[(0, "a", Some(1))]);
        let hub = serve(&world, config());
        let (mut first, snap) = subscribed(&hub, &by_n()).await;
        world.commit(0, &[(0, "a", Some(2))]);
        let delta = first.hear().await;
        assert_eq!(delta["del"], json!(["[1]"]));
        // The changes after the snapshot are in memory as long as there is a subscriber.
        let mut wire = Wire::open(&hub).await;
        let ok = sub(&mut wire, 1, &by_n(), json!({"resume":snap["tok"]})).await;
        assert_eq!((&ok["resumed"], &ok["commit"]), (&json!(true), &json!(1)));
        let again = wire.hear().await;
        assert_eq!((&again["up"], &again["del"]), (&delta["up"], &delta["del"]));
        // After a restart the groups are read again. The token identifies the same state as before.
        let hub = serve(&world, config());
        let mut wire = Wire::open(&hub).await;
        let ok = sub(&mut wire, 1, &by_n(), json!({"resume":delta["tok"]})).await;
        assert_eq!((&ok["resumed"], &ok["commit"]), (&json!(true), &json!(2)));
        for (token, rollup, why) in [
            (&snap["tok"], by_n(), "too_old"),
            (&delta["tok"], json!({"by":["k"]}), "fields"),
            (&json!("no token"), by_n(), "fields"),
        ] {
            let mut wire = Wire::open(&hub).await;
            let ok = sub(&mut wire, 1, &rollup, json!({"resume":token})).await;
            assert_eq!(ok["resumed"], false);
            assert_eq!(wire.hear().await["why"], why);
            assert_eq!(wire.hear().await["commit"], 2);
        }
    }
}

#[tokio::test]
async fn another_version_resets_a_roll_up_and_ends_one_whose_field_is_gone() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1))]);
    let hub = serve(&world, config());
    let (mut by_k, _) = subscribed(&hub, &json!({"by":["k"]})).await;
    let (mut by_n, _) = subscribed(&hub, &by_n()).await;
    world.rename_n("m");
    let epoch = world.activate(1);
    let reset = by_k.hear().await;
    assert_eq!((&reset["t"], &reset["why"]), (&json!("reset"), &json!("epoch")));
    assert_eq!(reset["fields"], json!([{"name":"k","kind":"text"}]));
    let snap = by_k.hear().await;
    assert_eq!((&snap["epoch"], &snap["rows"]), (&json!(epoch), &json!({})));
    let end = by_n.hear().await;
    assert_eq!((&end["t"], &end["code"]), (&json!("end"), &json!("LAN-0426")), "{end}");
    world.commit(0, &[(0, "b", Some(1))]);
    assert_eq!(by_k.hear().await["up"], json!({"[\"b\"]":{"k":"b"}}));
}

#[tokio::test]
async fn a_slow_client_gets_merged_changes_or_a_snapshot_of_the_groups() {
    let world = World::new(1);
    let hub = serve(&world, LiveConfig { window: 1, ring_commits_max: 3, ..config() });
    let (mut fast, _) = subscribed(&hub, &by_n()).await;
    let (mut slow, _) = subscribed(&hub, &by_n()).await;
    let mut acked = 0;
    for (commits, kind) in [(2, "delta"), (6, "reset")] {
        for n in 0..commits {
            world.commit(0, &[(0, "a", Some(n))]);
            acked += 1;
            fast.say(json!({"t":"ack","n":acked})).await;
            assert_eq!(fast.hear().await["t"], "delta");
        }
        slow.say(json!({"t":"ack","n":if kind == "delta" { 1 } else { 2 }})).await;
        let frame = slow.hear().await;
        assert_eq!(frame["t"], kind, "{frame}");
        if kind == "delta" {
            assert_eq!(frame["merged"], true);
            assert_eq!(frame["up"], json!({"[1]":{"n":1,"rows":1}}));
        } else {
            assert_eq!(frame["why"], "overflow");
            assert_eq!(slow.hear().await["rows"], json!({"[5]":{"n":5,"rows":1}}));
        }
    }
}

#[tokio::test]
async fn several_roll_ups_of_a_session_reach_the_same_commits() {
    let world = World::new(1);
    let hub = serve(&world, config());
    let (mut wire, _) = subscribed(&hub, &by_n()).await;
    let ok = sub(&mut wire, 2, &json!({"by":["k"]}), json!({})).await;
    assert_eq!((&ok["t"], &wire.hear().await["t"]), (&json!("ok"), &json!("snap")));
    world.commit(0, &[(0, "a", Some(1))]);
    for _ in 0..2 {
        assert_eq!(wire.hear().await["t"], "delta");
    }
    // The key `a` keeps its group. The other roll-up reports at once that it is at this commit.
    world.commit(0, &[(0, "a", Some(2))]);
    let (delta, tick) = (wire.hear().await, wire.hear().await);
    assert_eq!((&delta["t"], &tick["t"]), (&json!("delta"), &json!("tick")));
    assert_eq!((&delta["to"], &tick["to"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_value_that_only_the_table_knows_is_read_again_no_more_often_than_allowed() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1)), (0, "b", Some(2)), (0, "c", Some(3))]);
    let interval = Duration::from_millis(300);
    let hub = serve(&world, LiveConfig { roll_up_scan_ms: 300, ..config() });
    let (mut wire, snap) = subscribed(&hub, &largest()).await;
    assert_eq!(snap["rows"], json!({"[]":{"max":3}}));
    world.commit(0, &[(0, "c", None)]);
    assert_eq!(wire.hear().await["up"], json!({"[]":{"max":2}}));
    let read = Instant::now();
    world.commit(0, &[(0, "b", None)]);
    let delta = wire.hear().await;
    assert_eq!((&delta["up"], &delta["to"]), (&json!({"[]":{"max":1}}), &json!(3)));
    let waited = read.elapsed();
    assert!(waited > interval / 2, "the table was read again after {waited:?}");
    // A larger value is known without the table.
    world.commit(0, &[(0, "d", Some(9))]);
    assert_eq!(wire.hear().await["up"], json!({"[]":{"max":9}}));
}

#[tokio::test]
async fn a_failed_read_is_tried_again() {
    let world = World::new(1);
    let hub = serve(&world, config());
    let (mut wire, _) = subscribed(&hub, &by_n()).await;
    world.fail_next_read();
    world.commit(0, &[(0, "a", Some(1))]);
    assert_eq!(wire.hear().await["up"], json!({"[1]":{"n":1,"rows":1}}));
}

// ------------------------------------------------------------ refusals and limits

#[tokio::test]
async fn a_wrong_roll_up_is_refused_with_the_member_and_the_fix() {
    let world = World::new(1);
    let hub = serve(&world, config());
    let mut wire = Wire::open(&hub).await;
    for (rollup, members, code, parameter, text) in [
        (json!({"by":["m"]}), json!({}), "LAN-0426", "by", "no field `m`"),
        (json!({"agg":{"x":["median","n"]}}), json!({}), "LAN-0426", "agg", "`median`"),
        (json!({"bucket":"1h"}), json!({}), "LAN-0426", "bucket", "timestamp"),
        (json!({"by":["n"],"fill":"zero"}), json!({}), "LAN-0426", "fill", "`bucket`"),
        (by_n(), json!({"where":[["m","=",1]]}), "LAN-0426", "where", "no field `m`"),
        (by_n(), json!({"cols":["n"]}), "LAN-0426", "cols", "leave `cols` out"),
        (by_n(), json!({"mode":"changes"}), "not_supported", "mode", "use mode `state`"),
    ] {
        let err = sub(&mut wire, 1, &rollup, members).await;
        assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!(code)), "{err}");
        assert_eq!((&err["parameter"], &err["retry"]), (&json!(parameter), &json!(false)));
        assert!(err["msg"].as_str().unwrap().contains(text), "{err}");
    }
    let without = world.serve(config());
    let mut wire = Wire::open(&without).await;
    let err = sub(&mut wire, 1, &by_n(), json!({})).await;
    assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!("not_supported")), "{err}");
}

fn over_limit(message: &Value, kind: &str, setting: &str) {
    assert_eq!((&message["t"], &message["code"]), (&json!(kind), &json!("LAN-0427")), "{message}");
    let text = if kind == "err" { &message["msg"] } else { &message["why"] };
    assert!(text.as_str().unwrap().contains(&format!("`{setting}`")), "{message}");
    if kind == "err" {
        assert_eq!(message["setting"], setting, "{message}");
        assert_eq!(message["retry"], setting.starts_with("live."), "{message}");
    }
}

#[tokio::test]
async fn one_roll_up_too_many_is_refused_and_equal_ones_share_their_groups() {
    let world = World::new(1);
    world.commit(0, &[(0, "a", Some(1))]);
    let hub = serve(&world, LiveConfig { roll_ups_max: 1, ..config() });
    let (first, _) = subscribed(&hub, &by_n()).await;
    let bytes = hub.roll_up_bytes();
    assert!(bytes > 0);
    let (mut second, _) = subscribed(&hub, &by_n()).await;
    assert_eq!(hub.roll_up_bytes(), bytes);
    over_limit(&sub(&mut second, 2, &largest(), json!({})).await, "err", "live.roll_ups_max");
    // When the roll-up has no subscriber any more, another one can take its place.
    drop((first, second));
    released(&hub).await;
    subscribed(&hub, &largest()).await;
}

#[tokio::test]
async fn a_roll_up_that_exceeds_a_limit_is_refused_or_ends_with_the_setting() {
    let keys: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
    let many: Vec<_> = keys.iter().map(|key| (0, key.as_str(), Some(1))).collect();
    let default = QueryConfig::default;
    for (setting, live, query) in [
        ("live.roll_up_bytes_max", LiveConfig { roll_up_bytes_max: 5_000, ..config() }, default()),
        ("query.groups_max", config(), QueryConfig { groups_max: 50, ..default() }),
        ("query.memory_bytes_max", config(), QueryConfig { memory_bytes_max: 5_000, ..default() }),
    ] {
        let world = World::new(1);
        world.commit(0, &[(0, "a", Some(1))]);
        let hub = serve_limited(&world, live, query);
        let by_k = json!({"by":["k"]});
        let (mut wire, _) = subscribed(&hub, &by_k).await;
        world.commit(0, &many);
        over_limit(&wire.hear().await, "end", setting);
        over_limit(&sub(&mut wire, 2, &by_k, json!({})).await, "err", setting);
        released(&hub).await;
        // Another roll-up of the same session goes on.
        let ok = sub(&mut wire, 3, &by_n(), json!({})).await;
        assert_eq!(ok["t"], "ok", "{ok}");
    }
}

#[tokio::test]
async fn a_sum_that_does_not_fit_ends_the_subscription() {
    let world = World::new(1);
    let hub = serve(&world, config());
    let (mut wire, _) = subscribed(&hub, &json!({"agg":{"total":["sum","n"]}})).await;
    world.commit(0, &[(0, "a", Some(i64::MIN)), (0, "b", Some(-1))]);
    let end = wire.hear().await;
    assert_eq!((&end["t"], &end["code"]), (&json!("end"), &json!("LAN-0428")), "{end}");
    assert!(end["why"].as_str().unwrap().contains("`total`"), "{end}");
}

#[tokio::test]
async fn groups_that_fit_no_snapshot_or_frame_are_refused() {
    let world = World::new(1);
    let long = "x".repeat(5_000);
    world.commit(0, &[(0, "a", Some(1)), (0, "b", Some(1)), (0, &long, Some(1))]);
    let by_k = json!({"by":["k"]});
    for config in [
        LiveConfig { snapshot_rows_max: 2, ..config() },
        LiveConfig { frame_bytes_max: 4_096, ..config() },
    ] {
        let hub = serve(&world, config);
        let mut wire = Wire::open(&hub).await;
        let err = sub(&mut wire, 1, &by_k, json!({})).await;
        assert_eq!((&err["t"], &err["code"]), (&json!("err"), &json!("too_large")), "{err}");
    }
}

// ------------------------------------------------------------ the client

/// A roll-up of `shop/a`, and the groups that it must have.
struct Case {
    options: TableOptions,
    groups: fn(&Numbers) -> BTreeMap<String, Value>,
}

fn cases() -> [Case; 3] {
    let roll_up = |by: &[&str], agg: &[(&str, &[&str])]| TableOptions {
        roll_up: Some(RollUp {
            by: by.iter().map(|name| (*name).to_owned()).collect(),
            agg: agg.iter().copied().collect(),
            ..RollUp::default()
        }),
        ..TableOptions::default()
    };
    let counts = |numbers: &Numbers| {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        numbers.values().for_each(|n| *counts.entry(*n).or_default() += 1);
        let group = |(n, rows)| (format!("[{n}]"), json!({"n":n,"rows":rows}));
        counts.into_iter().map(group).collect()
    };
    let whole = |numbers: &Numbers| {
        let n = || numbers.values();
        let total: i64 = n().sum();
        let total = (!numbers.is_empty()).then_some(total);
        let group = json!({"rows":numbers.len(),"total":total,"max":n().max(),"min":n().min()});
        [("[]".to_owned(), group)].into()
    };
    let positive = |numbers: &Numbers| {
        let rows = numbers.iter().filter(|(_, n)| **n > 0);
        rows.map(|(k, n)| (format!("[\"{k}\"]"), json!({"k":k,"total":n}))).collect()
    };
    let all: &[(&str, &[&str])] = &[
        ("rows", &["count"]),
        ("total", &["sum", "n"]),
        ("max", &["max", "n"]),
        ("min", &["min", "n"]),
    ];
    [
        Case { options: roll_up(&["n"], &[("rows", &["count"])]), groups: counts },
        Case { options: roll_up(&[], all), groups: whole },
        Case {
            options: roll_up(&["k"], &[("total", &["sum", "n"])]).condition("n", ">", 0),
            groups: positive,
        },
    ]
}

/// Checks that the groups which `table` shows are those of the rows at the same commit. Returns the
/// epoch and the commit.
fn check(world: &World, table: &Table, case: &Case) -> Option<(String, u64)> {
    let epoch = table.epoch();
    let (shown, commit) = table.with(|rows, commit| {
        let rows = rows.iter().map(|(key, row)| (key.clone(), row.read().unwrap()));
        Some((rows.collect::<BTreeMap<String, Value>>(), commit?))
    })?;
    // The epoch and the groups are read one after another. They belong together only if the epoch
    // did not change.
    let epoch = epoch.filter(|epoch| table.epoch().as_ref() == Some(epoch))?;
    let rows = world.numbers_at(&epoch, commit, 0).expect("a committed state");
    assert_eq!(shown, (case.groups)(&rows), "at {epoch} {commit}");
    Some((epoch, commit))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_of_a_roll_up_is_that_of_a_committed_state() {
    let config = LiveConfig {
        heartbeat_ms: 30,
        tick_ms: 5,
        window: 4,
        ring_commits_max: 8,
        roll_up_ms: 1,
        roll_up_scan_ms: 3,
        ..LiveConfig::default()
    };
    let mut states = 0;
    for (seed, partitions) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(partitions);
        let server = Server::start(serve(&world, config.clone())).await;
        let client = within(Client::connect(&server.url, options())).await.unwrap();
        let mut tables = Vec::new();
        let mut checkers = Vec::new();
        for case in cases() {
            let table = client.table_with("shop/a", case.options.clone());
            tables.push(table.clone());
            let of = world.clone();
            checkers.push(tokio::spawn(async move {
                let (mut changes, mut seen) = (table.changes(), HashSet::new());
                while let Some(change) = changes.next().await {
                    seen.extend(check(&of, &table, &case));
                    if let Change::Ended(_) = change {
                        break;
                    }
                }
                seen.len()
            }));
        }
        for _ in 0..500 {
            let key = format!("k{}", rng.u8(..12));
            let write = (0, key.as_str(), (rng.u8(..4) > 0).then(|| rng.i64(-2..6)));
            world.commit(rng.u32(..u32::try_from(partitions).unwrap()), &[write]);
            match rng.u8(..60) {
                0 => server.cut(),
                1 => server.restart(serve(&world, config.clone())),
                2 => {
                    world.activate(partitions);
                }
                3 => world.forget_changes(),
                4..30 => tokio::time::sleep(Duration::from_millis(2)).await,
                _ => tokio::task::yield_now().await,
            }
        }
        let (epoch, commit) = world.head();
        for (table, case) in tables.iter().zip(cases()) {
            within(async {
                while check(&world, table, &case) != Some((epoch.clone(), commit)) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            assert!(matches!(table.status(), Status::Live | Status::Stale), "{:?}", table.status());
        }
        client.close();
        for checker in checkers {
            states += within(checker).await.unwrap();
        }
    }
    println!("{states} states");
    assert!(states > 200, "only {states} states");
}

// ------------------------------------------------------------ shapes

fn shape(fields: Value) -> Value {
    json!({"shape":{"fields":fields,"per_tenant":false}})
}

#[tokio::test]
async fn a_version_ends_roll_ups_whose_fields_it_changes_and_no_others() {
    let all = json!({"k":"text","n":"integer"});
    let filtered = |mut members: Value| {
        members["where"] = json!([["n", ">", 0]]);
        members
    };
    for (rollup, members, ends) in [
        (json!({"agg":{"rows":["count"]}}), shape(all.clone()), false),
        (json!({"by":["k"],"agg":{"rows":["count"]}}), shape(all.clone()), false),
        (by_n(), shape(all.clone()), true),
        (largest(), shape(all.clone()), true),
        (json!({"agg":{"rows":["count"]}}), filtered(shape(all.clone())), true),
        (largest(), shape(json!({"n":"integer"})), true),
    ] {
        let world = World::new(1);
        let hub = serve(&world, config());
        let mut wire = Wire::open(&hub).await;
        assert_eq!(sub(&mut wire, 1, &rollup, members.clone()).await["t"], "ok");
        assert_eq!(wire.hear().await["t"], "snap");
        // The keys of groups do not depend on the keys of rows, so a tenant in them has no effect.
        world.alter_a(|table| {
            table.fields[1].name = "m".into();
            table.per_tenant = true;
        });
        world.activate(1);
        let next = wire.hear().await;
        if ends {
            assert_eq!((&next["t"], &next["code"]), (&json!("end"), &json!("shape")), "{next}");
            assert_eq!(next["changes"], json!([{"field":"n","before":"integer"}]));
            let again = sub(&mut wire, 1, &rollup, members).await;
            assert_eq!((&again["t"], &again["code"]), (&json!("err"), &json!("shape")), "{again}");
        } else {
            assert_eq!(next["t"], "reset", "{rollup}: {next}");
            assert_eq!(wire.hear().await["t"], "snap");
        }
    }
}

#[tokio::test]
async fn a_second_timestamp_field_does_not_end_a_roll_up_that_names_no_time() {
    let timestamp = |name: &str| FieldSpec {
        name: name.into(),
        kind: FieldKind::Timestamp,
        ..FieldSpec::default()
    };
    let hours = json!({"bucket":"1h","agg":{"rows":["count"]}});
    for (members, goes_on) in [(shape(json!({"at":"timestamp"})), true), (json!({}), false)] {
        let world = World::new(1);
        world.alter_a(|table| table.fields.push(timestamp("at")));
        world.activate(1);
        let hub = serve(&world, config());
        let mut wire = Wire::open(&hub).await;
        let ok = sub(&mut wire, 1, &hours, members).await;
        assert_eq!(ok["fields"][0], json!({"name":"at","kind":"timestamp"}), "{ok}");
        assert_eq!(wire.hear().await["t"], "snap");
        world.alter_a(|table| table.fields.extend([timestamp("at"), timestamp("sent_at")]));
        world.activate(1);
        let next = wire.hear().await;
        match goes_on {
            true => assert_eq!(next["t"], "reset", "{next}"),
            false => assert_eq!(next["code"], "LAN-0426", "{next}"),
        }
    }
}
