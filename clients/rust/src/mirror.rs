//! The state of a mirrored table, which the connection's task and the table's handles
//! share: the rows of one committed state, and the readers that are notified of changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lantern_api::feed::{Field, Lag};
use tokio::sync::{broadcast, watch};

use crate::error::Error;
use crate::options::TableOptions;
use crate::row::Row;

/// How up to date a table's rows are.
#[derive(Clone, Debug)]
pub enum Status {
    /// There is no connection yet, and no rows.
    Connecting,
    /// The server is sending the rows or changes that are missing.
    CatchingUp,
    /// The rows are those of the server's newest commit, as far as the client knows.
    Live,
    /// The connection is lost and is being retried; the rows are those of an earlier
    /// commit.
    Stale,
    /// No more changes will come.
    Ended(Error),
}

impl Status {
    /// Whether this is [`Status::Live`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }
}

/// A change of a table. The mirrored rows already contain it.
#[derive(Clone, Debug)]
pub enum Change {
    /// The rows of `commit` replaced all rows.
    Snapshot {
        /// Identifies the history that the commit belongs to. It changes, for instance,
        /// with an activation or a rebuild. Commits of different epochs cannot be
        /// compared.
        epoch: String,
        /// The commit.
        commit: u64,
    },
    /// Some rows changed between two commits.
    Delta {
        /// The commit before.
        from: u64,
        /// The commit after.
        to: u64,
        /// Rows that were put.
        up: Vec<(String, Row)>,
        /// Keys that were deleted.
        del: Vec<String>,
        /// Whether several commits were merged into one.
        merged: bool,
    },
    /// The subscription continues after a lost connection. The rows are the same, but the
    /// number of their commit is now `commit`: a server that folds again after a crash may
    /// commit at other offsets.
    Resumed {
        /// The commit.
        commit: u64,
    },
    /// Nothing changed up to `commit`.
    Tick {
        /// The commit.
        commit: u64,
        /// How far the projection is behind its log, if the server knows.
        lag: Option<Lag>,
    },
    /// This reader was too slow and missed this many changes. The mirrored rows contain
    /// those changes.
    Missed(u64),
    /// No more changes will come.
    Ended(Error),
}

/// The rows, and the commit they belong to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) epoch: Option<String>,
    /// The commit of the rows; none before the first snapshot.
    pub(crate) commit: Option<u64>,
    /// For each partition the next offset that the rows do not contain yet.
    pub(crate) offsets: BTreeMap<u32, u64>,
    pub(crate) rows: BTreeMap<String, Row>,
    pub(crate) token: Option<String>,
    pub(crate) fields: Vec<Field>,
    pub(crate) lag: Option<Lag>,
}

/// The state of one table that the connection's task and the handles share.
pub(crate) struct Mirrored {
    pub(crate) name: String,
    pub(crate) options: TableOptions,
    mirror: Mutex<Mirror>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) offsets: watch::Sender<BTreeMap<u32, u64>>,
    pub(crate) changes: broadcast::Sender<Change>,
    /// No handle is left: the connection unsubscribes.
    pub(crate) dropped: AtomicBool,
}

impl Mirrored {
    pub(crate) fn new(name: &str, mut options: TableOptions, changes_buffer: usize) -> Self {
        let mut mirror = Mirror::default();
        if let Some(resume) = options.resume.take() {
            mirror.token = Some(resume.token);
            mirror.rows = resume.rows;
        }
        Self {
            name: name.to_owned(),
            options,
            mirror: Mutex::new(mirror),
            status: watch::Sender::new(Status::Connecting),
            offsets: watch::Sender::default(),
            changes: broadcast::Sender::new(changes_buffer.max(1)),
            dropped: AtomicBool::new(false),
        }
    }

    pub(crate) fn mirror(&self) -> MutexGuard<'_, Mirror> {
        // A panic in a reader's closure leaves the rows unchanged.
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends readers a change that `mirror` already contains. The caller holds the lock of
    /// `mirror` until this is done. So a new reader gets every change that is not yet in
    /// the rows that it begins with, and no other change.
    pub(crate) fn notify(&self, mirror: MutexGuard<'_, Mirror>, change: Change) {
        self.offsets.send_if_modified(|known| {
            let changed = *known != mirror.offsets;
            known.clone_from(&mirror.offsets);
            changed
        });
        // There may be no reader.
        let _ = self.changes.send(change);
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.status.send_replace(status);
    }

    pub(crate) fn end(&self, error: Error) {
        let mirror = self.mirror();
        self.set_status(Status::Ended(error.clone()));
        self.notify(mirror, Change::Ended(error));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.dropped.load(Ordering::SeqCst) || matches!(*self.status.borrow(), Status::Ended(_))
    }
}
