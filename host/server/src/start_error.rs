//! Describes why the server does not start.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lantern_core::StoreError;
use thiserror::Error;

use crate::codes;
use crate::config_error::ConfigError;

/// Any error that can be sent between threads.
type Cause = Box<dyn Error + Send + Sync>;

/// Why the server does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process uses the data folder.
    #[error("the data folder `{}` is in use by {}", path.display(), process(*pid))]
    InUse {
        /// The path of the folder.
        path: PathBuf,
        /// The id of the process, if it is known.
        pid: Option<u32>,
    },
    /// The server would listen on an address that other machines can reach. It has no
    /// authentication, so each of these machines could do everything.
    #[error(
        "`{0}` can be reached from other machines, and this server has no authentication: \
         it listens on loopback addresses only"
    )]
    Public(SocketAddr),
    /// The server cannot listen on the address: it is in use, or does not belong to this machine.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// The address on which the server could not listen.
        address: SocketAddr,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The data folder, or a file in it, cannot be opened.
    #[error("cannot open `{}`: {source}", path.display())]
    Data {
        /// The path of the folder or file.
        path: PathBuf,
        /// The error that prevented the start.
        source: Cause,
    },
    /// The folder was created with another log than the configured one.
    #[error(
        "the data folder belongs to {made} (`{}`), but the settings name {selected}: its state is that of another log",
        path.display()
    )]
    OtherLog {
        /// The file that shows which log the folder belongs to.
        path: PathBuf,
        /// The kind of log that the folder belongs to.
        made: &'static str,
        /// The kind of log that the settings name.
        selected: &'static str,
    },
    /// The Kafka log cannot be opened.
    #[error("{0}")]
    Kafka(#[source] Cause),
}

impl StartError {
    /// Returns the error [`StartError::Data`] for `path`.
    pub(crate) fn data(path: impl AsRef<Path>, cause: impl Into<Cause>) -> Self {
        Self::Data { path: path.as_ref().to_path_buf(), source: cause.into() }
    }

    /// Returns the error for a store in `path` that cannot be opened.
    pub(crate) fn store(path: PathBuf, error: StoreError) -> Self {
        match error {
            StoreError::InUse(path) => Self::InUse { path: path.into(), pid: None },
            other => Self::data(path, other),
        }
    }

    /// Returns the stable code of this error in the documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "LAN-0001",
            Self::InUse { .. } => "LAN-0002",
            Self::Public(_) => "LAN-0003",
            Self::Listen { .. } => "LAN-0004",
            Self::Data { .. } => "LAN-0005",
            Self::OtherLog { .. } => "LAN-0006",
            Self::Kafka(_) => "LAN-0007",
        }
    }

    /// Returns what to do about the error, in one sentence.
    #[must_use]
    pub fn help(&self) -> &'static str {
        codes::find(self.code()).map_or("", |code| code.help)
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
