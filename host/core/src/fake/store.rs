//! Implements the states of shards in memory, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::{
    KeyRange, Pairs, ReadStore, ShardId, ShardStore, Space, StateStores, StoreError, VersionId,
    Writes,
};

type Tables = BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The states of shards in memory. When a shard is opened again, it has the state of its last
/// commit. So a test can simulate a crash: it drops the engine and creates another one.
#[derive(Default)]
pub struct MemoryStores {
    shards: Mutex<BTreeMap<ShardId, Arc<MemoryShard>>>,
    open_faults: Mutex<VecDeque<StoreError>>,
}

impl MemoryStores {
    /// Creates a store without states.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the state of `shard`, so that a test can inspect it or make it fail. It is created
    /// if there is none.
    #[must_use]
    pub fn shard(&self, shard: &ShardId) -> Arc<MemoryShard> {
        Arc::clone(lock(&self.shards).entry(shard.clone()).or_default())
    }

    /// Returns the shards that were ever opened and not removed.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        lock(&self.shards).keys().cloned().collect()
    }

    /// Resets every state to its last durable commit, as a crash does.
    pub fn crash(&self) {
        lock(&self.shards).values().for_each(|shard| shard.crash());
    }

    /// Makes a later `open` fail with `error`. If this is called several times, the errors apply to
    /// consecutive calls.
    pub fn fail_next_open(&self, error: StoreError) {
        lock(&self.open_faults).push_back(error);
    }
}

impl StateStores for MemoryStores {
    fn open(&self, shard: &ShardId) -> Result<Arc<dyn ShardStore>, StoreError> {
        match lock(&self.open_faults).pop_front() {
            Some(fault) => Err(fault),
            None => Ok(self.shard(shard)),
        }
    }

    fn scratch(&self) -> Result<Arc<dyn ShardStore>, StoreError> {
        Ok(Arc::<MemoryShard>::default())
    }

    fn remove(
        &self,
        projection: &str,
        version: &VersionId,
        rebuild: u64,
    ) -> Result<(), StoreError> {
        lock(&self.shards).retain(|id, _| {
            id.projection != projection || id.version != *version || id.rebuild != rebuild
        });
        Ok(())
    }
}

/// One shard's state in memory.
#[derive(Default)]
pub struct MemoryShard {
    /// The tables, which snapshots share. The first commit after a snapshot copies them.
    tables: Mutex<Arc<Tables>>,
    /// The state of the last durable commit, if later commits are not durable.
    durable: Mutex<Option<Arc<Tables>>>,
    faults: Mutex<Faults>,
    before_commit: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Default)]
struct Faults {
    commits_tried: u64,
    commits: BTreeMap<u64, StoreError>,
    reads: VecDeque<StoreError>,
}

impl MemoryShard {
    /// Makes a commit fail with `error` and write nothing. First, `before` further commits succeed;
    /// with 0, the next commit fails.
    pub fn fail_commit(&self, before: u64, error: StoreError) {
        let mut faults = lock(&self.faults);
        let nth = faults.commits_tried + before;
        faults.commits.insert(nth, error);
    }

    /// Calls `act` at the beginning of each commit. The commit waits until `act` returns.
    pub fn before_commit(&self, act: impl Fn() + Send + 'static) {
        *lock(&self.before_commit) = Some(Box::new(act));
    }

    /// Makes the next read fail with `error`. If this is called several times, the errors apply to
    /// consecutive reads. Reads of snapshots do not fail and are not counted.
    pub fn fail_next_read(&self, error: StoreError) {
        lock(&self.faults).reads.push_back(error);
    }

    /// Returns how many commits were tried, including failed ones.
    #[must_use]
    pub fn commits_tried(&self) -> u64 {
        lock(&self.faults).commits_tried
    }

    /// Returns the state of the last commit. Reads of it do not fail.
    #[must_use]
    pub fn peek(&self) -> Box<dyn ReadStore> {
        Box::new(Snapshot(Arc::clone(&lock(&self.tables))))
    }

    /// Returns the state of the last durable commit. Reads of it do not fail, as with
    /// [`MemoryShard::peek`].
    #[must_use]
    pub fn peek_durable(&self) -> Box<dyn ReadStore> {
        match &*lock(&self.durable) {
            Some(tables) => Box::new(Snapshot(Arc::clone(tables))),
            None => self.peek(),
        }
    }

    fn crash(&self) {
        if let Some(durable) = lock(&self.durable).take() {
            *lock(&self.tables) = durable;
        }
    }

    /// Cancels all failures that a test has requested.
    pub fn clear_faults(&self) {
        let mut faults = lock(&self.faults);
        faults.commits.clear();
        faults.reads.clear();
    }

    fn current(&self) -> Result<Arc<Tables>, StoreError> {
        match lock(&self.faults).reads.pop_front() {
            Some(fault) => Err(fault),
            None => Ok(Arc::clone(&lock(&self.tables))),
        }
    }
}

impl ReadStore for MemoryShard {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Snapshot(self.current()?).get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        Snapshot(self.current()?).scan(space, range, limit, reverse)
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        Snapshot(self.current()?).spaces()
    }
}

impl MemoryShard {
    fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        if let Some(act) = &*lock(&self.before_commit) {
            act();
        }
        let fault = {
            let mut faults = lock(&self.faults);
            let nth = faults.commits_tried;
            faults.commits_tried += 1;
            faults.commits.remove(&nth)
        };
        if let Some(fault) = fault {
            return Err(fault);
        }
        let mut tables = lock(&self.tables);
        let tables = Arc::make_mut(&mut tables);
        for (space, rows) in writes {
            let table = tables.entry(*space).or_default();
            for (key, value) in rows {
                match value {
                    Some(value) => table.insert(key.to_vec(), value.to_vec()),
                    None => table.remove(key),
                };
            }
        }
        tables.retain(|_, table| !table.is_empty());
        Ok(())
    }
}

impl ShardStore for MemoryShard {
    fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes)?;
        *lock(&self.durable) = None;
        Ok(())
    }

    fn commit_unsynced(&self, writes: &Writes) -> Result<(), StoreError> {
        let before = Arc::clone(&lock(&self.tables));
        self.write(writes)?;
        lock(&self.durable).get_or_insert(before);
        Ok(())
    }

    fn has_unsynced(&self) -> bool {
        lock(&self.durable).is_some()
    }

    fn snapshot(&self) -> Result<Box<dyn ReadStore>, StoreError> {
        Ok(Box::new(Snapshot(self.current()?)))
    }

    fn disk_bytes(&self) -> u64 {
        let tables = lock(&self.tables);
        let rows = tables.values().flatten();
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

struct Snapshot(Arc<Tables>);

impl ReadStore for Snapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&space).and_then(|table| table.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Pairs, StoreError> {
        let Some(table) = self.0.get(&space).filter(|_| !range.is_empty()) else {
            return Ok(Pairs::new());
        };
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = table.range::<Vec<u8>, _>((Bound::Included(&range.start), end));
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(if reverse {
            found.rev().take(limit).map(pair).collect()
        } else {
            found.take(limit).map(pair).collect()
        })
    }

    fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        Ok(self.0.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PartitionId, TableId};

    const ROWS: Space = Space::Table(TableId(0));

    fn put(key: &str, value: Option<&str>) -> Writes {
        let value = value.map(|v| v.as_bytes().to_vec());
        Writes::from([(ROWS, [(key.as_bytes().to_vec(), value)].into_iter().collect())])
    }

    #[test]
    fn a_state_outlives_its_users_until_it_is_removed_and_fails_on_request() {
        let stores = MemoryStores::new();
        let id = ShardId {
            projection: "p".into(),
            version: VersionId("v".into()),
            rebuild: 0,
            partition: PartitionId(0),
        };
        let full = || StoreError::Full("told to".into());
        stores.shard(&id).fail_commit(1, full());
        let shard = stores.open(&id).unwrap();
        shard.commit(&put("a", Some("1"))).unwrap();
        let before = shard.snapshot().unwrap();
        assert!(shard.commit(&put("a", Some("2"))).is_err());
        assert_eq!(shard.get(ROWS, b"a").unwrap().unwrap(), b"1");
        shard.commit(&put("a", None)).unwrap();
        assert_eq!(before.get(ROWS, b"a").unwrap().unwrap(), b"1");
        assert!(shard.spaces().unwrap().is_empty());
        shard.commit(&put("b", Some("3"))).unwrap();
        drop(shard);
        stores.fail_next_open(full());
        assert!(stores.open(&id).is_err());
        let again = stores.open(&id).unwrap();
        assert_eq!(again.scan(ROWS, &KeyRange::all(), 9, true).unwrap().len(), 1);
        again.commit_unsynced(&put("c", Some("4"))).unwrap();
        stores.crash();
        assert_eq!(again.get(ROWS, b"c").unwrap(), None);
        again.commit_unsynced(&put("c", Some("4"))).unwrap();
        again.commit(&put("d", Some("5"))).unwrap();
        stores.crash();
        assert_eq!(again.get(ROWS, b"c").unwrap().unwrap(), b"4", "a later one was durable");
        stores.remove("p", &id.version, 0).unwrap();
        assert!(stores.open(&id).unwrap().spaces().unwrap().is_empty());
    }
}
