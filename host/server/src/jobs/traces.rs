//! Sends the spans of traces to the collector.

use std::sync::Arc;

use lantern_traces::{Exporter, Tracer};
use tokio_util::task::TaskTracker;

use crate::app::App;

/// Starts the task that sends the spans of `traces` to the collector until the server stops.
pub(super) fn export(tasks: &TaskTracker, app: &Arc<App>, traces: &Tracer) {
    match Exporter::new(traces, &app.config.tracing) {
        Ok(exporter) => {
            let stopping = app.tasks.stopping.clone().cancelled_owned();
            tasks.spawn(exporter.run(stopping));
        }
        Err(error) => tracing::error!(error, "no traces are sent"),
    }
}
