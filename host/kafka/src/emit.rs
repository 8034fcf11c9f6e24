//! What plugins emit, each event once.
//!
//! A shard's outbox is in its file's transactions, and numbers its events. Here
//! each outbox has a producer with a transactional id of its own, and every
//! transaction that writes events also commits, to a consumer group of the
//! outbox's own, the number that comes next. After a crash, whoever takes the
//! outbox up again first fences the producer before it, which ends its
//! transaction one way or the other, and then reads that number: so it is known
//! what was sent, and nothing is sent twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{
    AppendDone, Appended, Emitted, EventRef, LogError, RejectedEvent, Window, identity_of,
};
use parking_lot::Mutex;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, attend, base, consumer, pass};
use crate::shared::Shared;
use crate::topic_settings::{
    Batching, EventCheck, Failure, TopicSettings, Undelivered, refused_here, verdict,
};
use crate::{tail, written};

/// Threads that send; a transaction waits for the broker several times.
const THREADS: usize = 2;
/// The most outboxes with a producer at a time.
const SENDERS_MAX: usize = 32;
/// How long one step of a transaction may take.
const STEP: Duration = Duration::from_secs(15);
/// What a consumer that reads nothing fetches ahead, in bytes.
const NOTHING: usize = 64 << 10;

/// Sends what plugins emit.
pub(crate) struct Emitter {
    jobs: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Job {
    emitted: Emitted,
    done: AppendDone,
}

/// Everything the threads share.
struct Outboxes {
    shared: Arc<Shared>,
    context: Context,
    instance: String,
    senders: Mutex<HashMap<String, Used>>,
    /// See [`crate::append`]: the limit of the topic at which batches were too large
    /// although no record was.
    alone_at: Mutex<Option<Option<usize>>>,
}

/// When it was used last, and the one that sends.
type Used = (Instant, Arc<Mutex<OutboxSender>>);

/// Sends one outbox.
struct OutboxSender {
    producer: BaseProducer<Outgoing>,
    /// Names the group, and reads what was committed to it.
    group: BaseConsumer<Context>,
    /// Everything below this number was sent.
    next: u64,
    /// Where nobody knows that number any more: what the topic holds.
    known: Option<Window>,
}

/// Why a transaction failed.
enum Fault {
    Kafka(KafkaError),
    /// The event with this index cannot be sent; no transaction was begun, or it was
    /// aborted.
    Rejected(usize, RejectedEvent),
    /// The record with this index among the events was not taken.
    Record(usize, Undelivered),
}

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// The producers' context: a record that fails makes its transaction fail.
struct Outgoing {
    base: Context,
    /// The first record that failed since a transaction was begun.
    failed: Mutex<Option<(usize, Undelivered)>>,
}

impl ClientContext for Outgoing {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.told(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.base.token()
    }
}

impl ProducerContext for Outgoing {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Err((error, message)) = result {
            self.failed.lock().get_or_insert_with(|| (*index, Undelivered::new(error, message)));
        }
    }
}

impl Emitter {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        context: &Context,
        instance: &str,
    ) -> std::io::Result<Self> {
        let (jobs, taken) = channel();
        let taken = Arc::new(Mutex::new(taken));
        let outboxes = Arc::new(Outboxes {
            shared: Arc::clone(shared),
            context: context.clone(),
            instance: instance.to_owned(),
            senders: Mutex::default(),
            alone_at: Mutex::default(),
        });
        let threads = (0..THREADS).map(|number| {
            let (outboxes, taken) = (Arc::clone(&outboxes), Arc::clone(&taken));
            std::thread::Builder::new()
                .name(format!("kafka-emit-{number}"))
                .spawn(move || outboxes.run(&taken))
        });
        Ok(Self {
            threads: Mutex::new(threads.collect::<Result<_, _>>()?),
            jobs: Mutex::new(Some(jobs)),
        })
    }

    /// See [`lantern_core::Log::emit`]. Each outbox has one stretch under way at
    /// most, which bounds what waits here.
    pub(crate) fn emit(&self, emitted: Emitted, done: AppendDone) {
        let job = Job { emitted, done };
        let refused = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).err().map(|lost| lost.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(LogError::Closed));
        }
    }

    /// Sends what waits, and ends the threads.
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
    fn run(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // The lock goes before the work begins.
            let Ok(job) = ({ jobs.lock().recv() }) else { return };
            (job.done)(self.send(&job.emitted));
        }
    }

    fn send(&self, emitted: &Emitted) -> Result<Appended, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            LogError::Unavailable(format!("Kafka has not taken emitted events: {error}"))
        };
        let topic = self.shared.config.emit_topic();
        let settings = self.shared.settings(topic);
        let check = EventCheck::new(&self.shared.config, topic, &settings);
        let sender = self.sender(emitted).map_err(|error| unavailable(&error))?;
        let sent = sender.lock().send(&self.shared, emitted, &check);
        if matches!(sent, Err(Fault::Kafka(_) | Fault::Record(..))) {
            // What became of it, the next producer finds out.
            self.senders.lock().remove(&emitted.outbox);
        }
        match sent {
            Ok(()) => {}
            Err(Fault::Rejected(index, reason)) => {
                return Err(LogError::Rejected { index, appended: 0, reason });
            }
            Err(Fault::Kafka(error)) => {
                tracing::warn!(%error, outbox = emitted.outbox, "a transaction failed");
                return Err(unavailable(&error));
            }
            Err(Fault::Record(index, undelivered)) => {
                let error = &undelivered.error;
                tracing::warn!(%error, outbox = emitted.outbox, "a transaction failed");
                let batching = self.batching(&settings);
                return Err(match verdict(&undelivered, topic, &settings, batching) {
                    Failure::Rejected(reason) => LogError::Rejected { index, appended: 0, reason },
                    Failure::Together => {
                        *self.alone_at.lock() = Some(settings.batch_bytes_max);
                        unavailable(error)
                    }
                    Failure::Unavailable(why) => unavailable(&why),
                });
            }
        }
        let topic = self.shared.config.emit_topic();
        for part in self.shared.parts.iter().filter(|part| *part.place.topic == *topic) {
            self.shared.want_bounds(part);
        }
        metrics::counter!("lantern_log_emitted_total").increment(emitted.events.len() as u64);
        Ok(Appended::default())
    }

    fn batching(&self, settings: &TopicSettings) -> Batching {
        Batching::within(settings, *self.alone_at.lock() == Some(settings.batch_bytes_max))
    }

    /// The sender of an outbox, made where there is none.
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
        pass(config, &mut client);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "15000")
            .set("transactional.id", &name);
        self.batching(&self.shared.settings(config.emit_topic())).set(&mut client);
        let outgoing = Outgoing { base: self.context.clone(), failed: Mutex::default() };
        let producer: BaseProducer<Outgoing> = client.create_with_context(outgoing)?;
        attend(config, |timeout| producer.poll(timeout));
        // Fences whoever had this outbox before, and ends what that left open.
        producer.init_transactions(STEP)?;
        let group = consumer(config, &name, NOTHING, &self.context)?;
        let place = self.place(emitted)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&place.topic, place.partition);
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
            // Something was sent, and the broker has let go of how much.
            None if emitted.first > 0 => {
                Some(tail::read(&self.shared, &self.context, config.emit_topic())?)
            }
            _ => None,
        };
        Ok(OutboxSender { producer, group, next: next.unwrap_or(emitted.first), known })
    }

    /// The partition under which an outbox's number is committed: its shard's.
    fn place(&self, emitted: &Emitted) -> KafkaResult<&crate::partitions::Place> {
        let part = self.shared.parts.get(emitted.partition.0 as usize);
        let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition);
        part.map(|part| &part.place).ok_or(unknown)
    }
}

impl OutboxSender {
    /// The events of `emitted` that are not in the topic, by index.
    fn unsent<'e>(&self, emitted: &'e Emitted) -> impl Iterator<Item = (usize, EventRef<'e>)> {
        let skip = usize::try_from(self.next.saturating_sub(emitted.first)).unwrap_or(usize::MAX);
        emitted.events.iter().enumerate().skip(skip).filter(|(_, event)| {
            let identity = || identity_of(event);
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
        // Before a transaction is begun: one that is aborted leaves records, too.
        if let Some((index, reason)) = check.first(self.unsent(emitted)) {
            return Err(Fault::Rejected(index, reason));
        }
        attend(&shared.config, |timeout| drop(self.group.poll(timeout)));
        attend(&shared.config, |timeout| self.producer.poll(timeout));
        *self.producer.client().context().failed.lock() = None;
        self.producer.begin_transaction()?;
        let transaction = self.transact(shared, emitted, end);
        if let Err(error) = transaction {
            // If this fails too, the broker ends it after its timeout, or the next
            // producer does.
            if let Err(error) = self.producer.abort_transaction(STEP) {
                tracing::debug!(%error, "a transaction could not be aborted");
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
        if let Some((index, undelivered)) = self.producer.client().context().failed.lock().take() {
            return Err(Fault::Record(index, undelivered));
        }
        flushed?;
        let part = &shared.parts[emitted.partition.0 as usize];
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = KafkaOffset::Offset(i64::try_from(end).unwrap_or(i64::MAX));
        list.add_partition_offset(&part.place.topic, part.place.partition, offset)?;
        let group = self.group.group_metadata().ok_or(KafkaError::Canceled)?;
        self.producer.send_offsets_to_transaction(&list, &group, STEP)?;
        Ok(self.producer.commit_transaction(STEP)?)
    }

    fn produce(&self, shared: &Shared, event: &EventRef<'_>, index: usize) -> Result<(), Fault> {
        let config = &shared.config;
        let key = written::key(event, config.key);
        let headers = written::headers(event, &[]);
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
