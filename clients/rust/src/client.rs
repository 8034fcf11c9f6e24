//! The client's handle, and the task that runs its connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::connection::{Connection, ConnectionEnd};
use crate::table::{Mirrored, Status, Table};
use crate::{Error, Options, TableOptions};

/// The state that handles and the connection's task share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) options: Options,
    /// All current subscriptions; ended ones are removed.
    tables: Mutex<Vec<Arc<Mirrored>>>,
    /// Notified when the list changes.
    pub(crate) changed: Notify,
    status: watch::Sender<Status>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn tables(&self) -> Vec<Arc<Mirrored>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| !table.is_over());
        tables.clone()
    }

    fn end(&self, error: &Error) {
        self.status.send_replace(Status::Ended(error.clone()));
        for table in self.tables() {
            table.end(error.clone());
        }
    }
}

/// A connection to a Lantern server that mirrors tables. It reconnects by itself and
/// continues where it stopped. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    stop: Arc<StopOnDrop>,
}

/// Ends the task when the last client is dropped. Then tables keep their rows, and
/// their streams end.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
        }
        self.0.end(&Error::Closed);
    }
}

impl Client {
    /// Connects to the feed at `url` (`ws://host:port/v1/feed`) and waits for the
    /// server's `welcome`. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] if the first connection fails; later ones are retried.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let first = Connection::open(url, &options).await.map_err(|end| end.error(url))?;
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            options,
            tables: Mutex::default(),
            changed: Notify::new(),
            status: watch::Sender::new(Status::Live),
            task: Mutex::default(),
        });
        let task = tokio::spawn(keep_connected(shared.clone(), first));
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(Self { stop: Arc::new(StopOnDrop(shared.clone())), shared })
    }

    /// Mirrors the table `name` (`projection/table`). Returns at once: check
    /// [`Table::status`] or wait with [`Table::wait_for_status`].
    #[must_use]
    pub fn table(&self, name: &str) -> Table {
        self.table_with(name, TableOptions::default())
    }

    /// Mirrors a table with `options`.
    #[must_use]
    pub fn table_with(&self, name: &str, options: TableOptions) -> Table {
        let buffer = self.shared.options.changes_buffer;
        let mirrored = Arc::new(Mirrored::new(name, options, buffer));
        match &*self.shared.status.borrow() {
            Status::Ended(error) => mirrored.end(error.clone()),
            _ => {
                let mut tables = self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner);
                tables.push(mirrored.clone());
            }
        }
        self.shared.changed.notify_one();
        Table::new(mirrored, self.shared.clone())
    }

    /// The connection's own status: live, stale or ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Ends the connection and all its tables, for all clones.
    pub fn close(self) {
        drop(self.stop);
    }
}

/// Runs connections one after another until an error says that a retry cannot help.
async fn keep_connected(shared: Arc<Shared>, first: Connection) {
    let mut connection = first;
    let mut failures = 0;
    loop {
        shared.status.send_replace(Status::Live);
        let mut end = connection.run(&shared).await;
        if connection.was_useful() {
            failures = 0;
        }
        shared.status.send_replace(Status::Stale);
        connection = loop {
            for table in shared.tables() {
                let known = table.mirror().commit.is_some();
                table.set_status(if known { Status::Stale } else { Status::Connecting });
            }
            if end.is_final() {
                return shared.end(&end.error(&shared.url));
            }
            let pause = pause(&shared.options, failures, &end);
            tracing::debug!(url = shared.url, ?pause, %end, "reconnecting to the feed after a pause");
            tokio::time::sleep(pause).await;
            failures = failures.saturating_add(1);
            match Connection::open(&shared.url, &shared.options).await {
                Ok(connection) => break connection,
                Err(next) => end = next,
            }
        };
    }
}

/// How long to wait before the next connection after `failures` failures in a row.
fn pause(options: &Options, failures: u32, end: &ConnectionEnd) -> Duration {
    if end.is_shutdown() && failures == 0 {
        return options.shutdown_spread.mul_f64(fastrand::f64());
    }
    backoff(options, failures)
}

/// An exponential pause, reduced by a random share of up to a half so that clients that
/// failed together do not reconnect together.
pub(crate) fn backoff(options: &Options, failures: u32) -> Duration {
    let longest = options.backoff_min.saturating_mul(2_u32.saturating_pow(failures.min(20)));
    longest.min(options.backoff_max).mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let options = Options::default();
        for failures in 0..40 {
            let pause = backoff(&options, failures);
            let whole = options.backoff_min.saturating_mul(1 << failures.min(20));
            let whole = whole.min(options.backoff_max);
            assert!(pause <= whole && pause >= whole / 2, "{failures}: {pause:?}");
        }
    }
}
