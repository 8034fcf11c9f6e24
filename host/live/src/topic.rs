//! A projection with subscribers: its recent commits, its epoch,
//! and the sessions to wake.
//!
//! A topic lives as long as its subscriptions. Engine threads only push to the
//! ring and wake the topic's own task (`pump`), which wakes the sessions, so
//! that a commit costs the engine the same whatever the number of readers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern_api::feed::Lag;
use lantern_core::{Checkpoint, PublishedCommit, TableId, View};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::encode::{BudgetLease, DeltaParts};
use crate::hub::{Hub, LagSource};
use crate::protocol::{Field, Mode, ResetReason};
use crate::ring::{MergedChanges, NewestCommit, Ring, RingCommit, RingRange, table_bit};
use crate::{LiveConfig, snapshot_reader};

/// Wakes one session.
#[derive(Default)]
pub(crate) struct SessionSignal {
    /// Whether the session could send a change now if there were one. One that
    /// waits for its reader or its rate is not woken for nothing.
    armed: AtomicBool,
    pub(crate) notify: Notify,
}

impl SessionSignal {
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Wakes the session where a change is of use to it.
    fn offer(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Wakes the session.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }
}

/// All topics by projection.
pub(crate) type Topics = Arc<Mutex<HashMap<String, Weak<Topic>>>>;

/// See the module.
pub(crate) struct Topic {
    pub(crate) name: String,
    state: Mutex<State>,
    /// Held while a view is opened and the ring brought up to it, so that with
    /// several partitions every commit handed out is one of the ring's.
    pub(crate) advance: Mutex<()>,
    listeners: Mutex<HashMap<u64, Listener>>,
    listener_next: AtomicU64,
    wake: Arc<Notify>,
    topics: Topics,
}

struct Listener {
    tables: u64,
    signal: Arc<SessionSignal>,
}

struct State {
    epoch: Option<Arc<str>>,
    /// Changes with every activation.
    generation: u64,
    /// The projection was deleted.
    deleted: bool,
    /// The epoch of the commits in the ring, while `epoch` is not known yet.
    ring_epoch: Option<String>,
    partitions: Partitions,
    ring: Ring,
    /// Tables changed since sessions were last woken.
    touched: u64,
    /// With several partitions: commits were made that the ring has not.
    behind: bool,
    tables: Arc<[TableInfo]>,
    snapshots: BTreeMap<TableId, Arc<Snapshot>>,
    merges: VecDeque<(TableId, u64, u64, Arc<DeltaParts>)>,
    lag: Option<(Instant, Option<Lag>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Partitions {
    Unknown,
    One,
    Many,
}

/// A public table.
#[derive(Clone)]
pub(crate) struct TableInfo {
    pub(crate) id: TableId,
    name: String,
    /// Its fields as the protocol shows them.
    pub(crate) fields: Arc<[Field]>,
}

/// A table's rows at one commit, encoded.
pub(crate) struct Snapshot {
    pub(crate) epoch: Arc<str>,
    pub(crate) commit: u64,
    pub(crate) at: Arc<Checkpoint>,
    pub(crate) parts: Vec<Bytes>,
}

/// A delta to be sent, or, without a fragment, a tick.
pub(crate) struct ReadyDelta {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) at: Arc<Checkpoint>,
    pub(crate) fragment: Option<Arc<DeltaParts>>,
    pub(crate) merged: bool,
}

/// What a subscriber should do next.
pub(crate) enum NextAction {
    /// Nothing happened.
    Current,
    /// The commit moved, its rows did not.
    Moved(ReadyDelta),
    /// There are changes; `more` follow at once.
    Changes { ready: Vec<ReadyDelta>, more: bool },
    /// It is further behind than the ring reaches.
    Gone,
    /// Too much changed: a snapshot is cheaper.
    Overflow,
    /// A row fits no frame: a sentence for people.
    Unsendable(String),
}

/// Whether a view and the topic agree.
pub(crate) enum ViewMatch {
    /// They do.
    Yes(AgreedState),
    /// One of them is older: an activation is pending.
    Stale,
}

/// What a view and the topic agree on. Copied, since an activation may make the
/// topic forget it at any moment.
pub(crate) struct AgreedState {
    pub(crate) epoch: Arc<str>,
    pub(crate) generation: u64,
    /// Whether there are several partitions.
    pub(crate) many: bool,
    tables: Arc<[TableInfo]>,
}

impl AgreedState {
    /// The public table named `table`.
    pub(crate) fn table(&self, table: &str) -> Option<TableInfo> {
        self.tables.iter().find(|info| info.name == table).cloned()
    }
}

/// How long a lag is taken to be true.
const LAG_KEPT: Duration = Duration::from_millis(200);
/// Merged changes kept for other subscribers at the same commit.
const MERGES_KEPT: usize = 8;
/// Merged changes larger than this are not kept for others.
const MERGE_KEPT_BYTES: usize = 256 << 10;
/// The pause before a failed read of merged rows is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Topic {
    /// The topic of `name`, created if there is none yet. Must be called on a
    /// runtime: it spawns the topic's task.
    pub(crate) fn of(hub: &Arc<Hub>, name: &str) -> Arc<Self> {
        let mut topics = hub.topics.lock();
        if let Some(topic) = topics.get(name).and_then(Weak::upgrade) {
            return topic;
        }
        let topic = Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::new(State::new(&hub.config)),
            advance: Mutex::new(()),
            listeners: Mutex::default(),
            listener_next: AtomicU64::new(0),
            wake: Arc::default(),
            topics: hub.topics.clone(),
        });
        topics.insert(name.to_owned(), Arc::downgrade(&topic));
        tokio::spawn(pump(Arc::downgrade(&topic), topic.wake.clone(), Arc::downgrade(hub)));
        topic
    }

    /// A shard committed.
    pub(crate) fn committed(&self, commit: &Arc<PublishedCommit>) {
        let mut state = self.state.lock();
        match &state.epoch {
            // Of a version that is not served any more, or not yet; a view
            // opened at its activation has it.
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

    /// Another version is served, or the projection was deleted.
    pub(crate) fn activated(&self, epoch: Option<&str>) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.deleted = epoch.is_none();
        if state.epoch.as_deref() != epoch {
            state.forget(epoch.map(Arc::from));
        }
        state.touched = u64::MAX;
        drop(state);
        self.wake.notify_one();
    }

    /// Takes a view's word for epoch, partitions and tables. `force` where the
    /// two have not agreed for long: the view is right then.
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
                state.forget(Some(epoch.clone()));
                epoch
            }
            None => {
                let epoch: Arc<str> = Arc::from(view.epoch());
                if state.ring_epoch.take().is_some_and(|of| of != *view.epoch()) {
                    state.ring.clear();
                }
                state.epoch = Some(epoch.clone());
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

    /// With several partitions: the commit the ring has reached, which is
    /// then no longer behind what was committed before this call.
    pub(crate) fn begin_advance(&self) -> Option<NewestCommit> {
        let mut state = self.state.lock();
        state.behind = false;
        state.ring.head().cloned()
    }

    /// With several partitions: an advance failed, and is to be tried again.
    pub(crate) fn still_behind(&self) {
        let mut state = self.state.lock();
        state.behind = state.partitions == Partitions::Many;
        drop(state);
        self.wake.notify_one();
    }

    /// With several partitions: brings the ring to `view`, by `ring_commit` or, if
    /// there is none, by dropping the commits before.
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

    /// The public table named `table`.
    pub(crate) fn table(&self, table: &str) -> Option<TableInfo> {
        self.state.lock().tables.iter().find(|info| info.name == table).cloned()
    }

    /// A snapshot of `table` from which the ring leads on, if one is kept.
    pub(crate) fn kept_snapshot(&self, table: TableId) -> Option<(Arc<Snapshot>, u64, bool)> {
        let state = self.state.lock();
        let snapshot = state.snapshots.get(&table)?;
        let usable = !state.deleted
            && state.epoch.as_ref() == Some(&snapshot.epoch)
            && state.ring.holds(&snapshot.at).is_some();
        usable.then(|| (snapshot.clone(), state.generation, state.partitions == Partitions::Many))
    }

    /// Keeps a snapshot for the next who needs one.
    pub(crate) fn keep_snapshot(&self, table: TableId, snapshot: Arc<Snapshot>) {
        let mut state = self.state.lock();
        if state.epoch.as_ref() == Some(&snapshot.epoch) {
            state.snapshots.insert(table, snapshot);
        }
    }

    /// The commit, epoch and generation if the ring leads on from `at` of `epoch`.
    pub(crate) fn leads_on_from(
        &self,
        epoch: &str,
        at: &Checkpoint,
    ) -> Option<(u64, Arc<str>, u64, bool)> {
        let state = self.state.lock();
        let known = state.epoch.as_ref().filter(|known| ***known == *epoch && !state.deleted)?;
        let commit = state.ring.holds(at)?;
        Some((commit, known.clone(), state.generation, state.partitions == Partitions::Many))
    }

    /// What became of a subscriber's epoch since `generation`: nothing
    /// (`None`), or its new generation and why it must start again, if it must.
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

    /// What a subscriber at `commit` should be sent.
    pub(crate) fn pending(
        &self,
        hub: &Hub,
        epoch: &str,
        commit: u64,
        table: TableId,
        mode: Mode,
    ) -> NextAction {
        let config = &hub.config;
        let commits_max = match mode {
            Mode::State => usize::MAX,
            // Kept until sent, so no more than may be unacknowledged.
            Mode::Changes => config.window.max(1) as usize,
        };
        let state = self.state.lock();
        if state.epoch.as_deref() != Some(epoch) {
            // An activation is pending; `change_since` reports it.
            return NextAction::Current;
        }
        let (commits, to, at, head) = match state.ring.since(commit, table, commits_max) {
            RingRange::Current => return NextAction::Current,
            RingRange::Gone => return NextAction::Gone,
            RingRange::Commits { commits, to, at } => {
                (commits, to, at, state.ring.head().map_or(0, |head| head.commit))
            }
        };
        drop(state);
        let part_bytes = config.part_bytes(epoch, at.points.len());
        match (&commits[..], mode) {
            ([], _) => NextAction::Moved(ReadyDelta {
                from: commit,
                to,
                at,
                fragment: None,
                merged: false,
            }),
            ([ring_commit], Mode::State) => match ring_commit.fragment(table, part_bytes) {
                Some(Err(error)) => NextAction::Unsendable(error.to_string()),
                fragment => {
                    let fragment = fragment.and_then(Result::ok);
                    let ready = ReadyDelta { from: commit, to, at, fragment, merged: false };
                    NextAction::Changes { ready: vec![ready], more: false }
                }
            },
            (_, Mode::State) => self.merge(hub, &commits, commit, (to, at), (table, part_bytes)),
            (_, Mode::Changes) => each(&commits, commit, table, part_bytes, to < head),
        }
    }

    /// One delta of several commits.
    fn merge(
        &self,
        hub: &Hub,
        commits: &[Arc<RingCommit>],
        from: u64,
        (to, at): (u64, Arc<Checkpoint>),
        (table, part_bytes): (TableId, usize),
    ) -> NextAction {
        let config = &hub.config;
        let ready = |fragment, at| NextAction::Changes {
            ready: vec![ReadyDelta { from, to, at, fragment: Some(fragment), merged: true }],
            more: false,
        };
        metrics::counter!("lantern_feed_merges_total").increment(1);
        let kept = self
            .state
            .lock()
            .merges
            .iter()
            .find(|kept| (kept.0, kept.1, kept.2) == (table, from, to))
            .map(|kept| kept.3.clone());
        if let Some(fragment) = kept {
            return ready(fragment, at);
        }
        let mut merged = MergedChanges::default();
        for changes in commits.iter().filter_map(|ring_commit| ring_commit.table(table)) {
            if !merged.add(changes, config.merge_keys_max) {
                return NextAction::Overflow;
            }
        }
        let bytes = merged.bytes();
        if bytes > config.merge_bytes_max {
            return NextAction::Overflow;
        }
        let Some(lease) = BudgetLease::take(&hub.merge_budget, bytes, config.merge_total_bytes_max)
        else {
            return NextAction::Overflow;
        };
        match DeltaParts::encode(merged.rows.into_iter(), part_bytes, Some(lease)) {
            Ok(fragment) => {
                let fragment = Arc::new(fragment);
                if bytes <= MERGE_KEPT_BYTES {
                    let mut state = self.state.lock();
                    state.merges.push_back((table, from, to, fragment.clone()));
                    if state.merges.len() > MERGES_KEPT {
                        state.merges.pop_front();
                    }
                }
                ready(fragment, at)
            }
            Err(error) => NextAction::Unsendable(error.to_string()),
        }
    }

    /// How far the projection is behind its log; refreshed now and then.
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

    /// Has `signal` offered the changes of `table` until the guard is dropped.
    pub(crate) fn listen(
        self: &Arc<Self>,
        table: TableId,
        signal: &Arc<SessionSignal>,
    ) -> ListenerGuard {
        let id = self.listener_next.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { tables: table_bit(table), signal: signal.clone() };
        self.listeners.lock().insert(id, listener);
        ListenerGuard { topic: self.clone(), id }
    }

    fn wake_listeners(&self) {
        let touched = std::mem::take(&mut self.state.lock().touched);
        if touched == 0 {
            return;
        }
        for listener in self.listeners.lock().values() {
            if touched == u64::MAX {
                listener.signal.wake();
            } else if listener.tables & touched != 0 {
                listener.signal.offer();
            }
        }
    }
}

/// Why a subscription cannot go on as it is.
pub(crate) enum SubscriptionEnd {
    Gone,
    Reset(ResetReason),
}

/// Removes a listener when dropped.
pub(crate) struct ListenerGuard {
    topic: Arc<Topic>,
    id: u64,
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.topic.listeners.lock().remove(&self.id);
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let mut topics = self.topics.lock();
        // Another of the same name may have taken its place already.
        if topics.get(&self.name).is_some_and(|topic| topic.strong_count() == 0) {
            topics.remove(&self.name);
        }
        drop(topics);
        self.wake.notify_one();
    }
}

impl State {
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
            snapshots: BTreeMap::new(),
            merges: VecDeque::new(),
            lag: None,
        }
    }

    /// Nothing of another epoch may stay.
    fn forget(&mut self, epoch: Option<Arc<str>>) {
        self.epoch = epoch;
        self.ring_epoch = None;
        self.ring.clear();
        self.partitions = Partitions::Unknown;
        self.behind = false;
        self.tables = Arc::default();
        self.snapshots.clear();
        self.merges.clear();
    }
}

/// Wakes sessions after commits, and with several partitions reads merged rows
/// first. Ends with its topic.
async fn pump(topic: Weak<Topic>, wake: Arc<Notify>, hub: Weak<Hub>) {
    loop {
        wake.notified().await;
        let (Some(topic), Some(hub)) = (topic.upgrade(), hub.upgrade()) else { return };
        if topic.state.lock().behind {
            let (reading, of) = (hub.clone(), topic.clone());
            let read =
                tokio::task::spawn_blocking(move || snapshot_reader::advance(&reading, &of)).await;
            if let Ok(Err(error)) = read {
                tracing::warn!(projection = topic.name, %error, "the feed cannot read merged rows");
                // It was marked as still behind; the pause bounds the retries.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            topic.wake_listeners();
            drop(topic);
            tokio::time::sleep(Duration::from_millis(hub.config.partitions_ms)).await;
        } else {
            topic.wake_listeners();
        }
    }
}

/// Each commit as a delta of its own.
fn each(
    commits: &[Arc<RingCommit>],
    mut commit: u64,
    table: TableId,
    part_bytes: usize,
    more: bool,
) -> NextAction {
    let mut ready = Vec::with_capacity(commits.len());
    for ring_commit in commits {
        let fragment = match ring_commit.fragment(table, part_bytes) {
            Some(Ok(fragment)) => fragment,
            Some(Err(error)) => return NextAction::Unsendable(error.to_string()),
            None => continue,
        };
        let at = ring_commit.at.clone();
        ready.push(ReadyDelta {
            from: commit,
            to: ring_commit.to,
            at,
            fragment: Some(fragment),
            merged: false,
        });
        commit = ring_commit.to;
    }
    NextAction::Changes { ready, more }
}

fn head_of(view: &View) -> NewestCommit {
    NewestCommit { commit: view.pos(), at: Arc::new(view.checkpoint()) }
}

fn tables_of(view: &View) -> Arc<[TableInfo]> {
    let tables = (0..).map(TableId).zip(&view.manifest().tables).filter(|(_, table)| table.public);
    tables
        .map(|(id, table)| {
            let fields = table.fields.iter().map(|field| Field {
                name: field.name.clone(),
                kind: field.kind.name().into(),
                unit: field.unit.clone(),
            });
            TableInfo { id, name: table.name.clone(), fields: fields.collect() }
        })
        .collect()
}
