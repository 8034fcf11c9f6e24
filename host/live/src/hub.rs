//! Passes the engine's commits on to the feeds of the projections, and counts the
//! sessions.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lantern_api::FeedTransport;
use lantern_core::{CommitSink, EventTraces, PublishedCommit, RollUps, Views};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::LiveConfig;
use crate::event_stream::{self, EventStream, StreamSender};
use crate::open_sessions::{OpenSessions, SessionEntry, SessionStatus};
use crate::projection_feed::{ProjectionFeed, ProjectionFeeds};
use crate::protocol::close;
use crate::resources::{LagSource, Resources};
use crate::session_end::SessionEnd;
use crate::stream_request::{StreamRefusal, StreamRequest};
use crate::web_socket;

/// The feed of a server: all sessions, and all projections that have subscribers.
pub struct Hub {
    resources: Arc<Resources>,
    feeds: ProjectionFeeds,
    open: OpenSessions,
}

impl Hub {
    /// Creates a feed that reads tables from `views`. `roll_ups` creates the roll-ups of
    /// subscriptions; without it, the feed refuses them. `traces` receives the frames that were
    /// sent. The caller must have checked `config` with [`LiveConfig::check`].
    #[must_use]
    pub fn new(
        views: Arc<dyn Views>,
        roll_ups: Option<Arc<dyn RollUps>>,
        lag: LagSource,
        traces: Option<Arc<dyn EventTraces>>,
        config: LiveConfig,
    ) -> Arc<Self> {
        let resources = Arc::new(Resources::new(views, roll_ups, lag, traces, config));
        Arc::new(Self { resources, feeds: Arc::default(), open: OpenSessions::default() })
    }

    /// Runs one session like [`Hub::serve_from`], without the address of the client.
    pub fn serve<I, S>(self: Arc<Self>, io: I, shutdown: S) -> impl Future<Output = SessionEnd>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
        S: Future<Output = ()> + Send,
    {
        self.serve_from(None, io, shutdown)
    }

    /// Runs one session until it ends. `address` is the address of the client. `io` is a connection
    /// that was upgraded to WebSocket with the subprotocol [`crate::SUBPROTOCOL`]. When `shutdown`
    /// completes, the session is closed with 4501. Spawn this as a task: if the client is slow, only
    /// this future waits.
    pub async fn serve_from<I, S>(
        self: Arc<Self>,
        address: Option<SocketAddr>,
        io: I,
        shutdown: S,
    ) -> SessionEnd
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
        S: Future<Output = ()> + Send,
    {
        let permit = SessionPermit::new(&self, (address, FeedTransport::WebSocket));
        let entry = permit.has_room().then_some(&permit.entry);
        web_socket::run(&self.resources, &self.feeds, io, shutdown, entry).await
    }

    /// Creates an event stream, and the future that runs its session until it ends. Spawn the
    /// future as a task, and answer the client with the stream. When `shutdown` completes, the
    /// stream ends with the event `close` and the code 4501.
    pub fn stream<S>(
        self: Arc<Self>,
        request: StreamRequest,
        shutdown: S,
    ) -> (EventStream, impl Future<Output = SessionEnd> + Send)
    where
        S: Future<Output = ()> + Send,
    {
        let (mut sender, stream) = StreamSender::new();
        let session = async move {
            let permit = SessionPermit::new(&self, (request.address, FeedTransport::EventStream));
            if !permit.has_room() {
                let max = self.resources.config.sessions_max;
                sender.decide(Err(StreamRefusal::TooManySessions(max)));
                return SessionEnd::Server(close::TOO_MANY);
            }
            let Self { resources, feeds, .. } = &*self;
            event_stream::run(resources, feeds, (request, sender), shutdown, &permit.entry).await
        };
        (stream, session)
    }

    /// Returns the open sessions, in the order in which they were opened.
    #[must_use]
    pub fn open_sessions(&self) -> Vec<SessionStatus> {
        self.open.list()
    }

    /// Returns the number of sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.open.count()
    }

    /// Returns the number of subscriptions to tables of `projection`.
    #[must_use]
    pub fn subscriptions(&self, projection: &str) -> usize {
        self.feed(projection).map_or(0, |feed| feed.subscriptions())
    }

    /// Returns the number of bytes of merged changes that are in memory for slow sessions.
    #[must_use]
    pub fn merged_bytes(&self) -> usize {
        self.resources.merge_budget.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that the roll-ups with subscribers take in memory.
    #[must_use]
    pub fn roll_up_bytes(&self) -> usize {
        self.resources.roll_up_budget.load(Ordering::Relaxed)
    }

    fn feed(&self, projection: &str) -> Option<Arc<ProjectionFeed>> {
        // Dropping a feed takes this lock. So the lock is released before the feed can be dropped.
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

/// Counts a session as long as it exists.
struct SessionPermit<'a> {
    hub: &'a Hub,
    /// The number of sessions when this one began, including this one.
    index: usize,
    entry: Arc<SessionEntry>,
}

impl<'a> SessionPermit<'a> {
    fn new(hub: &'a Hub, client: (Option<SocketAddr>, FeedTransport)) -> Self {
        let (entry, index) = hub.open.add(client);
        metrics::gauge!("lantern_feed_sessions").increment(1.0);
        Self { hub, index, entry }
    }

    /// Whether the number of sessions is within the limit.
    fn has_room(&self) -> bool {
        self.index <= self.hub.resources.config.sessions_max
    }
}

impl Drop for SessionPermit<'_> {
    fn drop(&mut self) {
        self.hub.open.remove(&self.entry);
        metrics::gauge!("lantern_feed_sessions").decrement(1.0);
    }
}
