//! Implements the deduplication window. It remembers the identities of the newest events in memory,
//! and finds an event by its identity.
//!
//! The window consists of a ring with one entry for each event, and a hash table that finds the
//! entry of an identity. It takes about 40 bytes per event.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use hashbrown::HashTable;
use sha2::{Digest, Sha256};

use crate::{EventRef, Offset, PartitionId};

/// The identity of an event, and a short hash of its content. Two values are equal if tenant,
/// `source` and `id` of the events are equal, even if the content differs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// The first 128 bits of a SHA-256 of three values: the event's tenant and `source`, each after
    /// its length, and its `id`. The hash is cryptographic, because otherwise a sender could
    /// construct an event with the same hash as another event. The log would then take that other
    /// event for a duplicate.
    pub hash: [u8; 16],
    /// A checksum of type, subject, data, data type and schema, and extensions. It leaves out the
    /// time and the trace attributes, because a sender that repeats an event may set these to new
    /// values.
    pub content: u32,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// Returns the identity of an event; see [`Identity`].
#[must_use]
pub fn identity(event: &EventRef<'_>) -> Identity {
    let mut hash = Sha256::new();
    for part in [event.tenant, event.source] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(event.id);
    let digest: [u8; 32] = hash.finalize().into();
    let (halves, _) = digest.as_chunks();
    Identity { hash: halves[0], content: content_hash(event) }
}

fn content_hash(event: &EventRef<'_>) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for part in [event.kind, event.subject, event.datacontenttype, event.dataschema] {
        add(part.as_bytes());
    }
    if !event.extensions.is_empty() {
        let extensions: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(event.extensions).unwrap_or_default();
        for (name, value) in extensions {
            if name == "traceparent" || name == "tracestate" {
                continue;
            }
            add(name.as_bytes());
            // Kafka stores all values as text. So an attribute must have the same hash as a number
            // and as the text of this number.
            match value {
                serde_json::Value::String(text) => add(text.as_bytes()),
                other => add(other.to_string().as_bytes()),
            }
        }
    }
    add(event.data);
    hash.finalize()
}

/// Where the log has an event that was appended before with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEvent {
    /// The partition of the earlier event.
    pub partition: PartitionId,
    /// The offset of the earlier event.
    pub offset: Offset,
    /// Whether the content of the two events differs.
    pub differs: bool,
}

/// Remembers the newest events, up to a limit.
pub struct DeduplicationWindow {
    limit: usize,
    ring: VecDeque<WindowEntry>,
    /// The number of the ring's first entry. Entries are numbered in the order in which they are
    /// added, modulo 2³².
    base: u32,
    /// The numbers of all entries (see `base`), in a hash table by the entry's identity.
    numbers: HashTable<u32>,
}

#[derive(Clone, Copy)]
struct WindowEntry {
    identity: Identity,
    partition: PartitionId,
    offset: Offset,
}

impl DeduplicationWindow {
    /// Creates a window that remembers the newest `limit` events; no events if `limit` is 0.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        // Two entries must never have the same number, even if the events of a pending append
        // exceed the limit. Therefore the limit is at most a quarter of the range of numbers. No
        // window needs that many.
        let limit = limit.min(u32::MAX / 4) as usize;
        Self { limit, ring: VecDeque::new(), base: 0, numbers: HashTable::new() }
    }

    /// Returns whether the window is used. It is not used if its limit is 0.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Returns where the log has the event with this identity, if the window still remembers it.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<KnownEvent> {
        let entry = |number: &u32| entry(&self.ring, self.base, *number);
        let same = |number: &u32| entry(number).identity == *identity;
        let WindowEntry { identity: first, partition, offset } =
            *entry(self.numbers.find(hash(identity), same)?);
        Some(KnownEvent { partition, offset, differs: first.content != identity.content })
    }

    /// Adds an event whose identity [`DeduplicationWindow::find`] does not find. The window may
    /// exceed its limit until the caller calls [`DeduplicationWindow::trim`].
    pub fn push(&mut self, identity: Identity, partition: PartitionId, offset: Offset) {
        if !self.is_on() || self.find(&identity).is_some() {
            return;
        }
        let number = self.base.wrapping_add(
            u32::try_from(self.ring.len()).expect("a window and a group have far fewer events"),
        );
        self.ring.push_back(WindowEntry { identity, partition, offset });
        let Self { ring, base, numbers, .. } = self;
        let hash_of = |number: &u32| hash(&entry(ring, *base, *number).identity);
        numbers.insert_unique(hash(&identity), number, hash_of);
    }

    /// Removes the oldest entries until the window is within its limit.
    pub fn trim(&mut self) {
        while self.ring.len() > self.limit {
            let Some(oldest) = self.ring.pop_front() else {
                return;
            };
            let base = self.base;
            if let Ok(number) =
                self.numbers.find_entry(hash(&oldest.identity), |number| *number == base)
            {
                number.remove();
            }
            self.base = base.wrapping_add(1);
        }
    }
}

/// Returns the entry with the number `number` in a ring whose first entry has the number `base`.
fn entry(ring: &VecDeque<WindowEntry>, base: u32, number: u32) -> &WindowEntry {
    &ring[number.wrapping_sub(base) as usize]
}

/// Returns a part of the identity, used as the hash of the hash table. It is uniform, and a sender
/// cannot choose it.
fn hash(identity: &Identity) -> u64 {
    let (bytes, _) = identity.hash.as_chunks::<8>();
    u64::from_le_bytes(bytes[0])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;

    use super::*;
    use crate::Event;

    /// Returns an identity with one of few distinct hashes, so that entries collide.
    fn numbered(n: u64) -> Identity {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&(n % 7).wrapping_sub(3).to_le_bytes());
        hash[8..].copy_from_slice(&n.to_le_bytes());
        Identity { hash, content: 0 }
    }

    #[test]
    fn it_remembers_what_a_map_and_a_queue_remember() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut window = DeduplicationWindow::new(50);
        window.base = u32::MAX - 60; // Running numbers wrap in this test.
        let (mut model, mut order) = (HashMap::new(), VecDeque::new());
        for offset in 0..5_000_u64 {
            let n = rng.u64(0..150);
            let found = window.find(&numbered(n)).map(|seen| seen.offset.0);
            assert_eq!(found, model.get(&n).copied());
            if found.is_none() {
                window.push(numbered(n), PartitionId(0), Offset(offset));
                model.insert(n, offset);
                order.push_back(n);
            }
            if rng.bool() {
                window.trim();
                while order.len() > 50 {
                    model.remove(&order.pop_front().unwrap());
                }
            }
            assert_eq!(window.ring.len(), order.len());
        }
    }

    #[test]
    fn a_window_of_none_remembers_none() {
        let mut window = DeduplicationWindow::new(0);
        window.push(numbered(1), PartitionId(0), Offset(0));
        assert_eq!(window.find(&numbered(1)), None);
    }

    #[test]
    fn an_event_is_identified_by_tenant_source_and_id_and_compared_by_its_content() {
        let event = |tenant: &str, source: &str, id: &str, data: &str, extensions: &str| {
            let (tenant, source, id) = (tenant.into(), source.into(), id.into());
            let (data, extensions) = (data.into(), extensions.into());
            let event = Event { tenant, source, id, data, extensions, ..Event::default() };
            identity(&event.as_ref())
        };
        let first = event("a", "s", "1", "x", r#"{"n":1,"traceparent":"t1"}"#);
        let mut window = DeduplicationWindow::new(9);
        window.push(first, PartitionId(2), Offset(7));
        let again = event("a", "s", "1", "x", r#"{"traceparent":"t2","n":"1"}"#);
        let seen = KnownEvent { partition: PartitionId(2), offset: Offset(7), differs: false };
        assert_eq!(window.find(&again), Some(seen));
        for other in [event("a", "s", "1", "y", ""), event("a", "s", "1", "x", r#"{"n":2}"#)] {
            assert_eq!(window.find(&other), Some(KnownEvent { differs: true, ..seen }));
        }
        for other in [
            event("b", "s", "1", "x", ""),
            event("", "as", "1", "x", ""),
            event("as", "", "1", "x", ""),
            event("a", "s1", "", "x", ""),
        ] {
            assert_eq!(window.find(&other), None);
        }
    }
}
