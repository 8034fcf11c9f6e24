//! Finds changed pairs by the hash of their key.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use lantern_core::PairSpan;

/// One hasher for all layers, so that a key is hashed once for all of them.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The hash of `key`, the same for every [`KeyIndex`].
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// The pairs in a buffer of bytes, found by the hash of their key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIndex {
    /// For each pair the lower half of its hash and its index in `pairs`.
    slots: HashTable<(u32, u32)>,
    /// The pairs with the hash of their key, in no order.
    pairs: Vec<(u64, PairSpan)>,
}

#[expect(clippy::cast_possible_truncation, reason = "half of it will do")]
fn half(hash: u64) -> u32 {
    hash as u32
}

impl KeyIndex {
    /// The index of `key` in [`KeyIndex::pairs`].
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8], hash: u64, key: &[u8]) -> Option<usize> {
        let same = |(part, index): &(u32, u32)| {
            *part == half(hash) && self.pairs[*index as usize].1.key(bytes) == key
        };
        self.slots.find(hash, same).map(|(_, index)| *index as usize)
    }

    /// Whether there may be a pair with this hash. False positives are possible.
    pub(crate) fn has_alike(&self, hash: u64) -> bool {
        self.slots.find(hash, |(part, _)| *part == half(hash)).is_some()
    }

    /// All pairs, each with the hash of its key, in no order.
    pub(crate) fn pairs(&self) -> &[(u64, PairSpan)] {
        &self.pairs
    }

    /// The pair at `index`.
    pub(crate) fn pair(&self, index: usize) -> PairSpan {
        self.pairs[index].1
    }

    /// Replaces the pair at `index` by one with the same key.
    pub(crate) fn set_pair(&mut self, index: usize, pair: PairSpan) {
        self.pairs[index].1 = pair;
    }

    /// The number of pairs that fit without a further allocation.
    pub(crate) fn capacity(&self) -> usize {
        self.pairs.capacity()
    }

    /// Adds a pair whose key is not in the index yet.
    pub(crate) fn add(&mut self, hash: u64, pair: PairSpan) {
        let Self { slots, pairs } = self;
        let index = u32::try_from(pairs.len()).expect("a commit has far fewer pairs");
        pairs.push((hash, pair));
        slots.insert_unique(hash, (half(hash), index), |(_, pair)| pairs[*pair as usize].0);
    }

    /// Removes all pairs and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.pairs.clear();
    }
}
