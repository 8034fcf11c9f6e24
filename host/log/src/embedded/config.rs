//! Defines the settings of the embedded log. Their doc comments are the source of the reference in
//! docs/config.md.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::OpenError;

/// The maximum number of partitions that a log can have.
pub const PARTITIONS_LIMIT: u32 = 1024;

/// The maximum value of `chunk_events_max`.
pub const CHUNK_EVENTS_LIMIT: u32 = 16_384;

/// The range of allowed values of `chunk_bytes`.
const CHUNK_BYTES: std::ops::RangeInclusive<u32> = 4_096..=8 * 1024 * 1024;

/// The embedded log's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The number of partitions, 1 to 1,024. It cannot be changed once the log exists. With more
    /// than one partition, several cores can fold one projection, but the order of events is kept
    /// only within a subject.
    ///
    /// An event's partition is the 64-bit FNV-1a hash of its `subject`, finished by
    /// xor-shift-multiply, modulo the number of partitions. If the subject is empty, `source`, a
    /// zero byte and `id` are hashed instead.
    pub partitions: u32,
    /// The target size of an encoded chunk in bytes, 4 KiB to 8 MiB. The file rounds
    /// large values up to powers of two, so choose a size just below one. The default is
    /// 128 KiB less 256 bytes.
    pub chunk_bytes: u32,
    /// The most events in one chunk, 1 to 16,384.
    pub chunk_events_max: u32,
    /// How new chunks are compressed. Existing chunks keep their compression and stay
    /// readable.
    pub compression: Compression,
    /// The size of the deduplication window: the number of newest events in which duplicates are
    /// recognized by tenant, `source` and `id`. Duplicates are not appended. The window takes about
    /// 40 bytes of memory and 20 bytes of disk per event. 0 turns the window off.
    pub dedup_window_events: u32,
    /// The age at which events are deleted, in seconds since they were appended. They are deleted a
    /// chunk at a time. Not set: events are kept forever.
    pub retention_age_seconds: Option<u64>,
    /// The maximum size of all chunks on disk, in bytes. If they take more, the oldest chunks are
    /// deleted, except the newest chunk of each partition. The file does not shrink, but its free
    /// space is used again. Not set: no limit.
    pub retention_bytes: Option<u64>,
    /// The maximum size of the events that wait to become durable, in bytes. An append that exceeds
    /// it is refused at once; the sender can send it again later. A single append that is larger
    /// than this is always refused.
    pub queue_bytes: usize,
    /// Memory for decoded chunks, in bytes. All readers share it, so each chunk is decoded once
    /// even if many projections follow the log. 0 turns this cache off.
    pub cache_bytes: usize,
    /// Memory for pages of the file, in bytes.
    pub page_cache_bytes: usize,
    /// The free space that appends leave on the disk, in bytes. If less is free, appends are
    /// refused. This space is needed to open the file again and to delete old events.
    pub disk_reserve_bytes: u64,
    /// The maximum size of all chunks, in bytes, up to which the log opens at once after a crash.
    /// Up to this size, each commit also stores a list of the file's free pages. If the chunks take
    /// more, there is no list. The whole file is then read after a crash, which takes about a
    /// second per gigabyte. The list takes about 64 KiB per gigabyte of the file. In an empty log,
    /// commits of a single event were 17 % slower with the list than without it.
    pub fast_recovery_bytes: u64,
    /// The settings of a log on Kafka are in this section too. This crate ignores them.
    /// The server reads them to choose between the two logs.
    #[serde(skip_serializing, deserialize_with = "passed_over")]
    #[schemars(skip)]
    pub kafka: (),
}

fn passed_over<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// How a chunk is compressed. Events are read far more often than they are written, so LZ4 is the
/// default.
///
/// Measured with chunks of 128 KiB; all figures are per event:
///
/// | events | compression | bytes on disk | CPU time to append | CPU time to scan |
/// |---|---|---|---|---|
/// | 339,850 real ones (flights) | none | 207 | 850 ns | 60 ns |
/// | | LZ4 | 51 | 910 ns | 120 ns |
/// | | Zstandard | 31 | 970 ns | 150 ns |
/// | half of each random digits | none | 189 | 680 ns | 60 ns |
/// | | LZ4 | 131 | 860 ns | 80 ns |
/// | | Zstandard | 72 | 1,000 ns | 140 ns |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// No compression: the fastest to read.
    None,
    /// LZ4: 25 to 70 percent of the size, for little CPU time.
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
    /// Returns [`OpenError::Setting`] for the first setting that is out of bounds.
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
