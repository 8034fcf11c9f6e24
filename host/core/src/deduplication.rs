//! The newest events by identity, in memory: an open-addressing table of places
//! in a ring, about 40 bytes an event.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::{EventRef, Offset, PartitionId};

/// What an event is known by, and a short hash of the rest of it. Two are equal if
/// they are of the same tenant, `source` and `id`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// The first 128 bits of the SHA-256 of tenant and `source`, the length of
    /// each in front, and `id`. A cryptographic hash, since a sender could
    /// otherwise make an event that hides another.
    pub hash: [u8; 16],
    /// A checksum of type, subject, data, its type and schema, and extensions: not
    /// of the time, which a sender may take at each try, nor of the trace.
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

/// See [`Identity`].
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
            // Over Kafka all values are text.
            match value {
                serde_json::Value::String(text) => add(text.as_bytes()),
                other => add(other.to_string().as_bytes()),
            }
        }
    }
    add(event.data);
    hash.finalize()
}

/// Where an event of the same identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEvent {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Whether its content is another one.
    pub differs: bool,
}

const FREE: u32 = u32::MAX;
const SLOTS_MIN: usize = 1024;

/// Remembers the newest events, up to a number of them.
pub struct DeduplicationWindow {
    limit: usize,
    ring: VecDeque<WindowEntry>,
    /// The running number of the ring's first entry, modulo 2³².
    base: u32,
    /// Running numbers modulo 2³²; [`FREE`] is skipped as a number.
    slots: Vec<u32>,
}

#[derive(Clone, Copy)]
struct WindowEntry {
    identity: Identity,
    partition: PartitionId,
    offset: Offset,
}

impl DeduplicationWindow {
    /// A window of the newest `limit` events; 0 remembers none.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        // Running numbers must tell all entries apart, with room for a pending
        // group; half the range is far above any sensible window.
        let limit = limit.min(u32::MAX / 4) as usize;
        Self { limit, ring: VecDeque::new(), base: 0, slots: vec![FREE; SLOTS_MIN] }
    }

    /// Whether it remembers any.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Where the event of this identity is.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<KnownEvent> {
        let slot = self.slot_of(identity).ok()?;
        let WindowEntry { identity: first, partition, offset } = *self.entry(self.slots[slot]);
        Some(KnownEvent { partition, offset, differs: first.content != identity.content })
    }

    /// Adds an event that [`DeduplicationWindow::find`] does not find. Grows past the limit
    /// until [`DeduplicationWindow::trim`].
    pub fn push(&mut self, identity: Identity, partition: PartitionId, offset: Offset) {
        if !self.is_on() {
            return;
        }
        if (self.ring.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let number = self.number(self.ring.len());
        if let Err(slot) = self.slot_of(&identity) {
            self.slots[slot] = number;
            self.ring.push_back(WindowEntry { identity, partition, offset });
        }
    }

    /// Forgets the oldest, down to the limit.
    pub fn trim(&mut self) {
        while self.ring.len() > self.limit {
            let Some(entry) = self.ring.front().copied() else {
                return;
            };
            self.free(&entry.identity);
            self.ring.pop_front();
            self.base = (self.base + 1) % FREE;
        }
    }

    fn number(&self, index: usize) -> u32 {
        let number = (u64::from(self.base) + index as u64) % u64::from(FREE);
        u32::try_from(number).expect("taken modulo 32 bits")
    }

    fn entry(&self, number: u32) -> &WindowEntry {
        let index = (u64::from(number) + u64::from(FREE) - u64::from(self.base)) % u64::from(FREE);
        &self.ring[usize::try_from(index).expect("below the ring's length")]
    }

    /// The slot that holds `identity`, or the free one where it belongs.
    fn slot_of(&self, identity: &Identity) -> Result<usize, usize> {
        let mut slot = self.home(identity);
        loop {
            match self.slots[slot] {
                FREE => return Err(slot),
                number if self.entry(number).identity == *identity => return Ok(slot),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn home(&self, identity: &Identity) -> usize {
        let (bytes, _) = identity.hash.as_chunks::<8>();
        // Only the low bits are kept, so cutting to the width of a pointer is fine.
        (u64::from_le_bytes(bytes[0]) & (self.slots.len() as u64 - 1)) as usize
    }

    /// Frees the slot of `identity`, moving those behind it up so that no
    /// search ends too early.
    fn free(&mut self, identity: &Identity) {
        let Ok(mut hole) = self.slot_of(identity) else {
            return;
        };
        let mask = self.slots.len() - 1;
        let mut slot = hole;
        loop {
            slot = (slot + 1) & mask;
            let number = self.slots[slot];
            if number == FREE {
                break;
            }
            let home = self.home(&self.entry(number).identity);
            // It may move if the hole is between its home and its slot.
            if (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(hole) & mask) {
                self.slots[hole] = number;
                hole = slot;
            }
        }
        self.slots[hole] = FREE;
    }

    fn grow(&mut self) {
        self.slots = vec![FREE; self.slots.len() * 2];
        for index in 0..self.ring.len() {
            let identity = self.ring[index].identity;
            // `slot_of` compares only with entries already placed.
            if let Err(slot) = self.slot_of(&identity) {
                self.slots[slot] = self.number(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;

    use super::*;
    use crate::Event;

    /// Few distinct homes, so that runs collide and wrap around.
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
        window.base = FREE - 60; // Running numbers wrap in this test.
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
