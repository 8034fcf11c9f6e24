//! Runs W1 over a topic with four partitions of a real broker, and compares it with a plain fold of
//! the same records (librdkafka, `serde_json`, hash maps, no state on disk). The broker is a
//! separate process, and its CPU time is not counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_broker::{Broker, Options as BrokerOptions};
use lantern_cli::generate::{Options as ShopOptions, SOURCE, Shop};
use lantern_core::Log;
use lantern_kafka::{KafkaConfig, KafkaLog};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::folding::{self, Fold, print};
use crate::native::{self, Tables};
use crate::report::{self, Measured, Stopwatch};
use crate::w1;

/// The number of partitions of the topic.
pub(crate) const PARTITIONS: u32 = 4;
/// The maximum time to wait for a record, or for the broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of the benchmark W1 over Kafka.
#[derive(Clone, clap::Args)]
pub(crate) struct KafkaOptions {
    #[command(flatten)]
    pub(crate) common: crate::Options,
    /// The folder with Kafka's jars.
    #[arg(long, default_value = "target/kafka/libs")]
    libs: PathBuf,
    /// The mode of the events in the topic, from CloudEvents' Kafka binding.
    #[arg(long, value_enum, default_value = "structured")]
    mode: Mode,
    /// The compression of the topic's batches.
    #[arg(long, default_value = "none", value_parser = ["none", "lz4", "zstd", "snappy", "gzip"])]
    compression: String,
    /// The address of the broker, for a phase.
    #[arg(long, hide = true, default_value = "")]
    pub(crate) broker: String,
}

/// A form in which an event is stored in a record, from CloudEvents' Kafka binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// The record's value is the whole event as JSON, 212 bytes on average.
    Structured,
    /// The record's headers are the attributes, and its value is the data as JSON.
    Binary,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Write the topic.
    Prepare,
    /// Fold with Lantern.
    Fold,
    /// Fold with librdkafka alone.
    Native,
}

impl KafkaOptions {
    /// Returns the name of the topic, which is kept between runs.
    pub(crate) fn topic(&self) -> String {
        format!("w1-{}-{:?}-{}", self.common.events, self.mode, self.compression).to_lowercase()
    }

    fn shop(&self) -> Shop {
        Shop::new(ShopOptions { events: self.common.events, ..ShopOptions::default() })
    }
}

/// Runs Lantern's fold and the plain fold in turn, and prints medians.
pub(crate) fn run(options: &KafkaOptions) -> Result<()> {
    let folder = options.common.dir.join("kafka");
    let mut broker = Broker::start(BrokerOptions {
        folder: Some(std::path::absolute(&folder)?),
        ..BrokerOptions::new(&options.libs)
    })?;
    let options = KafkaOptions { broker: broker.address(), ..options.clone() };
    let done = folder.join(format!("{}.done", options.topic()));
    if !done.exists() {
        // An interrupted run may have left its topic.
        drop(broker.delete_topic(&options.topic()));
        broker.create_topic(&options.topic(), PARTITIONS, &[])?;
        spawn(Phase::Prepare, &options)?;
        std::fs::File::create(done)?;
    }
    let (mut folds, mut natives) = (Vec::new(), Vec::new());
    for round in 0..options.common.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, options.common.rounds.max(1));
        folds.push(measured(Phase::Fold, &options)?);
        natives.push(measured(Phase::Native, &options)?);
    }
    // The broker ends in order, so that its next start is fast.
    broker.stop()?;
    let result = report::sides("w1-kafka", &options.common, &folds, &[], &natives);
    report::print_result(&options.common, &result)
}

/// Runs one phase in this process, and prints its measurements.
pub(crate) fn phase(phase: Phase, options: &KafkaOptions) -> Result<()> {
    match phase {
        Phase::Prepare => prepare(options),
        Phase::Fold => print(&fold(options)?),
        Phase::Native => {
            let watch = Stopwatch::start()?;
            let tables = plain(options)?;
            let mut measured = watch.stop()?;
            measured.exact = tables == expected(options)?;
            print(&measured)
        }
    }
}

fn spawn(phase: Phase, options: &KafkaOptions) -> Result<Vec<u8>> {
    let mode =
        clap::ValueEnum::to_possible_value(&options.mode).context("every mode has a name")?;
    let more = ["--mode", mode.get_name(), "--compression", &options.compression];
    let more = [&more[..], &["--broker", &options.broker]].concat();
    folding::spawn("kafka-phase", phase, &options.common, &more)
}

fn measured(phase: Phase, options: &KafkaOptions) -> Result<Measured> {
    Ok(serde_json::from_slice(&spawn(phase, options)?)?)
}

/// Computes the expected rows of the tables from the events.
fn expected(options: &KafkaOptions) -> Result<Tables> {
    let (shop, mut line, mut tables) = (options.shop(), Vec::new(), Tables::default());
    for index in 0..options.common.events {
        line.clear();
        shop.write_line(index, &mut line);
        native::fold_line(&line, &mut tables)?;
    }
    Ok(tables)
}

fn client(options: &KafkaOptions) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &options.broker);
    client
}

/// Writes the topic. The key of each record is the event's subject, as if the server had received
/// the events.
fn prepare(options: &KafkaOptions) -> Result<()> {
    let producer: ThreadedProducer<_> = client(options)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", &options.compression)
        .set("linger.ms", "20")
        .set("batch.size", "262144")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(Counting::default())?;
    let (shop, topic, started) = (options.shop(), options.topic(), Instant::now());
    let mut line = Vec::new();
    for index in 0..options.common.events {
        line.clear();
        shop.write_line(index, &mut line);
        let (value, headers) = record(&line, options.mode)?;
        let key = format!("u{}", shop.event(index).user);
        let mut record = BaseRecord::to(&topic).key(&key).payload(value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            ensure!(full, "event {index}: {error}");
            ensure!(started.elapsed() < 60 * PATIENCE, "the broker accepts nothing more");
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(PATIENCE)?;
    let failed = producer.context().failed.load(std::sync::atomic::Ordering::Relaxed);
    ensure!(failed == 0, "{failed} events were not accepted");
    eprintln!("{} events prepared in {:.1?}", options.common.events, started.elapsed());
    Ok(())
}

/// Counts the records that the broker did not accept.
#[derive(Default)]
struct Counting {
    failed: std::sync::atomic::AtomicU64,
}

impl rdkafka::ClientContext for Counting {}

impl rdkafka::producer::ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Converts a line to the value and the headers of a record.
fn record(line: &[u8], mode: Mode) -> Result<(&[u8], OwnedHeaders)> {
    let header = |headers: OwnedHeaders, key: &str, value: &str| {
        headers.insert(Header { key, value: Some(value) })
    };
    let headers = OwnedHeaders::new();
    if mode == Mode::Structured {
        let kind = "application/cloudevents+json; charset=UTF-8";
        return Ok((line.trim_ascii_end(), header(headers, "content-type", kind)));
    }
    let event: Parts<'_> = serde_json::from_slice(line)?;
    let all = [
        ("ce_specversion", "1.0"),
        ("ce_id", event.id),
        ("ce_source", SOURCE),
        ("ce_type", event.kind),
        ("ce_subject", event.subject),
        ("ce_tenant", event.tenant),
        ("ce_time", event.time),
        ("content-type", "application/json"),
    ];
    let headers =
        all.into_iter().fold(headers, |headers, (key, value)| header(headers, key, value));
    Ok((event.data.get().as_bytes(), headers))
}

#[derive(Deserialize)]
struct Parts<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    tenant: &'a str,
    time: &'a str,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

/// Runs the fold that one would write by hand: a consumer, `serde_json` and hash maps.
fn plain(options: &KafkaOptions) -> Result<Tables> {
    let consumer: BaseConsumer = client(options)
        .set("group.id", "w1-plain")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let topic = options.topic();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&topic, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut tables, mut left) = (Tables::default(), PARTITIONS);
    while left > 0 {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                let value = message.payload().context("a record without a value")?;
                match options.mode {
                    Mode::Structured => native::fold_line(value, &mut tables)?,
                    Mode::Binary => fold_binary(&message, value, &mut tables)?,
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => bail!("no record in {PATIENCE:?}"),
        }
    }
    Ok(tables)
}

fn fold_binary(
    message: &rdkafka::message::BorrowedMessage<'_>,
    value: &[u8],
    tables: &mut Tables,
) -> Result<()> {
    let headers = message.headers().context("a record without headers")?;
    let (mut kind, mut time, mut tenant) = ("", "", "");
    for header in headers.iter() {
        let value = std::str::from_utf8(header.value.unwrap_or_default())?;
        match header.key {
            "ce_type" => kind = value,
            "ce_time" => time = value,
            "ce_tenant" => tenant = value,
            _ => (),
        }
    }
    native::fold_event(kind, time, tenant, &serde_json::from_slice(value)?, tables);
    Ok(())
}

/// Runs Lantern's own fold of the topic.
fn fold(options: &KafkaOptions) -> Result<Measured> {
    let config = KafkaConfig {
        servers: options.broker.clone(),
        topics: vec![options.topic()],
        // This server appends no events, so it needs no memory of earlier ids.
        dedup_window_events: 0,
        ..KafkaConfig::default()
    };
    let table = options.common.dir.join("w1-partitions.json");
    std::fs::remove_file(&table).ok();
    let open = || Ok(Arc::new(KafkaLog::open(table, config)?) as Arc<dyn Log>);
    w1::fold_over(&options.common, Fold::Empty, open, || expected(options))
}
