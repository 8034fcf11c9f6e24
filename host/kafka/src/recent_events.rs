//! Reads the end of a topic into a deduplication window, which then recognizes events that are sent
//! again.

use std::time::{Duration, Instant};

use lantern_core::{DeduplicationWindow, Events, Offset, PartitionId, identity};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{ANSWER, Context, consumer_with, time_of};
use crate::record::RawRecord;
use crate::record_decoding::{DecodedRecord, Decoder};
use crate::shared::Shared;
use crate::topics;

/// The time limit for reading the end of a topic.
const LONGEST: Duration = Duration::from_secs(60);
/// How long the call waits for transactions that are open when the end of the topic is read. It is
/// longer than the timeout of this server's own transactions.
const TRANSACTIONS: Duration = Duration::from_secs(28);
/// The memory into which records are fetched before they are needed, in bytes.
const PREFETCH_BYTES: usize = 4 << 20;

/// Waits until all transactions that began before `ends` have ended. Returns whether they ended in
/// time. A crash of this server can leave a transaction open. Until it ends, no record after its
/// start can be read.
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

/// Reads the newest events of the topic, about the same number from each partition, and returns
/// their identities.
///
/// # Errors
/// Returns [`KafkaError`] if the broker does not answer in time.
pub(crate) fn read(
    shared: &Shared,
    context: &Context,
    topic: &str,
) -> KafkaResult<DeduplicationWindow> {
    let config = &shared.config;
    let group = format!("{}reader", config.group_prefix);
    let client = |isolation| {
        let isolation = [("isolation.level", isolation)];
        consumer_with(config, &group, PREFETCH_BYTES, context, &isolation)
    };
    let (committed, whole) = (client("read_committed")?, client("read_uncommitted")?);
    // If projections do not read this topic, the partitions in the window are not used.
    let id = |partition| shared.part_at(topic, partition).map_or(PartitionId(u32::MAX), |p| p.id);
    let parts = topics::partitions(&whole, topic)?.into_iter();
    let parts: Vec<(i32, PartitionId)> = parts.map(|number| (number, id(number))).collect();
    let mut window = DeduplicationWindow::new(config.dedup_window_events);
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
        tracing::warn!(
            topic,
            "a transaction does not end: its emitted events count as appended, although it may be aborted"
        );
        whole
    };
    consumer.assign(&list)?;
    collect(shared, &consumer, topic, &parts, &mut window)?;
    Ok(window)
}

/// Reads each of the partitions `parts` up to its end. Later events are not needed, because this
/// server sends no events before this read has ended.
fn collect(
    shared: &Shared,
    consumer: &BaseConsumer<Context>,
    topic: &str,
    parts: &[(i32, PartitionId)],
    window: &mut DeduplicationWindow,
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
        let raw = RawRecord {
            topic,
            partition: *partition,
            offset,
            time: time_of(message.timestamp()),
            key: message.key(),
            payload: message.payload(),
            headers: &message.headers(),
        };
        events.clear();
        if decoder.read(&raw, &mut events) == DecodedRecord::Event {
            let event = events.get(0);
            let identity = identity(&event);
            window.push(identity, *id, Offset(offset));
            window.trim();
        }
    }
    Ok(())
}
