//! Implements the index of a table's rows in memory. It contains the key of each row, and which
//! rows have changed.
//!
//! In the index, each key has a position (*place*). The table stores the rows themselves at the
//! same positions. So the index does not depend on the type of the rows, and a plugin with several
//! types of rows contains this code only once.

use hashbrown::HashTable;

use crate::bindings::lantern::projection::types::Column;
use crate::error::Error;
use crate::key::{Key, NUL, push};
use crate::table_spec::TableSpec;
use crate::trigger;

/// Rows are prefetched only if, since the last prefetch, at least one in this number of keys had no
/// place in the index.
const MISSES_LEAST: usize = 16;

#[derive(Debug)]
pub(crate) struct RowCache {
    slots: Vec<CachedRow>,
    /// The keys of all slots, one after another in the order of the slots.
    keys: String,
    /// For each key, its place in `slots`, found by the hash of the key.
    index: HashTable<u32>,
    /// The places of the rows whose current value was not sent to the host yet.
    changed: Vec<u32>,
    /// The key that is being looked up. Its memory is used again, so that a lookup allocates
    /// nothing.
    key: String,
    /// The length in bytes of the tenant in `key`, if the key is an [`InTenant`](crate::InTenant).
    tenant: Option<usize>,
    /// Whether the keys of the table contain a tenant.
    per_tenant: bool,
    /// The number of keys that got a place since the last prefetch.
    missed: usize,
    /// The places of the keys that were prefetched, in the order in which they will be looked up.
    ahead: Vec<u32>,
    /// The number of keys of `ahead` that were looked up since the prefetch. While keys are still
    /// added to `ahead`, it is greater than the number of keys in `ahead`.
    looked: usize,
}

#[derive(Debug)]
struct CachedRow {
    /// The range of the slot's key in `keys`.
    key: (usize, usize),
    hash: u64,
    changed: bool,
    /// The index in the batch of the timer or event that last changed the row.
    cause: u32,
    /// Whether the row was used since rows were last dropped from memory.
    used: bool,
}

impl CachedRow {
    #[inline]
    fn key<'a>(&self, keys: &'a str) -> &'a str {
        let (start, end) = self.key;
        &keys[start..end]
    }
}

impl RowCache {
    pub(crate) fn new(per_tenant: bool) -> Self {
        Self {
            tenant: None,
            per_tenant,
            slots: Vec::new(),
            keys: String::new(),
            index: HashTable::new(),
            changed: Vec::new(),
            key: String::new(),
            // A new instance has no rows in memory, and it is not known which rows it needs.
            missed: usize::MAX,
            ahead: Vec::new(),
            looked: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Makes `key` the current key. Returns its place, if it has one, and its hash.
    #[inline]
    pub(crate) fn find(&mut self, key: impl Key) -> (Option<usize>, u64) {
        self.key.clear();
        key.write(&mut self.key);
        self.tenant = key.tenant().map(str::len);
        if self.per_tenant && self.tenant.is_none() {
            // A text that contains U+0000 may be equal to the stored key of a tenant's row, but it
            // is not a valid key.
            return (None, 0);
        }
        // After a prefetch, keys are usually looked up in the order in which they were prefetched.
        if let Some(place) = self.ahead.get(self.looked) {
            let place = *place as usize;
            let slot = &mut self.slots[place];
            if same(slot.key(&self.keys).as_bytes(), self.key.as_bytes()) {
                slot.used = true;
                self.looked += 1;
                return (Some(place), slot.hash);
            }
        }
        self.search()
    }

    /// Searches the current key. Returns its place, if it has one, and its hash.
    #[inline]
    fn search(&mut self) -> (Option<usize>, u64) {
        let hash = hash_of(self.key.as_bytes());
        let place = self.index.find(hash, |place| {
            let slot = &self.slots[*place as usize];
            slot.hash == hash && same(slot.key(&self.keys).as_bytes(), self.key.as_bytes())
        });
        match place {
            Some(place) => {
                let place = *place as usize;
                self.slots[place].used = true;
                (Some(place), hash)
            }
            None => (None, hash),
        }
    }

    /// Returns the key that was looked up last.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn key_at(&self, place: usize) -> &str {
        self.slots[place].key(&self.keys)
    }

    /// Returns the index in the batch of the timer or event that last changed the row at `place`.
    pub(crate) fn cause_at(&self, place: usize) -> u32 {
        self.slots[place].cause
    }

    /// Gives the current key the next place. `hash` is the hash of the key.
    pub(crate) fn insert(&mut self, hash: u64) -> usize {
        let place = self.slots.len();
        let start = self.keys.len();
        push(&mut self.keys, &self.key);
        let key = (start, self.keys.len());
        self.slots.push(CachedRow { key, hash, changed: false, cause: 0, used: true });
        self.missed = self.missed.saturating_add(1);
        let slots = &self.slots;
        self.index.insert_unique(hash, place as u32, |other| slots[*other as usize].hash);
        place
    }

    /// Notes that the current timer or event changes the row at `place`.
    #[inline]
    pub(crate) fn note(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.cause = trigger::cause();
        if !slot.changed {
            slot.changed = true;
            self.changed.push(place as u32);
        }
    }

    /// Returns the places of the changed rows, in the order of their first change.
    pub(crate) fn changed(&self) -> &[u32] {
        &self.changed
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Notes that the current values of all rows were sent to the host.
    pub(crate) fn sent(&mut self) {
        for place in self.changed.drain(..) {
            self.slots[place as usize].changed = false;
        }
    }

    /// Adds the causes of the last changes of the rows at `places`.
    pub(crate) fn add_causes(&self, places: impl Iterator<Item = usize>, causes: &mut Vec<u32>) {
        causes.extend(places.map(|place| self.slots[place].cause));
    }

    /// Returns whether the current timer or event may change the row at `place` of a table whose
    /// rows belong to tenants.
    pub(crate) fn check_tenant(&self, place: usize, spec: &TableSpec) -> Result<(), Error> {
        let key = self.key_at(place);
        if trigger::may_change(key) {
            return Ok(());
        }
        let why = "only an event or a timer of its tenant may change a row";
        Err(Error::Key { table: spec.name, key: key.to_owned(), why })
    }

    /// Notes that no more prefetched keys will be looked up.
    pub(crate) fn expect_none(&mut self) {
        self.ahead.clear();
        self.looked = usize::MAX;
    }

    /// Notes that the key at `place` will be looked up after the keys that were noted before.
    pub(crate) fn expect(&mut self, place: usize) {
        self.ahead.push(place as u32);
    }

    /// Notes that all keys which will be looked up were noted.
    pub(crate) fn expect_noted(&mut self) {
        self.looked = 0;
    }

    /// Removes the keys from `place` on. Their rows must not have changed.
    pub(crate) fn truncate(&mut self, place: usize) {
        if place < self.slots.len() {
            self.expect_none();
        }
        for (at, slot) in self.slots.iter().enumerate().skip(place) {
            if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other as usize == at) {
                entry.remove();
            }
        }
        let end = self.slots.get(place).map_or(self.keys.len(), |slot| slot.key.0);
        self.keys.truncate(end);
        self.slots.truncate(place);
    }

    /// Adds the keys at `places` to `column`.
    pub(crate) fn add_keys(
        &self,
        places: impl Iterator<Item = usize>,
        column: &mut Column,
    ) -> Result<(), Error> {
        // Adjacent keys are copied together.
        let (mut start, mut end) = (0, 0);
        let mut bytes = column.bytes.len();
        for place in places {
            let key = self.slots[place].key;
            if key.0 != end {
                column.bytes.extend_from_slice(&self.keys.as_bytes()[start..end]);
                start = key.0;
            }
            end = key.1;
            bytes += key.1 - key.0;
            column.ends.push(end_of(bytes)?);
        }
        column.bytes.extend_from_slice(&self.keys.as_bytes()[start..end]);
        Ok(())
    }

    /// Estimates how many of at most `keys` keys have no place. The estimate is the number of keys
    /// that had no place since the last estimate. If the number is so small that a prefetch is not
    /// worth a call, returns 0.
    pub(crate) fn expect_missing(&mut self, keys: usize) -> usize {
        let missed = std::mem::take(&mut self.missed);
        if missed < keys.div_ceil(MISSES_LEAST) { 0 } else { missed.min(keys) }
    }

    /// Drops rows from memory so that at most half of `rows` are left. Returns a flag for each
    /// place, in order: `true` if the row at this place is still in memory. If all rows are
    /// dropped, returns `None`. All changes must have been sent to the host before.
    pub(crate) fn drop_some(&mut self, rows: usize) -> Option<Vec<bool>> {
        self.expect_none();
        self.index.clear();
        // Rows that were used since the last call are kept, unless they are the majority. If most
        // rows were used, keeping them would soon fill the table again.
        let used = self.slots.iter().filter(|slot| slot.used).count();
        if used == 0 || used > rows / 2 {
            self.slots.clear();
            self.keys.clear();
            return None;
        }
        let kept: Vec<bool> = self.slots.iter().map(|slot| slot.used).collect();
        self.slots.retain(|slot| slot.used);
        let keys = std::mem::take(&mut self.keys);
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let start = self.keys.len();
            push(&mut self.keys, slot.key(&keys));
            slot.key = (start, self.keys.len());
            slot.used = false;
            // This never allocates memory, because the table was larger before.
            self.index.insert_unique(slot.hash, place as u32, |_| slot.hash);
        }
        Some(kept)
    }

    /// Checks whether the table may contain the current key. Only keys without a place need this
    /// check.
    pub(crate) fn check_key(&self, spec: &TableSpec) -> Result<(), Error> {
        let key = self.key.as_str();
        let mut nuls = key.bytes().enumerate().filter(|(_, byte)| *byte == 0).map(|(at, _)| at);
        let why = match (spec.per_tenant, self.tenant) {
            _ if key.is_empty() => "a key cannot be empty",
            (true, None) => "the table is per tenant; use `InTenant(tenant, key)`",
            (true, Some(0)) => "the tenant is empty; handle events without a tenant separately",
            (true, Some(tenant)) if key.len() == tenant + 1 => "a key cannot be empty",
            (true, tenant) if nuls.next() != tenant || nuls.next().is_some() => NUL,
            (false, Some(_)) => "the table is not per tenant; use `(tenant, key)`",
            (false, None) if nuls.next().is_some() => NUL,
            _ => return Ok(()),
        };
        Err(Error::Key { table: spec.name, key: key.to_owned(), why })
    }
}

/// Columns in which changes are sent to the host. They are kept from call to call, so that sending
/// allocates nothing.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) causes: Vec<u32>,
    pub(crate) keys: Column,
    pub(crate) values: Column,
    pub(crate) deletes: Vec<u32>,
    pub(crate) deleted: Column,
}

impl Columns {
    pub(crate) fn new() -> Self {
        let empty = || Column { ends: Vec::new(), bytes: Vec::new() };
        Self {
            causes: Vec::new(),
            keys: empty(),
            values: empty(),
            deletes: Vec::new(),
            deleted: empty(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.causes.clear();
        self.deletes.clear();
        for column in [&mut self.keys, &mut self.values, &mut self.deleted] {
            column.ends.clear();
            column.bytes.clear();
        }
    }
}

/// Ends the value whose bytes were appended to `column`.
#[inline]
pub(crate) fn end_value(column: &mut Column) -> Result<(), Error> {
    column.ends.push(end_of(column.bytes.len())?);
    Ok(())
}

#[inline]
fn end_of(bytes: usize) -> Result<u32, Error> {
    u32::try_from(bytes).map_err(|_| Error::Batch("more than 4 GiB were written in one call"))
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the hash of a key. It needs no random seed, because it only decides the place of a row
/// in memory, which has no visible effect. The function reads eight bytes at a time. Keys differ
/// most in their last bytes, which are in the high half of a word. In a product, these bytes would
/// affect only the highest bits. So the high half is mixed into the low half before each
/// multiplication. (A product of 128 bits would not need this, but in Wasm its calculation is a
/// slow call.)
///
/// In Wasm, copying or comparing a few bytes is a call if their number is known only at run time.
/// So this function and [`same`] do neither.
#[inline]
fn hash_of(key: &[u8]) -> u64 {
    let mix = |word: u64| (word ^ (word >> 32)).wrapping_mul(MULTIPLIER);
    let fold = |hash: u64, word: u64| mix(hash ^ word);
    let (words, rest) = key.as_chunks::<8>();
    let mut hash = MULTIPLIER ^ key.len() as u64;
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    let last = match key.last_chunk::<8>() {
        // Some bytes are read twice. This does no harm, because the length is part of the hash.
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |last, byte| (last << 8) | u64::from(*byte)),
    };
    hash = fold(hash, last);
    // The index uses bits from both ends of the hash.
    hash = mix(hash);
    hash ^ (hash >> 32)
}

#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let words = a_words.iter().zip(b_words);
    let mut rest = a_rest.iter().zip(b_rest);
    a.len() == b.len()
        && words.into_iter().all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b))
        && rest.all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tests typical keys. The index uses the low bits of the hash, and the seven highest.
    #[test]
    fn keys_that_differ_little_are_spread_well() {
        const PLACES: usize = 1 << 15;
        let families: [fn(u32) -> String; 4] = [
            |n| format!("p{n}"),
            |n| format!("2026-01-01T{:02}:{:02}:00Z/t{}", n / 60_000, n / 1000 % 60, n % 1000),
            |n| format!("{n:010}"),
            |n| format!("t{}/{}", n % 64, n / 64),
        ];
        for family in families {
            let (mut low, mut high) = (vec![0_u32; PLACES], vec![0_u32; 128]);
            for n in 0..PLACES as u32 {
                let hash = hash_of(family(n).as_bytes());
                low[hash as usize % PLACES] += 1;
                high[(hash >> 57) as usize] += 1;
            }
            // As with a random function, 63 % of the positions are used, and each of them by at
            // most about nine keys.
            let taken = low.iter().filter(|count| **count > 0).count();
            assert!(taken > 20_000, "{} takes {taken} places", family(1));
            assert!(low.iter().all(|count| *count < 14), "{} heaps up", family(1));
            assert!(high.iter().all(|count| (128..512).contains(count)), "{}", family(1));
        }
    }

    proptest! {
        #[test]
        fn keys_are_the_same_where_their_bytes_are(
            shared in "[a-zü/]{0,20}",
            a in "[ab\u{0}ü]{0,20}",
            b in "[ab\u{0}ü]{0,20}",
        ) {
            let (a, b) = (format!("{shared}{a}"), format!("{shared}{b}"));
            prop_assert!(same(a.as_bytes(), a.clone().as_bytes()));
            prop_assert_eq!(same(a.as_bytes(), b.as_bytes()), a == b);
        }
    }
}
