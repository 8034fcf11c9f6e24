//! Keeps the roll-ups of a projection up to date. After commits, one task opens a view and brings
//! all roll-ups of the projection to it, so that they reach the same commits. The work blocks, so
//! it runs on a blocking thread. It takes at most half of the time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lantern_core::RollUpError;
use tokio::sync::Notify;

use crate::advance::{OpenView, open_view};
use crate::committed_state::{CommittedState, NewState};
use crate::config::ms;
use crate::projection_feed::ProjectionFeed;
use crate::resources::Resources;
use crate::session_signal::SessionSignal;
use crate::shared_roll_up::Advanced;
use crate::subscribe_error::SubscribeError;

/// The pause after which a failed read is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Starts the task of `feed` unless it has started. The caller must be within a tokio runtime.
pub(crate) fn start(resources: &Arc<Resources>, feed: &Arc<ProjectionFeed>) {
    if !feed.roll_ups.started.swap(true, Ordering::Relaxed) {
        let wake = feed.roll_ups.wake.clone();
        tokio::spawn(run(Arc::downgrade(feed), wake, Arc::downgrade(resources)));
    }
}

/// Advances the roll-ups after commits, until the feed is dropped.
async fn run(feed: Weak<ProjectionFeed>, wake: Arc<Notify>, resources: Weak<Resources>) {
    let mut due: Option<Instant> = None;
    loop {
        match due {
            Some(due) => {
                let _ = tokio::time::timeout_at(due.into(), wake.notified()).await;
            }
            None => wake.notified().await,
        }
        let (Some(feed), Some(resources)) = (feed.upgrade(), resources.upgrade()) else { return };
        let (started, pause) = (Instant::now(), ms(resources.config.roll_up_ms));
        let pass = tokio::task::spawn_blocking(move || advance_all(&resources, &feed));
        due = pass.await.unwrap_or_else(|_| Some(Instant::now() + RETRY_PAUSE));
        tokio::time::sleep(pause.max(started.elapsed())).await;
    }
}

/// Brings all roll-ups of `feed` to the newest state. Returns when this must be done again, even if
/// there is no commit.
fn advance_all(resources: &Resources, feed: &ProjectionFeed) -> Option<Instant> {
    let topics: Vec<_> =
        feed.topics().into_iter().filter(|topic| topic.roll_up.is_some()).collect();
    if topics.is_empty() {
        return None;
    }
    let OpenView { view, agreed } = match open_view(resources, feed) {
        Ok(opened) => opened,
        Err(SubscribeError::Failed(error)) => return Some(retry(feed, &error)),
        // The projection is deleted or not active. Its activation wakes the task.
        Err(_) => return None,
    };
    let state = CommittedState::new(view);
    let view = state.view.lock();
    let mut new = NewState::new(agreed.epoch, state.clone(), &view, agreed.many);
    let mut due: Option<Instant> = None;
    let mut changed = Vec::new();
    for topic in &topics {
        let Some(roll_up) = &topic.roll_up else { continue };
        let next = match roll_up.advance(&resources.config, &mut new) {
            Ok(Advanced { news, due }) => {
                changed.extend(news.then_some(topic));
                due
            }
            Err(RollUpError::Store(error)) => Some(retry(feed, &error.to_string())),
            Err(_) => {
                topic.listeners.for_each(SessionSignal::wake);
                None
            }
        };
        due = due.into_iter().chain(next).min();
    }
    // Sessions are woken when all roll-ups have reached the state, so that a session with several
    // of them sends them together.
    changed.into_iter().for_each(|topic| topic.listeners.for_each(SessionSignal::offer));
    due
}

fn retry(feed: &ProjectionFeed, error: &str) -> Instant {
    tracing::warn!(projection = feed.name, error, "the feed cannot read the rows of a roll-up");
    Instant::now() + RETRY_PAUSE
}
