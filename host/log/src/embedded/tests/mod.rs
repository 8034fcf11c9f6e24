//! Tests the whole embedded log, on real files.

#![allow(clippy::unwrap_used, reason = "tests")]

mod append;
mod faults;
mod figures;
mod formats;
mod imports;
mod incarnations;
mod reading;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use lantern_core::{
    Appended, CloseLog as _, Event, Events, Heartbeats as _, Log, LogError, LogMaintenance as _,
    LogRead, Offset, PartitionId, Timestamp, TypeFilter,
};

use super::{EmbeddedLog, LogConfig, tables};

pub(super) const P0: PartitionId = PartitionId(0);

/// A folder with the file of a log, and a clock that the test sets.
pub(super) struct LogFolder {
    pub(super) folder: tempfile::TempDir,
    clock: Arc<AtomicI64>,
}

impl LogFolder {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(AtomicI64::new(1_000_000)) }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("log.redb")
    }

    pub(super) fn open(&self, config: &LogConfig) -> EmbeddedLog {
        let (file, clock) = (self.file(), Arc::clone(&self.clock));
        let open = Arc::new(move || redb::Database::create(&file));
        let now = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
        EmbeddedLog::start(open, config.clone(), Some(&self.file()), now).unwrap()
    }

    pub(super) fn set_clock(&self, seconds: i64) -> Timestamp {
        self.clock.store(seconds * 1_000_000, Ordering::SeqCst);
        Timestamp(seconds * 1_000_000)
    }
}

/// Returns a configuration with small chunks.
pub(super) fn small() -> LogConfig {
    LogConfig {
        chunk_bytes: 4_096,
        chunk_events_max: 64,
        dedup_window_events: 10_000,
        disk_reserve_bytes: 0,
        ..LogConfig::default()
    }
}

pub(super) fn event(id: &str, kind: &str, subject: &str, time: i64) -> Event {
    Event {
        id: id.into(),
        source: "shop".into(),
        kind: kind.into(),
        subject: subject.into(),
        time: Timestamp(time),
        data: format!("{{\"n\":\"{id}\"}}").into_bytes(),
        ..Event::default()
    }
}

/// Creates the events `from..to` of type `t`. The number of each event is its id and its time.
pub(super) fn numbered(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|n| event(&n.to_string(), "t", "s", n.cast_signed() + 1)).collect()
}

pub(super) fn columns(events: &[Event]) -> Events {
    let mut columns = Events::new();
    for event in events {
        assert!(columns.push(&event.as_ref()));
    }
    columns
}

/// Starts an append. The channel that it returns receives the result.
pub(super) fn start(log: &EmbeddedLog, events: &[Event]) -> Receiver<Result<Appended, LogError>> {
    let (send, receive) = channel();
    log.append(columns(events), Box::new(move |result| send.send(result).unwrap()));
    receive
}

pub(super) fn append(log: &EmbeddedLog, events: &[Event]) -> Result<Appended, LogError> {
    start(log, events).recv().unwrap()
}

/// Reads a partition from `from` on, and checks that offsets have no gaps.
pub(super) fn read_from(log: &EmbeddedLog, partition: PartitionId, from: Offset) -> Vec<Event> {
    let (mut next, mut all) = (from, Vec::new());
    loop {
        match log.read(partition, next, &TypeFilter::everything()).unwrap() {
            LogRead::Chunk(chunk) => {
                assert!(chunk.offset(0) <= next && next < chunk.end());
                let start = chunk.index_of(next);
                all.extend((start..chunk.events.len()).map(|i| chunk.events.get(i).to_owned()));
                next = chunk.end();
            }
            LogRead::Skipped { next: after } => panic!("skipped from {next} to {after}"),
            LogRead::Pending => panic!("it never has one wait"),
            LogRead::End => {
                assert_eq!(next, log.bounds(partition).unwrap().end);
                return all;
            }
        }
    }
}

pub(super) fn read_all(log: &EmbeddedLog, partition: PartitionId) -> Vec<Event> {
    read_from(log, partition, log.bounds(partition).unwrap().start)
}

/// Returns the redb database of the log, so that a test can damage it.
pub(super) fn raw(folder: &LogFolder) -> redb::Database {
    redb::Database::create(folder.file()).unwrap()
}
