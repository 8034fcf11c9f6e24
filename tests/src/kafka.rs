//! Creates, writes and reads topics of a real broker without Lantern, for tests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

pub use lantern_broker::{
    Broker, Ending, Group, Lag, MECHANISMS, Options, PASSWORD, Reading, USER,
};

use crate::PATIENCE;

/// The maximum time that one call to the broker may take.
const CALL: Duration = Duration::from_secs(20);

/// Returns whether this run of the suite uses Kafka as the log (`LANTERN_TEST_LOG=kafka`).
#[must_use]
pub fn is_the_log() -> bool {
    match std::env::var("LANTERN_TEST_LOG").as_deref() {
        Ok("kafka") => true,
        Ok(other) if !other.is_empty() && other != "embedded" => {
            panic!("LANTERN_TEST_LOG is `{other}`, and may be `kafka` or `embedded`")
        }
        _ => false,
    }
}

/// Returns the folder of Kafka's jars, which `cargo xtask test` downloads.
fn libs() -> PathBuf {
    crate::built("LANTERN_KAFKA_LIBS", "kafka/libs")
}

/// Starts a broker that only the caller uses.
///
/// # Errors
/// Fails if it does not start.
pub fn start() -> Result<Broker> {
    Broker::start(Options::new(&libs()))
}

/// Starts a broker like [`start`], with settings of the broker such as `message.max.bytes=1000`.
///
/// # Errors
/// See [`start`].
pub fn start_with(settings: &[&str]) -> Result<Broker> {
    let pairs = settings.iter().filter_map(|setting| setting.split_once('='));
    let settings = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Broker::start(Options { settings, ..Options::new(&libs()) })
}

/// Starts a broker like [`start`], which also listens with TLS and SASL.
///
/// # Errors
/// See [`start`].
pub fn start_secured() -> Result<Broker> {
    Broker::start(Options { secured: true, ..Options::new(&libs()) })
}

/// Returns the broker that all tests of the process share. It ends with the process.
///
/// # Panics
/// Panics if it does not start.
pub fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| start().unwrap_or_else(|error| panic!("no broker: {error:#}")))
}

/// Returns a name for a topic that no other topic has.
#[must_use]
pub fn fresh_name(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic on `broker`, with settings such as `cleanup.policy=compact`, and
/// waits until each partition has a leader.
///
/// # Errors
/// Fails if it cannot be created.
pub fn create_topic(broker: &Broker, name: &str, partitions: u32, settings: &[&str]) -> Result<()> {
    let address = broker.address();
    let (name, settings) = (name.to_owned(), settings.iter().map(|s| (*s).to_owned()).collect());
    let make = move || create(&address, &name, partitions, settings);
    // The call runs on a thread without a runtime, because callers may have a runtime.
    std::thread::spawn(make).join().map_err(|_| anyhow!("a panic"))?
}

fn create(address: &str, name: &str, partitions: u32, settings: Vec<String>) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(address).create()?;
    let mut topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1));
    // Unless a test sets something else, the topic gets the same settings as topics that Lantern
    // creates.
    if !settings.iter().any(|setting| setting.starts_with("message.timestamp.type=")) {
        topic = topic.set("message.timestamp.type", "LogAppendTime");
    }
    for setting in &settings {
        let (key, value) = setting.split_once('=').context("a setting is NAME=VALUE")?;
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(CALL)).request_timeout(Some(CALL));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for made in runtime.block_on(admin.create_topics([&topic], &options))? {
        made.map_err(|(name, code)| anyhow!("topic `{name}`: {code}"))?;
    }
    let started = Instant::now();
    loop {
        let metadata = admin.inner().fetch_metadata(Some(name), CALL)?;
        let partitions_of = |topic: &rdkafka::metadata::MetadataTopic| {
            topic.partitions().iter().filter(|p| p.leader() >= 0).count()
        };
        if metadata.topics().first().map(partitions_of) == Some(partitions as usize) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "topic `{name}` has no leaders");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn client(address: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", address);
    // Log lines about a broker that a test kills on purpose are suppressed.
    client.set("log_level", "2");
    client
}

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the partition that contains the record.
    pub partition: i32,
    /// The record's offset in the partition.
    pub offset: i64,
    /// The record's key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The record's headers, in order. In a value that is not UTF-8, invalid bytes are replaced.
    pub headers: Vec<(String, String)>,
    /// The record's value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Returns the value of the header with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all records of a topic, by partition and offset, up to the ends at the time of the call.
/// If `committed`, reads only those of committed transactions.
///
/// # Errors
/// Fails if the topic cannot be read.
pub fn records(broker: &Broker, topic: &str, committed: bool) -> Result<Vec<Record>> {
    let isolation = if committed { "read_committed" } else { "read_uncommitted" };
    let consumer: BaseConsumer = client(&broker.address())
        .set("group.id", "lantern-tests-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
    let partitions = metadata.topics().first().context("no topic")?.partitions();
    let mut left: BTreeSet<i32> = partitions.iter().map(|partition| partition.id()).collect();
    ensure!(!left.is_empty(), "there is no topic `{topic}`");
    let mut all = TopicPartitionList::new();
    for partition in &left {
        all.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut records = Vec::new();
    let mut started = Instant::now();
    while !left.is_empty() {
        match consumer.poll(CALL) {
            Some(Ok(message)) => {
                started = Instant::now();
                records.push(record(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            Some(Err(error)) if started.elapsed() > PATIENCE => bail!("`{topic}`: {error}"),
            None if started.elapsed() > PATIENCE => bail!("`{topic}` cannot be read to its end"),
            Some(Err(_)) | None => (),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers
        .map(|header| {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            (header.key.to_owned(), value)
        })
        .collect();
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        headers,
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// Creates a topic like [`create_topic`], but first waits until the previous topic of this name is
/// deleted.
///
/// # Errors
/// Fails if it cannot be created.
pub fn create_topic_when_gone(broker: &Broker, name: &str, partitions: u32) -> Result<()> {
    let started = Instant::now();
    while let Err(error) = create_topic(broker, name, partitions, &[]) {
        ensure!(started.elapsed() < PATIENCE, "{error:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Writes `lines` to a topic. Each line is an event as JSON and becomes a record in structured
/// mode, whose key is the subject. The batches are compressed with `codec`.
///
/// # Errors
/// Fails if the broker does not accept all of them.
pub fn produce(address: &str, topic: &str, codec: &str, lines: &str) -> Result<()> {
    let mut client = client(address);
    client.set("compression.type", codec).set("linger.ms", "20");
    let producer: BaseProducer<Delivered> = client.create_with_context(Delivered::default())?;
    send(&producer, topic, lines)?;
    ensure!(producer.context().failed.load(Ordering::Relaxed) == 0, "`{topic}`: not all is taken");
    Ok(())
}

/// Writes lines like [`produce`], but in one transaction, which it commits or aborts.
///
/// # Errors
/// Fails if the broker does not accept all of them.
pub fn produce_in_transaction(address: &str, topic: &str, lines: &str, commit: bool) -> Result<()> {
    let mut client = client(address);
    client.set("transactional.id", fresh_name("tests"));
    let producer: BaseProducer<Delivered> = client.create_with_context(Delivered::default())?;
    producer.init_transactions(CALL)?;
    producer.begin_transaction()?;
    send(&producer, topic, lines)?;
    match commit {
        true => producer.commit_transaction(CALL)?,
        false => producer.abort_transaction(CALL)?,
    }
    Ok(())
}

fn send(producer: &BaseProducer<Delivered>, topic: &str, lines: &str) -> Result<()> {
    for line in lines.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let key = event["subject"].as_str().unwrap_or_default();
        let kind = Header { key: "content-type", value: Some("application/cloudevents+json") };
        let headers = OwnedHeaders::new().insert(kind);
        let record = BaseRecord::to(topic).key(key).payload(line).headers(headers);
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(CALL)?)
}

/// A record that a test writes to a topic without changes.
#[derive(Clone, Debug, Default)]
pub struct Written<'a> {
    /// The record's key, if it has one.
    pub key: Option<&'a str>,
    /// The record's value; `None` writes a tombstone.
    pub value: Option<&'a str>,
    /// The record's headers, in order.
    pub headers: Vec<(&'a str, &'a str)>,
}

/// Writes records to a topic, in order, and waits until the broker has them.
///
/// # Errors
/// Fails if the broker does not accept all of them.
pub fn write(broker: &Broker, topic: &str, records: &[Written<'_>]) -> Result<()> {
    let producer: BaseProducer<Delivered> =
        client(&broker.address()).create_with_context(Delivered::default())?;
    for Written { key, value, headers } in records {
        let mut owned = OwnedHeaders::new();
        for (name, value) in headers {
            owned = owned.insert(Header { key: name, value: Some(*value) });
        }
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic).headers(owned);
        record.key = *key;
        record.payload = *value;
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(CALL)?;
    ensure!(producer.context().failed.load(Ordering::Relaxed) == 0, "`{topic}`: not all is taken");
    Ok(())
}

/// Counts the records that the broker did not accept.
#[derive(Default)]
struct Delivered {
    failed: AtomicU32,
}

impl rdkafka::ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        self.failed.fetch_add(u32::from(result.is_err()), Ordering::Relaxed);
    }
}

/// Returns the first offset of a partition, and the offset after its last record. Transaction
/// markers count as records.
///
/// # Errors
/// Fails if the broker does not answer.
pub fn bounds(broker: &Broker, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let consumer: BaseConsumer = client(&broker.address()).create()?;
    Ok(consumer.fetch_watermarks(topic, partition, CALL)?)
}
