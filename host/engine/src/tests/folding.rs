//! Tests that the result of a fold does not depend on batches, chunks or crashes.

use std::time::Duration;

use super::*;
use lantern_core::{Events, Log as _, LogError, StoreError};

/// Creates events with readings. Some are out of order, some are late, and some are bad.
fn readings(seed: u64, count: i64) -> Vec<Event> {
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    (0..count)
        .map(|n| {
            let data = if next(40) == 0 { "bad" } else { "ok" };
            let mut event = event(n, &format!("s{}", next(7)), data);
            event.time.0 -= next(4).pow(3) as i64 * SECOND / 4;
            event
        })
        .collect()
}

#[test]
fn the_same_log_gives_the_same_state_whatever_the_cuts() {
    for seed in 0..12 {
        println!("seed {seed}");
        let on_failure = [OnFailure::ParkEvent, OnFailure::ParkSubject][seed as usize % 2];
        let bad = [Bad::Name, Bad::Trap][seed as usize / 2 % 2];
        let mut hashes = BTreeMap::new();
        for (batch, chunk) in [(1, 1), (7, 50), (1_000, 3), (16_384, 400)] {
            let config = EngineConfig {
                batch_events_max: batch,
                commit_ms: if batch == 7 { 0 } else { 1_000 },
                batch_timers_max: batch.min(64),
                ..EngineConfig::default()
            };
            let mut world = World::with_log(config, MemoryLog::new(1, chunk));
            world.log.append_to(P0, readings(seed, 600));
            let plugin = meter(on_failure, bad);
            world.push("a", plugin);
            // The process crashes after some turns, and uncommitted changes are lost.
            for turns in [3, 8, 20] {
                for _ in 0..turns {
                    world.engine.turn_once();
                    if batch == 16_384 {
                        drop_instances(&world);
                    }
                }
                world.restart();
            }
            world.settle();
            let parked = world.engine.parked("meter", None, None, None, 1_000).unwrap();
            assert!(parked.total > 0);
            hashes.insert(world.state(), (batch, parked.total, world.rows("totals")));
        }
        assert_eq!(hashes.len(), 1, "{hashes:#?}");
    }
}

fn drop_instances(world: &World) {
    for handle in world.engine.registry.handles() {
        if let Some(shard) = handle.shard.lock().as_mut() {
            shard.runner.drop_instance();
        }
    }
}

#[test]
fn events_far_ahead_give_the_same_state_whatever_the_cuts() {
    for (seed, stamped) in [(1, true), (2, true), (3, false), (4, false)] {
        let mut hashes = BTreeMap::new();
        for (batch, chunk) in [(1, 1), (7, 50), (1_000, 3), (16_384, 400)] {
            let config = EngineConfig { batch_events_max: batch, ..EngineConfig::default() };
            let mut world = World::with_log(config, MemoryLog::new(1, chunk));
            for (n, mut event) in (0..).zip(readings(seed, 400)) {
                let now = Timestamp((n + 40) * SECOND / 4);
                // For a while the clock is ahead. The times of some events are ahead of the clock.
                // There is also a night without events.
                let now = if (100..110).contains(&n) { Timestamp(now.0 * 100) } else { now };
                let clock = if stamped { AppendClock::At(now) } else { AppendClock::Unknown };
                world.log.set_append_clock(clock);
                if n % 37 == 0 {
                    event.time.0 += 40_000 * SECOND;
                }
                if n > 300 {
                    event.time.0 += 1_000 * SECOND;
                }
                world.log.append_to(P0, [event]);
            }
            world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
            for turns in [3, 8, 20] {
                for _ in 0..turns {
                    world.engine.turn_once();
                }
                world.restart();
            }
            world.settle();
            let shard = world.engine.status()[0].versions[0].shards[0].clone();
            assert!(shard.ahead > 0, "{shard:?}");
            hashes.insert(world.state(), (batch, shard.ahead, shard.watermark_us));
        }
        assert_eq!(hashes.len(), 1, "seed {seed}: {hashes:#?}");
    }
}

#[test]
fn a_plugin_that_counts_its_calls_is_refused_with_the_row_that_differs() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, readings(1, 100));
    let mut cheat = manifest(OnFailure::ParkEvent);
    cheat.event_time = None;
    let plugin = NativePlugin::new(cheat, |batch: &Batch, host, calls: &mut u64| {
        *calls += 1;
        for (index, event) in batch.events.iter().enumerate() {
            let row = format!("{{\"n\":{calls}}}");
            let cause = batch.cause_of_event(index);
            host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    });
    let upload = Upload {
        plugin: Arc::new(plugin),
        sha256: "cheat".into(),
        parameters: String::new(),
        source: None,
        name: None,
        activate: Activation::Checked,
        check: true,
    };
    let error = world.engine.upload(upload).unwrap_err();
    assert_eq!(error.code(), "LAN-0208");
    let text = error.to_string();
    assert!(text.contains("not deterministic") && text.contains("table `totals`"), "{text}");
    assert!(text.contains("key `s"), "{text}");
    assert!(world.engine.status().is_empty());
}

#[test]
fn a_plugin_that_is_slow_on_every_event_is_refused_by_the_checks_fuel() {
    let world = World::new(EngineConfig { check_fuel: 1_000_000, ..EngineConfig::default() });
    world.log.append_to(P0, readings(1, 100));
    let plugin =
        NativePlugin::new(manifest(OnFailure::ParkEvent), |_: &Batch, _, (): &mut ()| Ok(()));
    plugin.set_event_fuel(20_000);
    let upload = Upload {
        plugin: Arc::new(plugin),
        sha256: "slow".into(),
        parameters: String::new(),
        source: None,
        name: None,
        activate: Activation::Checked,
        check: true,
    };
    let error = world.engine.upload(upload).unwrap_err();
    assert_eq!(error.code(), "LAN-0209");
    assert!(error.to_string().contains("1000000 fuel (`engine.check_fuel`)"), "{error}");
    assert!(world.engine.status().is_empty());
}

#[test]
fn a_plugin_with_expensive_events_is_checked_with_fewer_events() {
    let world = World::new(EngineConfig { check_fuel: 10_000_000, ..EngineConfig::default() });
    world.log.append_to(P0, readings(1, 1_000));
    let counts =
        NativePlugin::new(manifest(OnFailure::ParkEvent), |_: &Batch, _, (): &mut ()| Ok(()));
    counts.set_event_fuel(20_000);
    let plugin: Arc<dyn Plugin> = Arc::new(counts);
    let config = EngineConfig { check_fuel: 10_000_000, ..EngineConfig::default() };
    let log: &dyn lantern_core::Log = &*world.log;
    let sample = crate::sample(plugin.manifest(), log, &config).unwrap();
    let checked = crate::determinism(&plugin, &sample, &MemoryStores::default(), &config).unwrap();
    // The fuel is enough for almost 500 events. Events that fail are applied twice.
    assert!((200..=250).contains(&checked), "half of them: {checked}");
}

#[test]
fn a_shard_that_reads_few_of_the_events_is_behind_by_the_time_since_it_had_read_all() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, readings(1, 10));
    world.push("m", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    world.clock.advance(Duration::from_secs(3));
    let mut other = event(200_000, "s", "ok");
    other.kind = "of.no.interest".into();
    world.log.append_to(P0, vec![other]);
    let shard = world.shard();
    assert_eq!((shard.lag_events, shard.lag_ms), (Some(1), Some(3_000)), "not days of event time");
    world.settle();
    assert_eq!(world.shard().lag_ms, Some(0));
}

#[test]
fn a_failed_commit_is_tried_again_and_loses_nothing() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, readings(3, 200));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let shard = world.stores.shards()[0].clone();
    let store = world.stores.shard(&shard);
    store.fail_commit(0, StoreError::Full("no room".into()));
    world.log.append_to(P0, (1_000..1_010).map(|n| event(n, "s1", "ok")));
    world.settle();
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "faulted");
    assert!(status.reason.as_ref().unwrap().contains("no room"));
    world.clock.advance(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.engine.status()[0].versions[0].activity, "idle");
    let other = World::new(EngineConfig::default());
    other.log.append_to(P0, world.log.events(P0).into_iter().map(|(_, event)| event));
    other.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    other.settle();
    assert_eq!(world.state(), other.state());
}

#[test]
fn a_log_that_cannot_be_read_is_a_fault_and_one_that_forgot_too_much_a_halt() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, readings(3, 100));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.log.fail_next_read(LogError::Unavailable("disk gone".into()));
    world.settle();
    assert_eq!(world.engine.status()[0].versions[0].activity, "faulted");
    world.clock.advance(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.engine.status()[0].versions[0].activity, "idle");
    world.engine.pause("meter").unwrap();
    world.log.append_to(P0, (200..400).map(|n| event(n, "s1", "ok")));
    world.log.retain_from(P0, lantern_core::Offset(150));
    world.engine.resume("meter").unwrap();
    world.settle();
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "halted");
    assert!(status.reason.as_ref().unwrap().contains("rebuild"), "{status:?}");
}

#[test]
fn every_commit_is_published_once_in_order_and_the_change_log_replays_it() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    let view = world.engine.view("meter").unwrap();
    let (since, before) = (view.checkpoint(), view.pos());
    for n in 0..20 {
        world.log.append_to(P0, [event(n, &format!("s{}", n % 3), "ok")]);
        world.settle();
    }
    let commits = world.publish.commits();
    let view = world.engine.view("meter").unwrap();
    let first = before + 1;
    let positions: Vec<u64> = commits.iter().map(|c| c.pos).filter(|pos| *pos >= first).collect();
    assert_eq!(positions, (first..=view.pos()).collect::<Vec<_>>());
    let lantern_core::ChangesSince::Commits(logged) = view.changes_since(&since).unwrap() else {
        panic!("the change log reaches back")
    };
    let published: Vec<_> = commits
        .iter()
        .filter(|c| c.pos >= first && !c.tables.is_empty())
        .map(|c| lantern_core::ShardChanges {
            partition: c.partition,
            commit: c.pos,
            point: c.checkpoint.points[0],
            tables: c.tables.clone(),
        })
        .collect();
    assert_eq!(logged, published);
}

#[test]
fn emitted_events_reach_the_log_once_although_appends_fail_and_the_process_dies() {
    let mut world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    world.log.fail_next_append(LogError::Unavailable("busy".into()));
    // The events are in order of time, so that no late reading opens a window again.
    world.log.append_to(P0, (0..900).map(|n| event(n, "s", "ok")));
    world.settle();
    world.clock.advance(Duration::from_secs(1));
    // The process dies after the events are in the log, but before the log's answer reaches the
    // outbox.
    world.log.hold_appends();
    world.engine.turn_once();
    world.log.release_appends();
    world.restart();
    world.settle_through_faults();
    let emitted: Vec<_> = world
        .log
        .events(P0)
        .into_iter()
        .filter(|(_, event)| event.kind == "window.closed")
        .map(|(_, event)| event.subject)
        .collect();
    let mut distinct = emitted.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(emitted.len(), distinct.len(), "each window closed once");
    assert!(emitted.len() > 30);
}

#[test]
fn rows_expire_by_event_time_after_their_last_change_whatever_the_cuts() {
    let fold = |batch| {
        let config = EngineConfig { batch_events_max: batch, ..EngineConfig::default() };
        let world = World::new(config);
        let mut short = manifest(OnFailure::ParkEvent);
        short.tables[0].retention_us = Some(10 * SECOND as u64);
        world.log.append_to(
            P0,
            (0..400).map(|n| {
                // There are readings of s0 all the time, and one reading of each other subject.
                let subject = if n % 2 == 0 { "s0".into() } else { format!("s{n}") };
                event(n, &subject, "ok")
            }),
        );
        world.push(
            "a",
            NativePlugin::new(short, |batch: &Batch, host, _: &mut ()| {
                for (index, event) in batch.events.iter().enumerate() {
                    let cause = batch.cause_of_event(index);
                    read(host, cause, event.subject, event.time, event.data).map_err(host_error)?;
                }
                Ok(())
            }),
        );
        world.settle();
        (world.state(), world.rows("totals"))
    };
    let (state, rows) = fold(1_000);
    assert_eq!(rows["s0"], r#"{"last":"ok","n":200}"#);
    // The last watermark is at 97 seconds. The retention of a row is counted from the watermark at
    // its last change.
    let oldest = rows.keys().filter_map(|k| k[1..].parse::<i64>().ok()).filter(|n| *n > 0).min();
    assert!((357..=363).contains(&oldest.unwrap()), "{oldest:?}");
    assert_eq!(fold(1).0, state);
    assert_eq!(fold(7).0, state);
}

#[test]
fn an_emitted_event_carries_the_trace_of_its_cause_on() {
    let world = World::new(EngineConfig::default());
    let mut echo = manifest(OnFailure::ParkEvent);
    echo.event_time = None;
    world.push(
        "a",
        NativePlugin::new(echo, |batch: &Batch, host, _: &mut ()| {
            for (index, event) in batch.events.iter().enumerate() {
                let emitted = NewEvent {
                    cause: batch.cause_of_event(index),
                    kind: "window.closed".into(),
                    subject: event.subject.into(),
                    time: event.time,
                    data: b"{}".to_vec(),
                    ..NewEvent::default()
                };
                host.emit(emitted).map_err(host_error)?;
            }
            Ok(())
        }),
    );
    world.settle();
    let mut traced = event(1, "traced", "ok");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    traced.extensions = format!("{{\"traceparent\":\"{trace}\"}}");
    world.log.append_to(P0, [event(0, "plain", "ok"), traced]);
    world.settle();
    let emitted: Vec<_> = world
        .log
        .events(P0)
        .into_iter()
        .filter(|(_, event)| event.kind == "window.closed")
        .map(|(_, event)| (event.subject, event.extensions.contains(trace)))
        .collect();
    assert_eq!(emitted, [("plain".into(), false), ("traced".into(), true)]);
}

#[test]
fn events_of_other_types_wake_a_shard_a_while_later_and_its_own_at_once() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let append = |event: Event| {
        let mut events = Events::new();
        assert!(events.push(&event.as_ref()));
        world.log.append(events, Box::new(|outcome| drop(outcome.unwrap())));
    };
    let next = || world.engine.registry.handles()[0].next().0;
    append(Event { kind: "else.where".into(), ..event(0, "a", "1") });
    assert!(!world.engine.turn_once(), "it is not in a hurry");
    assert_eq!(next(), 0);
    world.clock.advance(Duration::from_secs(1));
    assert!(world.engine.turn_once());
    assert_eq!(next(), 1);
    append(Event { kind: "else.where".into(), ..event(1, "a", "1") });
    append(event(2, "a", "1"));
    assert!(world.engine.turn_once());
    assert_eq!((next(), world.engine.registry.handles()[0].snapshot.lock().meta.applied), (3, 1));
}

#[test]
fn an_idle_instance_is_dropped_and_recreated() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.log.append_to(P0, [event(0, "a", "1")]);
    world.settle();
    let idle = Duration::from_secs(10);
    assert_eq!(world.engine.drop_idle_instances(idle), 0, "it was just used");
    world.clock.advance(idle);
    assert_eq!(world.engine.drop_idle_instances(idle), 1);
    assert_eq!(world.engine.drop_idle_instances(idle), 0);
    world.log.append_to(P0, [event(1, "a", "1")]);
    world.settle();
    assert_eq!(world.engine.registry.handles()[0].snapshot.lock().meta.applied, 2);
}
