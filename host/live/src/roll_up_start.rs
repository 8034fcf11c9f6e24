//! Starts subscriptions to roll-ups: from the groups in memory or, for the first subscriber, with a
//! read of the table.

use std::sync::Arc;

use crate::advance::open_view;
use crate::projection_feed::ProjectionFeed;
use crate::protocol::ResetReason;
use crate::resources::Resources;
use crate::resume::{self, Point, ReadRequest, SnapshotRows, StartKind, SubscriptionStart};
use crate::shared_roll_up::SharedRollUp;
use crate::subscribe_error::SubscribeError;
use crate::topic::Topic;

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
    let table = request.table(&opened)?;
    let (point, why) = match resume::point_of(&opened, request) {
        Ok(Point { at, too_old, .. }) => {
            let in_history = opened.view.continues(&at)?;
            (Some(at), Some(if in_history { too_old } else { ResetReason::History }))
        }
        Err(why) => (None, why),
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
    let resumed = point.and_then(|at| Some((roll_up.holds(&epoch, &at)?, at)));
    let start = match resumed {
        Some((commit, at)) => StartKind::Resumed { commit, at, ready: Vec::new() },
        None => {
            let snapshot = Arc::new(roll_up.snapshot(resources, live)?);
            topic.keep_snapshot(snapshot.clone());
            StartKind::Snapshot { why, rows: SnapshotRows::Shared(snapshot) }
        }
    };
    let table = live.table.clone();
    Ok(SubscriptionStart { epoch, generation, table, start })
}
