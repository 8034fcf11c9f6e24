//! Creates clients of the Kafka library, with their settings, logging and tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientContext, Timestamp as RecordTime};

use crate::config::KafkaConfig;

/// The time after which a request to the broker fails.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// How long a client is polled so that it can request a token.
const TOKEN_WAIT: Duration = Duration::from_millis(10);
/// How long a token without an expiry time is used, in milliseconds.
const TOKEN_MS: i64 = 300_000;

/// The newest fault that any of the clients has reported.
#[derive(Default)]
pub(crate) struct ClientReport {
    /// The text of the fault.
    last: Mutex<Option<String>>,
}

impl ClientReport {
    /// Returns why the broker cannot be reached, if a client has reported a fault.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    pub(crate) fn clear(&self) {
        *self.last.lock() = None;
    }
}

/// The context that every client has.
#[derive(Clone)]
pub(crate) struct Context {
    report: Arc<ClientReport>,
    token_file: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(config: &KafkaConfig, report: Arc<ClientReport>) -> Self {
        Self { report, token_file: config.oauth_token_file.clone() }
    }

    /// Returns the newest fault that any of the clients has reported.
    pub(crate) fn report(&self) -> &ClientReport {
        &self.report
    }

    /// Stores a fault that a client reports, and logs it.
    pub(crate) fn record_error(&self, error: &KafkaError, reason: &str) {
        // Reaching the end of a partition is not a fault.
        if matches!(error, KafkaError::PartitionEOF(_)) {
            return;
        }
        tracing::debug!(%error, reason, "kafka client");
        *self.report.last.lock() = Some(reason.to_owned());
    }

    /// Reads the token from the configured file.
    pub(crate) fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let path = self.token_file.as_ref().ok_or("`log.kafka.oauth_token_file` is not set")?;
        let token = std::fs::read_to_string(path)
            .map_err(|error| format!("`{}`: {error}", path.display()))?;
        Ok(parse_token(token.trim()))
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.record_error(&error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token()
    }
}

impl ConsumerContext for Context {}

/// The context of a producer: the context that every client has, and a receiver for the broker's
/// answers about records. Each kind of producer implements [`rdkafka::producer::ProducerContext`]
/// for its own `Outcomes`.
pub(crate) struct DeliveryContext<Outcomes> {
    base: Context,
    pub(crate) outcomes: Outcomes,
}

impl<Outcomes> DeliveryContext<Outcomes> {
    pub(crate) fn new(base: &Context, outcomes: Outcomes) -> Self {
        Self { base: base.clone(), outcomes }
    }
}

impl<Outcomes: Send + Sync> ClientContext for DeliveryContext<Outcomes> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.base.generate_oauth_token(config)
    }
}

/// Logs a message of the library, almost always at debug level. For faults that an operator must
/// know, Lantern logs a message of its own.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, ?level, "{message}"),
    }
}

/// Reads principal and expiry time from a JWT, with defaults if they are missing. It does not
/// verify the token; the broker does.
fn parse_token(token: &str) -> OAuthToken {
    let claims = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims: serde_json::Value =
        claims.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    OAuthToken {
        token: token.to_owned(),
        principal_name: claims["sub"].as_str().unwrap_or("lantern").to_owned(),
        lifetime_ms: claims["exp"].as_i64().map_or(now_ms + TOKEN_MS, |s| s.saturating_mul(1_000)),
    }
}

/// Returns the settings that all clients share.
pub(crate) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.servers)
        .set("client.id", "lantern")
        .set("allow.auto.create.topics", "false")
        // A client should connect soon after a broker is available again.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", "10000");
    client.set_log_level(RDKafkaLogLevel::Notice);
    client
}

/// Adds the settings of librdkafka that the operator has configured.
pub(crate) fn apply_properties(config: &KafkaConfig, client: &mut ClientConfig) {
    for (name, value) in &config.properties.0 {
        client.set(name, value);
    }
}

/// Creates a consumer that does nothing by itself: this program assigns its partitions, and asks it
/// to commit offsets.
pub(crate) fn consumer(
    config: &KafkaConfig,
    group: &str,
    prefetch_bytes: usize,
    context: &Context,
) -> KafkaResult<BaseConsumer<Context>> {
    consumer_with(config, group, prefetch_bytes, context, &[])
}

/// Creates a consumer like [`consumer`], with the additional settings `more`, which replace
/// configured settings.
pub(crate) fn consumer_with(
    config: &KafkaConfig,
    group: &str,
    prefetch_bytes: usize,
    context: &Context,
    more: &[(&str, &str)],
) -> KafkaResult<BaseConsumer<Context>> {
    let mut client = base(config);
    client
        .set("isolation.level", "read_committed")
        .set("check.crcs", "false")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", (prefetch_bytes >> 10).max(64).to_string())
        .set("fetch.message.max.bytes", prefetch_bytes.clamp(64 << 10, 1 << 20).to_string());
    apply_properties(config, &mut client);
    for (name, value) in more {
        client.set(*name, *value);
    }
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error");
    let client: BaseConsumer<Context> = client.create_with_context(context.clone())?;
    poll_for_token(config, |timeout| drop(client.poll(timeout)));
    Ok(client)
}

/// Calls `poll`, so that a client can request its token. The library requests the token of a client
/// only while the client is polled. A client that is not polled for records needs this call after
/// it is created and before each use.
pub(crate) fn poll_for_token(config: &KafkaConfig, poll: impl FnOnce(Duration)) {
    if shows_tokens(config) {
        poll(TOKEN_WAIT);
    }
}

/// Returns whether clients authenticate with tokens.
pub(crate) fn shows_tokens(config: &KafkaConfig) -> bool {
    let mechanism = ["sasl.mechanism", "sasl.mechanisms"];
    let mut mechanism = mechanism.iter().filter_map(|name| config.properties.0.get(*name));
    mechanism.any(|mechanism| mechanism == "OAUTHBEARER")
}

/// Returns whether the error is that a topic or partition does not exist.
pub(crate) fn is_gone(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId
    )
}

/// Returns the timestamp of a record; 1970 if it has none.
pub(crate) fn time_of(time: RecordTime) -> lantern_core::Timestamp {
    lantern_core::Timestamp(time.to_millis().unwrap_or(0).max(0).saturating_mul(1_000))
}

/// Returns the time at which the broker appended a record. If the record's producer set the time,
/// the result is [`lantern_core::Timestamp::MIN`], because a producer can set any time.
pub(crate) fn append_time(time: RecordTime) -> lantern_core::Timestamp {
    match time {
        RecordTime::LogAppendTime(ms) if ms > 0 => time_of(time),
        _ => lantern_core::Timestamp::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is_and_when_it_ends() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"svc","exp":1900000000}"#);
        let token = parse_token(&format!("e30.{claims}.x"));
        assert_eq!((token.principal_name.as_str(), token.lifetime_ms), ("svc", 1_900_000_000_000));
        assert_eq!(parse_token("opaque").principal_name, "lantern");
    }
}
