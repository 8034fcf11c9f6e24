//! Defines the port through which the engine passes commits to the feed, and the clock.

use std::sync::Arc;
use std::time::Duration;

use crate::{PublishedCommit, Timestamp};

/// Receives the commits of active versions and sends them to readers.
pub trait CommitSink: Send + Sync {
    /// Reports that a shard of an active version has committed. The engine calls it in the order of
    /// `pos` for each shard. The method must return quickly and must not block.
    fn committed(&self, commit: &Arc<PublishedCommit>);

    /// Reports that the active version of `projection` has changed, or that its state was
    /// recreated. `epoch` is the new epoch, or `None` if the projection was deleted.
    fn activated(&self, projection: &str, epoch: Option<&str>);
}

/// The clock that the engine uses to wait between tries and to limit its speed. The tables must
/// never depend on its times.
pub trait Clock: Send + Sync {
    /// Returns the time since a fixed moment that the implementation chooses. It never decreases.
    fn monotonic(&self) -> Duration;

    /// Returns the CPU time that the calling thread has used since a fixed moment; zero if it is
    /// not measured.
    fn thread_cpu(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the current time of day.
    fn wall(&self) -> Timestamp;
}
