//! The threads that run queries of tables.

use std::thread::available_parallelism;

use lantern_query::QueryPool;

use crate::config::ServerConfig;
use crate::start_error::StartError;

/// Starts the threads.
pub(super) fn open(config: &ServerConfig) -> Result<QueryPool, StartError> {
    let cores = available_parallelism().map_or(1, usize::from);
    let pool = QueryPool::new(config.query.threads_on(cores), config.query.waiting_max);
    pool.map_err(|error| StartError::data(config.data.clone(), error))
}
