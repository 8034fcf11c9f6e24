//! Implements a cache for rows of tables that are stored in runs. It finds rows by the hash of
//! their key. Without the cache, a read must search several runs.
//!
//! The cache contains rows as of the last commit. If there is room, it contains all rows of a
//! table: a row that is not in the cache then does not exist. Otherwise it contains the rows that
//! were read or written recently.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use lantern_core::{ReadValues, TableId};

use crate::row_arena::{RowAddress, RowArena};

/// Decides when the whole table is loaded: after `rows / 32` misses. Up to then, the misses have
/// taken about as long as one scan of the whole table.
const READ_BEFORE_ALL: u64 = 32;

/// The memory limit for the row caches of all states together.
pub(crate) struct RowCacheBudget {
    bytes: usize,
    /// The number of states that have rows in memory. Each state gets an equal share of the limit.
    states: AtomicUsize,
}

impl RowCacheBudget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, states: AtomicUsize::new(0) })
    }

    fn share(&self) -> usize {
        self.bytes / self.states.load(Ordering::Relaxed).max(1)
    }
}

/// The number of rows that are looked up before the first of them is changed.
const SET_AT_ONCE: usize = 32;

/// A changed row: its key and its new value; `None` if the row is deleted.
type RowChange<'a> = (&'a [u8], Option<&'a [u8]>);

/// What the cache knows about the row under a key.
pub(crate) enum RowKnowledge {
    Present(Vec<u8>),
    /// The row does not exist.
    Absent,
    /// The cache does not know whether the row exists. If the caller reads the row from the file,
    /// it can use this stamp to add the row to the cache.
    Unknown(CommitStamp),
}

/// Identifies the commit at which a value was read: the number of commits until then. After a later
/// commit the value may be outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitStamp(u64);

/// The row cache of one state.
pub(crate) struct RowCache {
    budget: Arc<RowCacheBudget>,
    tables: BTreeMap<TableId, CacheEntries>,
    commits: u64,
    hasher: RandomState,
}

#[derive(Default)]
struct CacheEntries {
    index: HashTable<RowLocation>,
    rows: RowArena,
    /// Whether the cache contains all rows of the table.
    whole: bool,
    /// The number of rows that were read from the file because the cache did not contain them.
    misses: u64,
    /// Whether the table, or one of its rows, did not fit into the cache. If so, the cache does not
    /// try again to load the whole table.
    too_large: bool,
}

/// The address of a row, and the hash of its key.
#[derive(Clone, Copy)]
struct RowLocation {
    hash: u32,
    address: RowAddress,
}

/// Spreads a hash of 32 bits over 64 bits. The hash table needs both ends: it chooses the bucket by
/// the low bits, and a tag by the high bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl RowCache {
    pub(crate) fn new(budget: Arc<RowCacheBudget>) -> Self {
        Self { budget, tables: BTreeMap::new(), commits: 0, hasher: RandomState::default() }
    }

    /// Returns what the cache knows about the row under `key`.
    pub(crate) fn get(&self, table: TableId, key: &[u8]) -> RowKnowledge {
        let nothing = RowKnowledge::Unknown(CommitStamp(self.commits));
        let Some(entries) = self.tables.get(&table) else { return nothing };
        let hash = hash(&self.hasher, key);
        match entries.find(hash, key) {
            Some(address) => RowKnowledge::Present(entries.rows.value(address).to_vec()),
            None if entries.whole => RowKnowledge::Absent,
            None => nothing,
        }
    }

    /// Sets the values of those `keys` that have no value in `values` yet and whose rows are
    /// cached. Each lookup waits for memory three times. The rows are looked up together, so the
    /// waits of several lookups overlap.
    pub(crate) fn get_many(&self, table: TableId, keys: &[&[u8]], values: &mut ReadValues) {
        let Some(entries) = self.tables.get(&table) else { return };
        let sought: Vec<(usize, u32)> = keys
            .iter()
            .enumerate()
            .filter(|(index, _)| !values.is_known(*index))
            .map(|(index, key)| (index, hash(&self.hasher, key)))
            .collect();
        let alike: Vec<Option<RowAddress>> =
            sought.iter().map(|(_, hash)| entries.find_alike(*hash)).collect();
        entries.touch(alike.iter().copied().flatten());
        for ((number, hash), row) in sought.into_iter().zip(alike) {
            let key = keys[number];
            let row = match row {
                Some(row) if entries.rows.key(row) == key => Some(row),
                // This is another row with the same hash.
                Some(_) => entries.find(hash, key),
                None => None,
            };
            if row.is_some() || entries.whole {
                values.set(number, row.map(|row| entries.rows.value(row)));
            }
        }
    }

    /// Adds a row that was read from the file to the cache, unless there was a commit since
    /// `stamp`. `rows_most` is an upper bound for the number of rows of the table. Returns whether
    /// the whole table should be loaded.
    pub(crate) fn read(
        &mut self,
        table: TableId,
        key: &[u8],
        value: Option<&[u8]>,
        rows_most: u64,
        stamp: CommitStamp,
    ) -> bool {
        if stamp != CommitStamp(self.commits) {
            return false;
        }
        let hash = hash(&self.hasher, key);
        let entries = self.entries_of(table);
        entries.misses += 1;
        let all = !entries.too_large && entries.misses >= rows_most / READ_BEFORE_ALL;
        entries.set(hash, key, value);
        self.evict();
        all
    }

    /// Begins to load all rows of a table. [`RowCache::load`] then adds them to the cache.
    pub(crate) fn loading(&self) -> TableLoad {
        TableLoad {
            entries: CacheEntries::default(),
            hasher: self.hasher.clone(),
            share: self.budget.share(),
            stamp: CommitStamp(self.commits),
        }
    }

    /// Adds all rows of a table to the cache, unless there was a commit since they were read.
    pub(crate) fn load(&mut self, table: TableId, loaded: TableLoad) {
        let entries = self.entries_of(table);
        if loaded.is_full() || loaded.entries.too_large {
            entries.too_large = true;
        } else if loaded.stamp == CommitStamp(self.commits) {
            let entries = CacheEntries { whole: true, ..loaded.entries };
            self.tables.insert(table, entries);
            self.evict();
        }
    }

    /// Notes that a new commit was made. Rows that were read from the file before this commit can
    /// no longer be added to the cache.
    pub(crate) fn begin_commit(&mut self) {
        self.commits += 1;
    }

    /// Applies `changes` of the last commit to the cached rows of `table`. Returns `false` if there
    /// was nothing to apply. The rows are looked up together, as in [`RowCache::get_many`].
    pub(crate) fn committed<'a>(
        &mut self,
        table: TableId,
        changes: impl Iterator<Item = RowChange<'a>>,
    ) -> bool {
        let Some(entries) = self.tables.get_mut(&table) else { return false };
        let changes: Vec<(u32, RowChange<'a>)> =
            changes.map(|change| (hash(&self.hasher, change.0), change)).collect();
        for changes in changes.chunks(SET_AT_ONCE) {
            entries.touch(changes.iter().filter_map(|(hash, _)| entries.find_alike(*hash)));
            for (hash, (key, value)) in changes {
                entries.set(*hash, key, *value);
            }
        }
        self.evict();
        !changes.is_empty()
    }

    fn entries_of(&mut self, table: TableId) -> &mut CacheEntries {
        if self.tables.is_empty() {
            self.budget.states.fetch_add(1, Ordering::Relaxed);
        }
        self.tables.entry(table).or_default()
    }

    /// Removes tables from the cache, the largest first, until this state is within its share.
    fn evict(&mut self) {
        let share = self.budget.share();
        while self.tables.values().map(CacheEntries::all_bytes).sum::<usize>() > share {
            let largest = self.tables.values_mut().max_by_key(|entries| entries.all_bytes());
            let Some(entries) = largest.filter(|entries| !entries.index.is_empty()) else { return };
            *entries = CacheEntries {
                too_large: entries.whole || entries.too_large,
                ..CacheEntries::default()
            };
        }
    }
}

impl Drop for RowCache {
    fn drop(&mut self) {
        if !self.tables.is_empty() {
            self.budget.states.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl CacheEntries {
    fn all_bytes(&self) -> usize {
        self.rows.bytes() + self.index.allocation_size()
    }

    fn find(&self, hash: u32, key: &[u8]) -> Option<RowAddress> {
        let same = |row: &RowLocation| row.hash == hash && self.rows.key(row.address) == key;
        self.index.find(spread(hash), same).map(|row| row.address)
    }

    /// Notes that a row could not be cached. After this an absent key no longer proves that the row
    /// does not exist.
    fn mark_incomplete(&mut self) {
        (self.whole, self.too_large) = (false, true);
    }

    /// Returns a row whose key has this hash. In nearly all cases it is the wanted row.
    #[inline]
    fn find_alike(&self, hash: u32) -> Option<RowAddress> {
        self.index.find(spread(hash), |row| row.hash == hash).map(|row| row.address)
    }

    /// Reads `rows` once, which loads them into the processor's cache. The reads overlap, so all of
    /// them together wait about as long for memory as a single read.
    fn touch(&self, rows: impl Iterator<Item = RowAddress>) {
        std::hint::black_box(rows.map(|row| self.rows.key(row).len()).sum::<usize>());
    }

    fn set(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) {
        use hashbrown::hash_table::Entry;

        let Self { index, rows, .. } = self;
        let same = |row: &RowLocation| row.hash == hash && rows.key(row.address) == key;
        let entry = index.entry(spread(hash), same, |row| spread(row.hash));
        match (entry, value) {
            (Entry::Occupied(mut row), Some(value)) => {
                let address = row.get().address;
                if !rows.replace(address, value) {
                    rows.remove(address);
                    match rows.add(key, value) {
                        Some(address) => row.get_mut().address = address,
                        None => {
                            row.remove();
                            self.mark_incomplete();
                        }
                    }
                }
            }
            (Entry::Vacant(vacant), Some(value)) => match rows.add(key, value) {
                Some(address) => drop(vacant.insert(RowLocation { hash, address })),
                None => self.mark_incomplete(),
            },
            (Entry::Occupied(row), None) => {
                let (row, _) = row.remove();
                rows.remove(row.address);
            }
            (Entry::Vacant(_), None) => {}
        }
    }
}

/// The rows of a table that are loaded for the cache.
pub(crate) struct TableLoad {
    entries: CacheEntries,
    hasher: RandomState,
    share: usize,
    stamp: CommitStamp,
}

impl TableLoad {
    /// Adds a row. Returns `false` if there is not enough memory left.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.entries.set(hash(&self.hasher, key), key, Some(value));
        !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.entries.all_bytes() > self.share
    }
}

#[expect(clippy::cast_possible_truncation, reason = "half of it will do")]
fn hash(hasher: &RandomState, key: &[u8]) -> u32 {
    hasher.hash_one(key) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1);

    fn stamp(rows: &RowCache, key: &[u8]) -> CommitStamp {
        match rows.get(TABLE, key) {
            RowKnowledge::Unknown(stamp) => stamp,
            _ => panic!("it is known"),
        }
    }

    fn commit(rows: &mut RowCache, key: &[u8], value: &[u8]) {
        rows.begin_commit();
        rows.committed(TABLE, std::iter::once((key, Some(value))));
    }

    fn value(rows: &RowCache, key: &[u8]) -> Option<Vec<u8>> {
        match rows.get(TABLE, key) {
            RowKnowledge::Present(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn rows_read_before_a_commit_are_not_cached_after_it() {
        let mut rows = RowCache::new(RowCacheBudget::new(1 << 20));
        let before = stamp(&rows, b"a");
        let mut loading = rows.loading();
        assert!(loading.add(b"a", b"old"));
        commit(&mut rows, b"a", b"new");
        rows.read(TABLE, b"a", Some(b"old"), 1_000, before);
        rows.load(TABLE, loading);
        assert_eq!(value(&rows, b"a"), None);
        let now = stamp(&rows, b"a");
        rows.read(TABLE, b"a", Some(b"new"), 1_000, now);
        assert_eq!(value(&rows, b"a").as_deref(), Some(&b"new"[..]));
        commit(&mut rows, b"a", b"newer");
        assert_eq!(value(&rows, b"a").as_deref(), Some(&b"newer"[..]));
    }

    #[test]
    fn a_row_that_cannot_be_cached_is_not_reported_as_absent() {
        let long = vec![b'x'; 1 << 16];
        for loaded in [false, true] {
            let mut rows = RowCache::new(RowCacheBudget::new(1 << 30));
            let mut loading = rows.loading();
            assert!(loading.add(b"a", b"1") && loading.add(b"b", b"2"));
            assert!(!loaded || loading.add(&long, b"3"));
            rows.load(TABLE, loading);
            if !loaded {
                assert!(matches!(rows.get(TABLE, &long), RowKnowledge::Absent));
                commit(&mut rows, &long, b"3");
                commit(&mut rows, b"a", &long);
                assert_eq!(value(&rows, b"a"), Some(long.clone()));
                assert_eq!(value(&rows, b"b").as_deref(), Some(&b"2"[..]));
            }
            let mut values = ReadValues::default();
            values.begin(2);
            rows.get_many(TABLE, &[&long, b"none"], &mut values);
            assert!(!values.is_known(0) && !values.is_known(1));
            assert!(matches!(rows.get(TABLE, &long), RowKnowledge::Unknown(_)));
        }
    }

    #[test]
    fn a_whole_table_is_cached_until_it_outgrows_its_share() {
        let budget = RowCacheBudget::new(64 << 10);
        let mut rows = RowCache::new(budget.clone());
        let mut loading = rows.loading();
        assert!((0..100_u32).all(|n| loading.add(&n.to_be_bytes(), b"x")));
        rows.load(TABLE, loading);
        assert!(matches!(rows.get(TABLE, b"none"), RowKnowledge::Absent));
        (0..4_000_u32).for_each(|n| commit(&mut rows, &n.to_be_bytes(), &[b'y'; 40]));
        assert!(rows.tables.values().all(|entries| entries.all_bytes() <= 64 << 10));
        assert!(matches!(rows.get(TABLE, b"none"), RowKnowledge::Unknown(_)));
        // The table was too large once, so it is not loaded again.
        let mut reads = (0..1_000_u32).map(|n| {
            let key = n.to_le_bytes();
            let stamp = CommitStamp(rows.commits);
            rows.read(TABLE, &key, Some(b"z"), 1_000, stamp)
        });
        assert!(!reads.any(|all| all));
        // A second state takes half of the share of the first state.
        let mut other = RowCache::new(budget);
        commit(&mut other, b"a", b"b");
        let stamp = CommitStamp(other.commits);
        other.read(TABLE, b"a", Some(b"b"), 1_000, stamp);
        assert_eq!((rows.budget.share(), other.budget.share()), (32 << 10, 32 << 10));
        drop(other);
        assert_eq!(rows.budget.share(), 64 << 10);
    }
}
