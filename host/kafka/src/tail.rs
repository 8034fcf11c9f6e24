//! Reads the end of the topic that events are sent to, to know again those that
//! are sent once more.

use std::time::{Duration, Instant};

use lantern_core::{Events, Offset, PartitionId, Window, identity_of};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{ANSWER, Context, consumer_with, time_of};
use crate::record::{Decoded, Decoder, Raw};
use crate::shared::Shared;
use crate::topics;

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(60);
/// How long transactions may stay open that were begun before: longer than the
/// timeout of this server's own.
const TRANSACTIONS: Duration = Duration::from_secs(28);
/// What is fetched ahead, in bytes.
const PREFETCH_BYTES: usize = 4 << 20;

/// Waits until the transactions are over that stood open before `ends`, as one that
/// a crash of this server left open: what lies behind their beginning cannot be
/// told yet. Whether they are.
fn settled(
    shared: &Shared,
    committed: &BaseConsumer<Context>,
    topic: &str,
    ends: &[(i32, i64)],
) -> KafkaResult<bool> {
    let until = Instant::now() + TRANSACTIONS;
    for (partition, end) in ends {
        while committed.fetch_watermarks(topic, *partition, ANSWER)?.1 < *end {
            if Instant::now() >= until || shared.is_closed() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(true)
}

/// The newest events, about as many of each partition, by identity.
///
/// # Errors
/// [`KafkaError`] where the broker does not answer in time.
pub(crate) fn read(shared: &Shared, context: &Context, topic: &str) -> KafkaResult<Window> {
    let config = &shared.config;
    let group = format!("{}reader", config.group_prefix);
    let client = |isolation| {
        let isolation = [("isolation.level", isolation)];
        consumer_with(config, &group, PREFETCH_BYTES, context, &isolation)
    };
    let (committed, whole) = (client("read_committed")?, client("read_uncommitted")?);
    // Of a topic that is not read, nobody asks where an event is.
    let id = |partition| shared.part_at(topic, partition).map_or(PartitionId(u32::MAX), |p| p.id);
    let parts = topics::partitions(&whole, topic)?.into_iter();
    let parts: Vec<(i32, PartitionId)> = parts.map(|number| (number, id(number))).collect();
    let mut window = Window::new(config.dedup_window_events);
    let each = u64::from(config.dedup_window_events).div_ceil(parts.len().max(1) as u64);
    let mut list = TopicPartitionList::with_capacity(parts.len());
    let mut ends = Vec::with_capacity(parts.len());
    for (partition, _) in &parts {
        let (low, high) = whole.fetch_watermarks(topic, *partition, ANSWER)?;
        let from = low.max(high - i64::try_from(each).unwrap_or(i64::MAX));
        list.add_partition_offset(topic, *partition, KafkaOffset::Offset(from))?;
        ends.push((*partition, high));
    }
    let consumer = if settled(shared, &committed, topic, &ends)? {
        committed
    } else {
        tracing::warn!(topic, "a transaction stays open: what it may take back counts as sent");
        whole
    };
    consumer.assign(&list)?;
    collect(shared, &consumer, topic, &parts, &mut window)?;
    Ok(window)
}

/// Reads up to the ends of `parts`: what comes later was not sent before.
fn collect(
    shared: &Shared,
    consumer: &BaseConsumer<Context>,
    topic: &str,
    parts: &[(i32, PartitionId)],
    window: &mut Window,
) -> KafkaResult<()> {
    let mut decoder = Decoder::new(&shared.config);
    let mut events = Events::new();
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
        if decoder.read(&raw, &mut events) == Decoded::Event {
            let event = events.get(0);
            let identity = identity_of(&event);
            window.push(identity, *id, Offset(offset));
            window.trim();
        }
    }
    Ok(())
}
