//! Tests versions: they backfill, replace each other at one offset, and can be rolled back.

use std::time::Duration;

use super::*;
use crate::EngineError;
use lantern_core::{StoreError, fake::Published};

fn plugin(last: &'static str) -> NativePlugin {
    NativePlugin::new(manifest(OnFailure::ParkEvent), move |batch, host, _: &mut ()| {
        for (index, timer) in (0..).zip(&batch.timers) {
            close(batch, host, Cause(index), &timer.key).map_err(host_error)?;
        }
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            read(host, cause, event.subject, event.time, last.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    })
}

#[test]
fn the_old_version_serves_until_the_new_one_has_caught_up() {
    let config = EngineConfig { batch_events_max: 10, ..EngineConfig::default() };
    let world = World::new(config);
    world.log.append_to(P0, (0..100).map(|n| event(n, "s", "x")));
    world.push("a", plugin("one"));
    world.settle();
    world.push("b", plugin("two"));
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.engine.turn_once();
        seen.push(world.rows("totals")["s"].clone());
    }
    seen.dedup();
    // Readers never see a half-folded table.
    assert_eq!(seen, [r#"{"last":"one","n":100}"#, r#"{"last":"two","n":100}"#]);
    let flips: Vec<_> = world
        .publish
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Published::Activated { .. }))
        .collect();
    assert_eq!(flips.len(), 2);
    // The old version is kept up to date, so that a rollback is instant.
    world.log.append_to(P0, (100..150).map(|n| event(n, "s", "x")));
    world.settle();
    assert_eq!(world.engine.rollback("meter").unwrap(), world.id("a"));
    assert_eq!(world.rows("totals")["s"], r#"{"last":"one","n":150}"#);
    assert_eq!(world.engine.rollback("meter").unwrap(), world.id("b"));
    assert_eq!(world.rows("totals")["s"], r#"{"last":"two","n":150}"#);
}

#[test]
fn versions_that_follow_one_another_emit_each_event_once() {
    let mut world = World::new(EngineConfig { batch_events_max: 7, ..EngineConfig::default() });
    for round in 0..6 {
        let from = round * 50;
        world.log.append_to(P0, (from..from + 50).map(|n| event(n, "s", "x")));
        let sha = ["a", "b"][usize::try_from(round).unwrap() % 2];
        if round < 2 {
            world.push(sha, plugin(sha));
        } else {
            for _ in 0..3 {
                world.engine.turn_once();
            }
            world.engine.rollback("meter").ok();
        }
        if round == 3 {
            world.restart();
        }
        world.settle();
    }
    let mut windows: Vec<_> = world
        .log
        .events(P0)
        .into_iter()
        .filter(|(_, e)| e.kind == "window.closed")
        .map(|(_, e)| e.subject)
        .collect();
    let all = windows.len();
    windows.sort();
    windows.dedup();
    assert_eq!(windows.len(), all, "no window closed twice");
    // From the first activation on, no window may be missing. The 300 readings take 75 seconds,
    // with four readings per second. The first version became active after 50 readings.
    let seconds: Vec<i64> =
        windows.iter().map(|w| w[..20].parse::<i64>().unwrap() / SECOND).collect();
    let from = seconds[0];
    assert!(seconds.iter().enumerate().all(|(i, s)| *s == from + 5 * i as i64), "{seconds:?}");
}

#[test]
fn the_same_plugin_pushed_again_is_the_same_version() {
    let world = World::new(EngineConfig::default());
    assert!(!world.push("a", plugin("one")).existed);
    assert!(world.push("a", plugin("one")).existed);
    assert_eq!(world.engine.status()[0].versions.len(), 1);
}

#[test]
fn a_flip_whose_record_cannot_be_written_leaves_the_old_version_serving() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..100).map(|n| event(n, "s", "x")));
    world.push("a", plugin("one"));
    world.settle();
    world.push("b", plugin("two"));
    world.catalog.fail_next_write(StoreError::Full("no room".into()));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"one","n":100}"#);
    world.clock.advance(Duration::from_secs(1));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"two","n":100}"#);
}

#[test]
fn an_active_version_is_not_deleted_alone_and_a_deleted_projection_has_no_state() {
    let mut world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..10).map(|n| event(n, "s", "x")));
    world.push("a", plugin("one"));
    world.settle();
    world.push("b", plugin("two"));
    world.settle();
    let active = world.id("b");
    let refused = world.engine.delete_version("meter", &active);
    assert!(matches!(refused, Err(EngineError::IsActive(..))));
    world.engine.delete_version("meter", &world.id("a")).unwrap();
    assert!(matches!(world.engine.rollback("meter"), Err(EngineError::NoPrevious(_))));
    world.engine.delete("meter").unwrap();
    world.restart();
    world.settle();
    assert!(world.engine.status().is_empty());
    assert!(world.stores.shards().is_empty());
}

#[test]
fn a_rebuild_ends_in_the_same_state_and_emits_nothing_twice() {
    let world = World::new(EngineConfig::default());
    world.push("a", plugin("one"));
    world.settle();
    world.log.append_to(P0, (0..200).map(|n| event(n, "s", "x")));
    world.settle();
    let (state, emitted) = (world.state(), world.log.events(P0).len());
    world.engine.rebuild("meter", &world.id("a")).unwrap();
    world.settle();
    assert_eq!(world.state(), state);
    assert_eq!(world.log.events(P0).len(), emitted);
    world.log.append_to(P0, (200..300).map(|n| event(n, "s", "x")));
    world.settle();
    assert!(world.log.events(P0).len() > emitted + 100);
}

#[test]
fn events_applied_before_a_pause_are_published() {
    let config =
        EngineConfig { commit_ms: 60_000, batch_events_max: 10, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", plugin("one"));
    world.settle();
    world.log.append_to(P0, (0..100).map(|n| event(n, "s", "x")));
    world.engine.turn_once();
    assert!(world.rows("totals").is_empty(), "it is applied, and not committed yet");
    world.engine.pause("meter").unwrap();
    let shard = world.stores.shards().remove(0);
    world.stores.shard(&shard).fail_commit(0, StoreError::Io("planted".into()));
    world.settle();
    assert!(world.rows("totals").is_empty());
    world.settle_through_faults();
    assert!(world.rows("totals").contains_key("s"));
}

#[test]
fn a_paused_projection_applies_nothing_also_after_a_restart() {
    let mut world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..10).map(|n| event(n, "s", "x")));
    world.push("a", plugin("one"));
    world.settle();
    world.engine.pause("meter").unwrap();
    world.restart();
    world.log.append_to(P0, (10..20).map(|n| event(n, "s", "x")));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"one","n":10}"#);
    assert_eq!(world.engine.status()[0].versions[0].activity, "paused");
    world.engine.resume("meter").unwrap();
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"one","n":20}"#);
}

#[test]
fn a_rebuild_emits_what_the_log_had_refused_before_it() {
    let windows = |refused: bool| {
        let world = World::new(EngineConfig { batch_events_max: 7, ..EngineConfig::default() });
        world.log.append_to(P0, (0..50).map(|n| event(n, "s", "x")));
        world.push("a", plugin("one"));
        world.settle();
        world.log.append_to(P0, (50..150).map(|n| event(n, "s", "x")));
        if refused {
            world.log.fail_next_append(lantern_core::LogError::Unavailable("not now".into()));
            for _ in 0..8 {
                world.engine.turn_once();
            }
            world.engine.rebuild("meter", &world.id("a")).unwrap();
        }
        world.settle_through_faults();
        let events = world.log.events(P0).into_iter().filter(|(_, e)| e.kind == "window.closed");
        events.map(|(_, e)| e.subject).collect::<Vec<_>>()
    };
    assert!(windows(false).len() > 3);
    assert_eq!(windows(true), windows(false));
}

/// Returns a plugin that fails on events whose data is `bad` or equals `also`.
fn failing(on_failure: OnFailure, also: &'static [u8]) -> NativePlugin {
    NativePlugin::new(manifest(on_failure), move |batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            if event.data == b"bad" || event.data == also {
                let message = "cannot read it".into();
                return Err(ApplyError::Failed { cause: Some(cause), message });
            }
            read(host, cause, event.subject, event.time, event.data).map_err(host_error)?;
        }
        Ok(())
    })
}

/// Appends ninety events of three subjects. One event has the data `bad`, and another one has the
/// data `odd`.
fn with_two_odd_events(world: &World) {
    let data = |n| match n {
        10 => "bad",
        50 => "odd",
        _ => "ok",
    };
    world.log.append_to(P0, (0..90).map(|n| event(n, &format!("s{}", n % 3), data(n))));
}

#[test]
fn a_version_that_parks_what_the_active_one_has_applied_is_not_activated_without_force() {
    let mut world = World::new(EngineConfig::default());
    with_two_odd_events(&world);
    world.push("a", failing(OnFailure::ParkSubject, b""));
    world.settle();
    world.push("b", failing(OnFailure::ParkSubject, b"odd"));
    world.settle();
    let (a, b) = (world.id("a"), world.id("b"));
    let check = |world: &World| {
        let status = &world.engine.status()[0];
        assert_eq!(status.active, Some(a.0.clone()));
        let version = status.versions.iter().find(|v| v.id == b.0).unwrap();
        assert_eq!(version.state, "ready");
        let why = version.not_activated.as_ref().unwrap();
        // Events 50, 53, … of subject s2 are reported, because only the new version has parked
        // them. Events 10, 13, … of subject s1 are not reported, because both versions have parked
        // them.
        assert!(why.contains("fails on 1 event and holds back 13 behind them"), "{why}");
        assert!(why.contains("at offset 50 of partition 0: cannot read it"), "{why}");
        assert_eq!((version.parked, version.waiting), (27 + 14, 26 + 13));
    };
    check(&world);
    world.restart();
    world.settle();
    check(&world);
    let refused = world.engine.activate("meter", &b, false).unwrap_err();
    assert_eq!(refused.code(), "LAN-0220");
    let EngineError::AppliesLess(less) = refused else { panic!("{refused}") };
    assert_eq!((less.failed, less.waiting), (1, 13));
    world.engine.activate("meter", &b, true).unwrap();
    let status = &world.engine.status()[0];
    assert_eq!(status.active, Some(b.0.clone()));
    assert!(status.versions.iter().all(|v| v.not_activated.is_none()));
    // A rollback to a version that has applied more events is always possible, and so is another
    // rollback after it.
    assert_eq!(world.engine.rollback("meter").unwrap(), a);
    assert_eq!(world.engine.rollback("meter").unwrap(), b);
}

#[test]
fn a_forced_upload_is_activated_whatever_it_parks_also_if_it_was_refused_before() {
    for (first, restarts) in [(Activation::Forced, true), (Activation::Checked, false)] {
        let mut world = World::new(EngineConfig::default());
        with_two_odd_events(&world);
        world.push("a", failing(OnFailure::ParkSubject, b""));
        world.settle();
        let a = world.id("a");
        world.push_as("b", failing(OnFailure::ParkSubject, b"odd"), first);
        if restarts {
            // If the server restarts before the version has caught up, its activation is still
            // forced.
            world.restart();
        }
        world.settle();
        let b = world.id("b");
        let active = |world: &World| world.engine.status()[0].active.clone();
        if first == Activation::Checked {
            assert_eq!(active(&world), Some(a.0.clone()));
            let plugin = failing(OnFailure::ParkSubject, b"odd");
            assert!(world.push_as("b", plugin, Activation::Forced).existed);
        }
        assert_eq!(active(&world), Some(b.0.clone()));
        let status = &world.engine.status()[0];
        assert!(status.versions.iter().all(|v| v.not_activated.is_none()));
        // A forced upload does not activate a version that an operator has rolled back.
        world.engine.rollback("meter").unwrap();
        world.push_as("b", failing(OnFailure::ParkSubject, b"odd"), Activation::Forced);
        assert_eq!(active(&world), Some(a.0));
    }
}

#[test]
fn a_version_that_parks_no_more_than_the_active_one_takes_over_by_itself() {
    let world = World::new(EngineConfig::default());
    with_two_odd_events(&world);
    world.push("a", failing(OnFailure::ParkSubject, b"odd"));
    world.settle();
    world.push("b", failing(OnFailure::ParkSubject, b"odd"));
    world.settle();
    assert_eq!(world.engine.status()[0].active, Some(world.id("b").0));
    // The same number of parked events is not enough: they must be the same events.
    world.push("c", failing(OnFailure::ParkEvent, b"ok"));
    world.settle();
    assert_eq!(world.engine.status()[0].active, Some(world.id("b").0));
}

#[test]
fn parked_events_are_grouped_by_reason_with_those_behind_them() {
    let world = World::new(EngineConfig::default());
    with_two_odd_events(&world);
    world.push("a", failing(OnFailure::ParkSubject, b"odd"));
    world.settle();
    let summary = world.engine.parked_summary("meter", None).unwrap();
    assert_eq!((summary.total, summary.failed, summary.waiting), (41, 2, 39));
    assert_eq!(summary.reasons.len(), 1);
    assert_eq!((summary.reasons[0].failed, summary.reasons[0].waiting), (2, 39));
    assert_eq!(
        (summary.reasons[0].offset, summary.reasons[0].reason.as_str()),
        (10, "cannot read it")
    );
}
