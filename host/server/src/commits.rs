//! Receives the commits that the engine publishes.

use std::sync::{Arc, OnceLock, Weak};

use lantern_core::{CommitSink, CommittedOffsets, PublishedCommit};
use lantern_live::Hub;
use lantern_traces::Tracer;
use tokio::sync::watch;

/// Receives the commits that the engine publishes. For each commit it does three things:
///
/// * It passes the commit to the feed.
/// * It wakes the requests that wait for an offset.
/// * If other programs can read offsets in the log, it notes the commit's offset there.
///
/// The hub of the feed reads tables from the engine, and the engine publishes commits to the hub
/// through this type. So this type is created without a hub, and is connected to the hub before
/// anything runs. Its reference to the hub is weak: with a strong one, engine and hub would keep
/// each other in memory, and the data folder in use, forever.
pub(crate) struct Commits {
    hub: OnceLock<Weak<Hub>>,
    offsets: Option<Arc<dyn CommittedOffsets>>,
    /// Records which commits are published; `None` if no traces are recorded.
    traces: Option<Arc<Tracer>>,
    changed: watch::Sender<()>,
}

impl Commits {
    pub(crate) fn new(
        offsets: Option<Arc<dyn CommittedOffsets>>,
        traces: Option<Arc<Tracer>>,
    ) -> Self {
        Self { hub: OnceLock::new(), offsets, traces, changed: watch::Sender::new(()) }
    }

    pub(crate) fn connect(&self, hub: &Arc<Hub>) {
        assert!(self.hub.set(Arc::downgrade(hub)).is_ok(), "the hub is connected once");
    }

    /// Returns the receiver of a signal for each commit and activation.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl CommitSink for Commits {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            match &self.traces {
                Some(traces) => {
                    let subscriptions = || hub.subscriptions(&commit.projection);
                    traces.publish(commit, subscriptions, || hub.committed(commit));
                }
                None => hub.committed(commit),
            }
        }
        // Only durable commits are noted. The broker may delete events before a noted offset, and
        // after a crash the state may need the events of a commit that was not durable.
        if let Some(offsets) = self.offsets.as_ref().filter(|_| commit.durable) {
            offsets.note_offset(&commit.projection, commit.partition, commit.next);
        }
        self.changed.send_replace(());
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            hub.activated(projection, epoch);
        }
        self.changed.send_replace(());
    }
}
