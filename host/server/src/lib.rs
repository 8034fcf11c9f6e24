//! Implements the server: HTTP API, feed, dashboard, metrics, and the code that connects log,
//! store, plugin host, engine and feed.
//!
//! It contains no rules about events, tables or versions; these are in the engine. It does not
//! block tokio's threads: code that uses a disk or a plugin runs on blocking threads.

mod app;
mod append_health;
mod boards;
mod clock;
mod codes;
mod commits;
mod config;
mod config_error;
mod data;
mod disk_probe;
pub mod doctor;
mod dry_run;
mod durations;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod jobs;
mod log_services;
mod plugins;
mod problem;
mod process;
mod row_diff;
mod rows;
mod settings;
mod start_error;
mod telemetry;
#[cfg(test)]
mod tests;
pub mod wire;
mod wiring;

pub use lantern_cloudevents as cloudevents;

pub use self::http::openapi;
pub use codes::{CODES, Code, find as find_code};
pub use config::{
    ENV_PREFIX, FILE, HttpConfig, IngestConfig, ServerConfig, UpkeepConfig, VerifyConfig,
};
pub use config_error::ConfigError;
pub use durations::{DURATION_FORMS, parse_duration};
pub use problem::{PROBLEM, Problem};
pub use start_error::StartError;
pub use telemetry::{LogFormat, TracingError, init_tracing};
pub use wiring::Server;
pub use wiring::kafka::{KafkaSettings, kafka_address};
