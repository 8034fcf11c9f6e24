//! Gives the experiments and fuzz targets in `tests/` access to the log's formats. Not part of the
//! API.

use lantern_core::{Chunk, Events, Offset, PartitionId, Timestamp};

use super::Compression;
use super::chunk_meta::{ChunkMeta, EventIdentities, PartitionRow};
use super::codec::{Encoder, ToEncode, decode};
use super::encoding::append_checksum;

/// Decodes `bytes` as the chunk of `partition` that begins at `first`.
///
/// # Errors
/// Returns the reason if `bytes` is not this chunk.
pub fn chunk(bytes: &[u8], partition: PartitionId, first: Offset) -> Result<Chunk, String> {
    decode(bytes, partition, first).map(|(_, chunk)| chunk).map_err(|error| error.to_string())
}

/// Encodes a chunk, which [`chunk`] can decode; `None` if `events` is empty.
#[must_use]
pub fn encode_chunk(
    events: &Events,
    compression: Compression,
    partition: PartitionId,
    first: Offset,
) -> Option<Vec<u8>> {
    let range = 0..events.len();
    let appended: Vec<_> = (1..).map(Timestamp).take(events.len()).collect();
    let chunk = ToEncode { events, range, partition, first, appended: &appended };
    (!events.is_empty()).then(|| Encoder::new(compression).encode(&chunk).bytes)
}

/// Makes the header of `bytes` valid: mark, partition, first offset and checksum. Decoding then
/// continues to the faults in the rest of `bytes`.
#[must_use]
pub fn forge_chunk(bytes: &[u8], partition: PartitionId, first: Offset) -> Vec<u8> {
    let mut forged = bytes.to_vec();
    if forged.len() >= 24 {
        forged[..4].copy_from_slice(b"LNC2");
        forged[12..16].copy_from_slice(&partition.0.to_le_bytes());
        forged[16..24].copy_from_slice(&first.0.to_le_bytes());
        let crc = crc32fast::hash(&forged[8..]);
        forged[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    forged
}

/// Decodes `bytes` in three ways: as the record of a chunk, of a partition, and of identities.
/// Encodes each result again.
#[must_use]
pub fn record(bytes: &[u8]) -> [Option<Vec<u8>>; 3] {
    [
        ChunkMeta::decode(bytes).map(|record| record.encode()),
        PartitionRow::decode(bytes).map(|record| record.encode()),
        EventIdentities::decode(bytes).map(|record| record.encode()),
    ]
}

/// Adds a valid checksum to `bytes`, so that they can be decoded as a record.
#[must_use]
pub fn forge_record(bytes: &[u8]) -> Vec<u8> {
    append_checksum(bytes.to_vec())
}

/// Creates one record of each kind.
#[must_use]
pub fn records() -> [Vec<u8>; 3] {
    let chunk = ChunkMeta {
        end: Offset(7),
        disk_bytes: 4_096,
        appended_min: Timestamp(1),
        appended_max: Timestamp(2),
        time_max: Timestamp(-3),
        appended_max_so_far: Timestamp(4),
        types: Some(vec![("order.placed".into(), 6), ("é".into(), 1)]),
    };
    let row = PartitionRow { start: Offset(3), end: Offset(9), ..PartitionRow::new() };
    let (partition, first) = (PartitionId(2), Offset(5));
    let identity = |n: u8| lantern_core::Identity { hash: [n; 16], content: u32::from(n) };
    let identities = EventIdentities { partition, first, hashes: [1, 2].map(identity).to_vec() };
    [chunk.encode(), row.encode(), identities.encode()]
}
