//! Takes the engine's commits and hands them to the topics; knows how many
//! sessions there are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lantern_api::feed::Lag;
use lantern_core::{CommitSink, PublishedCommit, Views};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::LiveConfig;
use crate::session::{self, SessionEnd};
use crate::topic::{Topic, Topics};

/// Tells how far the projection of that name is behind; `None` where that is
/// not known. Asked at most a few times a second for one projection; must not
/// block.
pub type LagSource = Arc<dyn Fn(&str) -> Option<Lag> + Send + Sync>;

/// The feed: every session and every projection that is subscribed to.
pub struct Hub {
    pub(crate) views: Arc<dyn Views>,
    pub(crate) lag: LagSource,
    pub(crate) config: LiveConfig,
    pub(crate) topics: Topics,
    pub(crate) readers: Arc<Semaphore>,
    /// Bytes of merged changes held now.
    pub(crate) merge_budget: Arc<AtomicUsize>,
    sessions: AtomicUsize,
}

impl Hub {
    /// A feed over `views`. Check `config` before ([`LiveConfig::check`]).
    #[must_use]
    pub fn new(views: Arc<dyn Views>, lag: LagSource, config: LiveConfig) -> Arc<Self> {
        Arc::new(Self {
            views,
            lag,
            readers: Arc::new(Semaphore::new(config.snapshot_readers.max(1))),
            config,
            topics: Arc::new(Mutex::new(HashMap::new())),
            merge_budget: Arc::default(),
            sessions: AtomicUsize::new(0),
        })
    }

    /// Runs one session on a connection that was upgraded to WebSocket with
    /// the subprotocol [`crate::SUBPROTOCOL`], until it ends. `shutdown`
    /// closes it with 4501. Spawn it as a task: a slow session waits here and
    /// nowhere else.
    pub async fn serve<I, S>(self: Arc<Self>, io: I, shutdown: S) -> SessionEnd
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
        S: Future<Output = ()> + Send,
    {
        let permit = SessionPermit::new(&self);
        session::run(&self, io, shutdown, permit.index <= self.config.sessions_max).await
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many bytes of merged changes are held for slow sessions.
    #[must_use]
    pub fn merged_bytes(&self) -> usize {
        self.merge_budget.load(Ordering::Relaxed)
    }

    fn topic(&self, projection: &str) -> Option<Arc<Topic>> {
        // The lock is released before the topic may be dropped: its drop locks.
        self.topics.lock().get(projection).and_then(Weak::upgrade)
    }
}

impl CommitSink for Hub {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        if let Some(topic) = self.topic(&commit.projection) {
            topic.committed(commit);
        }
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        if let Some(topic) = self.topic(projection) {
            topic.activated(epoch);
        }
    }
}

/// A session's index in the count, given back when it ends.
struct SessionPermit<'a> {
    hub: &'a Hub,
    /// 1 for the first.
    index: usize,
}

impl<'a> SessionPermit<'a> {
    fn new(hub: &'a Hub) -> Self {
        let index = hub.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::gauge!("lantern_feed_sessions").increment(1.0);
        Self { hub, index }
    }
}

impl Drop for SessionPermit<'_> {
    fn drop(&mut self) {
        self.hub.sessions.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("lantern_feed_sessions").decrement(1.0);
    }
}
