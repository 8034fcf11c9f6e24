//! Implements the watcher, a thread that asks the broker at intervals for the bounds of the
//! partitions, for their number, and for the ids and settings of the topics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{ANSWER, Context, is_gone};
use crate::partitions::TopicPartition;
use crate::shared::{Partition, Shared};
use crate::topic_settings::SettingsClient;
use crate::{librdkafka, topics};

/// The minimum time between two queries for bounds that readers request.
const LEAST: Duration = Duration::from_millis(50);
/// The interval at which the number of partitions is queried.
const PARTITIONS_EVERY: Duration = Duration::from_secs(15);

/// Starts the thread of the watcher.
pub(crate) fn start(
    shared: &Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    settings: Option<SettingsClient>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let run = move || run(&shared, &consumer, settings.as_ref());
    std::thread::Builder::new().name("kafka-watch".into()).spawn(run)
}

fn run(shared: &Shared, consumer: &BaseConsumer<Context>, settings: Option<&SettingsClient>) {
    let refresh = Duration::from_millis(shared.config.refresh_ms);
    let (mut whole, mut counted) = (None::<Instant>, Instant::now());
    while !shared.is_closed() {
        // This client reads no records, but its queue also receives other events. It is polled to
        // remove these events, because the queue would grow otherwise.
        while consumer.poll(Duration::ZERO).is_some() {}
        let requested = std::mem::take(&mut *shared.bounds_requests.lock());
        if whole.is_none_or(|at| at.elapsed() >= refresh) {
            // The id is queried before the bounds. If the topic is recreated between the two
            // queries, the bounds are those of the new topic. In the other order, bounds of the old
            // topic could be stored with the id of the new one.
            identify(shared, consumer);
            let all: Vec<&Partition> = shared.parts.iter().collect();
            ask(shared, consumer, &all);
            whole = Some(Instant::now());
        } else if !requested.is_empty() {
            let some = requested.iter().filter_map(|number| shared.parts.get(*number as usize));
            ask(shared, consumer, &some.collect::<Vec<_>>());
        }
        if counted.elapsed() >= PARTITIONS_EVERY {
            // The second query is left out if the broker does not answer the first one.
            if let (true, Some(settings)) = (count(shared, consumer), settings) {
                refresh_settings(shared, settings);
            }
            counted = Instant::now();
        }
        std::thread::sleep(LEAST);
        let left = whole.map_or(Duration::ZERO, |at| refresh.saturating_sub(at.elapsed()));
        shared.watcher.wait(left);
    }
}

/// Queries the ids of the topics, and notes which topics were recreated.
fn identify(shared: &Shared, consumer: &BaseConsumer<Context>) {
    for (topic, id) in librdkafka::topic_ids(consumer, &shared.config.topics) {
        let id: Arc<str> = id.into();
        let its = shared.parts.iter().filter(|part| *part.topic_partition.topic == *topic);
        let recreated: Vec<&Partition> =
            its.filter(|part| part.state.lock().set_topic_id(id.clone())).collect();
        if recreated.is_empty() {
            continue;
        }
        tracing::warn!(
            topic,
            "the topic was deleted and recreated: projections that have read it halt"
        );
        if topic == shared.config.ingest_topic() {
            shared.recreated.store(true, Ordering::Release);
        }
        recreated.into_iter().for_each(|part| shared.wake(part));
    }
}

/// Queries the bounds of the partitions `parts`, and stores them.
fn ask(shared: &Shared, consumer: &BaseConsumer<Context>, parts: &[&Partition]) {
    let before: Vec<Option<u64>> =
        parts.iter().map(|part| part.state.lock().bounds.map(|(_, end)| end)).collect();
    let answers = offsets(consumer, parts, KafkaOffset::Beginning)
        .and_then(|starts| Ok((starts, offsets(consumer, parts, KafkaOffset::End)?)));
    let (starts, ends) = match answers {
        Ok(answers) => answers,
        Err(error) => return report_refusal(shared, consumer, parts, &error),
    };
    shared.report.clear();
    let looks_other = |(index, part): (usize, &&Partition)| {
        let was_missing = part.state.lock().missing.is_some();
        was_missing || ends[index].as_ref().is_ok_and(|end| before[index] > Some(*end))
    };
    if parts.iter().enumerate().any(looks_other) {
        identify(shared, consumer);
    }
    for (index, part) in parts.iter().enumerate() {
        let mut state = part.state.lock();
        match (&starts[index], &ends[index]) {
            (Ok(start), Ok(end)) => {
                let known = state.bounds;
                let owed = std::mem::take(&mut state.waited_for) | state.doubtful;
                state.set_bounds(*start, *end, before[index]);
                let waiting = state.buffers.iter().any(|s| s.at_end && s.next < *end);
                let news = known != state.bounds;
                drop(state);
                if waiting {
                    confirm(shared, part, *end);
                }
                // Readers that waited for an answer are woken even if the bounds have not changed.
                if news || waiting || owed {
                    shared.wake(part);
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                drop(state);
                fault(shared, part, error);
            }
        }
    }
}

/// Handles a failed query for `parts`. One missing topic makes the query fail for all partitions,
/// so each topic is then queried alone.
fn report_refusal(
    shared: &Shared,
    consumer: &BaseConsumer<Context>,
    parts: &[&Partition],
    error: &KafkaError,
) {
    let missing = error.rdkafka_error_code().is_some_and(is_gone);
    let one =
        parts.windows(2).all(|pair| pair[0].topic_partition.topic == pair[1].topic_partition.topic);
    if missing && !one {
        for topic in &shared.config.topics {
            let its: Vec<&Partition> = parts
                .iter()
                .filter(|part| *part.topic_partition.topic == **topic)
                .copied()
                .collect();
            if !its.is_empty() {
                ask(shared, consumer, &its);
            }
        }
        return;
    }
    tracing::debug!(%error, "the first and last offsets of the partitions cannot be read");
    consumer.context().record_error(error, &error.to_string());
    for part in parts {
        fault(shared, part, error);
    }
}

/// Handles a query for the bounds of `part` that failed.
fn fault(shared: &Shared, part: &Partition, error: &KafkaError) {
    match error.rdkafka_error_code() {
        Some(code) if is_gone(code) => {
            let missing =
                format!("{} does not exist: was its topic deleted? ({code})", part.topic_partition);
            part.state.lock().missing = Some(missing);
            shared.wake(part);
        }
        _ => {
            tracing::debug!(%error, partition = %part.topic_partition, "the first and last offset of a partition cannot be read")
        }
    }
}

/// Makes each cursor that stopped before the partition's `end` read once more. Otherwise such a
/// cursor would not learn that there are no more records before `end`.
fn confirm(shared: &Shared, part: &Partition, end: u64) {
    let mut state = part.state.lock();
    for (number, buffer) in state.buffers.iter_mut().enumerate() {
        if buffer.at_end && buffer.next < end {
            buffer.doubted = true;
            shared.cursors[number].raise();
        }
    }
}

type BoundsReply = KafkaResult<u64>;

/// Returns the first offsets or the next offsets of the partitions `parts`, as `which` requires.
fn offsets(
    consumer: &BaseConsumer<Context>,
    parts: &[&Partition],
    which: KafkaOffset,
) -> KafkaResult<Vec<BoundsReply>> {
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for part in parts {
        list.add_partition_offset(
            &part.topic_partition.topic,
            part.topic_partition.partition,
            which,
        )?;
    }
    let found = consumer.offsets_for_times(list, ANSWER)?;
    let elements = found.elements();
    let answers = parts.iter().map(|part| {
        let element = elements.iter().find(|e| {
            e.partition() == part.topic_partition.partition
                && e.topic() == &*part.topic_partition.topic
        });
        let element = element.ok_or(KafkaError::Canceled)?;
        element.error()?;
        match element.offset() {
            KafkaOffset::Offset(offset) => u64::try_from(offset).map_err(|_| KafkaError::Canceled),
            _ => Err(KafkaError::Canceled),
        }
    });
    Ok(answers.collect())
}

/// Queries the settings of the topics, which an operator can change at any time.
pub(crate) fn refresh_settings(shared: &Shared, settings: &SettingsClient) {
    match settings.ask() {
        Ok(known) => shared.set_topic_settings(known),
        Err(error) => tracing::debug!(%error, "the settings of topics cannot be read now"),
    }
}

/// Checks whether partitions were added. Returns whether the broker has answered.
fn count(shared: &Shared, consumer: &BaseConsumer<Context>) -> bool {
    let mut unread = Vec::new();
    for topic in &shared.config.topics {
        let Ok(partitions) = topics::partitions(consumer, topic) else { return false };
        let added = partitions.into_iter().filter(|p| shared.part_at(topic, *p).is_none());
        unread.extend(
            added.map(|partition| TopicPartition { topic: topic.as_str().into(), partition }),
        );
    }
    let mut known = shared.unread.lock();
    if *known != unread {
        for added in unread.iter().filter(|added| !known.contains(added)) {
            tracing::warn!(
                partition = %added,
                "a partition was added: restart the server to read it"
            );
        }
        *known = unread;
    }
    true
}
