//! Tests which events move the watermark, and which do not.

use lantern_core::LogError;

use super::*;

fn closed_windows(world: &World) -> Vec<String> {
    let events = world.log.events(P0).into_iter().map(|(_, event)| event);
    events.filter(|event| event.kind == "window.closed").map(|event| event.subject).collect()
}

#[test]
fn an_event_far_ahead_makes_no_other_event_late_and_is_named() {
    for clock in [AppendClock::At(Timestamp(100 * SECOND)), AppendClock::Unknown] {
        let world = World::new(EngineConfig::default());
        world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
        world.settle();
        world.log.set_append_clock(clock);
        let mut ahead = event(9_000, "s1", "ok");
        ahead.time = Timestamp(86_000 * SECOND);
        world.log.append_to(P0, (0..8).map(|n| event(n, "s1", "ok")));
        world.log.append_to(P0, [ahead]);
        world.log.append_to(P0, (9..80).map(|n| event(n, "s1", "ok")));
        world.settle();
        let shard = world.shard();
        assert_eq!((shard.late, shard.ahead, shard.parked), (0, 1, 0), "{clock:?}");
        assert_eq!(shard.watermark_us, Some(17 * SECOND), "{clock:?}");
        let named = shard.ahead_last.unwrap();
        assert_eq!((named.offset, named.id.as_str(), named.source.as_str()), (8, "e9000", "test"));
        assert_eq!(named.time_us, 86_000 * SECOND);
        assert_eq!(world.rows("totals").len(), 1, "it is applied all the same");
        assert_eq!(closed_windows(&world).len(), 3, "{clock:?}");
    }
}

#[test]
fn a_first_event_far_ahead_keeps_its_row_no_longer_than_events_may_be_ahead() {
    let config = EngineConfig::default();
    let ahead_max = config.ahead_max_us();
    let world = World::new(config);
    let mut manifest = manifest(OnFailure::ParkEvent);
    manifest.tables[0].retention_us = Some(10 * SECOND as u64);
    let keep = |batch: &Batch, host: &mut dyn Host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let (row, cause) = (br#"{"last":"","n":1}"#, batch.cause_of_event(index));
            host.put(cause, TableId(0), event.subject, row).map_err(host_error)?;
        }
        Ok(())
    };
    world.push("a", NativePlugin::new(manifest, keep));
    world.settle();
    let now = 100 * SECOND;
    world.log.set_append_clock(AppendClock::At(Timestamp(now)));
    let far = Event { time: Timestamp(i64::MAX / 2), ..event(9_000, "far", "ok") };
    world.log.append_to(P0, [far, event(0, "near", "ok")]);
    world.settle();
    assert_eq!(world.rows("totals").len(), 2);
    // Both rows expire once the watermark is past the latest possible base time plus the
    // retention.
    let later = now + ahead_max + 20 * SECOND;
    world.log.set_append_clock(AppendClock::At(Timestamp(later)));
    world.log.append_to(P0, [Event { time: Timestamp(later), ..event(1, "last", "ok") }]);
    world.settle();
    assert!(
        !world.rows("totals").contains_key("far") && !world.rows("totals").contains_key("near")
    );
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_windows_open_once_it_is_right() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let far = Timestamp(1_000_000 * SECOND);
    world.log.set_append_clock(AppendClock::At(far));
    world.log.append_to(P0, [Event { time: far, ..event(9_000, "s2", "ok") }]);
    world.settle();
    assert_eq!(world.shard().watermark_us, Some(far.0 - 2 * SECOND));
    world.log.set_append_clock(AppendClock::At(Timestamp(100 * SECOND)));
    world.log.append_to(P0, (360..400).map(|n| event(n, "s1", "ok")));
    world.log.set_append_clock(AppendClock::At(Timestamp(120 * SECOND)));
    world.log.append_to(P0, (400..480).map(|n| event(n, "s1", "ok")));
    world.settle();
    let shard = world.shard();
    assert_eq!(shard.watermark_us, Some(117 * SECOND));
    // The timer for the window of the first event was set while the watermark was wrong. This
    // window is closed as well.
    let closed = closed_windows(&world);
    let ends: Vec<_> =
        closed.iter().map(|key| key[..20].parse::<i64>().unwrap() / SECOND).collect();
    assert_eq!(ends, [95, 100, 105, 110, 115]);
    // A fold from the beginning gives the same state.
    let version = world.id("a");
    let state = world.state();
    world.engine.rebuild("meter", &version).unwrap();
    world.settle();
    assert_eq!(world.state(), state);
}

#[test]
fn offsets_are_durable_once_they_are_committed_and_floors_follow() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    world.log.append_to(P0, (0..4).map(|n| event(n, "s1", "ok")));
    world.settle();
    assert_eq!((world.shard().next, world.shard().durable), (4, 4));
    // Events of other types move the next offset only in memory.
    let other = |n| Event { kind: "other".into(), ..event(n, "s1", "ok") };
    world.log.append_to(P0, (10..15).map(other));
    world.settle();
    assert_eq!((world.shard().next, world.shard().durable), (9, 4));
    assert_eq!(world.engine.commit_offsets(6), 0);
    assert_eq!(world.engine.commit_offsets(5), 1);
    assert_eq!((world.shard().committed, world.shard().durable), (9, 9));
    // After a failed commit the durable offset is the same.
    let store = world.stores.shard(&world.stores.shards()[0]);
    store.fail_commit(0, lantern_core::StoreError::Full("no room".into()));
    world.log.append_to(P0, [event(20, "s1", "ok")]);
    while world.shard().activity != "faulted" {
        assert!(world.engine.turn_once());
    }
    assert_eq!((world.shard().next, world.shard().committed, world.shard().durable), (10, 9, 9));
    world.settle_through_faults();
    assert_eq!(world.shard().durable, 10);
}

#[test]
fn a_log_that_cannot_be_read_shows_as_a_fault_and_not_as_idle() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    assert_eq!(world.shard().activity, "idle");
    world.log.fail_next_read(LogError::Unavailable("away".into()));
    world.log.append_to(P0, [event(0, "s1", "ok")]);
    world.engine.turn_once();
    assert_eq!(world.shard().activity, "faulted");
    world.settle_through_faults();
    assert_eq!(world.shard().activity, "idle");
}

#[test]
fn a_machine_that_lacks_something_halts_nothing_and_the_projection_goes_on_by_itself() {
    let mut world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    // For a while, neither the state nor the plugin can be opened.
    world.stores.fail_next_open(lantern_core::StoreError::Io("too many open files".into()));
    world.plugins.1.lock().push(PluginError::Host("no address space".into()));
    world.restart();
    world.log.append_to(P0, [event(0, "s1", "ok")]);
    assert_eq!(world.shard().activity, "faulted");
    assert!(world.shard().reason.unwrap().contains("too many open files"));
    let mut reasons = Vec::new();
    for _ in 0..20 {
        world.engine.turn_once();
        reasons.extend(world.shard().reason);
        world.clock.advance(Duration::from_millis(50));
    }
    assert!(reasons.iter().any(|reason| reason.contains("no address space")), "{reasons:?}");
    world.settle_through_faults();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.next), ("idle", 1), "{:?}", shard.reason);
    let record = world.engine.registry.record("meter").unwrap();
    assert!(record.versions.iter().all(|version| version.halted.is_none()));
    // A plugin that cannot run on this host halts the projection.
    world.plugins.1.lock().push(PluginError::Unfit("made for another contract".into()));
    world.restart();
    world.settle();
    assert_eq!(world.shard().activity, "halted");
}

#[test]
fn a_shortage_during_the_check_of_an_upload_is_no_refusal_of_the_plugin() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..9).map(|n| event(n, "s1", "ok")));
    let plugin = meter(OnFailure::ParkEvent, Bad::Name);
    plugin.fail_next_instantiate(lantern_core::InstantiateError::Host("no memory".into()));
    let upload = Upload {
        plugin: Arc::new(plugin),
        sha256: "a".into(),
        parameters: String::new(),
        source: None,
        name: None,
        activate: Activation::Checked,
        check: true,
    };
    let error = world.engine.upload(upload).unwrap_err();
    assert_eq!(error.code(), "LAN-0223", "{error}");
}

#[test]
fn a_halted_projection_has_the_same_watermark_whatever_ticks_its_batches_span() {
    // The first event sets a timer, the second cancels it, and the last one halts the
    // projection.
    let apply = |batch: &Batch, host: &mut dyn Host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            let at = Timestamp(20 * SECOND);
            match event.data {
                b"set" => host.set_timer(cause, at, "t").map_err(host_error)?,
                b"cancel" => host.cancel_timer(cause, "t").map_err(host_error)?,
                b"bad" => {
                    let message = "bad data".into();
                    return Err(ApplyError::Failed { cause: Some(cause), message });
                }
                _ => {}
            }
        }
        Ok(())
    };
    let states = [1, 4_096].map(|batch_ticks_max| {
        let world = World::new(EngineConfig { batch_ticks_max, ..EngineConfig::default() });
        world.push("a", NativePlugin::new(manifest(OnFailure::Halt), apply));
        world.settle();
        let data = ["ok", "set", "cancel"].into_iter().chain(["ok"; 40]).chain(["bad"]);
        world.log.append_to(P0, (0..).zip(data).map(|(n, data)| event(4 * n, "s", data)));
        world.settle();
        assert_eq!(world.shard().activity, "halted");
        (world.shard().next, world.shard().watermark_us, world.state())
    });
    assert_eq!(states[0], states[1]);
}

#[test]
fn timers_due_at_one_tick_all_fire_whatever_the_others_cancel_or_set_and_however_calls_are_cut() {
    // The timer `a` cancels `b` and moves `c`. All three are due at the same tick. In one run, `c`
    // fails at that tick.
    let apply = |fails: bool, batch: &Batch, host: &mut dyn Host| {
        for (index, timer) in (0..).zip(&batch.timers) {
            let cause = Cause(index);
            if fails && timer.key == "c" && timer.at == Timestamp(10 * SECOND) {
                return Err(ApplyError::Failed { cause: Some(cause), message: "bad".into() });
            }
            if timer.key == "a" {
                host.cancel_timer(cause, "b").map_err(host_error)?;
                host.set_timer(cause, Timestamp(30 * SECOND), "c").map_err(host_error)?;
            }
            let table = TableId(1);
            let fired = host.get(table, &timer.key).map_err(host_error)?.unwrap_or_default();
            let fired = [fired.as_slice(), b"x"].concat();
            host.put(cause, table, &timer.key, &fired).map_err(host_error)?;
        }
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            for key in ["a", "b", "c"].iter().filter(|_| event.data == b"set") {
                host.set_timer(cause, Timestamp(10 * SECOND), key).map_err(host_error)?;
            }
        }
        Ok(())
    };
    for fails in [false, true] {
        let states = [1, 2, 1_000].map(|batch_timers_max| {
            let world = World::new(EngineConfig { batch_timers_max, ..EngineConfig::default() });
            let plugin =
                move |batch: &Batch, host: &mut dyn Host, (): &mut ()| apply(fails, batch, host);
            world.push("a", NativePlugin::new(manifest(OnFailure::ParkEvent), plugin));
            let data = std::iter::once("set").chain(["ok"; 50]);
            world.log.append_to(P0, (0..).zip(data).map(|(n, data)| event(4 * n, "s", data)));
            world.settle();
            assert_eq!(world.shard().parked, u64::from(fails));
            (world.shard().timers_fired, world.state())
        });
        assert_eq!(states[2].0, 4, "`c` fires again");
        assert_eq!(states[0], states[2]);
        assert_eq!(states[1], states[2]);
    }
}
