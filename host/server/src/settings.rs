//! Lists the settings with which the server runs, for operators. Secrets are left out.

use lantern_api::Setting;
use serde_json::Value;

use crate::config::ServerConfig;
use crate::wiring::kafka::{self, KafkaSettings};

/// Returns all settings, in order of their keys.
///
/// # Errors
/// Returns an error if a setting cannot be written as JSON, such as a path that is not UTF-8.
pub(crate) fn list(config: &ServerConfig) -> Result<Vec<Setting>, serde_json::Error> {
    let defaults = serde_json::to_value(ServerConfig::default())?;
    let mut settings = Vec::new();
    flatten("", &serde_json::to_value(config)?, &defaults, &mut settings);
    let kafka = (kafka::shown(&config.kafka)?, kafka::shown(&KafkaSettings::default())?);
    if let (Some(value), Some(default)) = &kafka {
        flatten(kafka::SECTION, value, default, &mut settings);
    }
    settings.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(settings)
}

/// Adds the settings in the section `key` to `settings` or, if `key` is a setting, that setting. A
/// section is a JSON object, and so is a setting whose value is a map. The defaults distinguish
/// them: only sections have members there.
fn flatten(key: &str, value: &Value, default: &Value, settings: &mut Vec<Setting>) {
    match (value, default) {
        (Value::Object(values), Value::Object(defaults)) if !defaults.is_empty() => {
            for (name, value) in values {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, defaults.get(name).unwrap_or(&Value::Null), settings);
            }
        }
        _ => settings.push(Setting {
            key: key.to_owned(),
            value: value.clone(),
            default: default.clone(),
            changed: value != default,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(config: &ServerConfig, key: &str) -> Setting {
        let settings = list(config).unwrap();
        let found = settings.iter().find(|setting| setting.key == key);
        found.unwrap_or_else(|| panic!("no `{key}`: {settings:?}")).clone()
    }

    #[test]
    fn every_setting_is_listed_once_with_its_value_and_default() {
        let config =
            ServerConfig::parse("[http]\nqueries_max = 3\n[plugin.limits]\nhandles_max = 7");
        let config = config.unwrap();
        let changed = setting(&config, "http.queries_max");
        assert_eq!((changed.value, changed.default, changed.changed), (3.into(), 16.into(), true));
        assert_eq!(setting(&config, "plugin.limits.handles_max").value, 7);
        assert!(!setting(&config, "data").changed);
        let keys: Vec<_> = list(&config).unwrap().into_iter().map(|setting| setting.key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        let changed = list(&config).unwrap().into_iter().filter(|setting| setting.changed);
        assert_eq!(changed.count(), 2);
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn secrets_are_not_listed() {
        let text = "[log.kafka]\ntopics = ['t']\n[log.kafka.properties]\n'sasl.password' = 'hunter2'\n'sasl.jaas' = 'hunter2'\n'client.id' = 'c'";
        let config = ServerConfig::parse(text).unwrap();
        let all = serde_json::to_string(&list(&config).unwrap()).unwrap();
        assert!(!all.contains("hunter2"), "{all}");
        let properties = setting(&config, "log.kafka.properties");
        let names: Vec<_> = properties.value.as_object().unwrap().keys().collect();
        assert_eq!(names, ["client.id", "sasl.jaas", "sasl.password"]);
        assert!(properties.changed);
        assert_eq!(setting(&config, "log.kafka.topics").value, serde_json::json!(["t"]));
    }
}
