//! The server: HTTP API, feed, dashboard, metrics, and the code that connects log,
//! store, plugin host, engine and feed.
//!
//! It contains no rule about events, tables or versions: those are in the engine.
//! Nothing here blocks tokio's threads: code that uses a disk or a plugin runs on
//! blocking threads.

mod api;
mod codes;
mod config;
mod data;
#[cfg(feature = "kafka")]
mod dead_letters;
mod disk_probe;
pub mod doctor;
mod durations;
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod plugins;
mod ports;
mod problem;
mod process;
mod rows;
mod start;
mod telemetry;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;

pub use lantern_cloudevents as cloudevents;

pub use api::openapi;
pub use api::parked::ResendResult;
pub use codes::{CODES, Code, find as find_code};
pub use config::{
    ConfigError, ENV_PREFIX, FILE, HttpConfig, IngestConfig, ServerConfig, UpkeepConfig,
    VerifyConfig, kafka_address,
};
pub use durations::{DURATION_FORMS, parse_duration};
pub use problem::{Members, PROBLEM, Problem};
pub use start::{Server, StartError};
pub use telemetry::{LogFormat, TracingError, init_tracing};
