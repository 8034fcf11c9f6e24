//! Implements the ring, which keeps the newest commits of a projection, in memory, for subscribers
//! that keep up with the feed. A subscriber stores only the number of the commit that it has
//! reached, so a slow subscriber takes no more memory. If the ring no longer has a subscriber's
//! next commit, the subscriber continues from the change log. This module uses no lock and no
//! clock.

use std::collections::VecDeque;
use std::sync::Arc;

use lantern_core::{Checkpoint, PublishedCommit, TableChanges, TableId};

use crate::LiveConfig;
use crate::delta::rows_of;

/// The changes that lead from one commit to another. If the projection has one partition, they are
/// those of a single commit; otherwise they are the merged rows that one or more commits changed.
pub(crate) struct RingCommit {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The checkpoint after the changes.
    pub(crate) at: Arc<Checkpoint>,
    changes: Changes,
    bytes: usize,
}

enum Changes {
    Commit(Arc<PublishedCommit>),
    Merged(Vec<TableChanges>),
}

/// The approximate memory that a row takes in addition to its key and value, in bytes.
const ROW_BYTES: usize = 64;

impl RingCommit {
    /// Creates the entry for a commit of a projection with one partition.
    pub(crate) fn commit(commit: Arc<PublishedCommit>) -> Self {
        let (to, at) = (commit.pos, Arc::new(commit.checkpoint.clone()));
        Self::new(to.saturating_sub(1), to, at, Changes::Commit(commit))
    }

    /// Creates an entry from the merged rows of several partitions.
    pub(crate) fn merged(
        from: u64,
        to: u64,
        at: Arc<Checkpoint>,
        tables: Vec<TableChanges>,
    ) -> Self {
        Self::new(from, to, at, Changes::Merged(tables))
    }

    fn new(from: u64, to: u64, at: Arc<Checkpoint>, changes: Changes) -> Self {
        let mut ring_commit = Self { from, to, at, changes, bytes: ROW_BYTES };
        ring_commit.bytes += ring_commit.tables().iter().map(changes_bytes).sum::<usize>();
        ring_commit
    }

    fn tables(&self) -> &[TableChanges] {
        match &self.changes {
            Changes::Commit(commit) => &commit.tables,
            Changes::Merged(tables) => tables,
        }
    }

    /// Returns the bits (see [`table_bit`]) of the tables that changed.
    pub(crate) fn touched(&self) -> u64 {
        self.tables().iter().fold(0, |bits, changes| bits | table_bit(changes.table))
    }

    /// The approximate memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes of `table`, if there are any.
    pub(crate) fn table(&self, table: TableId) -> Option<&TableChanges> {
        self.tables().iter().find(|c| c.table == table)
    }
}

/// Returns the approximate memory that the changes of a table take, in bytes.
fn changes_bytes(changes: &TableChanges) -> usize {
    rows_of(changes).map(|(key, value)| ROW_BYTES + key.len() + value.map_or(0, <[u8]>::len)).sum()
}

/// Returns the bit of a table. With it, the feed quickly finds the sessions that a commit affects.
/// A manifest has at most 64 tables. If there were more, some tables would share a bit, and
/// sessions would be woken needlessly.
pub(crate) fn table_bit(table: TableId) -> u64 {
    1 << (table.0 % 64)
}

/// The newest commits of a projection, without gaps.
pub(crate) struct Ring {
    commits: VecDeque<Arc<RingCommit>>,
    /// The commit before the oldest one in `commits`, if its checkpoint is known.
    start: Option<NewestCommit>,
    bytes: usize,
    /// The newest commit; `None` if there was no commit or view yet.
    head: Option<NewestCommit>,
    commits_max: usize,
    bytes_max: usize,
}

/// The newest commit that a ring has reached.
#[derive(Clone)]
pub(crate) struct NewestCommit {
    pub(crate) commit: u64,
    pub(crate) at: Arc<Checkpoint>,
}

/// What a subscriber needs in order to get from its commit to the newest one.
pub(crate) enum RingRange {
    /// The ring has no commit after the subscriber's commit.
    Current,
    /// The subscriber needs `commits`, which change its table; the other commits up to `to` do not
    /// change it. If `more` is set, the ring has further changes. The ring begins after the commit
    /// `oldest`.
    Commits { commits: Vec<Arc<RingCommit>>, to: u64, at: Arc<Checkpoint>, oldest: u64, more: bool },
    /// The ring no longer has the commits that follow the subscriber's commit.
    Gone,
}

impl RingRange {
    /// Creates a range with at most `max` of `commits`, which bring a subscriber to the commit
    /// `head`. The ring begins after the commit `oldest`.
    pub(crate) fn of<'c>(
        mut commits: impl Iterator<Item = &'c Arc<RingCommit>>,
        max: usize,
        head: &NewestCommit,
        oldest: u64,
    ) -> Self {
        let taken: Vec<_> = commits.by_ref().take(max).cloned().collect();
        let more = commits.next().is_some();
        let end = taken.last().filter(|_| more).map(|last| (last.to, last.at.clone()));
        let (to, at) = end.unwrap_or_else(|| (head.commit, head.at.clone()));
        Self::Commits { commits: taken, to, at, oldest, more }
    }
}

/// The source of a projection's commits. The feed of the projection implements it.
pub(crate) trait RingSource {
    /// Returns the commit after which the ring of `epoch` has every change. `None` if there is no
    /// such commit, or if an activation is pending.
    fn oldest(&self, epoch: &str) -> Option<u64>;

    /// Returns at most `max` commits of the ring that come after `commit` of `epoch` and change
    /// `table`.
    fn since(&self, epoch: &str, commit: u64, table: TableId, max: usize) -> RingRange;
}

impl Ring {
    pub(crate) fn new(config: &LiveConfig) -> Self {
        Self {
            commits: VecDeque::new(),
            start: None,
            bytes: 0,
            head: None,
            commits_max: config.ring_commits_max,
            bytes_max: config.ring_bytes_max,
        }
    }

    pub(crate) fn head(&self) -> Option<&NewestCommit> {
        self.head.as_ref()
    }

    /// The approximate memory of the commits, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes all commits, also the newest one.
    pub(crate) fn clear(&mut self) {
        self.commits.clear();
        self.bytes = 0;
        (self.start, self.head) = (None, None);
    }

    /// Removes all commits. The next commit must follow `head`.
    pub(crate) fn start(&mut self, head: NewestCommit) {
        self.clear();
        (self.start, self.head) = (Some(head.clone()), Some(head));
    }

    /// Adds a commit, unless the ring has already reached it through a view. If the commit does not
    /// directly follow the ring's newest commit, the ring begins again with it. Subscribers with
    /// earlier commits must then use the change log.
    pub(crate) fn push(&mut self, ring_commit: RingCommit) {
        match &self.head {
            Some(head) if head.commit >= ring_commit.to => return,
            Some(head) if head.commit != ring_commit.from => self.clear(),
            _ => {}
        }
        self.head = Some(NewestCommit { commit: ring_commit.to, at: ring_commit.at.clone() });
        self.bytes += ring_commit.bytes;
        self.commits.push_back(Arc::new(ring_commit));
        while self.commits.len() > self.commits_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.commits.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.start = Some(NewestCommit { commit: oldest.to, at: oldest.at.clone() });
        }
    }

    /// Returns the commits after `commit` up to the newest one that change `table`. At most `max`
    /// commits are returned.
    pub(crate) fn since(&self, commit: u64, table: TableId, max: usize) -> RingRange {
        let Some(head) = &self.head else { return RingRange::Current };
        // The subscriber's view can be newer than the ring. The ring gets the missing commits soon.
        if head.commit <= commit {
            return RingRange::Current;
        }
        let first = self.commits.partition_point(|ring_commit| ring_commit.from < commit);
        if self.commits.get(first).is_none_or(|ring_commit| ring_commit.from != commit) {
            return RingRange::Gone;
        }
        let oldest = self.commits.front().map_or(0, |oldest| oldest.from);
        let changes_table = |ring_commit: &&Arc<RingCommit>| ring_commit.table(table).is_some();
        RingRange::of(self.commits.range(first..).filter(changes_table), max, head, oldest)
    }

    /// Returns the commit after which the ring has every change; `None` before the first commit or
    /// view.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let oldest = self.commits.front().map(|oldest| oldest.from);
        oldest.or(self.head.as_ref().map(|head| head.commit))
    }

    /// Returns the commit that belongs to the checkpoint `at`, if the ring has every change after
    /// it.
    pub(crate) fn holds(&self, at: &Checkpoint) -> Option<u64> {
        let commits = self.commits.iter().rev();
        let commits = commits.map(|ring_commit| (ring_commit.to, &ring_commit.at));
        let ends = [&self.head, &self.start].into_iter().flatten();
        let ends = ends.map(|end| (end.commit, &end.at));
        ends.chain(commits).find(|(_, of)| ***of == *at).map(|(commit, _)| commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit: u64) -> Checkpoint {
        let point = lantern_core::ShardPoint { steps: commit, ..Default::default() };
        Checkpoint::new([(point, Default::default())])
    }

    fn commit(commit: u64, key: &str) -> RingCommit {
        let changes =
            TableChanges { table: TableId(0), up: vec![(key.into(), b"{}".to_vec())], del: vec![] };
        RingCommit::merged(commit - 1, commit, Arc::new(at(commit)), vec![changes])
    }

    fn ring(commits: std::ops::RangeInclusive<u64>) -> Ring {
        let config = LiveConfig { ring_commits_max: 3, ..LiveConfig::default() };
        let mut ring = Ring::new(&config);
        for number in commits {
            ring.push(commit(number, "k"));
        }
        ring
    }

    fn found(ring: &Ring, commit: u64) -> String {
        match ring.since(commit, TableId(0), 10) {
            RingRange::Current => "current".into(),
            RingRange::Gone => "gone".into(),
            RingRange::Commits { commits, to, .. } => format!("{} to {to}", commits.len()),
        }
    }

    #[test]
    fn a_position_finds_what_follows_it_or_hears_that_it_is_gone() {
        let ring = ring(1..=5);
        assert_eq!(found(&ring, 5), "current");
        assert_eq!(found(&ring, 9), "current");
        assert_eq!(found(&ring, 4), "1 to 5");
        assert_eq!(found(&ring, 2), "3 to 5");
        assert_eq!(found(&ring, 1), "gone");
        let held = [1, 2, 3, 5, 6].map(|commit| ring.holds(&at(commit)));
        assert_eq!(held, [None, Some(2), Some(3), Some(5), None]);
        match ring.since(2, TableId(1), 10) {
            RingRange::Commits { commits, to: 5, .. } => assert!(commits.is_empty()),
            _ => panic!("another table's commits only move the commit number"),
        }
    }

    #[test]
    fn a_gap_makes_the_ring_begin_anew() {
        let mut ring = ring(1..=3);
        ring.push(commit(6, "k"));
        assert_eq!(found(&ring, 3), "gone");
        assert_eq!(found(&ring, 5), "1 to 6");
    }

    #[test]
    fn a_step_larger_than_the_ring_leaves_it_empty_but_known() {
        let config = LiveConfig { ring_bytes_max: 10, ..LiveConfig::default() };
        let mut ring = Ring::new(&config);
        ring.push(commit(1, "k"));
        assert_eq!(found(&ring, 0), "gone");
        assert_eq!(found(&ring, 1), "current");
    }
}
