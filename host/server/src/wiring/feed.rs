//! Connects the feed. Its hub reads tables from the engine, receives the engine's commits, and
//! sends the changes to subscribers.

use std::sync::Arc;

use lantern_engine::Engine;
use lantern_live::{Hub, Lag};
use lantern_query::LiveRollUps;
use lantern_traces::Tracer;

use crate::commits::Commits;
use crate::config::ServerConfig;

/// Creates the hub of the feed, and connects it to `engine` and `commits`.
pub(super) fn connect(
    config: &ServerConfig,
    engine: &Arc<Engine>,
    commits: &Commits,
    traces: Option<&Arc<Tracer>>,
) -> Arc<Hub> {
    let lag = {
        let engine = Arc::clone(engine);
        move |name: &str| engine.lag(name).map(|(events, ms)| Lag { events, ms })
    };
    let roll_ups = Arc::new(LiveRollUps::new(config.query.clone()));
    let views = Arc::<Engine>::clone(engine);
    let traces = traces.map(|traces| Arc::<Tracer>::clone(traces) as _);
    let hub = Hub::new(views, Some(roll_ups), Arc::new(lag), traces, config.live.clone());
    commits.connect(&hub);
    hub
}
