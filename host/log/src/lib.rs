//! Implements the embedded log, which is a [`lantern_core::Log`].
//!
//! [`EmbeddedLog`] stores everything in one redb file in the data folder. The log on Kafka topics
//! is a crate of its own. No other crate uses redb for the log, and this crate knows nothing of
//! projections.

mod embedded;

#[doc(hidden)]
pub use embedded::fuzzing;
pub use embedded::{
    CHUNK_EVENTS_LIMIT, Compression, EmbeddedLog, LogChecked, LogConfig, LogDamage, LogStats,
    OpenDatabase, OpenError, PARTITIONS_LIMIT, PartitionStats, check,
};
