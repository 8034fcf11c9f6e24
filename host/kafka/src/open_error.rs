//! Why a log cannot be opened.

use std::path::PathBuf;

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::config::ConfigError;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be used.
    #[error("in section `log.kafka`: {0}")]
    Setting(#[from] ConfigError),
    /// The file that numbers the partitions cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The broker cannot be reached, or refused a request.
    #[error("Kafka at `{servers}` cannot be used: {reason}")]
    Kafka {
        /// The configured brokers.
        servers: String,
        /// The reason, with what the client reported last.
        reason: String,
        /// The client's error.
        source: Box<KafkaError>,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The topics are missing, or are not those that the data folder was created with.
    #[error("{0}")]
    Other(String),
}
