//! Lists the errors of opening a log on Kafka.

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
    /// The file with the numbers of the partitions cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Data {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The broker cannot be reached, or refused a request.
    #[error("Kafka at `{servers}` cannot be used: {reason}")]
    Kafka {
        /// The configured addresses of brokers.
        servers: String,
        /// The reason, including what the client reported last.
        reason: String,
        /// The error of the client.
        source: Box<KafkaError>,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The topics are missing, or are not the topics that the data folder was created with.
    #[error("{0}")]
    Other(String),
}
