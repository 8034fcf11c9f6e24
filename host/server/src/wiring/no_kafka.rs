//! Replaces `kafka.rs` in a build without the feature `kafka`: there are no settings, and
//! no log on Kafka is ever opened.

use figment::Figment;

use super::configured_log::ConfiguredLog;
use crate::config_error::ConfigError;
use crate::data::DataDir;
use crate::start_error::StartError;

/// This build has no Kafka, so there is nothing to set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KafkaSettings;

/// Refuses the section of Kafka.
pub(crate) fn settings_of(figment: &Figment) -> Result<KafkaSettings, ConfigError> {
    if figment.contains("log.kafka") {
        return Err(ConfigError("this build has no Kafka (`log.kafka`)".into()));
    }
    Ok(KafkaSettings)
}

/// There is nothing to check.
pub(crate) fn check(_: &KafkaSettings) -> Result<(), ConfigError> {
    Ok(())
}

/// Servers and topics of `kafka://HOST:PORT/TOPIC`.
///
/// # Errors
/// [`ConfigError`]: this build has no Kafka.
pub fn kafka_address(address: &str) -> Result<(String, Vec<String>), ConfigError> {
    Err(ConfigError(format!("this build has no Kafka (`{address}`)")))
}

/// There is no log on Kafka.
pub(super) fn open(_: &KafkaSettings, _: &DataDir) -> Result<Option<ConfiguredLog>, StartError> {
    Ok(None)
}
