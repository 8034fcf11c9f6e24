//! Compares two states of a shard entry by entry: the state that the verification has folded, and
//! the stored state.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use lantern_core::{
    Manifest, OutboxEvent, ParkedKind, ParkedRecord, ReadStore, ShardMeta, Space, StoreError,
    Timestamp, dump,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::status::{FieldDifference, VerifiedTable, VerifyDifference};
use crate::outbox::{newest_unsent, posted};
use crate::timed_keys::key_time;

/// After each block of this many entries, the caller decides whether the comparison continues.
const PACE_ENTRIES: u64 = 1_000;
/// How many bytes of a value the report of a difference shows.
const SHOWN_BYTES_MAX: usize = 300;
/// How many fields of a row the report of a difference shows.
const FIELDS_MAX: usize = 20;

/// The result of a comparison.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) tables: Vec<VerifiedTable>,
    pub(super) first: Option<VerifyDifference>,
    pub(super) rows: u64,
    pub(super) differences: u64,
}

/// The entries that the two states have under one key.
struct Pair<'a> {
    space: Space,
    key: &'a [u8],
    expected: Option<&'a [u8]>,
    found: Option<&'a [u8]>,
}

struct Comparison<'a> {
    manifest: &'a Manifest,
    tables: BTreeMap<String, Digests>,
    first: Option<VerifyDifference>,
    rows: u64,
}

#[derive(Default)]
struct Digests {
    rows: u64,
    differences: u64,
    expected: Sha256,
    found: Sha256,
}

/// Compares all entries that depend on the log alone. It calls `pace` with the number of entries
/// compared since the previous call. If `pace` returns `false`, the comparison ends with `None`.
pub(super) fn compare(
    manifest: &Manifest,
    expected: &dyn ReadStore,
    found: &dyn ReadStore,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Compared>, StoreError> {
    let mut all = Comparison { manifest, tables: BTreeMap::new(), first: None, rows: 0 };
    all.counters(&counters(expected)?, &counters(found)?);
    let (mut left, mut right) = (dump::entries(expected), dump::entries(found));
    let (mut l, mut r) = (left.next().transpose()?, right.next().transpose()?);
    let mut since = 0;
    while let Some(order) = order(l.as_ref(), r.as_ref()) {
        let one = match order {
            Ordering::Greater => r.as_ref(),
            _ => l.as_ref(),
        };
        if let Some(one) = one {
            let value = |entry: Option<&'_ dump::Entry>| entry.map(|e| e.value.clone());
            let expected = value(l.as_ref().filter(|_| order != Ordering::Greater));
            let found = value(r.as_ref().filter(|_| order != Ordering::Less));
            all.add(&Pair {
                space: one.space,
                key: &one.key,
                expected: expected.as_deref(),
                found: found.as_deref(),
            });
        }
        if order != Ordering::Greater {
            l = left.next().transpose()?;
        }
        if order != Ordering::Less {
            r = right.next().transpose()?;
        }
        since += 1;
        if since == PACE_ENTRIES {
            since = 0;
            if !pace(PACE_ENTRIES) {
                return Ok(None);
            }
        }
    }
    Ok(Some(all.into()))
}

fn order(left: Option<&dump::Entry>, right: Option<&dump::Entry>) -> Option<Ordering> {
    match (left, right) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(l), Some(r)) => Some((l.space, &l.key).cmp(&(r.space, &r.key))),
    }
}

/// Compares the emitted events in the outbox with the events that the fold has emitted, and returns
/// the first difference.
pub(super) fn outbox(
    found: &dyn ReadStore,
    retained: &VecDeque<(String, OutboxEvent)>,
) -> Result<Option<VerifyDifference>, StoreError> {
    let retained: BTreeMap<&str, &OutboxEvent> =
        retained.iter().map(|(id, e)| (id.as_str(), e)).collect();
    // Only the newest events are compared, because only they are kept.
    for (key, bytes) in newest_unsent(found, retained.len().max(1))? {
        let difference =
            |expected: Option<&OutboxEvent>, found: Option<&OutboxEvent>| VerifyDifference {
                table: "the outbox".into(),
                key: hex::encode(&key),
                expected: expected.map(|e| quote_bytes(&e.data)),
                found: found.map(|e| quote_bytes(&e.data)),
                fields: Vec::new(),
            };
        let Some((id, event)) = posted(&bytes) else {
            return Ok(Some(difference(None, None)));
        };
        match retained.get(id.as_str()) {
            Some(expected) if **expected == event => {}
            expected => return Ok(Some(difference(expected.copied(), Some(&event)))),
        }
    }
    Ok(None)
}

/// Returns the counters in the shard's record that depend on the log alone but are not in the
/// canonical dump.
fn counters(store: &dyn ReadStore) -> Result<[(&'static str, u64); 4], StoreError> {
    let meta = ShardMeta::of(store)?;
    Ok([
        ("decisions", meta.decisions),
        ("emitted", meta.emitted),
        ("parked_total", meta.parked_total),
        ("timers_now", meta.timers_now),
    ])
}

impl Comparison<'_> {
    fn counters(&mut self, expected: &[(&'static str, u64)], found: &[(&'static str, u64)]) {
        for ((name, expected), (_, found)) in expected.iter().zip(found) {
            let (expected, found) = (expected.to_string(), found.to_string());
            self.add(&Pair {
                space: Space::Meta,
                key: name.as_bytes(),
                expected: Some(expected.as_bytes()),
                found: Some(found.as_bytes()),
            });
        }
    }

    fn add(&mut self, pair: &Pair<'_>) {
        self.rows += 1;
        let name = name_of(self.manifest, pair.space);
        let sums = self.tables.entry(name.clone()).or_default();
        sums.rows += u64::from(pair.found.is_some());
        let value = |bytes: &[u8]| match pair.space {
            Space::Parked => comparable_fields(bytes),
            _ => bytes.to_vec(),
        };
        let (expected, found) = (pair.expected.map(value), pair.found.map(value));
        for (sum, value) in [(&mut sums.expected, &expected), (&mut sums.found, &found)] {
            if let Some(value) = value {
                for bytes in [pair.key, value] {
                    sum.update((bytes.len() as u64).to_be_bytes());
                    sum.update(bytes);
                }
            }
        }
        if expected == found {
            return;
        }
        sums.differences += 1;
        if self.first.is_none() {
            self.first = Some(describe(name, pair));
        }
    }
}

impl From<Comparison<'_>> for Compared {
    fn from(all: Comparison<'_>) -> Self {
        let table = |(name, sums): (String, Digests)| VerifiedTable {
            name,
            rows: sums.rows,
            differences: sums.differences,
            expected: hex::encode(sums.expected.finalize()),
            found: hex::encode(sums.found.finalize()),
        };
        let tables: Vec<_> = all.tables.into_iter().map(table).collect();
        let differences = tables.iter().map(|table| table.differences).sum();
        Self { tables, first: all.first, rows: all.rows, differences }
    }
}

/// Returns a parked event without its reason as text, because that text may differ between
/// releases. Damaged bytes are returned unchanged.
fn comparable_fields(bytes: &[u8]) -> Vec<u8> {
    match ParkedRecord::decode(bytes) {
        Some(mut record) => {
            record.reason.clear();
            record.backtrace.clear();
            record.encode()
        }
        None => bytes.to_vec(),
    }
}

fn name_of(manifest: &Manifest, space: Space) -> String {
    let name = match space {
        Space::Table(table) => {
            let declared = manifest.tables.get(table.0 as usize);
            return declared.map_or_else(|| format!("table {table}"), |t| t.name.clone());
        }
        Space::TimersByTime => "timers by time",
        Space::TimersByKey => "timers by key",
        Space::Parked => "parked events",
        Space::ParkedSubjects => "parked subjects",
        Space::Expiry => "expiry of rows",
        _ => "counters",
    };
    // The parentheses distinguish this entry from a table with the same name.
    format!("({name})")
}

fn describe(table: String, pair: &Pair<'_>) -> VerifyDifference {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| value_text(pair.space, bytes));
    VerifyDifference {
        table,
        key: key_text(pair.space, pair.key),
        expected: text(pair.expected),
        found: text(pair.found),
        fields: fields(pair.expected, pair.found),
    }
}

fn key_text(space: Space, key: &[u8]) -> String {
    match (space, key.split_first_chunk::<8>()) {
        (Space::TimersByTime, Some((due, key))) => {
            format!("{} due {}", quote_bytes(key), time(key_time(*due)))
        }
        (Space::Parked, Some((offset, _))) => {
            format!("offset {}", u64::from_be_bytes(*offset))
        }
        (Space::Expiry, _) => hex::encode(key),
        _ => quote_bytes(key),
    }
}

fn value_text(space: Space, value: &[u8]) -> String {
    let number = value.first_chunk::<8>().filter(|_| value.len() == 8);
    match (space, number) {
        (Space::TimersByTime, Some(at)) => {
            format!("set to {}", time(Timestamp(i64::from_be_bytes(*at))))
        }
        (Space::TimersByKey | Space::Expiry, Some(due)) => time(key_time(*due)),
        (Space::ParkedSubjects, Some(count)) => u64::from_be_bytes(*count).to_string(),
        (Space::Parked, _) => match ParkedRecord::decode(value) {
            Some(record) => {
                let kind = match &record.kind {
                    ParkedKind::Event => "event",
                    ParkedKind::Waiting => "waiting event",
                    ParkedKind::Timer(..) => "timer",
                };
                let (id, subject) = (&record.event.id, &record.event.subject);
                format!("{kind} `{id}` of subject `{subject}`, tried {} times", record.attempts)
            }
            None => format!("damaged: {}", quote_bytes(value)),
        },
        _ => quote_bytes(value),
    }
}

fn time(time: Timestamp) -> String {
    format!("{} µs", time.0)
}

/// Returns the fields in which two JSON objects differ.
fn fields(expected: Option<&[u8]>, found: Option<&[u8]>) -> Vec<FieldDifference> {
    let object = |bytes: Option<&[u8]>| match serde_json::from_slice(bytes?).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    };
    let Some((expected, found)) = object(expected).zip(object(found)) else {
        return Vec::new();
    };
    let only_found = found.keys().filter(|name| !expected.contains_key(*name));
    let names = expected.keys().chain(only_found);
    let differing = names.filter(|name| expected.get(*name) != found.get(*name));
    let text = |value: Option<&Value>| value.map(|value| quote_bytes(value.to_string().as_bytes()));
    differing
        .take(FIELDS_MAX)
        .map(|name| FieldDifference {
            name: name.clone(),
            expected: text(expected.get(name)),
            found: text(found.get(name)),
        })
        .collect()
}

/// Bytes as text. Long text is cut, and unprintable characters are escaped.
fn quote_bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    let text = String::from_utf8_lossy(cut);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out + more
}
