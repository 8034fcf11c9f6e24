//! Remembers the traced events of commits until the commits were published, and until clients of
//! the feed have got them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern_core::{
    Offset, PartitionId, PublishedCommit, SentFrame, ShardId, TraceTime, TracedEvent, VersionId,
};
use parking_lot::Mutex;

/// The maximum number of commits that are remembered in each of the two lists.
const COMMITS_MAX: usize = 256;
/// The maximum number of clients for which a commit gets spans.
pub(crate) const CLIENTS_MAX: usize = 4;
/// How long a published commit waits until clients have got it. Later frames make no spans.
const PATIENCE: Duration = Duration::from_secs(10);

/// Commits with traced events that clients do not have yet.
#[derive(Default)]
pub(crate) struct Publications {
    /// The commits that are not published yet.
    committed: Mutex<VecDeque<Committed>>,
    /// The published commits that not all clients have got yet.
    published: Mutex<VecDeque<Published>>,
    /// The number of commits in `published`, which is read without the lock.
    published_count: AtomicUsize,
}

struct Committed {
    projection: String,
    version: VersionId,
    partition: PartitionId,
    pos: u64,
    events: Vec<TracedEvent>,
}

/// A commit that was passed to the feed.
pub(crate) struct Published {
    projection: String,
    epoch: String,
    partition: PartitionId,
    next: Offset,
    at: Instant,
    began: TraceTime,
    /// The clients that have got it: session and subscription.
    clients: Vec<(u64, u64)>,
    /// The number of clients for which spans are made.
    clients_max: usize,
    events: Vec<TracedEvent>,
}

impl Publications {
    /// Remembers the events of a commit that will be published.
    pub(crate) fn add(&self, shard: &ShardId, pos: u64, events: Vec<TracedEvent>) {
        let commit = Committed {
            projection: shard.projection.clone(),
            version: shard.version.clone(),
            partition: shard.partition,
            pos,
            events,
        };
        push_newest(&mut self.committed.lock(), commit);
    }

    /// Returns the events of `commit`, which is about to be published; `None` if it has none.
    pub(crate) fn take(&self, commit: &PublishedCommit) -> Option<Vec<TracedEvent>> {
        let mut committed = self.committed.lock();
        let index = committed.iter().position(|of| {
            of.pos == commit.pos
                && of.partition == commit.partition
                && of.projection == commit.projection
                && of.version == commit.version
        })?;
        committed.remove(index).map(|of| of.events)
    }

    /// Remembers that `commit` is published, until `clients` clients have got it. `events` have the
    /// spans of the publication.
    pub(crate) fn published(
        &self,
        commit: &PublishedCommit,
        began: TraceTime,
        clients: usize,
        events: Vec<TracedEvent>,
    ) {
        if clients == 0 {
            return;
        }
        let mut published = self.published.lock();
        let commit = Published {
            projection: commit.projection.clone(),
            epoch: commit.epoch.clone(),
            partition: commit.partition,
            next: commit.next,
            at: Instant::now(),
            began,
            clients: Vec::new(),
            clients_max: clients.min(CLIENTS_MAX),
            events,
        };
        push_newest(&mut published, commit);
        self.published_count.store(published.len(), Ordering::Release);
    }

    /// Calls `each` for every commit that a client has got with `frame`, with the time at which the
    /// commit was published and its events.
    pub(crate) fn sent(
        &self,
        frame: &SentFrame<'_>,
        mut each: impl FnMut(TraceTime, &[TracedEvent]),
    ) {
        if self.published_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let client = (frame.session, frame.subscription);
        let mut published = self.published.lock();
        published.retain_mut(|commit| {
            if commit.at.elapsed() > PATIENCE {
                return false;
            }
            if commit.is_shown_by(frame) && !commit.clients.contains(&client) {
                commit.clients.push(client);
                each(commit.began, &commit.events);
            }
            commit.clients.len() < commit.clients_max
        });
        self.published_count.store(published.len(), Ordering::Release);
    }
}

/// Adds a commit. If the list is full, removes the oldest one.
fn push_newest<C>(commits: &mut VecDeque<C>, commit: C) {
    if commits.len() >= COMMITS_MAX {
        commits.pop_front();
    }
    commits.push_back(commit);
}

impl Published {
    /// Returns whether a client that has got `frame` shows this commit.
    fn is_shown_by(&self, frame: &SentFrame<'_>) -> bool {
        let point = frame.at.points.get(self.partition.0 as usize);
        self.projection == frame.projection
            && self.epoch == frame.epoch
            && point.is_some_and(|point| point.next >= self.next)
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::{Checkpoint, ShardPoint, ShardProof, Timestamp};

    use super::*;

    fn commit(pos: u64) -> PublishedCommit {
        PublishedCommit {
            projection: "p".into(),
            version: VersionId("v".into()),
            epoch: "e".into(),
            partition: PartitionId(0),
            pos,
            next: Offset(pos * 10),
            checkpoint: Checkpoint::default(),
            event_time: Timestamp::MIN,
            durable: true,
            tables: Vec::new(),
        }
    }

    fn shard() -> ShardId {
        let PublishedCommit { projection, version, partition, .. } = commit(0);
        ShardId { projection, version, partition, rebuild: 0 }
    }

    fn event(offset: u64) -> TracedEvent {
        TracedEvent { offset: Offset(offset), trace: [1; 16], span: [2; 8] }
    }

    /// Returns how many commits are recorded as sent when `session` shows the state at `next`.
    fn sent(publications: &Publications, session: u64, epoch: &str, next: u64) -> usize {
        let point = ShardPoint { next: Offset(next), ..ShardPoint::default() };
        let at = Checkpoint::new([(point, ShardProof::default())]);
        let mut count = 0;
        let frame = SentFrame {
            session,
            subscription: 1,
            projection: "p",
            kind: "delta",
            epoch,
            commit: 1,
            at: &at,
        };
        publications.sent(&frame, |_, _| count += 1);
        count
    }

    #[test]
    fn a_commit_is_sent_once_to_each_of_the_first_clients() {
        let publications = Publications::default();
        let clients = CLIENTS_MAX + 5;
        publications.published(&commit(1), TraceTime(1), clients, vec![event(3)]);
        assert_eq!(sent(&publications, 0, "e", 9), 0, "the client does not show the commit yet");
        assert_eq!(sent(&publications, 0, "other", 10), 0, "this is another version");
        assert_eq!(sent(&publications, 0, "e", 10), 1);
        assert_eq!(sent(&publications, 0, "e", 20), 0, "the client has got it before");
        let more: usize = (1..50).map(|session| sent(&publications, session, "e", 10)).sum();
        assert_eq!(more, CLIENTS_MAX - 1);
        assert_eq!(publications.published_count.load(Ordering::Acquire), 0);
        publications.published(&commit(2), TraceTime(1), 0, vec![event(3)]);
        assert_eq!(sent(&publications, 0, "e", 20), 0, "no client waits for it");
    }

    #[test]
    fn the_newest_commits_are_remembered_until_they_are_published() {
        let publications = Publications::default();
        for pos in 0..COMMITS_MAX as u64 + 1 {
            publications.add(&shard(), pos, vec![event(pos)]);
        }
        assert_eq!(publications.take(&commit(0)), None);
        assert_eq!(publications.take(&commit(1)), Some(vec![event(1)]));
        assert_eq!(publications.take(&commit(1)), None);
    }
}
