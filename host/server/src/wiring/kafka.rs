//! Opens the log on Kafka topics, if this build has it and the settings name it.

#[cfg(feature = "kafka")]
use std::sync::Arc;

#[cfg(feature = "kafka")]
use lantern_kafka::{KafkaLog, OpenError};

use super::configured_log::ConfiguredLog;
use super::kafka_settings::KafkaSettings;
#[cfg(feature = "kafka")]
use super::kafka_settings::SECTION;
#[cfg(feature = "kafka")]
use crate::config_error::ConfigError;
use crate::data::DataDir;
#[cfg(feature = "kafka")]
use crate::log_services::LogServices;
use crate::start_error::StartError;

/// Opens the log on Kafka, if `settings` name one.
#[cfg(feature = "kafka")]
pub(super) fn open(
    settings: &KafkaSettings,
    data: &DataDir,
) -> Result<Option<ConfiguredLog>, StartError> {
    if !settings.is_on() {
        return Ok(None);
    }
    if data.log().exists() {
        return Err(StartError::OtherLog {
            path: data.log(),
            made: "the embedded log",
            selected: "Kafka",
        });
    }
    let copies = settings.dead_letter_topic.is_some();
    let log = Arc::new(KafkaLog::open(data.kafka(), settings.clone()).map_err(start_error)?);
    Ok(Some(ConfiguredLog {
        services: LogServices {
            closing: Arc::<KafkaLog>::clone(&log),
            heartbeats: Arc::<KafkaLog>::clone(&log),
            maintenance: None,
            offsets: Some(Arc::<KafkaLog>::clone(&log)),
            dead_letters: copies.then(|| Arc::<KafkaLog>::clone(&log) as _),
        },
        log,
    }))
}

/// This build has no log on Kafka.
#[cfg(not(feature = "kafka"))]
pub(super) fn open(_: &KafkaSettings, _: &DataDir) -> Result<Option<ConfiguredLog>, StartError> {
    Ok(None)
}

#[cfg(feature = "kafka")]
fn start_error(error: OpenError) -> StartError {
    match error {
        OpenError::Setting(error) => {
            StartError::Config(ConfigError(format!("in section `{SECTION}`: {error}")))
        }
        OpenError::Data { path, reason } => StartError::data(path, reason),
        other => StartError::Kafka(other.into()),
    }
}
