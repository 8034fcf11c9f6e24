//! Measures the engine's work for windows: scans over rows that are not committed yet,
//! and ticks at which nothing is due.

use std::sync::{Arc, Mutex, mpsc};

use divan::Bencher;
use divan::counter::ItemsCount;
use lantern_core::{
    ApplyOutcome, Batch, EventRef, EventTime, Events, Host, Instance, InstantiateError, Manifest,
    Plugin, TableId, Timestamp,
};
use lantern_engine::{EngineConfig, EventList, FoldOptions, fold};
use lantern_store::{StateDir, StoreConfig};
use tempfile::TempDir;

use crate::writing::{ROW, manifest, putting};

/// The number of rows that one call puts.
const CALL_ROWS: u64 = 50_000;
const SCANS: u64 = 1_000;
const SCAN_ROWS: u32 = 10;

/// A plugin without Wasm. Its calls put rows until the table has `rows` rows. The next call does
/// not end: for each request that it receives, it makes [`SCANS`] scans.
struct Scans {
    manifest: Manifest,
    rows: u64,
    asked: Mutex<Option<Asked>>,
}

/// The channels between the test and the call that scans. The call receives a request for [`SCANS`]
/// scans from `requests`, and reports to `done` when the scans have ended.
struct Asked {
    requests: mpsc::Receiver<()>,
    done: mpsc::Sender<()>,
}

struct Scanning {
    rows: u64,
    put: u64,
    asked: Option<Asked>,
}

impl Plugin for Scans {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        let asked = self.asked.lock().expect("no thread panicked").take();
        Ok(Box::new(Scanning { rows: self.rows, put: 0, asked }))
    }
}

fn key(number: u64) -> String {
    format!("k{number:08}")
}

impl Instance for Scanning {
    fn apply(&mut self, batch: &Batch, mut host: Box<dyn Host>, _: u64) -> ApplyOutcome {
        let until = (self.put + CALL_ROWS).min(self.rows);
        if self.put < until {
            for number in self.put..until {
                let cause = batch.cause_of_event(0);
                host.put(cause, TableId(0), &key(number), ROW).expect("writing does not fail");
            }
            self.put = until;
        } else if let Some(Asked { requests, done }) = self.asked.take() {
            for round in requests {
                let () = round;
                for scan in 0..SCANS {
                    let from = key(scan * 7_919 % self.rows.saturating_sub(10).max(1));
                    let rows = host.scan(TableId(0), &from, "", SCAN_ROWS, false);
                    assert_eq!(rows.expect("scanning does not fail").len(), SCAN_ROWS as usize);
                }
                done.send(()).expect("the benchmark waits");
            }
        }
        ApplyOutcome {
            host,
            result: Ok(()),
            fuel: 1,
            memory_bytes: 0,
            elapsed: std::time::Duration::ZERO,
        }
    }
}

/// Creates `count` events, each `seconds` after the previous one.
fn event_list(count: u64, seconds: i64) -> EventList {
    let mut events = Events::new();
    for index in 0..count {
        let (id, subject) = (index.to_string(), key(index * 7_919 % 1_000));
        assert!(events.push(&EventRef {
            id: &id,
            source: "s",
            kind: "key.hit",
            subject: &subject,
            time: Timestamp(1_735_689_600_000_000 + index as i64 * seconds * 1_000_000),
            data: b"{}",
            ..EventRef::default()
        }));
    }
    EventList::new(&events)
}

/// Measures a thousand scans of ten rows each, of a table whose rows are all uncommitted.
#[divan::bench(args = [100, 1_000_000], sample_count = 20, sample_size = 1)]
fn scan(bencher: Bencher<'_, '_>, rows: u64) {
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let (ask, requests) = mpsc::channel();
    let (done, answers) = mpsc::channel();
    let asked = Mutex::new(Some(Asked { requests, done }));
    let plugin: Arc<dyn Plugin> = Arc::new(Scans { manifest: manifest(), rows, asked });
    // Each event is passed to one call. The last call scans.
    let list = event_list(rows.div_ceil(CALL_ROWS) + 1, 0);
    let config = EngineConfig { commit_bytes: usize::MAX, ..EngineConfig::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let options = FoldOptions::batches_of(1);
            fold(&plugin, &list, list.partition(), &stores, &config, options, &mut |_| ())
                .map(|folded| assert!(folded.halted.is_none() && folded.parked.is_empty()))
                .expect("the fold ends");
        });
        bencher.counter(ItemsCount::new(SCANS)).bench_local(|| {
            ask.send(()).expect("the call waits");
            answers.recv().expect("the call answers");
        });
        drop(ask);
    });
}

/// Measures a log with few events: each event moves the watermark by a tick, and nothing is due.
#[divan::bench(args = [1, 4_096], sample_count = 20, sample_size = 1)]
fn tick(bencher: Bencher<'_, '_>, batch_ticks_max: usize) {
    const EVENTS: u64 = 20_000;
    let list = event_list(EVENTS, 1);
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let time = EventTime { allowed_lateness_us: 0, tick_us: 1_000_000 };
    let plugin = putting(Manifest { event_time: Some(time), ..manifest() });
    let config = EngineConfig { batch_ticks_max, ..EngineConfig::default() };
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let options = FoldOptions::batches_of(16_384);
        let folded = fold(&plugin, &list, list.partition(), &stores, &config, options, &mut |_| ());
        assert_eq!(folded.expect("the fold ends").applied, EVENTS);
    });
}
