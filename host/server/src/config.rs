//! Combines all settings, in one struct. The doc comments are the reference.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Value;
use lantern_engine::EngineConfig;
use lantern_live::LiveConfig;
use lantern_log::LogConfig;
use lantern_plugin::PluginConfig;
use lantern_query::QueryConfig;
use lantern_store::StoreConfig;
use lantern_traces::TracingConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cloudevents::EventLimits;
use crate::config_error::ConfigError;
use crate::wiring::kafka::{self, KafkaSettings};

/// The file that is read if no other is named; it may be missing.
pub const FILE: &str = "lantern.toml";
/// The prefix of environment variables. Two underscores separate a section from its
/// key: `LANTERN_HTTP__LISTEN`.
pub const ENV_PREFIX: &str = "LANTERN_";

/// The server's settings: the defaults, then `lantern.toml`, then the environment, then
/// flags; each overrides those before it. An unknown key is an error.
// Long because each field is a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The folder in which the server stores everything. Default `data`.
    pub data: PathBuf,
    /// The HTTP API.
    pub http: HttpConfig,
    /// Incoming events.
    pub ingest: IngestConfig,
    /// Periodic work.
    pub upkeep: UpkeepConfig,
    /// Folding the log again, to compare the result with the tables.
    pub verify: VerifyConfig,
    /// Folding the log again for a request: the explanation of a row, or the dry run of an
    /// upload.
    pub replay: ReplayConfig,
    /// The embedded log.
    pub log: LogConfig,
    /// The log on Kafka topics: section `log.kafka`.
    #[serde(skip)]
    pub kafka: KafkaSettings,
    /// The state of projections.
    pub store: StoreConfig,
    /// The limits of plugins.
    pub plugin: PluginConfig,
    /// How projections fold the log.
    pub engine: EngineConfig,
    /// The feed.
    pub live: LiveConfig,
    /// Queries of tables.
    pub query: QueryConfig,
    /// Boards of dashboards.
    pub boards: BoardsConfig,
    /// Traces of events, which are sent to a collector.
    pub tracing: TracingConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data: "data".into(),
            http: HttpConfig::default(),
            ingest: IngestConfig::default(),
            upkeep: UpkeepConfig::default(),
            verify: VerifyConfig::default(),
            replay: ReplayConfig::default(),
            log: LogConfig::default(),
            kafka: KafkaSettings::default(),
            store: StoreConfig::default(),
            plugin: PluginConfig::default(),
            engine: EngineConfig::default(),
            live: LiveConfig::default(),
            query: QueryConfig::default(),
            boards: BoardsConfig::default(),
            tracing: TracingConfig::default(),
        }
    }
}

/// Section `http`.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where to listen; port 0 selects a free port. Without authentication it must be a
    /// loopback address. Default `127.0.0.1:7420`.
    pub listen: SocketAddr,
    /// Names under which clients may call the server, in addition to `localhost` and
    /// loopback addresses: the value of their `Host` header, without the port. If a
    /// proxy is in front of the server, its name is needed here.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call the server, in addition to its own:
    /// `https://dashboards.example`.
    pub origins: Vec<String>,
    /// The largest body of a request, in bytes; NDJSON may be of any length.
    /// Default 16 MiB.
    pub body_bytes_max: usize,
    /// The maximum number of large bodies in memory at a time: those above 64 KiB, and
    /// those with `Content-Encoding`. Further ones wait, at most `body_idle_ms_max`.
    /// Together with `body_bytes_max` this limits the memory for bodies. Default 32.
    pub bodies_max: usize,
    /// The maximum ratio of unpacked to packed bytes of a body with `Content-Encoding`. It
    /// applies only to bodies that unpack to more than `body_bytes_max`. Default 1,000.
    pub unpack_ratio_max: u64,
    /// The largest upload of a plugin, with its parameters, in bytes. The
    /// plugin host has a limit of its own. Default 36 MiB.
    pub upload_bytes_max: usize,
    /// The maximum number of connections at a time. Connections to the feed do not count;
    /// the section `live` limits them. Each connection may hold a group of lines and an
    /// unfinished line in memory. Default 1,024.
    pub connections_max: usize,
    /// Connections beyond `connections_max` that are accepted for health, metrics and
    /// the administration of projections; other requests on them get 503. Further
    /// connections wait to be accepted. Default 32.
    pub connections_reserved: usize,
    /// How long a client may take to send a request's headers, in milliseconds: from their
    /// first byte or, for the first request of a connection, from the start of the
    /// connection. Default 10,000.
    pub headers_ms_max: u64,
    /// How long a connection may be idle between two requests, in milliseconds.
    /// Default 75,000.
    pub idle_ms_max: u64,
    /// How long a client may pause in the middle of a body, in milliseconds. Default
    /// 60,000.
    pub body_idle_ms_max: u64,
    /// Reads of tables and of the log at a time; more reads wait. Default 16.
    pub queries_max: usize,
    /// The maximum number of rows or events in one answer. Default 10,000.
    pub query_rows_max: usize,
    /// After this many bytes of rows or events an answer ends and contains a cursor.
    /// Default 8 MiB.
    pub query_bytes_max: usize,
    /// The longest `wait=`, in seconds. Default 30.
    pub wait_s_max: u64,
    /// How long requests in progress may continue when the server shuts down, in
    /// milliseconds. Default 5,000.
    pub shutdown_ms_max: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            hosts: Vec::new(),
            origins: Vec::new(),
            body_bytes_max: 16 << 20,
            bodies_max: 32,
            unpack_ratio_max: 1_000,
            upload_bytes_max: 36 << 20,
            connections_max: 1_024,
            connections_reserved: 32,
            headers_ms_max: 10_000,
            idle_ms_max: 75_000,
            body_idle_ms_max: 60_000,
            queries_max: 16,
            query_rows_max: 10_000,
            query_bytes_max: 8 << 20,
            wait_s_max: 30,
            shutdown_ms_max: 5_000,
        }
    }
}

/// Section `ingest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The largest event, all attributes and the payload together, in bytes.
    /// Default 1 MiB.
    pub event_bytes_max: usize,
    /// How deep an event's JSON may be nested. Default 64.
    pub json_depth_max: usize,
    /// How far ahead of the server's clock an event's time may be, in seconds. An event
    /// further in the future would move the watermark too far, so it is refused. Default
    /// 86,400.
    pub time_ahead_s_max: u64,
    /// NDJSON is appended in groups of about this many bytes; each group is appended
    /// completely or not at all. Default 256 KiB.
    pub group_bytes: usize,
    /// The number of groups of one request that may wait to become durable; if there
    /// are more, the server stops reading the body. Default 8.
    pub groups_max: usize,
    /// How long a line of NDJSON waits for others to be appended with it, in
    /// milliseconds. Default 5.
    pub linger_ms: u64,
    /// The maximum number of invalid events that an answer names one by one. Default
    /// 100.
    pub errors_max: usize,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let limits = EventLimits::default();
        Self {
            event_bytes_max: limits.event_bytes_max,
            json_depth_max: limits.json_depth_max,
            time_ahead_s_max: limits.time_ahead_s_max,
            group_bytes: 256 << 10,
            groups_max: 8,
            linger_ms: 5,
            errors_max: 100,
        }
    }
}

impl IngestConfig {
    /// Returns the limits of an event.
    #[must_use]
    pub fn limits(&self) -> EventLimits {
        EventLimits {
            event_bytes_max: self.event_bytes_max,
            json_depth_max: self.json_depth_max,
            time_ahead_s_max: self.time_ahead_s_max,
        }
    }
}

/// Section `upkeep`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepConfig {
    /// How often retention deletes old events from the log, in seconds. Events that a
    /// version has not folded yet are kept, also while it is paused or halted. Default
    /// 30.
    pub retention_s: u64,
    /// Whether event time advances while no events arrive, so that windows close.
    /// Default true.
    pub heartbeats: bool,
    /// A partition that has had no event for this time gets a heartbeat, and at most one
    /// heartbeat in this time, in milliseconds. Default 1,000.
    pub idle_ms: u64,
    /// The plugin instance of a projection that has had no event for this time is dropped
    /// with its memory, in seconds. The next event creates a new instance. Default 10.
    pub instance_idle_s: u64,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self { retention_s: 30, heartbeats: true, idle_ms: 1_000, instance_idle_s: 10 }
    }
}

/// Section `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyConfig {
    /// How often every active version is folded again and compared with its tables, in
    /// hours, counted from the server's start; 0 means never. A run reads the whole log
    /// and needs as much disk as the largest shard's state. If the last run of a
    /// projection took more than a tenth of this time, the projection is skipped, and
    /// the server logs this. `lantern verify` does the same at any time. Default 24.
    pub every_hours: u64,
    /// The maximum share of one thread that a verification may use, in percent. Default 25.
    pub thread_percent: u32,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self { every_hours: 24, thread_percent: 25 }
    }
}

/// Section `replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// How many requests may fold the log again at a time; further ones get 503.
    /// Default 1.
    pub at_once_max: usize,
    /// The maximum number of events that one request folds. Default 20,000,000.
    pub events_max: u64,
    /// The longest time of one request, in seconds. Default 300.
    pub time_s_max: u64,
    /// The maximum share of one thread that a request may use, in percent. Default 50.
    pub thread_percent: u32,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { at_once_max: 1, events_max: 20_000_000, time_s_max: 300, thread_percent: 50 }
    }
}

/// Section `boards`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoardsConfig {
    /// The most boards (`/v1/boards`). Default 500.
    pub count_max: usize,
    /// The largest document of a board, in bytes. Default 256 KiB.
    pub bytes_max: usize,
}

impl Default for BoardsConfig {
    fn default() -> Self {
        Self { count_max: 500, bytes_max: 256 << 10 }
    }
}

impl ServerConfig {
    /// Combines the settings of all places. `file` must exist; if it is `None`, [`FILE`] is
    /// read if that file exists. `flags` are dotted keys with TOML values (`http.listen`,
    /// `127.0.0.1:0`); text needs no quotes.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] that names the key, its value and the place that sets it.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        if let Some(path) = file
            && !path.is_file()
        {
            return Err(ConfigError(format!("there is no file `{}`", path.display())));
        }
        let path = file.unwrap_or(Path::new(FILE));
        // A variable without a section, such as `LANTERN_SERVER`, is an option of a command and
        // not a setting. The exception is `LANTERN_DATA`: the key `data` is in no section.
        let env = Env::prefixed(ENV_PREFIX)
            .filter(|key| key == "data" || key.as_str().contains("__"))
            .split("__");
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        // figment requires a file that is given by its exact name to exist.
        if path.is_file() {
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment.merge(env);
        for (key, text) in flags {
            let value = Value::from_str(text).unwrap_or_else(|never| match never {});
            figment = figment.merge((key.as_str(), value));
        }
        Self::of(&figment)
    }

    /// Returns the settings in the text of a file, combined only with the defaults.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] that names the key and its value.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::of(&Figment::from(Serialized::defaults(Self::default())).merge(Toml::string(text)))
    }

    fn of(figment: &Figment) -> Result<Self, ConfigError> {
        let mut config: Self = figment.extract()?;
        config.kafka = kafka::settings_of(figment)?;
        config.check()?;
        Ok(config)
    }

    /// Checks the rules that types cannot express.
    ///
    /// # Errors
    /// Returns the first setting that is out of bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, value: u64, least: u64| {
            ConfigError(format!("`{key}` is {value}; it must be at least {least}"))
        };
        for (key, value, least) in [
            ("http.body_bytes_max", self.http.body_bytes_max, 1_024),
            ("http.bodies_max", self.http.bodies_max, 1),
            ("http.connections_max", self.http.connections_max, 1),
            ("http.queries_max", self.http.queries_max, 1),
            ("http.query_rows_max", self.http.query_rows_max, 1),
            ("http.query_bytes_max", self.http.query_bytes_max, 1_024),
            ("ingest.event_bytes_max", self.ingest.event_bytes_max, 1_024),
            ("ingest.group_bytes", self.ingest.group_bytes, 1_024),
            ("ingest.groups_max", self.ingest.groups_max, 1),
            ("replay.at_once_max", self.replay.at_once_max, 1),
        ] {
            if value < least {
                return Err(bad(key, value as u64, least as u64));
            }
        }
        for (key, value, least) in [
            ("http.headers_ms_max", self.http.headers_ms_max, 1),
            ("http.idle_ms_max", self.http.idle_ms_max, 1),
            ("http.unpack_ratio_max", self.http.unpack_ratio_max, 1),
            ("http.body_idle_ms_max", self.http.body_idle_ms_max, 1),
            ("upkeep.retention_s", self.upkeep.retention_s, 1),
            ("upkeep.idle_ms", self.upkeep.idle_ms, 10),
            ("replay.events_max", self.replay.events_max, 1),
            ("replay.time_s_max", self.replay.time_s_max, 1),
        ] {
            if value < least {
                return Err(bad(key, value, least));
            }
        }
        for (section, percent) in
            [("verify", self.verify.thread_percent), ("replay", self.replay.thread_percent)]
        {
            if !(1..=100).contains(&percent) {
                return Err(ConfigError(format!(
                    "`{section}.thread_percent` is {percent}; it must be 1 to 100"
                )));
            }
        }
        kafka::check(&self.kafka)?;
        self.live.check().map_err(|e| ConfigError(format!("in section `live`: {e}")))?;
        self.query.check().map_err(|e| ConfigError(format!("in section `query`: {e}")))?;
        self.tracing.check().map_err(|e| ConfigError(format!("in section `tracing`: {e}")))?;
        self.log.check().map_err(|e| ConfigError(format!("in section `log`: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, flags: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.toml");
        std::fs::write(&file, toml).unwrap();
        let flags: Vec<_> =
            flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ServerConfig::load(Some(&file), &flags)
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let toml = "data = '/a'\n[http]\nlisten = '127.0.0.1:1'\nquery_rows_max = 5";
        let config = load(toml, &[("http.listen", "[::1]:2"), ("http.hosts", "[a, b]")]).unwrap();
        assert_eq!(config.data, PathBuf::from("/a"));
        assert_eq!(config.http.listen.to_string(), "[::1]:2");
        assert_eq!(config.http.hosts, ["a", "b"]);
        assert_eq!(config.http.query_rows_max, 5);
        assert_eq!(config.engine, EngineConfig::default());
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_is_wrong() {
        let check = |toml: &str, flags: &[(&str, &str)], words: &[&str]| {
            let message = load(toml, flags).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message} does not say {word}");
            }
        };
        check("[http]\nlisen = 'x'", &[], &["no setting `http.lisen`", "some.toml", "listen"]);
        check("lgo = 1", &[], &["no setting `lgo`"]);
        check("", &[("engine.thread", "1")], &["no setting `engine.thread` (a flag)", "threads"]);
        check("[http]\nlisten = 'somewhere'", &[], &["http.listen"]);
        check("[http]\nquery_rows_max = 'many'", &[], &["`http.query_rows_max` is", "many"]);
        check("[live]\nwindow = 0", &[], &["section `live`", "`window` is 0"]);
        check("", &[("verify.thread_percent", "0")], &["`verify.thread_percent` is 0"]);
        check("", &[("replay.thread_percent", "101")], &["`replay.thread_percent` is 101"]);
        let endpoint = [("tracing.otlp_endpoint", "localhost:4318")];
        check("", &endpoint, &["section `tracing`", "`otlp_endpoint` is `localhost:4318`"]);
        check("[tracing]\nsample_ratio = 2", &[], &["`sample_ratio` is 2; it must be 0 to 1"]);
        check("", &[("ingest.groups_max", "0")], &["`ingest.groups_max` is 0"]);
        check("[http", &[], &["some.toml"]);
        check("[log.kafka]\ntopic = 'x'", &[], &["no setting `log.kafka.topic`", "topics"]);
        check("[log.kafka]\ncursors = 'x'", &[], &["`log.kafka.cursors` is", "some.toml"]);
        check("", &[("log.kafka.cursors", "1")], &["section `log.kafka`", "`cursors` is `1`"]);
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        // The tests' own folder has none.
        assert!(!Path::new(FILE).exists());
        assert_eq!(ServerConfig::load(None, &[]).unwrap(), ServerConfig::default());
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let message = ServerConfig::load(Some(Path::new("/nowhere/x.toml")), &[]).unwrap_err();
        assert!(message.to_string().contains("no file `/nowhere/x.toml`"));
    }
}
