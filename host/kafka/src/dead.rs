//! Copies of parked events in a topic of their own, for whoever watches over
//! several systems in one place. What is parked stays parked: the copy is read by
//! nobody here.

use std::time::Duration;

use lantern_core::{ParkedKind, ParkedRecord, UNREADABLE_TYPE};
use parking_lot::Mutex;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::client::{Context, attend, base, pass};
use crate::config::KafkaConfig;
use crate::partitions::Place;
use crate::written;

/// How long the broker may take to have them.
const STEP: Duration = Duration::from_secs(15);

/// A parked event and where it was met.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The projection.
    pub projection: String,
    /// Its version.
    pub version: String,
    /// The partition, by its number here.
    pub partition: lantern_core::PartitionId,
    /// The event, and why it is parked.
    pub record: ParkedRecord,
}

/// Writes copies.
pub(crate) struct Mirror {
    producer: Mutex<BaseProducer<Copies>>,
    topic: String,
}

/// The producer's context: notes the first fault of a stretch.
struct Copies {
    base: Context,
    failed: Mutex<Option<KafkaError>>,
}

impl rdkafka::ClientContext for Copies {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        crate::client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.told(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<rdkafka::client::OAuthToken, Box<dyn std::error::Error>> {
        self.base.token()
    }
}

impl rdkafka::producer::ProducerContext for Copies {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().get_or_insert_with(|| error.clone());
        }
    }
}

impl Mirror {
    pub(crate) fn new(config: &KafkaConfig, topic: &str, context: &Context) -> KafkaResult<Self> {
        let mut client = base(config);
        client.set("partitioner", "murmur2_random").set("message.max.bytes", "16777216");
        pass(config, &mut client);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "15000");
        let copies = Copies { base: context.clone(), failed: Mutex::default() };
        let producer: BaseProducer<Copies> = client.create_with_context(copies)?;
        attend(config, |timeout| producer.poll(timeout));
        Ok(Self { producer: Mutex::new(producer), topic: topic.to_owned() })
    }

    /// Writes a copy of each, and waits until the broker has them.
    pub(crate) fn copy(
        &self,
        letters: &[DeadLetter],
        place_of: impl Fn(&DeadLetter) -> Option<Place>,
    ) -> KafkaResult<()> {
        let producer = self.producer.lock();
        *producer.client().context().failed.lock() = None;
        for letter in letters {
            let event = letter.record.event.as_ref();
            let headers = headers(letter, place_of(letter));
            let mut record: BaseRecord<'_, str, [u8]> =
                BaseRecord::to(&self.topic).payload(event.data).headers(headers);
            if !event.subject.is_empty() {
                record = record.key(event.subject);
            }
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(STEP)?;
        let failed = producer.client().context().failed.lock().take();
        failed.map_or(Ok(()), Err)
    }
}

/// What tells of a copy: the event's own headers, where it is an event, and why it
/// is parked.
fn headers(letter: &DeadLetter, place: Option<Place>) -> OwnedHeaders {
    let ParkedRecord { kind, offset, event, reason, attempts, .. } = &letter.record;
    let (offset, attempts) = (offset.to_string(), attempts.to_string());
    let topic = place.as_ref().map_or("", |place| &*place.topic);
    let partition = place.as_ref().map_or_else(String::new, |place| place.partition.to_string());
    let kind = match kind {
        ParkedKind::Event => "event",
        ParkedKind::Waiting => "waiting",
        ParkedKind::Timer(..) => "timer",
    };
    let more = [
        ("lantern_reason", reason.as_str()),
        ("lantern_projection", &letter.projection),
        ("lantern_version", &letter.version),
        ("lantern_topic", topic),
        ("lantern_partition", &partition),
        ("lantern_offset", &offset),
        ("lantern_kind", kind),
        ("lantern_attempts", &attempts),
    ];
    if event.kind != UNREADABLE_TYPE && kind != "timer" {
        return written::headers(&event.as_ref(), &more);
    }
    more.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(rdkafka::message::Header { key, value: Some(*value) })
    })
}
