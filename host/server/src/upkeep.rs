//! Periodic work: retention of the log, heartbeats for idle partitions, and removal of
//! unused plugins.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{Offset, PartitionBounds, PartitionId, Timestamp};
use lantern_engine::Engine;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{App, now};
use crate::config::UpkeepConfig;
use crate::log::ChosenLog;

/// Retention may keep up to this many events longer for a projection that does not
/// subscribe to them: a commit per unwanted event would mean a sync per event.
const RETENTION_LAG_EVENTS: u64 = 8_192;

/// Deletes old events periodically, until `stopping`.
pub(crate) async fn retention(app: Arc<App>, log: ChosenLog, stopping: CancellationToken) {
    let mut ticks = interval(Duration::from_secs(app.config.upkeep.retention_s));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while until(&stopping, ticks.tick()).await.is_some() {
        let (app, log) = (Arc::clone(&app), log.clone());
        let work = tokio::task::spawn_blocking(move || {
            // The lag of a Kafka consumer group is monitored from outside, so it must
            // be exact; the floor of retention may lag by a chunk.
            let behind_min = if log.embedded().is_some() { RETENTION_LAG_EVENTS } else { 1 };
            app.engine.commit_offsets(behind_min);
            apply_retention(&app, &log);
            if let Err(error) = app.plugins.sweep(&app.engine) {
                tracing::warn!(%error, "unused plugins could not be removed");
            }
            app.metrics.run_upkeep();
        });
        if work.await.is_err() {
            tracing::error!("upkeep panicked");
        }
    }
}

/// Deletes the events that are due. The retention of a Kafka topic is the broker's.
fn apply_retention(app: &App, log: &ChosenLog) {
    let Some(log) = log.embedded() else { return };
    let floors = floors(&app.engine, app.log.partitions());
    let floor = |partition: PartitionId| floors[partition.0 as usize];
    loop {
        match log.maintain(now(), &floor) {
            Ok(done) => {
                for dropped in &done.dropped {
                    tracing::info!(?dropped, "retention deleted old events");
                }
                if !done.more || app.stopping.is_cancelled() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "retention could not delete old events");
                return;
            }
        }
    }
}

/// The offset from which each partition must be kept. Events that are not in the
/// durable state of a version are never deleted, because after a crash its tables would
/// be wrong.
fn floors(engine: &Engine, partitions: u32) -> Vec<Option<Offset>> {
    let mut floors = vec![None; partitions as usize];
    let projections = engine.status();
    for shard in projections.iter().flat_map(|p| &p.versions).flat_map(|v| &v.shards) {
        if let Some(floor) = floors.get_mut(shard.partition as usize) {
            let next = Offset(shard.durable);
            *floor = Some(floor.map_or(next, |known: Offset| known.min(next)));
        }
    }
    floors
}

/// Drops idle plugin instances, until `stopping`.
pub(crate) async fn instances(app: Arc<App>, stopping: CancellationToken) {
    let idle = Duration::from_secs(app.config.upkeep.instance_idle_s);
    let mut ticks = interval((idle / 2).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while until(&stopping, ticks.tick()).await.is_some() {
        let engine = Arc::clone(&app.engine);
        let dropped = tokio::task::spawn_blocking(move || engine.drop_idle_instances(idle)).await;
        if let Ok(dropped @ 1..) = dropped {
            tracing::debug!(dropped, "dropped idle plugin instances");
        }
    }
}

/// Reports the next offsets of projections to the log, until `stopping`. Commits alone
/// are not enough: there is none for events that a projection does not subscribe to,
/// and none when a version is activated that has folded everything.
#[cfg(feature = "kafka")]
pub(crate) async fn positions(app: Arc<App>, log: ChosenLog, stopping: CancellationToken) {
    let mut ticks = interval(Duration::from_millis(app.config.kafka.commit_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while until(&stopping, ticks.tick()).await.is_some() {
        let (app, log) = (Arc::clone(&app), log.clone());
        let work = tokio::task::spawn_blocking(move || report_offsets(&app.engine, &log));
        if work.await.is_err() {
            tracing::error!("reporting offsets panicked");
        }
    }
}

/// Reports to the log up to which offset the active versions are durable.
pub(crate) fn report_offsets(engine: &Engine, log: &ChosenLog) {
    for projection in engine.status() {
        let serving =
            projection.versions.iter().find(|v| projection.active.as_ref() == Some(&v.id));
        for shard in serving.iter().flat_map(|version| &version.shards) {
            let (partition, next) = (PartitionId(shard.partition), Offset(shard.durable));
            log.tell_position(&projection.name, partition, next);
        }
    }
}

/// Appends heartbeats to partitions that have had no event for a while and whose timers
/// a heartbeat would fire, until `stopping`.
pub(crate) async fn heartbeats(app: Arc<App>, log: ChosenLog, stopping: CancellationToken) {
    let config = app.config.upkeep.clone();
    let mut idle: Vec<IdlePartition> =
        (0..log.partitions()).map(|p| IdlePartition::new(PartitionId(p))).collect();
    let mut ticks = interval(Duration::from_millis(config.idle_ms.div_ceil(4).max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while until(&stopping, ticks.tick()).await.is_some() {
        for idle in &mut idle {
            idle.look(&app, &log, &config).await;
        }
    }
}

/// A partition, and since when it has had no event.
struct IdlePartition {
    partition: PartitionId,
    end: Option<Offset>,
    since: Instant,
}

impl IdlePartition {
    fn new(partition: PartitionId) -> Self {
        Self { partition, end: None, since: Instant::now() }
    }

    async fn look(&mut self, app: &Arc<App>, log: &ChosenLog, config: &UpkeepConfig) {
        if !log.takes_heartbeats(self.partition) {
            return;
        }
        let Ok(bounds) = log.bounds(self.partition) else { return };
        if self.end != Some(bounds.end) {
            (self.end, self.since) = (Some(bounds.end), Instant::now());
            return;
        }
        let idle = self.since.elapsed();
        if idle < Duration::from_millis(config.idle_ms) || bounds.max_time == Timestamp::MIN {
            return;
        }
        let time = beat_time(&bounds, idle, now());
        let (engine, partition) = (Arc::clone(&app.engine), self.partition);
        let due = tokio::task::spawn_blocking(move || engine.heartbeat_due(partition, time)).await;
        if !due.unwrap_or(false) {
            return;
        }
        let appended = log.beat(self.partition, time).await;
        app.note_append(&appended);
        match appended {
            Ok(()) => metrics::counter!("lantern_heartbeats_total").increment(1),
            Err(error) => tracing::debug!(%error, %partition, "a heartbeat was not appended"),
        }
    }
}

/// Event time advances with the clock while no events arrive, and never ahead of the
/// clock: a heartbeat that is ahead would count only up to its append time.
fn beat_time(bounds: &PartitionBounds, idle: Duration, now: Timestamp) -> Timestamp {
    let idle_us = i64::try_from(idle.as_micros()).unwrap_or(i64::MAX);
    Timestamp(bounds.max_time.0.saturating_add(idle_us)).min(now)
}

/// `work`, or `None` once the server stops.
async fn until<T>(stopping: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stopping.cancelled() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_never_ahead_of_the_clock() {
        let bounds =
            |time| PartitionBounds { max_time: Timestamp(time), ..PartitionBounds::default() };
        let (idle, now) = (Duration::from_micros(5), Timestamp(100));
        assert_eq!(beat_time(&bounds(20), idle, now), Timestamp(25));
        assert_eq!(beat_time(&bounds(98), idle, now), now);
        assert_eq!(beat_time(&bounds(5_000), idle, now), now);
    }
}
