//! Defines the small records that the file contains in addition to the chunks. Each of them has a
//! checksum:
//!
//! * an index entry for each chunk, which tells readers whether they can skip the chunk;
//! * a record for each partition;
//! * the identities of the newest events.

use lantern_core::{Identity, Offset, PartitionBounds, PartitionId, Timestamp, TypeFilter};

use super::codec::Encoded;
use super::encoding::{Reader, append_checksum, u32_of, verify_checksum};

const FORMAT: u8 = 2;
/// The maximum number of distinct types that an index entry lists. A chunk with more types is read
/// as if it could contain events of every type.
const TYPES_LISTED_MAX: usize = 256;
/// The maximum number of bytes of type names in an index entry.
const TYPES_BYTES_MAX: usize = 16 * 1024;

/// The index entry of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkMeta {
    /// The offset after the last event of the chunk.
    pub(crate) end: Offset,
    /// The number of bytes that the chunk takes on disk. The file rounds large sizes up.
    pub(crate) disk_bytes: u64,
    /// The earliest and the latest append time of the events in the chunk.
    pub(crate) appended_min: Timestamp,
    pub(crate) appended_max: Timestamp,
    /// The highest event time in the chunk.
    pub(crate) time_max: Timestamp,
    /// The latest append time of all events in the partition up to the end of this chunk, also of
    /// deleted ones. It never decreases from one chunk to the next, so a binary search finds the
    /// chunk for a time.
    pub(crate) appended_max_so_far: Timestamp,
    /// The event types in the chunk, each with the number of its events. `None` if there are too
    /// many types to list.
    pub(crate) types: Option<Vec<(String, u32)>>,
}

impl ChunkMeta {
    pub(crate) fn of(encoded: &Encoded, end: Offset, appended_before: Timestamp) -> Self {
        let names: usize = encoded.types.iter().map(|(name, _)| name.len()).sum();
        let listed = encoded.types.len() <= TYPES_LISTED_MAX && names <= TYPES_BYTES_MAX;
        Self {
            end,
            disk_bytes: disk_bytes(encoded.bytes.len()),
            appended_min: encoded.header.appended_min,
            appended_max: encoded.header.appended_max,
            time_max: encoded.header.time_max,
            appended_max_so_far: appended_before.max(encoded.header.appended_max),
            types: listed.then(|| encoded.types.clone()),
        }
    }

    /// Returns whether the chunk may contain an event of a type that `wanted` matches.
    pub(crate) fn may_match(&self, wanted: &TypeFilter) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|(name, _)| wanted.matches(name)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.end.0.to_le_bytes());
        bytes.extend(self.disk_bytes.to_le_bytes());
        for time in [self.appended_min, self.appended_max, self.time_max, self.appended_max_so_far]
        {
            bytes.extend(time.0.to_le_bytes());
        }
        let listed = self.types.as_ref().map_or(u32::MAX, |types| u32_of(types.len()));
        bytes.extend(listed.to_le_bytes());
        for (name, events) in self.types.iter().flatten() {
            bytes.extend(events.to_le_bytes());
            bytes.extend(u32_of(name.len()).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        append_checksum(bytes)
    }

    /// Decodes an index entry; `None` if the bytes are damaged or have another format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(verify_checksum(bytes)?);
        if reader.u8()? != FORMAT {
            return None;
        }
        let mut meta = Self {
            end: Offset(reader.u64()?),
            disk_bytes: reader.u64()?,
            appended_min: Timestamp(reader.i64()?),
            appended_max: Timestamp(reader.i64()?),
            time_max: Timestamp(reader.i64()?),
            appended_max_so_far: Timestamp(reader.i64()?),
            types: None,
        };
        let listed = reader.u32()?;
        if listed != u32::MAX {
            let mut types = Vec::new();
            for _ in 0..listed {
                let (events, len) = (reader.u32()?, reader.u32()?);
                let name = std::str::from_utf8(reader.bytes(len as usize)?).ok()?;
                types.push((name.to_owned(), events));
            }
            meta.types = Some(types);
        }
        reader.is_empty().then_some(meta)
    }
}

/// The record of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionRow {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// The highest event time. It leaves out events that are too far ahead of their append time;
    /// see [`PartitionBounds::max_time`].
    pub(crate) time_max: Timestamp,
    /// The latest append time of all events.
    pub(crate) appended_max: Timestamp,
    /// The append time of the last event. It is earlier than `appended_max` if the clock was set
    /// back.
    pub(crate) appended_last: Timestamp,
    pub(crate) chunks: u64,
    pub(crate) disk_bytes: u64,
}

impl PartitionRow {
    pub(crate) fn new() -> Self {
        let never = Timestamp::MIN;
        Self { time_max: never, appended_max: never, appended_last: never, ..Self::default() }
    }

    pub(crate) fn bounds(&self) -> PartitionBounds {
        PartitionBounds { start: self.start, end: self.end, max_time: self.time_max }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        for number in [self.start.0, self.end.0, self.chunks, self.disk_bytes] {
            bytes.extend(number.to_le_bytes());
        }
        for time in [self.time_max, self.appended_max, self.appended_last] {
            bytes.extend(time.0.to_le_bytes());
        }
        append_checksum(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(verify_checksum(bytes)?);
        if reader.u8()? != FORMAT {
            return None;
        }
        let row = Self {
            start: Offset(reader.u64()?),
            end: Offset(reader.u64()?),
            chunks: reader.u64()?,
            disk_bytes: reader.u64()?,
            time_max: Timestamp(reader.i64()?),
            appended_max: Timestamp(reader.i64()?),
            appended_last: Timestamp(reader.i64()?),
        };
        reader.is_empty().then_some(row)
    }
}

/// The maximum number of identities in one record. With this number, the record with its key and
/// header is just below 16 KiB.
pub(crate) const IDENTITIES_MAX: usize = 800;
/// The number of bytes of an identity: its hash, and the checksum of the event's content.
const IDENTITY_BYTES: usize = 20;

/// The identities of consecutive events of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventIdentities {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) hashes: Vec<Identity>,
}

impl EventIdentities {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(17 + self.hashes.len() * IDENTITY_BYTES);
        bytes.push(FORMAT);
        bytes.extend(self.partition.0.to_le_bytes());
        bytes.extend(self.first.0.to_le_bytes());
        for identity in &self.hashes {
            bytes.extend(identity.hash);
            bytes.extend(identity.content.to_le_bytes());
        }
        append_checksum(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = verify_checksum(bytes)?;
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return None;
        }
        let (partition, first) = (PartitionId(reader.u32()?), Offset(reader.u64()?));
        let (identities, rest) = bytes[13..].as_chunks::<IDENTITY_BYTES>();
        let identity = |bytes: &[u8; IDENTITY_BYTES]| {
            let (hash, content) = bytes.split_first_chunk::<16>()?;
            Some(Identity { hash: *hash, content: u32::from_le_bytes(content.try_into().ok()?) })
        };
        let hashes = identities.iter().map(identity).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self { partition, first, hashes })
    }
}

/// Returns the number of bytes that a value of `len` bytes takes in the file. If a value does not
/// fit into one page of 4 KiB, redb rounds the number of its pages up to a power of two.
pub(crate) fn disk_bytes(len: usize) -> u64 {
    const PAGE: usize = 4096;
    /// The number of bytes of a page with one value that the key and the header take.
    const OVERHEAD: usize = 32;
    let bytes = match len + OVERHEAD {
        small if small <= PAGE => small,
        large => large.div_ceil(PAGE).next_power_of_two() * PAGE,
    };
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses_each_flip_and_cut<T: PartialEq + std::fmt::Debug>(
        value: &T,
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) {
        assert_eq!(decode(bytes).as_ref(), Some(value));
        for index in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[index] ^= 1 << (index % 8);
            assert_eq!(decode(&flipped), None, "byte {index} flipped");
            assert_eq!(decode(&bytes[..index]), None, "cut to {index} bytes");
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let mut meta = ChunkMeta {
            end: Offset(7),
            disk_bytes: 4096,
            appended_min: Timestamp(1),
            appended_max: Timestamp(2),
            time_max: Timestamp(-3),
            appended_max_so_far: Timestamp(4),
            types: Some(vec![("order.placed".into(), 6), ("é".into(), 1)]),
        };
        refuses_each_flip_and_cut(&meta, &meta.encode(), ChunkMeta::decode);
        meta.types = None;
        refuses_each_flip_and_cut(&meta, &meta.encode(), ChunkMeta::decode);
        assert!(meta.may_match(&TypeFilter::new(&["x".into()])));
        let row = PartitionRow { start: Offset(3), end: Offset(9), ..PartitionRow::new() };
        refuses_each_flip_and_cut(&row, &row.encode(), PartitionRow::decode);
        let identities = EventIdentities {
            partition: PartitionId(2),
            first: Offset(5),
            hashes: vec![
                Identity { hash: [1; 16], content: 7 },
                Identity { hash: [2; 16], content: 8 },
            ],
        };
        refuses_each_flip_and_cut(&identities, &identities.encode(), EventIdentities::decode);
    }
}
