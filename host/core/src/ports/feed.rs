//! Readers of commits, and the clock.

use std::sync::Arc;
use std::time::Duration;

use crate::{PublishedCommit, Timestamp};

/// Takes the commits of active versions, to push them to readers.
pub trait CommitSink: Send + Sync {
    /// A shard of an active version committed. Called in order of `pos` for one
    /// shard; must be quick and must not block.
    fn committed(&self, commit: &Arc<PublishedCommit>);

    /// Another version serves `projection` now, or the same with a new state,
    /// or (`None`) it is gone.
    fn activated(&self, projection: &str, epoch: Option<&str>);
}

/// Time, for pacing and back-off; never for what ends up in a table.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// CPU time of the calling thread, also since some fixed moment; zero if
    /// it is not measured.
    fn thread_cpu(&self) -> Duration {
        Duration::ZERO
    }

    /// Time of day.
    fn wall(&self) -> Timestamp;
}
