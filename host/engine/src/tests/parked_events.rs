//! Tests parked events: they are parked, listed, retried and dropped.

use lantern_core::{
    Instance, InstantiateError, UNREADABLE_KIND, UNREADABLE_REASON, UNREADABLE_TYPE,
};

use super::*;
use crate::ParkedSelection;

fn all() -> ParkedSelection {
    ParkedSelection { all: true, ..ParkedSelection::default() }
}

#[test]
fn the_nth_event_is_parked_with_its_reason_and_the_others_are_folded() {
    for bad in [Bad::Name, Bad::Trap] {
        for at in [0, 1, 63, 99] {
            let world = World::new(EngineConfig::default());
            let data = |n| if n == at { "bad" } else { "ok" };
            world.log.append_to(P0, (0..100).map(|n| event(n, &format!("s{n}"), data(n))));
            world.push("a", meter(OnFailure::ParkEvent, bad));
            world.settle();
            let page = world.engine.parked("meter", None, None, None, 10).unwrap();
            assert_eq!((page.total, page.parked.len()), (1, 1));
            assert_eq!(page.parked[0].offset, at as u64);
            assert_eq!(page.parked[0].reason, "bad data");
            assert_eq!(page.parked[0].id, format!("e{at}"));
            assert_eq!(world.rows("totals").len(), 99);
        }
    }
}

/// Returns the state, and what the status of the first shard reports.
fn outcome(world: &World) -> (String, String, u64, u64, u64, Option<String>) {
    let shard = world.shard();
    let status = &world.engine.status()[0].versions[0];
    let counts = (shard.applied, shard.late, shard.parked);
    (world.state(), status.activity.clone(), counts.0, counts.1, counts.2, status.reason.clone())
}

#[test]
fn a_rejected_event_is_parked_like_a_failed_one_whatever_the_cuts_and_limits() {
    let limits = [(u64::MAX, u64::MAX), (40, u64::MAX), (u64::MAX, 4)];
    for on_failure in [OnFailure::ParkEvent, OnFailure::ParkSubject, OnFailure::Halt] {
        for (parked_max, parked_in_a_row_max) in limits {
            for every in [2, 3, 50] {
                let fold = |bad, batch_events_max| {
                    let world = World::new(EngineConfig {
                        batch_events_max,
                        parked_max,
                        parked_in_a_row_max,
                        ..EngineConfig::default()
                    });
                    // The version is active before the first bad event.
                    world.push("a", meter(on_failure, bad));
                    world.settle();
                    // About one event in `every` is bad. Some bad events follow each other
                    // directly.
                    let is_bad = |n: i64| (n * n / 3 + n / 7) % every == every - 1;
                    let data = |n| if is_bad(n) { "bad" } else { "ok" };
                    let events = (0..200).map(|n| event(n, &format!("s{}", n % 13), data(n)));
                    world.log.append_to(P0, events);
                    world.settle();
                    outcome(&world)
                };
                let failed = fold(Bad::Name, 50);
                for batch in [1, 7, 50] {
                    let how = (on_failure, parked_max, parked_in_a_row_max, every, batch);
                    assert_eq!(fold(Bad::Reject, batch), failed, "{how:?}");
                }
            }
        }
    }
}

#[test]
fn most_events_rejected_take_no_further_call_and_no_further_instance() {
    let plugin = Arc::new(meter(OnFailure::ParkEvent, Bad::Reject));
    let world = World::new(EngineConfig { second_fold_every: 0, ..EngineConfig::default() });
    world.push("a", Shared(plugin.clone()));
    // The shard has an instance once it has applied events.
    world.log.append_to(P0, (1..=20).map(|n| event(-n, &format!("t{n}"), "ok")));
    world.settle();
    let (calls, made) = (plugin.calls(), plugin.instances_made());
    let data = |n| if n % 5 < 3 { "bad" } else { "ok" };
    world.log.append_to(P0, (0..2_000).map(|n| event(n, &format!("s{n}"), data(n))));
    world.settle();
    assert_eq!((world.shard().parked, world.rows("totals").len()), (1_200, 820));
    assert!(plugin.instances_made() <= made + 1, "{} instances", plugin.instances_made() - made);
    // Each tick of the watermark may have a call of its own.
    assert!(plugin.calls() - calls <= 2 * 500, "{} calls", plugin.calls() - calls);
}

/// A plugin to which the test keeps a reference.
struct Shared(Arc<NativePlugin>);

impl Plugin for Shared {
    fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        self.0.instantiate()
    }
}

#[test]
fn later_events_of_a_parked_subject_wait_behind_it_in_order() {
    let world = World::new(EngineConfig::default());
    let data = |n| if n == 10 { "bad" } else { "ok" };
    world.log.append_to(P0, (0..90).map(|n| event(n, &format!("s{}", n % 3), data(n))));
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    let page = world.engine.parked("meter", None, Some("s1"), None, 1_000).unwrap();
    assert_eq!(page.total, 27);
    assert_eq!(page.parked.len(), 27);
    assert_eq!(page.parked[0].kind, "event");
    assert!(page.parked[1..].iter().all(|p| p.kind == "waiting"));
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":3}"#);
    assert_eq!(world.rows("totals")["s2"], r#"{"last":"ok","n":30}"#);
    // If the retry of the first event fails, all events stay parked, and the attempt counts for the
    // first event alone.
    let outcome = world.engine.retry("meter", None, &all()).unwrap();
    assert_eq!((outcome.selected, outcome.done, outcome.failed, outcome.waiting), (27, 0, 1, 26));
    let page = world.engine.parked("meter", None, None, None, 5).unwrap();
    assert_eq!((page.total, page.parked[0].attempts), (27, 2));
    // An event from the middle cannot be retried before the events before it.
    let middle = ParkedSelection { offsets: vec![13], ..ParkedSelection::default() };
    assert_eq!(world.engine.retry("meter", None, &middle).unwrap().waiting, 1);
    // After the bad event is dropped, the others are applied in order, and later events
    // of the subject do not wait any more.
    let head = ParkedSelection { offsets: vec![10], ..ParkedSelection::default() };
    assert_eq!(world.engine.drop_parked("meter", None, &head).unwrap().done, 1);
    assert_eq!(world.engine.retry("meter", None, &all()).unwrap().done, 26);
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":29}"#);
    world.log.append_to(P0, [event(200, "s1", "ok")]);
    world.settle();
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":30}"#);
    assert_eq!(world.engine.parked("meter", None, None, None, 5).unwrap().total, 0);
}

#[test]
fn a_fixed_version_has_the_parked_event_in_its_tables() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..50).map(|n| event(n, "s", if n == 7 { "bad" } else { "ok" })));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Trap));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"ok","n":49}"#);
    world.push("b", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"ok","n":50}"#);
    assert_eq!(world.engine.parked("meter", None, None, None, 5).unwrap().total, 0);
}

#[test]
fn halt_stops_at_the_event_over_restarts_and_a_fixed_version_goes_past_it() {
    let mut world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..50).map(|n| event(n, "s", if n == 30 { "bad" } else { "ok" })));
    world.push("a", meter(OnFailure::Halt, Bad::Name));
    world.settle();
    world.restart();
    world.settle();
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "halted");
    assert!(status.reason.as_ref().unwrap().contains("`e30`"), "{status:?}");
    assert_eq!(status.shards[0].next, 30);
    world.push("b", meter(OnFailure::Halt, Bad::Apply));
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"ok","n":50}"#);
}

#[test]
fn a_plugin_that_fails_on_everything_is_halted() {
    let config = EngineConfig { parked_in_a_row_max: 20, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Trap));
    world.settle();
    world.log.append_to(P0, (0..500).map(|n| event(n, "s", "bad")));
    world.settle();
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "halted");
    assert!(status.reason.as_ref().unwrap().contains("in a row"), "{status:?}");
    assert_eq!(status.shards[0].parked, 20);
}

#[test]
fn an_event_that_needs_too_much_fuel_is_judged_alone() {
    let world = World::new(EngineConfig { fuel_event: 10_000, ..EngineConfig::default() });
    // A batch of 50 needs more than the limit of one event, and is split.
    let plugin = meter(OnFailure::ParkEvent, Bad::Apply);
    world.log.append_to(P0, (0..200).map(|n| event(n, "s", "ok")));
    plugin.set_event_fuel(3_000);
    world.push("a", plugin);
    world.settle();
    assert_eq!(world.rows("totals")["s"], r#"{"last":"ok","n":200}"#);
    assert_eq!(world.engine.parked("meter", None, None, None, 5).unwrap().total, 0);
}

#[test]
fn a_neighbour_never_notices() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..100).map(|n| event(n, "s", if n % 3 == 0 { "bad" } else { "ok" })));
    let mut other = manifest(OnFailure::ParkEvent);
    other.name = "victim".into();
    let victim = NativePlugin::new(other, |batch: &Batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            read(host, cause, event.subject, event.time, event.data).map_err(host_error)?;
        }
        Ok(())
    });
    world.push("v", victim);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Trap));
    world.settle();
    let view = world.engine.view("victim").unwrap();
    let row = view.get(TableId(0), "s").unwrap().unwrap();
    assert_eq!(row, br#"{"last":"bad","n":100}"#);
}

#[test]
fn a_state_over_its_limit_halts_the_projection_and_keeps_what_is_committed() {
    let config = EngineConfig { state_bytes_max: 2_000, ..EngineConfig::default() };
    let world = World::new(config);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    for round in 0..20 {
        let from = round * 10;
        world.log.append_to(P0, (from..from + 10).map(|n| event(n, &format!("s{n}"), "ok")));
        world.settle();
    }
    let status = &world.engine.status()[0].versions[0];
    assert_eq!(status.activity, "halted");
    assert!(status.reason.as_ref().unwrap().contains("engine.state_bytes_max"), "{status:?}");
    assert_eq!(world.rows("totals").len() as u64, status.shards[0].applied);
}

/// Creates an unreadable record. `kind` is the event type that it claims to have.
fn unreadable(n: i64, kind: Option<&str>) -> Event {
    let mut members = serde_json::json!({ UNREADABLE_REASON: format!("junk {n}") });
    if let Some(kind) = kind {
        members[UNREADABLE_KIND] = kind.into();
    }
    Event {
        kind: UNREADABLE_TYPE.into(),
        extensions: members.to_string(),
        subject: String::new(),
        ..event(n, "", "")
    }
}

#[test]
fn unreadable_records_halt_no_projection_and_block_no_subject() {
    let config = EngineConfig { parked_in_a_row_max: 3, ..EngineConfig::default() };
    let world = World::new(config);
    world.log.append_to(P0, (0..10).map(|n| unreadable(n, None)));
    world.log.append_to(P0, (10..14).map(|n| event(n, "s1", "ok")));
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    let page = world.engine.parked("meter", None, None, None, 100).unwrap();
    assert_eq!(page.total, 10);
    assert!(page.parked.iter().all(|parked| parked.kind == "event"), "{page:?}");
    assert_eq!(page.parked[0].reason, "junk 0");
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":4}"#);
}

#[test]
fn unreadable_records_of_unknown_type_do_not_count_for_the_halt_and_others_do() {
    let config = EngineConfig { parked_max: 5, ..EngineConfig::default() };
    let world = World::new(config);
    // There are more unreadable records than may be parked, but they do not count. The failed
    // events among them stay within the limit.
    let records = (0..40).map(|n| match n % 10 {
        9 => event(n, "s2", "bad"),
        8 => event(n, "s1", "ok"),
        _ => unreadable(n, None),
    });
    world.log.append_to(P0, records);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.next, shard.parked), ("idle", 40, 36), "{shard:?}");
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":4}"#);
    // A record that claims a subscribed type is counted like a failed event.
    world.log.append_to(P0, (40..43).map(|n| unreadable(n, Some("m.read"))));
    world.settle();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.parked), ("halted", 37), "{shard:?}");
    assert!(shard.reason.unwrap().contains("engine.parked_max"));
    // If a record of unknown type is dropped, this does not make room for another parked event. If
    // a failed event is dropped, this makes room.
    let drop = |offset| {
        let selection = ParkedSelection { offsets: vec![offset], ..ParkedSelection::default() };
        assert_eq!(world.engine.drop_parked("meter", None, &selection).unwrap().done, 1);
        world.engine.resume("meter").unwrap();
        world.settle();
    };
    drop(0);
    assert_eq!(world.shard().activity, "halted");
    drop(9);
    drop(19);
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.next, shard.parked), ("idle", 43, 36), "{shard:?}");
}

#[test]
fn a_flood_of_unreadable_records_is_counted_beyond_those_that_are_stored() {
    let kept = i64::try_from(crate::parked_events::UNREADABLE_KEPT_MAX).unwrap();
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..kept + 7).map(|n| unreadable(n, None)));
    world.log.append_to(P0, [event(kept + 7, "s1", "ok")]);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let shard = world.shard();
    assert_eq!((shard.activity.as_str(), shard.unreadable_left_out), ("idle", 7), "{shard:?}");
    assert_eq!(i64::try_from(shard.parked).unwrap(), kept);
    assert_eq!(world.rows("totals")["s1"], r#"{"last":"ok","n":1}"#);
    let verification = world.engine.verify("meter", None).unwrap();
    assert_eq!(verification.run(&mut |_| true).verdict, crate::Verdict::Same);
}

#[test]
fn an_unreadable_record_is_parked_only_by_projections_that_may_want_it() {
    let world = World::new(EngineConfig::default());
    let kinds = [None, Some("m.read"), Some("order.placed"), Some("m.")];
    world.log.append_to(P0, (0..).zip(kinds).map(|(n, kind)| unreadable(n, kind)));
    world.log.append_to(P0, [event(4, "s1", "ok")]);
    world.push("a", meter(OnFailure::ParkEvent, Bad::Name));
    world.settle();
    let page = world.engine.parked("meter", None, None, None, 100).unwrap();
    let offsets: Vec<u64> = page.parked.iter().map(|parked| parked.offset).collect();
    assert_eq!(offsets, [0, 1, 3]);
    assert_eq!(world.rows("totals").len(), 1);
}

/// Creates an event of a tenant.
fn of(tenant: &str, n: i64, subject: &str, data: &str) -> Event {
    Event { tenant: tenant.into(), ..event(n, subject, data) }
}

#[test]
fn a_parked_subject_holds_back_its_own_tenant_alone() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(
        P0,
        [
            of("a", 0, "u", "bad"),
            of("b", 1, "u", "ok"),
            of("a", 2, "u", "ok"),
            of("", 3, "u", "ok"),
        ],
    );
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    assert_eq!(world.rows("totals")["u"], r#"{"last":"ok","n":2}"#);
    let parked = world.engine.parked("meter", None, None, None, 9).unwrap().parked;
    let shown: Vec<_> = parked.iter().map(|p| (p.offset, p.tenant.as_str())).collect();
    assert_eq!(shown, [(0, "a"), (2, "a")]);
    let only = |tenant: &str| ParkedSelection {
        tenant: Some(tenant.into()),
        subject: Some("u".into()),
        ..ParkedSelection::default()
    };
    assert_eq!(world.engine.drop_parked("meter", None, &only("b")).unwrap().selected, 0);
    assert_eq!(world.engine.drop_parked("meter", None, &only("a")).unwrap().done, 2);
    world.log.append_to(P0, [of("a", 4, "u", "ok")]);
    world.settle();
    assert_eq!(world.rows("totals")["u"], r#"{"last":"ok","n":3}"#);
}

#[test]
fn no_event_is_applied_twice_if_there_is_no_room_for_one_that_waits_between_others() {
    let world = World::new(EngineConfig { parked_max: 1, ..EngineConfig::default() });
    world.log.append_to(P0, [event(0, "s", "bad")]);
    world.push("a", meter(OnFailure::ParkSubject, Bad::Name));
    world.settle();
    world.log.append_to(P0, [event(1, "x", "ok"), event(2, "s", "ok"), event(3, "y", "ok")]);
    world.settle();
    let reason = format!("{:?}", world.engine.status());
    assert!(reason.contains("engine.parked_max"), "{reason}");
    assert_eq!(world.engine.drop_parked("meter", None, &all()).unwrap().done, 1);
    world.engine.resume("meter").unwrap();
    world.settle();
    let rows = world.rows("totals");
    for subject in ["x", "y", "s"] {
        assert_eq!(rows[subject], r#"{"last":"ok","n":1}"#, "{subject}");
    }
}

#[test]
fn a_row_that_breaks_its_declaration_parks_its_event_and_names_the_field() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, [event(0, "a", "1"), event(1, "b", "1.0"), event(2, "c", "2")]);
    world.push(
        "a",
        NativePlugin::new(manifest(OnFailure::ParkEvent), |batch: &Batch, host, _: &mut ()| {
            for (index, event) in batch.events.iter().enumerate() {
                let row = format!("{{\"n\":{}}}", String::from_utf8_lossy(event.data));
                let cause = batch.cause_of_event(index);
                host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
            }
            Ok(())
        }),
    );
    world.settle();
    let parked = world.engine.parked("meter", None, None, None, 9).unwrap().parked;
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].offset, 1);
    let reason = &parked[0].reason;
    assert!(
        reason.contains("`1.0` in the field `n`, which is not a value of kind `integer`"),
        "{reason}"
    );
    assert_eq!(world.rows("totals").keys().collect::<Vec<_>>(), ["a", "c"]);
}

/// Returns a plugin that may write rows of another tenant: for each event, it counts the event in
/// the row of the tenant that the event's data names, sets a timer of the event's tenant and emits
/// an event. A timer that fires writes a row of its own tenant.
fn writes_rows_of_the_tenant_in_its_data(manifest: Manifest) -> impl Plugin {
    NativePlugin::new(manifest, |batch: &Batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let key = format!(
                "{}\0{place_of}",
                String::from_utf8_lossy(event.data),
                place_of = event.subject
            );
            let cause = batch.cause_of_event(index);
            let n = host.get(TableId(0), &key).map_err(host_error)?.map_or(0, |row| {
                serde_json::from_slice::<serde_json::Value>(&row).unwrap()["n"].as_u64().unwrap()
            });
            let row = format!("{{\"n\":{}}}", n + 1);
            host.put(cause, TableId(0), &key, row.as_bytes()).map_err(host_error)?;
            let timer = format!("{}\0t{n}", event.tenant);
            host.set_timer(cause, event.time, &timer).map_err(host_error)?;
            host.emit(NewEvent {
                cause,
                kind: "window.closed".into(),
                data: b"1".to_vec(),
                ..NewEvent::default()
            })
            .map_err(host_error)?;
        }
        for (index, timer) in (0..).zip(&batch.timers) {
            let (tenant, _) = timer.key.split_once('\0').unwrap();
            let key = format!("{tenant}\0fired");
            let row = format!("{{\"n\":{}}}", timer.offset);
            host.put(Cause(index), TableId(0), &key, row.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    })
}

/// Checks that a row must belong to the tenant of its own event, for every division of events into
/// batches.
#[test]
fn a_row_is_judged_by_the_tenant_of_its_own_event_for_every_cut() {
    let run = |batch_events_max| {
        let world = World::new(EngineConfig { batch_events_max, ..EngineConfig::default() });
        let tenants = ["a", "b", ""];
        let mut owned = manifest(OnFailure::ParkEvent);
        owned.tables[0].per_tenant = true;
        world.push("a", writes_rows_of_the_tenant_in_its_data(owned));
        world.settle();
        world.log.append_to(
            P0,
            (0..60).map(|n| {
                // Every seventh event writes a row of another tenant.
                let other = tenants[usize::try_from(n + 1).unwrap() % 3];
                let own = tenants[usize::try_from(n).unwrap() % 3];
                of(own, n, "s", if n % 7 == 3 { other } else { own })
            }),
        );
        world.settle();
        let parked = world.engine.parked("meter", None, None, None, 99).unwrap().parked;
        let parked: Vec<_> = parked.into_iter().map(|p| (p.offset, p.tenant, p.reason)).collect();
        let emitted: Vec<_> = world
            .log
            .events(P0)
            .into_iter()
            .filter(|(_, event)| event.kind == "window.closed")
            .map(|(_, event)| {
                (
                    event.tenant,
                    event.id.rsplit_once('/').unwrap().0.rsplit_once('/').unwrap().1.to_owned(),
                )
            })
            .collect();
        (world.state(), parked, emitted)
    };
    let (state, parked, emitted) = run(16_384);
    assert_eq!(parked.len(), 9);
    assert!(parked[0].2.contains("the event at offset 3"), "{}", parked[0].2);
    assert_eq!(emitted.len(), 51);
    assert_eq!(emitted[1], ("b".into(), "1".into()));
    for cut in [1, 7] {
        let (other, other_parked, other_emitted) = run(cut);
        assert_eq!(other_parked, parked, "{cut}");
        assert_eq!(other_emitted, emitted, "{cut}");
        assert!(other == state, "batches of {cut} give another state");
    }
}
