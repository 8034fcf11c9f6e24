//! Replaces `kafka.rs` in a build without the feature `kafka`: it has no settings, and never opens
//! a log on Kafka.

use figment::Figment;
use serde_json::Value;

use super::configured_log::ConfiguredLog;
use crate::config_error::ConfigError;
use crate::data::DataDir;
use crate::start_error::StartError;

/// The settings of Kafka. There are none, because this build has no Kafka.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KafkaSettings;

/// Refuses settings of Kafka in `figment`.
pub(crate) fn settings_of(figment: &Figment) -> Result<KafkaSettings, ConfigError> {
    if figment.contains("log.kafka") {
        return Err(ConfigError("this build has no Kafka (`log.kafka`)".into()));
    }
    Ok(KafkaSettings)
}

/// The section with the settings of Kafka.
pub(crate) const SECTION: &str = "log.kafka";

/// Returns `None`, because there are no settings to show.
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with Kafka")]
pub(crate) fn shown(_: &KafkaSettings) -> Result<Option<Value>, serde_json::Error> {
    Ok(None)
}

/// Accepts the settings, because there are none to check.
pub(crate) fn check(_: &KafkaSettings) -> Result<(), ConfigError> {
    Ok(())
}

/// Refuses an address `kafka://HOST:PORT/TOPIC`.
///
/// # Errors
/// Returns [`ConfigError`], because this build has no Kafka.
pub fn kafka_address(address: &str) -> Result<(String, Vec<String>), ConfigError> {
    Err(ConfigError(format!("this build has no Kafka (`{address}`)")))
}

/// Returns `None`, because this build has no log on Kafka.
pub(super) fn open(_: &KafkaSettings, _: &DataDir) -> Result<Option<ConfiguredLog>, StartError> {
    Ok(None)
}
