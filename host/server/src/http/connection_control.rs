//! Limits the number of connections, and lets the handler of a request act on its connection.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::config::HttpConfig;

/// Limits the number of connections.
pub(super) struct ConnectionLimits {
    usual: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

/// The permit for one connection.
pub(super) struct ConnectionPermit {
    /// Whether the connection is for administration only.
    pub(super) reserved: bool,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// Creates the limits that the settings allow.
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            usual: Arc::new(Semaphore::new(config.connections_max)),
            reserved: Arc::new(Semaphore::new(config.connections_reserved)),
        }
    }

    /// Waits for a permit and returns it. It is a reserved one only if all others are in use.
    pub(super) async fn free(&self) -> ConnectionPermit {
        let (usual, reserved) = (Arc::clone(&self.usual), Arc::clone(&self.reserved));
        let (permit, reserved) = tokio::select! {
            biased;
            permit = usual.acquire_owned() => (permit, false),
            permit = reserved.acquire_owned() => (permit, true),
        };
        ConnectionPermit { reserved, _permit: permit.expect("the semaphores are never closed") }
    }

    /// Returns an unreserved permit in place of `permit` if one is free now.
    pub(super) fn better(&self, permit: ConnectionPermit) -> ConnectionPermit {
        match Arc::clone(&self.usual).try_acquire_owned() {
            Ok(free) if permit.reserved => ConnectionPermit { reserved: false, _permit: free },
            _ => permit,
        }
    }
}

/// What the handler of a request can do with its connection.
pub(super) struct ConnectionControl {
    permit: Mutex<Option<ConnectionPermit>>,
    cut: Notify,
}

impl ConnectionControl {
    pub(super) fn new(permit: ConnectionPermit) -> Arc<Self> {
        Arc::new(Self { permit: Mutex::new(Some(permit)), cut: Notify::new() })
    }

    /// Gives the permit of the connection back, because another limit applies to the connection, or
    /// because it has ended.
    pub(super) fn release(&self) {
        self.permit.lock().take();
    }

    /// Closes the connection, even if bytes of an answer are not written yet.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Waits until the connection must be closed.
    pub(super) async fn until_cut(&self) {
        self.cut.notified().await;
    }
}
