//! Implements the log on Kafka topics: [`KafkaLog`] is a [`lantern_core::Log`] whose partitions are
//! those of one or more topics.
//!
//! Offsets are those of Kafka, and there may be gaps between them. Cursors (`reader`) are threads
//! that poll librdkafka and turn records directly into columns (`record_decoding`). The newest
//! chunks of each cursor are kept in a read buffer (`read_buffer`), so that shards at about the
//! same offset share them. Appends use an idempotent producer (`append`). Emitted events use
//! transactions (`emit`). The next offsets of projections are committed to consumer groups
//! (`groups`) only so that Kafka's tools can show them. The offsets in the shards' state files are
//! authoritative. No other crate of the host uses the Kafka client.

mod append;
mod append_producer;
mod broker_watch;
mod client;
mod config;
mod dead_letters;
mod emit;
mod groups;
mod librdkafka;
mod log;
mod mapping;
mod open_error;
mod panic_guard;
mod partitions;
mod read_buffer;
mod reader;
mod recent_events;
mod record;
mod record_decoding;
mod record_encoding;
mod shared;
mod topic_settings;
mod topics;

pub use config::{ConfigError, KafkaConfig, KeyOf, Properties};
pub use log::KafkaLog;
pub use mapping::{Mapping, TimeUnit};
pub use open_error::OpenError;
