//! Implements ports with planted bugs that a real host could have. They show that the experiments
//! can fail: each bug must be found by an experiment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lantern_core::{
    AppendDone, Appended, AppendedEvent, Ceiling, CommitSink, EventRef, Events, KeyRange, Log,
    LogError, LogRead, Offset, Pairs, PartitionId, PublishedCommit, ReadStore, ShardId, ShardMeta,
    ShardStore, Space, SpaceWrites, StateStores, StoreError, TypeFilter, VersionId, Writes,
};
use parking_lot::Mutex;

use crate::forward_log::forward_log;

/// A bug that can be planted in the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// The store writes the next offset before the rows, in a separate transaction.
    PositionFirst,
    /// The store reports a failed commit as a success.
    ErrorIgnored,
    /// When a state is opened again, its first timer is missing.
    TimerLost,
    /// The store loses the writes of a retried event.
    RetryLoses,
    /// The store writes the rows of a commit one by one, so that a failure leaves some of them.
    HalfWritten,
    /// Commits that should be durable are not.
    NotDurable,
    /// A commit with emitted events is not durable, so the events are sent too early.
    SentEarly,
    /// The store does not record the highest number that commits without a sync may have reached.
    NoCeiling,
}

/// A bug that can be planted in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// The log skips the first event of a chunk.
    OffByOne,
    /// The log acknowledges an append and does not carry it out.
    AckedEarly,
    /// The log gives events new ids, so that no duplicate is recognized.
    NewIds,
    /// All incarnations of the log look the same.
    OneIncarnation,
    /// Readers get events of another incarnation before the log reports that incarnation.
    IncarnationLate,
    /// The log recognizes duplicates by source and id, whatever their tenant.
    TenantIgnored,
    /// The log reports that it refuses an event only temporarily, although it refuses it
    /// permanently.
    RefusalPasses,
}

/// Stores with one planted bug.
pub struct BadStores {
    inner: Arc<dyn StateStores>,
    what: Stores,
}

struct BadShard {
    inner: Arc<dyn ShardStore>,
    what: Stores,
}

impl BadStores {
    /// Returns `inner` with the planted bug.
    pub fn over<S: StateStores + 'static>(
        inner: Arc<S>,
        what: Option<Stores>,
    ) -> Arc<dyn StateStores> {
        match what {
            Some(what) => Arc::new(Self { inner, what }),
            None => inner,
        }
    }
}

impl StateStores for BadStores {
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError> {
        let inner = self.inner.open(shard)?;
        if self.what == Stores::TimerLost {
            let first = inner.scan(Space::TimersByTime, &KeyRange::all(), 1, false)?;
            let mut writes = Writes::new();
            for (key, _) in first {
                writes.entry(Space::TimersByKey).or_default().insert(&key[8..], None);
                writes.entry(Space::TimersByTime).or_default().insert(&key, None);
            }
            inner.commit(&writes)?;
        }
        Ok(Arc::new(BadShard { inner, what: self.what }))
    }

    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.inner.scratch()
    }

    fn remove(
        &self,
        projection: &str,
        version: &VersionId,
        rebuild: u64,
    ) -> Result<(), StoreError> {
        self.inner.remove(projection, version, rebuild)
    }
}

impl ReadStore for BadShard {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        self.inner.scan(space, range, limit, reverse)
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.inner.spaces()
    }
}

/// How a store commits: durably or without a sync.
type CommitBy = fn(&dyn ShardStore, &Writes) -> Result<(), StoreError>;

impl BadShard {
    fn write(&self, writes: &Writes, commit: CommitBy) -> Result<(), StoreError> {
        let inner = &*self.inner;
        match self.what {
            Stores::PositionFirst => {
                let (position, rows): (Writes, Writes) =
                    writes.clone().into_iter().partition(|(space, _)| *space == Space::Meta);
                commit(inner, &position)?;
                commit(inner, &rows)
            }
            Stores::ErrorIgnored => {
                let _ = commit(inner, writes);
                Ok(())
            }
            Stores::RetryLoses => {
                let freed = |parked: &SpaceWrites| parked.iter().any(|(_, value)| value.is_none());
                let mut writes = writes.clone();
                if writes.get(&Space::Parked).is_some_and(freed) {
                    writes.retain(|space, _| !matches!(space, Space::Table(_)));
                }
                commit(inner, &writes)
            }
            Stores::HalfWritten => {
                for (space, rows) in writes.iter().rev() {
                    commit(inner, &Writes::from([(*space, rows.clone())]))?;
                }
                Ok(())
            }
            Stores::NotDurable => inner.commit_unsynced(writes),
            Stores::SentEarly if writes.contains_key(&Space::Outbox) => {
                inner.commit_unsynced(writes)
            }
            Stores::NoCeiling => {
                let mut writes = writes.clone();
                if let Some(meta) = writes.get_mut(&Space::Meta)
                    && let Some(Some(record)) = meta.get(ShardMeta::KEY)
                    && let Ok(mut record) = ShardMeta::decode(Some(record))
                {
                    record.ceiling = Ceiling::default();
                    let record = serde_json::to_vec(&record).expect("numbers always encode");
                    meta.insert(ShardMeta::KEY, Some(&record));
                }
                commit(inner, &writes)
            }
            Stores::TimerLost | Stores::SentEarly => commit(inner, writes),
        }
    }
}

impl ShardStore for BadShard {
    fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes, |inner, writes| inner.commit(writes))
    }

    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes, |inner, writes| inner.commit_unsynced(writes))
    }

    fn has_unsynced(&self) -> bool {
        self.inner.has_unsynced()
    }

    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError> {
        self.inner.snapshot()
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

/// A log with one planted bug.
pub struct BadLog {
    inner: Arc<dyn Log>,
    what: Logs,
    appends: AtomicU64,
    /// The tenant of each event that was appended, by source and id.
    seen: Mutex<BTreeMap<(String, String), String>>,
    /// The newest incarnation that a caller asked for.
    incarnation: AtomicU64,
}

impl BadLog {
    /// Returns `inner` with the planted bug.
    pub fn over<L: Log + 'static>(inner: Arc<L>, what: Option<Logs>) -> Arc<dyn Log> {
        match what {
            Some(what) => Arc::new(Self {
                inner,
                what,
                appends: AtomicU64::new(0),
                seen: Mutex::default(),
                incarnation: AtomicU64::new(0),
            }),
            None => inner,
        }
    }

    /// Returns `events` with changed tenants: each gets the tenant that first sent an event with
    /// the same source and id.
    fn of_one_tenant(&self, events: &Events) -> Events {
        let mut seen = self.seen.lock();
        let mut same = Events::new();
        for event in events.iter() {
            let name = (event.source.to_owned(), event.id.to_owned());
            let first = seen.entry(name).or_insert_with(|| event.tenant.to_owned());
            same.push(&EventRef { tenant: first, ..event });
        }
        same
    }
}

impl Log for BadLog {
    forward_log!(partitions, bounds, offset_at, on_append);

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        let read = self.inner.read(partition, from, wanted)?;
        match read {
            LogRead::Chunk(chunk)
                if self.what == Logs::OffByOne && from == chunk.offset(0) && from.0 > 0 =>
            {
                Ok(LogRead::Skipped { next: from.next() })
            }
            read => Ok(read),
        }
    }

    fn append(&self, events: Events, done: AppendDone) {
        let number = self.appends.fetch_add(1, Ordering::SeqCst);
        match self.what {
            Logs::AckedEarly if number % 3 == 2 => {
                let event = AppendedEvent {
                    partition: PartitionId(0),
                    offset: Offset(0),
                    duplicate: false,
                    differs: false,
                };
                done(Ok(Appended { events: vec![event; events.len()] }));
            }
            Logs::NewIds => {
                let mut again = Events::new();
                for event in events.iter() {
                    let mut event = event.to_owned();
                    event.id = format!("{}#{number}", event.id);
                    again.push(&event.as_ref());
                }
                self.inner.append(again, done);
            }
            Logs::TenantIgnored => self.inner.append(self.of_one_tenant(&events), done),
            Logs::RefusalPasses => self.inner.append(
                events,
                Box::new(|outcome| {
                    done(outcome.map_err(|error| match error {
                        LogError::Rejected { .. } => {
                            LogError::Unavailable(error.to_string().into())
                        }
                        other => other,
                    }));
                }),
            ),
            _ => self.inner.append(events, done),
        }
    }

    fn incarnation_at(&self, partition: PartitionId, offset: Offset) -> Option<u64> {
        match self.what {
            Logs::OneIncarnation => Some(1),
            Logs::IncarnationLate => {
                let is = self.inner.incarnation_at(partition, offset)?;
                let before = self.incarnation.fetch_max(is, Ordering::SeqCst);
                Some(if before < is && before > 0 { before } else { is })
            }
            _ => self.inner.incarnation_at(partition, offset),
        }
    }
}

/// A sink for commits that loses some of them.
pub struct BadPublish {
    inner: Arc<dyn CommitSink>,
    commits: AtomicU64,
}

impl BadPublish {
    /// Returns `inner`, and plants the bug in it if `bug` is true.
    pub fn over<P: CommitSink + 'static>(inner: Arc<P>, bug: bool) -> Arc<dyn CommitSink> {
        if bug { Arc::new(Self { inner, commits: AtomicU64::new(0) }) } else { inner }
    }
}

impl CommitSink for BadPublish {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        if self.commits.fetch_add(1, Ordering::SeqCst) % 8 != 7 {
            self.inner.committed(commit);
        }
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        self.inner.activated(projection, epoch);
    }
}
