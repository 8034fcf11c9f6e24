//! Opens the log that the settings name: the embedded one, or the one on Kafka topics.

use std::sync::Arc;

use lantern_log::{EmbeddedLog, OpenError};

use super::configured_log::ConfiguredLog;
use super::kafka;
use crate::config::ServerConfig;
use crate::config_error::ConfigError;
use crate::data::DataDir;
use crate::log_services::LogServices;
use crate::start_error::StartError;

/// Opens the log that the settings name. State files contain offsets of a log, so this fails if the
/// data folder was created with another log.
pub(super) fn open(config: &ServerConfig, data: &DataDir) -> Result<ConfiguredLog, StartError> {
    if let Some(log) = kafka::open(&config.kafka, data)? {
        return Ok(log);
    }
    if data.kafka().exists() {
        return Err(StartError::OtherLog {
            path: data.kafka(),
            made: "Kafka",
            selected: "the embedded log",
        });
    }
    let path = data.log();
    let log = EmbeddedLog::open(&path, config.log.clone()).map_err(|error| match error {
        OpenError::InUse(path) => StartError::InUse { path, pid: None },
        OpenError::Setting { .. } => StartError::Config(ConfigError(error.to_string())),
        other => StartError::data(path, other),
    })?;
    let log = Arc::new(log);
    Ok(ConfiguredLog {
        services: LogServices {
            closing: Arc::<EmbeddedLog>::clone(&log),
            heartbeats: Arc::<EmbeddedLog>::clone(&log),
            maintenance: Some(Arc::<EmbeddedLog>::clone(&log)),
            offsets: None,
            dead_letters: None,
        },
        log,
    })
}
