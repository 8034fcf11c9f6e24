//! Implements the producer of appended events, and how it reports what has happened to a record.

use std::sync::mpsc::Sender;

use lantern_core::{AppendDone, DeduplicationWindow, Events, Identity, PartitionId};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{ProducerContext, ThreadedProducer};

use crate::client::{Context, DeliveryContext};
use crate::topic_settings::{Batching, Undelivered};

/// A job for the thread that appends events.
pub(crate) enum AppendJob {
    Append { events: Box<Events>, to: Option<PartitionId>, bytes: usize, done: AppendDone },
    Delivered { delivery: DeliveryId, outcome: Result<(i32, u64), Undelivered> },
    Tail(KafkaResult<DeduplicationWindow>),
    Close,
}

/// Identifies a record that was sent and is not yet answered.
pub(crate) struct DeliveryId {
    pub(crate) call: u64,
    pub(crate) index: usize,
    pub(crate) identity: Option<Identity>,
}

/// The context of the producer. It passes the broker's answers to the thread.
pub(crate) type Deliveries = DeliveryContext<Sender<AppendJob>>;

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<DeliveryId>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<DeliveryId>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), u64::try_from(message.offset()).unwrap_or(0))),
            Err((error, message)) => Err(Undelivered::new(error, message)),
        };
        // If there is no receiver, the log is closed.
        let _ = self.outcomes.send(AppendJob::Delivered { delivery: *delivery, outcome });
    }
}

/// The producer, with the reasons why it must be replaced.
pub(crate) struct ReplaceableProducer {
    pub(crate) client: ThreadedProducer<Deliveries>,
    pub(crate) settings: ClientConfig,
    /// How the producer puts records into batches.
    pub(crate) batching: Batching,
    /// The topic's size limit at the time when the broker refused a batch as too large although
    /// each of its records was small enough; `None` if there was no such refusal, `Some(None)` if
    /// the limit was not known. While the topic has this limit, records are sent one by one.
    pub(crate) alone_at: Option<Option<usize>>,
    /// Whether the producer must be replaced before anything else is sent.
    pub(crate) renewing: bool,
}

/// Creates a producer with `settings` that puts records into batches as `batching` says.
pub(crate) fn producer(
    settings: &ClientConfig,
    batching: Batching,
    context: &Context,
    jobs: &Sender<AppendJob>,
) -> KafkaResult<ThreadedProducer<Deliveries>> {
    let mut settings = settings.clone();
    batching.set(&mut settings);
    settings.create_with_context(Deliveries::new(context, jobs.clone()))
}
