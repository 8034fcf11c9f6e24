//! Determines which records a topic accepts. It reads the settings of the topic from the broker. It
//! also distinguishes failures that the record itself causes from all other failures.
//!
//! Whether a record is refused permanently must not depend on the records that are sent with it. A
//! topic limits the size of *batches* of records. The producer builds batches below this limit, so
//! a batch exceeds it only if a single record does.

use std::collections::HashMap;

use lantern_core::{EventRef, RejectedEvent};
use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, Headers, Message};

use crate::client::{ANSWER, Context, apply_properties, base, shows_tokens};
use crate::config::KafkaConfig;
use crate::record::last;
use crate::record_encoding;
use crate::topics::block_on;

/// The number of bytes of a batch with a single record, without the record.
const BATCH_BYTES: usize = 61;
/// The maximum size of a batch that a producer builds, in bytes.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// The maximum number of characters of an id or a source that a message quotes.
const QUOTE_CHARS_MAX: usize = 80;

/// The known settings of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicSettings {
    /// The maximum size of a batch that the topic accepts, in bytes.
    pub(crate) batch_bytes_max: Option<usize>,
    /// Whether the broker sets the time of each record to its append time.
    pub(crate) log_append_time: Option<bool>,
    /// Whether the topic is compacted. If so, it accepts only records with a key.
    pub(crate) compacted: bool,
}

/// Queries the settings of topics from the broker.
pub(crate) struct SettingsClient {
    admin: AdminClient<Context>,
    topics: Vec<String>,
}

impl SettingsClient {
    /// Creates the client. Returns `None` with OAUTHBEARER, because this client cannot get a token.
    pub(crate) fn new(config: &KafkaConfig, context: &Context) -> KafkaResult<Option<Self>> {
        if shows_tokens(config) {
            return Ok(None);
        }
        let mut client = base(config);
        apply_properties(config, &mut client);
        let admin = client.create_with_context(context.clone())?;
        let mut topics = config.topics.clone();
        topics.push(config.emit_topic().to_owned());
        topics.dedup();
        Ok(Some(Self { admin, topics }))
    }

    /// Queries the settings of those topics whose configuration this client may read. The call
    /// blocks.
    pub(crate) fn ask(&self) -> KafkaResult<HashMap<String, TopicSettings>> {
        let topics: Vec<_> =
            self.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let answers = block_on(self.admin.describe_configs(&topics, &options))?;
        let known = answers.into_iter().filter_map(|answer| {
            let answer = answer.ok()?;
            let OwnedResourceSpecifier::Topic(topic) = answer.specifier else { return None };
            let found = answer.entries;
            let value = |name: &str| {
                found
                    .iter()
                    .find(|entry| entry.name == name)
                    .and_then(|entry| entry.value.as_deref())
            };
            let settings = TopicSettings {
                batch_bytes_max: value("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
                log_append_time: value("message.timestamp.type")
                    .map(|kind| kind == "LogAppendTime"),
                compacted: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            };
            Some((topic, settings))
        });
        Ok(known.collect())
    }
}

/// How a producer puts records into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batching {
    bytes_max: usize,
    /// Whether each record is sent in a batch of its own.
    alone: bool,
}

impl Batching {
    /// Returns the batches that `settings` allow.
    pub(crate) fn within(settings: &TopicSettings, alone: bool) -> Self {
        // Some room is left for bytes that the client library does not count.
        let limit = settings.batch_bytes_max.map_or(BATCH_BYTES_MAX, |max| max / 8 * 7);
        Self { bytes_max: limit.clamp(1, BATCH_BYTES_MAX), alone }
    }

    /// Sets the limits in `client`. If a smaller size of batches is configured, it is kept.
    pub(crate) fn set(self, client: &mut ClientConfig) {
        let set: usize =
            client.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(usize::MAX);
        client.set("batch.size", self.bytes_max.min(set).to_string());
        if self.alone {
            client.set("batch.num.messages", "1");
        }
    }

    /// Returns whether a record of `bytes` bytes is always sent in a batch of its own.
    pub(crate) fn is_alone(self, bytes: usize) -> bool {
        self.alone || bytes >= self.bytes_max
    }
}

/// A record that was not delivered to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Undelivered {
    pub(crate) code: Option<RDKafkaErrorCode>,
    pub(crate) error: String,
    /// The id and the source of the event, for messages.
    pub(crate) event: String,
    pub(crate) bytes: usize,
}

impl Undelivered {
    pub(crate) fn new(
        error: &KafkaError,
        message: &impl Message<Headers = BorrowedHeaders>,
    ) -> Self {
        let headers = message.headers();
        let text = |name: &str| {
            String::from_utf8_lossy(last(&headers, name).unwrap_or_default()).into_owned()
        };
        let of_headers = headers.iter().flat_map(|headers| headers.iter());
        let of_headers =
            of_headers.map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len));
        let own = [message.key(), message.payload()].map(|part| part.map_or(0, <[u8]>::len));
        let bytes = own.iter().sum::<usize>() + of_headers.sum::<usize>();
        Self {
            code: error.rdkafka_error_code(),
            error: error.to_string(),
            event: name(&text("ce_id"), &text("ce_source")),
            bytes: bytes + BATCH_BYTES,
        }
    }
}

/// Why a record was not delivered.
#[derive(Clone, Debug)]
pub(crate) enum RecordFailure {
    /// The record itself is the reason, and sending it again cannot succeed.
    Rejected(RejectedEvent),
    /// A batch was too large, perhaps because of other records in it. Later records are sent one by
    /// one.
    Together,
    /// There is another reason: the broker, the network, or something that an operator must
    /// correct, such as access rules or a deleted topic.
    Unavailable(String),
}

/// Decides why a record was not delivered to `topic`, whose settings are `settings`.
///
/// The record itself causes only two failures: it is too large, or the topic refuses it as invalid.
/// All others have another cause:
///
/// * The clock of this machine causes a timestamp outside of the topic's bounds.
/// * An operator must correct access rules and unknown topics.
/// * A record that was in a batch with an invalid one is sent again.
pub(crate) fn verdict(
    undelivered: &Undelivered,
    topic: &str,
    settings: &TopicSettings,
    batching: Batching,
) -> RecordFailure {
    let event = undelivered.event.clone();
    match undelivered.code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            let bytes = undelivered.bytes;
            let fits = settings.batch_bytes_max.is_none_or(|max| bytes <= max);
            if fits && !batching.is_alone(bytes) {
                return RecordFailure::Together;
            }
            let limit = limit(topic, settings.batch_bytes_max.filter(|_| !fits));
            RecordFailure::Rejected(RejectedEvent::TooLarge { event, bytes, limit })
        }
        Some(RDKafkaErrorCode::InvalidRecord) => {
            let reason = format!("topic `{topic}` refuses its record: {}", undelivered.error);
            RecordFailure::Rejected(RejectedEvent::Refused { event, reason })
        }
        _ => RecordFailure::Unavailable(undelivered.error.clone()),
    }
}

/// Checks all events of a request before the first one is sent. If one of them cannot be sent, none
/// is sent.
pub(crate) struct EventCheck<'a> {
    config: &'a KafkaConfig,
    topic: &'a str,
    compacted: bool,
    bytes_max: usize,
}

impl<'a> EventCheck<'a> {
    pub(crate) fn new(config: &'a KafkaConfig, topic: &'a str, settings: &TopicSettings) -> Self {
        // A compressed record may be smaller than its event. So only the broker can decide.
        let limit = settings.batch_bytes_max.filter(|_| !compresses(config));
        let bytes_max = limit.unwrap_or(usize::MAX);
        Self { config, topic, compacted: settings.compacted, bytes_max }
    }

    pub(crate) fn event(&self, event: &EventRef<'_>) -> Result<(), RejectedEvent> {
        let bytes = bytes_at_least(event);
        let named = || name(event.id, event.source);
        if bytes > self.bytes_max {
            let limit = limit(self.topic, Some(self.bytes_max));
            return Err(RejectedEvent::TooLarge { event: named(), bytes, limit });
        }
        if self.compacted && record_encoding::key(event, self.config.key).is_none() {
            let reason = format!(
                "topic `{}` is compacted and accepts only records with a key, but the event has none (`log.kafka.key`)",
                self.topic
            );
            return Err(RejectedEvent::Refused { event: named(), reason });
        }
        Ok(())
    }

    /// Returns the first of `events` that cannot be sent, with its index and the reason.
    pub(crate) fn first<'e>(
        &self,
        mut events: impl Iterator<Item = (usize, EventRef<'e>)>,
    ) -> Option<(usize, RejectedEvent)> {
        events.find_map(|(index, event)| Some((index, self.event(&event).err()?)))
    }
}

/// Returns why the client library itself refuses `event` permanently; `None` if it does not.
pub(crate) fn refused_here(event: &EventRef<'_>, error: &KafkaError) -> Option<RejectedEvent> {
    let too_large = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
    too_large.then(|| RejectedEvent::TooLarge {
        event: name(event.id, event.source),
        bytes: bytes_at_least(event),
        limit: "the client accepts at most `message.max.bytes` of `log.kafka.properties`, which is 16 MiB if it is not set".into(),
    })
}

/// Returns the minimum size of a record for `event`, in bytes.
fn bytes_at_least(event: &EventRef<'_>) -> usize {
    let attributes = [event.id, event.source, event.kind, event.subject, event.tenant];
    attributes.iter().map(|text| text.len()).sum::<usize>() + event.data.len() + BATCH_BYTES
}

fn compresses(config: &KafkaConfig) -> bool {
    let set = ["compression.codec", "compression.type"];
    let mut set = set.iter().filter_map(|name| config.properties.0.get(*name));
    set.any(|codec| codec != "none")
}

fn limit(topic: &str, max: Option<usize>) -> String {
    match max {
        Some(max) => format!("topic `{topic}` accepts at most {max} (`max.message.bytes`)"),
        None => format!("that is more than topic `{topic}` accepts (`max.message.bytes`)"),
    }
}

fn name(id: &str, source: &str) -> String {
    let short = |text: &str| {
        text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect::<String>()
    };
    format!("`{}` of `{}`", short(id), short(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max: Option<usize>) -> TopicSettings {
        TopicSettings { batch_bytes_max: max, ..TopicSettings::default() }
    }

    fn undelivered(code: RDKafkaErrorCode, bytes: usize) -> Undelivered {
        let error = KafkaError::MessageProduction(code).to_string();
        Undelivered { code: Some(code), error, event: "`1` of `/s`".into(), bytes }
    }

    #[test]
    fn each_failure_of_a_record_is_classified() {
        use RDKafkaErrorCode as Code;
        for (code, bytes, max, alone, expected) in [
            (Code::MessageSizeTooLarge, 2_000, Some(1_000), false, "rejected"),
            (Code::MessageSizeTooLarge, 500, Some(1_000), false, "together"),
            (Code::MessageSizeTooLarge, 900, Some(1_000), false, "rejected"),
            (Code::MessageSizeTooLarge, 500, Some(1_000), true, "rejected"),
            (Code::MessageSizeTooLarge, 500, None, false, "together"),
            (Code::MessageSizeTooLarge, 600 << 10, None, false, "rejected"),
            (Code::InvalidRecord, 1, None, false, "rejected"),
            (Code::InvalidDifferentRecord, 1, None, false, "unavailable"),
            (Code::InvalidTimestamp, 1, None, false, "unavailable"),
            (Code::TopicAuthorizationFailed, 1, None, false, "unavailable"),
            (Code::ClusterAuthorizationFailed, 1, None, false, "unavailable"),
            (Code::UnknownTopicOrPartition, 1, None, false, "unavailable"),
            (Code::PolicyViolation, 1, None, false, "unavailable"),
            (Code::MessageTimedOut, 1, None, false, "unavailable"),
        ] {
            let settings = settings(max);
            let batching = Batching::within(&settings, alone);
            let found = match verdict(&undelivered(code, bytes), "t", &settings, batching) {
                RecordFailure::Rejected(_) => "rejected",
                RecordFailure::Together => "together",
                RecordFailure::Unavailable(_) => "unavailable",
            };
            assert_eq!(found, expected, "{code:?} {bytes} {max:?} {alone}");
        }
    }

    #[test]
    fn an_event_that_cannot_fit_is_named_with_the_limit_before_anything_is_sent() {
        let mut config = KafkaConfig { topics: vec!["t".into()], ..KafkaConfig::default() };
        let big =
            EventRef { id: "b\u{1b}", source: "/s", data: &[0; 2_000], ..EventRef::default() };
        let small = EventRef { id: "a", source: "/s", ..EventRef::default() };
        let first = |config: &KafkaConfig, settings: &TopicSettings| {
            EventCheck::new(config, "t", settings).first([small, big].into_iter().enumerate())
        };
        let (index, reason) = first(&config, &settings(Some(1_000))).expect("too large");
        let reason = reason.to_string();
        assert_eq!(index, 1);
        assert!(reason.contains("1000 (`max.message.bytes`)"), "{reason}");
        assert!(reason.contains("`b\\u{1b}` of `/s`"), "{reason}");
        assert_eq!(first(&config, &settings(None)), None);
        assert_eq!(first(&config, &settings(Some(3_000))), None);
        let compacted = TopicSettings { compacted: true, ..settings(None) };
        let (index, reason) = first(&config, &compacted).expect("no key");
        assert_eq!(index, 0);
        assert!(reason.to_string().contains("compacted"), "{reason}");
        config.properties.0.insert("compression.codec".into(), "zstd".into());
        assert_eq!(first(&config, &settings(Some(1_000))), None);
    }

    #[test]
    fn batches_stay_below_the_topics_limit() {
        let mut client = ClientConfig::new();
        Batching::within(&settings(Some(10_000)), false).set(&mut client);
        assert_eq!(client.get("batch.size"), Some("8750"));
        assert_eq!(client.get("batch.num.messages"), None);
        client.set("batch.size", "100");
        Batching::within(&settings(None), true).set(&mut client);
        assert_eq!(client.get("batch.size"), Some("100"));
        assert_eq!(client.get("batch.num.messages"), Some("1"));
    }
}
