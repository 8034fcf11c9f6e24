//! Describes the open sessions for operators: their subscriptions, and what each client has not
//! acknowledged yet.
//!
//! A session writes its own entry. A list is made from the entries, so it also shows a session that
//! waits for a slow client.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use lantern_api::FeedTransport;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::projection_feed::ProjectionFeed;
use crate::query::Query;
use crate::subscription::Subscription;

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// A number that no other session since the start of the server has.
    pub id: u64,
    /// The address from which the client has connected, if it is known.
    pub address: Option<SocketAddr>,
    /// How the session reaches the client.
    pub transport: FeedTransport,
    /// How long the session has been open, in milliseconds.
    pub open_ms: u64,
    /// The subscriptions.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// How many data frames the client has not acknowledged.
    pub frames_waiting: u64,
    /// The size of these frames in bytes.
    pub bytes_waiting: u64,
    /// How long the oldest of these frames has waited, in milliseconds; 0 if there is none.
    pub waiting_ms: u64,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The number that the client has chosen.
    pub id: u64,
    /// `PROJECTION/TABLE`.
    pub table: String,
    /// The newest commit that was sent; `None` if none was sent yet.
    pub commit: Option<u64>,
    /// How many commits the projection has made after this commit; `None` if that is unknown.
    pub commits_behind: Option<u64>,
}

/// The entries of all open sessions.
#[derive(Default)]
pub(crate) struct OpenSessions(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    last: u64,
    by_id: BTreeMap<u64, Arc<SessionEntry>>,
}

impl OpenSessions {
    /// Adds an entry. Returns it with the number of sessions that are now open.
    pub(crate) fn add(
        &self,
        (address, transport): (Option<SocketAddr>, FeedTransport),
    ) -> (Arc<SessionEntry>, usize) {
        let mut entries = self.0.lock();
        entries.last += 1;
        let (id, opened, progress) = (entries.last, Instant::now(), Mutex::default());
        let entry = Arc::new(SessionEntry { id, address, transport, opened, progress });
        entries.by_id.insert(id, Arc::clone(&entry));
        (entry, entries.by_id.len())
    }

    pub(crate) fn remove(&self, entry: &SessionEntry) {
        self.0.lock().by_id.remove(&entry.id);
    }

    /// The number of sessions.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().by_id.len()
    }

    /// The sessions, in the order in which they were opened.
    pub(crate) fn list(&self) -> Vec<SessionStatus> {
        let entries: Vec<_> = self.0.lock().by_id.values().cloned().collect();
        let now = Instant::now();
        entries.iter().map(|entry| entry.status(now)).collect()
    }
}

/// The entry of one session.
pub(crate) struct SessionEntry {
    id: u64,
    address: Option<SocketAddr>,
    transport: FeedTransport,
    opened: Instant,
    progress: Mutex<SessionProgress>,
}

#[derive(Default)]
struct SessionProgress {
    subscriptions: Vec<SubscriptionEntry>,
    /// The frames that the client has not acknowledged: when each was sent, and its size. There are
    /// at most `live.window`.
    unacknowledged: VecDeque<(Instant, usize)>,
}

struct SubscriptionEntry {
    id: u64,
    query: Query,
    /// A strong reference would keep the feed open after its last subscription.
    feed: Weak<ProjectionFeed>,
    shown: Option<(Arc<str>, u64)>,
}

impl SessionEntry {
    /// Returns the number of the session.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Adds a subscription.
    pub(crate) fn subscribed(&self, sub: &Subscription) {
        let (id, query, feed) = (sub.id, sub.query().clone(), Arc::downgrade(sub.feed()));
        let entry = SubscriptionEntry { id, query, feed, shown: None };
        self.progress.lock().subscriptions.push(entry);
    }

    /// Removes the subscription `id`.
    pub(crate) fn unsubscribed(&self, id: u64) {
        self.progress.lock().subscriptions.retain(|entry| entry.id != id);
    }

    /// Notes that a data frame of `sub` with `bytes` bytes is written now. If `moved` is set, the
    /// client shows another commit after it.
    pub(crate) fn sending(&self, sub: &Subscription, bytes: usize, moved: bool) {
        let mut progress = self.progress.lock();
        progress.unacknowledged.push_back((Instant::now(), bytes));
        if !moved {
            return;
        }
        if let Some(entry) = progress.subscriptions.iter_mut().find(|entry| entry.id == sub.id) {
            entry.shown = sub.shown();
        }
    }

    /// Notes that the client has acknowledged all but the newest `waiting` frames.
    pub(crate) fn acknowledged(&self, waiting: u64) {
        let frames = &mut self.progress.lock().unacknowledged;
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        frames.drain(..frames.len().saturating_sub(waiting));
    }

    fn status(&self, now: Instant) -> SessionStatus {
        let progress = self.progress.lock();
        let frames = &progress.unacknowledged;
        let oldest = frames.front().map_or(now, |(sent, _)| *sent);
        SessionStatus {
            id: self.id,
            address: self.address,
            transport: self.transport,
            open_ms: since(self.opened, now),
            subscriptions: progress.subscriptions.iter().map(SubscriptionEntry::status).collect(),
            frames_waiting: frames.len() as u64,
            bytes_waiting: frames.iter().map(|(_, bytes)| *bytes as u64).sum(),
            waiting_ms: since(oldest, now),
        }
    }
}

impl SubscriptionEntry {
    fn status(&self) -> SubscriptionStatus {
        let newest = |epoch: &str| self.feed.upgrade()?.newest_commit(epoch);
        let behind = self.shown.as_ref().and_then(|(epoch, commit)| {
            let newest = newest(epoch)?;
            Some(newest.saturating_sub(*commit))
        });
        SubscriptionStatus {
            id: self.id,
            table: self.query.to_string(),
            commit: self.shown.as_ref().map(|(_, commit)| *commit),
            commits_behind: behind,
        }
    }
}

fn since(then: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX)
}
