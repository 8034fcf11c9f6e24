//! What the handles of a client and its connection's task share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::mirror::{Mirrored, Status};
use crate::options::Options;

/// The state that handles and the connection's task share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) options: Options,
    /// All current subscriptions; ended ones are removed.
    tables: Mutex<Vec<Arc<Mirrored>>>,
    /// Notified when the list changes.
    pub(crate) changed: Notify,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) task: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn new(url: &str, options: Options) -> Self {
        Self {
            url: url.to_owned(),
            options,
            tables: Mutex::default(),
            changed: Notify::new(),
            status: watch::Sender::new(Status::Live),
            task: Mutex::default(),
        }
    }

    /// Adds a table to those that the connection subscribes to.
    pub(crate) fn add(&self, table: Arc<Mirrored>) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(table);
    }

    pub(crate) fn tables(&self) -> Vec<Arc<Mirrored>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| !table.is_over());
        tables.clone()
    }

    pub(crate) fn end(&self, error: &Error) {
        self.status.send_replace(Status::Ended(error.clone()));
        for table in self.tables() {
            table.end(error.clone());
        }
    }
}
