//! Determines how a subscription starts or continues: from memory, from the change log, or with a
//! snapshot.

use std::sync::Arc;

use bytes::Bytes;
use lantern_core::{ChangesSince, Checkpoint, ShardChanges, StoreError, TableChanges};
use tokio::sync::mpsc;

use crate::advance::OpenView;
use crate::client_shape::ClientShape;
use crate::delta::{DeltaChain, DeltaEncoder, DeltaError, MergedChanges, ReadyDelta};
use crate::projection_feed::{Continuation, ProjectionFeed};
use crate::protocol::{Mode, ResetReason};
use crate::query::Query;
use crate::resources::Resources;
use crate::shape::{SelectedTable, select_rows};
use crate::snapshot::Snapshot;
use crate::subscribe_error::SubscribeError;
use crate::table_info::TableInfo;
use crate::token;
use crate::topic::Topic;

/// A request for the data with which a subscription starts or continues.
pub(crate) struct ReadRequest {
    pub(crate) query: Query,
    pub(crate) mode: Mode,
    pub(crate) resume: Resume,
    /// The shape for which the client was written.
    pub(crate) shape: Option<ClientShape>,
}

impl ReadRequest {
    /// Returns the table that is read.
    ///
    /// # Errors
    /// [`SubscribeError`] if there is no such table, or if it is not the one that the client was
    /// written for.
    pub(crate) fn table(&self, opened: &OpenView) -> Result<TableInfo, SubscribeError> {
        let table = opened.agreed.table(self.query.table()).ok_or(SubscribeError::NoTable)?;
        self.check_shape(&table)?;
        Ok(table)
    }

    fn check_shape(&self, table: &TableInfo) -> Result<(), SubscribeError> {
        self.shape.as_ref().map_or(Ok(()), |shape| shape.check(&self.query, &table.shape))
    }
}

/// The point from which a subscription wants to continue.
pub(crate) enum Resume {
    /// The subscription has no point, or cannot continue from its point. It needs a snapshot that
    /// is newer than the epoch and commit in `shown`.
    No { shown: Option<(Arc<str>, u64)> },
    /// The point is in the client's token.
    Token(String),
    /// The subscription continues from the commit that it had reached itself, because the ring no
    /// longer has the next commit.
    Own { epoch: Arc<str>, commit: u64, at: Arc<Checkpoint> },
}

/// What a subscription needs to start.
pub(crate) struct SubscriptionStart {
    pub(crate) epoch: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) table: SelectedTable,
    pub(crate) start: StartKind,
}

/// The way in which a subscription starts.
pub(crate) enum StartKind {
    /// The subscription continues at `commit`. It first sends the deltas in `ready`, and then the
    /// commits of the ring that follow these deltas.
    Resumed { commit: u64, at: Arc<Checkpoint>, ready: Vec<ReadyDelta> },
    /// The subscription gets a snapshot. If it wanted to continue and cannot, `why` is the reason.
    Snapshot { why: Option<ResetReason>, rows: SnapshotRows },
}

/// The rows of a snapshot.
pub(crate) enum SnapshotRows {
    Shared(Arc<Snapshot>),
    /// The rows are too large to be shared, so they are read while they are sent.
    Streamed {
        commit: u64,
        at: Arc<Checkpoint>,
        parts: mpsc::Receiver<SnapshotPart>,
    },
}

/// A message from the thread that reads a streamed snapshot.
pub(crate) enum SnapshotPart {
    Rows {
        rows: Bytes,
        last: bool,
    },
    /// The rest of the snapshot cannot be sent. Contains the reason, as a text for people.
    Unsendable(String),
    /// The store failed. Contains the error as text.
    Failed(String),
}

/// Starts a subscription without a read of the store, if that is possible: it continues from the
/// ring, or uses a snapshot that was created for another subscriber, if the ring has all changes
/// after it.
pub(crate) fn from_memory(
    feed: &ProjectionFeed,
    topic: &Topic,
    request: &ReadRequest,
) -> Option<SubscriptionStart> {
    let continues = |epoch: &str, at: &Checkpoint| match &topic.roll_up {
        None => feed.continues_from(epoch, at, request.query.table()),
        Some(roll_up) => {
            feed.continues_roll_up(epoch, roll_up.holds(epoch, at)?, request.query.table())
        }
    };
    let (reached, start) = match &request.resume {
        Resume::Token(text) => {
            let query = request.query.token_hash();
            let token = token::decode(text).filter(|token| token.query == query)?;
            let reached = continues(&token.epoch, &token.at)?;
            let (commit, at) = (reached.commit, Arc::new(token.at));
            (reached, StartKind::Resumed { commit, at, ready: Vec::new() })
        }
        Resume::No { shown } => {
            let snapshot = topic.snapshot()?;
            let reached = continues(&snapshot.epoch, &snapshot.at)?;
            if shown
                .as_ref()
                .is_some_and(|(e, commit)| *e == snapshot.epoch && *commit >= snapshot.commit)
            {
                return None;
            }
            (reached, StartKind::Snapshot { why: None, rows: SnapshotRows::Shared(snapshot) })
        }
        Resume::Own { .. } => return None,
    };
    let Continuation { epoch, generation, table, many, .. } = reached;
    // If the client or its query does not suit the table, the read that follows returns the error.
    request.check_shape(&table).ok()?;
    let table = match &topic.roll_up {
        None => topic.select(&epoch, &table).ok()?,
        Some(_) => topic.selected_table(&epoch)?,
    };
    let start = SubscriptionStart { epoch, generation, table, start };
    (!many || request.mode == Mode::State).then_some(start)
}

/// Continues the subscription from the change log. If that is not possible, it returns an inner
/// error, which is the reason why the subscription needs a snapshot. This reason is `None` if
/// `request` has no point to continue from.
pub(crate) fn from_change_log(
    resources: &Resources,
    opened: &OpenView,
    table: &SelectedTable,
    request: &ReadRequest,
) -> Result<Result<StartKind, Option<ResetReason>>, SubscribeError> {
    let Point { from, at, too_old } = match point_of(opened, request) {
        Ok(point) => point,
        Err(why) => return Ok(Err(why)),
    };
    let commits = match opened.view.changes_since(&at)? {
        ChangesSince::OtherHistory => return Ok(Err(Some(ResetReason::History))),
        ChangesSince::TooOld => return Ok(Err(Some(too_old))),
        ChangesSince::Commits(commits) => commits,
    };
    let log = LogRange { resources, opened, table, from, commits: &commits };
    let ready = match request.mode {
        Mode::State => log.merged(),
        Mode::Changes => log.each(),
    };
    match ready {
        Ok(ready) => Ok(Ok(StartKind::Resumed { commit: from, at, ready })),
        Err(LogError::Delta(DeltaError::TooMuch)) => Ok(Err(Some(ResetReason::Overflow))),
        Err(LogError::Delta(DeltaError::TooLarge(error))) => Err(error.into()),
        Err(LogError::Store(error)) => Err(error.into()),
    }
}

/// The point from which a subscription wants to continue.
pub(crate) struct Point {
    /// The number of the commit that the client has. It cannot be derived from the commits after
    /// `at`: the change log omits commits without changes, and after a crash a commit can begin
    /// before `at`.
    from: u64,
    pub(crate) at: Arc<Checkpoint>,
    /// Why the subscription needs a snapshot if the changes after the point are gone.
    pub(crate) too_old: ResetReason,
}

/// Returns the point from which `request` wants to continue. If there is none, or the subscription
/// cannot continue from it, returns the reason why it needs a snapshot. The reason is `None` if
/// `request` has no point.
pub(crate) fn point_of(
    opened: &OpenView,
    request: &ReadRequest,
) -> Result<Point, Option<ResetReason>> {
    match &request.resume {
        Resume::No { .. } => Err(None),
        Resume::Token(text) => match token::decode(text) {
            Some(token) if token.query != request.query.token_hash() => {
                Err(Some(ResetReason::Fields))
            }
            None => Err(Some(ResetReason::Fields)),
            Some(token) if token.epoch != *opened.agreed.epoch => Err(Some(ResetReason::Epoch)),
            // The client has a newer commit than the server. Commit numbers never go back within an
            // epoch, so the commit belongs to another history.
            Some(token) if token.commit > opened.view.pos() => Err(Some(ResetReason::History)),
            Some(token) => {
                let (from, at) = (token.commit, Arc::new(token.at));
                Ok(Point { from, at, too_old: ResetReason::TooOld })
            }
        },
        Resume::Own { epoch, .. } if *epoch != opened.agreed.epoch => Err(Some(ResetReason::Epoch)),
        Resume::Own { commit, at, .. } => {
            Ok(Point { from: *commit, at: at.clone(), too_old: ResetReason::Overflow })
        }
    }
}

/// The changes of a table between a checkpoint and a view.
struct LogRange<'a> {
    resources: &'a Resources,
    opened: &'a OpenView,
    table: &'a SelectedTable,
    /// The commit at the checkpoint.
    from: u64,
    commits: &'a [ShardChanges],
}

/// Why the change log cannot provide deltas.
enum LogError {
    Delta(DeltaError),
    Store(StoreError),
}

impl From<DeltaError> for LogError {
    fn from(error: DeltaError) -> Self {
        Self::Delta(error)
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl LogRange<'_> {
    fn encoder(&self) -> DeltaEncoder<'_> {
        let partitions = self.opened.view.offsets().len();
        DeltaEncoder::new(self.resources, &self.opened.agreed.epoch, partitions)
    }

    /// Returns the changes of the table, one entry for each commit that changes the table.
    fn changes(&self) -> impl Iterator<Item = (&ShardChanges, &TableChanges)> {
        let of_table = |commit: &'_ ShardChanges| {
            commit.tables.iter().position(|changes| changes.table == self.table.id)
        };
        let commits = self.commits.iter();
        commits.filter_map(move |commit| Some((commit, &commit.tables[of_table(commit)?])))
    }

    /// Creates one delta that merges all commits.
    fn merged(&self) -> Result<Vec<ReadyDelta>, LogError> {
        let view = &self.opened.view;
        let (from, to, at) = (self.from, view.pos(), Arc::new(view.checkpoint()));
        let encoder = self.encoder();
        let merged = encoder.merge(self.changes().map(|(_, changes)| changes))?;
        if merged.keys() == 0 {
            return Ok(vec![ReadyDelta::tick(from, to, at)]);
        }
        let several = merged.is_of_several();
        if several {
            metrics::counter!("lantern_feed_merges_total").increment(1);
        }
        let SelectedTable { id, shape } = self.table;
        let (parts, _) = match &shape.rows {
            _ if self.opened.agreed.many => {
                let rows = merged.read_from(view, *id)?;
                encoder.merged(&MergedChanges::of_one(&shape.changes(&rows)))?
            }
            Some(selected) => {
                let rows = select_rows(selected, *id, merged.rows());
                encoder.merged(&MergedChanges::of_one(&rows))?
            }
            None => encoder.merged(&merged)?,
        };
        Ok(vec![ReadyDelta { from, to, at, parts: Some(parts), merged: several }])
    }

    /// Creates a delta for each commit, and a tick for the view's commit. This is possible only for
    /// a projection with one partition, whose commits are those of its shard.
    fn each(&self) -> Result<Vec<ReadyDelta>, LogError> {
        let view = &self.opened.view;
        let encoder = self.encoder();
        let mut room = self.resources.config.merge_bytes_max;
        let mut chain = DeltaChain::new(self.from);
        for (commit, changes) in self.changes() {
            let (parts, bytes) =
                encoder.merged(&MergedChanges::of_one(&self.table.shape.changes(changes)))?;
            room = room.checked_sub(bytes).ok_or(DeltaError::TooMuch)?;
            // The point comes from the change log of this view, so it is in the view's history and
            // has a checkpoint.
            let at = view.checkpoint_at(&[commit.point])?.ok_or(DeltaError::TooMuch)?;
            chain.push(commit.commit, Arc::new(at), parts);
        }
        let (from, to) = (chain.from, view.pos());
        let mut ready = chain.ready;
        if from != to || ready.is_empty() {
            ready.push(ReadyDelta::tick(from, to, Arc::new(view.checkpoint())));
        }
        Ok(ready)
    }
}
