//! Appends heartbeats: events that advance event time in idle partitions, so that timers fire.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{LogError, Offset, PartitionBounds, PartitionId, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{every, until};
use crate::app::App;
use crate::clock::now;

/// Appends heartbeats until the server stops. A partition gets a heartbeat if it has had no event
/// for a while, and if the heartbeat would fire a timer.
pub(super) async fn append(app: Arc<App>) {
    let partitions = (0..app.log.partitions()).map(PartitionId);
    let mut idle: Vec<_> = partitions.map(IdlePartition::new).collect();
    let mut ticks = every(Duration::from_millis(app.config.upkeep.idle_ms.div_ceil(4).max(1)));
    while until(&app.tasks.stopping, ticks.tick()).await.is_some() {
        for partition in &mut idle {
            partition.check(&app).await;
        }
    }
}

/// A partition without events, and the time since when it has had none.
struct IdlePartition {
    partition: PartitionId,
    end: Option<Offset>,
    since: Instant,
}

impl IdlePartition {
    fn new(partition: PartitionId) -> Self {
        Self { partition, end: None, since: Instant::now() }
    }

    /// Appends a heartbeat to the partition if one is due.
    async fn check(&mut self, app: &Arc<App>) {
        let partition = self.partition;
        if !app.log_services.heartbeats.accepts_heartbeats(partition) {
            return;
        }
        let Ok(bounds) = app.log.bounds(partition) else { return };
        if self.end != Some(bounds.end) {
            (self.end, self.since) = (Some(bounds.end), Instant::now());
            return;
        }
        let idle = self.since.elapsed();
        let idle_min = Duration::from_millis(app.config.upkeep.idle_ms);
        if idle < idle_min || bounds.max_time == Timestamp::MIN {
            return;
        }
        let time = heartbeat_time(&bounds, idle, now());
        let engine = Arc::clone(&app.engine);
        let due = tokio::task::spawn_blocking(move || engine.heartbeat_due(partition, time)).await;
        if !due.unwrap_or(false) {
            return;
        }
        let appended = append_one(app, partition, time).await;
        app.health.appends.note(&appended);
        match appended {
            Ok(()) => metrics::counter!("lantern_heartbeats_total").increment(1),
            Err(error) => tracing::debug!(%error, %partition, "a heartbeat was not appended"),
        }
    }
}

/// Appends a heartbeat with the event time `time` to `partition`, and waits until it is durable.
async fn append_one(app: &App, partition: PartitionId, time: Timestamp) -> Result<(), LogError> {
    let (done, appended) = oneshot::channel();
    let done = Box::new(move |result| {
        // If the server stops, there is no receiver. The heartbeat stays in the log.
        let _ = done.send(result);
    });
    app.log_services.heartbeats.append_heartbeat(partition, time, done);
    appended.await.unwrap_or(Err(LogError::Closed)).map(|_| ())
}

/// Returns the event time of a heartbeat. While no events arrive, event time advances as fast as
/// the clock. It is never ahead of the clock, because a heartbeat moves the watermark at most to
/// the heartbeat's append time.
fn heartbeat_time(bounds: &PartitionBounds, idle: Duration, now: Timestamp) -> Timestamp {
    let idle_us = i64::try_from(idle.as_micros()).unwrap_or(i64::MAX);
    Timestamp(bounds.max_time.0.saturating_add(idle_us)).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_never_ahead_of_the_clock() {
        let bounds =
            |time| PartitionBounds { max_time: Timestamp(time), ..PartitionBounds::default() };
        let (idle, now) = (Duration::from_micros(5), Timestamp(100));
        assert_eq!(heartbeat_time(&bounds(20), idle, now), Timestamp(25));
        assert_eq!(heartbeat_time(&bounds(98), idle, now), now);
        assert_eq!(heartbeat_time(&bounds(5_000), idle, now), now);
    }
}
