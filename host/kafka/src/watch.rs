//! The watcher: queries the broker regularly for the bounds of the partitions, their
//! number, and the ids and settings of the topics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{ANSWER, Context, is_gone};
use crate::partitions::Place;
use crate::shared::{Part, Shared};
use crate::topic_settings::SettingsClient;
use crate::{ids, topics};

/// The least time between two queries of bounds that readers requested.
const LEAST: Duration = Duration::from_millis(50);
/// How often the number of partitions is queried.
const PARTITIONS_EVERY: Duration = Duration::from_secs(15);

/// Starts the thread.
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
        // The client reads no records. Other events must not pile up in its queue.
        while consumer.poll(Duration::ZERO).is_some() {}
        let wanted = std::mem::take(&mut *shared.wanted.lock());
        if whole.is_none_or(|at| at.elapsed() >= refresh) {
            // Before the bounds are queried, so that they belong to this topic or to a
            // later one.
            identify(shared, consumer);
            let all: Vec<&Part> = shared.parts.iter().collect();
            ask(shared, consumer, &all);
            whole = Some(Instant::now());
        } else if !wanted.is_empty() {
            let some = wanted.iter().filter_map(|number| shared.parts.get(*number as usize));
            ask(shared, consumer, &some.collect::<Vec<_>>());
        }
        if counted.elapsed() >= PARTITIONS_EVERY {
            // If the broker does not answer, the second query is skipped.
            if let (true, Some(settings)) = (count(shared, consumer), settings) {
                learn(shared, settings);
            }
            counted = Instant::now();
        }
        std::thread::sleep(LEAST);
        let left = whole.map_or(Duration::ZERO, |at| refresh.saturating_sub(at.elapsed()));
        shared.watcher.wait(left);
    }
}

/// Queries the ids of the topics, and notes those that were recreated.
fn identify(shared: &Shared, consumer: &BaseConsumer<Context>) {
    for (topic, id) in ids::of(consumer, &shared.config.topics) {
        let id: Arc<str> = id.into();
        let its = shared.parts.iter().filter(|part| *part.place.topic == *topic);
        let remade: Vec<&Part> =
            its.filter(|part| part.state.lock().tell_topic(id.clone())).collect();
        if remade.is_empty() {
            continue;
        }
        tracing::warn!(
            topic,
            "the topic was deleted and recreated: projections that have read it halt"
        );
        if topic == shared.config.ingest_topic() {
            shared.remade.store(true, Ordering::Release);
        }
        remade.into_iter().for_each(|part| shared.wake(part));
    }
}

/// Queries and stores the bounds of `parts`.
fn ask(shared: &Shared, consumer: &BaseConsumer<Context>, parts: &[&Part]) {
    let before: Vec<Option<u64>> =
        parts.iter().map(|part| part.state.lock().bounds.map(|(_, end)| end)).collect();
    let answers = offsets(consumer, parts, KafkaOffset::Beginning)
        .and_then(|starts| Ok((starts, offsets(consumer, parts, KafkaOffset::End)?)));
    let (starts, ends) = match answers {
        Ok(answers) => answers,
        Err(error) => return refused(shared, consumer, parts, &error),
    };
    shared.said.clear();
    let looks_other = |(place, part): (usize, &&Part)| {
        let was_gone = part.state.lock().gone.is_some();
        was_gone || ends[place].as_ref().is_ok_and(|end| before[place] > Some(*end))
    };
    if parts.iter().enumerate().any(looks_other) {
        identify(shared, consumer);
    }
    for (place, part) in parts.iter().enumerate() {
        let mut state = part.state.lock();
        match (&starts[place], &ends[place]) {
            (Ok(start), Ok(end)) => {
                let known = state.bounds;
                let owed = std::mem::take(&mut state.waited_for) | state.doubtful;
                state.tell_bounds(*start, *end, before[place]);
                let waiting = state.streams.iter().any(|s| s.at_end && s.next < *end);
                let news = known != state.bounds;
                drop(state);
                if waiting {
                    confirm(shared, part, *end);
                }
                // Readers that waited for an answer are woken even if the bounds are the
                // same.
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

/// Handles a failed query for `parts`. One missing topic makes the query fail for all
/// partitions, so then each topic is queried alone.
fn refused(shared: &Shared, consumer: &BaseConsumer<Context>, parts: &[&Part], error: &KafkaError) {
    let gone = error.rdkafka_error_code().is_some_and(is_gone);
    let one = parts.windows(2).all(|pair| pair[0].place.topic == pair[1].place.topic);
    if gone && !one {
        for topic in &shared.config.topics {
            let its: Vec<&Part> =
                parts.iter().filter(|part| *part.place.topic == **topic).copied().collect();
            if !its.is_empty() {
                ask(shared, consumer, &its);
            }
        }
        return;
    }
    tracing::debug!(%error, "the bounds of partitions cannot be read");
    consumer.context().told(error, &error.to_string());
    for part in parts {
        fault(shared, part, error);
    }
}

/// Handles a failed query of the bounds of `part`.
fn fault(shared: &Shared, part: &Part, error: &KafkaError) {
    match error.rdkafka_error_code() {
        Some(code) if is_gone(code) => {
            let gone = format!("{} does not exist: was its topic deleted? ({code})", part.place);
            part.state.lock().gone = Some(gone);
            shared.wake(part);
        }
        _ => {
            tracing::debug!(%error, partition = %part.place, "the bounds of a partition cannot be read")
        }
    }
}

/// Makes cursors that stopped before the partition's `end` check once more, in case no
/// record arrives by itself.
fn confirm(shared: &Shared, part: &Part, end: u64) {
    let mut state = part.state.lock();
    for (number, stream) in state.streams.iter_mut().enumerate() {
        if stream.at_end && stream.next < end {
            stream.doubted = true;
            shared.cursors[number].raise();
        }
    }
}

type Answer = KafkaResult<u64>;

/// The first or the next offset of each of `parts`.
fn offsets(
    consumer: &BaseConsumer<Context>,
    parts: &[&Part],
    which: KafkaOffset,
) -> KafkaResult<Vec<Answer>> {
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for part in parts {
        list.add_partition_offset(&part.place.topic, part.place.partition, which)?;
    }
    let found = consumer.offsets_for_times(list, ANSWER)?;
    let elements = found.elements();
    let answers = parts.iter().map(|part| {
        let element = elements
            .iter()
            .find(|e| e.partition() == part.place.partition && e.topic() == &*part.place.topic);
        let element = element.ok_or(KafkaError::Canceled)?;
        element.error()?;
        match element.offset() {
            KafkaOffset::Offset(offset) => u64::try_from(offset).map_err(|_| KafkaError::Canceled),
            _ => Err(KafkaError::Canceled),
        }
    });
    Ok(answers.collect())
}

/// Queries the topics' settings, which an operator can change at any time.
pub(crate) fn learn(shared: &Shared, settings: &SettingsClient) {
    match settings.ask() {
        Ok(told) => shared.tell_settings(told),
        Err(error) => tracing::debug!(%error, "the settings of topics cannot be read now"),
    }
}

/// Looks for added partitions. Returns whether the broker answered.
fn count(shared: &Shared, consumer: &BaseConsumer<Context>) -> bool {
    let mut unread = Vec::new();
    for topic in &shared.config.topics {
        let Ok(partitions) = topics::partitions(consumer, topic) else { return false };
        let added = partitions.into_iter().filter(|p| shared.part_at(topic, *p).is_none());
        unread.extend(added.map(|partition| Place { topic: topic.as_str().into(), partition }));
    }
    let mut known = shared.unread.lock();
    if *known != unread {
        for place in unread.iter().filter(|place| !known.contains(place)) {
            tracing::warn!(
                partition = %place,
                "a partition was added: restart the server to read it"
            );
        }
        *known = unread;
    }
    true
}
