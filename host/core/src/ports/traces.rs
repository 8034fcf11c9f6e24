//! Defines the port through which the engine and the feed report what becomes of events that
//! belong to a trace (W3C Trace Context).

use crate::{Checkpoint, EventRef, Offset, ShardId, Timestamp};

/// A time in nanoseconds since 1970-01-01T00:00:00Z, as spans have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceTime(pub u64);

/// An event whose trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedEvent {
    /// The offset of the event in the partition of its shard.
    pub offset: Offset,
    /// The id of the trace.
    pub trace: [u8; 16],
    /// The id of the span that recorded the last step of the event. It is the parent of the span
    /// of the next step.
    pub span: [u8; 8],
}

/// A call in which a shard passed events to the plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldCall {
    /// When the call began.
    pub began: TraceTime,
    /// The offset of the first event of the call.
    pub first: Offset,
    /// The offset after the last event of the call.
    pub next: Offset,
    /// The number of events of the call.
    pub events: usize,
    /// Whether the version serves readers.
    pub serves: bool,
}

/// What a shard has done with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldOutcome<'a> {
    /// The events were applied.
    Applied,
    /// The event was parked, because it cannot be applied. Contains the reason.
    Parked(&'a str),
    /// The event was parked without a call, because an earlier event of its subject is parked.
    Waiting,
}

/// A commit that contains traced events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TracedCommit {
    /// When the commit began.
    pub began: TraceTime,
    /// When the commit ended.
    pub ended: TraceTime,
    /// The number of the commit in its shard; see [`crate::PublishedCommit::pos`].
    pub pos: u64,
    /// The first offset that the commit before did not contain.
    pub first: Offset,
    /// The first offset that this commit does not contain.
    pub next: Offset,
    /// The number of rows that the commit writes or deletes.
    pub rows: usize,
    /// Whether the commit is durable.
    pub durable: bool,
    /// Whether the commit is published to readers.
    pub published: bool,
}

/// A data frame of the feed that was written to a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct SentFrame<'a> {
    /// The number of the session.
    pub session: u64,
    /// The client's number of the subscription.
    pub subscription: u64,
    /// The name of the projection.
    pub projection: &'a str,
    /// The kind of the frame: `snap`, `delta` or `tick`.
    pub kind: &'static str,
    /// The epoch of the state that the client shows after the frame.
    pub epoch: &'a str,
    /// The commit that the client shows after the frame.
    pub commit: u64,
    /// The checkpoint of this commit.
    pub at: &'a Checkpoint,
}

/// Records traces of events. The engine and the feed call it; it only observes. Nothing that it
/// returns may reach a plugin, a table or the log. The methods return quickly and do not block.
pub trait EventTraces: Send + Sync {
    /// Returns the current time of day.
    fn now(&self) -> TraceTime;

    /// Returns whether events that were appended at `appended`, or at an unknown time, are
    /// recorded at all.
    fn wants(&self, appended: Option<Timestamp>) -> bool;

    /// Reports what a shard has done with `events` in `call`. Returns those events that belong to
    /// a trace that is recorded.
    fn folded<'a>(
        &self,
        shard: &ShardId,
        call: &FoldCall,
        outcome: FoldOutcome<'_>,
        events: &mut dyn Iterator<Item = (Offset, EventRef<'a>)>,
    ) -> Vec<TracedEvent>;

    /// Reports a commit that contains `events`.
    fn committed(&self, shard: &ShardId, commit: &TracedCommit, events: &[TracedEvent]);

    /// Reports a frame that brought a client to a commit.
    fn sent(&self, frame: &SentFrame<'_>);
}
