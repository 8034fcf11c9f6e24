//! Appends emitted events exactly once.
//!
//! A shard's outbox is stored in its state file, and the events in it are numbered. Each outbox has
//! a producer with a transactional id of its own. A Kafka transaction writes events. It also
//! commits the number of the next event to a consumer group of the outbox.
//!
//! After a crash, the next producer of the outbox first fences the previous one: the broker
//! completes or aborts the open transaction. Then the new producer reads the committed number and
//! skips the events below it. So no event is sent twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{
    AppendDone, Appended, DeduplicationWindow, Emitted, EventRef, LogError, RejectedEvent, identity,
};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, DeliveryContext, apply_properties, base, consumer, poll_for_token};
use crate::shared::Shared;
use crate::topic_settings::{
    Batching, EventCheck, RecordFailure, TopicSettings, Undelivered, refused_here, verdict,
};
use crate::{recent_events, record_encoding};

/// The number of threads that send events. There are several, because a transaction waits for the
/// broker several times.
const THREADS: usize = 2;
/// The maximum number of producers that are kept open.
const SENDERS_MAX: usize = 32;
/// The maximum time for one step of a transaction.
const STEP: Duration = Duration::from_secs(15);
/// The memory into which a consumer that reads no records may fetch records, in bytes.
const NOTHING: usize = 64 << 10;

/// Sends emitted events to Kafka.
pub(crate) struct Emitter {
    jobs: Mutex<Option<Sender<EmitJob>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct EmitJob {
    emitted: Emitted,
    done: AppendDone,
}

/// What the threads that send events share.
struct Outboxes {
    shared: Arc<Shared>,
    context: Context,
    instance: String,
    senders: Mutex<HashMap<String, LastUse>>,
    /// The topic's size limit at the time when the broker refused a batch as too large although
    /// each of its records was small enough; `None` if there was no such refusal, `Some(None)` if
    /// the limit was not known. [`crate::append_producer`] uses the same rule.
    alone_at: Mutex<Option<Option<usize>>>,
}

/// The sender of an outbox, with the time of its last use.
type LastUse = (Instant, Arc<Mutex<OutboxSender>>);

/// Sends the events of one outbox.
struct OutboxSender {
    producer: BaseProducer<Outgoing>,
    /// The consumer of the outbox's group, which reads the number that the group has committed.
    group: BaseConsumer<Context>,
    /// The number of the first event that was not sent.
    next: u64,
    /// The newest events of the topic. The consumer group stores the number of the next event to
    /// send. If the broker has lost this number, only the topic shows which events were sent, so
    /// the newest events are read.
    known: Option<DeduplicationWindow>,
}

/// The reason why a transaction failed.
enum Fault {
    Kafka(KafkaError),
    /// The event with this index can never be sent. No transaction was begun, or it was aborted.
    Rejected(usize, RejectedEvent),
    /// The broker refused the record of the event with this index.
    Record(usize, Undelivered),
}

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// The context of a producer. It stores the first undelivered record of the current transaction,
/// with the index of its event. If there is such a record, the whole transaction fails.
type Outgoing = DeliveryContext<Mutex<Option<(usize, Undelivered)>>>;

impl ProducerContext for Outgoing {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Err((error, message)) = result {
            self.outcomes.lock().get_or_insert_with(|| (*index, Undelivered::new(error, message)));
        }
    }
}

impl Emitter {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        context: &Context,
        instance: &str,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let outboxes = Arc::new(Outboxes {
            shared: Arc::clone(shared),
            context: context.clone(),
            instance: instance.to_owned(),
            senders: Mutex::default(),
            alone_at: Mutex::default(),
        });
        let threads = (0..THREADS).map(|number| {
            let (outboxes, receiver) = (Arc::clone(&outboxes), Arc::clone(&receiver));
            std::thread::Builder::new()
                .name(format!("kafka-emit-{number}"))
                .spawn(move || outboxes.run(&receiver))
        });
        Ok(Self {
            threads: Mutex::new(threads.collect::<Result<_, _>>()?),
            jobs: Mutex::new(Some(jobs)),
        })
    }

    /// Sends emitted events as [`lantern_core::Log::emit`] describes. The queue of jobs needs no
    /// limit, because each outbox has at most one pending call.
    pub(crate) fn emit(&self, emitted: Emitted, done: AppendDone) {
        let job = EmitJob { emitted, done };
        let refused = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).err().map(|lost| lost.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(LogError::Closed));
        }
    }

    /// Sends the waiting events, and ends the threads.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().take());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that sends emitted events panicked");
            }
        }
    }
}

impl Outboxes {
    fn run(&self, jobs: &Mutex<Receiver<EmitJob>>) {
        loop {
            // The lock is released before the job is executed.
            let Ok(job) = ({ jobs.lock().recv() }) else { return };
            (job.done)(self.send(&job.emitted));
        }
    }

    fn send(&self, emitted: &Emitted) -> Result<Appended, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            LogError::Unavailable(format!("Kafka did not accept emitted events: {error}").into())
        };
        let topic = self.shared.config.emit_topic();
        let settings = self.shared.settings(topic);
        let check = EventCheck::new(&self.shared.config, topic, &settings);
        let sender = self.sender(emitted).map_err(|error| unavailable(&error))?;
        let sent = sender.lock().send(&self.shared, emitted, &check);
        if matches!(sent, Err(Fault::Kafka(_) | Fault::Record(..))) {
            // The transaction may be committed or not. The next producer of the outbox asks the
            // broker.
            self.senders.lock().remove(&emitted.outbox);
        }
        match sent {
            Ok(()) => {}
            Err(Fault::Rejected(index, reason)) => {
                return Err(LogError::Rejected { index, appended: 0, reason });
            }
            Err(Fault::Kafka(error)) => {
                tracing::warn!(%error, outbox = emitted.outbox, "a transaction with emitted events failed");
                return Err(unavailable(&error));
            }
            Err(Fault::Record(index, undelivered)) => {
                let error = &undelivered.error;
                tracing::warn!(%error, outbox = emitted.outbox, "a transaction with emitted events failed");
                let batching = self.batching(&settings);
                return Err(match verdict(&undelivered, topic, &settings, batching) {
                    RecordFailure::Rejected(reason) => {
                        LogError::Rejected { index, appended: 0, reason }
                    }
                    RecordFailure::Together => {
                        *self.alone_at.lock() = Some(settings.batch_bytes_max);
                        unavailable(error)
                    }
                    RecordFailure::Unavailable(why) => unavailable(&why),
                });
            }
        }
        let topic = self.shared.config.emit_topic();
        for part in self.shared.parts.iter().filter(|part| *part.topic_partition.topic == *topic) {
            self.shared.want_bounds(part);
        }
        metrics::counter!("lantern_log_emitted_total").increment(emitted.events.len() as u64);
        Ok(Appended::default())
    }

    fn batching(&self, settings: &TopicSettings) -> Batching {
        Batching::within(settings, *self.alone_at.lock() == Some(settings.batch_bytes_max))
    }

    /// Returns the sender of an outbox. If there is none, it is created.
    fn sender(&self, emitted: &Emitted) -> KafkaResult<Arc<Mutex<OutboxSender>>> {
        {
            let mut senders = self.senders.lock();
            if let Some((used, sender)) = senders.get_mut(&emitted.outbox) {
                *used = Instant::now();
                return Ok(Arc::clone(sender));
            }
            if senders.len() >= SENDERS_MAX {
                let oldest = senders.iter().min_by_key(|(_, (used, _))| *used);
                let oldest = oldest.map(|(outbox, _)| outbox.clone());
                oldest.and_then(|outbox| senders.remove(&outbox));
            }
        }
        let sender = self.open(emitted)?;
        let sender = Arc::new(Mutex::new(sender));
        let entry = (Instant::now(), Arc::clone(&sender));
        self.senders.lock().insert(emitted.outbox.clone(), entry);
        Ok(sender)
    }

    fn open(&self, emitted: &Emitted) -> KafkaResult<OutboxSender> {
        let config = &self.shared.config;
        let name = format!("{}emitted.{}.{}", config.group_prefix, self.instance, emitted.outbox);
        let mut client = base(config);
        client
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("message.max.bytes", "16777216")
            .set("transaction.timeout.ms", "15000");
        apply_properties(config, &mut client);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "15000")
            .set("transactional.id", &name);
        self.batching(&self.shared.settings(config.emit_topic())).set(&mut client);
        let outgoing = Outgoing::new(&self.context, Mutex::default());
        let producer: BaseProducer<Outgoing> = client.create_with_context(outgoing)?;
        poll_for_token(config, |timeout| producer.poll(timeout));
        // This fences the previous producer of the outbox, and ends its open transaction.
        producer.init_transactions(STEP)?;
        let group = consumer(config, &name, NOTHING, &self.context)?;
        let topic_partition = self.topic_partition(emitted)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&topic_partition.topic, topic_partition.partition);
        let committed = group.committed_offsets(list, STEP)?;
        let offset = committed
            .elements()
            .first()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::offset);
        let next = match offset {
            Some(KafkaOffset::Offset(next)) => u64::try_from(next).ok(),
            _ => None,
        };
        let known = match next {
            // Events were sent before, but the broker has lost the number that the group committed.
            None if emitted.first > 0 => {
                Some(recent_events::read(&self.shared, &self.context, config.emit_topic())?)
            }
            _ => None,
        };
        Ok(OutboxSender { producer, group, next: next.unwrap_or(emitted.first), known })
    }

    /// Returns the topic partition under which the consumer group stores the number of the outbox's
    /// next event. This is the partition of the shard.
    fn topic_partition(
        &self,
        emitted: &Emitted,
    ) -> KafkaResult<&crate::partitions::TopicPartition> {
        let part = self.shared.parts.get(emitted.partition.0 as usize);
        let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition);
        part.map(|part| &part.topic_partition).ok_or(unknown)
    }
}

impl OutboxSender {
    /// Returns the events of `emitted` that are not in the topic yet, with their indexes.
    fn unsent<'e>(&self, emitted: &'e Emitted) -> impl Iterator<Item = (usize, EventRef<'e>)> {
        let skip = usize::try_from(self.next.saturating_sub(emitted.first)).unwrap_or(usize::MAX);
        emitted.events.iter().enumerate().skip(skip).filter(|(_, event)| {
            let identity = || identity(event);
            self.known.as_ref().is_none_or(|known| known.find(&identity()).is_none())
        })
    }

    fn send(
        &mut self,
        shared: &Shared,
        emitted: &Emitted,
        check: &EventCheck<'_>,
    ) -> Result<(), Fault> {
        let end = emitted.first + emitted.events.len() as u64;
        if end <= self.next {
            return Ok(());
        }
        // This is checked before a transaction begins, because even an aborted transaction leaves
        // records in the topic.
        if let Some((index, reason)) = check.first(self.unsent(emitted)) {
            return Err(Fault::Rejected(index, reason));
        }
        poll_for_token(&shared.config, |timeout| drop(self.group.poll(timeout)));
        poll_for_token(&shared.config, |timeout| self.producer.poll(timeout));
        *self.producer.client().context().outcomes.lock() = None;
        self.producer.begin_transaction()?;
        let transaction = self.transact(shared, emitted, end);
        if let Err(error) = transaction {
            // If the transaction cannot be aborted now, it is aborted later: by the broker after
            // its timeout, or by the next producer.
            if let Err(error) = self.producer.abort_transaction(STEP) {
                tracing::debug!(%error, "a transaction with emitted events could not be aborted");
            }
            return Err(error);
        }
        self.next = end;
        self.known = None;
        Ok(())
    }

    fn transact(&self, shared: &Shared, emitted: &Emitted, end: u64) -> Result<(), Fault> {
        for (index, event) in self.unsent(emitted) {
            self.produce(shared, &event, index)?;
        }
        let flushed = self.producer.flush(STEP);
        if let Some((index, undelivered)) = self.producer.client().context().outcomes.lock().take()
        {
            return Err(Fault::Record(index, undelivered));
        }
        flushed?;
        let part = &shared.parts[emitted.partition.0 as usize];
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = KafkaOffset::Offset(i64::try_from(end).unwrap_or(i64::MAX));
        list.add_partition_offset(
            &part.topic_partition.topic,
            part.topic_partition.partition,
            offset,
        )?;
        let group = self.group.group_metadata().ok_or(KafkaError::Canceled)?;
        self.producer.send_offsets_to_transaction(&list, &group, STEP)?;
        Ok(self.producer.commit_transaction(STEP)?)
    }

    fn produce(&self, shared: &Shared, event: &EventRef<'_>, index: usize) -> Result<(), Fault> {
        let config = &shared.config;
        let key = record_encoding::key(event, config.key);
        let headers = record_encoding::headers(event, &[]);
        let until = Instant::now() + STEP;
        loop {
            let mut record: BaseRecord<'_, str, [u8], Box<usize>> =
                BaseRecord::with_opaque_to(config.emit_topic(), Box::new(index))
                    .payload(event.data)
                    .headers(headers.clone());
            if let Some(key) = &key {
                record = record.key(key);
            }
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if Instant::now() < until =>
                {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => {
                    let refused = refused_here(event, &error);
                    return Err(refused
                        .map_or(Fault::Kafka(error), |reason| Fault::Rejected(index, reason)));
                }
            }
        }
    }
}
