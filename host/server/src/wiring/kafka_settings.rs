//! The settings of the log on Kafka topics, for builds with the feature `kafka` and for
//! those without.

use figment::Figment;

use crate::config_error::ConfigError;

/// The section of the log on Kafka topics, within that of the embedded log.
pub(super) const SECTION: &str = "log.kafka";

#[cfg(feature = "kafka")]
pub use lantern_kafka::KafkaConfig as KafkaSettings;

/// This build has no Kafka, so there is nothing to set.
#[cfg(not(feature = "kafka"))]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KafkaSettings;

/// The settings of Kafka in `figment`.
#[cfg(feature = "kafka")]
pub(crate) fn settings_of(figment: &Figment) -> Result<KafkaSettings, ConfigError> {
    if !figment.contains(SECTION) {
        return Ok(KafkaSettings::default());
    }
    Ok(figment.extract_inner(SECTION).map_err(in_section)?)
}

/// This build has no Kafka, so nothing may be set.
#[cfg(not(feature = "kafka"))]
pub(crate) fn settings_of(figment: &Figment) -> Result<KafkaSettings, ConfigError> {
    if figment.contains(SECTION) {
        return Err(ConfigError(format!("this build has no Kafka (`{SECTION}`)")));
    }
    Ok(KafkaSettings)
}

/// The error with its section in front of the key; the library puts it after the key.
#[cfg(feature = "kafka")]
fn in_section(mut error: figment::Error) -> figment::Error {
    let path = error.path.join(".");
    if !path.starts_with(SECTION) {
        let key = path.strip_suffix(SECTION).unwrap_or(&path).trim_end_matches('.');
        let parts = [SECTION, key].into_iter().filter(|part| !part.is_empty());
        error.path = parts.map(str::to_owned).collect();
    }
    error
}

/// Checks the rules that types cannot express.
#[cfg(feature = "kafka")]
pub(crate) fn check(settings: &KafkaSettings) -> Result<(), ConfigError> {
    settings.check().map_err(|e| ConfigError(format!("in section `{SECTION}`: {e}")))
}

/// There is nothing to check.
#[cfg(not(feature = "kafka"))]
pub(crate) fn check(_: &KafkaSettings) -> Result<(), ConfigError> {
    Ok(())
}

/// Servers and topics of `kafka://HOST:PORT/TOPIC`.
///
/// # Errors
/// [`ConfigError`] if it is not such an address, or if this build has no Kafka.
pub fn kafka_address(address: &str) -> Result<(String, Vec<String>), ConfigError> {
    #[cfg(feature = "kafka")]
    return KafkaSettings::parse_url(address).map_err(|error| ConfigError(error.to_string()));
    #[cfg(not(feature = "kafka"))]
    Err(ConfigError(format!("this build has no Kafka (`{address}`)")))
}
