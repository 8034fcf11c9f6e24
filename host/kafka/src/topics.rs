//! Queries the partitions of topics from the broker, and creates missing topics.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use crate::client::{ANSWER, Context, apply_properties, base, shows_tokens};
use crate::config::KafkaConfig;

/// How many times a new topic is queried until the broker knows it.
const TRIES: u32 = 100;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(50);

/// Why the topics cannot be used.
pub(crate) enum Fault {
    /// A topic does not exist, or the server may not read it.
    Topic(String),
    /// The broker does not answer.
    Client(KafkaError),
}

/// Returns the number of partitions of each topic. Missing topics are created if the settings
/// require it.
pub(crate) fn counts(
    consumer: &BaseConsumer<Context>,
    config: &KafkaConfig,
    context: &Context,
) -> Result<Vec<i32>, Fault> {
    let others = [&config.emit_topic, &config.dead_letter_topic].into_iter().flatten();
    for topic in others.filter(|topic| !config.topics.contains(topic)) {
        ensured(consumer, config, context, topic)?;
    }
    config.topics.iter().map(|topic| ensured(consumer, config, context, topic)).collect()
}

/// Returns the partitions of `topic`, as the broker reports them.
pub(crate) fn partitions(consumer: &BaseConsumer<Context>, topic: &str) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic);
    Ok(found.flat_map(MetadataTopic::partitions).map(MetadataPartition::id).collect())
}

/// Returns the number of partitions of `topic`. If the topic is missing and `create_partitions` is
/// set, it is created.
fn ensured(
    consumer: &BaseConsumer<Context>,
    config: &KafkaConfig,
    context: &Context,
    topic: &str,
) -> Result<i32, Fault> {
    if let Some(count) = count(consumer, topic)? {
        return Ok(count);
    }
    if config.create_partitions == 0 {
        return Err(Fault::Topic(format!(
            "there is no topic `{topic}` at `{}`: create it, or set `log.kafka.create_partitions`",
            config.servers
        )));
    }
    // The client that creates topics cannot get a token.
    if shows_tokens(config) {
        return Err(Fault::Topic(format!(
            "there is no topic `{topic}` at `{}`, and Lantern cannot create topics with OAUTHBEARER: create it",
            config.servers
        )));
    }
    create(config, context, topic)?;
    for _ in 0..TRIES {
        if let Some(count) = count(consumer, topic)? {
            return Ok(count);
        }
        std::thread::sleep(BETWEEN);
    }
    Err(Fault::Topic(format!(
        "topic `{topic}` was created, but the broker does not know it yet: try again"
    )))
}

/// Returns the number of partitions of `topic`; `None` if there is no such topic.
fn count(consumer: &BaseConsumer<Context>, topic: &str) -> Result<Option<i32>, Fault> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(Fault::Client)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {
            let count = found.partitions().len();
            Ok((count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX)))
        }
        Some(code) if crate::client::is_gone(code) => Ok(None),
        Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(None),
        Some(code) => Err(Fault::Topic(format!("topic `{topic}` cannot be read: {code}"))),
    }
}

fn create(config: &KafkaConfig, context: &Context, topic: &str) -> Result<(), Fault> {
    let mut client = base(config);
    apply_properties(config, &mut client);
    let admin: AdminClient<Context> =
        client.create_with_context(context.clone()).map_err(Fault::Client)?;
    let partitions = i32::try_from(config.create_partitions).unwrap_or(i32::MAX);
    // -1 means the broker's default number of replicas.
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1))
        // The broker then sets the time of each record, so a producer cannot choose it.
        .set("message.timestamp.type", "LogAppendTime");
    let options = AdminOptions::new().operation_timeout(Some(ANSWER));
    let made = block_on(admin.create_topics(&[new], &options));
    let made: KafkaResult<_> = made.map(|mut results| results.pop());
    match made.map_err(Fault::Client)? {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
            tracing::info!(topic, partitions, "created the topic");
            Ok(())
        }
        Some(Err((_, code))) => {
            Err(Fault::Topic(format!("topic `{topic}` cannot be created: {code}")))
        }
    }
}

/// Waits on this thread until a future has completed.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct WakeThread(Thread);
    impl Wake for WakeThread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(WakeThread(std::thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
