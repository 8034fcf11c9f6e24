//! Implements the state of a mirrored table, which the task of the connection and the handles of
//! the table share. The state contains the rows of one commit, and the readers that are notified of
//! changes.

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
    /// There is no connection yet, and there are no rows.
    Connecting,
    /// The server sends the rows or changes that are missing.
    CatchingUp,
    /// The rows are those of the server's newest commit, as far as the client knows.
    Live,
    /// The connection is lost, and the client tries to connect again. The rows are those of an
    /// earlier commit.
    Stale,
    /// There will be no more changes.
    Ended(Error),
}

impl Status {
    /// Returns whether the status is [`Status::Live`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }
}

/// A change of a table. The mirrored rows already contain it.
#[derive(Clone, Debug)]
pub enum Change {
    /// The rows of `commit` have replaced all rows.
    Snapshot {
        /// Identifies the history that the commit belongs to. It changes, for instance,
        /// with an activation or a rebuild. Commits of different epochs cannot be
        /// compared.
        epoch: String,
        /// The number of the commit.
        commit: u64,
    },
    /// Some rows have changed between two commits.
    Delta {
        /// The number of the commit before the change.
        from: u64,
        /// The number of the commit after the change.
        to: u64,
        /// The rows that were written, each with its key.
        up: Vec<(String, Row)>,
        /// The keys of the rows that were deleted.
        del: Vec<String>,
        /// Whether the change merges several commits.
        merged: bool,
    },
    /// The subscription continues after the connection was lost. The rows are the same, but the
    /// number of their commit is now `commit`. The number can change because a server that folds
    /// events again after a crash may commit at other offsets.
    Resumed {
        /// The number of the commit.
        commit: u64,
    },
    /// The table has not changed up to `commit`.
    Tick {
        /// The number of the commit.
        commit: u64,
        /// The lag of the projection, if the server knows it.
        lag: Option<Lag>,
    },
    /// This reader was too slow and has missed this number of changes. The mirrored rows contain
    /// them.
    Missed(u64),
    /// There will be no more changes.
    Ended(Error),
}

/// The rows of a table, and the commit to which they belong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) epoch: Option<String>,
    /// The commit of the rows; `None` before the first snapshot.
    pub(crate) commit: Option<u64>,
    /// For each partition, the first offset that the rows do not contain yet.
    pub(crate) offsets: BTreeMap<u32, u64>,
    pub(crate) rows: BTreeMap<String, Row>,
    pub(crate) token: Option<String>,
    pub(crate) fields: Vec<Field>,
    /// The hash of the table's shape.
    pub(crate) shape: Option<String>,
    pub(crate) lag: Option<Lag>,
}

/// The state of one table, which the task of the connection and the handles share.
pub(crate) struct Mirrored {
    pub(crate) name: String,
    pub(crate) options: TableOptions,
    mirror: Mutex<Mirror>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) offsets: watch::Sender<BTreeMap<u32, u64>>,
    pub(crate) changes: broadcast::Sender<Change>,
    /// Whether the last handle was dropped. The connection then ends the subscription.
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
        // If a reader's closure has panicked, the lock is poisoned. Such a closure cannot have
        // changed the rows, so they are still valid.
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends readers a change that `mirror` already contains. The caller holds the lock of `mirror`
    /// until this function returns. So if a new reader begins with the rows in `mirror`, it gets
    /// exactly the changes that these rows do not contain.
    pub(crate) fn notify(&self, mirror: MutexGuard<'_, Mirror>, change: Change) {
        self.offsets.send_if_modified(|known| {
            let changed = *known != mirror.offsets;
            known.clone_from(&mirror.offsets);
            changed
        });
        // It is not an error if there is no reader.
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
