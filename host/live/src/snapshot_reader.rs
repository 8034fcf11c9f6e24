//! Reads of the store: snapshots, resumes from the change log, and merged rows
//! of several partitions. Everything here blocks and runs on blocking threads,
//! `snapshot_readers` of them at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lantern_core::{ChangesSince, Checkpoint, KeyRange, ShardChanges, TableChanges, TableId, View};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::LiveConfig;
use crate::encode::{BudgetLease, DeltaParts, SnapshotParts};
use crate::hub::Hub;
use crate::protocol::{Mode, ResetReason};
use crate::ring::{MergedChanges, NewestCommit, RingCommit, changed};
use crate::subscribe_error::SubscribeError;
use crate::token;
use crate::topic::{AgreedState, ReadyDelta, SessionSignal, Snapshot, TableInfo, Topic, ViewMatch};

/// Rows read from a table at a time.
const SCAN_ROWS: usize = 256;
/// Parts of a large snapshot encoded ahead of its reader.
const PARTS_AHEAD: usize = 2;
/// How often, and after which pause, a view is opened again that is not of the
/// epoch announced; then the view is believed.
const EPOCH_TRIES: u32 = 50;
const EPOCH_PAUSE: Duration = Duration::from_millis(20);

/// What a subscription asks the store for.
pub(crate) struct ReadRequest {
    /// The table's name within its projection.
    pub(crate) table: String,
    pub(crate) query: u64,
    pub(crate) mode: Mode,
    pub(crate) resume: Resume,
}

/// Where a subscription was before.
pub(crate) enum Resume {
    /// Nowhere, or it cannot go on from there: it wants a snapshot, and one
    /// newer than what it shows.
    No { shown: Option<(Arc<str>, u64)> },
    /// Where a client's token says.
    Token(String),
    /// Where this session itself has brought it, until it fell behind.
    Own { epoch: Arc<str>, at: Arc<Checkpoint> },
}

/// A subscription's start.
pub(crate) struct SubscriptionStart {
    pub(crate) epoch: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) table: TableInfo,
    pub(crate) start: StartKind,
}

/// How it starts.
pub(crate) enum StartKind {
    /// From where it was: first these, then what the ring has after `commit`.
    Resumed { commit: u64, at: Arc<Checkpoint>, ready: Vec<ReadyDelta> },
    /// From a snapshot, with the reason where a resume was refused.
    Snapshot { why: Option<ResetReason>, rows: SnapshotRows },
}

/// A snapshot's rows.
pub(crate) enum SnapshotRows {
    Shared(Arc<Snapshot>),
    /// Too large to share: read while it is sent.
    Streamed {
        commit: u64,
        at: Arc<Checkpoint>,
        parts: mpsc::Receiver<SnapshotPart>,
    },
}

/// A part of a streamed snapshot.
pub(crate) enum SnapshotPart {
    Rows {
        rows: Bytes,
        last: bool,
    },
    /// The rest cannot be sent: a sentence for people.
    Unsendable(String),
    /// The store failed.
    Failed(String),
}

type ReadReply = oneshot::Sender<Result<SubscriptionStart, SubscribeError>>;

/// Pokes a session when dropped, so that it looks whatever the outcome was.
struct WakeOnDrop(Arc<SessionSignal>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Starts to read what `request` needs; `signal` is woken when there is
/// something to look at.
pub(crate) fn open(
    hub: &Arc<Hub>,
    topic: &Arc<Topic>,
    request: ReadRequest,
    signal: &Arc<SessionSignal>,
) -> oneshot::Receiver<Result<SubscriptionStart, SubscribeError>> {
    let (answer, opened) = oneshot::channel();
    if let Some(start) = without_reading(topic, &request) {
        // The receiver is at hand, so this cannot fail.
        let _ = answer.send(Ok(start));
        return opened;
    }
    let (hub, topic, wake) = (hub.clone(), topic.clone(), WakeOnDrop(signal.clone()));
    tokio::spawn(async move {
        let Ok(permit) = hub.readers.clone().acquire_owned().await else { return };
        let runtime = Handle::current();
        let read = move || {
            let _permit = permit;
            let read = PendingRead { hub: &hub, topic: &topic, request: &request, wake: &wake };
            read.run(answer, &runtime);
        };
        // A panic in there drops the answer, which the session takes for a
        // failure.
        let _ = tokio::task::spawn_blocking(read).await;
    });
    opened
}

/// A start that memory alone can give: a resume within the ring, or a snapshot
/// that another subscriber had made and from which the ring leads on.
fn without_reading(topic: &Topic, request: &ReadRequest) -> Option<SubscriptionStart> {
    let table = topic.table(&request.table)?;
    let (epoch, generation, many, start) = match &request.resume {
        Resume::Token(text) => {
            let token = token::decode(text).filter(|token| token.query == request.query)?;
            let (commit, epoch, generation, many) = topic.leads_on_from(&token.epoch, &token.at)?;
            let start = StartKind::Resumed { commit, at: Arc::new(token.at), ready: Vec::new() };
            (epoch, generation, many, start)
        }
        Resume::No { shown } => {
            let (snapshot, generation, many) = topic.kept_snapshot(table.id)?;
            if shown
                .as_ref()
                .is_some_and(|(e, commit)| *e == snapshot.epoch && *commit >= snapshot.commit)
            {
                return None;
            }
            let epoch = snapshot.epoch.clone();
            let start = StartKind::Snapshot { why: None, rows: SnapshotRows::Shared(snapshot) };
            (epoch, generation, many, start)
        }
        Resume::Own { .. } => return None,
    };
    (!many || request.mode == Mode::State).then_some(SubscriptionStart {
        epoch,
        generation,
        table,
        start,
    })
}

/// One read for one subscription.
struct PendingRead<'a> {
    hub: &'a Hub,
    topic: &'a Topic,
    request: &'a ReadRequest,
    wake: &'a WakeOnDrop,
}

impl PendingRead<'_> {
    /// Reads what is asked for. An answer that cannot be sent is for a session
    /// that has ended.
    fn run(&self, answer: ReadReply, runtime: &Handle) {
        // It may have ended while this waited for its turn.
        if answer.is_closed() {
            return;
        }
        let started = self.start();
        match started {
            Ok(Started::Ready(opened)) => drop(answer.send(Ok(opened))),
            Ok(Started::Snapshot(opened, table)) => self.snapshot(opened, table, answer, runtime),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn start(&self) -> Result<Started, SubscribeError> {
        let mut opened = open_view(self.hub, self.topic)?;
        // Another subscriber may have had the same snapshot made meanwhile.
        if let Some(opened) = without_reading(self.topic, self.request) {
            return Ok(Started::Ready(opened));
        }
        let table = opened.agreed.table(&self.request.table).ok_or(SubscribeError::NoTable)?;
        if opened.agreed.many && self.request.mode == Mode::Changes {
            let message = "mode `changes` needs a projection over one partition: use mode `state`";
            return Err(SubscribeError::NotSupported(message.into()));
        }
        match resume(self.hub, &opened, &table, self.request)? {
            Ok(start) => Ok(Started::Ready(opened.into_opened(table, start))),
            Err(why) => {
                opened.why = why;
                Ok(Started::Snapshot(opened, table))
            }
        }
    }

    /// Reads a table: whole if it is small enough to be shared, else part
    /// by part while the session sends it.
    fn snapshot(&self, opened: OpenView, table: TableInfo, answer: ReadReply, runtime: &Handle) {
        let config = &self.hub.config;
        let deadline = Instant::now() + Duration::from_millis(config.snapshot_ms_max);
        let why = opened.why;
        let epoch = opened.agreed.epoch.clone();
        let (commit, at) = (opened.view.pos(), Arc::new(opened.view.checkpoint()));
        let mut scan = Scan::new(&opened, table.id, config);
        let (parts, whole) = match first_parts(&mut scan, config, deadline) {
            Ok(parts) => parts,
            Err(error) => return drop(answer.send(Err(error))),
        };
        if whole {
            let snapshot = Arc::new(Snapshot { epoch, commit, at, parts });
            self.topic.keep_snapshot(table.id, snapshot.clone());
            let start = StartKind::Snapshot { why, rows: SnapshotRows::Shared(snapshot) };
            return drop(answer.send(Ok(opened.into_opened(table, start))));
        }
        let (send, receive) = mpsc::channel(PARTS_AHEAD);
        let start = StartKind::Snapshot {
            why,
            rows: SnapshotRows::Streamed { commit, at, parts: receive },
        };
        let generation = opened.agreed.generation;
        if answer.send(Ok(SubscriptionStart { epoch, generation, table, start })).is_err() {
            return;
        }
        self.wake.0.wake();
        let hand_out = |part| {
            let sent = runtime.block_on(tokio::time::timeout_at(deadline, send.send(part)));
            self.wake.0.wake();
            // Else the session is gone, or will be closed for being too slow.
            matches!(sent, Ok(Ok(())))
        };
        for rows in parts {
            if !hand_out(SnapshotPart::Rows { rows, last: false }) {
                return;
            }
        }
        loop {
            let (part, done) = match scan.next() {
                Ok((rows, last)) => (SnapshotPart::Rows { rows, last }, last),
                Err(SubscribeError::Unsendable(message)) => {
                    (SnapshotPart::Unsendable(message), true)
                }
                Err(SubscribeError::Failed(message)) => (SnapshotPart::Failed(message), true),
                Err(_) => (SnapshotPart::Failed("the table is gone".into()), true),
            };
            if !hand_out(part) || done {
                return;
            }
        }
    }
}

/// What a read came to.
enum Started {
    /// All that is needed.
    Ready(SubscriptionStart),
    /// A table to be read.
    Snapshot(OpenView, TableInfo),
}

/// As many parts as may be shared, and whether that is all.
fn first_parts(
    scan: &mut Scan<'_>,
    config: &LiveConfig,
    deadline: Instant,
) -> Result<(Vec<Bytes>, bool), SubscribeError> {
    let (mut parts, mut bytes) = (Vec::new(), 0);
    loop {
        if Instant::now() >= deadline {
            let message = "the snapshot took longer than `snapshot_ms_max`";
            return Err(SubscribeError::Failed(message.into()));
        }
        let (rows, last) = scan.next()?;
        bytes += rows.len();
        parts.push(rows);
        if last || bytes > config.snapshot_shared_bytes_max {
            return Ok((parts, last));
        }
    }
}

/// A view that the topic agrees with.
struct OpenView {
    view: View,
    agreed: AgreedState,
    why: Option<ResetReason>,
}

impl OpenView {
    fn into_opened(self, table: TableInfo, start: StartKind) -> SubscriptionStart {
        let AgreedState { epoch, generation, .. } = self.agreed;
        SubscriptionStart { epoch, generation, table, start }
    }
}

/// Opens a view of the projection's newest state, and with several partitions
/// brings the ring to it.
fn open_view(hub: &Hub, topic: &Topic) -> Result<OpenView, SubscribeError> {
    for attempt in 1.. {
        let advancing = topic.advance.lock();
        let reached = topic.begin_advance();
        let view = hub.views.view(&topic.name).map_err(|e| failed(topic, e.into()))?;
        match topic.adopt(&view, attempt == EPOCH_TRIES) {
            ViewMatch::Yes(agreed) => {
                if agreed.many {
                    advance_to(hub, topic, &view, reached).map_err(|e| failed(topic, e))?;
                }
                return Ok(OpenView { view, agreed, why: None });
            }
            ViewMatch::Stale => {
                drop(advancing);
                std::thread::sleep(EPOCH_PAUSE);
            }
        }
    }
    unreachable!("the last attempt is always adopted")
}

/// What was committed is still to be read, once the store can be.
fn failed(topic: &Topic, error: SubscribeError) -> SubscribeError {
    if matches!(error, SubscribeError::Failed(_)) {
        topic.still_behind();
    }
    error
}

/// Brings the ring of a projection over several partitions up to its state.
///
/// # Errors
/// Why it cannot be read, for people.
pub(crate) fn advance(hub: &Hub, topic: &Topic) -> Result<(), String> {
    match open_view(hub, topic) {
        // Deleted or not active: an activation is or will be published.
        Ok(_) | Err(SubscribeError::NoTable | SubscribeError::NotActive(_)) => Ok(()),
        Err(
            SubscribeError::Failed(error)
            | SubscribeError::NotSupported(error)
            | SubscribeError::Unsendable(error),
        ) => Err(error),
    }
}

fn advance_to(
    hub: &Hub,
    topic: &Topic,
    view: &View,
    reached: Option<NewestCommit>,
) -> Result<(), SubscribeError> {
    let Some(NewestCommit { commit: reached_commit, at: reached }) = reached else {
        topic.finish_advance(view, None);
        return Ok(());
    };
    if *reached == view.checkpoint() {
        return Ok(());
    }
    let ring_commit = match view.changes_since(&reached)? {
        ChangesSince::TooOld | ChangesSince::OtherHistory => None,
        ChangesSince::Commits { commits, .. } => {
            let mut keys: BTreeMap<TableId, BTreeSet<&str>> = BTreeMap::new();
            for changes in commits.iter().flat_map(|commit| &commit.tables) {
                keys.entry(changes.table).or_default().extend(changed(changes).map(|(key, _)| key));
            }
            // With that many keys a snapshot is cheaper.
            let few = keys.values().map(BTreeSet::len).sum::<usize>() <= hub.config.merge_keys_max;
            let mut tables = Vec::new();
            for (table, keys) in keys.into_iter().filter(|_| few) {
                tables.push(rows_of(view, table, keys.into_iter())?);
            }
            few.then(|| {
                RingCommit::merged(reached_commit, view.pos(), Arc::new(view.checkpoint()), tables)
            })
        }
    };
    topic.finish_advance(view, ring_commit);
    Ok(())
}

/// What `view` has under `keys`.
fn rows_of<'a>(
    view: &View,
    table: TableId,
    keys: impl Iterator<Item = &'a str>,
) -> Result<TableChanges, SubscribeError> {
    let mut changes = TableChanges { table, ..TableChanges::default() };
    for key in keys {
        match view.get(table, key)? {
            Some(value) => changes.up.push((key.to_owned(), value)),
            None => changes.del.push(key.to_owned()),
        }
    }
    Ok(changes)
}

/// A start from where the subscription was; else the reason it needs a
/// snapshot, none where it never was anywhere.
fn resume(
    hub: &Hub,
    opened: &OpenView,
    table: &TableInfo,
    request: &ReadRequest,
) -> Result<Result<StartKind, Option<ResetReason>>, SubscribeError> {
    let (at, too_old) = match &request.resume {
        Resume::No { .. } => return Ok(Err(None)),
        Resume::Token(text) => match token::decode(text) {
            Some(token) if token.query != request.query => {
                return Ok(Err(Some(ResetReason::Fields)));
            }
            None => return Ok(Err(Some(ResetReason::Fields))),
            Some(token) if token.epoch != *opened.agreed.epoch => {
                return Ok(Err(Some(ResetReason::Epoch)));
            }
            Some(token) => (Arc::new(token.at), ResetReason::TooOld),
        },
        Resume::Own { epoch, .. } if *epoch != opened.agreed.epoch => {
            return Ok(Err(Some(ResetReason::Epoch)));
        }
        Resume::Own { at, .. } => (at.clone(), ResetReason::Overflow),
    };
    let (commit, commits) = match opened.view.changes_since(&at)? {
        ChangesSince::OtherHistory => return Ok(Err(Some(ResetReason::History))),
        ChangesSince::TooOld => return Ok(Err(Some(too_old))),
        ChangesSince::Commits { from, commits } => (from, commits),
    };
    let ready = match request.mode {
        Mode::State => merged(hub, opened, table.id, commit, &commits)?,
        Mode::Changes => each(hub, opened, table.id, commit, &commits)?,
    };
    Ok(ready
        .map(|ready| StartKind::Resumed { commit, at, ready })
        .ok_or(Some(ResetReason::Overflow)))
}

/// One delta of all of `commits`; `None` where that is more than may be merged.
fn merged(
    hub: &Hub,
    opened: &OpenView,
    table: TableId,
    from: u64,
    commits: &[ShardChanges],
) -> Result<Option<Vec<ReadyDelta>>, SubscribeError> {
    let (config, view) = (&hub.config, &opened.view);
    let to = view.pos();
    let mut merged = MergedChanges::default();
    for changes in commits.iter().flat_map(|c| &c.tables).filter(|changes| changes.table == table) {
        if !merged.add(changes, config.merge_keys_max) {
            return Ok(None);
        }
    }
    let (several, changed_any) = (merged.commits > 1, !merged.rows.is_empty());
    let rows;
    if opened.agreed.many {
        rows = rows_of(view, table, merged.rows.into_keys())?;
        merged = MergedChanges::default();
        merged.add(&rows, usize::MAX);
    }
    let bytes = merged.bytes();
    if bytes > config.merge_bytes_max {
        return Ok(None);
    }
    let ready = |fragment, merged| {
        let at = Arc::new(view.checkpoint());
        Ok(Some(vec![ReadyDelta { from, to, at, fragment, merged }]))
    };
    if !changed_any {
        return ready(None, false);
    }
    let Some(lease) = BudgetLease::take(&hub.merge_budget, bytes, config.merge_total_bytes_max)
    else {
        return Ok(None);
    };
    if several {
        metrics::counter!("lantern_feed_merges_total").increment(1);
    }
    let part_bytes = config.part_bytes(&opened.agreed.epoch, view.offsets().len());
    let fragment = DeltaParts::encode(merged.rows.into_iter(), part_bytes, Some(lease))?;
    ready(Some(Arc::new(fragment)), several)
}

/// A delta for each of `commits`; `None` where that is too much. With one
/// partition only, so a shard's commits are the version's.
fn each(
    hub: &Hub,
    opened: &OpenView,
    table: TableId,
    from: u64,
    commits: &[ShardChanges],
) -> Result<Option<Vec<ReadyDelta>>, SubscribeError> {
    let (config, view) = (&hub.config, &opened.view);
    let part_bytes = config.part_bytes(&opened.agreed.epoch, 1);
    let (mut from, mut left) = (from, config.merge_bytes_max);
    let mut ready = Vec::new();
    for ShardChanges { commit: to, point, tables, .. } in commits {
        let Some(changes) = tables.iter().find(|changes| changes.table == table) else { continue };
        let bytes = changed(changes).map(|(k, v)| k.len() + v.map_or(0, <[u8]>::len)).sum();
        let lease = BudgetLease::take(&hub.merge_budget, bytes, config.merge_total_bytes_max);
        let (Some(rest), Some(lease)) = (left.checked_sub(bytes), lease) else { return Ok(None) };
        left = rest;
        // A point of the view's own change log is of its history.
        let Some(at) = view.checkpoint_at(&[*point])? else { return Ok(None) };
        let fragment = DeltaParts::encode(changed(changes), part_bytes, Some(lease))?;
        let (fragment, at) = (Some(Arc::new(fragment)), Arc::new(at));
        ready.push(ReadyDelta { from, to: *to, at, fragment, merged: false });
        from = *to;
    }
    let to = view.pos();
    if from != to || ready.is_empty() {
        let at = Arc::new(view.checkpoint());
        ready.push(ReadyDelta { from, to, at, fragment: None, merged: false });
    }
    Ok(Some(ready))
}

/// Cuts a table into encoded parts.
struct Scan<'a> {
    view: &'a View,
    table: TableId,
    range: KeyRange,
    rows: std::vec::IntoIter<lantern_core::Row>,
    ended: bool,
    parts: SnapshotParts,
    rows_max: u64,
    rows_seen: u64,
}

impl<'a> Scan<'a> {
    fn new(opened: &'a OpenView, table: TableId, config: &LiveConfig) -> Self {
        let partitions = opened.view.offsets().len();
        Self {
            view: &opened.view,
            table,
            range: KeyRange::all(),
            rows: Vec::new().into_iter(),
            ended: false,
            parts: SnapshotParts::new(config.part_bytes(&opened.agreed.epoch, partitions)),
            rows_max: config.snapshot_rows_max,
            rows_seen: 0,
        }
    }

    /// The next part, and whether it is the last.
    fn next(&mut self) -> Result<(Bytes, bool), SubscribeError> {
        loop {
            for row in self.rows.by_ref() {
                self.rows_seen += 1;
                if self.rows_seen > self.rows_max {
                    let max = self.rows_max;
                    return Err(SubscribeError::Unsendable(format!(
                        "the table has more than {max} rows: raise `snapshot_rows_max` or read it by pages"
                    )));
                }
                if let Some(part) = self.parts.push(&row.key, &row.value)? {
                    return Ok((part, false));
                }
            }
            if self.ended {
                return Ok((self.parts.finish(), true));
            }
            let rows = self.view.scan(self.table, &self.range, SCAN_ROWS, false)?;
            self.ended = rows.len() < SCAN_ROWS;
            if let Some(last) = rows.last() {
                // The least key after the last one.
                self.range.start = [last.key.as_bytes(), &[0]].concat();
            }
            self.rows = rows.into_iter();
        }
    }
}
