//! Defines the settings of a log on Kafka. Their doc comments are the source of the reference in
//! docs/config.md.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::mapping::Mapping;

/// The settings of the client that the log sets itself. They are not allowed in `properties`.
const FIXED: [&str; 10] = [
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "metadata.broker.list",
    "transactional.id",
];

/// A log on Kafka topics. If `topics` names at least one topic, it replaces the embedded log.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Brokers to connect to first, as `host:9092,host2:9092`. Default
    /// `localhost:9092`.
    pub servers: String,
    /// The topics. The log consists of all their partitions. Topics can be added at the end later,
    /// but not removed. Default none: the embedded log is used.
    pub topics: Vec<String>,
    /// The topic to which events sent over HTTP are appended. Not set: the first topic.
    pub ingest_topic: Option<String>,
    /// The topic to which emitted events are appended. Not set: `ingest_topic`. If it is
    /// not one of `topics`, projections do not read the emitted events.
    pub emit_topic: Option<String>,
    /// The topic to which parked events are copied, with the reason in headers.
    /// Not set: they are not copied.
    pub dead_letter_topic: Option<String>,
    /// The number of partitions with which a missing topic is created. If it is 0, a missing topic
    /// is an error. Default 0.
    pub create_partitions: u32,
    /// Whether the server may write to the topics: events sent over HTTP, emitted
    /// events and heartbeats. Default true.
    pub writable: bool,
    /// Whether heartbeats are written into idle partitions, so that windows close. Only partitions
    /// that projections with timers read get heartbeats. Topics with a `json` section get none.
    /// Default true.
    pub heartbeats: bool,
    /// The attribute that becomes the key of a record: `subject`, `source`, `type`, `tenant`, `id`
    /// or `none`. If an event has the extension attribute `partitionkey`, that is the key instead.
    /// Default `subject`.
    pub key: KeyOf,
    /// How records that are not CloudEvents become events, by topic. The section `*` applies to
    /// every topic without a section of its own. If no section applies to a topic, its records
    /// without CloudEvents headers are read as CloudEvents in structured mode.
    pub json: BTreeMap<String, Mapping>,
    /// Settings passed to librdkafka unchanged, for TLS, SASL and tuning:
    /// `security.protocol = "SASL_SSL"`. Settings that the log sets itself are
    /// refused. Default none.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub properties: Properties,
    /// A file with the token for SASL OAUTHBEARER, a JWT. It is read again before the
    /// token expires.
    pub oauth_token_file: Option<PathBuf>,
    /// The prefix of consumer group names. The next offsets of a projection are committed to the
    /// group whose name is this prefix and the projection's name. So Kafka's tools can show its
    /// lag. Default `lantern.`.
    pub group_prefix: String,
    /// The interval at which offsets are committed to the groups, in milliseconds.
    /// They are also committed when the server stops. Default 5,000.
    pub commit_ms: u64,
    /// The number of cursors, 2 to 16. Each reads every partition at one offset: one
    /// cursor follows the end, the others serve projections that catch up. Default 3.
    pub cursors: u32,
    /// Memory for decoded events, in bytes, divided among all partitions and cursors.
    /// Each partition of a cursor gets at least 256 KiB. Default 64 MiB.
    pub cache_bytes: usize,
    /// Memory for records that librdkafka fetches ahead, in bytes, divided among all
    /// partitions and cursors. Each partition of a cursor gets at least 256 KiB.
    /// Default 64 MiB.
    pub prefetch_bytes: usize,
    /// The most events in one chunk, 1 to 16,384. Default 8,192.
    pub chunk_events_max: u32,
    /// The size of the deduplication window: the number of newest events of `ingest_topic` in which
    /// duplicates are recognized by tenant, `source` and `id`. At the start, the window is read
    /// from the topic's end. It takes about 40 bytes of memory per event. 0 turns the window off.
    /// Default 100,000.
    pub dedup_window_events: u32,
    /// The maximum size of the events that wait for the broker, in bytes. An append that exceeds it
    /// is refused at once; the sender can send it again later. Default 64 MiB.
    pub queue_bytes: usize,
    /// The time after which an append that waits for the broker is refused, in milliseconds.
    /// Default 30,000.
    pub delivery_ms_max: u64,
    /// How long a record waits for other records to be sent with it, in milliseconds. Default 2.
    pub linger_ms: u64,
    /// How often the broker is asked for the ends of partitions, in milliseconds.
    /// Default 1,000.
    pub refresh_ms: u64,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            servers: "localhost:9092".into(),
            topics: Vec::new(),
            ingest_topic: None,
            emit_topic: None,
            dead_letter_topic: None,
            create_partitions: 0,
            writable: true,
            heartbeats: true,
            key: KeyOf::default(),
            json: BTreeMap::new(),
            properties: Properties::default(),
            oauth_token_file: None,
            group_prefix: "lantern.".into(),
            commit_ms: 5_000,
            cursors: 3,
            cache_bytes: 64 << 20,
            prefetch_bytes: 64 << 20,
            chunk_events_max: 8_192,
            dedup_window_events: 100_000,
            queue_bytes: 64 << 20,
            delivery_ms_max: 30_000,
            linger_ms: 2,
            refresh_ms: 1_000,
        }
    }
}

/// Which attribute becomes a record's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyOf {
    /// `subject`: the order within a subject is kept.
    #[default]
    Subject,
    /// `source`.
    Source,
    /// `type`.
    Type,
    /// `tenant`.
    Tenant,
    /// `id`.
    Id,
    /// No key: the order is not kept between records.
    None,
}

/// Settings of librdkafka by name. Values that may be secret are never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| {
            (name, if is_secret(name) { "(not shown)" } else { value.as_str() })
        });
        f.debug_map().entries(shown).finish()
    }
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "key", "token", "oauthbearer.config", "pem"]
        .iter()
        .any(|part| name.contains(part))
}

/// A value in a configuration file. If it is a section, the section's name and a dot precede the
/// names in it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Section(BTreeMap<String, Value>),
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = BTreeMap::new();
        flatten("", BTreeMap::deserialize(deserializer)?, &mut flat);
        Ok(Self(flat))
    }
}

fn flatten(front: &str, section: BTreeMap<String, Value>, into: &mut BTreeMap<String, String>) {
    for (name, value) in section {
        let name = if front.is_empty() { name } else { format!("{front}.{name}") };
        let text = match value {
            Value::Section(inner) => {
                flatten(&name, inner, into);
                continue;
            }
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(value) => value,
        };
        into.insert(name, text);
    }
}

/// The error for a setting that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{key}` is `{value}`: {rule}")]
pub struct ConfigError {
    /// The name of the setting.
    pub key: String,
    /// The value of the setting.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: String,
}

impl KafkaConfig {
    /// Returns whether the settings name topics. If so, the log is on Kafka.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Splits `kafka://HOST:PORT,HOST/TOPIC,TOPIC` into the servers and the topics.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if `url` has another form.
    pub fn parse_url(url: &str) -> Result<(String, Vec<String>), ConfigError> {
        let wrong = || {
            ConfigError {
            key: "log".into(),
            value: url.into(),
            rule: "write it as `kafka://HOST:PORT/TOPIC`, with several hosts or topics separated by commas".into(),
        }
        };
        let rest = url.strip_prefix("kafka://").ok_or_else(wrong)?;
        let (servers, topics) = rest.split_once('/').ok_or_else(wrong)?;
        let topics: Vec<String> = topics.split(',').map(str::to_owned).collect();
        if servers.is_empty() || servers.contains('@') || topics.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok((servers.to_owned(), topics))
    }

    /// Returns the topic to which events sent over HTTP are appended.
    #[must_use]
    pub fn ingest_topic(&self) -> &str {
        let first = self.topics.first().map_or("", String::as_str);
        self.ingest_topic.as_deref().unwrap_or(first)
    }

    /// Returns the topic to which emitted events are appended.
    #[must_use]
    pub fn emit_topic(&self) -> &str {
        self.emit_topic.as_deref().unwrap_or_else(|| self.ingest_topic())
    }

    /// Returns the mapping for records of `topic` that are not CloudEvents; `None` if there is
    /// none.
    #[must_use]
    pub fn mapping(&self, topic: &str) -> Option<&Mapping> {
        self.json.get(topic).or_else(|| self.json.get("*"))
    }

    /// Checks the settings for rules that their types cannot express.
    ///
    /// # Errors
    /// Returns [`ConfigError`] for the first setting that is out of bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, value: &dyn fmt::Display, rule: &str| {
            Err(ConfigError { key: key.into(), value: value.to_string(), rule: rule.into() })
        };
        for topic in self.all_topics() {
            let fits = topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if topic.is_empty() || topic.len() > 249 || !fits {
                return bad(
                    "topics",
                    &topic,
                    "a topic name has 1 to 249 characters of `a-zA-Z0-9._-`",
                );
            }
        }
        for (index, topic) in self.topics.iter().enumerate() {
            if self.topics[..index].contains(topic) {
                return bad("topics", topic, "name each topic once");
            }
        }
        for topic in [&self.ingest_topic].into_iter().flatten() {
            if !self.topics.contains(topic) {
                return bad("ingest_topic", topic, "it must be one of `topics`");
            }
        }
        if !(2..=16).contains(&self.cursors) {
            return bad("cursors", &self.cursors, "it must be 2 to 16");
        }
        if !(1..=16_384).contains(&self.chunk_events_max) {
            return bad("chunk_events_max", &self.chunk_events_max, "it must be 1 to 16,384");
        }
        for (key, value, least) in [
            ("refresh_ms", self.refresh_ms, 50),
            ("commit_ms", self.commit_ms, 100),
            ("delivery_ms_max", self.delivery_ms_max, 1_000),
        ] {
            if value < least {
                return bad(key, &value, &format!("it must be at least {least}"));
            }
        }
        if let Some(name) = self.properties.0.keys().find(|name| FIXED.contains(&name.as_str())) {
            let rule = "remove it: the log sets it itself";
            return bad("properties", name, rule);
        }
        for (topic, mapping) in &self.json {
            if let Err((field, value, rule)) = mapping.check() {
                return bad(&format!("json.{topic}.{field}"), &value, &rule);
            }
        }
        Ok(())
    }

    fn all_topics(&self) -> impl Iterator<Item = &String> {
        let others = [&self.ingest_topic, &self.emit_topic, &self.dead_letter_topic];
        self.topics.iter().chain(others.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_address_names_servers_and_topics() {
        let parse = |url: &str| KafkaConfig::parse_url(url);
        let (servers, topics) = parse("kafka://a:1,b:2/orders,returns").unwrap();
        assert_eq!((servers.as_str(), topics.join(" ").as_str()), ("a:1,b:2", "orders returns"));
        for wrong in ["kafka://a:1", "kafka:///t", "kafka://a/", "http://a/t", "kafka://u:p@a/t"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let json =
            r#"{"sasl":{"username":"u","password":"hidden"},"ssl.key.pem":"hidden","linger.ms":5}"#;
        let properties: Properties = serde_json::from_str(json).unwrap();
        assert_eq!(properties.0["sasl.password"], "hidden");
        assert_eq!(properties.0["linger.ms"], "5");
        let shown = format!("{properties:?}");
        assert!(shown.contains("sasl.username") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        let check = |change: &dyn Fn(&mut KafkaConfig), key: &str| {
            let mut config = KafkaConfig { topics: vec!["t".into()], ..KafkaConfig::default() };
            config.check().unwrap();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().key, key);
        };
        check(&|c| c.topics.push("t".into()), "topics");
        check(&|c| c.topics.push("a b".into()), "topics");
        check(&|c| c.ingest_topic = Some("other".into()), "ingest_topic");
        check(&|c| c.cursors = 1, "cursors");
        check(&|c| c.refresh_ms = 0, "refresh_ms");
        let fixed = |c: &mut KafkaConfig| {
            c.properties.0.insert("group.id".into(), "x".into());
        };
        check(&fixed, "properties");
        let mapped = |c: &mut KafkaConfig| {
            let mapping = Mapping { kind: "field:".into(), ..Mapping::default() };
            c.json.insert("t".into(), mapping);
        };
        check(&mapped, "json.t.type");
    }
}
