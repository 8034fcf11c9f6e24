//! Defines the errors that the engine returns to its callers.

use std::fmt;

use lantern_core::{
    LogError, ManifestError, ParkedKind, ParkedRecord, Recovering, StoreError, VersionId, ViewError,
};
use thiserror::Error;

use crate::PluginError;

/// Describes the first difference between two folds of the same events.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the plugin is not deterministic: folding the same {events} events {how} gave a different {space} under key `{key}`: first {left}, then {right}; keep all state in tables"
)]
pub struct Nondeterminism {
    /// How many events were folded.
    pub events: u64,
    /// How the second fold was done, compared to the first.
    pub how: String,
    /// The kind of the entry that differs: `row in table NAME`, `timer`, and so on.
    pub space: String,
    /// The key of the entry that differs.
    pub key: String,
    /// The value under this key in the first fold.
    pub left: String,
    /// The value under this key in the second fold.
    pub right: String,
}

/// Why a version was not activated: it has parked events that the active version has applied. Both
/// versions had the same next offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationRefused {
    /// The name of the projection.
    pub projection: String,
    /// The version that was to be activated.
    pub version: VersionId,
    /// The id of the version that is active.
    pub active: VersionId,
    /// How many events and timers failed in the version and not in the active version.
    pub failed: u64,
    /// How many events wait in the version behind a failed event of their subject, although the
    /// active version has applied them.
    pub waiting: u64,
    /// The first event or timer that failed: its partition, its offset and the reason.
    pub first: Option<(u32, u64, String)>,
}

impl ActivationRefused {
    pub(crate) fn none(projection: &str, version: &VersionId, active: &VersionId) -> Self {
        Self {
            projection: projection.into(),
            version: version.clone(),
            active: active.clone(),
            failed: 0,
            waiting: 0,
            first: None,
        }
    }

    pub(crate) fn count(&mut self, partition: u32, record: ParkedRecord) {
        if record.kind == ParkedKind::Waiting {
            self.waiting += 1;
            return;
        }
        self.failed += 1;
        self.first.get_or_insert((partition, record.offset.0, record.reason));
    }
}

impl fmt::Display for ActivationRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { projection, version, active, failed, waiting, first } = self;
        write!(
            f,
            "version `{version}` of `{projection}` fails on {} and holds back {waiting} behind them, all of which the active version `{active}` has applied",
            events(*failed)
        )?;
        if let Some((partition, offset, reason)) = first {
            write!(f, "; the first is at offset {offset} of partition {partition}: {reason}")?;
        }
        Ok(())
    }
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

/// Why a request to the engine failed. The text names the value that is wrong and what to do.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no projection with this name.
    #[error("there is no projection `{0}`: `lantern plugin list` lists all projections")]
    NoProjection(String),
    /// The projection has no version with this id.
    #[error(
        "projection `{0}` has no version `{1}`: `lantern plugin status {0}` lists its versions"
    )]
    NoVersion(String, VersionId),
    /// The projection has no public table of that name.
    #[error("projection `{0}` has no public table `{1}`")]
    NoTable(String, String),
    /// No version serves readers yet.
    #[error(
        "projection `{0}` serves no version yet: `lantern plugin status {0}` shows whether its first one is still catching up or has stopped"
    )]
    NotActive(String),
    /// The version has not caught up with the log.
    #[error(
        "version `{version}` of `{projection}` has not caught up yet ({percent:.1} %): wait, or see `lantern plugin status {projection}`"
    )]
    NotReady {
        /// The name of the projection.
        projection: String,
        /// The id of the version that is not ready.
        version: VersionId,
        /// How much of the log the version has folded, in percent.
        percent: f64,
    },
    /// There is no previously active version to which a rollback could return.
    #[error("projection `{0}` has no previous version to roll back to")]
    NoPrevious(String),
    /// The active version cannot be deleted alone, only with its projection.
    #[error(
        "version `{1}` of `{0}` is active: activate another version first, or delete the whole projection"
    )]
    IsActive(String, VersionId),
    /// The version has emitted events that are not in the log yet.
    #[error(
        "version `{1}` of `{0}` has emitted events that are not in the log yet: try again later"
    )]
    Unsent(String, VersionId),
    /// The plugin's manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Two folds of the same events gave different results.
    #[error(transparent)]
    Nondeterministic(Box<Nondeterminism>),
    /// A check could not fold events because the plugin failed.
    #[error("the plugin cannot be run: {0}")]
    Plugin(String),
    /// The version would complete a cycle of projections, in which each emits an event type to
    /// which the next one subscribes.
    #[error(
        "the projections would trigger each other without end: {0}; subscribe to narrower types, or allow a bounded cycle with `cycle-depth-max` in each manifest"
    )]
    Cycle(String),
    /// The machine lacks a resource; the plugin is not the reason.
    #[error("the plugin cannot be run now: {0}")]
    Host(String),
    /// The projection is halted. Contains its name, the version and the reason.
    #[error("version `{1}` of `{0}` is halted: {2}")]
    Halted(String, VersionId, String),
    /// The request selects no parked events.
    #[error("no parked events are selected: give `all`, a `subject`, or `offsets`")]
    NoSelection,
    /// The cursor does not come from an earlier page of the same list.
    #[error("`{0}` is not a cursor of this list: leave `cursor` out to start at the beginning")]
    Cursor(String),
    /// The state cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Two versions are at different offsets, and the projection is paused.
    #[error(
        "projection `{0}` is paused, and its versions are at different offsets: resume it, and compare them again"
    )]
    NotAligned(String),
    /// A fold for a request was ended. Contains the reason.
    #[error("the fold was ended: {0}")]
    Ended(String),
    /// Another verification is running, and only one may run at a time.
    #[error("a verification is running: wait until it ends; `lantern verify` shows its progress")]
    Verifying,
    /// The active version has applied events that the version to be activated has not applied.
    #[error("{0}")]
    AppliesLess(Box<ActivationRefused>),
    /// A crash has undone commits that readers may have seen. Reads wait until the events of these
    /// commits are folded again.
    #[error(transparent)]
    Recovering(#[from] Recovering),
    /// The engine is shutting down.
    #[error("the server is shutting down")]
    Closed,
}

impl EngineError {
    /// Returns the stable code of this error in the documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoProjection(_) => "LAN-0201",
            Self::NoVersion(..) => "LAN-0202",
            Self::NoTable(..) => "LAN-0404",
            Self::NotActive(_) => "LAN-0203",
            Self::NotReady { .. } => "LAN-0204",
            Self::NoPrevious(_) => "LAN-0205",
            Self::IsActive(..) => "LAN-0206",
            Self::Unsent(..) => "LAN-0218",
            Self::Manifest(_) => "LAN-0207",
            Self::Nondeterministic(_) => "LAN-0208",
            Self::Plugin(_) => "LAN-0209",
            Self::Host(_) => "LAN-0223",
            Self::Cycle(_) => "LAN-0221",
            Self::Halted(..) => "LAN-0210",
            Self::NoSelection => "LAN-0211",
            Self::Cursor(_) => "LAN-0212",
            Self::Store(_) => "LAN-0213",
            Self::Log(_) => "LAN-0214",
            Self::Recovering(_) => "LAN-0224",
            Self::Closed => "LAN-0215",
            Self::NotAligned(_) => "LAN-0441",
            Self::Ended(_) => "LAN-0443",
            Self::Verifying => "LAN-0216",
            Self::AppliesLess(_) => "LAN-0220",
        }
    }
}

impl From<PluginError> for EngineError {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Host(reason) => Self::Host(reason),
            PluginError::Unfit(reason) => Self::Plugin(reason),
        }
    }
}

impl From<ViewError> for EngineError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NoProjection(name) => Self::NoProjection(name),
            ViewError::NotActive(name) => Self::NotActive(name),
            ViewError::NoVersion(name, version) => Self::NoVersion(name, version),
            ViewError::Recovering(recovering) => Self::Recovering(recovering),
            ViewError::Store(error) => Self::Store(error),
            other => Self::Plugin(other.to_string()),
        }
    }
}
