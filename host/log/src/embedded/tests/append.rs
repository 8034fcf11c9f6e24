//! Tests appends: order, offsets, duplicates, several appends in one commit, and opening the log
//! again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use super::*;
use crate::{Compression, OpenError};

#[test]
fn events_come_back_in_order_at_their_offsets_from_every_partition() {
    let folder = LogFolder::new();
    let config = LogConfig { partitions: 5, ..small() };
    let log = folder.open(&config);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut expected: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    let mut homes = HashMap::new();
    for turn in 0..40 {
        let events: Vec<_> = (0..rng.usize(1..50))
            .map(|n| {
                let subject = match rng.u8(..30) {
                    0 => String::new(),
                    subject => format!("u{subject}"),
                };
                event(&format!("{turn}-{n}"), "t", &subject, i64::from(rng.i32(..)))
            })
            .collect();
        let appended = append(&log, &events).unwrap();
        assert_eq!(appended.events.len(), events.len());
        for (event, at) in events.iter().zip(appended.events) {
            assert!(!at.duplicate);
            let partition = expected.entry(at.partition.0).or_default();
            assert_eq!(at.offset.0, partition.len() as u64);
            partition.push(event.clone());
            if !event.subject.is_empty() {
                let home = homes.entry(event.subject.clone()).or_insert(at.partition);
                assert_eq!(*home, at.partition, "a subject stays in its partition");
            }
        }
    }
    assert_eq!(expected.len(), 5, "all partitions are used");
    let check = |log: &EmbeddedLog| {
        for (&partition, events) in &expected {
            assert_eq!(read_all(log, PartitionId(partition)), *events);
        }
    };
    check(&log);
    drop(log);
    check(&folder.open(&LogConfig { cache_bytes: 0, ..config }));
}

#[test]
fn partitions_of_subjects_never_change() {
    let of = |subject: &str| {
        crate::embedded::writer::partition_of(&event("i", "t", subject, 0).as_ref(), 8)
    };
    let found: Vec<_> = ["u1", "u2", "u3", "UA1545", "é", ""].map(of).to_vec();
    assert_eq!(found, FOUND_BY_THE_FIRST_RELEASE);
}

const FOUND_BY_THE_FIRST_RELEASE: [usize; 6] = [1, 6, 6, 0, 5, 2];

#[test]
fn duplicates_get_the_first_ones_place_within_an_append_across_appends_and_after_reopening() {
    let folder = LogFolder::new();
    let config = LogConfig { partitions: 3, ..small() };
    let log = folder.open(&config);
    let one = [event("a", "t", "x", 1), event("b", "t", "y", 1), event("a", "t", "z", 2)];
    let first = append(&log, &one).unwrap().events;
    assert_eq!(first.iter().map(|a| a.duplicate).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!((first[0].partition, first[0].offset), (first[2].partition, first[2].offset));
    // An event with the same id and another source is not a duplicate.
    let other = Event { source: "elsewhere".into(), ..event("a", "t", "x", 1) };
    assert!(!append(&log, &[other]).unwrap().events[0].duplicate);
    // The same characters, divided differently into source and id, form another identity.
    let shifted = Event { source: "sho".into(), ..event("pa", "t", "x", 1) };
    assert!(!append(&log, &[shifted]).unwrap().events[0].duplicate);
    let again = append(&log, &one).unwrap().events;
    assert!(again.iter().all(|a| a.duplicate));
    assert_eq!(log.stats().unwrap().duplicates, 4);
    drop(log);
    let log = folder.open(&config);
    let again = append(&log, &one).unwrap().events;
    assert!(again.iter().all(|a| a.duplicate));
    assert_eq!(again[1].offset, first[1].offset);
    let total: u64 = (0..3).map(|p| log.bounds(PartitionId(p)).unwrap().end.0).sum();
    assert_eq!(total, 4);
}

#[test]
fn the_window_forgets_the_oldest_also_after_reopening() {
    let folder = LogFolder::new();
    let config = LogConfig { dedup_window_events: 2_500, ..small() };
    let log = folder.open(&config);
    for from in (0..6_000).step_by(1_500) {
        append(&log, &numbered(from..from + 1_500)).unwrap();
    }
    let check = |log: &EmbeddedLog| {
        let duplicate = |n: u64| {
            let probe = numbered(n..n + 1);
            append(log, &probe).unwrap().events[0].duplicate
        };
        assert!(duplicate(5_999) && duplicate(3_500));
    };
    check(&log);
    drop(log);
    let log = folder.open(&config);
    check(&log);
    // Event 3,499 is just outside of the window, so it is appended again. After that it is in the
    // window.
    assert!(!append(&log, &numbered(3_499..3_500)).unwrap().events[0].duplicate);
    assert!(append(&log, &numbered(3_499..3_500)).unwrap().events[0].duplicate);
    log.close();
    let stored = {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        let table = raw(&folder).begin_read().unwrap().open_table(tables::IDENTITIES).unwrap();
        table.len().unwrap()
    };
    assert!(stored <= 5, "old identities are removed: {stored} records");
}

#[test]
fn a_window_of_none_takes_every_event() {
    let folder = LogFolder::new();
    let log = folder.open(&LogConfig { dedup_window_events: 0, ..small() });
    for _ in 0..2 {
        assert!(append(&log, &numbered(0..3)).unwrap().events.iter().all(|a| !a.duplicate));
    }
    assert_eq!(log.bounds(P0).unwrap().end, Offset(6));
}

#[test]
fn events_without_a_time_get_the_time_of_the_append() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    let now = folder.set_clock(5_000);
    let events = [event("a", "t", "s", i64::MIN), event("b", "t", "s", 7)];
    append(&log, &events).unwrap();
    let times: Vec<_> = read_all(&log, P0).iter().map(|e| e.time).collect();
    assert_eq!(times, [now, Timestamp(7)]);
    assert_eq!(log.bounds(P0).unwrap().max_time, now);
}

#[test]
fn columns_that_were_not_filled_come_back_filled() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    let lean = Events::from_columns(
        vec![Timestamp(1)],
        vec!["t".into()],
        vec![0],
        lantern_core::Columns {
            id: [b"lean".as_slice()].into_iter().collect(),
            ..Default::default()
        },
    );
    let (send, receive) = mpsc::channel();
    log.append(lean.unwrap(), Box::new(move |result| send.send(result).unwrap()));
    receive.recv().unwrap().unwrap();
    append(&log, &numbered(0..1)).unwrap();
    let LogRead::Chunk(chunk) = log.read(P0, Offset(0), &TypeFilter::everything()).unwrap() else {
        panic!("no chunk");
    };
    assert!(chunk.events.columns().all().iter().all(|c| c.len() == chunk.events.len()));
    assert_eq!(read_all(&log, P0)[0].id, "lean");
}

#[test]
fn appends_that_wait_share_a_commit() {
    let folder = LogFolder::new();
    let log = Arc::new(folder.open(&small()));
    // The first append's callback holds the writer until all others wait.
    let (release, held) = mpsc::channel::<()>();
    log.append(columns(&numbered(0..1)), Box::new(move |_| held.recv().unwrap()));
    let groups = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&groups);
    log.on_append(Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let waiting: Vec<_> = (1..=200).map(|n| start(&log, &numbered(n..n + 1))).collect();
    let before = groups.load(Ordering::SeqCst);
    release.send(()).unwrap();
    for (n, receive) in (1..).zip(waiting) {
        assert_eq!(receive.recv().unwrap().unwrap().events[0].offset, Offset(n));
    }
    assert!(groups.load(Ordering::SeqCst) - before <= 2, "200 appends, one commit");
    assert_eq!(read_all(&log, P0), numbered(0..201));
}

#[test]
fn wakers_and_callbacks_come_once_events_are_readable() {
    let folder = LogFolder::new();
    let log = Arc::new(folder.open(&small()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (weak, noted) = (Arc::downgrade(&log), Arc::clone(&seen));
    log.on_append(Arc::new(move |partition, _| {
        let end = weak.upgrade().unwrap().bounds(partition).unwrap().end;
        noted.lock().unwrap().push((partition, end));
    }));
    for n in 0..5 {
        let appended = append(&log, &numbered(n..n + 1)).unwrap();
        assert_eq!(appended.events[0].offset, Offset(n));
        assert_eq!(read_from(&log, P0, Offset(n)), numbered(n..n + 1));
    }
    let expected: Vec<_> = (1..=5).map(|end| (P0, Offset(end))).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    append(&log, &numbered(0..5)).unwrap();
    assert_eq!(seen.lock().unwrap().len(), 5, "duplicates wake no reader");
}

#[test]
fn a_full_queue_refuses_at_once_and_an_empty_append_is_answered() {
    let folder = LogFolder::new();
    let log = folder.open(&LogConfig { queue_bytes: 2_000, ..small() });
    assert_eq!(append(&log, &[]).unwrap(), Appended::default());
    let (release, held) = mpsc::channel::<()>();
    log.append(columns(&numbered(0..1)), Box::new(move |_| held.recv().unwrap()));
    let first = start(&log, &numbered(1..30));
    let refused = append(&log, &numbered(30..70)).unwrap_err();
    assert!(matches!(&refused, LogError::Unavailable(why) if why.contains("log.queue_bytes")));
    release.send(()).unwrap();
    first.recv().unwrap().unwrap();
    let large = append(&log, &numbered(100..200)).unwrap_err();
    assert!(large.to_string().contains("send it in parts"), "{large}");
    // The answered appends no longer take space in the queue.
    for n in 30..60 {
        append(&log, &numbered(n..n + 1)).unwrap();
    }
    assert_eq!(log.bounds(P0).unwrap().end, Offset(60));
}

#[test]
fn a_callback_that_panics_harms_no_other() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    log.append(columns(&numbered(0..1)), Box::new(|_| panic!("on purpose")));
    append(&log, &numbered(1..2)).unwrap();
    assert_eq!(log.bounds(P0).unwrap().end, Offset(2));
}

#[test]
fn closing_answers_all_that_wait_and_refuses_what_comes_after() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    let waiting: Vec<_> = (0..50).map(|n| start(&log, &numbered(n..n + 1))).collect();
    log.close();
    for receive in waiting {
        receive.recv().unwrap().unwrap();
    }
    assert!(matches!(append(&log, &numbered(50..51)), Err(LogError::Closed)));
    let read = log.read(P0, Offset(0), &TypeFilter::new(&["none".into()]));
    assert!(matches!(read, Ok(LogRead::Skipped { .. }) | Err(LogError::Closed)));
    assert!(matches!(log.stats(), Err(LogError::Closed)));
    let same = log.maintain(Timestamp(0), &|_| None);
    assert!(matches!(same, Err(LogError::Closed)));
    // The file can be opened again although the closed log still exists.
    assert_eq!(read_all(&folder.open(&small()), P0), numbered(0..50));
}

#[test]
fn reopening_finds_exactly_what_was_acknowledged_whatever_the_appends() {
    let folder = LogFolder::new();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut next = 0;
    for turn in 0..12 {
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd][rng.usize(..3)];
        let log = folder.open(&LogConfig { compression, ..small() });
        assert_eq!(read_all(&log, P0), numbered(0..next), "turn {turn}");
        let waiting: Vec<_> = (0..rng.usize(1..60))
            .map(|_| {
                let from = next;
                next += if rng.u8(..8) == 0 { rng.u64(100..400) } else { rng.u64(1..6) };
                start(&log, &numbered(from..next))
            })
            .collect();
        drop(log);
        for receive in waiting {
            receive.recv().unwrap().unwrap();
        }
    }
    let log = folder.open(&small());
    assert_eq!(read_all(&log, P0), numbered(0..next));
    assert_eq!(log.stats().unwrap().partitions[0].types, [("t".to_owned(), next)]);
}

#[test]
fn a_log_in_use_or_of_another_format_and_a_foreign_file_are_refused() {
    let folder = LogFolder::new();
    let message = |config: LogConfig| match EmbeddedLog::open(folder.file(), config) {
        Ok(_) => "opened".to_owned(),
        Err(error) => error.to_string(),
    };
    let log = EmbeddedLog::open(folder.file(), small()).unwrap();
    assert!(message(small()).contains("in use by another process"));
    append(&log, &numbered(0..1)).unwrap();
    drop(log);
    let other = message(LogConfig { partitions: 2, ..small() });
    assert!(other.contains("has 1 partitions, not 2: set `log.partitions` to 1"), "{other}");
    let none = message(LogConfig { partitions: 0, ..small() });
    assert_eq!(none, "log setting `partitions` is 0: choose 1 to 1024");
    for (format, says) in [
        (3, "has format 3, but this release reads formats up to 2"),
        (1, "has format 1 of an earlier release, but this release reads format 2"),
    ] {
        let database = raw(&folder);
        let write = database.begin_write().unwrap();
        {
            let table = redb::TableDefinition::<&str, u64>::new("log");
            write.open_table(table).unwrap().insert("format", format).unwrap();
        }
        write.commit().unwrap();
        drop(database);
        assert!(message(small()).contains(says), "{}", message(small()));
    }
    for bytes in [&b"not a log at all, but a text of some length"[..], &[0; 8192]] {
        std::fs::write(folder.file(), bytes).unwrap();
        let found = message(small());
        assert!(found.contains("is not a Lantern log"), "{found}");
        assert_eq!(std::fs::read(folder.file()).unwrap(), bytes, "it is left alone");
    }
    std::fs::remove_file(folder.file()).unwrap();
    let missing = folder.folder.path().join("missing").join("log.redb");
    assert!(matches!(EmbeddedLog::open(missing, small()), Err(OpenError::Io { .. })));
}

#[test]
fn settings_come_with_defaults_and_unknown_ones_are_refused() {
    let config: LogConfig = serde_json::from_str(r#"{"compression":"zstd"}"#).unwrap();
    assert_eq!(config, LogConfig { compression: Compression::Zstd, ..LogConfig::default() });
    assert!(config.check().is_ok());
    assert!(serde_json::from_str::<LogConfig>(r#"{"partition":1}"#).is_err());
}

#[test]
fn wakers_get_the_types_of_new_events() {
    let folder = LogFolder::new();
    let log = Arc::new(folder.open(&small()));
    let (seen, received) = mpsc::channel();
    log.on_append(Arc::new(move |partition, types| {
        drop(seen.send((partition, types.map(<[String]>::to_vec))));
    }));
    let [one, other, again] = ["b", "a", "b"].map(String::from);
    let typed = |numbers, kind: &str| -> Vec<_> {
        let events: Vec<Event> = numbered(numbers);
        events.into_iter().map(|event| Event { kind: kind.into(), ..event }).collect()
    };
    let both = [typed(0..1, &one), typed(1..2, &other), typed(2..3, &again)].concat();
    append(&log, &both).unwrap();
    append(&log, &typed(3..4, "c")).unwrap();
    assert_eq!(received.recv().unwrap(), (P0, Some(vec!["a".into(), "b".into()])));
    assert_eq!(received.recv().unwrap(), (P0, Some(vec!["c".into()])));
}

#[test]
fn a_heartbeat_lands_in_its_partition() {
    let folder = LogFolder::new();
    let log = folder.open(&LogConfig { partitions: 7, ..small() });
    let (done, appended) = std::sync::mpsc::channel();
    let beat = |partition| {
        let done = done.clone();
        let done = Box::new(move |result| done.send(result).unwrap());
        log.append_heartbeat(partition, Timestamp(5), done);
        appended.recv().unwrap()
    };
    for partition in (0..7).map(PartitionId) {
        let before = log.bounds(partition).unwrap().end.0;
        assert_eq!(beat(partition).unwrap().events[0].partition, partition);
        assert_eq!(log.bounds(partition).unwrap().end.0, before + 1);
    }
    assert!(matches!(beat(PartitionId(7)), Err(LogError::NoPartition(_))));
}
