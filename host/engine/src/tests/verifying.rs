//! Tests verifications. A verification folds the whole log again. It must get the same state as the
//! live shard, whatever happened to that shard. If the states differ, it must report the
//! difference.

use lantern_core::{Offset, ShardId, Space, Writes};

use super::*;
use crate::{ParkedSelection, Verdict, VerifyStatus};

fn verify(world: &World) -> VerifyStatus {
    world.engine.verify("meter", None).unwrap().run(&mut |_| true)
}

fn shard(world: &World) -> ShardId {
    world.stores.shards().into_iter().next().unwrap()
}

fn tamper(world: &World, space: Space, key: &[u8], value: Option<&[u8]>) {
    let row = std::iter::once((key.to_vec(), value.map(<[u8]>::to_vec))).collect();
    let shard = world.stores.shard(&shard(world));
    lantern_core::ShardStore::commit(&*shard, &Writes::from([(space, row)])).unwrap();
}

fn filled(on_failure: OnFailure) -> World {
    let world = World::new(EngineConfig { batch_events_max: 13, ..EngineConfig::default() });
    let data = |n| if n % 40 == 7 { "bad" } else { "ok" };
    world.log.append_to(P0, (0..300).map(|n| event(n, &format!("s{}", n % 7), data(n))));
    world.push("a", meter(on_failure, Bad::Trap));
    world.settle();
    world
}

fn is_same(world: &World) -> VerifyStatus {
    let status = verify(world);
    assert_eq!(status.verdict, Verdict::Same, "{status:#?}");
    assert_eq!(status.differences, 0);
    assert!(status.partitions[0].tables.iter().all(|t| t.expected == t.found));
    status
}

#[test]
fn a_sound_state_is_the_same_with_timers_parked_events_and_restarts() {
    for on_failure in [OnFailure::ParkEvent, OnFailure::ParkSubject] {
        let mut world = filled(on_failure);
        let status = is_same(&world);
        assert_eq!(status.partitions[0].next, status.events);
        assert!(status.rows > 10 && status.percent == 100.0);
        world.restart();
        world.log.append_to(P0, (300..320).map(|n| event(n, "s1", "ok")));
        world.settle();
        is_same(&world);
        assert_eq!(
            world.engine.status_of("meter").unwrap().verified.unwrap().verdict,
            Verdict::Same
        );
    }
}

#[test]
fn retries_and_drops_are_repeated_at_the_same_offsets() {
    let mut world = filled(OnFailure::ParkSubject);
    let all = ParkedSelection { all: true, ..ParkedSelection::default() };
    let first = ParkedSelection { offsets: vec![7], ..ParkedSelection::default() };
    world.engine.retry("meter", None, &all).unwrap();
    world.engine.drop_parked("meter", None, &first).unwrap();
    assert!(world.engine.retry("meter", None, &all).unwrap().done > 0);
    is_same(&world);
    world.restart();
    world.log.append_to(P0, (300..400).map(|n| event(n, &format!("s{}", n % 7), "ok")));
    world.settle();
    world.engine.drop_parked("meter", None, &all).unwrap();
    world.log.append_to(P0, (400..450).map(|n| event(n, &format!("s{}", n % 7), "ok")));
    world.settle();
    assert_eq!(is_same(&world).partitions[0].decisions, 4);
    // Missing records of retries and drops give the verdict `unverifiable`, because they do not
    // prove damage.
    tamper(&world, Space::Meta, &lantern_core::DecisionRecord::key(1), None);
    assert_eq!(verify(&world).verdict, Verdict::Unverifiable);
}

#[test]
fn a_failed_commit_does_not_lose_the_record_of_a_retry() {
    let world = filled(OnFailure::ParkSubject);
    let all = ParkedSelection { all: true, ..ParkedSelection::default() };
    let state = world.stores.shard(&shard(&world));
    state.fail_commit(0, lantern_core::StoreError::Full("test".into()));
    assert!(world.engine.drop_parked("meter", None, &all).is_err());
    world.log.append_to(P0, (300..310).map(|n| event(n, "s1", "ok")));
    world.settle();
    assert_eq!(is_same(&world).partitions[0].decisions, 1);
}

#[test]
fn each_kind_of_damage_is_named_with_table_key_and_fields() {
    let table = Space::Table(TableId(0));
    let world = filled(OnFailure::ParkEvent);
    let before = world.rows("totals")["s3"].clone();
    let check = |space, key: &[u8], value: Option<&[u8]>, name: &str| {
        tamper(&world, space, key, value);
        let status = verify(&world);
        assert_eq!(status.verdict, Verdict::Differs, "{name}");
        let first = status.partitions[0].first.clone().unwrap();
        assert_eq!(first.table, name);
        assert!(status.partitions[0].tables.iter().any(|t| t.expected != t.found));
        first
    };
    let first = check(table, b"s3", Some(br#"{"last":"ok","n":1}"#), "totals");
    assert_eq!((first.key.as_str(), first.expected.as_deref()), ("s3", Some(before.as_str())));
    assert_eq!((first.fields.len(), first.fields[0].name.as_str()), (1, "n"));
    assert_eq!(first.fields[0].found.as_deref(), Some("1"));
    assert_eq!(check(table, b"s3", None, "totals").found, None);
    tamper(&world, table, b"s3", Some(before.as_bytes()));
    assert_eq!(check(table, b"s33", Some(b"{}"), "totals").expected, None);
    tamper(&world, table, b"s33", None);
    check(Space::TimersByKey, b"odd", Some(&[0; 8]), "(timers by key)");
    tamper(&world, Space::TimersByKey, b"odd", None);
    let key = [7_u64.to_be_bytes(), [0; 8]].concat();
    assert_eq!(check(Space::Parked, &key, None, "(parked events)").key, "offset 7");
}

#[test]
fn a_state_that_cannot_be_folded_again_is_reported_as_unverifiable() {
    let world = filled(OnFailure::ParkEvent);
    world.log.retain_from(P0, Offset(10));
    let status = verify(&world);
    assert_eq!(status.verdict, Verdict::Unverifiable);
    assert!(status.reason.unwrap().contains("begins at offset 10"));
}

#[test]
fn a_difference_under_changed_limits_is_no_verdict() {
    let mut world = filled(OnFailure::ParkEvent);
    world.config.value_bytes_max -= 1;
    world.restart();
    is_same(&world);
    tamper(&world, Space::Table(TableId(0)), b"s3", None);
    let status = verify(&world);
    assert_eq!(status.verdict, Verdict::Unverifiable);
    assert!(status.reason.unwrap().contains("limits"));
}

#[test]
fn verifications_run_one_at_a_time_and_end_on_request() {
    let world = filled(OnFailure::ParkEvent);
    let running = world.engine.verify("meter", None).unwrap();
    assert!(world.engine.verify("meter", None).is_err());
    assert_eq!(running.run(&mut |_| false).verdict, Verdict::Stopped);
    drop(world.engine.verify("meter", None).unwrap());
    let shown = world.engine.status_of("meter").unwrap().verified.unwrap();
    assert_eq!(shown.verdict, Verdict::Stopped);
    is_same(&world);
}

#[test]
fn a_shard_that_moves_on_is_compared_where_it_was() {
    let world = filled(OnFailure::ParkEvent);
    let mut n = 300;
    let status = world.engine.verify("meter", None).unwrap().run(&mut |_| {
        if n < 500 {
            world.log.append_to(P0, (n..n + 5).map(|n| event(n, "s2", "ok")));
            world.settle();
            n += 5;
        }
        true
    });
    assert_eq!(status.verdict, Verdict::Same, "{status:#?}");
}

/// Returns a plugin that is not deterministic: after an event with the data `turn`, it counts its
/// events in memory.
fn turning() -> NativePlugin<(bool, u64)> {
    let manifest = Manifest { event_time: None, emits: vec![], ..manifest(OnFailure::ParkEvent) };
    NativePlugin::new(manifest, |batch, host, (turned, calls): &mut (bool, u64)| {
        for (index, event) in batch.events.iter().enumerate() {
            *turned |= event.data == b"turn";
            *calls += u64::from(*turned);
            let row = format!("{{\"n\":{calls}}}");
            let cause = batch.cause_of_event(index);
            host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    })
}

#[test]
fn late_nondeterminism_is_found_by_a_second_fold_and_stays_known_over_restarts() {
    let config = EngineConfig { second_fold_every: 2, ..EngineConfig::default() };
    let mut world = World::new(config.clone());
    world.push("a", turning());
    world.settle();
    for n in 0..40 {
        world.log.append_to(P0, [event(n, "s1", "ok")]);
        world.settle();
    }
    let shard = world.shard();
    assert!(shard.second_folds >= 10, "{shard:?}");
    assert_eq!(shard.second_fold_differences, 0);
    for n in 40..60 {
        world.log.append_to(P0, [event(n, "s1", if n == 40 { "turn" } else { "ok" })]);
        world.settle();
    }
    let shard = world.shard();
    assert!(shard.second_fold_differences > 0, "{shard:?}");
    let why = shard.second_fold_last.unwrap();
    assert!(why.contains("row in table `totals` under key `s1`"), "{why}");
    world.restart();
    assert_eq!(world.shard().second_fold_differences, shard.second_fold_differences);
    let differs = world.engine.status()[0].versions[0].differs.clone();
    assert!(differs.len() == 1 && differs[0].contains(&why), "{differs:?}");

    let halting = EngineConfig { second_fold_halts: true, ..config };
    let world = World::new(halting);
    world.push("a", turning());
    world.settle();
    for n in 0..40 {
        world.log.append_to(P0, [event(n, "s1", if n == 10 { "turn" } else { "ok" })]);
        world.settle();
    }
    let shard = world.shard();
    assert_eq!(shard.activity, "halted");
    assert!(shard.reason.unwrap().contains("engine.second_fold_halts"));
}

#[test]
fn a_verification_drops_instances_and_what_it_finds_stays_known_over_restarts() {
    let config = EngineConfig { second_fold_every: 0, ..EngineConfig::default() };
    let mut world = World::new(config);
    world.push("a", turning());
    world.settle();
    // One instance folds all events, so the state is right until this instance is dropped.
    world.log.append_to(P0, (0..9_000).map(|n| event(n, "s1", if n == 5 { "turn" } else { "ok" })));
    world.settle();
    let status = verify(&world);
    assert_eq!(status.verdict, Verdict::Differs);
    assert!(status.instances_dropped > 0 && status.steps > status.instances_dropped, "{status:?}");
    assert!(status.reason.unwrap().contains("not deterministic"));
    world.restart();
    let kept = world.engine.status_of("meter").unwrap().verified.unwrap();
    assert_eq!((kept.verdict, kept.differences), (Verdict::Differs, status.differences));
    let differs = |world: &World| world.engine.status()[0].versions[0].differs.clone();
    let kept = differs(&world);
    assert!(kept.len() == 1 && kept[0].contains("second fold of the log"), "{kept:?}");
    // A verification that is running or was stopped does not clear the earlier result.
    let verification = world.engine.verify("meter", None).unwrap();
    assert_eq!(differs(&world), kept);
    assert_eq!(verification.run(&mut |_| false).verdict, Verdict::Stopped);
    assert_eq!(differs(&world), kept);
}
