//! Defines the settings of traces. Their doc comments are the source of the reference in
//! docs/config.md.

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The path that OTLP defines for traces.
const PATH: &str = "/v1/traces";

/// Section `tracing` of `lantern.toml`: traces of events, which are sent to a collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TracingConfig {
    /// The address of a collector that accepts OTLP over HTTP (protobuf), for example
    /// `http://127.0.0.1:4318`. The path `/v1/traces` is added if it is missing. Without an
    /// address no traces are recorded.
    pub otlp_endpoint: Option<String>,
    /// The name of this server in the collector (`service.name`). Default `lantern`.
    pub service_name: String,
    /// The share of requests with events that are recorded although the request has no
    /// `traceparent` and the event has none with the sampled flag, from 0 to 1. Default 0.
    pub sample_ratio: f64,
    /// The maximum number of spans per second. Further spans are dropped and counted.
    /// Default 1,000.
    pub spans_per_s_max: u32,
    /// The maximum number of spans that wait for the collector. Further spans are dropped
    /// and counted. Default 8,192.
    pub queue_spans_max: usize,
    /// The maximum number of spans in one request to the collector. Default 512.
    pub batch_spans_max: usize,
    /// How often spans are sent to the collector, in milliseconds. Default 1,000.
    pub export_ms: u64,
    /// How long the collector may take to answer, in milliseconds. Default 5,000.
    pub timeout_ms_max: u64,
    /// Events that were appended longer ago than this make no spans when a projection folds
    /// them, in seconds. So a rebuild does not record the whole log again. Default 300.
    pub event_age_s_max: u64,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            service_name: "lantern".into(),
            sample_ratio: 0.0,
            spans_per_s_max: 1_000,
            queue_spans_max: 8_192,
            batch_spans_max: 512,
            export_ms: 1_000,
            timeout_ms_max: 5_000,
            event_age_s_max: 300,
        }
    }
}

impl TracingConfig {
    /// Checks the settings for rules that their types cannot express.
    ///
    /// # Errors
    /// Returns a sentence that names the first setting that is out of bounds.
    pub fn check(&self) -> Result<(), String> {
        self.url()?;
        if self.service_name.trim().is_empty() {
            return Err("`service_name` is empty; it must be the name of this server".into());
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(format!("`sample_ratio` is {}; it must be 0 to 1", self.sample_ratio));
        }
        for (key, value) in [
            ("spans_per_s_max", u64::from(self.spans_per_s_max)),
            ("queue_spans_max", self.queue_spans_max as u64),
            ("batch_spans_max", self.batch_spans_max as u64),
            ("export_ms", self.export_ms),
            ("timeout_ms_max", self.timeout_ms_max),
            ("event_age_s_max", self.event_age_s_max),
        ] {
            if value < 1 {
                return Err(format!("`{key}` is {value}; it must be at least 1"));
            }
        }
        Ok(())
    }

    /// Returns the address to which spans are sent; `None` if no traces are recorded.
    pub(crate) fn url(&self) -> Result<Option<Url>, String> {
        let Some(text) = &self.otlp_endpoint else { return Ok(None) };
        let wrong = |why: &str| {
            format!(
                "`otlp_endpoint` is `{text}`: {why}; write the address of a collector, for example `http://127.0.0.1:4318`"
            )
        };
        let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err(wrong(
                    "the server has no TLS, so the collector must run on this machine or in its network and accept HTTP",
                ));
            }
            _ => return Err(wrong("it must begin with `http://`")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it must not contain a user name or a password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must end with the path"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let path = if path.ends_with(PATH) { path } else { path + PATH };
        url.set_path(&path);
        Ok(Some(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: &str) -> Result<String, String> {
        let config =
            TracingConfig { otlp_endpoint: Some(endpoint.into()), ..TracingConfig::default() };
        config.url().map(|url| url.map(String::from).unwrap_or_default())
    }

    #[test]
    fn the_path_of_otlp_is_added_once() {
        for endpoint in [
            "http://c:4318",
            "http://c:4318/",
            "http://c:4318/v1/traces",
            "http://c:4318/v1/traces/",
        ] {
            assert_eq!(url(endpoint).unwrap(), "http://c:4318/v1/traces", "{endpoint}");
        }
        assert_eq!(url("http://c/otlp").unwrap(), "http://c/otlp/v1/traces");
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value() {
        for (endpoint, why) in [
            ("localhost:4318", "must begin with `http://`"),
            ("127.0.0.1:4318", "relative URL"),
            ("", "relative URL"),
            ("https://c:4318", "no TLS"),
            ("http://", "empty host"),
            ("http://c:4318?x=1", "end with the path"),
            ("http://a:b@c", "user name"),
            ("http://c:99999", "port"),
        ] {
            let error = url(endpoint).unwrap_err();
            assert!(error.contains(why) && error.contains(endpoint), "{endpoint}: {error}");
        }
        let default = TracingConfig::default();
        let wrong = [
            TracingConfig { sample_ratio: 1.5, ..default.clone() },
            TracingConfig { sample_ratio: f64::NAN, ..default.clone() },
            TracingConfig { queue_spans_max: 0, ..default.clone() },
            TracingConfig { service_name: " ".into(), ..default.clone() },
        ];
        for config in wrong {
            assert!(config.check().is_err(), "{config:?}");
        }
        assert_eq!(default.check(), Ok(()));
    }
}
