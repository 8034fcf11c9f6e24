//! Two versions are compared at the same offsets, and the path of an event shows what each
//! version has done with it.

use lantern_core::{Offset, TypeFilter};

use super::*;
use crate::{EngineError, EventOutcome, EventStep, ParkedSelection, fold_sample, newest_events};

fn step(world: &World, offset: u64, version: &str) -> EventStep {
    let path = world.engine.event_path(P0, Offset(offset)).unwrap().unwrap();
    let id = world.id(version).0;
    path.versions.into_iter().find(|step| step.version == id).unwrap()
}

#[test]
fn versions_are_read_at_the_same_offsets_while_events_arrive() {
    let world = World::new(EngineConfig { batch_events_max: 5, ..EngineConfig::default() });
    world.log.append_to(P0, (0..40).map(|n| event(n, &format!("s{}", n % 7), "ok")));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    world.push_as("b", meter(OnFailure::ParkEvent, Bad::Apply), Activation::Never);
    world.settle();
    let (a, b) = (world.id("a"), world.id("b"));
    let mut unequal = 0;
    for n in 40..90 {
        world.log.append_to(P0, [event(n, "s1", "ok")]);
        // Runs only some turns, so that the versions are often at different offsets.
        for _ in 0..n % 3 {
            world.engine.turn_once();
        }
        let view = |id| world.engine.view_version("meter", id).unwrap().offsets();
        unequal += usize::from(view(&a) != view(&b));
        let views = world.engine.aligned_views("meter", [&a, &b]).unwrap();
        assert_eq!(views[0].offsets(), views[1].offsets());
        let rows = |view: &lantern_core::View| {
            view.scan(TableId(0), &KeyRange::all(), usize::MAX, false).unwrap()
        };
        assert_eq!(rows(&views[0]), rows(&views[1]));
    }
    assert!(unequal > 0, "the versions were never at different offsets");
    // A paused projection folds nothing, also for a comparison.
    world.log.append_to(P0, [event(90, "s1", "ok")]);
    let differ = || {
        let view = |id| world.engine.view_version("meter", id).unwrap().offsets();
        view(&a) != view(&b)
    };
    while !differ() {
        assert!(world.engine.turn_once(), "both versions have folded the event at once");
    }
    world.engine.pause("meter").unwrap();
    let refused = world.engine.aligned_views("meter", [&a, &b]).err().unwrap();
    assert_eq!(refused.code(), "LAN-0441");
}

#[test]
fn a_version_that_is_far_behind_is_not_compared() {
    let world = World::new(EngineConfig { batch_events_max: 5, ..EngineConfig::default() });
    world.log.append_to(P0, (0..200).map(|n| event(n, "s1", "ok")));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    world.push_as("b", meter(OnFailure::ParkEvent, Bad::Apply), Activation::Never);
    let refused = world.engine.aligned_views("meter", [&world.id("a"), &world.id("b")]);
    assert!(matches!(refused.err(), Some(EngineError::NotReady { .. })));
}

#[test]
fn the_path_of_an_event_shows_what_each_version_has_done_with_it() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    let other = Event { kind: "other".into(), ..event(3, "s2", "ok") };
    let events = [event(0, "s1", "ok"), event(1, "s1", "bad"), event(2, "s1", "ok"), other];
    world.log.append_to(P0, events);
    assert_eq!(step(&world, 0, "a").outcome, EventOutcome::Pending);
    world.settle();
    assert_eq!(step(&world, 0, "a").outcome, EventOutcome::Applied);
    let EventOutcome::Parked { waits: false, reason, attempts: 1 } = step(&world, 1, "a").outcome
    else {
        panic!("{:?}", step(&world, 1, "a"));
    };
    assert_eq!(reason, "bad data");
    assert!(matches!(step(&world, 2, "a").outcome, EventOutcome::Parked { waits: true, .. }));
    let EventOutcome::Skipped(reason) = step(&world, 3, "a").outcome else { panic!() };
    assert!(reason.contains("`other`"));
    world.push_as("b", meter(OnFailure::ParkEvent, Bad::Apply), Activation::Never);
    let behind = step(&world, 1, "b");
    assert_eq!((behind.outcome, behind.state), (EventOutcome::Pending, "backfilling"));
    world.settle();
    let ready = step(&world, 1, "b");
    assert_eq!((ready.outcome, ready.state), (EventOutcome::Applied, "ready"));
    assert_eq!(ready.next, 4);
    // After a drop, nothing shows whether the event was applied. It is only known that the drop
    // selected it.
    let dropped = ParkedSelection { offsets: vec![1], ..ParkedSelection::default() };
    world.engine.drop_parked("meter", None, &dropped).unwrap();
    let at = Offset(4);
    assert_eq!(step(&world, 1, "a").outcome, EventOutcome::AppliedOrDropped { at });
    assert_eq!(step(&world, 0, "a").outcome, EventOutcome::Applied);
    assert_eq!(world.engine.event_path(P0, Offset(9)).unwrap(), None);
}

#[test]
fn a_sample_has_the_newest_wanted_events_and_its_fold_ends_on_request() {
    let world = World::new(EngineConfig::default());
    let kind = |n: i64| if n % 5 == 0 { "m.read" } else { "other" };
    world.log.append_to(
        P0,
        (0..500).map(|n| Event { kind: kind(n).into(), ..event(n, "s1", &n.to_string()) }),
    );
    let filters = [TypeFilter::new(&["m.*".to_owned()])];
    let sample = newest_events(&*world.log, &filters, 20, 1 << 20).unwrap();
    let range = sample[0].range();
    assert_eq!((range.from, range.to, sample[0].len()), (Offset(400), Offset(496), 20));
    // Larger events than fit are left out, the oldest first.
    let size = sample[0].chunks()[0].events.get(0).bytes();
    let few = newest_events(&*world.log, &filters, 20, size * 3 + size / 2).unwrap();
    assert_eq!((few[0].range().from, few[0].len()), (Offset(485), 3));
    assert_eq!(newest_events(&*world.log, &filters, 20, 1).unwrap()[0].len(), 0);
    let plugin: Arc<dyn Plugin> = Arc::new(meter(OnFailure::ParkEvent, Bad::Apply));
    let (id, config) = (world.id("a"), EngineConfig::default());
    let fold = |pace: &mut dyn FnMut(u64) -> Result<(), String>| {
        fold_sample(&plugin, &id, &sample, &*world.stores, &config, pace)
    };
    let folded = fold(&mut |_| Ok(())).unwrap();
    assert_eq!(folded.applied, 20);
    let row = folded.view.get(TableId(0), "s1").unwrap().unwrap();
    assert_eq!(String::from_utf8(row).unwrap(), r#"{"last":"495","n":20}"#);
    let ended = fold(&mut |_| Err("enough".into())).err().unwrap();
    assert_eq!(ended.code(), "LAN-0443");
    // If few events are wanted, the sample spans a bounded number of offsets.
    let none = [TypeFilter::new(&["never".to_owned()])];
    assert_eq!(newest_events(&*world.log, &none, 20, 1 << 20).unwrap()[0].len(), 0);
    let rare = newest_events(&*world.log, &filters, 2, 1 << 20).unwrap();
    assert_eq!((rare[0].range().from, rare[0].len()), (Offset(490), 2));
    let others = (500..540).map(|n| Event { kind: "other".into(), ..event(n, "s1", "ok") });
    world.log.append_to(P0, others);
    let span = newest_events(&*world.log, &filters, 2, 1 << 20).unwrap();
    assert_eq!(span[0].len(), 0, "the newest wanted event is 45 offsets away, more than 16 * 2");
}
