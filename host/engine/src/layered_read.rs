//! Reads through layers: what a call wrote, what was applied before it and not
//! committed yet, and the committed state below.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};

use lantern_core::{
    ChangedPairs, KeyRange, Pairs, ReadStore, ReadValues, Space, SpaceWrites, StoreError,
};

use crate::key_index::{KeyIndex, hash};

/// The most pairs that a scan makes room for before it has found them.
const SCAN_CAPACITY: usize = 64;

/// Changes above those of the layers below.
pub(crate) trait Layer {
    /// What is changed in `space`, to be searched.
    fn changes(&self, space: Space) -> SpaceLookup<'_>;

    /// What is changed within `range` of `space`, in order.
    fn within(&self, space: Space, range: &KeyRange) -> SortedChanges<'_>;
}

/// Changes in the order of their keys; `None` marks a deleted key.
pub(crate) type OrderedChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A changed key with its value; `None` if it is deleted.
type ChangedPair<'a> = (&'a [u8], Option<&'a [u8]>);

/// Changes of a layer within a range, in the order of their keys, from either end.
pub(crate) enum SortedChanges<'a> {
    Ordered(btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>),
    Pending(ChangedPairs<'a>),
    /// Of pairs that were found by hash.
    Sorted(std::vec::IntoIter<ChangedPair<'a>>),
    Nothing,
}

impl<'a> SortedChanges<'a> {
    fn next(&mut self, reverse: bool) -> Option<ChangedPair<'a>> {
        let owned = |(key, value): (&'a Vec<u8>, &'a Option<Vec<u8>>)| (&**key, value.as_deref());
        match (self, reverse) {
            (Self::Ordered(pairs), false) => pairs.next().map(owned),
            (Self::Ordered(pairs), true) => pairs.next_back().map(owned),
            (Self::Pending(pairs), false) => pairs.next(),
            (Self::Pending(pairs), true) => pairs.next_back(),
            (Self::Sorted(pairs), false) => pairs.next(),
            (Self::Sorted(pairs), true) => pairs.next_back(),
            (Self::Nothing, _) => None,
        }
    }
}

/// The changes of one space of a layer.
#[derive(Clone, Copy)]
pub(crate) enum SpaceLookup<'a> {
    Hashed(&'a KeyIndex, &'a [u8]),
    Ordered(&'a OrderedChanges),
    Pending(&'a SpaceWrites),
    Nothing,
}

impl<'a> SpaceLookup<'a> {
    /// What becomes of `key`, whose hash is `hash`; `Some(None)` if it is
    /// deleted.
    #[inline]
    pub(crate) fn find(self, hash: u64, key: &[u8]) -> Option<Option<&'a [u8]>> {
        match self {
            Self::Hashed(index, bytes) => {
                index.find(bytes, hash, key).map(|pair| index.pair(pair).value(bytes))
            }
            Self::Ordered(pairs) => pairs.get(key).map(Option::as_deref),
            Self::Pending(pairs) => pairs.get(key),
            Self::Nothing => None,
        }
    }
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

/// As [`get`], of those of `keys` that `values` lacks.
pub(crate) fn get_many(
    layers: &[&dyn Layer],
    store: &dyn ReadStore,
    space: Space,
    keys: &[&[u8]],
    values: &mut ReadValues,
) -> Result<(), StoreError> {
    let mut unknown = false;
    let searches: Vec<_> = layers.iter().map(|layer| layer.changes(space)).collect();
    for (index, key) in keys.iter().enumerate() {
        if values.is_known(index) {
            continue;
        }
        let hash = hash(key);
        match searches.iter().find_map(|search| search.find(hash, key)) {
            Some(value) => values.set(index, value),
            None => unknown = true,
        }
    }
    if unknown { store.get_many(space, keys, values) } else { Ok(()) }
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
    let mut changed = MergedChanges::new(layers, space, range, reverse);
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
struct MergedChanges<'a> {
    /// Each with its next pair, the topmost first.
    layers: Vec<(ChangedPair<'a>, SortedChanges<'a>)>,
    /// The next of all.
    first: Option<ChangedPair<'a>>,
    reverse: bool,
}

impl<'a> MergedChanges<'a> {
    fn new(layers: &[&'a dyn Layer], space: Space, range: &KeyRange, reverse: bool) -> Self {
        let started = layers.iter().filter_map(|layer| {
            let mut pairs = layer.within(space, range);
            pairs.next(reverse).map(|first| (first, pairs))
        });
        let mut all = Self { layers: started.collect(), first: None, reverse };
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
        let first_pair = self.first?;
        let reverse = self.reverse;
        self.layers.retain_mut(|(first, pairs)| {
            if first.0 != first_pair.0 {
                return true;
            }
            pairs.next(reverse).map(|next| *first = next).is_some()
        });
        self.first = self.find_first();
        Some(first_pair)
    }
}

/// Pairs of the store in order, read a page at a time: deleted keys above may hide
/// any number of them.
struct StoredPages<'a> {
    store: &'a dyn ReadStore,
    space: Space,
    /// What is still to be read; `None` once all is.
    unread: Option<KeyRange>,
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
        Self { store, space, unread: Some(range.clone()), page, limit, reverse }
    }

    /// The next key.
    fn peek(&mut self) -> Result<Option<&[u8]>, StoreError> {
        if self.page.peek().is_none()
            && let Some(range) = self.unread.take()
        {
            let page = self.store.scan(self.space, &range, self.limit, self.reverse)?;
            if page.len() >= self.limit
                && let Some((last, _)) = page.last()
            {
                let unread = if self.reverse {
                    KeyRange { start: range.start, end: Some(last.clone()) }
                } else {
                    KeyRange { start: [last.as_slice(), &[0]].concat(), end: range.end }
                };
                self.unread = (!unread.is_empty()).then_some(unread);
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

    use super::*;
    use crate::change_set::ChangeSet;

    struct StoreLayer(BTreeMap<Vec<u8>, Vec<u8>>);

    impl ReadStore for StoreLayer {
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
            let mut stored = StoreLayer(BTreeMap::new());
            let (mut low, mut high) = (ChangeSet::default(), ChangeSet::default());
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
            let mut values = ReadValues::default();
            values.begin(keys.len());
            get_many(&[&high, low], &stored, space, &keys, &mut values).unwrap();
            for (index, key) in keys.iter().enumerate() {
                assert_eq!(values.get(index), model.get(*key).map(Vec::as_slice), "{pattern}");
                let alone = get(&[&high, low], &stored, space, key).unwrap();
                assert_eq!(alone.as_ref(), model.get(*key), "{pattern}");
            }
            for limit in 0..6 {
                for reverse in [false, true] {
                    let range = KeyRange::all();
                    let actual =
                        scan(&[&high, low], &stored, space, &range, limit, reverse).unwrap();
                    let model = model.clone().into_iter();
                    let expected: Pairs = if reverse {
                        model.rev().take(limit).collect()
                    } else {
                        model.take(limit).collect()
                    };
                    assert_eq!(actual, expected, "pattern {pattern} limit {limit} {reverse}");
                }
            }
        }
    }
}
