//! Implements the handle of a mirrored table, and the stream of the table's changes.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::Stream;
use lantern_api::feed::{Field, Lag};
use serde::de::DeserializeOwned;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::error::Error;
use crate::mirror::{Change, Mirrored, Status};
use crate::options::Resume;
use crate::row::Row;
use crate::shared::Shared;

/// A table that is mirrored from the server. `Client::table` returns it. When the last handle is
/// dropped, the subscription ends.
#[derive(Clone)]
pub struct Table {
    handle: Arc<Handle>,
}

struct Handle {
    mirrored: Arc<Mirrored>,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.mirrored.dropped.store(true, Ordering::SeqCst);
        self.shared.changed.notify_one();
    }
}

impl Table {
    pub(crate) fn new(mirrored: Arc<Mirrored>, shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { mirrored, shared }) }
    }

    fn mirrored(&self) -> &Mirrored {
        &self.handle.mirrored
    }

    /// Returns the name of the table, in the form `projection/table`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.mirrored().name
    }

    /// Parses the row under `key` as a `T`; `None` if there is no such row.
    ///
    /// # Errors
    /// Fails if the row is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, serde_json::Error> {
        let row = self.mirrored().mirror().rows.get(key).cloned();
        row.map(|row| row.read()).transpose()
    }

    /// Returns the number of rows that the table has now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mirrored().mirror().rows.len()
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `look` with all rows of one committed state and with its commit, which is `None`
    /// before the first commit. Changes must wait until `look` returns, so `look` should be short.
    pub fn with<R>(&self, look: impl FnOnce(&BTreeMap<String, Row>, Option<u64>) -> R) -> R {
        let mirror = self.mirrored().mirror();
        look(&mirror.rows, mirror.commit)
    }

    /// Returns a copy of all rows of one commit. The copy shares the texts of the rows.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, Row> {
        self.mirrored().mirror().rows.clone()
    }

    /// Returns the commit of the rows; `None` before the first snapshot.
    #[must_use]
    pub fn commit(&self) -> Option<u64> {
        self.mirrored().mirror().commit
    }

    /// For each partition, the first offset that the rows do not contain yet. It is empty before
    /// the first snapshot.
    #[must_use]
    pub fn offsets(&self) -> BTreeMap<u32, u64> {
        self.mirrored().mirror().offsets.clone()
    }

    /// Returns the epoch of the commit; `None` before the first snapshot.
    #[must_use]
    pub fn epoch(&self) -> Option<String> {
        self.mirrored().mirror().epoch.clone()
    }

    /// Returns the fields of the rows; empty before the server has sent them.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        self.mirrored().mirror().fields.clone()
    }

    /// Returns the hash of the table's shape, which is that of the whole table, also if the
    /// options choose columns or a roll-up. `None` before the server has sent it. If it is not the
    /// `hash` of [`crate::TableOptions::shape`], the server has a version with other fields.
    #[must_use]
    pub fn shape(&self) -> Option<String> {
        self.mirrored().mirror().shape.clone()
    }

    /// Returns the lag of the projection, as the server's last message has reported it.
    #[must_use]
    pub fn lag(&self) -> Option<Lag> {
        self.mirrored().mirror().lag
    }

    /// Returns the status, which says how up to date the rows are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.mirrored().status.borrow().clone()
    }

    /// Waits until `wanted` accepts the status, and returns this status. If a status lasts only a
    /// moment, it may be missed.
    pub async fn wait_for_status(&self, mut wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.mirrored().status.subscribe();
        // The sender exists as long as this handle.
        let reached = status.wait_for(|status| wanted(status)).await;
        reached.map_or(Status::Ended(Error::Closed), |status| status.clone())
    }

    /// Waits until the rows contain the event at `offset` of `partition`. The answer to the append
    /// of the event contains these two numbers.
    ///
    /// # Errors
    /// Returns the reason, if there will be no more changes.
    pub async fn wait_for(&self, partition: u32, offset: u64) -> Result<(), Error> {
        let mut offsets = self.mirrored().offsets.subscribe();
        let contains =
            |next: &BTreeMap<u32, u64>| next.get(&partition).is_some_and(|next| *next > offset);
        let reached = async { offsets.wait_for(contains).await.is_ok() };
        let ended = self.wait_for_status(|status| matches!(status, Status::Ended(_)));
        tokio::select! {
            biased;
            _ = reached => Ok(()),
            status = ended => match status {
                Status::Ended(error) => Err(error),
                _ => Err(Error::Closed),
            },
        }
    }

    /// Returns a token with which this subscription can be continued later, even in another
    /// process; `None` before the first snapshot. Use the token only with the rows of the same
    /// moment: see [`Table::saved`].
    #[must_use]
    pub fn resume_token(&self) -> Option<String> {
        self.mirrored().mirror().token.clone()
    }

    /// Returns the token and the rows at the same time, for
    /// [`TableOptions::resume`](crate::TableOptions::resume).
    #[must_use]
    pub fn saved(&self) -> Option<Resume> {
        let mirror = self.mirrored().mirror();
        let token = mirror.token.clone()?;
        Some(Resume { token, rows: mirror.rows.clone() })
    }

    /// Returns a stream of the changes that the table has from now on. If the table has rows
    /// already, the stream begins with a [`Change::Snapshot`] of these rows, and the later changes
    /// continue from it. If the table has ended, the next item is [`Change::Ended`].
    #[must_use]
    pub fn changes(&self) -> Changes {
        let mirrored = self.mirrored();
        let mirror = mirrored.mirror();
        let changes = BroadcastStream::new(mirrored.changes.subscribe());
        let mut first = VecDeque::new();
        if let (Some(epoch), Some(commit)) = (mirror.epoch.clone(), mirror.commit) {
            first.push_back(Change::Snapshot { epoch, commit });
        }
        if let Status::Ended(error) = &*mirrored.status.borrow() {
            first.push_back(Change::Ended(error.clone()));
        }
        drop(mirror);
        Changes { first, changes, _handle: self.handle.clone() }
    }
}

/// A stream of the changes of a table; see [`Table::changes`]. As long as it exists, the
/// subscription continues.
pub struct Changes {
    /// The items that the stream returns first.
    first: VecDeque<Change>,
    changes: BroadcastStream<Change>,
    _handle: Arc<Handle>,
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        if let Some(change) = self.first.pop_front() {
            return Poll::Ready(Some(change));
        }
        Pin::new(&mut self.changes).poll_next(cx).map(|change| {
            change.map(|change| match change {
                Ok(change) => change,
                Err(BroadcastStreamRecvError::Lagged(missed)) => Change::Missed(missed),
            })
        })
    }
}
