//! The log on Kafka topics: [`KafkaLog`] is a [`lantern_core::Log`] whose
//! partitions are those of one or more topics.
//!
//! Offsets are Kafka's, gaps and all. Readers of threads' own poll librdkafka and
//! turn records straight into columns (`reader`, `record`); what they bring is
//! kept for a while in streams (`stream`), so that shards at about the same
//! place share it. Appends go through an idempotent producer (`append`), what
//! plugins emit through transactions (`emit`). Where shards stand is told to
//! consumer groups (`groups`), for Kafka's own tools to see: what counts is what
//! the shards' files say. No other crate names the Kafka client.

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
