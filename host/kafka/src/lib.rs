//! Implements the log on Kafka topics: [`KafkaLog`] is a [`lantern_core::Log`] whose partitions are
//! those of one or more topics. Offsets are those of Kafka, and there may be gaps between them.
//!
//! * `reader`: cursors, which are threads that poll librdkafka.
//! * `record_decoding`: turns records directly into columns.
//! * `read_buffer`: keeps the newest chunks of each cursor, so that shards at about the same offset
//!   share them.
//! * `append`: appends events with an idempotent producer.
//! * `emit`: appends emitted events in transactions.
//! * `groups`: commits the next offsets of projections to consumer groups, only so that Kafka's
//!   tools can show them. The offsets in the shards' state files are authoritative.
//!
//! No other crate of the host uses the Kafka client.

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
