//! Measures the steps from the log's file to a batch of events.

use std::hint::black_box;
use std::sync::mpsc;

use divan::Bencher;
use divan::counter::ItemsCount;
use lantern_core::{Attributes, Events, Log, LogRead, Offset, PartitionId, TypeFilter};
use lantern_log::{EmbeddedLog, LogConfig};
use tempfile::TempDir;

use crate::shop_events;

const EVENTS: u64 = 50_000;
const ALL: &str = "*";

/// Writes a log with the first events of W1. Returns the log and its folder.
fn log(cache_bytes: usize) -> (EmbeddedLog, TempDir) {
    let dir = TempDir::new().expect("there is room for a folder");
    let config = LogConfig { cache_bytes, ..LogConfig::default() };
    let log = EmbeddedLog::open(dir.path().join("log.redb"), config).expect("a fresh log opens");
    let (send, appended) = mpsc::channel();
    log.append(shop_events(EVENTS), Box::new(move |outcome| drop(send.send(outcome))));
    appended.recv().expect("the log answers").expect("the events are appended");
    (log, dir)
}

/// Reads from the first to the last event, and counts the events.
fn read_all(log: &EmbeddedLog) -> u64 {
    let (partition, wanted) = (PartitionId(0), TypeFilter::new(&[ALL.to_owned()]));
    let (mut next, mut events) = (Offset(0), 0);
    loop {
        match log.read(partition, next, &wanted).expect("the log is readable") {
            LogRead::Pending => unreachable!("the embedded log answers at once"),
            LogRead::End => return events,
            LogRead::Skipped { next: after } => next = after,
            LogRead::Chunk(chunk) => {
                events += chunk.events.len() as u64;
                next = chunk.end();
            }
        }
    }
}

#[divan::bench(sample_count = 30, sample_size = 1)]
fn chunk_decoded(bencher: Bencher<'_, '_>) {
    let (log, _dir) = log(0);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        assert_eq!(read_all(&log), EVENTS);
    });
}

#[divan::bench(sample_count = 30, sample_size = 10)]
fn chunk_cached(bencher: Bencher<'_, '_>) {
    let (log, _dir) = log(64 << 20);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        assert_eq!(read_all(&log), EVENTS);
    });
}

/// Measures how long it takes to copy the requested attributes: only those that are always present,
/// those that W1 requests, or all.
#[divan::bench(args = ["none", "w1", "all"], sample_count = 50, sample_size = 10)]
fn gather(bencher: Bencher<'_, '_>, wanted: &str) {
    let events = shop_events(16_384);
    let wanted = match wanted {
        "none" => Attributes { data: true, ..Attributes::default() },
        "w1" => Attributes { tenant: true, data: true, ..Attributes::default() },
        _ => Attributes::all(),
    };
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        let mut batch = Events::new();
        assert!(batch.extend_from(black_box(&events), 0..events.len(), wanted));
        batch
    });
}
