//! Represents the changes that a commit writes to a shard's file.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::{KeyRange, Space};

/// The changes of one commit, by space.
pub type Writes = BTreeMap<Space, SpaceWrites>;

/// The changes of one space: keys in order, each with its new value, or without a value if the key
/// is deleted. The bytes of all keys and values are in one buffer, which may be shared with the
/// change set that they come from.
#[derive(Clone, Default)]
pub struct SpaceWrites {
    bytes: Arc<Vec<u8>>,
    pairs: Vec<PairSpan>,
}

/// The place of a key and its value in a buffer of bytes.
#[derive(Clone, Copy, Debug)]
pub struct PairSpan {
    start: usize,
    key: u32,
    value: u32,
}

/// The length that is stored in place of a value's length if the key is deleted.
const DELETED: u32 = u32::MAX;

impl PairSpan {
    /// Appends a key and its value to `bytes`, and returns their place.
    ///
    /// # Panics
    /// Panics if the key or the value has 4 GiB or more, which no store accepts.
    #[must_use]
    pub fn push(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> Self {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a pair is far smaller");
        let start = bytes.len();
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.unwrap_or_default());
        Self { start, key: length(key), value: value.map_or(DELETED, length) }
    }

    /// Returns the key in `bytes`, the buffer that the pair was appended to.
    #[must_use]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.start + self.key as usize]
    }

    /// Returns the value; `None` if the key is deleted. `bytes` must be the buffer to which the
    /// pair was appended.
    #[must_use]
    pub fn value<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.start + self.key as usize;
        (self.value != DELETED).then(|| &bytes[start..start + self.value as usize])
    }

    /// Replaces the value in the buffer by `value` if both have the same length. Returns
    /// `false` and changes nothing otherwise.
    pub fn replace(&self, bytes: &mut [u8], value: Option<&[u8]>) -> bool {
        let Some(value) = value.filter(|value| value.len() == self.value as usize) else {
            return false;
        };
        let start = self.start + self.key as usize;
        bytes[start..start + value.len()].copy_from_slice(value);
        true
    }
}

impl SpaceWrites {
    /// Creates a set of changes that contains none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the changes that `pairs` describe. `pairs` must be sorted by key, and their keys and
    /// values must be in `bytes`.
    #[must_use]
    pub fn from_parts(bytes: Arc<Vec<u8>>, pairs: Vec<PairSpan>) -> Self {
        debug_assert!(pairs.is_sorted_by(|a, b| a.key(&bytes) < b.key(&bytes)));
        Self { bytes, pairs }
    }

    /// Returns the number of changed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns all changed keys, in order.
    #[must_use]
    pub fn iter(&self) -> ChangedPairs<'_> {
        self.part(0..self.pairs.len())
    }

    /// Returns the change to `key`, if there is one; `Some(None)` if the key is deleted.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let index = self.pairs.binary_search_by(|pair| pair.key(&self.bytes).cmp(key)).ok()?;
        Some(self.pairs[index].value(&self.bytes))
    }

    /// Splits the changed keys into those up to and including `key`, and those after it.
    #[must_use]
    pub fn split_after(&self, key: &[u8]) -> (ChangedPairs<'_>, ChangedPairs<'_>) {
        let at = self.pairs.partition_point(|pair| pair.key(&self.bytes) <= key);
        (self.part(0..at), self.part(at..self.pairs.len()))
    }

    /// Returns the changed keys within `range`.
    #[must_use]
    pub fn within(&self, range: &KeyRange) -> ChangedPairs<'_> {
        let index = |key: &[u8]| self.pairs.partition_point(|pair| pair.key(&self.bytes) < key);
        let end = range.end.as_deref().map_or(self.pairs.len(), index);
        self.part(index(&range.start).min(end)..end)
    }

    /// Sets `key` to `value`, or deletes `key` if `value` is `None`. This replaces an earlier
    /// change of `key`. Use it only for a few keys: each call takes time in proportion to the
    /// number of changes.
    pub fn insert(&mut self, key: &[u8], value: Option<&[u8]>) {
        let pair = PairSpan::push(Arc::make_mut(&mut self.bytes), key, value);
        match self.pairs.binary_search_by(|pair| pair.key(&self.bytes).cmp(key)) {
            Ok(index) => self.pairs[index] = pair,
            Err(index) => self.pairs.insert(index, pair),
        }
    }

    fn part(&self, range: Range<usize>) -> ChangedPairs<'_> {
        ChangedPairs { bytes: &self.bytes, pairs: self.pairs[range].iter() }
    }
}

impl fmt::Debug for SpaceWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// If a key occurs more than once, its last change is used.
impl FromIterator<(Vec<u8>, Option<Vec<u8>>)> for SpaceWrites {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>>(pairs: I) -> Self {
        Self::from(pairs.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl From<BTreeMap<Vec<u8>, Option<Vec<u8>>>> for SpaceWrites {
    fn from(pairs: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Self {
        let mut bytes = Vec::new();
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| PairSpan::push(&mut bytes, &key, value.as_deref()))
            .collect();
        Self::from_parts(Arc::new(bytes), pairs)
    }
}

impl<'a> IntoIterator for &'a SpaceWrites {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = ChangedPairs<'a>;

    fn into_iter(self) -> ChangedPairs<'a> {
        self.iter()
    }
}

/// Changed keys in order, each with its value, or without one if the key is deleted.
#[derive(Clone, Debug)]
pub struct ChangedPairs<'a> {
    bytes: &'a [u8],
    pairs: std::slice::Iter<'a, PairSpan>,
}

impl<'a> Iterator for ChangedPairs<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.pairs.next()?;
        Some((pair.key(self.bytes), pair.value(self.bytes)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pairs.size_hint()
    }
}

impl DoubleEndedIterator for ChangedPairs<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let pair = self.pairs.next_back()?;
        Some((pair.key(self.bytes), pair.value(self.bytes)))
    }
}

impl ExactSizeIterator for ChangedPairs<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn writes_are_what_a_map_holds(
            pairs in prop::collection::vec(("[a-c]{0,3}", prop::option::of("[x-z]{0,2}")), 0..40),
            more in prop::collection::vec(("[a-c]{0,3}", prop::option::of("[x-z]{0,2}")), 0..9),
            at in "[a-c]{0,3}",
            end in prop::option::of("[a-c]{0,3}"),
        ) {
            type Pair = (Vec<u8>, Option<Vec<u8>>);
            let pair = |(key, value): (String, Option<String>)| -> Pair {
                (key.into_bytes(), value.map(String::into_bytes))
            };
            let pairs: Vec<Pair> = pairs.into_iter().map(pair).collect();
            let mut map: BTreeMap<_, _> = pairs.iter().cloned().collect();
            let mut writes: SpaceWrites = pairs.into_iter().collect();
            for (key, value) in more.into_iter().map(pair) {
                writes.insert(&key, value.as_deref());
                map.insert(key, value);
            }
            let owned = |pairs: ChangedPairs<'_>| -> Vec<Pair> {
                pairs.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
            };
            let of = |keep: &dyn Fn(&[u8]) -> bool| -> Vec<Pair> {
                map.clone().into_iter().filter(|(key, _)| keep(key)).collect()
            };
            prop_assert_eq!(writes.len(), map.len());
            for (key, value) in &map {
                prop_assert_eq!(writes.get(key), Some(value.as_deref()));
            }
            prop_assert_eq!(owned(writes.iter()), of(&|_| true));
            let backwards: Vec<_> = writes.iter().rev().collect();
            let mut forwards: Vec<_> = writes.iter().collect();
            forwards.reverse();
            prop_assert_eq!(backwards, forwards);
            let at = at.into_bytes();
            let (before, after) = writes.split_after(&at);
            prop_assert_eq!(owned(before), of(&|key| key <= at.as_slice()));
            prop_assert_eq!(owned(after), of(&|key| key > at.as_slice()));
            let range = KeyRange { start: at.clone(), end: end.map(String::into_bytes) };
            let expected = of(&|key| {
                key >= at.as_slice() && range.end.as_deref().is_none_or(|end| key < end)
            });
            prop_assert_eq!(owned(writes.within(&range)), expected);
        }
    }
}
