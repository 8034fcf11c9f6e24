//! Holds the state that the handles of a client and the task of its connection share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::mirror::{Mirrored, Status};
use crate::options::Options;

/// The state that the handles and the task of the connection share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) options: Options,
    /// All current subscriptions. A subscription is removed when it ends.
    tables: Mutex<Vec<Arc<Mirrored>>>,
    /// Is notified when `tables` changes.
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

    /// Adds a table, to which the connection then subscribes.
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
