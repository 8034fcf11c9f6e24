//! Implements topics. A topic is the data that subscribers with equal queries share: the snapshot
//! and the deltas, each encoded once, and the list of sessions to wake.
//!
//! A topic exists as long as it has subscriptions. Commits are stored once for each projection
//! ([`crate::projection_feed`]), and the topic selects its changes from them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use lantern_core::{RequestError, RollUpError, TableId};
use parking_lot::Mutex;

use crate::LiveConfig;
use crate::delta::{DeltaChain, DeltaEncoder, DeltaError, EncodedChanges, ReadyDelta};
use crate::encode::DeltaParts;
use crate::protocol::Mode;
use crate::query::Query;
use crate::resources::Resources;
use crate::ring::{RingCommit, RingRange, RingSource};
use crate::selected_commits::SelectedCommits;
use crate::session_signal::Listeners;
use crate::shape::{SelectedTable, Shape};
use crate::shared_roll_up::SharedRollUp;
use crate::snapshot::Snapshot;
use crate::table_info::TableInfo;

/// The data that subscribers with equal queries share.
pub(crate) struct Topic {
    pub(crate) query: Query,
    pub(crate) listeners: Listeners,
    /// Locked before the state of the projection's feed, which is locked before `shared`.
    selected: Mutex<SelectedCommits>,
    /// The groups, if the query is a roll-up.
    pub(crate) roll_up: Option<SharedRollUp>,
    shared: Mutex<Shared>,
}

/// The encoded data that all subscribers share. All of it belongs to one epoch.
#[derive(Default)]
struct Shared {
    epoch: Option<Arc<str>>,
    /// The form of the rows; `None` before the first read.
    table: Option<SelectedTable>,
    snapshot: Option<Arc<Snapshot>>,
    /// The encoded delta of each commit, by the number of the commit. A delta is kept as long as
    /// the ring has its commit.
    commits: BTreeMap<u64, Arc<OnceLock<EncodedChanges>>>,
    merges: VecDeque<MergedDelta>,
}

/// The encoded changes that lead from one commit to another.
struct MergedDelta {
    from: u64,
    to: u64,
    parts: Arc<DeltaParts>,
}

/// What a subscriber should do next.
pub(crate) enum NextAction {
    /// Nothing: there is nothing new to send.
    Current,
    /// Send a tick: there is a newer commit, but no row changed.
    Moved(ReadyDelta),
    /// Send deltas. If `more` is set, the ring already has further changes.
    Changes { ready: Vec<ReadyDelta>, more: bool },
    /// Read the change log: the ring no longer has the commits after the subscriber's commit.
    Gone,
    /// Get a snapshot: too much has changed, so a snapshot is cheaper.
    Overflow,
    /// End: a row does not fit into a frame. Contains a text for people.
    Unsendable(String),
    /// End: the roll-up cannot go on.
    RollUpEnded(RollUpError),
}

impl From<DeltaError> for NextAction {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::TooMuch => Self::Overflow,
            DeltaError::TooLarge(error) => Self::Unsendable(error.to_string()),
        }
    }
}

/// The maximum number of merged deltas that are kept for other subscribers.
const MERGES_KEPT: usize = 8;
/// The maximum size of a merged delta that is kept, in bytes.
const MERGE_KEPT_BYTES: usize = 256 << 10;

impl Topic {
    pub(crate) fn new(query: Query, epoch: Option<Arc<str>>) -> Self {
        let shared = Mutex::new(Shared { epoch, ..Shared::default() });
        let roll_up = query.roll_up().map(SharedRollUp::new);
        let (listeners, selected) = (Listeners::default(), Mutex::default());
        Self { query, listeners, selected, roll_up, shared }
    }

    /// Returns what subscribers get of `table`, which is a table of `epoch`.
    ///
    /// # Errors
    /// [`RequestError`] if the query does not suit the table.
    pub(crate) fn select(
        &self,
        epoch: &str,
        table: &TableInfo,
    ) -> Result<SelectedTable, RequestError> {
        if let Some(kept) = self.selected_table(epoch) {
            return Ok(kept);
        }
        let shape = Arc::new(Shape::new(&self.query, table)?);
        let selected = SelectedTable { id: table.id, shape };
        self.keep_table(epoch, selected.clone());
        Ok(selected)
    }

    /// What subscribers get of the table of `epoch`; `None` before the first read.
    pub(crate) fn selected_table(&self, epoch: &str) -> Option<SelectedTable> {
        self.share(epoch, |shared| shared.table.clone()).flatten()
    }

    /// Keeps what subscribers get of the table of `epoch`.
    pub(crate) fn keep_table(&self, epoch: &str, table: SelectedTable) {
        self.share(epoch, |shared| shared.table = Some(table));
    }

    /// Returns at most `max` commits that come after `commit` of `epoch` and change rows of the
    /// query.
    ///
    /// # Errors
    /// [`RollUpError`] if the query is a roll-up that cannot go on.
    pub(crate) fn since(
        &self,
        feed: &dyn RingSource,
        shown: (&Arc<str>, u64),
        table: &SelectedTable,
        config: &LiveConfig,
        max: usize,
    ) -> Result<RingRange, RollUpError> {
        if let Some(roll_up) = &self.roll_up {
            return roll_up.since(shown, table.id);
        }
        Ok(match &table.shape.rows {
            None => feed.since(shown.0, shown.1, table.id, max),
            Some(rows) => self.selected.lock().since(feed, shown, (rows, table.id), config, max),
        })
    }

    /// Returns whether the commits since the last call change rows of the query, or may change
    /// them.
    pub(crate) fn has_news(&self, feed: &dyn RingSource, config: &LiveConfig) -> bool {
        // Every commit of the table changes rows of this query, so no lock is needed.
        if self.query.is_whole_table() {
            return true;
        }
        // The task of the roll-ups wakes the sessions when groups have changed.
        if self.roll_up.is_some() {
            return false;
        }
        let (epoch, table) = {
            let shared = self.shared.lock();
            let (Some(epoch), Some(table)) = (&shared.epoch, &shared.table) else { return true };
            (epoch.clone(), table.clone())
        };
        let Some(rows) = &table.shape.rows else { return true };
        self.selected.lock().has_news(feed, &epoch, (rows, table.id), config)
    }

    /// Begins the epoch `epoch`, and drops all data of another epoch.
    pub(crate) fn start_epoch(&self, epoch: Option<Arc<str>>) {
        let mut shared = self.shared.lock();
        if shared.epoch != epoch {
            *shared = Shared { epoch, ..Shared::default() };
        }
    }

    /// Returns the snapshot that is kept for the next subscriber that needs one.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.lock().snapshot.clone()
    }

    /// Keeps a snapshot for the next subscriber that needs one.
    pub(crate) fn keep_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.share(&snapshot.epoch.clone(), |shared| shared.snapshot = Some(snapshot));
    }

    /// Calls `with` with the shared data if the data belongs to `epoch`. Otherwise it returns
    /// `None`.
    fn share<T>(&self, epoch: &str, with: impl FnOnce(&mut Shared) -> T) -> Option<T> {
        let mut shared = self.shared.lock();
        (shared.epoch.as_deref() == Some(epoch)).then(|| with(&mut shared))
    }

    /// Returns what a subscriber does next whose client has the commit `from` of `epoch`. `range`
    /// contains the commits of the ring after `from`.
    pub(crate) fn next_action(
        &self,
        resources: &Resources,
        (epoch, from): (&str, u64),
        range: RingRange,
        (table, mode): (TableId, Mode),
    ) -> NextAction {
        let (commits, oldest, to, at, more) = match range {
            RingRange::Current => return NextAction::Current,
            RingRange::Gone => return NextAction::Gone,
            RingRange::Commits { commits, oldest, to, at, more } => (commits, oldest, to, at, more),
        };
        let encoder = DeltaEncoder::new(resources, epoch, at.points.len());
        let commit_parts = |commit: &RingCommit| -> Result<_, DeltaError> {
            let changes = commit.table(table).expect("the range has commits of the table alone");
            let encoded = self.encoded(epoch, commit.to, oldest);
            Ok(encoded.get_or_init(|| encoder.commit(changes)).clone()?)
        };
        let ready = match (&commits[..], mode) {
            ([], _) => return NextAction::Moved(ReadyDelta::tick(from, to, at)),
            ([commit], Mode::State) => commit_parts(commit)
                .map(|parts| vec![ReadyDelta { from, to, at, parts: Some(parts), merged: false }]),
            (_, Mode::State) => self
                .merged_parts(&encoder, epoch, (from, to), &commits, table)
                .map(|parts| vec![ReadyDelta { from, to, at, parts: Some(parts), merged: true }]),
            (_, Mode::Changes) => {
                let mut chain = DeltaChain::new(from);
                commits
                    .iter()
                    .try_for_each(|commit| {
                        chain.push(commit.to, commit.at.clone(), commit_parts(commit)?);
                        Ok(())
                    })
                    .map(|()| chain.ready)
            }
        };
        ready.map_or_else(NextAction::from, |ready| NextAction::Changes { ready, more })
    }

    /// Returns the cell for the encoded changes of the commit `to`. It is empty until a subscriber
    /// encodes them. The call also drops the cells of commits up to `oldest`, which the ring no
    /// longer has.
    fn encoded(&self, epoch: &str, to: u64, oldest: u64) -> Arc<OnceLock<EncodedChanges>> {
        let encoded = self.share(epoch, |shared| {
            while shared.commits.first_key_value().is_some_and(|(to, _)| *to <= oldest) {
                shared.commits.pop_first();
            }
            shared.commits.entry(to).or_default().clone()
        });
        encoded.unwrap_or_default()
    }

    /// Returns the merged and encoded changes of several commits. They are encoded once for all
    /// subscribers that need the changes between the same two commits.
    fn merged_parts(
        &self,
        encoder: &DeltaEncoder<'_>,
        epoch: &str,
        (from, to): (u64, u64),
        commits: &[Arc<RingCommit>],
        table: TableId,
    ) -> Result<Arc<DeltaParts>, DeltaError> {
        metrics::counter!("lantern_feed_merges_total").increment(1);
        let kept = self.share(epoch, |shared| {
            let kept = shared.merges.iter().find(|kept| (kept.from, kept.to) == (from, to));
            kept.map(|kept| kept.parts.clone())
        });
        if let Some(parts) = kept.flatten() {
            return Ok(parts);
        }
        let changes = commits.iter().filter_map(|commit| commit.table(table));
        let (parts, bytes) = encoder.merged(&encoder.merge(changes)?)?;
        if bytes <= MERGE_KEPT_BYTES {
            self.share(epoch, |shared| {
                shared.merges.push_back(MergedDelta { from, to, parts: parts.clone() });
                if shared.merges.len() > MERGES_KEPT {
                    shared.merges.pop_front();
                }
            });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lantern_core::{Checkpoint, TableChanges, ViewError};

    use super::*;
    use crate::query::tests::query;

    struct NoViews;

    impl lantern_core::Views for NoViews {
        fn view(&self, name: &str) -> Result<lantern_core::View, ViewError> {
            Err(ViewError::NoProjection(name.into()))
        }

        fn view_version(
            &self,
            name: &str,
            _: &lantern_core::VersionId,
        ) -> Result<lantern_core::View, ViewError> {
            self.view(name)
        }
    }

    fn resources() -> Resources {
        Resources::new(
            Arc::new(NoViews),
            None,
            Arc::new(|_: &str| None),
            None,
            LiveConfig::default(),
        )
    }

    fn topic(epoch: &str) -> Topic {
        Topic::new(query("shop/a", serde_json::json!({})).unwrap(), Some(epoch.into()))
    }

    /// Returns the ring's commits after commit 0: one commit for each of `keys`, which changes this
    /// key.
    fn range(keys: &[&str]) -> RingRange {
        let at = Arc::new(Checkpoint::default());
        let commits = (1..).zip(keys).map(|(to, key)| {
            let up = vec![((*key).to_owned(), b"{}".to_vec())];
            let changes = TableChanges { table: TableId(0), up, del: vec![] };
            Arc::new(RingCommit::merged(to - 1, to, at.clone(), vec![changes]))
        });
        let (commits, to) = (commits.collect(), keys.len() as u64);
        RingRange::Commits { commits, to, at: at.clone(), oldest: 0, more: false }
    }

    /// Returns the encoded changes that a subscriber gets whose client has commit 0 of `epoch`.
    fn parts(topic: &Topic, epoch: &str, keys: &[&str]) -> Bytes {
        let of = (TableId(0), Mode::State);
        match topic.next_action(&resources(), (epoch, 0), range(keys), of) {
            NextAction::Changes { ready, .. } => ready[0].parts.as_ref().unwrap().parts[0].clone(),
            _ => panic!("there are changes"),
        }
    }

    #[test]
    fn equal_queries_share_one_encoding_of_each_delta() {
        let topic = topic("1");
        for keys in [&["k"][..], &["k", "l"]] {
            let (first, second) = (parts(&topic, "1", keys), parts(&topic, "1", keys));
            assert_eq!(first.as_ptr(), second.as_ptr(), "{keys:?}");
        }
    }

    #[test]
    fn a_delta_encoded_for_an_earlier_epoch_is_not_shared_with_the_next() {
        let topic = topic("1");
        topic.start_epoch(Some("2".into()));
        for keys in [[&["old"][..], &["new"]], [&["old", "old2"], &["new", "new2"]]] {
            // A session asks for changes before it has noticed the activation.
            assert!(parts(&topic, "1", keys[0]).starts_with(b"\"up\":{\"old\""));
            let current = parts(&topic, "2", keys[1]);
            assert!(current.starts_with(b"\"up\":{\"new\""), "{current:?}");
        }
    }

    #[test]
    fn encoded_commits_are_dropped_when_the_ring_drops_them() {
        let topic = topic("1");
        for commit in 1..=100 {
            topic.encoded("1", commit, commit.saturating_sub(5));
        }
        assert_eq!(topic.shared.lock().commits.len(), 5);
    }
}
