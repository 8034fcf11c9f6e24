//! Implements the feed of one projection. It contains the epoch, the newest commits, and the topics
//! that select rows from these commits.
//!
//! The feed of a projection exists as long as it has subscriptions. Engine threads only add commits
//! to the ring and wake the projection's task ([`crate::advance`]), which wakes the sessions. So
//! the cost of a commit for the engine does not depend on the number of readers.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lantern_api::feed::Lag;
use lantern_core::{Checkpoint, PublishedCommit, TableId, View};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::LiveConfig;
use crate::protocol::ResetReason;
use crate::query::Query;
use crate::resources::LagSource;
use crate::ring::{NewestCommit, Ring, RingCommit, RingRange, RingSource, table_bit};
use crate::session_signal::SessionSignal;
use crate::table_info::{TableInfo, tables_of};
use crate::topic::Topic;

/// The feeds of all projections with subscribers, by name.
pub(crate) type ProjectionFeeds = Arc<Mutex<HashMap<String, Weak<ProjectionFeed>>>>;

/// The feed of one projection, which its subscriptions share.
pub(crate) struct ProjectionFeed {
    pub(crate) name: String,
    /// The state of the feed. A thread that locks both must lock `state` before `topics`.
    state: Mutex<State>,
    /// Locked while a view is opened and the ring is brought to the view's commit. So if the
    /// projection has several partitions, clients get only commits that are also in the ring.
    pub(crate) advance: Mutex<()>,
    topics: Mutex<HashMap<Query, Weak<Topic>>>,
    pub(crate) wake: Arc<Notify>,
    /// The task that keeps the roll-ups up to date.
    pub(crate) roll_ups: RollUpTask,
    feeds: ProjectionFeeds,
}

/// The task that keeps the roll-ups of a projection up to date.
#[derive(Default)]
pub(crate) struct RollUpTask {
    pub(crate) wake: Arc<Notify>,
    /// Whether the task has started.
    pub(crate) started: AtomicBool,
}

struct State {
    epoch: Option<Arc<str>>,
    /// Counts the activations of versions.
    generation: u64,
    /// Whether the projection was deleted.
    deleted: bool,
    /// The epoch of the commits in the ring, if `epoch` is not known yet.
    ring_epoch: Option<String>,
    partitions: Partitions,
    ring: Ring,
    /// One bit for each table: 1 if the table changed since sessions were last woken.
    touched: u64,
    /// If the projection has several partitions: whether there are commits that are not in the ring
    /// yet.
    behind: bool,
    tables: Arc<[TableInfo]>,
    lag: Option<(Instant, Option<Lag>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Partitions {
    Unknown,
    One,
    Many,
}

/// The result of comparing a view with the feed.
pub(crate) enum ViewMatch {
    /// View and feed have the same epoch.
    Yes(AgreedState),
    /// The view or the feed is older than the other, because an activation is pending.
    Stale,
}

/// The state of the feed that belongs to a view. It is a copy, because an activation can change the
/// feed at any time.
pub(crate) struct AgreedState {
    pub(crate) epoch: Arc<str>,
    pub(crate) generation: u64,
    /// Whether the projection has more than one partition.
    pub(crate) many: bool,
    tables: Arc<[TableInfo]>,
}

impl AgreedState {
    /// Returns the public table named `table`.
    pub(crate) fn table(&self, table: &str) -> Option<TableInfo> {
        self.tables.iter().find(|info| info.spec.name == table).cloned()
    }
}

/// A commit in the ring. A subscription whose client has this commit can continue from it.
pub(crate) struct Continuation {
    pub(crate) commit: u64,
    pub(crate) epoch: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) table: TableInfo,
    /// Whether the projection has more than one partition.
    pub(crate) many: bool,
}

/// Why a subscription cannot continue.
pub(crate) enum SubscriptionEnd {
    Gone,
    Reset(ResetReason),
}

/// How long a lag is used before it is determined again.
const LAG_KEPT: Duration = Duration::from_millis(200);

impl ProjectionFeed {
    /// Returns the feed of the projection `name`, and whether this call created it. If it did, the
    /// caller must start its task.
    pub(crate) fn of(
        feeds: &ProjectionFeeds,
        name: &str,
        config: &LiveConfig,
    ) -> (Arc<Self>, bool) {
        let mut by_name = feeds.lock();
        if let Some(feed) = by_name.get(name).and_then(Weak::upgrade) {
            return (feed, false);
        }
        let feed = Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::new(State::new(config)),
            advance: Mutex::new(()),
            topics: Mutex::default(),
            wake: Arc::default(),
            roll_ups: RollUpTask::default(),
            feeds: feeds.clone(),
        });
        by_name.insert(name.to_owned(), Arc::downgrade(&feed));
        (feed, true)
    }

    /// Subscribes a session to the topic for `query`.
    pub(crate) fn listen(
        self: &Arc<Self>,
        query: &Query,
        signal: &Arc<SessionSignal>,
    ) -> TopicListener {
        let state = self.state.lock();
        let mut topics = self.topics.lock();
        let topic = topics.get(query).and_then(Weak::upgrade).unwrap_or_else(|| {
            let topic = Arc::new(Topic::new(query.clone(), state.epoch.clone()));
            topics.insert(query.clone(), Arc::downgrade(&topic));
            topic
        });
        let id = topic.listeners.add(signal);
        TopicListener { feed: self.clone(), topic, id }
    }

    /// Returns the number of subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        let topics: Vec<_> = self.topics.lock().values().filter_map(Weak::upgrade).collect();
        topics.iter().map(|topic| topic.listeners.count()).sum()
    }

    /// Adds a commit of a shard to the feed. The engine calls this.
    pub(crate) fn committed(&self, commit: &Arc<PublishedCommit>) {
        let mut state = self.state.lock();
        match &state.epoch {
            // The version of this commit is not the active version. If it is activated later, the
            // view that is opened then contains the commit.
            Some(epoch) if **epoch != *commit.epoch => return,
            Some(_) => {}
            None => {
                if state.ring_epoch.as_ref().is_some_and(|epoch| *epoch != commit.epoch) {
                    state.ring.clear();
                }
                state.ring_epoch = Some(commit.epoch.clone());
            }
        }
        if state.partitions == Partitions::Many {
            state.behind = true;
        } else {
            let ring_commit = RingCommit::commit(commit.clone());
            state.touched |= ring_commit.touched();
            state.ring.push(ring_commit);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Begins another epoch. The engine calls this when another version becomes active, and when
    /// the projection is deleted.
    pub(crate) fn activated(&self, epoch: Option<&str>) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.deleted = epoch.is_none();
        if state.epoch.as_deref() != epoch {
            self.forget(&mut state, epoch.map(Arc::from));
        }
        state.touched = u64::MAX;
        drop(state);
        self.wake.notify_one();
    }

    /// Copies the view's epoch, partitions and tables to the feed if the epochs are equal or the
    /// feed has no epoch. With `force` it accepts every epoch: if view and feed differ for a long
    /// time, the view is right.
    pub(crate) fn adopt(&self, view: &View, force: bool) -> ViewMatch {
        let mut state = self.state.lock();
        let known = state.epoch.clone();
        let epoch = match known {
            Some(epoch) if *epoch == *view.epoch() => epoch,
            Some(_) if !force => return ViewMatch::Stale,
            Some(_) => {
                state.generation += 1;
                state.touched = u64::MAX;
                let epoch: Arc<str> = Arc::from(view.epoch());
                self.forget(&mut state, Some(epoch.clone()));
                epoch
            }
            None => {
                let epoch: Arc<str> = Arc::from(view.epoch());
                if state.ring_epoch.take().is_some_and(|of| of != *view.epoch()) {
                    state.ring.clear();
                }
                self.set_epoch(&mut state, Some(epoch.clone()));
                epoch
            }
        };
        state.deleted = false;
        let many = view.offsets().len() != 1;
        let partitions = if many { Partitions::Many } else { Partitions::One };
        if state.partitions != partitions {
            if many || state.partitions == Partitions::Many {
                state.ring.clear();
            }
            state.partitions = partitions;
        }
        if state.ring.head().is_none() && !many {
            state.ring.start(head_of(view));
        }
        if state.tables.is_empty() {
            state.tables = tables_of(view);
        }
        ViewMatch::Yes(AgreedState {
            epoch,
            generation: state.generation,
            many,
            tables: state.tables.clone(),
        })
    }

    /// Returns the newest commit of the ring if the feed has the epoch `epoch`.
    pub(crate) fn newest_commit(&self, epoch: &str) -> Option<u64> {
        let state = self.state.lock();
        let is_current = state.epoch.as_deref() == Some(epoch);
        state.ring.head().filter(|_| is_current).map(|head| head.commit)
    }

    /// For several partitions: returns the newest commit of the ring, and marks the feed as no
    /// longer behind. The caller must then read all commits that were made before this call.
    pub(crate) fn begin_advance(&self) -> Option<NewestCommit> {
        let mut state = self.state.lock();
        state.behind = false;
        state.ring.head().cloned()
    }

    /// For several partitions: marks the feed as behind again, because reading the commits failed.
    pub(crate) fn still_behind(&self) {
        let mut state = self.state.lock();
        state.behind = state.partitions == Partitions::Many;
        drop(state);
        self.wake.notify_one();
    }

    /// For several partitions: brings the ring to the commit of `view`. It adds `ring_commit` to
    /// the ring. If that is `None`, it empties the ring and begins it again at the view.
    pub(crate) fn finish_advance(&self, view: &View, ring_commit: Option<RingCommit>) {
        let mut state = self.state.lock();
        if state.epoch.as_deref() != Some(view.epoch()) {
            return;
        }
        match ring_commit {
            Some(ring_commit) => {
                state.touched |= ring_commit.touched();
                state.ring.push(ring_commit);
            }
            None => {
                state.touched = u64::MAX;
                state.ring.start(head_of(view));
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Returns the commit that belongs to the checkpoint `at` of `epoch`. `None` unless the ring
    /// has every change after the checkpoint.
    pub(crate) fn continues_from(
        &self,
        epoch: &str,
        at: &Checkpoint,
        table: &str,
    ) -> Option<Continuation> {
        let state = self.state.lock();
        state.continuation(epoch, state.ring.holds(at)?, table)
    }

    /// Like [`Self::continues_from`], for a subscription to a roll-up: the roll-up has every
    /// change after `commit`.
    pub(crate) fn continues_roll_up(
        &self,
        epoch: &str,
        commit: u64,
        table: &str,
    ) -> Option<Continuation> {
        let state = self.state.lock();
        state.continuation(epoch, commit, table)
    }

    /// Returns `None` if there was no activation since `generation`. Otherwise returns the new
    /// generation and, if a subscription that shows `epoch` cannot continue, the reason.
    pub(crate) fn change_since(
        &self,
        epoch: &str,
        generation: u64,
    ) -> Option<(u64, Option<SubscriptionEnd>)> {
        let state = self.state.lock();
        if state.generation == generation {
            return None;
        }
        let change = if state.deleted {
            Some(SubscriptionEnd::Gone)
        } else if state.epoch.as_deref() == Some(epoch) {
            None
        } else {
            Some(SubscriptionEnd::Reset(ResetReason::Epoch))
        };
        Some((state.generation, change))
    }

    /// Returns the projection's lag. It is determined again if the last value is older than
    /// [`LAG_KEPT`].
    pub(crate) fn lag(&self, source: &LagSource) -> Option<Lag> {
        if let Some((requested_at, lag)) = &self.state.lock().lag
            && requested_at.elapsed() < LAG_KEPT
        {
            return *lag;
        }
        let lag = source(&self.name);
        self.state.lock().lag = Some((Instant::now(), lag));
        lag
    }

    /// For several partitions: whether there are commits that are not in the ring yet.
    pub(crate) fn is_behind(&self) -> bool {
        self.state.lock().behind
    }

    /// Wakes the sessions whose rows changed since the last call.
    pub(crate) fn wake_sessions(&self, config: &LiveConfig) {
        let (touched, tables) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.touched), state.tables.clone())
        };
        if touched == 0 {
            return;
        }
        for topic in self.topics() {
            if touched == u64::MAX {
                topic.listeners.for_each(SessionSignal::wake);
                continue;
            }
            let table = tables.iter().find(|info| info.spec.name == topic.query.table());
            let changed = table.is_none_or(|info| table_bit(info.id) & touched != 0);
            if changed && topic.has_news(self, config) {
                topic.listeners.for_each(SessionSignal::offer);
            }
        }
    }

    /// Notes that there may be new commits for roll-ups.
    pub(crate) fn wake_roll_ups(&self) {
        self.roll_ups.wake.notify_one();
    }

    /// Returns the topics that have subscriptions.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        let mut live = Vec::new();
        self.topics.lock().retain(|_, topic| {
            let topic = topic.upgrade();
            let lives = topic.is_some();
            live.extend(topic);
            lives
        });
        live
    }

    /// Deletes everything that belongs to the current epoch, and begins the epoch `epoch`.
    fn forget(&self, state: &mut State, epoch: Option<Arc<str>>) {
        state.ring_epoch = None;
        state.ring.clear();
        state.partitions = Partitions::Unknown;
        state.behind = false;
        state.tables = Arc::default();
        self.set_epoch(state, epoch);
    }

    fn set_epoch(&self, state: &mut State, epoch: Option<Arc<str>>) {
        state.epoch = epoch;
        for topic in self.topics() {
            topic.start_epoch(state.epoch.clone());
        }
    }
}

impl RingSource for ProjectionFeed {
    fn oldest(&self, epoch: &str) -> Option<u64> {
        let state = self.state.lock();
        state.epoch.as_deref().filter(|known| *known == epoch)?;
        state.ring.oldest()
    }

    fn since(&self, epoch: &str, commit: u64, table: TableId, max: usize) -> RingRange {
        let state = self.state.lock();
        if state.epoch.as_deref() == Some(epoch) {
            state.ring.since(commit, table, max)
        } else {
            // An activation is pending. `change_since` reports it.
            RingRange::Current
        }
    }
}

impl Drop for ProjectionFeed {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        // Another feed for the same projection may have been created in the meantime; it must stay
        // in the map.
        if feeds.get(&self.name).is_some_and(|feed| feed.strong_count() == 0) {
            feeds.remove(&self.name);
        }
        drop(feeds);
        self.wake.notify_one();
        self.wake_roll_ups();
    }
}

impl State {
    /// Returns what a subscription to `table` needs to continue after `commit`, if `epoch` is the
    /// current epoch and has the table.
    fn continuation(&self, epoch: &str, commit: u64, table: &str) -> Option<Continuation> {
        let known = self.epoch.as_ref().filter(|known| ***known == *epoch && !self.deleted)?;
        Some(Continuation {
            commit,
            epoch: known.clone(),
            generation: self.generation,
            table: self.tables.iter().find(|info| info.spec.name == table)?.clone(),
            many: self.partitions == Partitions::Many,
        })
    }

    fn new(config: &LiveConfig) -> Self {
        Self {
            epoch: None,
            generation: 0,
            deleted: false,
            ring_epoch: None,
            partitions: Partitions::Unknown,
            ring: Ring::new(config),
            touched: 0,
            behind: false,
            tables: Arc::default(),
            lag: None,
        }
    }
}

/// A session's subscription to a topic. The topic and the feed exist at least as long as this does.
/// Dropping it ends the subscription.
pub(crate) struct TopicListener {
    pub(crate) feed: Arc<ProjectionFeed>,
    pub(crate) topic: Arc<Topic>,
    id: u64,
}

impl Drop for TopicListener {
    fn drop(&mut self) {
        self.topic.listeners.remove(self.id);
        let mut topics = self.feed.topics.lock();
        // This is the last listener of the topic. No new listener can get the topic now, because
        // the map is locked and holds only a weak reference.
        if Arc::strong_count(&self.topic) == 1 {
            topics.remove(&self.topic.query);
        }
    }
}

fn head_of(view: &View) -> NewestCommit {
    NewestCommit { commit: view.pos(), at: Arc::new(view.checkpoint()) }
}
