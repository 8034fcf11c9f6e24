//! Implements the handle of a client, and the task that runs its connection.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::backoff::{self, backoff};
use crate::connection::Connection;
use crate::connection_end::ConnectionEnd;
use crate::error::Error;
use crate::mirror::{Mirrored, Status};
use crate::options::{Options, TableOptions};
use crate::shared::Shared;
use crate::table::Table;

/// A connection to a Lantern server that mirrors tables. If the connection is lost, it reconnects
/// by itself and continues at the point that it had reached. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    stop: Arc<StopOnDrop>,
}

/// Ends the task of the connection when the last client is dropped. The tables then keep their
/// rows, and their streams end.
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
    /// Connects to the feed at `url` (`ws://host:port/v1/feed`) and waits for the server's
    /// `welcome`. The caller must be on a tokio runtime.
    ///
    /// # Errors
    /// Returns [`Error`] if the first connection fails. If a later connection fails, the client
    /// tries again.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let first = Connection::open(url, &options).await.map_err(|end| end.error(url))?;
        let shared = Arc::new(Shared::new(url, options));
        let task = tokio::spawn(keep_connected(shared.clone(), first));
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(Self { stop: Arc::new(StopOnDrop(shared.clone())), shared })
    }

    /// Mirrors the table `name`, which has the form `projection/table`. The call returns at once.
    /// Check [`Table::status`], or wait with [`Table::wait_for_status`].
    #[must_use]
    pub fn table(&self, name: &str) -> Table {
        self.table_with(name, TableOptions::default())
    }

    /// Mirrors a table with the options `options`.
    #[must_use]
    pub fn table_with(&self, name: &str, options: TableOptions) -> Table {
        let buffer = self.shared.options.changes_buffer;
        let mirrored = Arc::new(Mirrored::new(name, options, buffer));
        match &*self.shared.status.borrow() {
            Status::Ended(error) => mirrored.end(error.clone()),
            _ => self.shared.add(mirrored.clone()),
        }
        self.shared.changed.notify_one();
        Table::new(mirrored, self.shared.clone())
    }

    /// Returns the status of the connection itself: live, stale or ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Ends the connection and all its tables, for all clones.
    pub fn close(self) {
        drop(self.stop);
    }
}

/// Runs one connection after another, until an error shows that another attempt cannot succeed.
async fn keep_connected(shared: Arc<Shared>, first: Connection) {
    let mut connection = first;
    let mut failures = 0;
    loop {
        shared.status.send_replace(Status::Live);
        let mut end = connection.run(&shared).await;
        if connection.was_useful() {
            failures = 0;
        }
        // Drop the connection before the pause. Otherwise the server would keep the session during
        // the pause.
        drop(connection);
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

/// Returns the wait before the next connection after `failures` failures in a row.
fn pause(options: &Options, failures: u32, end: &ConnectionEnd) -> Duration {
    if end.is_shutdown() && failures == 0 {
        return options.shutdown_spread.mul_f64(fastrand::f64());
    }
    if end.is_too_many() {
        return backoff::longest(options);
    }
    backoff(options, failures)
}
