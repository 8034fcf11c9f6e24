//! Encodes rows and changes as JSON text, once for all subscribers.
//!
//! A [`DeltaParts`] is the content of a delta: `"up":{…},"del":[…]`. In a frame this
//! content follows a short header, which differs between subscriptions. Stored values are
//! copied into the text and not parsed into a tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::value::RawValue;
use thiserror::Error;

/// The error for a row that is too large for a frame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the row `{key}` has {bytes} bytes, and a frame has room for {room}: raise `frame_bytes_max`"
)]
pub(crate) struct RowTooLarge {
    pub(crate) key: String,
    pub(crate) bytes: usize,
    pub(crate) room: usize,
}

/// The changes of one table, cut into parts that each fit into a frame. There is at least one part.
#[derive(Debug)]
pub(crate) struct DeltaParts {
    pub(crate) parts: Vec<Bytes>,
    /// Reserves the bytes of the parts in a shared budget until the parts are dropped.
    _lease: Option<BudgetLease>,
}

/// A number of bytes that are reserved in a shared budget. They are released when this is dropped.
#[derive(Debug)]
pub(crate) struct BudgetLease {
    budget: Arc<AtomicUsize>,
    bytes: usize,
}

impl BudgetLease {
    /// Reserves `bytes` in the budget. Returns `None` if more than `max` bytes would then be
    /// reserved.
    pub(crate) fn take(budget: &Arc<AtomicUsize>, bytes: usize, max: usize) -> Option<Self> {
        budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= max)
            })
            .ok()?;
        Some(Self { budget: budget.clone(), bytes })
    }

    /// Reserves `bytes` instead of the bytes that are reserved now. Returns `false`, and changes
    /// nothing, if more bytes are needed and more than `max` bytes would then be reserved.
    pub(crate) fn resize(&mut self, bytes: usize, max: usize) -> bool {
        let resized = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let used = used - self.bytes + bytes;
            (bytes <= self.bytes || used <= max).then_some(used)
        });
        if resized.is_ok() {
            self.bytes = bytes;
        }
        resized.is_ok()
    }
}

impl Drop for BudgetLease {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl DeltaParts {
    /// Encodes the changes of rows. A value of `None` means that the row is deleted.
    ///
    /// # Errors
    /// Returns [`RowTooLarge`] if a row does not fit into a frame.
    pub(crate) fn encode<'a>(
        changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        part_bytes: usize,
        lease: Option<BudgetLease>,
    ) -> Result<Self, RowTooLarge> {
        let mut parts = Vec::new();
        // Merged changes are sorted by key, so changed rows and deleted keys are mixed. A frame
        // contains them separately, so they are collected in two buffers.
        let (mut up, mut del) = (Vec::new(), Vec::new());
        let mut entry = Vec::new();
        let room = part_bytes.saturating_sub(FRAGMENT_FRAME);
        for (key, value) in changes {
            entry.clear();
            push_key(&mut entry, key);
            if let Some(value) = value {
                entry.push(b':');
                push_value(&mut entry, key, value);
            }
            if entry.len() > room {
                return Err(RowTooLarge { key: key.to_owned(), bytes: entry.len(), room });
            }
            // The 1 is the comma.
            if up.len() + del.len() + entry.len() + 1 > room {
                parts.push(join(&up, &del));
                up.clear();
                del.clear();
            }
            push_entry(if value.is_some() { &mut up } else { &mut del }, &entry);
        }
        if !up.is_empty() || !del.is_empty() || parts.is_empty() {
            parts.push(join(&up, &del));
        }
        Ok(Self { parts, _lease: lease })
    }
}

/// The size of `"up":{},"del":[]`, in bytes.
const FRAGMENT_FRAME: usize = 16;

fn join(up: &[u8], del: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(up.len() + del.len() + FRAGMENT_FRAME);
    text.extend_from_slice(b"\"up\":{");
    text.extend_from_slice(up);
    text.extend_from_slice(b"},\"del\":[");
    text.extend_from_slice(del);
    text.push(b']');
    text.into()
}

fn push_entry(list: &mut Vec<u8>, entry: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(entry);
}

fn push_key(text: &mut Vec<u8>, key: &str) {
    serde_json::to_writer(text, key).expect("a string always encodes");
}

/// Appends the value of a row to `text`. The host checks that rows are JSON when they are written.
/// If a value is not JSON nevertheless, `null` is appended instead, so that the rest of the frame
/// stays valid.
fn push_value(text: &mut Vec<u8>, key: &str, value: &[u8]) {
    if serde_json::from_slice::<&RawValue>(value).is_ok() {
        let start = text.len();
        text.extend_from_slice(value);
        // JSON has line breaks only between its tokens. In an event stream they would end the line.
        for byte in &mut text[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    } else {
        tracing::error!(key, "a stored row is no JSON; the feed shows it as null");
        text.extend_from_slice(b"null");
    }
}

/// Collects the rows of a snapshot in parts. Each part is a JSON object that fits into a frame.
pub(crate) struct SnapshotParts {
    room: usize,
    part: Vec<u8>,
    entry: Vec<u8>,
}

impl SnapshotParts {
    pub(crate) fn new(part_bytes: usize) -> Self {
        Self { room: part_bytes.saturating_sub(2), part: Vec::new(), entry: Vec::new() }
    }

    /// Adds a row to the current part. If it does not fit, it returns this part, and begins a new
    /// part with the row.
    ///
    /// # Errors
    /// Returns [`RowTooLarge`] if the row does not fit into a frame.
    pub(crate) fn push(&mut self, key: &str, value: &[u8]) -> Result<Option<Bytes>, RowTooLarge> {
        self.entry.clear();
        push_key(&mut self.entry, key);
        self.entry.push(b':');
        push_value(&mut self.entry, key, value);
        if self.entry.len() > self.room {
            let bytes = self.entry.len();
            return Err(RowTooLarge { key: key.to_owned(), bytes, room: self.room });
        }
        let full = self.part.len() + self.entry.len() + 1 > self.room;
        let done = full.then(|| self.finish());
        push_entry(&mut self.part, &self.entry);
        Ok(done)
    }

    /// Returns the last part: the rows that [`SnapshotParts::push`] has not returned. It may be
    /// empty.
    pub(crate) fn finish(&mut self) -> Bytes {
        let mut text = Vec::with_capacity(self.part.len() + 2);
        text.push(b'{');
        text.append(&mut self.part);
        text.push(b'}');
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    #[test]
    fn parts_fit_and_together_hold_every_change() {
        let rows: Vec<(String, Option<Vec<u8>>)> = (0..200)
            .map(|i| {
                (format!("k\u{0}\"{i}"), (i % 3 != 0).then(|| format!("{{\"n\":{i}}}").into()))
            })
            .collect();
        let changes = rows.iter().map(|(k, v)| (k.as_str(), v.as_deref()));
        let fragment = DeltaParts::encode(changes, 300, None).unwrap();
        assert!(fragment.parts.len() > 5);
        let (mut up, mut del) = (BTreeMap::new(), Vec::new());
        for part in &fragment.parts {
            assert!(part.len() <= 300, "{}", part.len());
            let text = format!("{{{}}}", std::str::from_utf8(part).unwrap());
            let part: Value = serde_json::from_str(&text).unwrap();
            for (key, value) in part["up"].as_object().unwrap() {
                up.insert(key.clone(), value["n"].as_u64().unwrap());
            }
            del.extend(part["del"].as_array().unwrap().iter().cloned());
        }
        assert_eq!(up.len() + del.len(), 200);
        assert_eq!(up["k\u{0}\"1"], 1);
    }

    #[test]
    fn a_row_larger_than_a_frame_is_named_and_a_broken_one_becomes_null() {
        let large = format!("\"{}\"", "x".repeat(400));
        let changes = [("k", Some(large.as_bytes()))];
        let error = DeltaParts::encode(changes.into_iter(), 300, None).unwrap_err();
        assert_eq!(error.key, "k");
        let fragment = DeltaParts::encode([("k", Some(&b"{"[..]))].into_iter(), 300, None).unwrap();
        assert_eq!(&fragment.parts[0][..], br#""up":{"k":null},"del":[]"#);
    }

    #[test]
    fn a_lease_gives_back_what_it_took() {
        let budget = Arc::new(AtomicUsize::new(0));
        let lease = BudgetLease::take(&budget, 60, 100).unwrap();
        assert!(BudgetLease::take(&budget, 60, 100).is_none());
        drop(lease);
        let mut lease = BudgetLease::take(&budget, 60, 100).unwrap();
        for (bytes, resized) in [(90, true), (101, false), (10, true), (100, true)] {
            assert_eq!(lease.resize(bytes, 100), resized, "{bytes}");
        }
        assert!(lease.resize(99, 50), "less memory is always possible");
        drop(lease);
        assert_eq!(budget.load(Ordering::Relaxed), 0);
    }
}
