//! Why a log cannot be opened.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::ConfigError;

/// Why the log cannot be opened.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be used.
    #[error("in section `log.kafka`: {0}")]
    Setting(#[from] ConfigError),
    /// The file that numbers the partitions cannot be read or written.
    #[error("`{}`: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The broker cannot be reached, or refused a request.
    #[error("Kafka at `{servers}` cannot be used: {reason}")]
    Kafka {
        /// The configured brokers.
        servers: String,
        /// The reason.
        reason: String,
    },
    /// The topics are missing, or are not those that the data folder was created with.
    #[error("{0}")]
    Other(String),
}
