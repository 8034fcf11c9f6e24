//! Starts subscriptions to roll-ups: from the groups in memory or, for the first subscriber, with a
//! read of the table.

use std::sync::Arc;

use crate::advance::open_view;
use crate::projection_feed::ProjectionFeed;
use crate::protocol::ResetReason;
use crate::resources::Resources;
use crate::resume::{self, ReadRequest, SnapshotRows, StartKind, SubscriptionStart};
use crate::shared_roll_up::{EncodedGroups, LiveGroups, SharedRollUp};
use crate::subscribe_error::SubscribeError;
use crate::topic::{Snapshot, Topic};

/// Starts a subscription to `roll_up`, the roll-up of `topic`. If there are no groups yet, they are
/// read from the table. Blocks.
pub(crate) fn start(
    roll_up: &SharedRollUp,
    (resources, feed, topic): (&Resources, &ProjectionFeed, &Topic),
    request: &ReadRequest,
) -> Result<SubscriptionStart, SubscribeError> {
    // The lock is taken first: otherwise this view could be older than the groups.
    let mut groups = roll_up.groups();
    let opened = open_view(resources, feed)?;
    if let Some(start) = resume::from_memory(feed, topic, request) {
        return Ok(start);
    }
    let table = opened.agreed.table(request.query.table()).ok_or(SubscribeError::NoTable)?;
    let point = resume::point_of(&opened, request);
    let in_history = match &point {
        Ok(point) => opened.view.continues(&point.at)?,
        Err(_) => true,
    };
    let (epoch, generation) = (opened.agreed.epoch, opened.agreed.generation);
    if groups.as_ref().is_none_or(|live| !live.serves(&epoch)) {
        // The memory of the old groups is released first.
        *groups = None;
        let live = roll_up.read(resources, (epoch.clone(), opened.view), &table)?;
        topic.keep_table(&epoch, live.table.clone());
        *groups = Some(live);
        // The groups are as old as this view. There may be newer commits.
        feed.wake_roll_ups();
    }
    let live = groups.as_ref().expect("the groups were read");
    let snapshot = |why| snapshot(roll_up, (resources, topic), (&epoch, live), why);
    let start = match point.map(|point| (roll_up.holds(&epoch, &point.at), point)) {
        Ok((Some(commit), point)) => StartKind::Resumed { commit, at: point.at, ready: Vec::new() },
        Ok((None, point)) if in_history => snapshot(Some(point.too_old))?,
        Ok((None, _)) => snapshot(Some(ResetReason::History))?,
        Err(why) => snapshot(why)?,
    };
    let table = live.table.clone();
    Ok(SubscriptionStart { epoch, generation, table, start })
}

/// Creates a snapshot of the groups, and keeps it for the next subscribers.
fn snapshot(
    roll_up: &SharedRollUp,
    (resources, topic): (&Resources, &Topic),
    (epoch, live): (&Arc<str>, &LiveGroups),
    why: Option<ResetReason>,
) -> Result<StartKind, SubscribeError> {
    let EncodedGroups { commit, at, parts, lease } = roll_up.encode(resources, live)?;
    let (epoch, _lease) = (epoch.clone(), Some(lease));
    let snapshot = Arc::new(Snapshot { epoch, commit, at, parts, _lease });
    topic.keep_snapshot(snapshot.clone());
    Ok(StartKind::Snapshot { why, rows: SnapshotRows::Shared(snapshot) })
}
