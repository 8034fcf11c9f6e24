//! Opens the engine with its ports.

use std::sync::Arc;

use lantern_core::{Log, Random};
use lantern_engine::{Engine, Ports};
use lantern_traces::Tracer;

use super::store::Stores;
use crate::clock::SystemClock;
use crate::commits::Commits;
use crate::config::ServerConfig;
use crate::plugins::Plugins;
use crate::start_error::StartError;

/// The niceness (priority) of threads that fold slow projections; 19 is the lowest priority. With
/// 10, these threads get about a tenth of a processor while other threads could use all of it.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Draws random numbers, from a seed of the operating system.
struct SystemRandom;

impl Random for SystemRandom {
    fn draw(&self) -> u64 {
        fastrand::u64(..)
    }
}

/// Opens the engine. It does not fold before [`start`] is called.
pub(super) fn open(
    config: &ServerConfig,
    log: &Arc<dyn Log>,
    stores: &Stores,
    commits: &Arc<Commits>,
    traces: Option<&Arc<Tracer>>,
) -> Result<Arc<Engine>, StartError> {
    let ports = Ports {
        log: Arc::clone(log),
        stores: Arc::clone(&stores.state),
        catalog: Arc::clone(&stores.catalog),
        publish: Arc::<Commits>::clone(commits),
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        plugins: Arc::<Plugins>::clone(&stores.plugins),
        traces: traces.map(|traces| Arc::<Tracer>::clone(traces) as _),
    };
    Engine::open(config.engine.clone(), ports)
        .map_err(|error| StartError::data(&config.data, error))
}

/// Starts to fold the log.
pub(super) fn start(engine: &Arc<Engine>) {
    engine.start_with(lower_priority);
}

/// Lowers the priority of the calling thread, which folds slow projections. Its steps could
/// otherwise keep threads that answer requests, sync commits and serve readers from a processor for
/// milliseconds.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "the priority of a folding thread could not be lowered");
    }
}

/// Does nothing, because on this operating system a priority applies to the whole process.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
