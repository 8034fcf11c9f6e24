//! Writes and reads dead letters: copies of parked events in a topic. They are for operators who
//! monitor several systems in one place. A copied event stays parked.
//!
//! To retry dead letters, Lantern reads from each copy only which event was parked (projection,
//! partition and offset). Then it retries that event.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use lantern_core::{
    DeadLetter, DeadLetterName, DeadLettersRead, ErrorCause, Event, LogError, Offset, ParkedKind,
    ParkedRecord, UNREADABLE_TYPE,
};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{
    ANSWER, Context, DeliveryContext, apply_properties, base, consumer, poll_for_token,
};
use crate::config::KafkaConfig;
use crate::partitions::TopicPartition;
use crate::shared::Shared;
use crate::{record, record_decoding, record_encoding, topics};

/// The time within which the broker must have stored the copies of one call.
const STEP: Duration = Duration::from_secs(15);

/// The name of the consumer group for retries, without the prefix. In each partition of the topic,
/// its offset is that of the first dead letter that was not read for a retry yet.
const GROUP: &str = "dead-letters";
/// The memory for dead letters that are fetched before they are needed, in bytes.
const PREFETCH_BYTES: usize = 4 << 20;
/// The maximum number of dead letters that are retried at a time.
const PAGE: usize = 1_000;
/// If the broker sends nothing for this time while dead letters are read, it counts as unavailable.
const SILENCE: Duration = Duration::from_secs(30);

/// Writes copies of parked events to the dead-letter topic.
pub(crate) struct DeadLetterWriter {
    producer: Mutex<BaseProducer<CopyContext>>,
    topic: String,
}

/// The context of the producer. It stores the first fault of a call of [`DeadLetterWriter::copy`].
type CopyContext = DeliveryContext<Mutex<Option<KafkaError>>>;

impl rdkafka::producer::ProducerContext for CopyContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.outcomes.lock().get_or_insert_with(|| error.clone());
        }
    }
}

impl DeadLetterWriter {
    pub(crate) fn new(config: &KafkaConfig, topic: &str, context: &Context) -> KafkaResult<Self> {
        let mut client = base(config);
        client.set("partitioner", "murmur2_random").set("message.max.bytes", "16777216");
        apply_properties(config, &mut client);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "15000");
        let copies = CopyContext::new(context, Mutex::default());
        let producer: BaseProducer<CopyContext> = client.create_with_context(copies)?;
        poll_for_token(config, |timeout| producer.poll(timeout));
        Ok(Self { producer: Mutex::new(producer), topic: topic.to_owned() })
    }

    /// Writes a copy of each dead letter, and waits until the broker has stored them.
    pub(crate) fn copy(
        &self,
        letters: &[DeadLetter],
        partition_of: impl Fn(&DeadLetter) -> Option<TopicPartition>,
    ) -> KafkaResult<()> {
        let producer = self.producer.lock();
        *producer.client().context().outcomes.lock() = None;
        for letter in letters {
            let event = letter.record.event.as_ref();
            let headers = headers(letter, partition_of(letter));
            let mut record: BaseRecord<'_, str, [u8]> =
                BaseRecord::to(&self.topic).payload(event.data).headers(headers);
            let key = key(&letter.record.event);
            if let Some(key) = &key {
                record = record.key(key);
            }
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(STEP)?;
        let failed = producer.client().context().outcomes.lock().take();
        failed.map_or(Ok(()), Err)
    }
}

/// Reads the dead letters of `topic` as [`lantern_core::DeadLetters::read_copies`] describes.
pub(crate) fn read_copies(
    shared: &Shared,
    context: &Context,
    topic: &str,
    from_beginning: bool,
    pass_on: &mut dyn FnMut(&[DeadLetterName]) -> ControlFlow<()>,
) -> Result<DeadLettersRead, LogError> {
    let failed = |error: KafkaError| LogError::Unavailable(ErrorCause::of(error));
    let group = format!("{}{GROUP}", shared.config.group_prefix);
    let consumer = consumer(&shared.config, &group, PREFETCH_BYTES, context).map_err(failed)?;
    let mut open = assign(&consumer, topic, from_beginning).map_err(failed)?;
    let mut counts = DeadLettersRead::default();
    let mut page = Vec::new();
    let mut last_message = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None if last_message.elapsed() >= SILENCE || shared.is_closed() => {
                return Err(LogError::Unavailable(
                    shared.unavailable_message(Some(last_message.elapsed())).into(),
                ));
            }
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = open.get(&partition) else { continue };
                if offset < *end {
                    counts.read += 1;
                    match name_of(shared, &message) {
                        Some(name) => page.push(name),
                        None => counts.foreign += 1,
                    }
                    consumer.store_offset(topic, partition, offset).map_err(failed)?;
                }
                if offset + 1 >= *end {
                    open.remove(&partition);
                }
            }
        }
        last_message = Instant::now();
        if page.len() >= PAGE || open.is_empty() {
            if pass_on(&page).is_break() {
                return Ok(counts);
            }
            page.clear();
            match consumer.commit_consumer_state(CommitMode::Sync) {
                // Nothing was read since the last commit, so there is nothing to commit.
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(counts)
}

/// Makes `consumer` begin at the committed offsets or, with `whole`, at the beginning. Returns the
/// ends of the partitions that have records to read.
fn assign(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    whole: bool,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let parts = topics::partitions(consumer, topic)?;
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for partition in &parts {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list.clone(), ANSWER)?;
    let mut from = TopicPartitionList::with_capacity(parts.len());
    let mut ends = BTreeMap::new();
    for partition in parts {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER)?;
        let known = committed.find_partition(topic, partition).map(|known| known.offset());
        let start = match known {
            Some(KafkaOffset::Offset(next)) if !whole => next.clamp(low, high),
            _ => low,
        };
        if start < high {
            from.add_partition_offset(topic, partition, KafkaOffset::Offset(start))?;
            ends.insert(partition, high);
        }
    }
    consumer.assign(&from)?;
    Ok(ends)
}

/// Reads from a dead letter which parked event it is a copy of.
fn name_of(
    shared: &Shared,
    message: &impl Message<Headers = BorrowedHeaders>,
) -> Option<DeadLetterName> {
    let headers = message.headers();
    let text = |name: &str| std::str::from_utf8(record::last(&headers, name)?).ok();
    let part = shared.part_at(text("lantern_topic")?, text("lantern_partition")?.parse().ok()?)?;
    Some(DeadLetterName {
        projection: text("lantern_projection")?.to_owned(),
        partition: part.id,
        offset: Offset(text("lantern_offset")?.parse().ok()?),
    })
}

/// Returns the key of a copy. It is the event's subject or, for an unreadable record, the record's
/// own key.
fn key(event: &Event) -> Option<String> {
    if event.kind == UNREADABLE_TYPE {
        let extensions: serde_json::Value = serde_json::from_str(&event.extensions).ok()?;
        return extensions[record_decoding::UNREADABLE_KEY].as_str().map(str::to_owned);
    }
    (!event.subject.is_empty()).then(|| event.subject.clone())
}

/// Returns the headers of a copy. Headers that begin with `lantern_` say which event is parked and
/// why. The headers of the event follow, unless it is an unreadable record or a timer.
fn headers(letter: &DeadLetter, topic_partition: Option<TopicPartition>) -> OwnedHeaders {
    let ParkedRecord { kind, offset, event, reason, attempts, .. } = &letter.record;
    let (offset, attempts) = (offset.to_string(), attempts.to_string());
    let topic = topic_partition.as_ref().map_or("", |topic_partition| &*topic_partition.topic);
    let partition = topic_partition
        .as_ref()
        .map_or_else(String::new, |topic_partition| topic_partition.partition.to_string());
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
        return record_encoding::headers(&event.as_ref(), &more);
    }
    more.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(rdkafka::message::Header { key, value: Some(*value) })
    })
}
