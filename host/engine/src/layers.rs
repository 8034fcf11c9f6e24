//! Reads through layers: what a call wrote, what was applied before it and not
//! committed yet, and the committed state below.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::hash::BuildHasher;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, LazyLock, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use lantern_core::{
    ChangedPairs, KeyRange, PairSpan, Pairs, ReadStore, ReadValues, Space, SpaceWrites, StoreError,
    Writes,
};

/// What a changed pair takes in memory besides its key and value, in bytes:
/// without it, the smallest rows would take many times what is counted.
pub(crate) const PAIR_BYTES: usize = 64;

/// The most pairs that a scan makes room for before it has found them.
const SCAN_CAPACITY: usize = 64;

/// Ordered changes are inserted one by one into a map that has this many times as
/// many; else both maps are merged, which takes time for all of them.
const INSERT_RATIO: usize = 8;

/// How many pairs are looked up together before they are set.
const SET_AT_ONCE: usize = 32;

/// One for all layers, so that a key is hashed once for all of them.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Changes above those of the layers below.
pub(crate) trait Layer {
    /// What is changed in `space`, to be searched.
    fn changes(&self, space: Space) -> Search<'_>;

    /// What is changed within `range` of `space`, in order.
    fn within(&self, space: Space, range: &KeyRange) -> InOrder<'_>;
}

/// A changed key with its value; `None` if it is deleted.
type ChangedPair<'a> = (&'a [u8], Option<&'a [u8]>);

/// Changes of a layer within a range, in the order of their keys, from either end.
pub(crate) enum InOrder<'a> {
    Ordered(btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>),
    Frozen(ChangedPairs<'a>),
    /// Of pairs that were found by hash.
    Sorted(std::vec::IntoIter<ChangedPair<'a>>),
    Nothing,
}

impl<'a> InOrder<'a> {
    fn next(&mut self, reverse: bool) -> Option<ChangedPair<'a>> {
        let owned = |(key, value): (&'a Vec<u8>, &'a Option<Vec<u8>>)| (&**key, value.as_deref());
        match (self, reverse) {
            (Self::Ordered(pairs), false) => pairs.next().map(owned),
            (Self::Ordered(pairs), true) => pairs.next_back().map(owned),
            (Self::Frozen(pairs), false) => pairs.next(),
            (Self::Frozen(pairs), true) => pairs.next_back(),
            (Self::Sorted(pairs), false) => pairs.next(),
            (Self::Sorted(pairs), true) => pairs.next_back(),
            (Self::Nothing, _) => None,
        }
    }
}

/// The changes of one space of a layer.
#[derive(Clone, Copy)]
pub(crate) enum Search<'a> {
    Hashed(&'a Index, &'a [u8]),
    Ordered(&'a Ordered),
    Frozen(&'a SpaceWrites),
    Nothing,
}

impl<'a> Search<'a> {
    /// What becomes of `key`, whose hash is `hash`; `Some(None)` if it is
    /// deleted.
    #[inline]
    fn find(self, hash: u64, key: &[u8]) -> Option<Option<&'a [u8]>> {
        match self {
            Self::Hashed(index, bytes) => {
                index.find(bytes, hash, key).map(|place| index.pairs[place].1.value(bytes))
            }
            Self::Ordered(pairs) => pairs.get(key).map(Option::as_deref),
            Self::Frozen(pairs) => pairs.get(key),
            Self::Nothing => None,
        }
    }
}

/// Changed pairs in memory; `None` marks a deleted key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    spaces: BTreeMap<Space, Changes>,
    bytes: usize,
}

/// The changes of one space. Rows are found by hash, and sorted when they are
/// scanned or committed: among a hundred thousand, finding one in order takes
/// ten times as long.
#[derive(Clone, Debug)]
enum Changes {
    Hashed(Hashed),
    Ordered(Ordered),
}

type Ordered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Pairs found by hash, with all bytes in one buffer: nothing is allocated for
/// each. What a pair was before it changed again may stay among the bytes, which
/// are counted all the same.
#[derive(Clone, Debug, Default)]
struct Hashed {
    index: Index,
    bytes: Vec<u8>,
}

/// Where pairs are in a buffer of bytes, found by hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// For each pair the lower half of its hash, and its place in `pairs`.
    places: HashTable<(u32, u32)>,
    /// In no order, each with its hash.
    pairs: Vec<(u64, PairSpan)>,
}

#[expect(clippy::cast_possible_truncation, reason = "half of it will do")]
fn half(hash: u64) -> u32 {
    hash as u32
}

impl Index {
    /// The place of `key` in `pairs`.
    #[inline]
    fn find(&self, bytes: &[u8], hash: u64, key: &[u8]) -> Option<usize> {
        let same = |(part, place): &(u32, u32)| {
            *part == half(hash) && self.pairs[*place as usize].1.key(bytes) == key
        };
        self.places.find(hash, same).map(|(_, place)| *place as usize)
    }

    /// Whether there may be a pair with this hash.
    fn has_alike(&self, hash: u64) -> bool {
        self.places.find(hash, |(part, _)| *part == half(hash)).is_some()
    }

    /// Adds a pair whose key is not there yet.
    fn add(&mut self, hash: u64, pair: PairSpan) {
        let Self { places, pairs } = self;
        let place = u32::try_from(pairs.len()).expect("a commit has far fewer pairs");
        pairs.push((hash, pair));
        places.insert_unique(hash, (half(hash), place), |(_, place)| pairs[*place as usize].0);
    }

    /// Leaves the room behind.
    fn clear(&mut self) {
        self.places.clear();
        self.pairs.clear();
    }
}

impl Hashed {
    fn set(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) {
        let Self { index, bytes } = self;
        match index.find(bytes, hash, key) {
            Some(place) => {
                let pair = &mut index.pairs[place].1;
                if !pair.replace(bytes, value) {
                    *pair = PairSpan::push(bytes, key, value);
                }
            }
            None => index.add(hash, PairSpan::push(bytes, key, value)),
        }
    }

    /// Sets what `over` has. Places are looked up side by side first, so that
    /// memory is waited for once, and not for each.
    fn add_all(&mut self, over: &Self) {
        for pairs in over.index.pairs.chunks(SET_AT_ONCE) {
            let alike = pairs.iter().filter(|(hash, _)| self.index.has_alike(*hash));
            std::hint::black_box(alike.count());
            for (hash, pair) in pairs {
                self.set(*hash, pair.key(&over.bytes), pair.value(&over.bytes));
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &[u8], Option<&[u8]>)> {
        let bytes = &self.bytes;
        let pairs = self.index.pairs.iter();
        pairs.map(|(hash, pair)| (*hash, pair.key(bytes), pair.value(bytes)))
    }

    /// Leaves the room behind.
    fn clear(&mut self) {
        self.index.clear();
        self.bytes.clear();
    }
}

impl Changes {
    fn new(space: Space) -> Self {
        match space {
            Space::Table(_) => Self::Hashed(Hashed::default()),
            _ => Self::Ordered(Ordered::new()),
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
            Self::Hashed(pairs) => pairs.index.pairs.is_empty(),
            Self::Ordered(pairs) => pairs.is_empty(),
        }
    }

    /// Moves all of `over` here, and leaves its room behind.
    fn take_over(&mut self, over: &mut Self) {
        match (&mut *self, over) {
            (below, over) if below.is_empty() && !below.has_more_room(over) => {
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

    /// Whether both are found by hash, and this has room for more than `other`.
    fn has_more_room(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hashed(this), Self::Hashed(other)) => {
                this.index.pairs.capacity() > other.index.pairs.capacity()
            }
            _ => false,
        }
    }

    fn freeze(self) -> FrozenChanges {
        match self {
            Self::Hashed(Hashed { index, bytes }) => {
                FrozenChanges::Hashed { index, bytes: Arc::new(bytes), in_order: OnceLock::new() }
            }
            Self::Ordered(pairs) => FrozenChanges::Ordered(pairs.into()),
        }
    }
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.spaces.values().all(Changes::is_empty)
    }

    /// All changes, in order of space and key.
    pub(crate) fn all(&self) -> BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        for (space, changes) in &self.spaces {
            let mut add = |key: &[u8], value: Option<&[u8]>| {
                all.insert((*space, key.to_vec()), value.map(<[u8]>::to_vec));
            };
            match changes {
                Changes::Hashed(pairs) => pairs.iter().for_each(|(_, key, value)| add(key, value)),
                Changes::Ordered(pairs) => {
                    pairs.iter().for_each(|(key, value)| add(key, value.as_deref()));
                }
            }
        }
        all
    }

    /// About the bytes of all changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        self.bytes += PAIR_BYTES + key.len() + value.map_or(0, <[u8]>::len);
        let changes = self.spaces.entry(space).or_insert_with(|| Changes::new(space));
        changes.set(key, value);
    }

    /// Lays `over` on top of this; leaves its room behind.
    pub(crate) fn merge(&mut self, over: &mut Self) {
        self.bytes += std::mem::take(&mut over.bytes);
        for (space, pairs) in &mut over.spaces {
            let below = self.spaces.entry(*space).or_insert_with(|| Changes::new(*space));
            below.take_over(pairs);
        }
    }

    /// Puts what is changed in `space` in order, for many scans.
    pub(crate) fn put_in_order(&mut self, space: Space) {
        let Some(changes) = self.spaces.get_mut(&space) else { return };
        if let Changes::Hashed(pairs) = changes {
            let owned = |(_, key, value): (_, &[u8], Option<&[u8]>)| {
                (key.to_vec(), value.map(<[u8]>::to_vec))
            };
            *changes = Changes::Ordered(pairs.iter().map(owned).collect());
        }
    }

    /// All of it, to be committed.
    pub(crate) fn freeze(self) -> Frozen {
        let changed = self.spaces.into_iter().filter(|(_, changes)| !changes.is_empty());
        let spaces = changed.map(|(space, changes)| (space, changes.freeze())).collect();
        Frozen { spaces, bytes: self.bytes }
    }

    /// What could not be committed, with what was changed since on top.
    pub(crate) fn put_back(&mut self, frozen: &Frozen) {
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

impl Layer for Overlay {
    fn changes(&self, space: Space) -> Search<'_> {
        match self.spaces.get(&space) {
            Some(changes) if changes.is_empty() => Search::Nothing,
            Some(Changes::Hashed(pairs)) => Search::Hashed(&pairs.index, &pairs.bytes),
            Some(Changes::Ordered(pairs)) => Search::Ordered(pairs),
            None => Search::Nothing,
        }
    }

    fn within(&self, space: Space, range: &KeyRange) -> InOrder<'_> {
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = (Bound::Included(range.start.as_slice()), end);
        match self.spaces.get(&space) {
            Some(Changes::Ordered(pairs)) => InOrder::Ordered(pairs.range::<[u8], _>(bounds)),
            Some(Changes::Hashed(pairs)) => {
                let pairs = pairs.iter().map(|(_, key, value)| (key, value));
                let within = |key: &&[u8]| RangeBounds::<[u8]>::contains(&bounds, *key);
                let mut found: Vec<_> = pairs.filter(|(key, _)| within(key)).collect();
                found.sort_unstable_by_key(|(key, _)| *key);
                InOrder::Sorted(found.into_iter())
            }
            None => InOrder::Nothing,
        }
    }
}

/// Changes that are being committed: read by the fold that runs in parallel,
/// and by the commit.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    spaces: BTreeMap<Space, FrozenChanges>,
    bytes: usize,
}

#[derive(Debug)]
enum FrozenChanges {
    /// As [`Hashed`].
    Hashed {
        index: Index,
        bytes: Arc<Vec<u8>>,
        /// Put in order by who needs that first.
        in_order: OnceLock<SpaceWrites>,
    },
    Ordered(SpaceWrites),
}

impl FrozenChanges {
    fn in_order(&self) -> &SpaceWrites {
        match self {
            Self::Hashed { index, bytes, in_order: ordered } => ordered.get_or_init(|| {
                SpaceWrites::from_parts(bytes.clone(), in_order(&index.pairs, bytes))
            }),
            Self::Ordered(ordered) => ordered,
        }
    }
}

impl Frozen {
    /// All changes, in order.
    pub(crate) fn writes(&self) -> Writes {
        self.spaces.iter().map(|(space, changes)| (*space, changes.in_order().clone())).collect()
    }

    /// An empty overlay with this one's memory, if no reader still has it.
    pub(crate) fn into_room(self) -> Overlay {
        let mut room = Overlay::default();
        for (space, changes) in self.spaces {
            if let FrozenChanges::Hashed { index, bytes, in_order } = changes {
                drop(in_order);
                let bytes = Arc::try_unwrap(bytes).unwrap_or_default();
                let mut pairs = Hashed { index, bytes };
                pairs.clear();
                room.spaces.insert(space, Changes::Hashed(pairs));
            }
        }
        room
    }
}

impl Layer for Frozen {
    fn changes(&self, space: Space) -> Search<'_> {
        match self.spaces.get(&space) {
            Some(FrozenChanges::Hashed { index, bytes, .. }) => Search::Hashed(index, bytes),
            Some(FrozenChanges::Ordered(pairs)) => Search::Frozen(pairs),
            None => Search::Nothing,
        }
    }

    fn within(&self, space: Space, range: &KeyRange) -> InOrder<'_> {
        match self.spaces.get(&space) {
            Some(changes) => InOrder::Frozen(changes.in_order().within(range)),
            None => InOrder::Nothing,
        }
    }
}

/// `pairs` in the order of their keys. Most differ in the eight bytes
/// after the common prefix of all keys, which are compared without looking the keys
/// up in memory.
fn in_order(pairs: &[(u64, PairSpan)], bytes: &[u8]) -> Vec<PairSpan> {
    let common = pairs.first().map_or(0, |(_, first)| {
        let first = first.key(bytes);
        let like = |key: &[u8]| first.iter().zip(key).take_while(|(a, b)| a == b).count();
        pairs.iter().map(|(_, pair)| like(pair.key(bytes))).min().unwrap_or(0)
    });
    let mut places: Vec<(u64, PairSpan)> = Vec::with_capacity(pairs.len());
    for (_, pair) in pairs {
        let mut part = [0; 8];
        let rest = &pair.key(bytes)[common..];
        let len = rest.len().min(8);
        part[..len].copy_from_slice(&rest[..len]);
        places.push((u64::from_be_bytes(part), *pair));
    }
    places.sort_unstable_by(|(part, pair), (other, at)| {
        part.cmp(other).then_with(|| pair.key(bytes).cmp(at.key(bytes)))
    });
    places.into_iter().map(|(_, pair)| pair).collect()
}

#[inline]
fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// The value under `key`: of the topmost layer that knows it, else the store's.
pub(crate) fn get(
    layers: &[&dyn Layer],
    store: &dyn ReadStore,
    space: Space,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let hash = hash(key);
    match layers.iter().find_map(|layer| layer.changes(space).find(hash, key)) {
        Some(value) => Ok(value.map(<[u8]>::to_vec)),
        None => store.get(space, key),
    }
}

/// As [`get`], of those of `keys` that `found` lacks.
pub(crate) fn get_many(
    layers: &[&dyn Layer],
    store: &dyn ReadStore,
    space: Space,
    keys: &[&[u8]],
    found: &mut ReadValues,
) -> Result<(), StoreError> {
    let mut unknown = false;
    let searches: Vec<_> = layers.iter().map(|layer| layer.changes(space)).collect();
    for (place, key) in keys.iter().enumerate() {
        if found.is_known(place) {
            continue;
        }
        let hash = hash(key);
        match searches.iter().find_map(|search| search.find(hash, key)) {
            Some(value) => found.set(place, value),
            None => unknown = true,
        }
    }
    if unknown { store.get_many(space, keys, found) } else { Ok(()) }
}

/// At most `limit` pairs of `range` in key order, the last first if `reverse`, as
/// `layers`, topmost first, change the store. It takes no longer with more changes
/// in the layers, except for deleted keys that it passes.
pub(crate) fn scan(
    layers: &[&dyn Layer],
    store: &dyn ReadStore,
    space: Space,
    range: &KeyRange,
    limit: usize,
    reverse: bool,
) -> Result<Pairs, StoreError> {
    if range.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let mut changed = ChangedInOrder::new(layers, space, range, reverse);
    if changed.first.is_none() {
        return store.scan(space, range, limit, reverse);
    }
    let mut stored = StoredPages::new(store, space, range, limit, reverse);
    let mut merged = Vec::with_capacity(limit.min(SCAN_CAPACITY));
    while merged.len() < limit {
        let order = match (stored.peek()?, changed.first) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(key), Some((over, _))) if reverse => over.cmp(key),
            (Some(key), Some((over, _))) => key.cmp(over),
        };
        if order == Ordering::Less {
            merged.extend(stored.take());
            continue;
        }
        if order == Ordering::Equal {
            stored.take();
        }
        if let Some((key, Some(value))) = changed.take() {
            merged.push((key.to_vec(), value.to_vec()));
        }
    }
    Ok(merged)
}

/// The changes of several layers in order; of each key the topmost one.
struct ChangedInOrder<'a> {
    /// Each with its next pair, the topmost first.
    layers: Vec<(ChangedPair<'a>, InOrder<'a>)>,
    /// The next of all.
    first: Option<ChangedPair<'a>>,
    reverse: bool,
}

impl<'a> ChangedInOrder<'a> {
    fn new(layers: &[&'a dyn Layer], space: Space, range: &KeyRange, reverse: bool) -> Self {
        let begun = layers.iter().filter_map(|layer| {
            let mut pairs = layer.within(space, range);
            pairs.next(reverse).map(|first| (first, pairs))
        });
        let mut all = Self { layers: begun.collect(), first: None, reverse };
        all.first = all.find_first();
        all
    }

    fn find_first(&self) -> Option<ChangedPair<'a>> {
        let pairs = self.layers.iter().map(|(first, _)| *first);
        pairs.reduce(|first, other| {
            let before = if self.reverse { other.0 > first.0 } else { other.0 < first.0 };
            if before { other } else { first }
        })
    }

    /// The next pair; the layers below move past its key too.
    fn take(&mut self) -> Option<ChangedPair<'a>> {
        let taken = self.first?;
        let reverse = self.reverse;
        self.layers.retain_mut(|(first, pairs)| {
            if first.0 != taken.0 {
                return true;
            }
            pairs.next(reverse).map(|next| *first = next).is_some()
        });
        self.first = self.find_first();
        Some(taken)
    }
}

/// Pairs of the store in order, read a page at a time: deleted keys above may hide
/// any number of them.
struct StoredPages<'a> {
    store: &'a dyn ReadStore,
    space: Space,
    /// What is still to be read; `None` once all is.
    rest: Option<KeyRange>,
    page: std::iter::Peekable<std::vec::IntoIter<(Vec<u8>, Vec<u8>)>>,
    limit: usize,
    reverse: bool,
}

impl<'a> StoredPages<'a> {
    fn new(
        store: &'a dyn ReadStore,
        space: Space,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Self {
        let page = Vec::new().into_iter().peekable();
        Self { store, space, rest: Some(range.clone()), page, limit, reverse }
    }

    /// The next key.
    fn peek(&mut self) -> Result<Option<&[u8]>, StoreError> {
        if self.page.peek().is_none()
            && let Some(range) = self.rest.take()
        {
            let page = self.store.scan(self.space, &range, self.limit, self.reverse)?;
            if page.len() >= self.limit
                && let Some((last, _)) = page.last()
            {
                let rest = if self.reverse {
                    KeyRange { start: range.start, end: Some(last.clone()) }
                } else {
                    KeyRange { start: [last.as_slice(), &[0]].concat(), end: range.end }
                };
                self.rest = (!rest.is_empty()).then_some(rest);
            }
            self.page = page.into_iter().peekable();
        }
        Ok(self.page.peek().map(|(key, _)| key.as_slice()))
    }

    fn take(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.page.next()
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::TableId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With keys that share much, are prefixes of each other or end in zeros.
        #[test]
        fn changes_come_out_in_the_order_of_their_keys(
            keys in prop::collection::btree_set(
                prop_oneof!["k00[0-9]{0,9}", "k00\u{0}{0,9}", "k00[a-b]{7,10}", "[a-z]{0,2}"],
                0..200,
            )
        ) {
            let space = Space::Table(TableId(0));
            let mut overlay = Overlay::default();
            for key in keys.iter().rev() {
                overlay.set(space, key.as_bytes(), None);
            }
            let writes = overlay.freeze().writes();
            let found: Vec<_> = writes.values().flatten().collect();
            let expected: Vec<_> = keys.iter().map(|key| (key.as_bytes(), None)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    struct Stored(BTreeMap<Vec<u8>, Vec<u8>>);

    impl ReadStore for Stored {
        fn get(&self, _: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(
            &self,
            _: Space,
            range: &KeyRange,
            limit: usize,
            reverse: bool,
        ) -> Result<Pairs, StoreError> {
            let within = |key: &Vec<u8>| {
                *key >= range.start && range.end.as_ref().is_none_or(|end| key < end)
            };
            let pairs =
                self.0.iter().filter(|(k, _)| within(k)).map(|(k, v)| (k.clone(), v.clone()));
            Ok(if reverse {
                pairs.rev().take(limit).collect()
            } else {
                pairs.take(limit).collect()
            })
        }

        fn spaces(&self) -> Result<Vec<Space>, StoreError> {
            Ok(vec![Space::Outbox])
        }
    }

    /// Every subset of five keys in the store and in two layers, put or deleted,
    /// scanned in both directions with every limit, against the merged map.
    #[test]
    fn a_scan_through_layers_equals_a_scan_of_the_merged_map() {
        let key = |i: u32| vec![b'a' + u8::try_from(i).expect("small")];
        for pattern in 0..4_u32.pow(5) {
            // Rows are found by hash until they are put in order.
            let space = [Space::Outbox, Space::Table(TableId(0))][pattern as usize % 2];
            let mut stored = Stored(BTreeMap::new());
            let (mut low, mut high) = (Overlay::default(), Overlay::default());
            let mut model = BTreeMap::new();
            for i in 0..5 {
                let state = pattern / 4_u32.pow(i) % 4;
                if state & 1 == 1 {
                    stored.0.insert(key(i), b"stored".to_vec());
                    model.insert(key(i), b"stored".to_vec());
                }
                if state & 2 == 2 {
                    let put = (pattern + i) % 3 != 0;
                    let layer = if i % 2 == 0 { &mut low } else { &mut high };
                    layer.set(space, &key(i), put.then_some(b"layer"));
                    if put {
                        model.insert(key(i), b"layer".to_vec());
                    } else {
                        model.remove(&key(i));
                    }
                }
            }
            // What is below is being committed, or may be in order.
            if pattern % 3 == 0 {
                low.put_in_order(space);
            }
            let frozen = low.clone().freeze();
            let low: &dyn Layer = if pattern % 5 < 2 { &frozen } else { &low };
            let keys: Vec<_> = (0..5).map(key).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let mut found = ReadValues::default();
            found.begin(keys.len());
            get_many(&[&high, low], &stored, space, &keys, &mut found).unwrap();
            for (place, key) in keys.iter().enumerate() {
                assert_eq!(found.get(place), model.get(*key).map(Vec::as_slice), "{pattern}");
                let alone = get(&[&high, low], &stored, space, key).unwrap();
                assert_eq!(alone.as_ref(), model.get(*key), "{pattern}");
            }
            for limit in 0..6 {
                for reverse in [false, true] {
                    let range = KeyRange::all();
                    let found =
                        scan(&[&high, low], &stored, space, &range, limit, reverse).unwrap();
                    let model = model.clone().into_iter();
                    let expected: Pairs = if reverse {
                        model.rev().take(limit).collect()
                    } else {
                        model.take(limit).collect()
                    };
                    assert_eq!(found, expected, "pattern {pattern} limit {limit} {reverse}");
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Set(bool, String, Option<String>),
        /// What the call wrote is laid over what was applied.
        Merge,
        PutInOrder,
        /// A commit, and whether it went well.
        Commit(bool),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (any::<bool>(), "[a-c]{1,2}", prop::option::of("[x-z]{0,2}"))
                .prop_map(|(table, key, value)| Act::Set(table, key, value)),
            2 => Just(Act::Merge),
            1 => Just(Act::PutInOrder),
            1 => any::<bool>().prop_map(Act::Commit),
        ]
    }

    type Model = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

    fn all(frozen: &Frozen) -> Model {
        let writes = frozen.writes();
        let pairs = writes.iter().flat_map(|(space, pairs)| pairs.iter().map(|p| (*space, p)));
        pairs.map(|(space, (k, v))| ((space, k.to_vec()), v.map(<[u8]>::to_vec))).collect()
    }

    proptest! {
        #[test]
        fn layers_hold_what_maps_hold(acts in prop::collection::vec(act(), 0..60)) {
            let table = Space::Table(TableId(0));
            let (mut written, mut applied) = (Overlay::default(), Overlay::default());
            let (mut new, mut old) = (Model::new(), Model::new());
            for act in acts {
                match act {
                    Act::Set(in_table, key, value) => {
                        let space = if in_table { table } else { Space::Outbox };
                        let (key, value) = (key.into_bytes(), value.map(String::into_bytes));
                        written.set(space, &key, value.as_deref());
                        new.insert((space, key), value);
                    }
                    Act::Merge => {
                        applied.merge(&mut written);
                        old.append(&mut new);
                        prop_assert!(written.is_empty() && written.bytes() == 0);
                    }
                    Act::PutInOrder => applied.put_in_order(table),
                    Act::Commit(done) => {
                        let frozen = std::mem::take(&mut applied).freeze();
                        prop_assert_eq!(all(&frozen), old.clone());
                        // What is applied while the commit is in progress.
                        applied.merge(&mut written);
                        if done {
                            old = std::mem::take(&mut new);
                            let room = frozen.into_room();
                            prop_assert!(room.is_empty() && room.bytes() == 0);
                            if applied.is_empty() {
                                applied = room;
                            }
                        } else {
                            old.append(&mut new);
                            applied.put_back(&frozen);
                        }
                    }
                }
                for (layer, model) in [(&written, &new), (&applied, &old)] {
                    prop_assert_eq!(layer.is_empty(), model.is_empty());
                    for ((space, key), value) in model {
                        let found = layer.changes(*space).find(hash(key), key);
                        prop_assert_eq!(found, Some(value.as_deref()));
                    }
                }
            }
        }
    }
}
