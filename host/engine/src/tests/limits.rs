//! Tests the limits of a call, a shard and a projection. Each limit is exceeded, and the error must
//! name its setting.

use lantern_core::Level;

use super::*;

/// Returns a plugin that exceeds the limit that an event's data names.
fn greedy() -> NativePlugin {
    NativePlugin::new(manifest(OnFailure::ParkEvent), |batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let (cause, table) = (batch.cause_of_event(index), TableId(0));
            let done = match event.data {
                b"key" => host.put(cause, table, &"k".repeat(101), b"{}"),
                b"value" => {
                    host.put(cause, table, "k", format!("{{\"last\":\"{:0>200}\"}}", 1).as_bytes())
                }
                b"write" => (0..20).try_for_each(|n| {
                    host.put(
                        cause,
                        table,
                        &format!("w{n}"),
                        format!("{{\"last\":\"{}\"}}", "1".repeat(50)).as_bytes(),
                    )
                }),
                b"scan" => host.scan(table, "", "", 1_000, false).map(drop),
                b"timers" => (0..9).try_for_each(|n| {
                    host.set_timer(cause, Timestamp(1_000_000 * SECOND), &format!("t{n}"))
                }),
                b"emit" => (0..6).try_for_each(|_| {
                    host.emit(NewEvent {
                        cause,
                        kind: "window.closed".into(),
                        data: b"1".to_vec(),
                        ..NewEvent::default()
                    })
                }),
                b"large" => host.emit(NewEvent {
                    cause,
                    kind: "window.closed".into(),
                    data: format!("\"{}\"", "x".repeat(200)).into_bytes(),
                    ..NewEvent::default()
                }),
                b"log" => (0..50)
                    .try_for_each(|n| host.log(Some(cause), Level::Info, &format!("message {n}"))),
                _ => host.put(cause, table, event.subject, br#"{"n":1}"#),
            };
            done.map_err(host_error)?;
        }
        Ok(())
    })
}

#[test]
fn each_limit_of_a_call_parks_its_event_and_names_its_setting() {
    let config = || EngineConfig {
        key_bytes_max: 100,
        value_bytes_max: 150,
        call_write_bytes_max: 1_500,
        scan_bytes_max: 300,
        timers_max: 8,
        call_emit_max: 5,
        emit_bytes_max: 200,
        ..EngineConfig::default()
    };
    for (order, setting) in [
        ("key", "`engine.key_bytes_max`"),
        ("value", "`engine.value_bytes_max`"),
        ("large", "`engine.emit_bytes_max`"),
        ("write", "`engine.call_write_bytes_max`"),
        ("scan", "`engine.scan_bytes_max`"),
        ("timers", "`engine.timers_max`"),
        ("emit", "`engine.call_emit_max`"),
    ] {
        let world = World::new(config());
        let fine = (0..40).map(|n| event(n, &format!("s{n}"), "fine"));
        world.log.append_to(P0, fine);
        world.push("a", greedy());
        world.settle();
        world.log.append_to(P0, [event(41, "s", order), event(42, "t", "fine")]);
        world.settle();
        let page = world.engine.parked("meter", None, None, None, 10).unwrap();
        assert_eq!(page.total, 1, "{order}");
        assert!(page.parked[0].reason.contains(setting), "{order}: {}", page.parked[0].reason);
        let status = &world.engine.status()[0].versions[0];
        assert_eq!(status.shards[0].applied, 41, "{order}: {status:?}");
    }
}

#[test]
fn one_parked_event_too_many_halts_the_projection_and_names_the_setting() {
    let world = World::new(EngineConfig { parked_max: 3, ..EngineConfig::default() });
    let data = |n: i64| if n % 2 == 0 { "bad" } else { "ok" };
    world.log.append_to(P0, (0..20).map(|n| event(n, &format!("s{n}"), data(n))));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "halted");
    assert!(status.reason.as_ref().unwrap().contains("`engine.parked_max`"), "{status:?}");
    assert_eq!(status.shards[0].parked, 3, "{status:?}");
}

#[test]
fn messages_past_the_limits_of_a_call_and_of_a_projection_are_dropped() {
    let config =
        EngineConfig { call_log_bytes_max: 100, log_lines_max: 12, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", greedy());
    world.settle();
    world.log.append_to(P0, [event(1, "s", "log")]);
    world.settle();
    let lines = world.engine.logs("meter", 1_000).unwrap();
    assert!((1..=12).contains(&lines.len()), "{lines:?}");
    let bytes: usize = lines.iter().map(|line| line.message.len()).sum();
    assert!(bytes <= 200, "{bytes} bytes: {lines:?}");
    for n in 2..20 {
        world.log.append_to(P0, [event(n, "s", "log")]);
        world.settle();
    }
    assert_eq!(world.engine.logs("meter", 1_000).unwrap().len(), 12);
}

#[test]
fn a_batch_holds_no_more_bytes_than_allowed() {
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = most.clone();
    let plugin = NativePlugin::new(manifest(OnFailure::ParkEvent), move |batch, _, _: &mut ()| {
        seen.fetch_max(batch.events.len(), std::sync::atomic::Ordering::SeqCst);
        Ok(())
    });
    let world = World::new(EngineConfig { batch_bytes_max: 1_000, ..EngineConfig::default() });
    let data = "x".repeat(300);
    world.log.append_to(P0, (0..50).map(|n| event(n, "s", &data)));
    world.push("a", plugin);
    world.settle();
    let most = most.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} events of 300 bytes in a batch of 1,000");
}

#[test]
fn a_batch_spans_no_more_ticks_than_allowed_and_none_at_which_a_timer_is_due() {
    for (ticks, events) in [(1, 4), (3, 12), (1_000, 76)] {
        let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = most.clone();
        // There are four events per second, a tick each second, and a timer at second 20.
        let apply = move |batch: &Batch, host: &mut dyn Host, _: &mut ()| {
            seen.fetch_max(batch.events.len(), std::sync::atomic::Ordering::SeqCst);
            for (index, event) in batch.events.iter().enumerate() {
                if event.data == b"timer" {
                    let cause = batch.cause_of_event(index);
                    host.set_timer(cause, Timestamp(20 * SECOND), "t").map_err(host_error)?;
                }
            }
            Ok(())
        };
        let world = World::new(EngineConfig { batch_ticks_max: ticks, ..EngineConfig::default() });
        world.push("a", NativePlugin::new(manifest(OnFailure::ParkEvent), apply));
        world.settle();
        world.log.append_to(P0, [event(0, "s", "timer")]);
        world.settle();
        world.log.append_to(P0, (1..400).map(|n| event(n, "s", "ok")));
        while world.shard().next < 88 {
            assert!(world.engine.turn_once());
        }
        let most = most.load(std::sync::atomic::Ordering::SeqCst);
        assert!((events..=events + 16).contains(&most), "{most} events with {ticks} ticks");
        world.settle();
        assert_eq!(world.shard().timers_fired, 1);
    }
}

#[test]
fn a_plugin_that_sets_a_timer_for_the_last_tick_of_each_batch_has_few_calls_repeated() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let apply = move |batch: &Batch, host: &mut dyn Host, _: &mut ()| {
        count.fetch_add(1, SeqCst);
        if let Some(last) = batch.watermarks.last() {
            host.set_timer(batch.cause_of_event(0), *last, "t").map_err(host_error)?;
        }
        Ok(())
    };
    let world = World::new(EngineConfig::default());
    world.push("a", NativePlugin::new(manifest(OnFailure::ParkEvent), apply));
    world.settle();
    world.log.append_to(P0, [event(0, "s", "ok")]);
    world.settle();
    world.log.append_to(P0, (1..1_000).map(|n| event(4 * n, "s", "ok")));
    calls.store(0, SeqCst);
    assert!(world.engine.turn_once());
    let calls = calls.load(SeqCst);
    assert!(calls < 20, "{calls} calls in the first step");
    world.settle();
}

#[test]
fn failures_between_due_timers_do_not_make_batches_longer() {
    // Every second event fails, and each of the other events sets a timer for the next tick. So a
    // batch is applied only up to the tick, and its later events are dropped.
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    let events = 2_000;
    let handed = Arc::new(AtomicUsize::new(0));
    let count = handed.clone();
    let apply = move |batch: &Batch, host: &mut dyn Host, _: &mut ()| {
        count.fetch_add(batch.offsets.len(), SeqCst);
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            if event.data == b"bad" {
                let message = "bad data".into();
                return Err(ApplyError::Failed { cause: Some(cause), message });
            }
            // The lateness is two seconds, so this timer is due one tick after the tick of its
            // event.
            let at = Timestamp(event.time.0 - SECOND);
            host.set_timer(cause, at, event.subject).map_err(host_error)?;
        }
        Ok(())
    };
    let world = World::new(EngineConfig::default());
    world.push("a", NativePlugin::new(manifest(OnFailure::ParkEvent), apply));
    world.settle();
    handed.store(0, SeqCst);
    let data = |n: i64| if n % 2 == 0 { "ok" } else { "bad" };
    world.log.append_to(P0, (0..events).map(|n| event(4 * n, &format!("s{n}"), data(n))));
    world.settle();
    let handed = handed.load(SeqCst);
    assert!(handed < 20 * events as usize, "{events} events were handed over {handed} times");
}

#[test]
fn the_change_log_keeps_no_more_bytes_than_allowed() {
    let world = World::new(EngineConfig { changes_bytes_max: 500, ..EngineConfig::default() });
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    for n in 0..60 {
        world.log.append_to(P0, [event(n, &format!("s{n}"), "ok")]);
        world.settle();
    }
    let view = world.engine.view("meter").unwrap();
    let (_, meta) = view.shards().next().unwrap();
    assert!(
        meta.changes_bytes <= 500 && meta.changes_from > lantern_core::ShardPoint::default(),
        "{meta:?}"
    );
    let first = view.checkpoint_at(&[lantern_core::ShardPoint::default()]).unwrap().unwrap();
    assert!(matches!(view.changes_since(&first).unwrap(), lantern_core::ChangesSince::TooOld));
}

#[test]
fn one_version_too_many_is_refused() {
    let world = World::new(EngineConfig::default());
    for n in 0..32 {
        world.push(&format!("sha-{n}"), meter(OnFailure::ParkEvent, Bad::Apply));
        world.settle();
    }
    let upload = Upload {
        plugin: Arc::new(meter(OnFailure::ParkEvent, Bad::Apply)),
        sha256: "one more".into(),
        parameters: String::new(),
        source: None,
        name: None,
        activate: Activation::Checked,
        check: true,
    };
    let error = world.engine.upload(upload).unwrap_err().to_string();
    assert!(error.contains("33") && error.contains("32") && error.contains("delete"), "{error}");
}
