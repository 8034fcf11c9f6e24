//! Tests identities that must be unique: epochs, and the history to which a checkpoint belongs.

use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::{ChangesSince, Checkpoint, Offset, Random as _, ShardId, StateStores as _};

use super::*;
use crate::ParkedSelection;

fn filled(events: i64) -> World {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.log.append_to(P0, (0..events).map(|n| event(n, "s", "ok")));
    world.settle();
    world
}

fn epoch(world: &World) -> String {
    world.engine.view("meter").unwrap().epoch().to_owned()
}

fn checkpoint(world: &World) -> Checkpoint {
    world.engine.view("meter").unwrap().checkpoint()
}

#[test]
fn an_epoch_stays_over_restarts() {
    let mut world = filled(10);
    let before = epoch(&world);
    world.restart();
    world.settle();
    assert_eq!(epoch(&world), before);
    assert_eq!(world.engine.status()[0].epoch, before);
}

#[test]
fn a_projection_that_is_created_again_has_another_epoch() {
    let world = filled(10);
    let before = epoch(&world);
    world.engine.delete("meter").unwrap();
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    assert_ne!(epoch(&world), before);
}

#[test]
fn a_rebuilt_state_has_another_epoch() {
    let world = filled(10);
    let before = epoch(&world);
    world.engine.rebuild("meter", &world.id("a")).unwrap();
    world.settle();
    assert_ne!(epoch(&world), before);
}

#[test]
fn a_lost_catalogue_and_a_lost_state_give_another_epoch() {
    let mut world = filled(10);
    let before = epoch(&world);
    let id =
        ShardId { projection: "meter".into(), version: world.id("a"), rebuild: 0, partition: P0 };
    world.stores.remove("meter", &id.version, 0).unwrap();
    world.restart();
    world.settle();
    let after = epoch(&world);
    assert_ne!(after, before);

    let mut ports = world.engine.ports.clone();
    ports.catalog = Arc::new(MemoryCatalog::new());
    world.engine = Engine::open(world.config.clone(), ports).unwrap();
    world.engine.attach();
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    assert!(![before, after].contains(&epoch(&world)));
}

#[test]
fn a_checkpoint_of_other_commits_of_the_same_log_is_honoured() {
    let slow = World::new(EngineConfig::default());
    slow.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    let mut handed_out = Vec::new();
    for n in 0..30 {
        slow.log.append_to(P0, [event(n, "s", "ok")]);
        slow.settle();
        handed_out.push(checkpoint(&slow));
    }
    let fast = World::new(EngineConfig::default());
    fast.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    fast.settle();
    fast.log.append_to(P0, (0..30).map(|n| event(n, "s", "ok")));
    fast.settle();
    let view = fast.engine.view("meter").unwrap();
    assert_ne!(view.pos(), slow.engine.view("meter").unwrap().pos(), "commits are cut elsewhere");
    for at in &handed_out {
        let changes = view.changes_since(at).unwrap();
        assert!(matches!(changes, ChangesSince::Commits(_)), "{at:?}: {changes:?}");
    }
    let last = handed_out.last().unwrap();
    let ChangesSince::Commits(commits) = view.changes_since(last).unwrap() else {
        panic!("just seen")
    };
    assert_eq!(commits, Vec::new(), "nothing is repeated");
}

#[test]
fn a_log_that_was_copied_back_and_continued_differently_is_noticed() {
    let world = World::new(EngineConfig::default());
    world.log.set_incarnations(&[(Offset(0), 7)]);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.log.append_to(P0, (0..5).map(|n| event(n, "s", "ok")));
    world.settle();
    let early = checkpoint(&world);
    world.log.append_to(P0, (5..10).map(|n| event(n, "s", "ok")));
    world.settle();
    let late = checkpoint(&world);
    let honours = |at: &Checkpoint| world.engine.view("meter").unwrap().continues(at).unwrap();
    assert!(honours(&early) && honours(&late));

    world.log.set_incarnations(&[(Offset(0), 7), (Offset(10), 8)]);
    assert!(honours(&early) && honours(&late), "a restart ends no history");

    world.log.set_incarnations(&[(Offset(0), 7), (Offset(5), 9)]);
    assert!(honours(&early), "the first half is the same in both");
    assert!(!honours(&late) && !honours(&late.coarse()));
    assert!(honours(&early.coarse()));
    world.log.append_to(P0, [event(10, "s", "ok")]);
    world.settle();
    let version = &world.engine.status()[0].versions[0];
    assert_eq!(version.activity, "halted");
    let reason = version.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("restored from a copy"), "{reason}");
}

#[test]
fn a_fold_that_stops_after_a_restart_of_the_log_knows_which_log_it_has_folded() {
    let world = World::new(EngineConfig::default());
    world.log.set_incarnations(&[(Offset(0), 7), (Offset(5), 8)]);
    let fails = Arc::new(AtomicBool::new(false));
    let fail = fails.clone();
    let plugin =
        NativePlugin::new(manifest(OnFailure::ParkEvent), move |batch, host, _: &mut ()| {
            if fail.load(Ordering::SeqCst) {
                return Err(ApplyError::Fault("no memory".into()));
            }
            for (index, event) in batch.events.iter().enumerate() {
                let cause = batch.cause_of_event(index);
                read(host, cause, event.subject, event.time, event.data).map_err(host_error)?;
            }
            Ok(())
        });
    world.push("a", plugin);
    world.log.append_to(P0, (0..5).map(|n| event(n, "s", "ok")));
    world.settle();
    fails.store(true, Ordering::SeqCst);
    // The next offset moves past the event that the plugin does not read, and no further.
    let other = Event { kind: "other".into(), ..event(5, "s", "ok") };
    world.log.append_to(P0, [other, event(6, "s", "ok")]);
    world.settle();
    assert_eq!((world.shard().activity.as_str(), world.shard().next), ("faulted", 6));
    fails.store(false, Ordering::SeqCst);
    world.settle_through_faults();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.next), ("idle", 7), "{:?}", shard.reason);
}

#[test]
fn a_checkpoint_of_other_decisions_is_refused() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.log.append_to(P0, [event(0, "s", "ok"), event(1, "s", "bad"), event(2, "t", "bad")]);
    world.settle();
    let before = checkpoint(&world);
    let of = |offset| ParkedSelection { offsets: vec![offset], ..ParkedSelection::default() };
    world.engine.drop_parked("meter", None, &of(1)).unwrap();
    let dropped = checkpoint(&world);
    world.engine.drop_parked("meter", None, &of(2)).unwrap();
    let honours = |world: &World, at| world.engine.view("meter").unwrap().continues(at).unwrap();
    assert!(honours(&world, &before) && honours(&world, &dropped));

    let other = World::new(EngineConfig::default());
    other.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    other.log.append_to(P0, [event(0, "s", "ok"), event(1, "s", "bad"), event(2, "t", "bad")]);
    other.settle();
    assert!(honours(&other, &before));
    other.engine.drop_parked("meter", None, &of(2)).unwrap();
    assert!(honours(&other, &before) && !honours(&other, &dropped));
}

#[test]
fn random_numbers_come_from_the_port() {
    let world = filled(1);
    let next = world.engine.ports.random.draw();
    assert!(next > 1, "the shard's state has drawn one");
    assert!(!epoch(&world).is_empty() && CountingRandom::default().draw() == 1);
}
