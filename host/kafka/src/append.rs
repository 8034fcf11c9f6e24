//! Appends events with an idempotent producer. One thread keeps the deduplication window.
//!
//! An event is acknowledged when the broker has stored it. If it is unknown whether the broker has
//! stored an event, it is not acknowledged, and the end of the topic is read again before anything
//! else is appended. So if the client sends the event again, the log recognizes the duplicate, even
//! though the first event was never acknowledged.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{
    AppendDone, Appended, AppendedEvent, DeduplicationWindow, EventRef, Events, Identity,
    KnownEvent, LogError, Offset, PartitionId, RejectedEvent, identity,
};
use parking_lot::Mutex;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseRecord, Producer};

use crate::append_producer::{AppendJob, DeliveryId, ReplaceableProducer, producer};
use crate::client::{Context, apply_properties, base};
use crate::partitions::{PartitionTable, TopicPartition};
use crate::recent_events;
use crate::record_encoding;
use crate::shared::Shared;
use crate::topic_settings::{
    Batching, EventCheck, RecordFailure, Undelivered, refused_here, verdict,
};

/// The memory that the producer needs for a record in addition to its event, in bytes.
const RECORD_BYTES: usize = 768;
/// The interval at which waiting appends are checked for their timeout.
const TICK: Duration = Duration::from_millis(100);
/// The wait before the end of the topic is read again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Accepts appends and passes them to its thread.
pub(crate) struct Appender {
    jobs: Sender<AppendJob>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Appender {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        table: &Arc<Mutex<PartitionTable>>,
        context: &Context,
    ) -> KafkaResult<Self> {
        let (jobs, receiver) = channel();
        let config = &shared.config;
        let mut client = base(config);
        client
            .set("partitioner", "murmur2_random")
            .set("linger.ms", config.linger_ms.to_string())
            .set("batch.size", "524288")
            .set("queue.buffering.max.messages", "10000000")
            .set("queue.buffering.max.kbytes", ((config.queue_bytes >> 9) + 1_024).to_string())
            .set("message.timeout.ms", config.delivery_ms_max.to_string())
            .set("message.max.bytes", "16777216");
        apply_properties(config, &mut client);
        client.set("enable.idempotence", "true").set("acks", "all");
        let batching = Batching::within(&shared.settings(config.ingest_topic()), false);
        let producer = ReplaceableProducer {
            client: producer(&client, batching, context, &jobs)?,
            settings: client,
            batching,
            alone_at: None,
            renewing: false,
        };
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut worker = AppendWorker {
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            context: context.clone(),
            producer,
            jobs: jobs.clone(),
            bytes: Arc::clone(&bytes),
            window: None,
            pending: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            held: VecDeque::new(),
            reading: None,
            closing: false,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-append".into())
            .spawn(move || worker.run(&receiver))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let limit = config.queue_bytes;
        Ok(Self { jobs, bytes, limit, thread: Mutex::new(Some(thread)) })
    }

    /// Appends `events` as [`lantern_core::Log::append`] describes. If `to` is given, they are
    /// appended to that partition.
    pub(crate) fn append(&self, events: Events, to: Option<PartitionId>, done: AppendDone) {
        let bytes = events.bytes() + events.len() * RECORD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        // If no other append is waiting, an append of any size is accepted. Otherwise an append
        // that is larger than the limit could never be accepted.
        if before > 0 && before + bytes > self.limit {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            let waiting = format!(
                "{before} bytes are already waiting for Kafka (`log.kafka.queue_bytes` is {})",
                self.limit
            );
            return done(Err(LogError::Unavailable(waiting.into())));
        }
        let job = AppendJob::Append { events: Box::new(events), to, bytes, done };
        if let Err(lost) = self.jobs.send(job)
            && let AppendJob::Append { done, .. } = lost.0
        {
            done(Err(LogError::Closed));
        }
    }

    /// Stops accepting appends, and waits for those that are pending.
    pub(crate) fn close(&self) {
        // If sending fails, the thread has already ended.
        let _ = self.jobs.send(AppendJob::Close);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the append thread panicked");
        }
    }
}

struct AppendWorker {
    shared: Arc<Shared>,
    table: Arc<Mutex<PartitionTable>>,
    context: Context,
    producer: ReplaceableProducer,
    jobs: Sender<AppendJob>,
    bytes: Arc<AtomicUsize>,
    /// The deduplication window; `None` until the end of the topic was read.
    window: Option<DeduplicationWindow>,
    /// The events that were sent and are not answered yet. Later appends of the same event wait for
    /// the answer. An event is stored as three values: the number of its call, its index in the
    /// call, and a checksum of its content.
    pending: HashMap<Identity, Vec<(u64, usize, u32)>>,
    calls: HashMap<u64, PendingAppend>,
    next_call: u64,
    /// Jobs that wait until there is a window or a new producer.
    held: VecDeque<(Instant, AppendJob)>,
    /// The time at which reading the end of the topic began; `None` if it is not being read.
    reading: Option<Instant>,
    closing: bool,
}

/// An append that is not yet answered.
struct PendingAppend {
    left: usize,
    appended: Vec<AppendedEvent>,
    /// The number of the append's events that are in the log.
    accepted: usize,
    failed: Option<String>,
    /// The first event that can never be appended, with the reason.
    rejected: Option<(usize, RejectedEvent)>,
    bytes: usize,
    done: AppendDone,
}

impl AppendWorker {
    fn run(&mut self, jobs: &Receiver<AppendJob>) {
        loop {
            match jobs.recv_timeout(TICK) {
                Ok(job) => self.job(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.renew();
            if self.shared.recreated.swap(false, Ordering::AcqRel) {
                self.window = None;
            }
            self.read_tail();
            self.expire();
            if self.closing && self.calls.is_empty() {
                for (_, job) in std::mem::take(&mut self.held) {
                    self.reject(job, &LogError::Closed);
                }
                return;
            }
        }
    }

    fn job(&mut self, job: AppendJob) {
        match job {
            AppendJob::Append { .. } if self.closing => self.reject(job, &LogError::Closed),
            AppendJob::Append { .. } if self.window.is_none() || self.producer.renewing => {
                self.held.push_back((Instant::now(), job));
            }
            AppendJob::Append { events, to, bytes, done } => self.append(&events, to, bytes, done),
            AppendJob::Delivered { delivery, outcome } => self.delivered(&delivery, outcome),
            AppendJob::Tail(window) => self.known(window),
            AppendJob::Close => self.closing = true,
        }
    }

    /// Replaces the producer if it has failed permanently (for instance because the broker lost
    /// acknowledged records), or if records must be put into batches in another way. The call does
    /// nothing while an append is pending.
    fn renew(&mut self) {
        if !self.calls.is_empty() {
            return;
        }
        let failed = self.producer.client.client().fatal_error().is_some();
        let batching = self.target_batching();
        if failed || batching != self.producer.batching {
            match producer(&self.producer.settings, batching, &self.context, &self.jobs) {
                Ok(producer) => {
                    tracing::info!(failed, ?batching, "the producer was replaced");
                    (self.producer.client, self.producer.batching) = (producer, batching);
                    if failed {
                        self.window = None;
                    }
                }
                Err(error) => return tracing::error!(%error, "no producer can be created"),
            }
        }
        if std::mem::take(&mut self.producer.renewing) && self.window.is_some() {
            self.release();
        }
    }

    fn target_batching(&self) -> Batching {
        let settings = self.shared.settings(self.shared.config.ingest_topic());
        let alone = self.producer.alone_at == Some(settings.batch_bytes_max);
        Batching::within(&settings, alone)
    }

    /// Executes the jobs that were waiting.
    fn release(&mut self) {
        for (_, job) in std::mem::take(&mut self.held) {
            self.job(job);
        }
    }

    fn reject(&self, job: AppendJob, error: &LogError) {
        if let AppendJob::Append { bytes, done, .. } = job {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            done(Err(error.clone()));
        }
    }

    /// Begins to read the end of the topic, if there is no deduplication window. The call does
    /// nothing while an append is pending, because the window would not contain the events of that
    /// append.
    fn read_tail(&mut self) {
        if self.window.is_some() || !self.calls.is_empty() || self.closing {
            return;
        }
        if self.reading.is_some_and(|started| started.elapsed() < AGAIN * 60) {
            return;
        }
        let size = self.shared.config.dedup_window_events;
        if size == 0 {
            return self.known(Ok(DeduplicationWindow::new(0)));
        }
        self.reading = Some(Instant::now());
        let (shared, context) = (Arc::clone(&self.shared), self.context.clone());
        let jobs = self.jobs.clone();
        let spawned = std::thread::Builder::new().name("kafka-tail".into()).spawn(move || {
            let topic = shared.config.ingest_topic();
            let window = recent_events::read(&shared, &context, topic);
            if window.is_err() {
                std::thread::sleep(AGAIN);
            }
            // If there is no receiver, the log is closed.
            let _ = jobs.send(AppendJob::Tail(window));
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "the topic's end cannot be read");
            self.reading = None;
        }
    }

    fn known(&mut self, window: KafkaResult<DeduplicationWindow>) {
        self.reading = None;
        match window {
            Ok(window) => {
                self.window = Some(window);
                self.release();
            }
            Err(error) => tracing::debug!(%error, "the topic's end cannot be read now"),
        }
    }

    /// Refuses appends that have waited too long for the window.
    fn expire(&mut self) {
        let most = Duration::from_millis(self.shared.config.delivery_ms_max);
        while self.held.front().is_some_and(|(since, _)| since.elapsed() >= most) {
            if let Some((since, job)) = self.held.pop_front() {
                let why = self.shared.unavailable_message(Some(since.elapsed()));
                self.reject(job, &LogError::Unavailable(why.into()));
            }
        }
    }

    fn append(&mut self, events: &Events, to: Option<PartitionId>, bytes: usize, done: AppendDone) {
        let topic = self.topic(to);
        let check = EventCheck::new(&self.shared.config, topic, &self.shared.settings(topic));
        if let Some((index, reason)) = check.first(events.iter().enumerate()) {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return done(Err(LogError::Rejected { index, appended: 0, reason }));
        }
        let number = self.next_call;
        self.next_call += 1;
        let nowhere = AppendedEvent {
            partition: PartitionId(0),
            offset: Offset(0),
            duplicate: false,
            differs: false,
        };
        let mut call = PendingAppend {
            left: 0,
            appended: vec![nowhere; events.len()],
            accepted: 0,
            failed: None,
            rejected: None,
            bytes,
            done,
        };
        for (index, event) in events.iter().enumerate() {
            let window = self.window.as_ref().filter(|window| window.is_on());
            let identity = window.map(|_| identity(&event));
            if let (Some(window), Some(identity)) = (window, &identity)
                && let Some(KnownEvent { partition, offset, differs }) = window.find(identity)
            {
                call.appended[index] =
                    AppendedEvent { partition, offset, duplicate: true, differs };
                call.accepted += 1;
                continue;
            }
            if let Some(identity) = identity
                && let Some(others) = self.pending.get_mut(&identity)
            {
                others.push((number, index, identity.content));
                call.left += 1;
                continue;
            }
            let delivery = DeliveryId { call: number, index, identity };
            match self.send(&event, to, delivery) {
                Ok(()) => {
                    call.left += 1;
                    if let Some(identity) = identity {
                        self.pending.insert(identity, Vec::new());
                    }
                }
                Err(error) => match refused_here(&event, &error) {
                    Some(reason) => {
                        call.rejected.get_or_insert((index, reason));
                    }
                    None => {
                        call.failed = Some(error.to_string());
                        break;
                    }
                },
            }
        }
        self.calls.insert(number, call);
        self.complete(number);
    }

    /// Returns the topic of the partition `to`, or the ingest topic if `to` is `None`.
    fn topic(&self, to: Option<PartitionId>) -> &str {
        let part = to.and_then(|to| self.shared.parts.get(to.0 as usize));
        part.map_or(self.shared.config.ingest_topic(), |part| &part.topic_partition.topic)
    }

    fn send(
        &self,
        event: &EventRef<'_>,
        to: Option<PartitionId>,
        delivery: DeliveryId,
    ) -> KafkaResult<()> {
        let config = &self.shared.config;
        let key = record_encoding::key(event, config.key);
        let topic_partition = to
            .and_then(|to| self.shared.parts.get(to.0 as usize))
            .map(|part| &part.topic_partition);
        let topic = self.topic(to);
        let mut record: BaseRecord<'_, str, [u8], Box<DeliveryId>> =
            BaseRecord::with_opaque_to(topic, Box::new(delivery))
                .payload(event.data)
                .headers(record_encoding::headers(event, &[]));
        if let Some(key) = &key {
            record = record.key(key);
        }
        if let Some(topic_partition) = topic_partition {
            record = record.partition(topic_partition.partition);
        }
        self.producer.client.send(record).map_err(|(error, _)| error)
    }

    fn delivered(&mut self, delivery: &DeliveryId, outcome: Result<(i32, u64), Undelivered>) {
        let outcome = match outcome {
            Ok((partition, offset)) => Ok((self.number(partition), Offset(offset))),
            Err(undelivered) => Err(self.failure(&undelivered)),
        };
        let others = delivery.identity.and_then(|identity| self.pending.remove(&identity));
        if let (Ok((partition, offset)), Some(identity), Some(window)) =
            (&outcome, delivery.identity, &mut self.window)
        {
            window.push(identity, *partition, *offset);
            window.trim();
        }
        if let Ok((partition, offset)) = &outcome
            && let Ok(part) = self.shared.part(*partition)
        {
            part.state.lock().raise_end(offset.0 + 1);
        }
        self.set_outcome(delivery.call, delivery.index, &outcome, None);
        let first = delivery.identity.map(|identity| identity.content);
        // Events with the same identity can have different content. So the refusal of one says
        // nothing about the others: their senders are asked to send them again.
        let outcome = outcome.map_err(|failure| match failure {
            RecordFailure::Rejected(_) => RecordFailure::Unavailable("send it again".into()),
            other => other,
        });
        for (call, index, content) in others.into_iter().flatten() {
            self.set_outcome(call, index, &outcome, Some(first != Some(content)));
        }
    }

    /// Returns why the broker refused a record. The call also changes the state of the thread as
    /// the reason requires.
    fn failure(&mut self, undelivered: &Undelivered) -> RecordFailure {
        let topic = self.shared.config.ingest_topic();
        let settings = self.shared.settings(topic);
        let failure = verdict(undelivered, topic, &settings, self.producer.batching);
        match &failure {
            // The record is certainly not in the topic, so the deduplication window is still
            // correct.
            RecordFailure::Rejected(_) => {}
            RecordFailure::Together => {
                (self.producer.alone_at, self.producer.renewing) =
                    (Some(settings.batch_bytes_max), true);
            }
            RecordFailure::Unavailable(why)
                if self.window.as_ref().is_some_and(DeduplicationWindow::is_on) =>
            {
                tracing::warn!(%why, "a record was not delivered: the end of the topic is read again");
                self.window = None;
            }
            RecordFailure::Unavailable(_) => {}
        }
        failure
    }

    fn set_outcome(
        &mut self,
        number: u64,
        index: usize,
        outcome: &Result<(PartitionId, Offset), RecordFailure>,
        duplicate: Option<bool>,
    ) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.left -= 1;
        match outcome {
            Ok((partition, offset)) => {
                let (partition, offset) = (*partition, *offset);
                let (duplicate, differs) = (duplicate.is_some(), duplicate == Some(true));
                call.appended[index] = AppendedEvent { partition, offset, duplicate, differs };
                call.accepted += 1;
            }
            Err(RecordFailure::Rejected(reason)) => {
                let first = call.rejected.as_ref().is_none_or(|(known, _)| index < *known);
                if first {
                    call.rejected = Some((index, reason.clone()));
                }
            }
            Err(RecordFailure::Together) => {
                call.failed = Some("the batch of records was too large for the topic".into());
            }
            Err(RecordFailure::Unavailable(why)) => call.failed = Some(why.clone()),
        }
        self.complete(number);
    }

    /// Answers an append once all its events are answered.
    fn complete(&mut self, number: u64) {
        if self.calls.get(&number).is_none_or(|call| call.left > 0) {
            return;
        }
        let Some(call) = self.calls.remove(&number) else { return };
        self.bytes.fetch_sub(call.bytes, Ordering::AcqRel);
        let duplicates = call.appended.iter().filter(|event| event.duplicate).count();
        metrics::counter!("lantern_log_events_total")
            .increment((call.accepted - duplicates) as u64);
        metrics::counter!("lantern_log_duplicates_total").increment(duplicates as u64);
        let differing: Vec<_> = call.appended.iter().filter(|event| event.differs).collect();
        metrics::counter!("lantern_log_differing_duplicates_total")
            .increment(differing.len() as u64);
        for AppendedEvent { partition, offset, .. } in differing {
            tracing::warn!(
                %partition, %offset,
                "an event was not appended: the event at this offset has the same tenant, source and id, but other content"
            );
        }
        (call.done)(match (call.rejected, call.failed) {
            (Some((index, reason)), _) => {
                Err(LogError::Rejected { index, appended: call.accepted, reason })
            }
            (None, None) => Ok(Appended { events: call.appended }),
            (None, Some(why)) => {
                Err(LogError::Unavailable(format!("Kafka did not accept it: {why}").into()))
            }
        });
    }

    /// Returns the number of a partition of the ingest topic. A partition that was added since the
    /// server started gets its number now. The log reads such a partition only after the next
    /// start.
    fn number(&self, partition: i32) -> PartitionId {
        let topic: Box<str> = self.shared.config.ingest_topic().into();
        let mut table = self.table.lock();
        let topic_partition = TopicPartition { topic, partition };
        if table.number(&topic_partition).is_none() {
            table.extend(&topic_partition.topic, partition + 1);
            if let Err(error) = table.save() {
                tracing::error!(%error, "the table of partitions cannot be written");
            }
        }
        PartitionId(table.number(&topic_partition).unwrap_or(u32::MAX))
    }
}
