//! Tests reads: event types, times, merged chunks, retention.

use super::*;
use crate::embedded::chunk_meta::ChunkMeta;

fn filter(kinds: &[&str]) -> TypeFilter {
    TypeFilter::new(&kinds.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>())
}

fn metas(folder: &LogFolder) -> Vec<(u64, ChunkMeta)> {
    use redb::{ReadableDatabase, ReadableTable};
    let table = raw(folder).begin_read().unwrap().open_table(tables::INDEX).unwrap();
    let pairs = table.iter().unwrap().map(Result::unwrap);
    pairs.map(|(k, v)| (k.value().1, ChunkMeta::decode(v.value()).unwrap())).collect()
}

#[test]
fn chunks_without_wanted_types_are_skipped_cached_or_not() {
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 10, ..small() };
    let log = folder.open(&config);
    for n in 0..30_u64 {
        let kind = if n == 17 { "rare" } else { "common" };
        let events: Vec<_> = (0..10).map(|i| event(&format!("{n}-{i}"), kind, "s", 1)).collect();
        append(&log, &events).unwrap();
    }
    let check = |log: &EmbeddedLog| {
        let mut next = Offset(3);
        let mut chunks = Vec::new();
        loop {
            match log.read(P0, next, &filter(&["rare", "absent.*"])).unwrap() {
                LogRead::Chunk(chunk) => {
                    chunks.push(chunk.offset(0).0);
                    next = chunk.end();
                }
                LogRead::Skipped { next: after } => {
                    assert!(after > next);
                    next = after;
                }
                LogRead::Pending => panic!("it never has one wait"),
                LogRead::End => break,
            }
        }
        assert_eq!(chunks, [170]);
        assert_eq!(next, Offset(300));
        let nothing = log.read(P0, Offset(0), &filter(&["absent"])).unwrap();
        assert!(matches!(nothing, LogRead::Skipped { next: Offset(300) }));
        assert!(matches!(log.read(P0, Offset(300), &filter(&["*"])), Ok(LogRead::End)));
        let no = log.read(PartitionId(1), Offset(0), &filter(&["*"]));
        assert!(matches!(no, Err(LogError::NoPartition(PartitionId(1)))));
    };
    check(&log);
    drop(log);
    check(&folder.open(&config));
    check(&folder.open(&LogConfig { cache_bytes: 0, ..config }));
}

#[test]
fn many_types_in_a_chunk_skip_nothing() {
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 1_000, chunk_bytes: 1 << 20, ..small() };
    let log = folder.open(&config);
    let events: Vec<_> =
        (0..600).map(|n| event(&n.to_string(), &format!("t{n}"), "s", 1)).collect();
    append(&log, &events).unwrap();
    drop(log);
    let log = folder.open(&config);
    assert!(matches!(log.read(P0, Offset(0), &filter(&["t599"])), Ok(LogRead::Chunk(_))));
    assert_eq!(log.stats().unwrap().partitions[0].types, [(String::new(), 600)]);
    assert_eq!(read_all(&log, P0), events);
}

#[test]
fn small_chunks_are_merged_and_readers_see_the_same() {
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 280, chunk_bytes: 1 << 20, ..small() };
    let log = folder.open(&config);
    for n in 0..300_u64 {
        folder.set_clock(n.cast_signed());
        append(&log, &numbered(n..n + 1)).unwrap();
        let chunks = log.stats().unwrap().partitions[0].chunks;
        let expected = match n {
            ..256 => n + 1,
            256..279 => n - 255, // A long run is merged although it fills no chunk.
            _ => n - 278,
        };
        assert_eq!(chunks, expected, "after event {n}");
    }
    assert_eq!(read_all(&log, P0), numbered(0..300));
    let stats = log.stats().unwrap();
    assert_eq!(stats.partitions[0].types, [("t".to_owned(), 300)]);
    drop(log);
    let found = metas(&folder);
    assert_eq!(found.len() as u64, stats.partitions[0].chunks);
    assert_eq!(found.iter().map(|(_, m)| m.disk_bytes).sum::<u64>(), stats.partitions[0].bytes);
    assert_eq!((found[0].0, found[0].1.end), (0, Offset(280)));
    for ((first, meta), before) in
        found.iter().zip([None].into_iter().chain(found.iter().map(Some)))
    {
        let seconds = |time: Timestamp| u64::try_from(time.0 / 1_000_000).unwrap();
        assert_eq!(
            (seconds(meta.appended_min), seconds(meta.appended_max)),
            (*first, meta.end.0 - 1)
        );
        assert_eq!(*first, before.map_or(0, |(_, m)| m.end.0));
    }
    // Merging continues after the log is opened again.
    let log = folder.open(&config);
    append(&log, &numbered(300..600)).unwrap();
    assert_eq!(read_all(&log, P0), numbered(0..600));
    drop(log);
    assert_eq!(metas(&folder).len(), 3);
}

#[test]
fn an_offset_is_found_by_append_time_as_a_search_one_by_one_finds_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 7, retention_age_seconds: Some(10), ..small() };
    let log = folder.open(&config);
    assert_eq!(log.offset_at(P0, Timestamp(5)).unwrap(), Offset(0));
    let mut times = Vec::new();
    for n in 0..60_i64 {
        // Event times do not matter here: some events are late, and one is far in the future.
        let now = folder.set_clock(n);
        let events: Vec<_> = (0..rng.i64(1..6))
            .map(|i| {
                let time = if n == 5 && i == 0 { 4_000 } else { n * 100 + rng.i64(-300..300) };
                times.push(now.0);
                event(&format!("{n}-{i}"), "t", "s", time)
            })
            .collect();
        append(&log, &events).unwrap();
    }
    let check = |from: usize| {
        for time in (-5_000_000..70_000_000).step_by(370_000) {
            let index = times.iter().skip(from).position(|&t| t >= time);
            let expected = index.map_or(times.len(), |index| index + from);
            assert_eq!(log.offset_at(P0, Timestamp(time)).unwrap().0, expected as u64, "{time}");
        }
    };
    check(0);
    let done = log.maintain(Timestamp(30_000_000), &|_| None).unwrap();
    assert!(done.trimmed[0].start.0 > 0);
    check(usize::try_from(done.trimmed[0].start.0).unwrap());
}

#[test]
fn retention_by_age_deletes_whole_chunks_up_to_the_floor() {
    let folder = LogFolder::new();
    let config = LogConfig {
        chunk_events_max: 10,
        retention_age_seconds: Some(100),
        partitions: 1,
        ..small()
    };
    let log = folder.open(&config);
    for n in 0..10 {
        folder.set_clock(n * 50);
        append(&log, &numbered(n.cast_unsigned() * 10..(n.cast_unsigned() + 1) * 10)).unwrap();
    }
    let now = Timestamp(301 * 1_000_000);
    let done = log.maintain(now, &|_| Some(Offset(25))).unwrap();
    assert_eq!((done.trimmed[0].events, done.trimmed[0].start, done.more), (20, Offset(20), false));
    assert_eq!(log.bounds(P0).unwrap().start, Offset(20));
    let trimmed = log.read(P0, Offset(19), &TypeFilter::everything());
    assert!(matches!(trimmed, Err(LogError::OutOfRange { start: Offset(20), .. })));
    assert_eq!(read_all(&log, P0), numbered(20..100));
    let done = log.maintain(now, &|_| None).unwrap();
    assert_eq!(done.trimmed[0].start, Offset(50));
    assert_eq!(log.maintain(now, &|_| None).unwrap(), Default::default());
    assert_eq!(log.stats().unwrap().partitions[0].types, [("t".to_owned(), 50)]);
    drop(log);
    // All events can be deleted. The offsets of new events still continue, and old ids are still
    // recognized.
    let log = folder.open(&config);
    log.maintain(Timestamp(10_000 * 1_000_000), &|_| None).unwrap();
    let bounds = log.bounds(P0).unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(100), Offset(100)));
    assert!(matches!(log.read(P0, Offset(100), &TypeFilter::everything()), Ok(LogRead::End)));
    let stats = log.stats().unwrap();
    assert_eq!((stats.partitions[0].chunks, stats.partitions[0].bytes), (0, 0));
    drop(log);
    let log = folder.open(&config);
    let appended = append(&log, &numbered(99..101)).unwrap().events;
    assert!(appended[0].duplicate && !appended[1].duplicate);
    assert_eq!(appended[1].offset, Offset(100));
    assert_eq!(read_all(&log, P0), numbered(100..101));
}

fn append_times(log: &EmbeddedLog) -> Vec<i64> {
    let mut next = log.bounds(P0).unwrap().start;
    let mut times = Vec::new();
    while let LogRead::Chunk(chunk) = log.read(P0, next, &TypeFilter::everything()).unwrap() {
        times.extend(chunk.appended.iter().map(|time| time.0 / 1_000_000));
        next = chunk.end();
    }
    times
}

#[test]
fn each_event_keeps_its_append_time_also_in_merged_chunks_and_after_reopening() {
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 10, ..small() };
    let log = folder.open(&config);
    for n in 0..35_u64 {
        folder.set_clock(n.cast_signed() * 2);
        append(&log, &numbered(n..n + 1)).unwrap();
    }
    let expected: Vec<_> = (0..35).map(|n| n * 2).collect();
    assert_eq!(append_times(&log), expected);
    drop(log);
    assert_eq!(append_times(&folder.open(&config)), expected);
}

#[test]
fn a_clock_that_was_ahead_pins_neither_append_times_nor_retention_nor_the_highest_time() {
    let folder = LogFolder::new();
    let day = 86_400;
    let config = LogConfig { chunk_events_max: 1, retention_age_seconds: Some(3_600), ..small() };
    let log = folder.open(&config);
    let at = |n: u64, seconds: i64| {
        let now = folder.set_clock(seconds);
        let one = event(&n.to_string(), "t", "s", now.0);
        append(&log, &[one]).unwrap();
    };
    at(0, day);
    at(1, 30_000 * day);
    at(2, day + 10);
    // After a small correction of the clock, append times do not go back.
    at(3, day + 5);
    assert_eq!(append_times(&log), [day, 30_000 * day, day + 10, day + 10]);
    assert_eq!(log.bounds(P0).unwrap().max_time, Timestamp((day + 10) * 1_000_000));
    // An event time that is far ahead of its append time is not used either.
    append(&log, &[event("4", "t", "s", 40_000 * day * 1_000_000)]).unwrap();
    assert_eq!(log.bounds(P0).unwrap().max_time, Timestamp((day + 10) * 1_000_000));
    // An event is found by its append time, although an earlier event has a later append time.
    assert!(log.offset_at(P0, Timestamp((day + 10) * 1_000_000)).unwrap() <= Offset(2));
    let done = log.maintain(Timestamp((day + 3_700) * 1_000_000), &|_| None).unwrap();
    assert_eq!(done.trimmed[0].start, Offset(5));
}

#[test]
fn a_clock_behind_the_log_is_a_warning_until_the_next_append() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    folder.set_clock(10_000);
    append(&log, &[event("0", "t", "s", 1)]).unwrap();
    assert_eq!(log.warnings(), [""; 0]);
    folder.set_clock(5_000);
    drop(log);
    let log = folder.open(&small());
    let warnings = log.warnings();
    assert!(warnings[0].contains("clock is 5000 s behind"), "{warnings:?}");
    append(&log, &[event("1", "t", "s", 1)]).unwrap();
    assert_eq!(log.warnings(), [""; 0]);
}

#[test]
fn retention_by_size_deletes_the_oldest_chunks_and_keeps_the_newest() {
    let folder = LogFolder::new();
    let config = LogConfig { partitions: 2, retention_bytes: Some(60_000), ..small() };
    let log = folder.open(&config);
    for n in 0..40_u64 {
        folder.set_clock(n.cast_signed());
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(6_000).collect();
        let mut one = event(&n.to_string(), "t", &format!("s{n}"), 1);
        one.data = noise.into_bytes();
        append(&log, &[one]).unwrap();
    }
    let bytes =
        |log: &EmbeddedLog| log.stats().unwrap().partitions.iter().map(|p| p.bytes).sum::<u64>();
    assert!(bytes(&log) > 60_000);
    let done = log.maintain(Timestamp(0), &|_| None).unwrap();
    assert_eq!(done.trimmed.len(), 2);
    assert!((40_000..=60_000).contains(&bytes(&log)), "{}", bytes(&log));
    drop(log);
    let log = folder.open(&LogConfig { retention_bytes: Some(0), ..config });
    log.maintain(Timestamp(0), &|_| None).unwrap();
    for partition in [P0, PartitionId(1)] {
        let bounds = log.bounds(partition).unwrap();
        assert_eq!(bounds.end.0 - bounds.start.0, 1);
        assert_eq!(read_all(&log, partition).len(), 1);
    }
}

#[test]
fn readers_at_all_offsets_agree_while_appends_and_retention_go_on() {
    let folder = LogFolder::new();
    let config = LogConfig {
        cache_bytes: 50_000,
        retention_bytes: Some(20_000),
        dedup_window_events: 0,
        ..small()
    };
    let log = folder.open(&config);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut next = Offset(0);
                while !done.load(Ordering::SeqCst) {
                    match log.read(P0, next, &TypeFilter::everything()) {
                        Ok(LogRead::Chunk(chunk)) => {
                            for (index, event) in chunk.events.iter().enumerate() {
                                assert_eq!(event.id, chunk.offset(index).0.to_string());
                            }
                            assert!(chunk.end() > next);
                            next = chunk.end();
                        }
                        Ok(LogRead::Pending) => panic!("it never has one wait"),
                        Ok(LogRead::End) => {
                            std::thread::yield_now();
                            next = log.bounds(P0).unwrap().start;
                        }
                        Ok(LogRead::Skipped { .. }) => panic!("all is wanted"),
                        Err(LogError::OutOfRange { start, .. }) => next = start,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let mut next = 0;
        for turn in 0..120_u64 {
            let len = if turn % 10 == 0 { 200 } else { 1 + turn % 3 };
            append(&log, &numbered(next..next + len)).unwrap();
            next += len;
            if turn % 7 == 0 {
                log.maintain(Timestamp(0), &|_| None).unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(log.bounds(P0).unwrap().start.0 > 0);
}

/// Checks that readers see the events of a commit only once the commit is published, which is after
/// the commit is in the file. A shard that reads them earlier would record a wrong incarnation
/// (that of the events before them), and its next offset would be past the published end of the
/// log.
#[test]
fn events_of_a_commit_are_read_once_the_commit_is_published() {
    for cache_bytes in [0, 1 << 20] {
        let folder = LogFolder::new();
        append(&folder.open(&small()), &numbered(0..3)).unwrap();
        // The sixth event fills a chunk. The events before it are merged into this chunk.
        let log = folder.open(&LogConfig { cache_bytes, chunk_events_max: 6, ..small() });
        append(&log, &numbered(3..5)).unwrap();
        append(&log, &[event("x", "other", "s", 5)]).unwrap();
        let published = |end: u64| log.shared.rows.write()[0].end = Offset(end);
        let read = |from: u64, wanted: &TypeFilter| log.read(P0, Offset(from), wanted).unwrap();
        for end in 1..6 {
            published(end);
            let LogRead::Chunk(chunk) = read(0, &TypeFilter::everything()) else {
                panic!("the first {end} events are published")
            };
            assert_eq!((chunk.offset(0), chunk.end()), (Offset(0), Offset(end)));
            assert_eq!(chunk.appended.len(), chunk.events.len());
            let kept: Vec<_> = chunk.events.iter().map(|event| event.to_owned()).collect();
            assert_eq!(kept, numbered(0..end), "all attributes are there");
            assert!(matches!(read(end, &TypeFilter::everything()), LogRead::End));
            let none = filter(&["none"]);
            let skipped = read(0, &none);
            assert!(matches!(skipped, LogRead::Skipped { next } if next == Offset(end)));
        }
        published(6);
        let whole = read_from(&log, P0, Offset(0));
        assert_eq!(whole.len(), 6);
    }
}
