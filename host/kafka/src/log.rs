//! Implements the log on Kafka. This module opens the topics, starts the threads, and implements
//! [`Log`] and the other ports of a log.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{
    AppendDone, CloseLog, CommittedOffsets, DeadLetter, DeadLetterName, DeadLetters,
    DeadLettersRead, Emitted, ErrorCause, Events, Heartbeats, Log, LogError, LogRead, Offset,
    PartitionBounds, PartitionId, Timestamp, TypeFilter, Waker,
};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use sha2::{Digest, Sha256};

use crate::append::Appender;
use crate::client::{ANSWER, ClientReport, Context, consumer};
use crate::config::KafkaConfig;
use crate::dead_letters::DeadLetterWriter;
use crate::emit::Emitter;
use crate::groups::GroupOffsets;
use crate::open_error::OpenError;
use crate::partitions::PartitionTable;
use crate::shared::Shared;
use crate::topic_settings::SettingsClient;
use crate::{broker_watch, dead_letters, reader, topics};

/// How long the opening of the log waits for the bounds of the partitions.
const FIRST_BOUNDS: Duration = Duration::from_secs(5);
/// How long a client without an answer is polled to learn the reason.
const FAULTS: Duration = Duration::from_millis(100);
/// The minimum memory into which one cursor fetches records of one partition, in bytes.
const PREFETCH_LEAST: usize = 256 << 10;

/// A log on Kafka topics. Dropping it closes it, like [`CloseLog::close`].
pub struct KafkaLog {
    shared: Arc<Shared>,
    /// The consumer with which the watcher queries the broker.
    consumer: Arc<BaseConsumer<Context>>,
    appender: Appender,
    emitter: Emitter,
    dead_letters: Option<DeadLetterWriter>,
    groups: GroupOffsets,
    context: Context,
    /// Is locked while dead letters are retried.
    resending: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl KafkaLog {
    /// Opens the log that `config` names. The file `table` contains the numbers of the log's
    /// partitions, and is created if it is missing.
    ///
    /// If the broker does not answer, the log can still be opened if it was opened in an earlier
    /// run. It then waits for the broker.
    ///
    /// # Errors
    /// Returns [`OpenError`] if the log cannot be opened.
    pub fn open(table: impl AsRef<Path>, config: KafkaConfig) -> Result<Self, OpenError> {
        config.check()?;
        describe_metrics();
        let mut table = PartitionTable::open(table.as_ref().to_path_buf())?;
        let report = Arc::new(ClientReport::default());
        let context = Context::new(&config, Arc::clone(&report));
        let failed = |error: KafkaError| refused(&config, &report, &error);
        let group = format!("{}reader", config.group_prefix);
        // This client only queries the broker. It reads no records.
        let asking = consumer(&config, &group, PREFETCH_LEAST, &context).map_err(failed)?;
        let answers = number(&mut table, &asking, &config, &context)?;
        let partitions = table.partitions().to_vec();
        let each = config.prefetch_bytes / (partitions.len().max(1) * config.cursors as usize);
        let cursors: Vec<_> = (0..config.cursors)
            .map(|_| consumer(&config, &group, each.max(PREFETCH_LEAST), &context).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let settings = SettingsClient::new(&config, &context).map_err(failed)?;
        let shared = Arc::new(Shared::new(config, &partitions, report));
        if let Some(settings) = settings.as_ref().filter(|_| answers) {
            broker_watch::refresh_settings(&shared, settings);
        }
        let failed = |error: KafkaError| refused(&shared.config, &shared.report, &error);
        let thread = OpenError::Thread;
        let emitter = Emitter::start(&shared, &context, table.instance()).map_err(thread)?;
        let groups = GroupOffsets::start(&shared, &context).map_err(thread)?;
        let table = Arc::new(Mutex::new(table));
        let appender = Appender::start(&shared, &table, &context).map_err(failed)?;
        let consumer = Arc::new(asking);
        let threads = Mutex::default();
        let writer = shared.config.dead_letter_topic.as_deref();
        let writer = writer.map(|topic| DeadLetterWriter::new(&shared.config, topic, &context));
        let writer = writer.transpose().map_err(failed)?;
        let resending = Mutex::default();
        let log = Self {
            shared,
            consumer,
            appender,
            emitter,
            dead_letters: writer,
            groups,
            context,
            resending,
            threads,
        };
        log.start(cursors, settings).map_err(thread)?;
        for warning in log.warnings() {
            tracing::warn!("{warning}");
        }
        log.await_bounds();
        Ok(log)
    }

    fn start(
        &self,
        cursors: Vec<Arc<BaseConsumer<Context>>>,
        settings: Option<SettingsClient>,
    ) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        for (number, consumer) in cursors.into_iter().enumerate() {
            threads.push(reader::start(&self.shared, number, consumer)?);
        }
        threads.push(broker_watch::start(&self.shared, Arc::clone(&self.consumer), settings)?);
        Ok(())
    }

    /// Waits until the bounds of all partitions are known, but at most [`FIRST_BOUNDS`].
    fn await_bounds(&self) {
        let until = Instant::now() + FIRST_BOUNDS;
        let known = |number| self.shared.bounds(PartitionId(number)).is_ok();
        while !(0..self.partitions()).all(known) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl CloseLog for KafkaLog {
    fn close(&self) {
        self.emitter.close();
        self.appender.close();
        self.groups.close();
        self.shared.closed.store(true, Ordering::Release);
        for cursor in &self.shared.cursors {
            cursor.raise();
        }
        self.shared.watcher.raise();
        for part in &self.shared.parts {
            self.shared.wake(part);
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl CommittedOffsets for KafkaLog {
    /// The thread of the groups commits the offset to the consumer group of the projection.
    fn note_offset(&self, projection: &str, partition: PartitionId, next: Offset) {
        self.groups.set_offset(projection, partition, next);
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.shared.config.commit_ms)
    }
}

impl Heartbeats for KafkaLog {
    /// Topics with a mapping get no heartbeats, because their other consumers may not accept
    /// CloudEvents.
    fn accepts_heartbeats(&self, partition: PartitionId) -> bool {
        let config = &self.shared.config;
        let topic_partition = self.shared.part(partition).map(|part| &part.topic_partition);
        config.writable
            && config.heartbeats
            && topic_partition
                .is_ok_and(|topic_partition| config.mapping(&topic_partition.topic).is_none())
    }

    fn append_heartbeat(&self, partition: PartitionId, time: Timestamp, done: AppendDone) {
        let event = lantern_core::heartbeat(partition, time, 0);
        self.appender.append(event, Some(partition), done);
    }
}

/// If there is no dead-letter topic, nothing is copied and there is nothing to read.
impl DeadLetters for KafkaLog {
    fn copy(&self, letters: &[DeadLetter]) -> Result<(), LogError> {
        let Some(writer) = &self.dead_letters else { return Ok(()) };
        let topic_partition = |letter: &DeadLetter| {
            self.shared.part(letter.partition).ok().map(|part| part.topic_partition.clone())
        };
        writer
            .copy(letters, topic_partition)
            .map_err(|error| LogError::Unavailable(ErrorCause::of(error)))
    }

    fn read_copies(
        &self,
        from_beginning: bool,
        page: &mut dyn FnMut(&[DeadLetterName]) -> ControlFlow<()>,
    ) -> Result<DeadLettersRead, LogError> {
        let Some(topic) = &self.shared.config.dead_letter_topic else {
            return Ok(DeadLettersRead::default());
        };
        let _one = self.resending.lock();
        dead_letters::read_copies(&self.shared, &self.context, topic, from_beginning, page)
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Log for KafkaLog {
    fn partitions(&self) -> u32 {
        u32::try_from(self.shared.parts.len()).unwrap_or(u32::MAX)
    }

    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.shared.bounds(partition)
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        self.shared.read(partition, from, wanted)
    }

    /// Returns an offset by the timestamps of the records. If the topic has `LogAppendTime`, the
    /// timestamps are append times. Otherwise producers have set them.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError> {
        let topic_partition = &self.shared.part(partition)?.topic_partition;
        let unavailable = |error: KafkaError| LogError::Unavailable(ErrorCause::of(error));
        let mut list = TopicPartitionList::with_capacity(1);
        let millis = KafkaOffset::Offset(time.0.div_euclid(1_000).max(0));
        list.add_partition_offset(&topic_partition.topic, topic_partition.partition, millis)
            .map_err(unavailable)?;
        let found = self.consumer.offsets_for_times(list, ANSWER).map_err(unavailable)?;
        let elements = found.elements();
        match elements.first().map(|element| (element.error(), element.offset())) {
            Some((Ok(()), KafkaOffset::Offset(offset))) => {
                Ok(Offset(u64::try_from(offset).unwrap_or(0)))
            }
            Some((Err(error), _)) => Err(unavailable(error)),
            _ => Ok(self.bounds(partition)?.end),
        }
    }

    fn append(&self, events: Events, done: AppendDone) {
        if !self.shared.config.writable {
            let why = "the topics are read only (`log.kafka.writable`)";
            return done(Err(LogError::Unavailable(why.into())));
        }
        if let Some(why) = self.shared.is_away() {
            return done(Err(LogError::Unavailable(why.into())));
        }
        self.appender.append(events, None, done);
    }

    fn emit(&self, emitted: Emitted, done: AppendDone) {
        if !self.shared.config.writable {
            let why = "the topics are read only (`log.kafka.writable`)";
            return done(Err(LogError::Unavailable(why.into())));
        }
        self.emitter.emit(emitted, done);
    }

    fn on_append(&self, waker: Waker) {
        self.shared.add_waker(waker);
    }

    fn wait(&self, partition: PartitionId, from: Offset, timeout: Duration) {
        self.shared.wait(partition, from, timeout);
    }

    fn partition_name(&self, partition: PartitionId) -> Option<String> {
        self.shared.part(partition).ok().map(|part| part.topic_partition.to_string())
    }

    /// Returns the id that the broker has given to the topic. All partitions of a topic have the
    /// same id.
    fn identity(&self, partition: PartitionId) -> Option<Arc<str>> {
        let part = self.shared.part(partition).ok()?;
        part.state.lock().topic_id.clone()
    }

    fn warnings(&self) -> Vec<String> {
        let stamped = |topic: &&String| self.shared.settings(topic).log_append_time == Some(false);
        let topics = self.shared.config.topics.iter().filter(stamped);
        let warning = topics.map(|topic| {
            format!(
                "topic `{topic}` stores its producers' times (`message.timestamp.type` is `CreateTime`), so one producer with a wrong clock can move event time: set it to `LogAppendTime` with `kafka-configs --alter --entity-type topics --entity-name {topic} --add-config message.timestamp.type=LogAppendTime`"
            )
        });
        warning.collect()
    }

    fn troubles(&self) -> Vec<String> {
        let unread = self.shared.unread.lock();
        let added = unread.iter().map(|topic_partition| {
            format!(
                "{topic_partition} was added and is not read yet: restart the server to read it"
            )
        });
        added.collect()
    }
}

/// Gives every partition of the topics a number in `table`. Returns whether the broker answers.
/// Fails if `table` was created with another log.
fn number(
    table: &mut PartitionTable,
    asking: &BaseConsumer<Context>,
    config: &KafkaConfig,
    context: &Context,
) -> Result<bool, OpenError> {
    let counts = match topics::counts(asking, config, context) {
        Ok(counts) => counts,
        Err(topics::Fault::Topic(reason)) => return Err(OpenError::Other(reason)),
        Err(topics::Fault::Client(error)) if table.is_new() => {
            // The client may have reported a more precise reason than `error`.
            drop(asking.poll(FAULTS));
            return Err(refused(config, context.report(), &error));
        }
        Err(topics::Fault::Client(error)) => {
            tracing::warn!(%error, "Kafka does not answer: tables are served, and events are not applied until it does");
            return table.check(None, &config.topics).map(|()| false);
        }
    };
    let cluster = asking.client().fetch_cluster_id(ANSWER);
    table.check(cluster.as_deref(), &config.topics)?;
    if !table.set_cluster_and_mappings(cluster.as_deref(), &mappings(config)) {
        tracing::warn!(
            "the mapping of records to events has changed (`log.kafka.json`): events that were already applied keep the old mapping until their projection is rebuilt"
        );
    }
    for (topic, count) in config.topics.iter().zip(counts) {
        table.extend(topic, count);
    }
    table.save().map(|()| true)
}

fn refused(config: &KafkaConfig, report: &ClientReport, error: &KafkaError) -> OpenError {
    let reason = match report.last() {
        Some(last) => format!("{error} ({last})"),
        None => error.to_string(),
    };
    OpenError::Kafka { servers: config.servers.clone(), reason, source: Box::new(error.clone()) }
}

/// Returns a hash of the mappings that convert records to events.
fn mappings(config: &KafkaConfig) -> String {
    let json = serde_json::to_vec(&config.json).expect("plain structs always encode");
    Sha256::digest(&json)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn describe_metrics() {
    use metrics::describe_counter;
    describe_counter!("lantern_log_events_total", "Events appended");
    describe_counter!("lantern_log_duplicates_total", "Events sent again and not appended");
    describe_counter!(
        "lantern_log_differing_duplicates_total",
        "Events not appended because another event has their tenant, source and id"
    );
    describe_counter!("lantern_log_emitted_total", "Emitted events appended to the log");
    describe_counter!("lantern_log_unreadable_total", "Records read that are not events");
    describe_counter!(
        "lantern_log_tombstones_total",
        "Tombstones (records without a value) read and skipped"
    );
    describe_counter!(
        "lantern_log_attributes_ignored_total",
        "Extension attributes of records dropped because events must not have them"
    );
}
