//! Runs maintenance: it deletes old events from the log, and removes unused plugins and instances.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{LogMaintenance, Offset, PartitionId};
use lantern_engine::Engine;

use super::{every, until};
use crate::app::App;
use crate::clock::now;

/// How many events the durable offset of a projection may be behind if the projection only skips
/// events. Each commit of the offset needs a sync, so the offset is committed only in steps of this
/// size. Until then retention keeps the skipped events, although the projection does not need them.
const RETENTION_LAG_EVENTS: u64 = 8_192;

/// Deletes old events and unused plugins at intervals, until the server stops.
pub(super) async fn log_and_files(app: Arc<App>) {
    let mut ticks = every(Duration::from_secs(app.config.upkeep.retention_s));
    while until(&app.tasks.stopping, ticks.tick()).await.is_some() {
        let app = Arc::clone(&app);
        let work = tokio::task::spawn_blocking(move || run(&app));
        if work.await.is_err() {
            tracing::error!("maintenance panicked");
        }
    }
}

fn run(app: &App) {
    // If other programs read the offsets, for example as the lag of a Kafka consumer group, the
    // offsets must be exact. If only retention reads them, they may be behind.
    let behind_min = if app.log_services.offsets.is_some() { 1 } else { RETENTION_LAG_EVENTS };
    app.engine.commit_offsets(behind_min);
    if let Some(maintenance) = &app.log_services.maintenance {
        apply_retention(app, &**maintenance);
    }
    if let Err(error) = app.plugins.sweep(&app.engine) {
        tracing::warn!(%error, "unused plugins could not be removed");
    }
    app.metrics.run_upkeep();
}

/// Deletes the events that retention no longer keeps.
fn apply_retention(app: &App, log: &dyn LogMaintenance) {
    let floors = floors(&app.engine, app.log.partitions());
    let floor = |partition: PartitionId| floors[partition.0 as usize];
    loop {
        match log.maintain(now(), &floor) {
            Ok(report) => {
                for trimmed in &report.trimmed {
                    tracing::info!(?trimmed, "retention deleted old events");
                }
                if !report.more || app.tasks.stopping.is_cancelled() {
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

/// For each partition, the first offset that retention must keep: the lowest durable offset of all
/// versions. After a crash, a version folds the events from its durable offset on again, so
/// deleting one of them would make its tables wrong.
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

/// Until the server stops, drops each plugin instance that has not been used for
/// `upkeep.instance_idle_s`.
pub(super) async fn instances(app: Arc<App>) {
    let idle = Duration::from_secs(app.config.upkeep.instance_idle_s);
    let mut ticks = every((idle / 2).max(Duration::from_secs(1)));
    while until(&app.tasks.stopping, ticks.tick()).await.is_some() {
        let engine = Arc::clone(&app.engine);
        let dropped = tokio::task::spawn_blocking(move || engine.drop_idle_instances(idle)).await;
        if let Ok(dropped @ 1..) = dropped {
            tracing::debug!(dropped, "dropped idle plugin instances");
        }
    }
}
