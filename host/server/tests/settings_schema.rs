//! Tests the schema of the settings. Editors read it, and `docs/config.md` is generated from it.

#![cfg(feature = "kafka")]

use std::path::Path;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use lantern_server::ServerConfig;

/// The file with the schema. This test writes it if `LANTERN_WRITE_SCHEMA` is set, as `cargo xtask
/// docs` does.
const FILE: &str = "../../docs/config.schema.json";

/// Returns the schema of all settings. The settings of Kafka are in their section.
fn schema() -> Value {
    let of =
        |settings: SchemaSettings| settings.with(|s| s.inline_subschemas = true).into_generator();
    let mut schema =
        of(SchemaSettings::draft07()).into_root_schema_for::<ServerConfig>().to_value();
    let kafka = of(SchemaSettings::draft07()).into_root_schema_for::<lantern_kafka::KafkaConfig>();
    let mut kafka = kafka.to_value();
    for only_at_the_root in ["$schema", "title"] {
        kafka.as_object_mut().expect("a schema of a struct").remove(only_at_the_root);
    }
    schema["properties"]["log"]["properties"]["kafka"] = kafka;
    sections_have_no_default(&mut schema);
    schema
}

/// Removes the default of each section, because each setting in the section has a default.
fn sections_have_no_default(schema: &mut Value) {
    let Some(properties) = schema["properties"].as_object_mut() else { return };
    for property in properties.values_mut().filter(|property| property["properties"].is_object()) {
        property.as_object_mut().expect("it has members").remove("default");
        sections_have_no_default(property);
    }
}

#[test]
fn the_schema_of_the_settings_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("LANTERN_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "docs/config.schema.json is out of date; run `cargo xtask docs`");
}

#[test]
fn the_schema_has_every_setting_with_its_default() {
    let schema = schema();
    let mut defaults = serde_json::to_value(ServerConfig::default()).unwrap();
    let kafka = lantern_kafka::KafkaConfig::default();
    defaults["log"]["kafka"] = serde_json::to_value(kafka).unwrap();
    compare("", &schema, &defaults);
}

fn compare(path: &str, schema: &Value, defaults: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        assert_eq!(schema["default"], *defaults, "{path}");
        let described = schema["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(described, "{path} has no description");
        return;
    };
    let defaults = defaults.as_object().expect("a section");
    let (known, all): (Vec<_>, Vec<_>) = (properties.keys().collect(), defaults.keys().collect());
    assert_eq!(known, all, "{path}");
    assert_eq!(schema["additionalProperties"], false, "{path}");
    for (name, property) in properties {
        compare(&format!("{path}.{name}"), property, &defaults[name]);
    }
}
