//! Keeps a projection's feed up to date with the committed state. It opens views that have the
//! feed's epoch, and wakes the sessions after commits. If the projection has several partitions, it
//! first reads the merged rows. These reads block, so they run on blocking threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lantern_core::{ChangesSince, ShardChanges, StoreError, TableChanges, TableId, View};
use tokio::sync::Notify;

use crate::delta::MergedChanges;
use crate::projection_feed::{AgreedState, ProjectionFeed, ProjectionFeeds, ViewMatch};
use crate::resources::Resources;
use crate::ring::{NewestCommit, RingCommit};
use crate::subscribe_error::SubscribeError;

/// How often [`open_view`] opens a view if its epoch is not the feed's epoch, and how long it waits
/// after each try. If the epochs differ at the last try too, the feed takes the view's epoch.
const EPOCH_TRIES: u32 = 50;
const EPOCH_PAUSE: Duration = Duration::from_millis(20);
/// The pause after which a failed read of merged rows is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Returns the feed of `projection`. If there is none, it is created. The caller must be within a
/// tokio runtime, because a task of the feed is spawned.
pub(crate) fn feed_of(
    resources: &Arc<Resources>,
    feeds: &ProjectionFeeds,
    projection: &str,
) -> Arc<ProjectionFeed> {
    let (feed, created) = ProjectionFeed::of(feeds, projection, &resources.config);
    if created {
        tokio::spawn(run(Arc::downgrade(&feed), feed.wake.clone(), Arc::downgrade(resources)));
    }
    feed
}

/// Wakes sessions after commits. If the projection has several partitions, it first reads the
/// merged rows. The task ends when the feed is dropped.
async fn run(feed: Weak<ProjectionFeed>, wake: Arc<Notify>, resources: Weak<Resources>) {
    loop {
        wake.notified().await;
        let (Some(feed), Some(resources)) = (feed.upgrade(), resources.upgrade()) else { return };
        if feed.is_behind() {
            let (to_read, reader) = (feed.clone(), resources.clone());
            let read = tokio::task::spawn_blocking(move || advance(&reader, &to_read)).await;
            if let Ok(Err(error)) = read {
                tracing::warn!(projection = feed.name, %error, "the feed cannot read merged rows");
                // The feed is still marked as behind, so the loop reads it again. The pause limits
                // how often.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            feed.wake_sessions(&resources.config);
            feed.wake_roll_ups();
            drop(feed);
            tokio::time::sleep(Duration::from_millis(resources.config.partitions_ms)).await;
        } else {
            feed.wake_sessions(&resources.config);
            feed.wake_roll_ups();
        }
    }
}

/// A view, and the state of the feed to which it belongs.
pub(crate) struct OpenView {
    pub(crate) view: View,
    pub(crate) agreed: AgreedState,
}

/// Opens a view of the projection's newest state. If the projection has several partitions, it also
/// adds the commits up to this state to the ring.
pub(crate) fn open_view(
    resources: &Resources,
    feed: &ProjectionFeed,
) -> Result<OpenView, SubscribeError> {
    for attempt in 1.. {
        let advancing = feed.advance.lock();
        let reached = feed.begin_advance();
        let view = resources.views.view(&feed.name).map_err(|e| failed(feed, e.into()))?;
        match feed.adopt(&view, attempt == EPOCH_TRIES) {
            ViewMatch::Yes(agreed) => {
                if agreed.many {
                    advance_to(resources, feed, &view, reached).map_err(|e| failed(feed, e))?;
                }
                return Ok(OpenView { view, agreed });
            }
            ViewMatch::Stale => {
                drop(advancing);
                std::thread::sleep(EPOCH_PAUSE);
            }
        }
    }
    unreachable!("the last attempt is always adopted")
}

/// Returns `error` unchanged. If the store failed, it also marks the feed as behind, so that the
/// commits are read later.
fn failed(feed: &ProjectionFeed, error: SubscribeError) -> SubscribeError {
    if matches!(error, SubscribeError::Failed(_)) {
        feed.still_behind();
    }
    error
}

/// Adds the commits up to the newest state to the ring of a projection with several partitions.
///
/// # Errors
/// Returns the reason why the state cannot be read, as a text for people.
fn advance(resources: &Resources, feed: &ProjectionFeed) -> Result<(), String> {
    match open_view(resources, feed) {
        // The projection is deleted or not active. When that changes, the engine reports
        // it to the feed, which then wakes the sessions.
        Ok(_) | Err(SubscribeError::NoTable | SubscribeError::NotActive(_)) => Ok(()),
        Err(SubscribeError::BadQuery(error)) => Err(error.to_string()),
        Err(SubscribeError::RollUp(error)) => Err(error.to_string()),
        Err(
            SubscribeError::Failed(error)
            | SubscribeError::NotSupported(error)
            | SubscribeError::Unsendable(error)
            | SubscribeError::Shape { detail: error, .. },
        ) => Err(error),
    }
}

fn advance_to(
    resources: &Resources,
    feed: &ProjectionFeed,
    view: &View,
    reached: Option<NewestCommit>,
) -> Result<(), SubscribeError> {
    let Some(NewestCommit { commit: reached_commit, at: reached }) = reached else {
        feed.finish_advance(view, None);
        return Ok(());
    };
    if *reached == view.checkpoint() {
        return Ok(());
    }
    let merged = match view.changes_since(&reached)? {
        ChangesSince::TooOld | ChangesSince::OtherHistory => None,
        ChangesSince::Commits(commits) => {
            merged_tables(view, &commits, resources.config.merge_keys_max)?
        }
    };
    let commit = |tables| {
        RingCommit::merged(reached_commit, view.pos(), Arc::new(view.checkpoint()), tables)
    };
    feed.finish_advance(view, merged.map(commit));
    Ok(())
}

/// Returns the merged rows that `commits` changed, by table. Returns `None` if there are more than
/// `keys_max` rows, because a snapshot is then cheaper.
fn merged_tables(
    view: &View,
    commits: &[ShardChanges],
    keys_max: usize,
) -> Result<Option<Vec<TableChanges>>, StoreError> {
    let mut by_table: BTreeMap<TableId, Vec<&TableChanges>> = BTreeMap::new();
    for changes in commits.iter().flat_map(|commit| &commit.tables) {
        by_table.entry(changes.table).or_default().push(changes);
    }
    let (mut merged, mut room) = (Vec::new(), keys_max);
    for (table, changes) in by_table {
        let Some(changes) = MergedChanges::of(changes, room) else { return Ok(None) };
        room -= changes.keys();
        merged.push((table, changes));
    }
    let read = merged.into_iter().map(|(table, changes)| changes.read_from(view, table));
    read.collect::<Result<_, _>>().map(Some)
}
