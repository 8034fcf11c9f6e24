//! Tests emitted events that wait for the log: backoff, quota and backpressure.

use lantern_core::{LogError, RejectedEvent};

use super::*;

/// Creates events that each close a window: one for each 5 seconds and subject.
fn closing(count: i64) -> Vec<Event> {
    (0..count).map(|n| Event { time: Timestamp(n * 10 * SECOND), ..event(n, "s1", "ok") }).collect()
}

fn emitted(world: &World) -> usize {
    world.log.events(P0).iter().filter(|(_, event)| event.kind == "window.closed").count()
}

#[test]
fn a_log_that_takes_no_emitted_events_is_tried_less_and_less_often_and_reported() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    world.log.append_to(P0, closing(10));
    for _ in 0..40 {
        world.log.fail_next_append(LogError::Unavailable("no broker".into()));
    }
    world.settle();
    let shard = world.shard();
    assert_eq!(shard.activity, "faulted");
    assert!(shard.reason.unwrap().contains("cannot be appended: "), "the reason is shown");
    assert!(shard.unsent > 0);
    // Folding continues while the emitted events wait.
    assert_eq!((shard.next, shard.lag_events), (10, Some(0)));
    let failures_left = |world: &World| world.log.append_faults();
    let before = failures_left(&world);
    for _ in 0..60 {
        world.clock.advance(Duration::from_secs(1));
        world.settle();
    }
    // The waits are 0.1 s, 0.2 s and so on up to 6.4 s. All later waits are 10 s.
    let tries = before - failures_left(&world);
    assert!((9..=13).contains(&tries), "{tries}");
    world.settle_through_faults();
    assert_eq!(world.log.append_faults(), 0);
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.unsent), ("idle", 0));
    assert_eq!(emitted(&world) as u64, shard.emitted);
}

#[test]
fn a_projection_with_too_many_unsent_events_waits_until_the_log_has_taken_some() {
    let config =
        EngineConfig { emit_unsent_max: 3, batch_events_max: 2, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    world.log.hold_appends();
    world.log.append_to(P0, closing(50));
    world.settle();
    let shard = world.shard();
    assert!(shard.held_by_unsent && shard.next < 20, "{shard:?}");
    assert_eq!(shard.activity, "running");
    world.log.release_appends();
    world.settle();
    let shard = world.shard();
    assert_eq!((shard.held_by_unsent, shard.unsent), (false, 0));
    assert_eq!(emitted(&world) as u64, shard.emitted);
    assert!(shard.emitted > 40);
}

#[test]
fn a_projection_emits_no_faster_than_its_quota() {
    let config = EngineConfig { emit_per_s_max: 5, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    world.log.append_to(P0, closing(50));
    world.settle();
    let mut seen = vec![emitted(&world)];
    for _ in 0..4 {
        world.clock.advance(Duration::from_secs(1));
        world.settle();
        seen.push(emitted(&world));
    }
    assert!(seen[0] <= 5 && seen[0] > 0, "{seen:?}");
    assert!(seen.windows(2).all(|pair| (4..=5).contains(&(pair[1] - pair[0]))), "{seen:?}");
    assert!(world.shard().unsent > 0);
    world.settle_through_faults();
    assert_eq!((emitted(&world) as u64, world.shard().unsent), (world.shard().emitted, 0));
}

#[test]
fn an_emitted_event_that_the_log_refuses_is_set_aside_with_its_reason_and_the_others_are_sent() {
    let mut world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    let reason = RejectedEvent::TooLarge {
        event: "`x` of `y`".into(),
        bytes: 40_000,
        limit: "the topic takes 10000 (`max.message.bytes`)".into(),
    };
    world.log.fail_next_append(LogError::Rejected { index: 1, appended: 0, reason });
    world.log.hold_appends();
    world.log.append_to(P0, closing(5));
    world.settle();
    world.log.release_appends();
    world.settle();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.unsent), ("idle", 0), "{:?}", shard.reason);
    assert_eq!((shard.refused, shard.parked, shard.emitted), (1, 1, 4));
    assert_eq!(emitted(&world), 3);
    let parked = world.engine.parked("meter", None, None, None, 10).unwrap();
    assert_eq!((parked.total, parked.parked.len()), (1, 1));
    assert_eq!(parked.parked[0].kind, "emitted");
    assert!(parked.parked[0].reason.contains("`max.message.bytes`"), "{:?}", parked.parked[0]);
    // A selection by tenant must not contain emitted events that events of another tenant have
    // caused.
    let of_another = crate::ParkedSelection {
        tenant: Some("b".into()),
        subject: Some(parked.parked[0].subject.clone()),
        ..Default::default()
    };
    assert_eq!(world.engine.retry("meter", None, &of_another).unwrap().selected, 0);
    assert_eq!(world.engine.drop_parked("meter", None, &of_another).unwrap().selected, 0);
    // Other emitted events of the same subject are sent, also after a restart.
    world.restart();
    world.log.append_to(P0, (5..8).map(|n| closing(8).remove(n)));
    world.settle();
    assert_eq!((emitted(&world), world.shard().refused), (6, 1));
    // A retry sends the refused event again.
    let all = crate::ParkedSelection { all: true, ..Default::default() };
    let outcome = world.engine.retry("meter", None, &all).unwrap();
    assert_eq!((outcome.selected, outcome.done), (1, 1));
    world.settle();
    assert_eq!((emitted(&world), world.shard().refused, world.shard().unsent), (7, 0, 0));
}

#[test]
fn a_projection_that_halts_on_failures_halts_over_a_refused_event_too() {
    let world = World::new(EngineConfig::default());
    world.push("a", meter(OnFailure::Halt, Bad::Name));
    world.settle();
    let reason =
        RejectedEvent::Refused { event: "`x` of `y`".into(), reason: "not allowed".into() };
    world.log.fail_next_append(LogError::Rejected { index: 0, appended: 0, reason });
    world.log.append_to(P0, closing(5));
    world.settle();
    let shard = world.shard();
    assert_eq!(shard.activity, "halted");
    assert!(shard.reason.unwrap().contains("not allowed"));
}

/// Returns a projection that emits an event of one type for each event of another type.
fn echo(name: &str, reads: &str, emits: &str, depth: Option<u32>) -> NativePlugin {
    let manifest = Manifest {
        name: name.into(),
        subscribes: vec![reads.into()],
        emits: vec![emits.into()],
        cycle_depth_max: depth,
        event_time: None,
        ..manifest(OnFailure::ParkEvent)
    };
    let kind = emits.to_owned();
    NativePlugin::new(manifest, move |batch, host, (): &mut ()| {
        for index in 0..batch.events.len() {
            let event = NewEvent {
                cause: batch.cause_of_event(index),
                kind: kind.clone(),
                subject: "s".into(),
                time: Timestamp(1),
                data: b"1".to_vec(),
                ..NewEvent::default()
            };
            host.emit(event).map_err(host_error)?;
        }
        Ok(())
    })
}

fn upload(world: &World, sha: &str, plugin: NativePlugin) -> Result<(), crate::EngineError> {
    let plugin: Arc<dyn Plugin> = Arc::new(plugin);
    world.plugins.0.lock().insert(sha.into(), plugin.clone());
    let upload = Upload {
        plugin,
        sha256: sha.into(),
        parameters: String::new(),
        source: None,
        name: None,
        activate: Activation::Checked,
        check: true,
    };
    world.engine.upload(upload).map(drop)
}

#[test]
fn an_upload_that_closes_a_cycle_is_refused_with_the_cycle_named() {
    let world = World::new(EngineConfig::default());
    upload(&world, "a", echo("ping", "ping", "pong", Some(4))).unwrap();
    world.settle();
    let error = upload(&world, "b", echo("pong", "pong", "ping", None)).unwrap_err();
    assert_eq!(error.code(), "LAN-0221");
    let text = error.to_string();
    assert!(text.contains("`pong` emits `ping`, to which `ping` subscribes"), "{text}");
    assert!(text.contains("is not set by `pong`"), "{text}");
    assert_eq!(world.engine.status().len(), 1);
}

#[test]
fn a_ring_that_is_allowed_ends_at_its_depth_and_parks_the_emitting_event() {
    let world = World::new(EngineConfig::default());
    upload(&world, "a", echo("ping", "ping", "pong", Some(4))).unwrap();
    upload(&world, "b", echo("pong", "pong", "ping", Some(40))).unwrap();
    world.settle();
    let forged = Event {
        kind: "ping".into(),
        extensions: r#"{"lanterndepth":-9}"#.into(),
        ..event(0, "s", "1")
    };
    world.log.append_to(P0, [forged]);
    world.settle();
    let depths: Vec<_> =
        world.log.events(P0).iter().map(|(_, event)| event.as_ref().depth()).collect();
    // The first projection emits up to depth 4, so its event of depth 5 is not emitted.
    assert_eq!(depths, [0, 1, 2, 3, 4]);
    let parked = world.engine.parked("ping", None, None, None, 10).unwrap();
    assert_eq!(parked.total, 1);
    assert_eq!(parked.parked[0].offset, 4);
    assert!(parked.parked[0].reason.contains("`cycle-depth-max`"), "{:?}", parked.parked[0]);
    let depth = |name: &str| world.engine.status_of(name).unwrap().versions[0].shards[0].emit_depth;
    assert_eq!((depth("ping"), depth("pong")), (3, 4));
}
