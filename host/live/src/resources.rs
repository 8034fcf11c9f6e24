//! Holds what all sessions share: the views, the settings, and the limits for concurrent reads and
//! for memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use lantern_api::feed::Lag;
use lantern_core::{EventTraces, RollUps, Views};
use tokio::sync::Semaphore;

use crate::LiveConfig;

/// Returns how far the named projection is behind the log; `None` if that is unknown. The feed
/// calls this function at most a few times a second for each projection. The function must not
/// block.
pub type LagSource = Arc<dyn Fn(&str) -> Option<Lag> + Send + Sync>;

/// The settings and limits that all sessions share.
pub(crate) struct Resources {
    pub(crate) views: Arc<dyn Views>,
    /// Creates the roll-ups of subscriptions; `None` if the feed does not support them.
    pub(crate) roll_ups: Option<Arc<dyn RollUps>>,
    pub(crate) lag: LagSource,
    /// Receives the frames that were sent; `None` if no traces are recorded.
    pub(crate) traces: Option<Arc<dyn EventTraces>>,
    pub(crate) config: LiveConfig,
    /// Limits how many reads of the store run at the same time.
    pub(crate) readers: Arc<Semaphore>,
    /// The number of bytes of merged changes that are in memory now.
    pub(crate) merge_budget: Arc<AtomicUsize>,
    /// The number of roll-ups that have subscribers now.
    pub(crate) roll_ups_open: Arc<AtomicUsize>,
    /// The number of bytes that all roll-ups take now.
    pub(crate) roll_up_budget: Arc<AtomicUsize>,
}

impl Resources {
    pub(crate) fn new(
        views: Arc<dyn Views>,
        roll_ups: Option<Arc<dyn RollUps>>,
        lag: LagSource,
        traces: Option<Arc<dyn EventTraces>>,
        config: LiveConfig,
    ) -> Self {
        Self {
            views,
            roll_ups,
            lag,
            traces,
            readers: Arc::new(Semaphore::new(config.snapshot_readers.max(1))),
            config,
            merge_budget: Arc::default(),
            roll_ups_open: Arc::default(),
            roll_up_budget: Arc::default(),
        }
    }
}
