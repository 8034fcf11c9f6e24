//! Reads through layers: what a call wrote, what was applied before it and not
//! committed yet, and the committed state below.

use std::collections::BTreeMap;
use std::ops::Bound;

use lantern_core::{KeyRange, Pairs, ReadStore, Space, StoreError, Writes};

/// What a changed pair takes in memory besides its key and value, in bytes:
/// without it, the smallest rows would take many times what is counted.
pub(crate) const PAIR_BYTES: usize = 64;

/// Changed pairs in memory; `None` marks a deleted key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    writes: Writes,
    bytes: usize,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// About the bytes of all changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    pub(crate) fn from_writes(writes: Writes, bytes: usize) -> Self {
        Self { writes, bytes }
    }

    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }

    pub(crate) fn set(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += PAIR_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.writes.entry(space).or_default().insert(key, value);
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        self.writes.get(&space)?.get(key).map(Option::as_deref)
    }

    /// Lays `over` on top of this.
    pub(crate) fn merge(&mut self, over: Self) {
        self.bytes += over.bytes;
        for (space, pairs) in over.writes {
            let below = self.writes.entry(space).or_default();
            if below.is_empty() {
                *below = pairs;
            } else {
                below.extend(pairs);
            }
        }
    }
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

fn changed_in<'a>(layers: &[&'a Overlay], space: Space, range: &KeyRange) -> Changed<'a> {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let bounds = (Bound::Included(range.start.as_slice()), end);
    let mut changed = Changed::new();
    for layer in layers.iter().rev() {
        if let Some(pairs) = layer.writes.get(&space) {
            let pairs = pairs.range::<[u8], _>(bounds);
            changed.extend(pairs.map(|(key, value)| (key.as_slice(), value.as_deref())));
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
    use super::*;

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
                    layer.set(Space::Outbox, key(i), put.then(|| b"layer".to_vec()));
                    if put {
                        model.insert(key(i), b"layer".to_vec());
                    } else {
                        model.remove(&key(i));
                    }
                }
            }
            for limit in 0..6 {
                for reverse in [false, true] {
                    let range = KeyRange::all();
                    let found =
                        scan(&[&high, &low], &stored, Space::Outbox, &range, limit, reverse)
                            .unwrap();
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
