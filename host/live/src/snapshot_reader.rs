//! Reads the store for subscriptions: changes from the change log, and snapshots. The reads run on
//! blocking threads, at most `snapshot_readers` at the same time.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::Recovering;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::advance::{OpenView, open_view};
use crate::projection_feed::ProjectionFeed;
use crate::protocol::{Mode, ResetReason};
use crate::resources::Resources;
use crate::resume::{self, ReadRequest, SnapshotPart, SnapshotRows, StartKind, SubscriptionStart};
use crate::roll_up_start;
use crate::session_signal::SessionSignal;
use crate::shape::SelectedTable;
use crate::snapshot::Snapshot;
use crate::subscribe_error::SubscribeError;
use crate::table_scan::TableScan;
use crate::topic::Topic;

/// The number of parts of a large snapshot that are encoded before the session has sent them.
const PARTS_AHEAD: usize = 2;
/// The interval at which a read checks whether a projection has recovered from a crash.
const RECOVERY_POLL: Duration = Duration::from_millis(20);

type ReadReply = oneshot::Sender<Result<SubscriptionStart, SubscribeError>>;

/// Wakes a session when this is dropped, so that the session looks for the result of a read even if
/// the read has failed.
struct WakeOnDrop(Arc<SessionSignal>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Starts the read that `request` needs, and returns the receiver of its result. The read signals
/// `signal` when a result, or a part of a snapshot, can be received.
pub(crate) fn open(
    resources: &Arc<Resources>,
    (feed, topic): (&Arc<ProjectionFeed>, &Arc<Topic>),
    request: ReadRequest,
    signal: &Arc<SessionSignal>,
) -> oneshot::Receiver<Result<SubscriptionStart, SubscribeError>> {
    let (answer, opened) = oneshot::channel();
    if let Some(start) = resume::from_memory(feed, topic, &request) {
        // The receiver still exists, so sending cannot fail.
        let _ = answer.send(Ok(start));
        return opened;
    }
    let (resources, feed, topic) = (resources.clone(), feed.clone(), topic.clone());
    let wake = WakeOnDrop(signal.clone());
    tokio::spawn(async move {
        recovered(&resources, &feed.name).await;
        let Ok(permit) = resources.readers.clone().acquire_owned().await else { return };
        let runtime = Handle::current();
        let read = move || {
            let _permit = permit;
            let pending = PendingRead { resources, feed, topic, request, wake };
            pending.run(answer, &runtime);
        };
        // If the read panics, `answer` is dropped. The session then treats the read as failed.
        let _ = tokio::task::spawn_blocking(read).await;
    });
    opened
}

/// Waits until `projection` has recovered from a crash, which means that it has folded again all
/// events whose results readers may have seen. If this takes longer than [`Recovering::WAIT`] or
/// needs an operator, the read that follows fails with the reason.
async fn recovered(resources: &Resources, projection: &str) {
    let until = Instant::now() + Recovering::WAIT;
    while Instant::now() < until
        && resources.views.recovering(projection).is_some_and(|recovering| !recovering.stopped)
    {
        tokio::time::sleep(RECOVERY_POLL).await;
    }
}

/// A read for one subscription.
struct PendingRead {
    resources: Arc<Resources>,
    feed: Arc<ProjectionFeed>,
    topic: Arc<Topic>,
    request: ReadRequest,
    wake: WakeOnDrop,
}

impl PendingRead {
    /// Reads the data that the subscription needs, and sends it to the session. If it cannot be
    /// sent, the session has ended.
    fn run(&self, answer: ReadReply, runtime: &Handle) {
        // The session may have ended while this read waited for a permit.
        if answer.is_closed() {
            return;
        }
        let started = self.start();
        match started {
            Ok(Started::Ready(opened)) => drop(answer.send(Ok(opened))),
            Ok(Started::Snapshot(selected, opened, why)) => {
                self.snapshot(&opened, (selected, why), answer, runtime);
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn start(&self) -> Result<Started, SubscribeError> {
        if let Some(roll_up) = &self.topic.roll_up {
            let shared = (&*self.resources, &*self.feed, &*self.topic);
            return roll_up_start::start(roll_up, shared, &self.request).map(Started::Ready);
        }
        let opened = open_view(&self.resources, &self.feed)?;
        // While this read waited, another subscriber may have created the same snapshot.
        if let Some(opened) = resume::from_memory(&self.feed, &self.topic, &self.request) {
            return Ok(Started::Ready(opened));
        }
        let table = self.request.table(&opened)?;
        if opened.agreed.many && self.request.mode == Mode::Changes {
            let message = "mode `changes` needs a projection over one partition: use mode `state`";
            return Err(SubscribeError::NotSupported(message.into()));
        }
        let selected = self.topic.select(&opened.agreed.epoch, &table)?;
        match resume::from_change_log(&self.resources, &opened, &selected, &self.request)? {
            Ok(start) => Ok(Started::Ready(start_of(&opened, selected, start))),
            Err(why) => Ok(Started::Snapshot(selected, opened, why)),
        }
    }

    /// Reads a table for a snapshot. If the table is small enough to be shared, it is read
    /// completely; otherwise it is read part by part while the session sends the parts.
    fn snapshot(
        &self,
        opened: &OpenView,
        (table, why): (SelectedTable, Option<ResetReason>),
        answer: ReadReply,
        runtime: &Handle,
    ) {
        let config = &self.resources.config;
        let deadline = Instant::now() + Duration::from_millis(config.snapshot_ms_max);
        let epoch = opened.agreed.epoch.clone();
        let (commit, at) = (opened.view.pos(), Arc::new(opened.view.checkpoint()));
        let mut scan = TableScan::new(opened, table.clone(), config, deadline);
        let (parts, whole) = match scan.first_parts(config) {
            Ok(parts) => parts,
            Err(error) => return drop(answer.send(Err(error))),
        };
        if whole {
            let snapshot = Arc::new(Snapshot { epoch, commit, at, parts, _lease: None });
            self.topic.keep_snapshot(snapshot.clone());
            let start = StartKind::Snapshot { why, rows: SnapshotRows::Shared(snapshot) };
            return drop(answer.send(Ok(start_of(opened, table, start))));
        }
        let (send, receive) = mpsc::channel(PARTS_AHEAD);
        let start = StartKind::Snapshot {
            why,
            rows: SnapshotRows::Streamed { commit, at, parts: receive },
        };
        if answer.send(Ok(start_of(opened, table, start))).is_err() {
            return;
        }
        self.wake.0.wake();
        let hand_out = |part| {
            let sent = runtime.block_on(tokio::time::timeout_at(deadline, send.send(part)));
            self.wake.0.wake();
            // A failed send means that the session has ended, or will be closed because it is too
            // slow.
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

/// The result of the first step of a read, which decides whether a snapshot is needed.
enum Started {
    /// No snapshot is needed, or there is one already. The subscription can start.
    Ready(SubscriptionStart),
    /// The table must be read. The reason is set if the subscription wanted to continue
    /// and cannot.
    Snapshot(SelectedTable, OpenView, Option<ResetReason>),
}

fn start_of(opened: &OpenView, table: SelectedTable, start: StartKind) -> SubscriptionStart {
    let (epoch, generation) = (opened.agreed.epoch.clone(), opened.agreed.generation);
    SubscriptionStart { epoch, generation, table, start }
}
