//! Takes the engine's commits and hands them to the projections' feeds; knows how many
//! sessions there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lantern_core::{CommitSink, PublishedCommit, Views};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::LiveConfig;
use crate::projection_feed::{ProjectionFeed, ProjectionFeeds};
use crate::resources::{LagSource, Resources};
use crate::session;
use crate::session_end::SessionEnd;

/// The feed: every session and every projection that is subscribed to.
pub struct Hub {
    resources: Arc<Resources>,
    feeds: ProjectionFeeds,
    sessions: AtomicUsize,
}

impl Hub {
    /// A feed over `views`. Check `config` before ([`LiveConfig::check`]).
    #[must_use]
    pub fn new(views: Arc<dyn Views>, lag: LagSource, config: LiveConfig) -> Arc<Self> {
        let resources = Arc::new(Resources::new(views, lag, config));
        Arc::new(Self { resources, feeds: Arc::default(), sessions: AtomicUsize::new(0) })
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
        let room = permit.index <= self.resources.config.sessions_max;
        session::run(&self.resources, &self.feeds, io, shutdown, room).await
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many bytes of merged changes are held for slow sessions.
    #[must_use]
    pub fn merged_bytes(&self) -> usize {
        self.resources.merge_budget.load(Ordering::Relaxed)
    }

    fn feed(&self, projection: &str) -> Option<Arc<ProjectionFeed>> {
        // The lock is released before the feed may be dropped: its drop locks.
        self.feeds.lock().get(projection).and_then(Weak::upgrade)
    }
}

impl CommitSink for Hub {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        if let Some(feed) = self.feed(&commit.projection) {
            feed.committed(commit);
        }
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        if let Some(feed) = self.feed(projection) {
            feed.activated(epoch);
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
