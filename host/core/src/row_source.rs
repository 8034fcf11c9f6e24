//! Reads the rows of one table in key order, for readers that need whole tables.

use crate::view::merged_value;
use crate::{KeyRange, PairBuffer, ReadStore, Space, StoreError, TableId, TableSpec};

/// The rows of a table as of one commit. Rows of several partitions under one key are merged.
pub trait RowSource {
    /// Passes the key and the value of each row of `range` to `take` in key order, until `take`
    /// returns `false`. If `reverse` is set, the read begins with the last row.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the rows cannot be read.
    fn each_row(
        &self,
        range: &KeyRange,
        reverse: bool,
        take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// Reads the rows of a table from the snapshots of all shards.
pub(crate) struct ShardRows<'v> {
    pub(crate) table: TableId,
    pub(crate) spec: Option<&'v TableSpec>,
    pub(crate) stores: Vec<&'v dyn ReadStore>,
}

impl RowSource for ShardRows<'_> {
    fn each_row(
        &self,
        range: &KeyRange,
        reverse: bool,
        take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut cursors = Vec::with_capacity(self.stores.len());
        for store in &self.stores {
            let mut cursor = ShardCursor {
                store: *store,
                space: Space::Table(self.table),
                range: range.clone(),
                reverse,
                pairs: PairBuffer::default(),
                index: 0,
                ended: false,
            };
            cursor.fill()?;
            cursors.push(cursor);
        }
        if let [cursor] = cursors.as_mut_slice() {
            return cursor.each(take);
        }
        let mut held = Vec::new();
        loop {
            held.clear();
            first_key(&cursors, reverse, &mut held);
            let Some((key, value)) = held.first().and_then(|first| cursors[*first].pair()) else {
                return Ok(());
            };
            let goes_on = if held.len() == 1 {
                take(key, value)
            } else {
                let values = held.iter().filter_map(|index| Some(cursors[*index].pair()?.1));
                take(key, &merged_value(self.spec, &values.collect::<Vec<_>>()))
            };
            if !goes_on {
                return Ok(());
            }
            for index in &held {
                cursors[*index].advance()?;
            }
        }
    }
}

/// Sets `held` to the cursors that are at the next key: their indexes, in order of partition.
fn first_key(cursors: &[ShardCursor<'_>], reverse: bool, held: &mut Vec<usize>) {
    let mut first: Option<&[u8]> = None;
    for (index, cursor) in cursors.iter().enumerate() {
        let Some((key, _)) = cursor.pair() else { continue };
        let order = first.map(|first| if reverse { first.cmp(key) } else { key.cmp(first) });
        match order {
            Some(std::cmp::Ordering::Greater) => continue,
            Some(std::cmp::Ordering::Equal) => (),
            Some(std::cmp::Ordering::Less) | None => {
                held.clear();
                first = Some(key);
            }
        }
        held.push(index);
    }
}

/// Reads the rows of one shard, several at a time.
struct ShardCursor<'v> {
    store: &'v dyn ReadStore,
    space: Space,
    /// The range of keys that have not been read yet.
    range: KeyRange,
    reverse: bool,
    pairs: PairBuffer,
    index: usize,
    ended: bool,
}

impl ShardCursor<'_> {
    fn pair(&self) -> Option<(&[u8], &[u8])> {
        self.pairs.get(self.index)
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.index += 1;
        if self.index < self.pairs.len() || self.ended { Ok(()) } else { self.fill() }
    }

    fn each(&mut self, take: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        while self.pair().is_some() {
            while let Some((key, value)) = self.pair() {
                if !take(key, value) {
                    return Ok(());
                }
                self.index += 1;
            }
            if !self.ended {
                self.fill()?;
            }
        }
        Ok(())
    }

    /// Reads the next rows of the shard into the buffer.
    fn fill(&mut self) -> Result<(), StoreError> {
        self.pairs.clear();
        self.index = 0;
        if !self.range.is_empty() {
            self.store.scan_into(self.space, &self.range, self.reverse, &mut self.pairs)?;
        }
        let last = self.pairs.len().checked_sub(1).and_then(|last| self.pairs.get(last));
        self.ended = !self.pairs.is_full();
        if let Some((key, _)) = last {
            let mut key = key.to_vec();
            if self.reverse {
                self.range.end = Some(key);
            } else {
                key.push(0);
                self.range.start = key;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{FieldSpec, Merge, Pairs};

    /// A store that contains one table.
    struct Rows(BTreeMap<Vec<u8>, Vec<u8>>);

    impl ReadStore for Rows {
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
            let mut pairs: Pairs =
                self.0.clone().into_iter().filter(|(key, _)| within(key)).collect();
            if reverse {
                pairs.reverse();
            }
            pairs.truncate(limit);
            Ok(pairs)
        }

        fn spaces(&self) -> Result<Vec<Space>, StoreError> {
            Ok(vec![Space::Table(TableId(0))])
        }
    }

    #[test]
    fn rows_of_several_shards_come_merged_and_in_order() {
        let field =
            |name: &str, merge| FieldSpec { name: name.into(), merge, ..FieldSpec::default() };
        let spec = TableSpec { fields: vec![field("n", Merge::Sum)], ..TableSpec::default() };
        // Shard `n` has each key that `n` divides. So some keys are in all shards, and there are
        // more rows than are read at a time.
        let stores = [1, 2, 3].map(|shard| {
            let keys = (0..3_000_u32).filter(|key| key % shard == 0);
            let row = |key| (format!("k{key:05}").into_bytes(), b"{\"n\":1}".to_vec());
            Rows(keys.map(row).collect())
        });
        let count =
            |key: u32| 1 + u32::from(key.is_multiple_of(2)) + u32::from(key.is_multiple_of(3));
        for (range, keys) in [
            (KeyRange::all(), 0..3_000),
            (KeyRange::of(b"k00007", b"k02050"), 7..2_050),
            (KeyRange::of(b"x", b""), 0..0),
            (KeyRange::of(b"k2", b"k1"), 0..0),
        ] {
            for (reverse, stores) in [(false, &stores[..]), (true, &stores), (false, &stores[..1])]
            {
                let all = stores.len() > 1;
                let row = |key: u32| (format!("k{key:05}"), if all { count(key) } else { 1 });
                let mut expected: Vec<_> = keys.clone().map(row).collect();
                if reverse {
                    expected.reverse();
                }
                let rows = ShardRows {
                    table: TableId(0),
                    spec: Some(&spec),
                    stores: stores.iter().map(|store| store as &dyn ReadStore).collect(),
                };
                let read = |most: usize| {
                    let mut found = Vec::new();
                    let mut take = |key: &[u8], value: &[u8]| {
                        let row: serde_json::Value = serde_json::from_slice(value).unwrap();
                        let key = String::from_utf8(key.to_vec()).unwrap();
                        found.push((key, u32::try_from(row["n"].as_u64().unwrap()).unwrap()));
                        found.len() < most
                    };
                    rows.each_row(&range, reverse, &mut take).unwrap();
                    found
                };
                assert_eq!(read(usize::MAX), expected);
                expected.truncate(5);
                assert_eq!(read(5), expected, "ended by the reader");
            }
        }
    }
}
