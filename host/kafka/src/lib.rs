//! The log on Kafka topics: [`KafkaLog`] is a [`lantern_core::Log`] whose
//! partitions are those of one or more topics.
//!
//! Offsets are Kafka's and can have gaps. Cursors (`reader`) are threads that poll
//! librdkafka and turn records directly into columns (`record`). The newest chunks of
//! each cursor are kept in a stream (`stream`), so that shards at about the same
//! offset share them. Appends use an idempotent producer (`append`). Emitted events
//! use transactions (`emit`). The next offsets of projections are committed to
//! consumer groups (`groups`) only so that Kafka's tools can show them. The offsets in
//! the shards' state files are authoritative. No other crate uses the Kafka client.

mod append;
mod client;
mod config;
mod dead;
mod emit;
mod groups;
mod ids;
mod log;
mod mapping;
mod partitions;
mod quiet;
mod reader;
mod record;
mod shared;
mod stream;
mod tail;
mod topic_settings;
mod topics;
mod watch;
mod written;

pub use config::{ConfigError, KafkaConfig, KeyOf, Properties};
pub use dead::{DeadLetter, LetterName, LettersRead};
pub use log::{KafkaLog, OpenError};
pub use mapping::{Mapping, TimeUnit};
