//! Implements an index that finds changed pairs by the hash of their key.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use lantern_core::PairSpan;

/// The hasher that all change sets use, so that a key is hashed only once for all of them.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Returns the hash of `key`. It is the same for every [`KeyIndex`].
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// An index of the pairs in a buffer of bytes. It finds a pair by the hash of its key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIndex {
    /// For each pair, the lower half of its key's hash, and its index in `pairs`.
    slots: HashTable<(u32, u32)>,
    /// The pairs, each with the hash of its key, in no particular order.
    pairs: Vec<(u64, PairSpan)>,
}

#[expect(clippy::cast_possible_truncation, reason = "half of it will do")]
fn half(hash: u64) -> u32 {
    hash as u32
}

impl KeyIndex {
    /// Returns the index in [`KeyIndex::pairs`] of the pair with the key `key`.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8], hash: u64, key: &[u8]) -> Option<usize> {
        let same = |(part, index): &(u32, u32)| {
            *part == half(hash) && self.pairs[*index as usize].1.key(bytes) == key
        };
        self.slots.find(hash, same).map(|(_, index)| *index as usize)
    }

    /// Returns whether the index may contain a pair whose key has this hash. `false` is certain;
    /// `true` is not.
    pub(crate) fn has_alike(&self, hash: u64) -> bool {
        self.slots.find(hash, |(part, _)| *part == half(hash)).is_some()
    }

    /// Returns all pairs, each with the hash of its key, in no particular order.
    pub(crate) fn pairs(&self) -> &[(u64, PairSpan)] {
        &self.pairs
    }

    /// Returns the positions of the pair with the number `index`.
    pub(crate) fn pair(&self, index: usize) -> PairSpan {
        self.pairs[index].1
    }

    /// Replaces the pair at `index` by one with the same key.
    pub(crate) fn set_pair(&mut self, index: usize, pair: PairSpan) {
        self.pairs[index].1 = pair;
    }

    /// Returns the number of pairs for which there is memory.
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
