//! Reads and writes a shard's state in canonical form. Checks use this form to hash a state, to
//! write it to a file, and to find the first difference of two states.
//!
//! The canonical dump contains the parts of a state that depend on the log alone: rows, timers,
//! parked events, times at which rows expire and, from [`ShardMeta`], the next offset and counters.
//! It leaves out the parts that depend on when commits happened: the number of commits, the feed's
//! change log and the outbox. So two shards that folded the same events have equal dumps, whatever
//! their batches, commits and restarts were.
//!
//! States may be larger than memory, so they are read in pages. If a shard is being written to,
//! pass a snapshot of it ([`crate::ShardStore::snapshot`]); otherwise the pages come from different
//! commits.

use std::cmp::Ordering;
use std::fmt;
use std::io::{self, Write};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{KeyRange, Pairs, ReadStore, ShardMeta, Space, StoreError};

/// The maximum number of pairs of key and value in a page.
const PAGE_PAIRS_MAX: usize = 1_000;
/// The target size of a page in bytes. A page of large values has fewer pairs.
const PAGE_BYTES: usize = 4 << 20;
/// The number of bytes of a key or value that a [`Difference`] shows as text.
const SHOWN_BYTES_MAX: usize = 200;
/// The first line of a dump: the name and version of the format.
const MAGIC: &[u8] = b"lantern-dump 1\n";
/// The byte that follows the last entry of a dump. The number of entries follows this byte.
const END: u8 = 0xFF;

/// One entry of the canonical dump: the key and the value of one pair in a space. In
/// [`Space::Meta`], the key is the name of a field of [`ShardMeta`], and the value is a decimal
/// number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The space that the entry belongs to.
    pub space: Space,
    /// The key of the entry.
    pub key: Vec<u8>,
    /// The value of the entry.
    pub value: Vec<u8>,
}

/// The first difference of two states. When it is displayed as text, long values are cut and
/// unprintable characters are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The space of the entry that differs.
    pub space: Space,
    /// The key of the entry that differs. In [`Space::Meta`] it is the name of a field of
    /// [`ShardMeta`].
    pub key: Vec<u8>,
    /// The value that the left state has under the key.
    pub left: Option<Vec<u8>>,
    /// The value that the right state has under the key.
    pub right: Option<Vec<u8>>,
}

/// Why a dump was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dump cannot be written to its destination.
    #[error("the dump cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Returns the entries of the canonical dump of `store`, in order of space and key. The iterator
/// ends after the first error.
pub fn entries(store: &dyn ReadStore) -> impl Iterator<Item = Result<Entry, StoreError>> + '_ {
    Entries::new(store)
}

/// Writes the canonical dump of `store` to `out`. Writes are small, so `out` should be
/// buffered.
///
/// The dump begins with a line that names the format. Then each entry follows: its space, its key
/// and its value. A space is one byte; the space of a table has the table's number in 4 more bytes.
/// The length of each key and value, in 8 bytes, precedes it. The dump ends with a byte 255 and the
/// number of entries in 8 bytes. All numbers are big-endian.
///
/// # Errors
/// Returns [`DumpError`]. In this case part of the dump may have been written.
pub fn write_to(store: &dyn ReadStore, out: &mut dyn Write) -> Result<(), DumpError> {
    out.write_all(MAGIC)?;
    let mut count = 0_u64;
    for entry in Entries::new(store) {
        let entry = entry?;
        let (tag, table) = tag(entry.space);
        out.write_all(&[tag])?;
        if let Some(table) = table {
            out.write_all(&table.to_be_bytes())?;
        }
        for bytes in [&entry.key, &entry.value] {
            out.write_all(&(bytes.len() as u64).to_be_bytes())?;
            out.write_all(bytes)?;
        }
        count += 1;
    }
    out.write_all(&[END])?;
    out.write_all(&count.to_be_bytes())?;
    Ok(())
}

/// Returns the SHA-256 of the bytes that [`write_to`] writes, in lower-case hexadecimal.
///
/// # Errors
/// Returns [`StoreError`] if the state cannot be read.
pub fn hash(store: &dyn ReadStore) -> Result<String, StoreError> {
    let mut sha = HashWriter(Sha256::new());
    match write_to(store, &mut sha) {
        Ok(()) => Ok(sha.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
        Err(DumpError::Store(e)) => Err(e),
        Err(DumpError::Write(e)) => Err(StoreError::Io(e.to_string())),
    }
}

/// A writer that hashes the bytes written to it.
struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the first difference between the canonical dumps of `left` and `right`; `None` if they
/// are equal.
///
/// # Errors
/// Returns [`StoreError`] if one of them cannot be read.
pub fn first_difference(
    left: &dyn ReadStore,
    right: &dyn ReadStore,
) -> Result<Option<Difference>, StoreError> {
    let (mut left, mut right) = (Entries::new(left), Entries::new(right));
    loop {
        let (l, r) = (left.next().transpose()?, right.next().transpose()?);
        let order = match (&l, &r) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(l), Some(r)) => (l.space, &l.key).cmp(&(r.space, &r.key)),
        };
        let differs = match (order, l, r) {
            (Ordering::Less, Some(l), _) => only(l, true),
            (Ordering::Greater, _, Some(r)) => only(r, false),
            (_, Some(l), Some(r)) if l.value != r.value => {
                Difference { space: l.space, key: l.key, left: Some(l.value), right: Some(r.value) }
            }
            _ => continue,
        };
        return Ok(Some(differs));
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |v: &Option<Vec<u8>>| v.as_ref().map_or("nothing".into(), |v| excerpt(v));
        let (space, key) = (space_name(self.space), excerpt(&self.key));
        write!(f, "{space}, key {key}: {} against {}", value(&self.left), value(&self.right))
    }
}

/// Returns the difference that is reported if only one of the two states has `entry`.
fn only(entry: Entry, left: bool) -> Difference {
    let Entry { space, key, value } = entry;
    let (left, right) = if left { (Some(value), None) } else { (None, Some(value)) };
    Difference { space, key, left, right }
}

/// `bytes` as text between backquotes. Long text is cut, and unprintable characters are escaped.
fn excerpt(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    let text: String = String::from_utf8_lossy(cut)
        .chars()
        .flat_map(|c| {
            let control = c.is_control();
            control.then(|| c.escape_default()).into_iter().flatten().chain((!control).then_some(c))
        })
        .collect();
    format!("`{text}{more}`")
}

fn space_name(space: Space) -> String {
    match space {
        Space::Meta => "the shard's own record".into(),
        Space::Table(table) => format!("table {table}"),
        Space::TimersByTime => "timers by time".into(),
        Space::TimersByKey => "timers by key".into(),
        Space::Parked => "parked events".into(),
        Space::ParkedSubjects => "parked subjects".into(),
        Space::Outbox => "the outbox".into(),
        Space::Changes => "the change log".into(),
        Space::Expiry => "expiry of rows".into(),
    }
}

/// Returns the number of a space in the dump. The numbers are part of the dump's format and must
/// never change.
fn tag(space: Space) -> (u8, Option<u32>) {
    match space {
        Space::Meta => (0, None),
        Space::Table(table) => (1, Some(table.0)),
        Space::TimersByTime => (2, None),
        Space::TimersByKey => (3, None),
        Space::Parked => (4, None),
        Space::ParkedSubjects => (5, None),
        Space::Outbox => (6, None),
        Space::Changes => (7, None),
        Space::Expiry => (8, None),
    }
}

/// Reads the entries of a state page by page.
struct Entries<'a> {
    store: &'a dyn ReadStore,
    /// The spaces that are still to be read, in reverse order; `None` before the first
    /// read.
    spaces: Option<Vec<Space>>,
    /// The space that is being read, and the start of its next page.
    current: Option<(Space, Vec<u8>)>,
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    page_space: Space,
    /// The maximum number of pairs in the next page.
    limit: usize,
    done: bool,
}

impl<'a> Entries<'a> {
    fn new(store: &'a dyn ReadStore) -> Self {
        Self {
            store,
            spaces: None,
            current: None,
            page: Vec::new().into_iter(),
            page_space: Space::Meta,
            limit: 32,
            done: false,
        }
    }

    /// Reads the next page. Returns `false` if there is no further page.
    fn fill(&mut self) -> Result<bool, StoreError> {
        let Some(spaces) = &mut self.spaces else {
            let mut spaces = self.store.spaces()?;
            spaces.retain(|s| !matches!(s, Space::Meta | Space::Outbox | Space::Changes));
            spaces.sort_unstable();
            spaces.reverse();
            self.spaces = Some(spaces);
            self.page = meta(self.store)?.into_iter();
            return Ok(true);
        };
        let next = self.current.take().or_else(|| spaces.pop().map(|space| (space, Vec::new())));
        let Some((space, start)) = next else {
            return Ok(false);
        };
        let range = KeyRange { start, end: None };
        let pairs = self.store.scan(space, &range, self.limit, false)?;
        if pairs.len() >= self.limit
            && let Some((last, _)) = pairs.last()
        {
            // The first key after `last` is `last` and a zero byte.
            let mut after = last.clone();
            after.push(0);
            self.current = Some((space, after));
        }
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let wide = pairs.len().saturating_mul(PAGE_BYTES) / bytes.max(1);
        self.limit = wide.clamp(1, (self.limit * 2).min(PAGE_PAIRS_MAX));
        self.page_space = space;
        self.page = pairs.into_iter();
        Ok(true)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            if let Some((key, value)) = self.page.next() {
                return Some(Ok(Entry { space: self.page_space, key, value }));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => self.done = true,
                Err(e) => {
                    self.done = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

/// Returns the fields of the shard's record that depend on the log alone, in order of key. A shard
/// that never committed has the fields of an empty record.
fn meta(store: &dyn ReadStore) -> Result<Pairs, StoreError> {
    let meta = ShardMeta::of(store)?;
    let fields = [
        ("ahead", meta.ahead.count.to_string()),
        ("applied", meta.applied.to_string()),
        ("late", meta.late.to_string()),
        ("max_time", meta.max_time.to_string()),
        ("next", meta.next.to_string()),
        ("parked_now", meta.parked_now.to_string()),
        ("timers_fired", meta.timers_fired.to_string()),
        ("watermark", meta.watermark.to_string()),
    ];
    Ok(fields.into_iter().map(|(key, value)| (key.into(), value.into_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Offset, TableId};

    #[derive(Clone, Default)]
    struct MapStore(BTreeMap<(Space, Vec<u8>), Vec<u8>>);

    impl MapStore {
        fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> &mut Self {
            self.0.insert((space, key.to_vec()), value.to_vec());
            self
        }

        fn meta(&mut self, meta: &ShardMeta) -> &mut Self {
            self.put(Space::Meta, ShardMeta::KEY, &serde_json::to_vec(meta).unwrap())
        }
    }

    impl ReadStore for MapStore {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.0.get(&(space, key.to_vec())).cloned())
        }

        fn scan(
            &self,
            space: Space,
            range: &KeyRange,
            limit: usize,
            reverse: bool,
        ) -> Result<Pairs, StoreError> {
            assert!(!reverse && range.end.is_none() && limit <= PAGE_PAIRS_MAX);
            let from = self.0.range((space, range.start.clone())..);
            let within = from.take_while(|((s, _), _)| *s == space).take(limit);
            Ok(within.map(|((_, k), v)| (k.clone(), v.clone())).collect())
        }

        fn spaces(&self) -> Result<Vec<Space>, StoreError> {
            let mut spaces: Vec<_> = self.0.keys().map(|(space, _)| *space).collect();
            spaces.dedup();
            Ok(spaces)
        }
    }

    const ROWS: Space = Space::Table(TableId(0));

    fn large() -> MapStore {
        let mut state = MapStore::default();
        for i in 0..5_000_u32 {
            state.put(ROWS, format!("k{i:05}").as_bytes(), &i.to_be_bytes());
        }
        // Pages of large values have fewer pairs, and none is lost.
        for i in 0..20_u8 {
            state.put(Space::Table(TableId(1)), &[i], &vec![i; 1 << 20]);
        }
        state.put(Space::Parked, b"p", b"1");
        state
    }

    #[test]
    fn a_state_of_many_pages_comes_whole_and_in_order() {
        let state = large();
        let all: Vec<_> = entries(&state).map(Result::unwrap).collect();
        assert_eq!(all.len(), 8 + 5_000 + 20 + 1);
        assert!(all.is_sorted_by_key(|e| (e.space, e.key.clone())));
        let rows = all.into_iter().filter(|e| e.space != Space::Meta);
        assert!(rows.map(|e| ((e.space, e.key), e.value)).eq(state.0.clone()));
    }

    #[test]
    fn the_dump_leaves_out_what_depends_on_commits() {
        let mut left = large();
        let mut right = left.clone();
        left.meta(&ShardMeta { next: Offset(7), pos: 1, ..ShardMeta::default() });
        let other = ShardMeta {
            next: Offset(7),
            pos: 9,
            emitted: 3,
            parked_total: 2,
            changes_from: crate::ShardPoint { steps: 4, ..crate::ShardPoint::default() },
            changes_bytes: 99,
            ..ShardMeta::default()
        };
        right.meta(&other).put(Space::Changes, b"c", b"1").put(Space::Outbox, b"o", b"1");
        assert_eq!(first_difference(&left, &right).unwrap(), None);
        assert_eq!(hash(&left).unwrap(), hash(&right).unwrap());
    }

    #[test]
    fn a_shard_that_never_committed_equals_an_empty_one() {
        let mut empty = MapStore::default();
        empty.meta(&ShardMeta::default());
        assert_eq!(hash(&MapStore::default()).unwrap(), hash(&empty).unwrap());
    }

    #[test]
    fn the_first_difference_names_space_key_and_both_values() {
        let same = large();
        let check = |edit: &dyn Fn(&mut MapStore), space, key: &[u8], l: Option<&[u8]>, r| {
            let mut other = same.clone();
            edit(&mut other);
            let actual = first_difference(&same, &other).unwrap().unwrap();
            let r: Option<&[u8]> = r;
            let expected = Difference {
                space,
                key: key.to_vec(),
                left: l.map(<[u8]>::to_vec),
                right: r.map(<[u8]>::to_vec),
            };
            assert_eq!(actual, expected);
            assert_ne!(hash(&same).unwrap(), hash(&other).unwrap());
            let back = first_difference(&other, &same).unwrap().unwrap();
            assert_eq!((back.left, back.right), (expected.right, expected.left));
        };
        let edit = |s: &mut MapStore| {
            s.put(ROWS, b"k03000", b"x").put(Space::Parked, b"p", b"2");
        };
        check(&edit, ROWS, b"k03000", Some(&3_000_u32.to_be_bytes()), Some(b"x"));
        let edit = |s: &mut MapStore| {
            s.put(ROWS, b"k03000x", b"new");
        };
        check(&edit, ROWS, b"k03000x", None, Some(b"new"));
        let edit = |s: &mut MapStore| {
            s.0.remove(&(Space::Parked, b"p".to_vec()));
        };
        check(&edit, Space::Parked, b"p", Some(b"1"), None);
        let edit = |s: &mut MapStore| {
            s.meta(&ShardMeta { late: 4, ..ShardMeta::default() });
        };
        check(&edit, Space::Meta, b"late", Some(b"0"), Some(b"4"));
    }

    #[test]
    fn a_difference_reads_well() {
        let difference = Difference {
            space: ROWS,
            key: b"t1\0u1".to_vec(),
            left: Some(b"{}".to_vec()),
            right: None,
        };
        assert_eq!(difference.to_string(), "table 0, key `t1\\u{0}u1`: `{}` against nothing");
    }

    #[test]
    fn the_form_of_the_dump_stays_as_it_is() {
        let mut state = MapStore::default();
        state.put(Space::Table(TableId(2)), b"k", b"vv");
        let mut bytes = Vec::new();
        write_to(&state, &mut bytes).unwrap();
        let tail = b"\x01\0\0\0\x02\0\0\0\0\0\0\0\x01k\0\0\0\0\0\0\0\x02vv\xFF\0\0\0\0\0\0\0\x09";
        assert!(bytes.starts_with(b"lantern-dump 1\n\0\0\0\0\0\0\0\0\x05ahead"));
        assert!(bytes.ends_with(tail));
    }
}
