//! Rows of large tables in memory, found by the hash of their key: a table in
//! runs may hold a row in any of them.
//!
//! What is kept is what the last commit says. A whole table is kept if there
//! is room for it, and then an absent key proves that the row is missing; else what was
//! read or written lately.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use lantern_core::{ReadValues, TableId};

use crate::row_arena::{RowAddress, RowArena};

/// Load the whole table after `rows / 32` misses; by then the misses have cost about
/// one full scan.
const READ_BEFORE_ALL: u64 = 32;

/// What rows in memory may take, of all states together.
pub(crate) struct RowCacheBudget {
    bytes: usize,
    /// How many states have rows in memory; each gets as much as the others.
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

/// How many rows are looked up together before they are changed.
const SET_AT_ONCE: usize = 32;

/// A key and its new value; none if it is deleted.
type RowChange<'a> = (&'a [u8], Option<&'a [u8]>);

/// What is known of a row.
pub(crate) enum RowKnowledge {
    Present(Vec<u8>),
    /// There is none.
    Absent,
    /// Nothing; what is read now may be kept under this number.
    Unknown(CommitStamp),
}

/// How many commits there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitStamp(u64);

/// The rows in memory of one state.
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
    /// Whether all rows are here.
    whole: bool,
    /// How many lookups have failed since it was cleared.
    misses: u64,
    /// Whether there was no room for all rows, or for one of them.
    too_large: bool,
}

/// Where a row is stored.
#[derive(Clone, Copy)]
struct RowLocation {
    hash: u32,
    address: RowAddress,
}

/// The hash table takes a bucket from the low bits and a tag from the high bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl RowCache {
    pub(crate) fn new(budget: Arc<RowCacheBudget>) -> Self {
        Self { budget, tables: BTreeMap::new(), commits: 0, hasher: RandomState::default() }
    }

    /// What is known of the row under `key`.
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

    /// Finds what is known of those of `keys` that `values` lacks. They are looked
    /// for side by side: one alone waits for memory three times.
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
                // Another one with this hash.
                Some(_) => entries.find(hash, key),
                None => None,
            };
            if row.is_some() || entries.whole {
                values.set(number, row.map(|row| entries.rows.value(row)));
            }
        }
    }

    /// Keeps what was read of a table that has at most `rows` rows, unless there
    /// was a commit since `stamp`. Returns whether all of the table should be read.
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

    /// For all rows of a table, to be kept by [`RowCache::load`].
    pub(crate) fn loading(&self) -> TableLoad {
        TableLoad {
            entries: CacheEntries::default(),
            hasher: self.hasher.clone(),
            share: self.budget.share(),
            stamp: CommitStamp(self.commits),
        }
    }

    /// Keeps all rows of a table, unless there was a commit since they were read.
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

    /// There is a new commit: what was read before is not kept any more.
    pub(crate) fn begin_commit(&mut self) {
        self.commits += 1;
    }

    /// Follows some of the changes of the last commit; says whether there was
    /// anything to follow. They are looked for side by side, as when they are
    /// read.
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

    /// Evicts the rows of the largest tables if there are too many.
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

    /// A row cannot be kept: from now on what is not here may be there.
    fn mark_incomplete(&mut self) {
        (self.whole, self.too_large) = (false, true);
    }

    /// A row with this hash, which is nearly always the one that is meant.
    #[inline]
    fn find_alike(&self, hash: u32) -> Option<RowAddress> {
        self.index.find(spread(hash), |row| row.hash == hash).map(|row| row.address)
    }

    /// Does nothing but to have `rows` at hand: memory is waited for once, and not
    /// for each.
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

/// All rows of a table, while they are read.
pub(crate) struct TableLoad {
    entries: CacheEntries,
    hasher: RandomState,
    share: usize,
    stamp: CommitStamp,
}

impl TableLoad {
    /// Adds a row; `false` if there is no room for more.
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
        // It was too large once, so it is not read whole again and again.
        let mut reads = (0..1_000_u32).map(|n| {
            let key = n.to_le_bytes();
            let stamp = CommitStamp(rows.commits);
            rows.read(TABLE, &key, Some(b"z"), 1_000, stamp)
        });
        assert!(!reads.any(|all| all));
        // A second state halves what the first may take.
        let mut other = RowCache::new(budget);
        commit(&mut other, b"a", b"b");
        let stamp = CommitStamp(other.commits);
        other.read(TABLE, b"a", Some(b"b"), 1_000, stamp);
        assert_eq!((rows.budget.share(), other.budget.share()), (32 << 10, 32 << 10));
        drop(other);
        assert_eq!(rows.budget.share(), 64 << 10);
    }
}
