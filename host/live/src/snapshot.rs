//! Defines the snapshot of a query: all its rows at one commit, encoded once for every subscriber.

use std::sync::Arc;

use bytes::Bytes;
use lantern_core::Checkpoint;

use crate::encode::BudgetLease;

/// The encoded rows of a query at one commit.
pub(crate) struct Snapshot {
    pub(crate) epoch: Arc<str>,
    pub(crate) commit: u64,
    pub(crate) at: Arc<Checkpoint>,
    pub(crate) parts: Vec<Bytes>,
    /// Counts the bytes of the snapshot of a roll-up as long as the snapshot exists.
    pub(crate) _lease: Option<BudgetLease>,
}
