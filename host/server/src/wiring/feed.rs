//! Connects the feed. The hub reads tables from the engine, and the engine's commits go to the hub.

use std::sync::Arc;

use lantern_engine::Engine;
use lantern_live::{Hub, Lag};

use crate::commits::Commits;
use crate::config::ServerConfig;

/// Creates the hub of the feed, and connects it to `engine` and `commits`.
pub(super) fn connect(config: &ServerConfig, engine: &Arc<Engine>, commits: &Commits) -> Arc<Hub> {
    let lag = {
        let engine = Arc::clone(engine);
        move |name: &str| engine.lag(name).map(|(events, ms)| Lag { events, ms })
    };
    let hub = Hub::new(Arc::<Engine>::clone(engine), Arc::new(lag), config.live.clone());
    commits.connect(&hub);
    hub
}
