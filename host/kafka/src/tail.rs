//! Reads the end of the topic that events are sent to, to know again those that
//! are sent once more.

use std::time::{Duration, Instant};

use lantern_core::{Events, Offset, PartitionId, Window, identity_of};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{ANSWER, Context, consumer, time_of};
use crate::record::{Decoder, Raw};
use crate::shared::{Part, Shared};

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(60);
/// What is fetched ahead, in bytes.
const PREFETCH_BYTES: usize = 4 << 20;

/// The newest events, about as many of each partition, by identity.
///
/// # Errors
/// [`KafkaError`] where the broker does not answer in time.
pub(crate) fn read(shared: &Shared, context: &Context, topic: &str) -> KafkaResult<Window> {
    let config = &shared.config;
    let group = format!("{}reader", config.group_prefix);
    let consumer = consumer(config, &group, PREFETCH_BYTES, context)?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic);
    let parts: Vec<(i32, PartitionId)> = found
        .flat_map(MetadataTopic::partitions)
        .map(|found| {
            // Of a topic that is not read, nobody asks where an event is.
            let known =
                |part: &&Part| *part.place.topic == *topic && part.place.partition == found.id();
            let part = shared.parts.iter().find(known);
            (found.id(), part.map_or(PartitionId(u32::MAX), |part| part.id))
        })
        .collect();
    let mut window = Window::new(config.dedup_window_events);
    let each = u64::from(config.dedup_window_events).div_ceil(parts.len().max(1) as u64);
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for (partition, _) in &parts {
        let (low, high) = consumer.fetch_watermarks(topic, *partition, ANSWER)?;
        let from = low.max(high - i64::try_from(each).unwrap_or(i64::MAX));
        list.add_partition_offset(topic, *partition, KafkaOffset::Offset(from))?;
    }
    consumer.assign(&list)?;
    let mut decoder = Decoder::new(config);
    let mut events = Events::new();
    // The ends as they are from here on: what comes later was not sent before.
    let mut open: Vec<i32> = parts.iter().map(|(partition, _)| *partition).collect();
    let until = Instant::now() + LONGEST;
    while !open.is_empty() {
        if shared.is_closed() || Instant::now() >= until {
            return Err(KafkaError::Canceled);
        }
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.retain(|known| *known != partition);
                continue;
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(message)) => message,
        };
        let found = parts.iter().find(|(partition, _)| *partition == message.partition());
        let Some((partition, id)) = found else { continue };
        let offset = u64::try_from(message.offset()).unwrap_or(0);
        let raw = Raw {
            topic,
            partition: *partition,
            offset,
            time: time_of(message.timestamp()),
            key: message.key(),
            payload: message.payload(),
            headers: &message.headers(),
        };
        events.clear();
        if decoder.read(&raw, &mut events) == (true, None) {
            let event = events.get(0);
            let identity = identity_of(event.source.as_bytes(), event.id.as_bytes());
            window.push(identity, *id, Offset(offset));
            window.trim();
        }
    }
    Ok(window)
}
