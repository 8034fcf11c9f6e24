//! Two versions are compared at the same offsets.

use super::*;
use crate::EngineError;

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
        // Only some turns, so that the versions are often at different offsets.
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
