//! Counts what a query uses. Ends the query at a limit, or when its caller cancels it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{QueryConfig, QueryError};

/// The number of rows after which the clock and the cancellation are checked again.
const CHECK_ROWS: u64 = 4_096;

/// A handle that lets a caller end a query from another thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the query with [`QueryError::Cancelled`] soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the query was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The limits of one query, and how much of them it has used so far. The time of the query is
/// counted from the creation of the budget.
#[derive(Debug)]
pub struct Budget<'c> {
    config: &'c QueryConfig,
    cancel: Cancel,
    deadline: Instant,
    /// The longest run time in milliseconds, and the name of the setting that contains it.
    time: (u64, &'static str),
    rows: u64,
    rows_max: u64,
    memory_bytes: usize,
}

impl<'c> Budget<'c> {
    /// Creates a budget with the limits of `config`.
    #[must_use]
    pub fn new(config: &'c QueryConfig, cancel: Cancel) -> Self {
        let time = (config.run_ms_max, "run_ms_max");
        Self::with(config, cancel, time, config.rows_scanned_max)
    }

    /// Creates the budget of an export of rows in key order. It limits the time, but not the number
    /// of rows.
    #[must_use]
    pub fn of_export(config: &'c QueryConfig, cancel: Cancel) -> Self {
        Self::with(config, cancel, (config.export_ms_max, "export_ms_max"), u64::MAX)
    }

    fn with(
        config: &'c QueryConfig,
        cancel: Cancel,
        time: (u64, &'static str),
        rows_max: u64,
    ) -> Self {
        let deadline = Instant::now() + Duration::from_millis(time.0);
        Self { config, cancel, deadline, time, rows: 0, rows_max, memory_bytes: 0 }
    }

    /// When its time is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Creates a budget with the limits of `config` for a computation that already uses
    /// `memory_bytes`.
    pub(crate) fn resumed(config: &'c QueryConfig, memory_bytes: usize) -> Self {
        Self { memory_bytes, ..Self::new(config, Cancel::default()) }
    }

    /// Returns the memory that is counted now, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns the number of rows that the query has read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts a row that the query reads.
    ///
    /// # Errors
    /// [`QueryError::Limit`] and [`QueryError::Cancelled`].
    #[inline]
    pub fn row(&mut self) -> Result<(), QueryError> {
        self.rows += 1;
        if self.rows > self.rows_max {
            return Err(limit("reads more rows than allowed", self.rows_max, "rows_scanned_max"));
        }
        if self.rows.is_multiple_of(CHECK_ROWS) { self.check_time() } else { Ok(()) }
    }

    /// Returns an error if the query was cancelled or has run for too long.
    pub(crate) fn check_time(&self) -> Result<(), QueryError> {
        if self.cancel.is_cancelled() {
            return Err(QueryError::Cancelled);
        }
        if Instant::now() > self.deadline {
            let (max, setting) = self.time;
            return Err(limit("takes more milliseconds than allowed", max, setting));
        }
        Ok(())
    }

    /// Counts `bytes` of memory that the query uses.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.memory_bytes += bytes;
        if self.memory_bytes > self.config.memory_bytes_max {
            let max = self.config.memory_bytes_max as u64;
            return Err(limit("needs more bytes of memory than allowed", max, "memory_bytes_max"));
        }
        Ok(())
    }

    /// Notes that the query no longer needs `bytes` of memory.
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize) {
        self.memory_bytes = self.memory_bytes.saturating_sub(bytes);
    }

    /// Checks that the number of groups is within its limit.
    #[inline]
    pub(crate) fn groups(&self, groups: usize) -> Result<(), QueryError> {
        if groups > self.config.groups_max {
            let max = self.config.groups_max as u64;
            return Err(limit("has more groups than allowed", max, "groups_max"));
        }
        Ok(())
    }
}

fn limit(what: &'static str, max: u64, setting: &'static str) -> QueryError {
    QueryError::Limit { what, max, setting }
}
