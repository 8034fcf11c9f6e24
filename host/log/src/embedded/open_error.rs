//! Why the log cannot be opened.

use std::path::PathBuf;

use thiserror::Error;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds.
    #[error("log setting `{field}` is {value}: choose {min} to {max}")]
    Setting {
        /// The name.
        field: &'static str,
        /// The value.
        value: u64,
        /// The least allowed.
        min: u32,
        /// The most allowed.
        max: u32,
    },
    /// Another process has the file open.
    #[error("the log `{0}` is in use by another process: stop that one, or choose another folder")]
    InUse(PathBuf),
    /// The file was written by a later release.
    #[error(
        "the log `{path}` has format {found}, but this release reads formats up to {known}: use the release that wrote it, or a later one"
    )]
    LaterFormat {
        /// The file.
        path: PathBuf,
        /// The format.
        found: u64,
        /// The format of this release.
        known: u64,
    },
    /// The file was written by an earlier release.
    #[error(
        "the log `{path}` has format {found} of an earlier release, but this release reads format {known}: copy its events to another folder with the release that wrote it, or start a new log"
    )]
    EarlierFormat {
        /// The file.
        path: PathBuf,
        /// The format.
        found: u64,
        /// The format of this release.
        known: u64,
    },
    /// The log has another number of partitions than configured.
    #[error(
        "the log `{path}` has {found} partitions, not {configured}: set `log.partitions` to {found}, or start a new log"
    )]
    Partitions {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: u64,
        /// How many are configured.
        configured: u32,
    },
    /// The file is not a log.
    #[error("`{0}` is not a Lantern log: choose another path, or move the file away")]
    NotALog(PathBuf),
    /// The file is damaged.
    #[error("the log `{path}` is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// The file cannot be read or written.
    #[error("the log `{path}` cannot be opened: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
