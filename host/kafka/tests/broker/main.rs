//! Tests the log with a real broker, whose address is in `LANTERN_KAFKA`. Each test has its own
//! topics.

#![allow(clippy::unwrap_used, reason = "tests")]

mod appending;
mod foreign;
mod reading;
mod refused;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use lantern_core::{
    AppendDone, Appended, CloseLog as _, Event, Events, Log, LogError, LogRead, Offset,
    PartitionId, TypeFilter, read_or_wait,
};
use lantern_kafka::{KafkaConfig, KafkaLog};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::BaseProducer;

/// The time limit for each step of a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics of one test, and the folder of its log.
struct Fixture {
    servers: String,
    topic: String,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Creates the fixture. If there is no broker, prints a message about this and returns `None`.
    fn new(name: &str) -> Option<Self> {
        let Ok(servers) = std::env::var("LANTERN_KAFKA") else {
            // The test harness would capture the output of `eprintln!`.
            let said = format!("without a broker (LANTERN_KAFKA): `{name}` shows nothing\n");
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        };
        let topic = format!("{name}-{:x}", fastrand::u64(..));
        Some(Self { servers, topic, dir: tempfile::tempdir().unwrap() })
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("kafka.json")
    }

    fn config(&self, partitions: u32) -> KafkaConfig {
        KafkaConfig {
            servers: self.servers.clone(),
            topics: vec![self.topic.clone()],
            create_partitions: partitions,
            refresh_ms: 200,
            ..KafkaConfig::default()
        }
    }

    fn open(&self, partitions: u32) -> KafkaLog {
        KafkaLog::open(self.table(), self.config(partitions)).unwrap()
    }

    /// Creates the topic with one partition and `settings`.
    fn create(&self, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        made[0].as_ref().unwrap();
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client
    }

    fn producer(&self, codec: &str) -> BaseProducer {
        let mut client = self.client();
        client.set("compression.codec", codec).set("linger.ms", "20");
        client.create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

fn event(id: u64, subject: &str) -> Event {
    Event {
        id: id.to_string(),
        source: "test".into(),
        kind: "t".into(),
        subject: subject.into(),
        data: format!("{{\"n\":{id}}}").into_bytes(),
        ..Event::default()
    }
}

fn events(all: impl IntoIterator<Item = Event>) -> Events {
    let mut events = Events::new();
    for event in all {
        assert!(events.push(&event.as_ref()));
    }
    events
}

/// Calls `begin`, and waits for the result of the append.
fn done(begin: impl FnOnce(AppendDone)) -> Result<Appended, LogError> {
    let (send, received) = mpsc::channel();
    begin(Box::new(move |outcome| send.send(outcome).unwrap()));
    received.recv_timeout(PATIENCE).unwrap()
}

fn append(log: &KafkaLog, all: impl IntoIterator<Item = Event>) -> Result<Appended, LogError> {
    done(|told| log.append(events(all), told))
}

/// Reads all events of a partition from the offset `from` to its end, with their offsets.
fn all_from(log: &dyn Log, partition: PartitionId, from: u64) -> Vec<(u64, Event)> {
    let everything = TypeFilter::everything().and(lantern_core::UNREADABLE_TYPE);
    let (mut next, mut all) = (Offset(from), Vec::new());
    loop {
        match read_or_wait(log, partition, next, &everything).unwrap() {
            LogRead::End => {
                assert_eq!(log.bounds(partition).unwrap().end, next, "the end is the end");
                return all;
            }
            LogRead::Skipped { next: after } => {
                assert!(after > next);
                next = after;
            }
            LogRead::Chunk(chunk) => {
                for index in chunk.index_of(next)..chunk.events.len() {
                    all.push((chunk.offset(index).0, chunk.events.get(index).to_owned()));
                }
                assert!(chunk.end() > next);
                next = chunk.end();
            }
            LogRead::Pending => unreachable!("it was waited for"),
        }
    }
}

/// Returns the numbers in the events' payloads.
fn numbers(all: &[(u64, Event)]) -> Vec<u64> {
    all.iter().map(|(_, event)| event.id.parse().unwrap()).collect()
}
