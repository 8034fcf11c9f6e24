//! Reports the steps of traced events of one shard to the port [`EventTraces`]. It only observes:
//! no result of a fold depends on it.

use std::sync::Arc;

use lantern_core::{
    EventRef, EventTraces, FoldCall, FoldOutcome, Offset, PublishedCommit, ShardId, TracedCommit,
    TracedEvent,
};

use crate::batching::GatheredBatch;
use crate::commit::CommitOutcome;

/// The maximum number of traced events of a shard that wait for their commit. If there are more,
/// the traces of the oldest ones end with their fold.
const UNCOMMITTED_MAX: usize = 4_096;

/// The traced events of one shard.
pub(crate) struct ShardTraces {
    port: Arc<dyn EventTraces>,
    /// The call in progress, or the last one.
    call: FoldCall,
    /// The folded events that are not committed yet, in the order of their offsets.
    uncommitted: Vec<TracedEvent>,
}

impl ShardTraces {
    pub(crate) fn new(port: Arc<dyn EventTraces>) -> Self {
        Self { port, call: FoldCall::default(), uncommitted: Vec::new() }
    }

    /// Notes that a call with the events at `offsets` begins.
    pub(crate) fn begin_call(&mut self, offsets: &[u64], serves: bool) {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return };
        let (first, next) = (Offset(*first), Offset(*last).next());
        self.call = FoldCall { began: self.port.now(), first, next, events: offsets.len(), serves };
    }

    /// Reports that the last call has applied the events at `offsets`.
    pub(crate) fn applied(&mut self, shard: &ShardId, gathered: &GatheredBatch, offsets: &[u64]) {
        let Some(newest) = offsets.last() else { return };
        // The append times rise, so if the newest event is too old, all are.
        if !self.port.wants(gathered.appended(Offset(*newest))) {
            return;
        }
        let mut events = offsets
            .iter()
            .filter_map(|offset| Some((Offset(*offset), gathered.event(Offset(*offset))?)));
        let traced = self.port.folded(shard, &self.call, FoldOutcome::Applied, &mut events);
        self.add(traced);
    }

    /// Reports that the event at `offset` was parked.
    pub(crate) fn parked(
        &mut self,
        shard: &ShardId,
        (offset, event): (Offset, EventRef<'_>),
        outcome: FoldOutcome<'_>,
    ) {
        let call = match outcome {
            // No call contains an event that waits.
            FoldOutcome::Waiting => FoldCall {
                began: self.port.now(),
                first: offset,
                next: offset.next(),
                events: 0,
                serves: self.call.serves,
            },
            FoldOutcome::Applied | FoldOutcome::Parked(_) => self.call,
        };
        let traced = self.port.folded(shard, &call, outcome, &mut std::iter::once((offset, event)));
        self.add(traced);
    }

    fn add(&mut self, traced: Vec<TracedEvent>) {
        self.uncommitted.extend(traced);
        let more = self.uncommitted.len().saturating_sub(UNCOMMITTED_MAX);
        self.uncommitted.drain(..more);
    }

    /// Returns the port, as the clock of a commit that contains traced events. `None` if no traced
    /// event waits for a commit.
    pub(crate) fn commit_clock(&self) -> Option<Arc<dyn EventTraces>> {
        (!self.uncommitted.is_empty()).then(|| self.port.clone())
    }

    /// Reports a commit that succeeded. `first` is the next offset of the commit before, and
    /// `published` what readers get of this commit.
    pub(crate) fn committed(
        &mut self,
        shard: &ShardId,
        first: Offset,
        outcome: &CommitOutcome,
        published: Option<&PublishedCommit>,
    ) {
        let Some(timing) = &outcome.timing else { return };
        let next = outcome.meta.next;
        let count = self.uncommitted.partition_point(|event| event.offset < next);
        let events: Vec<_> = self.uncommitted.drain(..count).collect();
        if events.is_empty() {
            return;
        }
        let commit = TracedCommit {
            began: timing.began,
            ended: timing.ended,
            rows: timing.rows,
            pos: outcome.meta.pos,
            first,
            next,
            durable: outcome.is_durable(),
            published: published.is_some(),
        };
        self.port.committed(shard, &commit, &events);
    }
}
