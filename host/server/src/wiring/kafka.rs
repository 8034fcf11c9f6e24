//! Configures the log on Kafka topics: its settings, and how it is opened. A build without the
//! feature `kafka` has `no_kafka.rs` instead of this module.

use std::sync::Arc;

use figment::Figment;
pub use lantern_kafka::KafkaConfig as KafkaSettings;
use lantern_kafka::{KafkaLog, OpenError};
use serde_json::Value;

use super::configured_log::ConfiguredLog;
use crate::config_error::ConfigError;
use crate::data::DataDir;
use crate::log_services::LogServices;
use crate::start_error::StartError;

/// The section with the settings of the log on Kafka topics. It is within the section of the
/// embedded log.
pub(crate) const SECTION: &str = "log.kafka";
/// What is shown in place of a value that may be secret.
const NOT_SHOWN: &str = "(not shown)";

/// Reads the settings of Kafka from `figment`.
pub(crate) fn settings_of(figment: &Figment) -> Result<KafkaSettings, ConfigError> {
    if !figment.contains(SECTION) {
        return Ok(KafkaSettings::default());
    }
    Ok(figment.extract_inner(SECTION).map_err(in_section)?)
}

/// Returns the settings of Kafka for operators. The values of `properties` are not shown, because
/// any of them may be secret.
pub(crate) fn shown(settings: &KafkaSettings) -> Result<Option<Value>, serde_json::Error> {
    let mut shown = serde_json::to_value(settings)?;
    let properties = shown.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flatten().for_each(|(_, value)| *value = NOT_SHOWN.into());
    Ok(Some(shown))
}

/// Moves the section in `error` before the setting, because the library puts it after the setting.
fn in_section(mut error: figment::Error) -> figment::Error {
    let path = error.path.join(".");
    if !path.starts_with(SECTION) {
        let key = path.strip_suffix(SECTION).unwrap_or(&path).trim_end_matches('.');
        let parts = [SECTION, key].into_iter().filter(|part| !part.is_empty());
        error.path = parts.map(str::to_owned).collect();
    }
    error
}

/// Checks the settings for rules that their types cannot express.
pub(crate) fn check(settings: &KafkaSettings) -> Result<(), ConfigError> {
    settings.check().map_err(|e| ConfigError(format!("in section `{SECTION}`: {e}")))
}

/// Splits an address `kafka://HOST:PORT/TOPIC` into the servers and the topics.
///
/// # Errors
/// Returns [`ConfigError`] if it is not such an address.
pub fn kafka_address(address: &str) -> Result<(String, Vec<String>), ConfigError> {
    KafkaSettings::parse_url(address).map_err(|error| ConfigError(error.to_string()))
}

/// Opens the log on Kafka; `None` if `settings` do not name one.
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

fn start_error(error: OpenError) -> StartError {
    match error {
        OpenError::Setting(error) => {
            StartError::Config(ConfigError(format!("in section `{SECTION}`: {error}")))
        }
        OpenError::Data { path, source } => StartError::data(path, source),
        other => StartError::Kafka(other.into()),
    }
}
