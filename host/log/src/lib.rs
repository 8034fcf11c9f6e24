//! Event logs: implementations of [`lantern_core::Log`].
//!
//! [`EmbeddedLog`] keeps everything in one redb file beside the server. A log
//! on a Kafka topic is to stand beside it, in a module of its own. No other
//! crate names redb for the log's sake, and this one knows nothing of
//! projections.

mod embedded;

#[doc(hidden)]
pub use embedded::fuzzing;
pub use embedded::{
    CHUNK_EVENTS_LIMIT, Compression, Dropped, EmbeddedLog, Floor, LogChecked, LogConfig, LogDamage,
    LogStats, Maintained, OpenDatabase, OpenError, PARTITIONS_LIMIT, PartitionStats, check,
};
