//! Reads through layers of changes. The top layer contains the writes of a call. The layers below
//! contain changes that are applied but not committed yet. At the bottom is the committed state.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};

use lantern_core::{
    ChangedPairs, KeyRange, Pairs, ReadStore, ReadValues, Space, SpaceWrites, StoreError,
};

use crate::key_index::{KeyIndex, hash};

/// The maximum number of pairs for which a scan allocates memory in advance.
const SCAN_CAPACITY: usize = 64;

/// A set of changes. Its values replace those of the layers and of the store below it.
pub(crate) trait Layer {
    /// Returns the changes of `space`, for lookups by key.
    fn changes(&self, space: Space) -> SpaceLookup<'_>;

    /// Returns the changes of `space` whose keys are in `range`, in key order.
    fn within(&self, space: Space, range: &KeyRange) -> SortedChanges<'_>;
}

/// Changes in key order. The value `None` marks a deleted key.
pub(crate) type OrderedChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A changed key with its value; `None` if the key is deleted.
type ChangedPair<'a> = (&'a [u8], Option<&'a [u8]>);

/// The changes of a layer within a range, in key order. They can be read from both ends.
pub(crate) enum SortedChanges<'a> {
    Ordered(btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>),
    Pending(ChangedPairs<'a>),
    /// Sorted copies of changes that the layer finds by hash.
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

/// The changes of one space in a layer.
#[derive(Clone, Copy)]
pub(crate) enum SpaceLookup<'a> {
    Hashed(&'a KeyIndex, &'a [u8]),
    Ordered(&'a OrderedChanges),
    Pending(&'a SpaceWrites),
    Nothing,
}

impl<'a> SpaceLookup<'a> {
    /// Returns the change to `key`, whose hash is `hash`: `Some(None)` if the change deletes the
    /// key, `None` if there is no change.
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

/// Returns the value under `key`. It comes from the topmost layer that changes the key, or from the
/// store if no layer does.
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

/// Reads like [`get`], for the `keys` that have no value in `values` yet.
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

/// Returns up to `limit` pairs of `range` in key order, or in reverse order if `reverse` is set.
/// The changes of `layers` (topmost first) replace pairs of the store.
///
/// The time does not grow with the number of changes in the layers. It grows with the number of
/// deleted keys within the range.
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

/// The changes of several layers in key order. If several layers change a key, the change of the
/// topmost layer is used.
struct MergedChanges<'a> {
    /// The layers, the topmost first, each with its next change.
    layers: Vec<(ChangedPair<'a>, SortedChanges<'a>)>,
    /// The change that comes next, over all layers.
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

    /// Returns the next change, and skips its key in the layers below.
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

/// The pairs of the store, in order. They are read in pages, because layers may delete any number
/// of them and more must then be read.
struct StoredPages<'a> {
    store: &'a dyn ReadStore,
    space: Space,
    /// The part of the range that has not been read; `None` if all of it was read.
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

    /// Returns the key of the next pair. The pair is not removed.
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
    use lantern_core::fake::MemoryShard;
    use lantern_core::{ShardStore as _, TableId, Writes};

    use super::*;
    use crate::change_set::ChangeSet;

    /// Compares scans with a scan of the merged map, in both directions and with every limit. Five
    /// keys are set or deleted in the store and in two layers, in every combination.
    #[test]
    fn a_scan_through_layers_equals_a_scan_of_the_merged_map() {
        let key = |i: u32| vec![b'a' + u8::try_from(i).expect("small")];
        for pattern in 0..4_u32.pow(5) {
            // Rows of tables are found by hash until they are sorted; entries of other spaces are
            // always sorted.
            let space = [Space::Outbox, Space::Table(TableId(0))][pattern as usize % 2];
            let stored = MemoryShard::default();
            let keys: Vec<_> = (0..5).map(key).collect();
            let mut rows = Writes::new();
            let (mut low, mut high) = (ChangeSet::default(), ChangeSet::default());
            let mut model = BTreeMap::new();
            for i in 0..5 {
                let state = pattern / 4_u32.pow(i) % 4;
                if state & 1 == 1 {
                    rows.entry(space).or_default().insert(&keys[i as usize], Some(b"stored"));
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
            stored.commit(&rows).unwrap();
            // The lower layer may be sorted, and may belong to a commit in progress.
            if pattern % 3 == 0 {
                low.put_in_order(space);
            }
            let frozen = low.clone().freeze();
            let low: &dyn Layer = if pattern % 5 < 2 { &frozen } else { &low };
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
