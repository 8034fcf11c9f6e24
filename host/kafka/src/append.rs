//! Appends: an idempotent producer, and a thread that knows which events were
//! sent before.
//!
//! An event is acknowledged once the broker has it. Where it is not known whether
//! the broker has it, nobody is told that it does, and the end of the topic is
//! read again before anything else is appended: so an event that is sent again is
//! known again, although its first sending was never acknowledged.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{
    AppendDone, Appended, AppendedEvent, EventRef, Events, Identity, LogError, Offset, PartitionId,
    Window, identity_of,
};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::client::{Context, base, pass};
use crate::partitions::{Place, Table};
use crate::shared::Shared;
use crate::tail;
use crate::written;

/// What a record takes in the producer beside its event, in bytes.
const RECORD_BYTES: usize = 768;
/// How often what waits is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long the end may take to be read again before that is tried anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes appends.
pub(crate) struct Appender {
    jobs: Sender<Job>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Job {
    Append { events: Box<Events>, to: Option<PartitionId>, bytes: usize, done: AppendDone },
    Delivered { ticket: Ticket, outcome: Result<(i32, u64), String> },
    Tail(KafkaResult<Window>),
    Close,
}

/// What belongs to a record on its way.
pub(crate) struct Ticket {
    call: u64,
    index: usize,
    identity: Option<Identity>,
}

/// The producer's context: hands outcomes on.
pub(crate) struct Deliveries {
    base: Context,
    jobs: Sender<Job>,
}

impl ClientContext for Deliveries {
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

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), u64::try_from(message.offset()).unwrap_or(0))),
            Err((error, _)) => Err(error.to_string()),
        };
        // Nobody listens once the log is closed.
        let _ = self.jobs.send(Job::Delivered { ticket: *ticket, outcome });
    }
}

impl Appender {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        table: &Arc<Mutex<Table>>,
        context: &Context,
    ) -> KafkaResult<Self> {
        let (jobs, taken) = channel();
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
        pass(config, &mut client);
        client.set("enable.idempotence", "true").set("acks", "all");
        let deliveries = Deliveries { base: context.clone(), jobs: jobs.clone() };
        let producer: ThreadedProducer<Deliveries> = client.create_with_context(deliveries)?;
        let settings = client;
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut worker = Worker {
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            context: context.clone(),
            producer,
            settings,
            jobs: jobs.clone(),
            bytes: Arc::clone(&bytes),
            window: None,
            under_way: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            held: VecDeque::new(),
            reading: None,
            closing: false,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-append".into())
            .spawn(move || worker.run(&taken))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let limit = config.queue_bytes;
        Ok(Self { jobs, bytes, limit, thread: Mutex::new(Some(thread)) })
    }

    /// See [`lantern_core::Log::append`]; into partition `to`, where given.
    pub(crate) fn append(&self, events: Events, to: Option<PartitionId>, done: AppendDone) {
        let bytes = events.bytes() + events.len() * RECORD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        // One alone always fits, or it never would.
        if before > 0 && before + bytes > self.limit {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            let waiting = format!(
                "{before} bytes wait for Kafka already (`log.kafka.queue_bytes` is {})",
                self.limit
            );
            return done(Err(LogError::Unavailable(waiting)));
        }
        let job = Job::Append { events: Box::new(events), to, bytes, done };
        if let Err(lost) = self.jobs.send(job)
            && let Job::Append { done, .. } = lost.0
        {
            done(Err(LogError::Closed));
        }
    }

    /// Takes no more, and waits for what is on its way.
    pub(crate) fn close(&self) {
        // It has ended already where nobody listens.
        let _ = self.jobs.send(Job::Close);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of appends panicked");
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    table: Arc<Mutex<Table>>,
    context: Context,
    producer: ThreadedProducer<Deliveries>,
    settings: ClientConfig,
    jobs: Sender<Job>,
    bytes: Arc<AtomicUsize>,
    /// The newest events by identity; `None` while the topic's end is to be read.
    window: Option<Window>,
    /// Events on their way, and who else sent them.
    under_way: HashMap<Identity, Vec<(u64, usize)>>,
    calls: HashMap<u64, Call>,
    next_call: u64,
    /// What waits for the window.
    held: VecDeque<(Instant, Job)>,
    /// When the topic's end was begun to be read.
    reading: Option<Instant>,
    closing: bool,
}

/// An append under way.
struct Call {
    left: usize,
    placed: Vec<AppendedEvent>,
    failed: Option<String>,
    bytes: usize,
    done: AppendDone,
}

impl Worker {
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(TICK) {
                Ok(job) => self.job(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.renew();
            if self.shared.remade.swap(false, Ordering::AcqRel) {
                self.window = None;
            }
            self.read_tail();
            self.expire();
            if self.closing && self.calls.is_empty() {
                for (_, job) in std::mem::take(&mut self.held) {
                    self.refuse(job, &LogError::Closed);
                }
                return;
            }
        }
    }

    fn job(&mut self, job: Job) {
        match job {
            Job::Append { .. } if self.closing => self.refuse(job, &LogError::Closed),
            Job::Append { .. } if self.window.is_none() => {
                self.held.push_back((Instant::now(), job));
            }
            Job::Append { events, to, bytes, done } => self.append(&events, to, bytes, done),
            Job::Delivered { ticket, outcome } => self.delivered(&ticket, outcome),
            Job::Tail(window) => self.known(window),
            Job::Close => self.closing = true,
        }
    }

    /// Makes another producer in the place of one that has given up, as it does
    /// where the broker has lost what it had acknowledged.
    fn renew(&mut self) {
        if !self.calls.is_empty() || self.producer.client().fatal_error().is_none() {
            return;
        }
        let deliveries = Deliveries { base: self.context.clone(), jobs: self.jobs.clone() };
        match self.settings.create_with_context(deliveries) {
            Ok(producer) => {
                tracing::warn!("the producer has given up, and another takes its place");
                (self.producer, self.window) = (producer, None);
            }
            Err(error) => tracing::error!(%error, "no producer can be made"),
        }
    }

    fn refuse(&self, job: Job, error: &LogError) {
        if let Job::Append { bytes, done, .. } = job {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            done(Err(error.clone()));
        }
    }

    /// Has the topic's end read, where that is to be done and nothing is on its
    /// way that would be missed.
    fn read_tail(&mut self) {
        if self.window.is_some() || !self.calls.is_empty() || self.closing {
            return;
        }
        if self.reading.is_some_and(|began| began.elapsed() < AGAIN * 60) {
            return;
        }
        let size = self.shared.config.dedup_window_events;
        if size == 0 {
            return self.known(Ok(Window::new(0)));
        }
        self.reading = Some(Instant::now());
        let (shared, context) = (Arc::clone(&self.shared), self.context.clone());
        let jobs = self.jobs.clone();
        let spawned = std::thread::Builder::new().name("kafka-tail".into()).spawn(move || {
            let topic = shared.config.ingest_topic();
            let window = tail::read(&shared, &context, topic);
            if window.is_err() {
                std::thread::sleep(AGAIN);
            }
            // Nobody listens once the log is closed.
            let _ = jobs.send(Job::Tail(window));
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "the topic's end cannot be read");
            self.reading = None;
        }
    }

    fn known(&mut self, window: KafkaResult<Window>) {
        self.reading = None;
        match window {
            Ok(window) => {
                self.window = Some(window);
                for (_, job) in std::mem::take(&mut self.held) {
                    self.job(job);
                }
            }
            Err(error) => tracing::debug!(%error, "the topic's end cannot be read now"),
        }
    }

    /// Refuses what has waited too long.
    fn expire(&mut self) {
        let most = Duration::from_millis(self.shared.config.delivery_ms_max);
        while self.held.front().is_some_and(|(since, _)| since.elapsed() >= most) {
            if let Some((since, job)) = self.held.pop_front() {
                let why = self.shared.away(Some(since.elapsed()));
                self.refuse(job, &LogError::Unavailable(why));
            }
        }
    }

    fn append(&mut self, events: &Events, to: Option<PartitionId>, bytes: usize, done: AppendDone) {
        let number = self.next_call;
        self.next_call += 1;
        let nowhere =
            AppendedEvent { partition: PartitionId(0), offset: Offset(0), duplicate: false };
        let mut call =
            Call { left: 0, placed: vec![nowhere; events.len()], failed: None, bytes, done };
        for (index, event) in events.iter().enumerate() {
            let window = self.window.as_ref().filter(|window| window.is_on());
            let identity =
                window.map(|_| identity_of(event.source.as_bytes(), event.id.as_bytes()));
            if let (Some(window), Some(identity)) = (window, &identity)
                && let Some((partition, offset)) = window.find(identity)
            {
                call.placed[index] = AppendedEvent { partition, offset, duplicate: true };
                continue;
            }
            if let Some(identity) = identity
                && let Some(others) = self.under_way.get_mut(&identity)
            {
                others.push((number, index));
                call.left += 1;
                continue;
            }
            let ticket = Ticket { call: number, index, identity };
            match self.send(&event, to, ticket) {
                Ok(()) => {
                    call.left += 1;
                    if let Some(identity) = identity {
                        self.under_way.insert(identity, Vec::new());
                    }
                }
                Err(error) => {
                    call.failed = Some(error.to_string());
                    break;
                }
            }
        }
        self.calls.insert(number, call);
        self.settle(number);
    }

    fn send(
        &self,
        event: &EventRef<'_>,
        to: Option<PartitionId>,
        ticket: Ticket,
    ) -> KafkaResult<()> {
        let config = &self.shared.config;
        let key = written::key(event, config.key);
        let place = to.and_then(|to| self.shared.parts.get(to.0 as usize)).map(|part| &part.place);
        let topic = place.map_or(config.ingest_topic(), |place| &*place.topic);
        let mut record: BaseRecord<'_, str, [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(topic, Box::new(ticket))
                .payload(event.data)
                .headers(written::headers(event, &[]));
        if let Some(key) = &key {
            record = record.key(key);
        }
        if let Some(place) = place {
            record = record.partition(place.partition);
        }
        self.producer.send(record).map_err(|(error, _)| error)
    }

    fn delivered(&mut self, ticket: &Ticket, outcome: Result<(i32, u64), String>) {
        let outcome = outcome.map(|(partition, offset)| (self.number(partition), Offset(offset)));
        let others = ticket.identity.and_then(|identity| self.under_way.remove(&identity));
        if let (Ok((partition, offset)), Some(identity), Some(window)) =
            (&outcome, ticket.identity, &mut self.window)
        {
            window.push(identity, *partition, *offset);
            window.trim();
        }
        if let Err(why) = &outcome
            && self.window.as_ref().is_some_and(Window::is_on)
        {
            tracing::warn!(%why, "a record was not taken: the topic's end is read again");
            self.window = None;
        }
        if let Ok((partition, offset)) = &outcome
            && let Ok(part) = self.shared.part(*partition)
        {
            part.state.lock().tell_end(offset.0 + 1);
        }
        self.place(ticket.call, ticket.index, &outcome, false);
        for (call, index) in others.into_iter().flatten() {
            self.place(call, index, &outcome, true);
        }
    }

    fn place(
        &mut self,
        number: u64,
        index: usize,
        outcome: &Result<(PartitionId, Offset), String>,
        duplicate: bool,
    ) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.left -= 1;
        match outcome {
            Ok((partition, offset)) => {
                let (partition, offset) = (*partition, *offset);
                call.placed[index] = AppendedEvent { partition, offset, duplicate };
            }
            Err(why) => call.failed = Some(why.clone()),
        }
        self.settle(number);
    }

    /// Answers an append that nothing is missing of any more.
    fn settle(&mut self, number: u64) {
        if self.calls.get(&number).is_none_or(|call| call.left > 0) {
            return;
        }
        let Some(call) = self.calls.remove(&number) else { return };
        self.bytes.fetch_sub(call.bytes, Ordering::AcqRel);
        (call.done)(match call.failed {
            None => {
                let duplicates = call.placed.iter().filter(|event| event.duplicate).count() as u64;
                let appended = call.placed.len() as u64 - duplicates;
                metrics::counter!("lantern_log_events_total").increment(appended);
                metrics::counter!("lantern_log_duplicates_total").increment(duplicates);
                Ok(Appended { events: call.placed })
            }
            Some(why) => Err(LogError::Unavailable(format!("Kafka has not taken it: {why}"))),
        });
    }

    /// The number of a partition of the topic that events are sent to. One that
    /// was added since the start gets its number now, and is read from the next.
    fn number(&self, partition: i32) -> PartitionId {
        let topic: Box<str> = self.shared.config.ingest_topic().into();
        let mut table = self.table.lock();
        let place = Place { topic, partition };
        if table.number(&place).is_none() {
            table.extend(&place.topic, partition + 1);
            if let Err(error) = table.save() {
                tracing::error!(%error, "the table of partitions cannot be written");
            }
        }
        PartitionId(table.number(&place).unwrap_or(u32::MAX))
    }
}
