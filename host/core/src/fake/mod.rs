//! Implements every port in memory, with faults on demand, for the tests of other crates. The
//! module needs the feature `fake`, which no release enables.
//!
//! Nothing here uses a clock, a thread or a file: a test that calls it from one thread gets the
//! same result in each run.

mod log;
mod log_services;
mod plugin;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use log::{AppendClock, MemoryLog};
pub use log_services::{MemoryDeadLetters, MemoryOffsets};
pub use plugin::{NativePlugin, host_error};
pub use store::{MemoryShard, MemoryStores};

use crate::{
    Catalog, Clock, CommitSink, ProjectionRecord, PublishedCommit, Random, StoreError, Timestamp,
};

/// Locks a mutex even if a thread panicked while it held the lock, so that a test can
/// still inspect the contents.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A catalogue in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    records: Mutex<BTreeMap<String, ProjectionRecord>>,
    write_fault: Mutex<Option<StoreError>>,
}

impl MemoryCatalog {
    /// Creates a catalogue without projections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `save` or `delete` fail with `error` and change nothing.
    pub fn fail_next_write(&self, error: StoreError) {
        *lock(&self.write_fault) = Some(error);
    }

    fn write_fault(&self) -> Result<(), StoreError> {
        lock(&self.write_fault).take().map_or(Ok(()), Err)
    }
}

impl Catalog for MemoryCatalog {
    fn projections(&self) -> Result<Vec<ProjectionRecord>, StoreError> {
        Ok(lock(&self.records).values().cloned().collect())
    }

    fn save(&self, record: &ProjectionRecord) -> Result<(), StoreError> {
        self.write_fault()?;
        lock(&self.records).insert(record.key(), record.clone());
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.write_fault()?;
        lock(&self.records).remove(name);
        Ok(())
    }
}

/// A clock that moves only by [`ManualClock::advance`].
#[derive(Debug, Default)]
pub struct ManualClock {
    /// The monotonic time, and the time of day at the monotonic time zero.
    now: Mutex<(Duration, Timestamp)>,
}

impl ManualClock {
    /// Returns a clock at monotonic time zero, with `wall` as the time of day.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        Self { now: Mutex::new((Duration::ZERO, wall)) }
    }

    /// Advances the monotonic time and the time of day by `time`.
    pub fn advance(&self, time: Duration) {
        lock(&self.now).0 += time;
    }

    /// Sets the time of day; monotonic time does not change.
    pub fn set_wall(&self, wall: Timestamp) {
        let mut now = lock(&self.now);
        now.1 = Timestamp(wall.0.saturating_sub(micros(now.0)));
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        lock(&self.now).0
    }

    fn wall(&self) -> Timestamp {
        let (passed, start) = *lock(&self.now);
        Timestamp(start.0.saturating_add(micros(passed)))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Returns 0, 1, 2 and so on, so that no number is drawn twice.
#[derive(Debug, Default)]
pub struct CountingRandom(std::sync::atomic::AtomicU64);

impl Random for CountingRandom {
    fn draw(&self) -> u64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }
}

/// A recorded call of a method of [`CommitSink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The engine called [`CommitSink::committed`].
    Committed(Arc<PublishedCommit>),
    /// The engine called [`CommitSink::activated`].
    Activated {
        /// The name of the projection.
        projection: String,
        /// The new epoch; `None` if the projection was deleted.
        epoch: Option<String>,
    },
}

/// A sink that records all calls, in order.
#[derive(Debug, Default)]
pub struct RecordingSink {
    calls: Mutex<Vec<Published>>,
}

impl RecordingSink {
    /// Returns a sink that has recorded no calls.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Published> {
        lock(&self.calls).clone()
    }

    /// Returns all commits so far.
    #[must_use]
    pub fn commits(&self) -> Vec<Arc<PublishedCommit>> {
        let commit = |call: &Published| match call {
            Published::Committed(commit) => Some(Arc::clone(commit)),
            Published::Activated { .. } => None,
        };
        lock(&self.calls).iter().filter_map(commit).collect()
    }

    /// Returns all calls since the last `take`.
    #[must_use]
    pub fn take(&self) -> Vec<Published> {
        std::mem::take(&mut lock(&self.calls))
    }
}

impl CommitSink for RecordingSink {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        lock(&self.calls).push(Published::Committed(Arc::clone(commit)));
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        lock(&self.calls).push(Published::Activated {
            projection: projection.to_owned(),
            epoch: epoch.map(str::to_owned),
        });
    }
}
