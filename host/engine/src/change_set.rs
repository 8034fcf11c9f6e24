//! Keeps changes in memory: the changes of a call, the changes that are applied but not yet part of
//! a commit, and the changes of a pending commit.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use lantern_core::{KeyRange, PairSpan, Space, SpaceWrites, Writes};

use crate::key_index::{KeyIndex, hash};
use crate::layered_read::{Layer, OrderedChanges, SortedChanges, SpaceLookup};

/// The memory that a change takes in addition to its key and value, in bytes. If only keys and
/// values were counted, small rows would take several times the counted memory.
pub(crate) const PAIR_BYTES: usize = 64;

/// Decides how sorted changes are added to a map. If the map has at least this many entries per
/// change, the changes are inserted one by one. Otherwise the map and the changes are merged, which
/// visits every entry of both.
const INSERT_RATIO: usize = 8;

/// How many pairs are looked up before the first of them is set.
const SET_AT_ONCE: usize = 32;

/// Changed keys with their values in memory. The value `None` marks a deleted key.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeSet {
    spaces: BTreeMap<Space, SpaceChanges>,
    bytes: usize,
}

/// The changes of one space. Rows of tables are found by hash, and are sorted only for a scan or a
/// commit. With 100,000 rows, a lookup in a sorted map would take ten times as long.
#[derive(Clone, Debug)]
enum SpaceChanges {
    Hashed(HashedChanges),
    Ordered(OrderedChanges),
}

/// Changes that are found by the hash of their key. All bytes are in one buffer, so a change needs
/// no allocation. If a key changes again, its old bytes may stay in the buffer; they still count
/// towards the size.
#[derive(Clone, Debug, Default)]
struct HashedChanges {
    index: KeyIndex,
    bytes: Vec<u8>,
}

impl HashedChanges {
    fn set(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) {
        let Self { index, bytes } = self;
        match index.find(bytes, hash, key) {
            Some(position) => {
                if !index.pair(position).replace(bytes, value) {
                    index.set_pair(position, PairSpan::push(bytes, key, value));
                }
            }
            None => index.add(hash, PairSpan::push(bytes, key, value)),
        }
    }

    /// Adds all changes of `over`. It first looks up a group of keys and then sets their values, so
    /// that the memory accesses of the lookups overlap.
    fn add_all(&mut self, over: &Self) {
        for pairs in over.index.pairs().chunks(SET_AT_ONCE) {
            let alike = pairs.iter().filter(|(hash, _)| self.index.has_alike(*hash));
            std::hint::black_box(alike.count());
            for (hash, pair) in pairs {
                self.set(*hash, pair.key(&over.bytes), pair.value(&over.bytes));
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &[u8], Option<&[u8]>)> {
        let bytes = &self.bytes;
        let pairs = self.index.pairs().iter();
        pairs.map(|(hash, pair)| (*hash, pair.key(bytes), pair.value(bytes)))
    }

    /// Removes all changes and keeps the memory.
    fn clear(&mut self) {
        self.index.clear();
        self.bytes.clear();
    }
}

impl SpaceChanges {
    fn new(space: Space) -> Self {
        match space {
            Space::Table(_) => Self::Hashed(HashedChanges::default()),
            _ => Self::Ordered(OrderedChanges::new()),
        }
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        match self {
            Self::Hashed(pairs) => pairs.set(hash(key), key, value),
            Self::Ordered(pairs) => drop(pairs.insert(key.to_vec(), value.map(<[u8]>::to_vec))),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Hashed(pairs) => pairs.index.pairs().is_empty(),
            Self::Ordered(pairs) => pairs.is_empty(),
        }
    }

    /// Moves all changes of `over` into `self`. `over` is empty afterwards, but keeps its memory
    /// for later changes.
    fn merge_from(&mut self, over: &mut Self) {
        match (&mut *self, over) {
            (below, over) if below.is_empty() && !below.has_more_memory(over) => {
                std::mem::swap(below, over);
            }
            (Self::Hashed(below), Self::Hashed(over)) => {
                below.add_all(over);
                over.clear();
            }
            (below, Self::Hashed(over)) => {
                over.iter().for_each(|(_, key, value)| below.set(key, value));
                over.clear();
            }
            (Self::Ordered(below), Self::Ordered(over)) => {
                if below.len() / INSERT_RATIO < over.len() {
                    below.append(over);
                } else {
                    below.extend(std::mem::take(over));
                }
            }
            (below, Self::Ordered(over)) => {
                for (key, value) in std::mem::take(over) {
                    below.set(&key, value.as_deref());
                }
            }
        }
    }

    /// Returns whether both store their changes by hash and `self` has memory for more changes than
    /// `other`.
    fn has_more_memory(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hashed(this), Self::Hashed(other)) => {
                this.index.capacity() > other.index.capacity()
            }
            _ => false,
        }
    }

    fn freeze(self) -> PendingForm {
        match self {
            Self::Hashed(HashedChanges { index, bytes }) => {
                PendingForm::Hashed { index, bytes: Arc::new(bytes), in_order: OnceLock::new() }
            }
            Self::Ordered(pairs) => PendingForm::Ordered(pairs.into()),
        }
    }
}

impl ChangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.spaces.values().all(SpaceChanges::is_empty)
    }

    /// Returns all changes, in order of space and key.
    pub(crate) fn all(&self) -> BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        for (space, changes) in &self.spaces {
            let mut add = |key: &[u8], value: Option<&[u8]>| {
                all.insert((*space, key.to_vec()), value.map(<[u8]>::to_vec));
            };
            match changes {
                SpaceChanges::Hashed(pairs) => {
                    pairs.iter().for_each(|(_, key, value)| add(key, value))
                }
                SpaceChanges::Ordered(pairs) => {
                    pairs.iter().for_each(|(key, value)| add(key, value.as_deref()));
                }
            }
        }
        all
    }

    /// Returns the approximate number of bytes of all changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        self.bytes += PAIR_BYTES + key.len() + value.map_or(0, <[u8]>::len);
        let changes = self.spaces.entry(space).or_insert_with(|| SpaceChanges::new(space));
        changes.set(key, value);
    }

    /// Moves all changes of `over` into `self`. `over` is empty afterwards, but keeps its memory
    /// for later changes.
    pub(crate) fn merge(&mut self, over: &mut Self) {
        self.bytes += std::mem::take(&mut over.bytes);
        for (space, pairs) in &mut over.spaces {
            let below = self.spaces.entry(*space).or_insert_with(|| SpaceChanges::new(*space));
            below.merge_from(pairs);
        }
    }

    /// Sorts the changes of `space`, so that the scans that follow are fast.
    pub(crate) fn put_in_order(&mut self, space: Space) {
        let Some(changes) = self.spaces.get_mut(&space) else { return };
        if let SpaceChanges::Hashed(pairs) = changes {
            let owned = |(_, key, value): (_, &[u8], Option<&[u8]>)| {
                (key.to_vec(), value.map(<[u8]>::to_vec))
            };
            *changes = SpaceChanges::Ordered(pairs.iter().map(owned).collect());
        }
    }

    /// Converts the change set to the changes of a commit.
    pub(crate) fn freeze(self) -> PendingChanges {
        let changed = self.spaces.into_iter().filter(|(_, changes)| !changes.is_empty());
        let spaces = changed.map(|(space, changes)| (space, changes.freeze())).collect();
        PendingChanges { spaces, bytes: self.bytes }
    }

    /// Adds the changes of a failed commit again. Changes that were made since replace them.
    pub(crate) fn restore_below(&mut self, frozen: &PendingChanges) {
        let mut all = Self::default();
        for (space, changes) in &frozen.spaces {
            for (key, value) in changes.in_order() {
                all.set(*space, key, value);
            }
        }
        all.bytes = frozen.bytes;
        all.merge(self);
        *self = all;
    }
}

impl Layer for ChangeSet {
    fn changes(&self, space: Space) -> SpaceLookup<'_> {
        match self.spaces.get(&space) {
            Some(changes) if changes.is_empty() => SpaceLookup::Nothing,
            Some(SpaceChanges::Hashed(pairs)) => SpaceLookup::Hashed(&pairs.index, &pairs.bytes),
            Some(SpaceChanges::Ordered(pairs)) => SpaceLookup::Ordered(pairs),
            None => SpaceLookup::Nothing,
        }
    }

    fn within(&self, space: Space, range: &KeyRange) -> SortedChanges<'_> {
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = (Bound::Included(range.start.as_slice()), end);
        match self.spaces.get(&space) {
            Some(SpaceChanges::Ordered(pairs)) => {
                SortedChanges::Ordered(pairs.range::<[u8], _>(bounds))
            }
            Some(SpaceChanges::Hashed(pairs)) => {
                let pairs = pairs.iter().map(|(_, key, value)| (key, value));
                let within = |key: &&[u8]| RangeBounds::<[u8]>::contains(&bounds, *key);
                let mut in_range: Vec<_> = pairs.filter(|(key, _)| within(key)).collect();
                in_range.sort_unstable_by_key(|(key, _)| *key);
                SortedChanges::Sorted(in_range.into_iter())
            }
            None => SortedChanges::Nothing,
        }
    }
}

/// The changes of a commit in progress. The thread of the commit and the fold both read them.
#[derive(Debug, Default)]
pub(crate) struct PendingChanges {
    spaces: BTreeMap<Space, PendingForm>,
    bytes: usize,
}

#[derive(Debug)]
enum PendingForm {
    /// Changes that are found by hash, as in [`HashedChanges`].
    Hashed {
        index: KeyIndex,
        bytes: Arc<Vec<u8>>,
        /// The changes in key order. The first reader that needs them sorts them.
        in_order: OnceLock<SpaceWrites>,
    },
    Ordered(SpaceWrites),
}

impl PendingForm {
    fn in_order(&self) -> &SpaceWrites {
        match self {
            Self::Hashed { index, bytes, in_order: ordered } => ordered.get_or_init(|| {
                SpaceWrites::from_parts(bytes.clone(), in_order(index.pairs(), bytes))
            }),
            Self::Ordered(ordered) => ordered,
        }
    }
}

impl PendingChanges {
    /// Returns all changes in key order, as the store writes them.
    pub(crate) fn writes(&self) -> Writes {
        self.spaces.iter().map(|(space, changes)| (*space, changes.in_order().clone())).collect()
    }

    /// Returns an empty change set that uses the memory of this one, unless a reader still needs
    /// that memory.
    pub(crate) fn into_recycled(self) -> ChangeSet {
        let mut recycled = ChangeSet::default();
        for (space, changes) in self.spaces {
            if let PendingForm::Hashed { index, bytes, in_order } = changes {
                drop(in_order);
                let bytes = Arc::try_unwrap(bytes).unwrap_or_default();
                let mut pairs = HashedChanges { index, bytes };
                pairs.clear();
                recycled.spaces.insert(space, SpaceChanges::Hashed(pairs));
            }
        }
        recycled
    }
}

impl Layer for PendingChanges {
    fn changes(&self, space: Space) -> SpaceLookup<'_> {
        match self.spaces.get(&space) {
            Some(PendingForm::Hashed { index, bytes, .. }) => SpaceLookup::Hashed(index, bytes),
            Some(PendingForm::Ordered(pairs)) => SpaceLookup::Pending(pairs),
            None => SpaceLookup::Nothing,
        }
    }

    fn within(&self, space: Space, range: &KeyRange) -> SortedChanges<'_> {
        match self.spaces.get(&space) {
            Some(changes) => SortedChanges::Pending(changes.in_order().within(range)),
            None => SortedChanges::Nothing,
        }
    }
}

/// Sorts `pairs` by key. It first compares the eight bytes after the prefix that all keys share.
/// Most keys differ in these bytes, and comparing them needs no access to the keys in memory.
fn in_order(pairs: &[(u64, PairSpan)], bytes: &[u8]) -> Vec<PairSpan> {
    let common = pairs.first().map_or(0, |(_, first)| {
        let first = first.key(bytes);
        let like = |key: &[u8]| first.iter().zip(key).take_while(|(a, b)| a == b).count();
        pairs.iter().map(|(_, pair)| like(pair.key(bytes))).min().unwrap_or(0)
    });
    let mut prefixed: Vec<(u64, PairSpan)> = Vec::with_capacity(pairs.len());
    for (_, pair) in pairs {
        let mut part = [0; 8];
        let suffix = &pair.key(bytes)[common..];
        let len = suffix.len().min(8);
        part[..len].copy_from_slice(&suffix[..len]);
        prefixed.push((u64::from_be_bytes(part), *pair));
    }
    prefixed.sort_unstable_by(|(part, pair), (other, at)| {
        part.cmp(other).then_with(|| pair.key(bytes).cmp(at.key(bytes)))
    });
    prefixed.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use lantern_core::TableId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Generates keys with a long common prefix, keys that are prefixes of others, and keys
        /// that end in zeros.
        #[test]
        fn changes_come_out_in_the_order_of_their_keys(
            keys in prop::collection::btree_set(
                prop_oneof!["k00[0-9]{0,9}", "k00\u{0}{0,9}", "k00[a-b]{7,10}", "[a-z]{0,2}"],
                0..200,
            )
        ) {
            let space = Space::Table(TableId(0));
            let mut changes = ChangeSet::default();
            for key in keys.iter().rev() {
                changes.set(space, key.as_bytes(), None);
            }
            let writes = changes.freeze().writes();
            let actual: Vec<_> = writes.values().flatten().collect();
            let expected: Vec<_> = keys.iter().map(|key| (key.as_bytes(), None)).collect();
            prop_assert_eq!(actual, expected);
        }
    }

    #[derive(Clone, Debug)]
    enum BufferAction {
        Set(bool, String, Option<String>),
        /// The changes of a call are merged into the applied changes.
        Merge,
        PutInOrder,
        /// A commit runs. The value tells whether it succeeds.
        Commit(bool),
    }

    fn act() -> impl Strategy<Value = BufferAction> {
        prop_oneof![
            8 => (any::<bool>(), "[a-c]{1,2}", prop::option::of("[x-z]{0,2}"))
                .prop_map(|(table, key, value)| BufferAction::Set(table, key, value)),
            2 => Just(BufferAction::Merge),
            1 => Just(BufferAction::PutInOrder),
            1 => any::<bool>().prop_map(BufferAction::Commit),
        ]
    }

    type ReferenceMap = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

    fn all(frozen: &PendingChanges) -> ReferenceMap {
        let writes = frozen.writes();
        let pairs = writes.iter().flat_map(|(space, pairs)| pairs.iter().map(|p| (*space, p)));
        pairs.map(|(space, (k, v))| ((space, k.to_vec()), v.map(<[u8]>::to_vec))).collect()
    }

    proptest! {
        #[test]
        fn layers_hold_what_maps_hold(acts in prop::collection::vec(act(), 0..60)) {
            let table = Space::Table(TableId(0));
            let (mut written, mut applied) = (ChangeSet::default(), ChangeSet::default());
            let (mut new, mut old) = (ReferenceMap::new(), ReferenceMap::new());
            for act in acts {
                match act {
                    BufferAction::Set(in_table, key, value) => {
                        let space = if in_table { table } else { Space::Outbox };
                        let (key, value) = (key.into_bytes(), value.map(String::into_bytes));
                        written.set(space, &key, value.as_deref());
                        new.insert((space, key), value);
                    }
                    BufferAction::Merge => {
                        applied.merge(&mut written);
                        old.append(&mut new);
                        prop_assert!(written.is_empty() && written.bytes() == 0);
                    }
                    BufferAction::PutInOrder => applied.put_in_order(table),
                    BufferAction::Commit(done) => {
                        let frozen = std::mem::take(&mut applied).freeze();
                        prop_assert_eq!(all(&frozen), old.clone());
                        // These changes are applied while the commit is in progress.
                        applied.merge(&mut written);
                        if done {
                            old = std::mem::take(&mut new);
                            let recycled = frozen.into_recycled();
                            prop_assert!(recycled.is_empty() && recycled.bytes() == 0);
                            if applied.is_empty() {
                                applied = recycled;
                            }
                        } else {
                            old.append(&mut new);
                            applied.restore_below(&frozen);
                        }
                    }
                }
                for (layer, model) in [(&written, &new), (&applied, &old)] {
                    prop_assert_eq!(layer.is_empty(), model.is_empty());
                    for ((space, key), value) in model {
                        let actual = layer.changes(*space).find(hash(key), key);
                        prop_assert_eq!(actual, Some(value.as_deref()));
                    }
                }
            }
        }
    }
}
