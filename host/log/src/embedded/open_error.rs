//! Lists the errors of opening a log.

use std::path::PathBuf;

use thiserror::Error;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds.
    #[error("log setting `{field}` is {value}: choose {min} to {max}")]
    Setting {
        /// The name of the setting.
        field: &'static str,
        /// The value of the setting.
        value: u64,
        /// The smallest value that the setting may have.
        min: u32,
        /// The largest value that the setting may have.
        max: u32,
    },
    /// Another process has opened the file.
    #[error("the log `{0}` is in use by another process: stop that one, or choose another folder")]
    InUse(PathBuf),
    /// The file was written by a later release.
    #[error(
        "the log `{path}` has format {found}, but this release reads formats up to {known}: use the release that wrote it, or a later one"
    )]
    LaterFormat {
        /// The path of the file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format that this release reads.
        known: u64,
    },
    /// The file was written by an earlier release.
    #[error(
        "the log `{path}` has format {found} of an earlier release, but this release reads format {known}: copy its events to another folder with the release that wrote it, or start a new log"
    )]
    EarlierFormat {
        /// The path of the file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format that this release reads.
        known: u64,
    },
    /// The number of partitions in the file differs from the configured one.
    #[error(
        "the log `{path}` has {found} partitions, not {configured}: set `log.partitions` to {found}, or start a new log"
    )]
    Partitions {
        /// The path of the file.
        path: PathBuf,
        /// The number of partitions in the file.
        found: u64,
        /// The configured number of partitions.
        configured: u32,
    },
    /// The file is not a log.
    #[error("`{0}` is not a Lantern log: choose another path, or move the file away")]
    NotALog(PathBuf),
    /// The file is damaged.
    #[error("the log `{path}` is damaged: {what}")]
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// The file cannot be read or written.
    #[error("the log `{path}` cannot be opened: {source}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error that is the cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
