//! Holds what all sessions share: the views, the settings, and the limits for concurrent reads and
//! for memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use lantern_api::feed::Lag;
use lantern_core::Views;
use tokio::sync::Semaphore;

use crate::LiveConfig;

/// Returns how far the named projection is behind the log; `None` if that is unknown. The feed
/// calls this function at most a few times a second for each projection. The function must not
/// block.
pub type LagSource = Arc<dyn Fn(&str) -> Option<Lag> + Send + Sync>;

/// The settings and limits that all sessions share.
pub(crate) struct Resources {
    pub(crate) views: Arc<dyn Views>,
    pub(crate) lag: LagSource,
    pub(crate) config: LiveConfig,
    /// Limits how many reads of the store run at the same time.
    pub(crate) readers: Arc<Semaphore>,
    /// The number of bytes of merged changes that are in memory now.
    pub(crate) merge_budget: Arc<AtomicUsize>,
}

impl Resources {
    pub(crate) fn new(views: Arc<dyn Views>, lag: LagSource, config: LiveConfig) -> Self {
        let readers = Arc::new(Semaphore::new(config.snapshot_readers.max(1)));
        Self { views, lag, readers, config, merge_budget: Arc::default() }
    }
}
