//! Tests that an explanation lists exactly the events, timers and expiries that have changed a row.

use lantern_core::{Level, Offset, PartitionId};

use super::*;
use crate::{
    ChangeCause, ChangedRows, EventChangesRequest, ExplainRequest, ExplainedRow, ParkedSelection,
    RowChange,
};

fn request(table: &str, key: &str) -> ExplainRequest {
    ExplainRequest {
        projection: "meter".into(),
        version: None,
        table: table.into(),
        key: key.into(),
        changes_max: 1_000,
        bytes_max: 1 << 20,
    }
}

fn explain(world: &World, key: &str) -> ExplainedRow {
    let explained = world.engine.explain(request("totals", key)).unwrap();
    let row = explained.run(&mut |_| Ok(())).unwrap();
    assert_eq!(row.incomplete, None);
    assert!(row.partitions.iter().all(|shard| shard.agrees), "{row:?}");
    row
}

/// Offsets, oldest first.
fn offsets(row: &ExplainedRow) -> Vec<u64> {
    row.changes.iter().rev().map(|(change, _)| change.offset.0).collect()
}

/// Returns whether each change begins with the row at which the previous change ended.
fn is_a_chain(row: &ExplainedRow) -> bool {
    let changes: Vec<&RowChange> = row.changes.iter().rev().map(|(change, _)| change).collect();
    changes.first().is_none_or(|first| first.before.is_none())
        && changes.windows(2).all(|two| two[0].after == two[1].before)
        && changes.last().and_then(|last| last.after.clone()) == row.partitions[0].row
}

#[test]
fn exactly_the_events_that_changed_a_row_are_listed_whatever_the_batches_were() {
    for (batch_events_max, subjects) in [(1, 7), (13, 7), (4_096, 7), (4_096, 1), (4_096, 90)] {
        let world = World::new(EngineConfig { batch_events_max, ..EngineConfig::default() });
        let subject = |n: i64| format!("s{}", n % subjects);
        world.log.append_to(P0, (0..300).map(|n| event(n, &subject(n), &n.to_string())));
        world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
        world.settle();
        let row = explain(&world, "s0");
        let expected: Vec<u64> = (0..300).filter(|n| n % subjects as u64 == 0).collect();
        assert_eq!(offsets(&row), expected, "{batch_events_max} {subjects}");
        assert!(is_a_chain(&row), "{row:?}");
        assert_eq!(row.events, 300);
        let (newest, found) = &row.changes[0];
        let found = found.as_ref().unwrap();
        assert_eq!(found.event.id, format!("e{}", newest.offset));
        let last = String::from_utf8(newest.after.clone().unwrap()).unwrap();
        assert!(last.contains(&format!("\"last\":\"{}\"", newest.offset)), "{last}");
        assert_eq!(explain(&world, "no such row").changes, []);
    }
}

#[test]
fn events_of_failed_calls_are_left_out_and_retries_are_named() {
    for bad in [Bad::Name, Bad::Trap, Bad::Reject] {
        let world = World::new(EngineConfig::default());
        let data = |n| if n == 7 { "bad" } else { "ok" };
        world.log.append_to(P0, (0..40).map(|n| event(n, "s1", data(n))));
        world.push("a", meter(OnFailure::ParkEvent, bad));
        world.settle();
        let expected: Vec<u64> = (0..40).filter(|n| *n != 7).collect();
        let row = explain(&world, "s1");
        assert_eq!(offsets(&row), expected);
        assert!(is_a_chain(&row));
    }
    // A version whose plugin applies the event on the second try.
    let world = World::new(EngineConfig::default());
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(true));
    world.push("a", failing_once(fails.clone()));
    world.log.append_to(P0, (0..9).map(|n| event(n, "s1", if n == 3 { "bad" } else { "ok" })));
    world.settle();
    fails.store(false, std::sync::atomic::Ordering::Release);
    let all = ParkedSelection { all: true, ..ParkedSelection::default() };
    assert_eq!(world.engine.retry("meter", None, &all).unwrap().done, 1);
    world.log.append_to(P0, (9..12).map(|n| event(n, "s1", "ok")));
    world.settle();
    // The same failure again, until the retry.
    fails.store(true, std::sync::atomic::Ordering::Release);
    let explained = world.engine.explain(request("totals", "s1")).unwrap();
    let row = explained
        .run(&mut |progress| {
            fails.store(progress.events < 9, std::sync::atomic::Ordering::Release);
            Ok(())
        })
        .unwrap();
    assert_eq!(row.incomplete, None);
    assert_eq!(offsets(&row), [0, 1, 2, 4, 5, 6, 7, 8, 3, 9, 10, 11]);
    let retried: Vec<_> =
        row.changes.iter().filter(|(change, _)| change.offset == Offset(3)).collect();
    assert_eq!(retried[0].0.cause, ChangeCause::Retry { at: Offset(9) });
    assert_eq!(retried[0].1.as_ref().unwrap().event.id, "e3");
    assert!(is_a_chain(&row) && row.partitions[0].agrees);
}

fn changes_of(world: &World, offset: u64) -> ChangedRows {
    let request = EventChangesRequest {
        projection: "meter".into(),
        version: None,
        partition: P0,
        offset: Offset(offset),
        rows_max: 100,
        bytes_max: 1 << 20,
    };
    let changes = world.engine.event_changes(request).unwrap().expect("the event exists");
    changes.run(&mut |_| Ok(())).unwrap()
}

#[test]
fn the_rows_of_an_event_are_those_that_the_explanation_of_its_row_lists() {
    for (batch_events_max, bad) in [(1, Bad::Trap), (13, Bad::Reject), (4_096, Bad::Name)] {
        let world = World::new(EngineConfig { batch_events_max, ..EngineConfig::default() });
        let data = |n| if n == 70 { "bad" } else { "ok" };
        world.log.append_to(P0, (0..300).map(|n| event(n, &format!("s{}", n % 7), data(n))));
        world.push("a", meter(OnFailure::ParkEvent, bad));
        world.settle();
        let explained = explain(&world, "s0");
        for (change, _) in &explained.changes {
            let found = changes_of(&world, change.offset.0);
            assert_eq!((found.applied, &found.incomplete), (true, &None));
            let rows: Vec<_> = found.rows.iter().filter(|(table, _)| table == "totals").collect();
            assert_eq!(rows.len(), 1, "{found:?}");
            // The watermark is that of the batch, which is another one for an event alone.
            let row = RowChange { watermark: change.watermark, ..rows[0].1.clone() };
            assert_eq!(&row, change);
        }
        // An event that was parked has changed nothing.
        let parked = changes_of(&world, 70);
        assert_eq!((parked.applied, parked.total, parked.incomplete), (false, 0, None));
    }
}

/// Returns a plugin that sets `last` in the subject's row. It fails on `bad` while the flag is set.
fn failing_once(fails: Arc<std::sync::atomic::AtomicBool>) -> NativePlugin {
    let manifest = Manifest { event_time: None, emits: vec![], ..manifest(OnFailure::ParkEvent) };
    NativePlugin::new(manifest, move |batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            if event.data == b"bad" && fails.load(std::sync::atomic::Ordering::Acquire) {
                return Err(ApplyError::Failed { cause: Some(cause), message: "bad".into() });
            }
            let row = format!("{{\"n\":{}}}", batch.offsets[index]);
            host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    })
}

/// Returns a plugin that writes a row for each event, deletes it with a timer 3 seconds later, and
/// logs both.
fn alarm(retention_us: Option<u64>) -> NativePlugin {
    let mut manifest = Manifest { emits: vec![], ..manifest(OnFailure::ParkEvent) };
    manifest.tables[0].retention_us = retention_us;
    NativePlugin::new(manifest, move |batch, host, _: &mut ()| {
        for (index, timer) in (0..).zip(&batch.timers) {
            let text = format!("ring {}", timer.key);
            host.log(Some(Cause(index)), Level::Info, &text).map_err(host_error)?;
            host.delete(Cause(index), TableId(0), &timer.key).map_err(host_error)?;
        }
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            let row = format!("{{\"n\":{}}}", batch.offsets[index]);
            let text = format!("write {row}");
            host.log(Some(cause), Level::Info, &text).map_err(host_error)?;
            host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
            if retention_us.is_none() {
                let at = Timestamp(event.time.0 + 3 * SECOND);
                host.set_timer(cause, at, event.subject).map_err(host_error)?;
            }
        }
        Ok(())
    })
}

#[test]
fn timers_and_expiries_are_listed_with_the_messages_of_the_plugin() {
    for retention_us in [None, Some(4 * SECOND as u64)] {
        let world = World::new(EngineConfig::default());
        world.push("a", alarm(retention_us));
        let subject = |n: i64| if n == 5 { "rare" } else { "other" };
        world.log.append_to(P0, (0..200).map(|n| event(n, subject(n), "ok")));
        world.settle();
        let row = explain(&world, "rare");
        assert_eq!(row.changes.len(), 2, "{row:?}");
        let (written, deleted) = (&row.changes[1], &row.changes[0]);
        assert_eq!((written.0.offset, &written.0.cause), (Offset(5), &ChangeCause::Event));
        assert_eq!(written.0.logs.len(), 1);
        assert_eq!(written.0.logs[0].message, "write {\"n\":5}");
        assert_eq!((&deleted.0.after, deleted.1.is_none()), (&None, true));
        match retention_us {
            Some(_) => assert_eq!(deleted.0.cause, ChangeCause::Expiry),
            None => {
                let at = Timestamp(5 * SECOND / 4 + 3 * SECOND);
                let cause = ChangeCause::Timer { key: "rare".into(), at, set_by: Offset(5) };
                assert_eq!(deleted.0.cause, cause);
                assert_eq!(deleted.0.logs[0].message, "ring rare");
            }
        }
        assert!(is_a_chain(&row));
    }
}

#[test]
fn each_partition_has_its_own_row_and_changes_are_merged_by_time() {
    let world = World::with_log(EngineConfig::default(), MemoryLog::new(2, 50));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    for n in 0..20 {
        world.log.append_to(PartitionId(n as u32 % 2), [event(n, "s1", &n.to_string())]);
    }
    world.settle();
    let row = explain(&world, "s1");
    assert_eq!(row.partitions.len(), 2);
    let order: Vec<_> =
        row.changes.iter().map(|(_, event)| event.as_ref().unwrap().event.id.clone()).collect();
    assert_eq!(order, (0..20).rev().map(|n| format!("e{n}")).collect::<Vec<_>>());
    let mut few = request("totals", "s1");
    few.changes_max = 3;
    let row = world.engine.explain(few).unwrap().run(&mut |_| Ok(())).unwrap();
    assert_eq!(row.changes.len(), 3);
    assert_eq!(row.partitions[0].changes + row.partitions[1].changes, 20);
}

#[test]
fn an_explanation_ends_on_request_and_never_changes_the_live_state() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..5_000).map(|n| event(n, "s1", "ok")));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    // The change log begins with the activation.
    world.log.append_to(P0, (5_000..5_010).map(|n| event(n, "s1", "ok")));
    world.settle();
    let hash = world.state();
    let explained = world.engine.explain(request("totals", "s1")).unwrap();
    let row = explained.run(&mut |_| Err("enough".into())).unwrap();
    assert_eq!(row.incomplete.as_deref(), Some("enough"));
    assert!(row.events > 0 && row.events < 5_010, "{}", row.events);
    assert!(!row.partitions[0].agrees);
    // The change log shows the newest commits without a fold.
    let commits = explained.commits(5).unwrap();
    assert!(!commits.is_empty() && commits[0].next == Offset(5_010), "{commits:?}");
    assert_eq!(
        commits[0].row.as_ref(),
        world.rows("totals").get("s1").map(String::as_bytes).map(<[u8]>::to_vec).as_ref()
    );
    assert_eq!(world.state(), hash);
    for (table, key) in [("windows", "x"), ("none", "x")] {
        let error = world.engine.explain(request(table, key)).err().unwrap();
        assert_eq!(error.code(), "LAN-0404");
    }
    world.log.retain_from(P0, Offset(10));
    let row = explained.run(&mut |_| Ok(())).unwrap();
    assert!(row.incomplete.unwrap().contains("begins at offset 10"));
}

#[test]
fn the_events_of_changes_are_read_at_the_pace_of_the_fold() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..40).map(|n| event(n, "s1", "ok")));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    let explained = world.engine.explain(request("totals", "s1")).unwrap();
    let mut after_fold = 0;
    let row = explained.run(&mut |progress| {
        after_fold += u32::from(progress.percent >= 100.0);
        if after_fold > 10 { Err("enough".into()) } else { Ok(()) }
    });
    let row = row.unwrap();
    assert_eq!((row.incomplete.as_deref(), row.partitions[0].agrees), (Some("enough"), true));
    let changes = offsets(&row);
    assert!((1..=10).contains(&changes.len()), "{changes:?}");
    assert_eq!(changes.last(), Some(&39), "the newest come first");
}

#[test]
fn a_table_that_differs_from_the_log_is_reported() {
    let world = World::new(EngineConfig::default());
    world.log.append_to(P0, (0..30).map(|n| event(n, "s1", "ok")));
    world.push("a", meter(OnFailure::ParkEvent, Bad::Apply));
    world.settle();
    let shard = world.stores.shards().into_iter().next().unwrap();
    let row = std::iter::once((b"s1".to_vec(), Some(b"{}".to_vec()))).collect();
    let writes = lantern_core::Writes::from([(lantern_core::Space::Table(TableId(0)), row)]);
    lantern_core::ShardStore::commit(&*world.stores.shard(&shard), &writes).unwrap();
    let explained = world.engine.explain(request("totals", "s1")).unwrap();
    let row = explained.run(&mut |_| Ok(())).unwrap();
    assert_eq!((row.incomplete.as_deref(), row.partitions[0].agrees), (None, false));
}
