//! What all sessions of a feed share: the views, the settings, and the budgets
//! for reads and for memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use lantern_api::feed::Lag;
use lantern_core::Views;
use tokio::sync::Semaphore;

use crate::LiveConfig;

/// Returns how far the projection of that name is behind; `None` if that is not
/// known. Called at most a few times a second for one projection; must not
/// block.
pub type LagSource = Arc<dyn Fn(&str) -> Option<Lag> + Send + Sync>;

/// See the module.
pub(crate) struct Resources {
    pub(crate) views: Arc<dyn Views>,
    pub(crate) lag: LagSource,
    pub(crate) config: LiveConfig,
    /// One permit for each read of the store at a time.
    pub(crate) readers: Arc<Semaphore>,
    /// Bytes of merged changes held now.
    pub(crate) merge_budget: Arc<AtomicUsize>,
}

impl Resources {
    pub(crate) fn new(views: Arc<dyn Views>, lag: LagSource, config: LiveConfig) -> Self {
        let readers = Arc::new(Semaphore::new(config.snapshot_readers.max(1)));
        Self { views, lag, readers, config, merge_budget: Arc::default() }
    }
}
