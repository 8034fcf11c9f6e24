//! Runs jobs, which are work that the server does without a request, until it stops.

pub(crate) mod dead_letters;
mod heartbeats;
mod maintenance;
mod offsets;
pub(crate) mod replay;
mod throttle;
mod traces;
pub(crate) mod verification;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::data::DataDir;

pub(crate) use offsets::note_all as note_last_offsets;

/// Starts the jobs that the settings and the log require. They end when the server stops.
pub(crate) fn start(tasks: &TaskTracker, app: &Arc<App>, data: &DataDir) {
    tasks.spawn(maintenance::log_and_files(Arc::clone(app)));
    tasks.spawn(maintenance::instances(Arc::clone(app)));
    if let Some(offsets) = &app.log_services.offsets {
        tasks.spawn(offsets::note(Arc::clone(app), Arc::clone(offsets)));
    }
    if let Some(letters) = &app.log_services.dead_letters {
        let (app, letters) = (Arc::clone(app), Arc::clone(letters));
        tasks.spawn(dead_letters::copy(app, letters, data.dead_letters()));
    }
    if app.config.plugin.compile_interpreters {
        let app = Arc::clone(app);
        tasks.spawn_blocking(move || app.plugins.compile_interpreters(&app.tasks.stopping));
    }
    if let Some(traces) = &app.traces {
        traces::export(tasks, app, traces);
    }
    if app.config.upkeep.heartbeats {
        tasks.spawn(heartbeats::append(Arc::clone(app)));
    }
    if app.config.verify.every_hours > 0 {
        tasks.spawn(verification::at_times(Arc::clone(app)));
    }
}

/// Returns a timer that ticks at intervals of `period`. Missed ticks are left out.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for `work`, and returns its result; `None` if the server stops before.
async fn until<T>(stopping: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stopping.cancelled() => None,
    }
}
