//! Reads through layers: what a call wrote, what was applied before it and not
//! committed yet, and the committed state below.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, RangeBounds};

use foldhash::fast::RandomState;
use lantern_core::{KeyRange, Pairs, ReadStore, Space, SpaceWrites, StoreError, Writes};

/// What a changed pair takes in memory besides its key and value, in bytes:
/// without it, the smallest rows would take many times what is counted.
pub(crate) const PAIR_BYTES: usize = 64;

/// Changed pairs in memory; `None` marks a deleted key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    spaces: BTreeMap<Space, Changes>,
    bytes: usize,
}

type Hashed = HashMap<Vec<u8>, Option<Vec<u8>>, RandomState>;

/// The changes of one space. Rows are found by hash, and put in order where they
/// are scanned or committed: among a hundred thousand, finding one in order takes
/// ten times as long.
#[derive(Clone, Debug)]
enum Changes {
    Hashed(Hashed),
    Ordered(SpaceWrites),
}

impl Changes {
    fn new(space: Space) -> Self {
        match space {
            Space::Table(_) => Self::Hashed(Hashed::default()),
            _ => Self::Ordered(SpaceWrites::new()),
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        match self {
            Self::Hashed(pairs) => pairs.get(key),
            Self::Ordered(pairs) => pairs.get(key),
        }
    }

    fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        match self {
            Self::Hashed(pairs) => drop(pairs.insert(key, value)),
            Self::Ordered(pairs) => drop(pairs.insert(key, value)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Hashed(pairs) => pairs.is_empty(),
            Self::Ordered(pairs) => pairs.is_empty(),
        }
    }

    /// Moves all of `over` here, and leaves its room behind.
    fn take_over(&mut self, over: &mut Self) {
        match (self, over) {
            // What has more room stays below: emptying it takes long.
            (Self::Hashed(below), Self::Hashed(over)) => {
                if below.is_empty() && below.capacity() < over.capacity() {
                    std::mem::swap(below, over);
                } else {
                    below.extend(over.drain());
                }
            }
            (below, over) if below.is_empty() => std::mem::swap(below, over),
            (Self::Hashed(below), Self::Ordered(over)) => below.extend(std::mem::take(over)),
            (Self::Ordered(below), Self::Hashed(over)) => below.extend(over.drain()),
            (Self::Ordered(below), Self::Ordered(over)) => below.append(over),
        }
    }

    /// All changes in order; leaves the room behind.
    fn take_ordered(&mut self) -> SpaceWrites {
        match self {
            Self::Hashed(pairs) => in_order(pairs.drain().collect()).collect(),
            Self::Ordered(pairs) => std::mem::take(pairs),
        }
    }
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.spaces.values().all(Changes::is_empty)
    }

    /// About the bytes of all changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What [`Overlay::take_writes`] gave, again as it was.
    pub(crate) fn from_writes(writes: Writes, bytes: usize) -> Self {
        let spaces = writes.into_iter().map(|(space, pairs)| (space, Changes::Ordered(pairs)));
        Self { spaces: spaces.collect(), bytes }
    }

    /// All changes; leaves their room behind.
    pub(crate) fn take_writes(&mut self) -> Writes {
        self.bytes = 0;
        let changed = self.spaces.iter_mut().filter(|(_, pairs)| !pairs.is_empty());
        changed.map(|(space, pairs)| (*space, pairs.take_ordered())).collect()
    }

    pub(crate) fn set(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += PAIR_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.spaces.entry(space).or_insert_with(|| Changes::new(space)).insert(key, value);
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        self.spaces.get(&space)?.get(key).map(Option::as_deref)
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
        if let Some(pairs @ Changes::Hashed(_)) = self.spaces.get_mut(&space) {
            *pairs = Changes::Ordered(pairs.take_ordered());
        }
    }
}

type Pair = (Vec<u8>, Option<Vec<u8>>);

/// `pairs` in the order of their keys. Most are told apart by the eight bytes
/// behind what all keys begin with, which are compared without looking the keys
/// up in memory.
fn in_order(mut pairs: Vec<Pair>) -> impl Iterator<Item = Pair> {
    let common = pairs.first().map_or(0, |(first, _)| {
        let like = |key: &[u8]| first.iter().zip(key).take_while(|(a, b)| a == b).count();
        pairs.iter().map(|(key, _)| like(key)).min().unwrap_or(0)
    });
    let mut places: Vec<(u64, usize)> = Vec::with_capacity(pairs.len());
    for (place, (key, _)) in pairs.iter().enumerate() {
        let mut part = [0; 8];
        let rest = &key[common..];
        let len = rest.len().min(8);
        part[..len].copy_from_slice(&rest[..len]);
        places.push((u64::from_be_bytes(part), place));
    }
    places.sort_unstable_by(|(part, place), (other, at)| {
        part.cmp(other).then_with(|| pairs[*place].0.cmp(&pairs[*at].0))
    });
    places.into_iter().map(move |(_, place)| std::mem::take(&mut pairs[place]))
}

/// The value under `key`: of the topmost layer that knows it, else the store's.
pub(crate) fn get(
    layers: &[&Overlay],
    store: &dyn ReadStore,
    space: Space,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    for layer in layers {
        if let Some(value) = layer.get(space, key) {
            return Ok(value.map(<[u8]>::to_vec));
        }
    }
    store.get(space, key)
}

/// As [`get`], of each of `keys`.
pub(crate) fn get_many(
    layers: &[&Overlay],
    store: &dyn ReadStore,
    space: Space,
    keys: &[&[u8]],
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let mut values = Vec::with_capacity(keys.len());
    let (mut places, mut stored) = (Vec::new(), Vec::new());
    for key in keys {
        let known = layers.iter().find_map(|layer| layer.get(space, key));
        if known.is_none() {
            places.push(values.len());
            stored.push(*key);
        }
        values.push(known.flatten().map(<[u8]>::to_vec));
    }
    for (place, value) in places.into_iter().zip(store.get_many(space, &stored)?) {
        values[place] = value;
    }
    Ok(values)
}

/// At most `limit` pairs of `range` in key order (last first where `reverse`),
/// as `layers`, topmost first, lie over the store.
pub(crate) fn scan(
    layers: &[&Overlay],
    store: &dyn ReadStore,
    space: Space,
    range: &KeyRange,
    limit: usize,
    reverse: bool,
) -> Result<Pairs, StoreError> {
    if range.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let changed = changed_in(layers, space, range);
    if changed.is_empty() {
        return store.scan(space, range, limit, reverse);
    }
    // Each deleted key can hide one stored pair, so that many more are read.
    let hidden = changed.values().filter(|value| value.is_none()).count();
    let stored = store.scan(space, range, limit.saturating_add(hidden), reverse)?;
    let merged = if reverse {
        merge(stored, changed.into_iter().rev(), limit, |a, b| a > b)
    } else {
        merge(stored, changed.into_iter(), limit, |a, b| a < b)
    };
    Ok(merged)
}

type Changed<'a> = BTreeMap<&'a [u8], Option<&'a [u8]>>;

fn changed_in<'a>(layers: &[&'a Overlay], space: Space, range: &'a KeyRange) -> Changed<'a> {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let bounds = (Bound::Included(range.start.as_slice()), end);
    let mut changed = Changed::new();
    for layer in layers.iter().rev() {
        match layer.spaces.get(&space) {
            Some(Changes::Ordered(pairs)) => {
                let pairs = pairs.range::<[u8], _>(bounds);
                changed.extend(pairs.map(|(key, value)| (key.as_slice(), value.as_deref())));
            }
            Some(Changes::Hashed(pairs)) => {
                let pairs = pairs.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
                changed
                    .extend(pairs.filter(|(key, _)| RangeBounds::<[u8]>::contains(&bounds, *key)));
            }
            None => {}
        }
    }
    changed
}

fn merge<'a>(
    stored: Pairs,
    changed: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    limit: usize,
    before: impl Fn(&[u8], &[u8]) -> bool,
) -> Pairs {
    let mut merged = Vec::with_capacity(limit.min(stored.len() + 16));
    let mut changed = changed.peekable();
    let mut stored = stored.into_iter().peekable();
    while merged.len() < limit {
        match (stored.peek(), changed.peek()) {
            (None, None) => break,
            (Some((key, _)), Some((over, _))) if key.as_slice() == *over => {
                stored.next();
            }
            (Some((key, _)), Some((over, _))) if before(key, over) => {
                merged.extend(stored.next());
            }
            (Some(_), None) => merged.extend(stored.next()),
            (_, Some(_)) => {
                if let Some((key, Some(value))) = changed.next() {
                    merged.push((key.to_vec(), value.to_vec()));
                }
            }
        }
    }
    merged
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
                overlay.set(space, key.clone().into_bytes(), None);
            }
            let pairs: Vec<_> = keys.iter().map(|key| (key.clone().into_bytes(), None)).collect();
            prop_assert_eq!(in_order(pairs.iter().rev().cloned().collect()).collect::<Vec<_>>(), pairs);
            let found: Vec<_> = overlay.take_writes().remove(&space).into_iter().flatten().collect();
            let expected: Vec<_> = keys.into_iter().map(|key| (key.into_bytes(), None)).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(overlay.is_empty());
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
                    layer.set(space, key(i), put.then(|| b"layer".to_vec()));
                    if put {
                        model.insert(key(i), b"layer".to_vec());
                    } else {
                        model.remove(&key(i));
                    }
                }
            }
            let keys: Vec<_> = (0..5).map(key).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let found = get_many(&[&high, &low], &stored, space, &keys).unwrap();
            let expected: Vec<_> = keys.iter().map(|key| model.get(*key).cloned()).collect();
            assert_eq!(found, expected, "pattern {pattern}");
            if pattern % 3 == 0 {
                low.put_in_order(space);
            }
            for limit in 0..6 {
                for reverse in [false, true] {
                    let range = KeyRange::all();
                    let found =
                        scan(&[&high, &low], &stored, space, &range, limit, reverse).unwrap();
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
}
