//! What can be set about the embedded log. The doc comments are the reference.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::OpenError;

/// The most partitions a log can have.
pub const PARTITIONS_LIMIT: u32 = 1024;

/// The most events a chunk can be set to hold.
pub const CHUNK_EVENTS_LIMIT: u32 = 16_384;

/// The least and the most bytes a chunk can be set to aim at.
const CHUNK_BYTES: std::ops::RangeInclusive<u32> = 4_096..=8 * 1024 * 1024;

/// The embedded log's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How many partitions the log has, 1 to 1,024. Fixed once the log exists.
    /// More than one lets several cores fold one projection; the order of
    /// events is then kept within a subject only.
    ///
    /// An event's partition is the 64-bit FNV-1a hash of its `subject` (of
    /// `source`, a zero byte and `id` where it has none), finished by
    /// xor-shift-multiply, modulo the number of partitions.
    pub partitions: u32,
    /// The bytes an encoded chunk aims at, 4 KiB to 8 MiB. The file rounds
    /// large values up to powers of two, so choose just below one: the default
    /// is 128 KiB less 256 bytes.
    pub chunk_bytes: u32,
    /// The most events in one chunk, 1 to 16,384.
    pub chunk_events_max: u32,
    /// How chunks are compressed. Chunks already written keep their way, and
    /// stay readable.
    pub compression: Compression,
    /// The newest how many events are remembered by tenant, `source` and `id`, so that
    /// one that is sent again is told apart and not appended again. 0 turns
    /// that off. Takes about 40 bytes of memory and 20 bytes of disk an event.
    pub dedup_window_events: u32,
    /// Events appended longer ago than this, in seconds, are let go, a chunk at
    /// a time. Not set: kept forever.
    pub retention_age_seconds: Option<u64>,
    /// Where the chunks take more bytes on disk than this, the oldest are let
    /// go; the newest chunk of a partition stays. Not set: no limit. The file
    /// does not shrink; its room is used again.
    pub retention_bytes: Option<u64>,
    /// The bytes of events that may wait to become durable. Appends past it are
    /// refused at once, to be sent again later; so is a single append larger
    /// than this.
    pub queue_bytes: usize,
    /// Memory for decoded chunks, in bytes, shared by all readers, so that many
    /// projections that follow the log decode each chunk once. 0 turns it off.
    pub cache_bytes: usize,
    /// Memory for pages of the file, in bytes.
    pub page_cache_bytes: usize,
    /// Appends are refused while the disk has fewer bytes free than this, so
    /// that there is always room to open the file again and to let go of old
    /// events.
    pub disk_reserve_bytes: u64,
    /// While the chunks take at most this many bytes, each commit also stores
    /// which pages of the file are free, and opening the log after a crash is
    /// instant. In a larger log the whole file is read then, at about a second
    /// a gigabyte. What is stored grows with the file, by about 64 KiB a
    /// gigabyte: single-event commits measured 17 % slower in an empty log.
    pub fast_recovery_bytes: u64,
    /// A log on Kafka stands in this section too: whoever chooses between the two
    /// reads it, nothing here does.
    #[serde(skip_serializing, deserialize_with = "passed_over")]
    #[schemars(skip)]
    pub kafka: (),
}

fn passed_over<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// How a chunk is compressed.
///
/// Measured with chunks of 128 KiB on 339,850 real events (flights; bytes on
/// disk, CPU time to append and to scan an event): none 207 B, 850 ns, 60 ns;
/// LZ4 51 B, 910 ns, 120 ns; Zstandard 31 B, 970 ns, 150 ns. On events half of
/// random digits: none 189 B, 680 ns, 60 ns; LZ4 131 B, 860 ns, 80 ns;
/// Zstandard 72 B, 1,000 ns, 140 ns. Readers far outnumber writers, so LZ4 is
/// the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all: the fastest to read.
    None,
    /// LZ4: a half to a quarter of the room for little time.
    #[default]
    Lz4,
    /// Zstandard, level 1: the smallest.
    Zstd,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            chunk_bytes: 128 * 1024 - 256,
            chunk_events_max: 8_192,
            compression: Compression::default(),
            dedup_window_events: 1_000_000,
            retention_age_seconds: None,
            retention_bytes: None,
            queue_bytes: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            page_cache_bytes: 32 * 1024 * 1024,
            disk_reserve_bytes: 64 * 1024 * 1024,
            fast_recovery_bytes: 1024 * 1024 * 1024,
            kafka: (),
        }
    }
}

impl LogConfig {
    /// Checks each setting against its bounds.
    ///
    /// # Errors
    /// [`OpenError::Setting`] for the first that is out of them.
    pub fn check(&self) -> Result<(), OpenError> {
        let within = |field: &'static str, value: u32, min: u32, max: u32| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(OpenError::Setting { field, value: u64::from(value), min, max })
        };
        within("partitions", self.partitions, 1, PARTITIONS_LIMIT)?;
        within("chunk_bytes", self.chunk_bytes, *CHUNK_BYTES.start(), *CHUNK_BYTES.end())?;
        within("chunk_events_max", self.chunk_events_max, 1, CHUNK_EVENTS_LIMIT)
    }
}
