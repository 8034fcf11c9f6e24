//! The configured log, for the few operations that differ between embedded log and
//! Kafka.

use std::sync::Arc;

use lantern_core::{
    EventRef, Events, HEARTBEAT_TYPE, Log, LogError, Offset, PartitionBounds, PartitionId,
    Timestamp,
};
#[cfg(feature = "kafka")]
use lantern_kafka::KafkaLog;
use lantern_log::EmbeddedLog;
use tokio::sync::oneshot;

/// The `source` of heartbeats.
const SOURCE: &str = "lantern";
/// The number of names tried until one belongs to a partition. With `n` partitions each
/// name fits with a probability of `1/n`, and a log has at most 1,024.
const NAMES_MAX: u32 = 100_000;

/// The log in use.
#[derive(Clone)]
pub(crate) enum ChosenLog {
    /// In one file in the data folder.
    Embedded(Arc<EmbeddedLog>),
    /// On Kafka topics.
    #[cfg(feature = "kafka")]
    Kafka(Arc<KafkaLog>),
}

impl ChosenLog {
    /// The log as the rest of the host sees it.
    pub(crate) fn port(&self) -> Arc<dyn Log> {
        match self {
            Self::Embedded(log) => Arc::<EmbeddedLog>::clone(log),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => Arc::<KafkaLog>::clone(log),
        }
    }

    /// The embedded log, if this is one.
    pub(crate) fn embedded(&self) -> Option<&Arc<EmbeddedLog>> {
        match self {
            Self::Embedded(log) => Some(log),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => None,
        }
    }

    /// The log on Kafka, if this is one.
    #[cfg(feature = "kafka")]
    pub(crate) fn kafka(&self) -> Option<&Arc<KafkaLog>> {
        match self {
            Self::Embedded(_) => None,
            Self::Kafka(log) => Some(log),
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.port().partitions()
    }

    pub(crate) fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.port().bounds(partition)
    }

    /// Makes all appended events durable, and closes the log.
    pub(crate) fn close(&self) {
        match self {
            Self::Embedded(log) => log.close(),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.close(),
        }
    }

    /// Reports that a projection's next offset of `partition` is `next`.
    pub(crate) fn tell_position(&self, projection: &str, partition: PartitionId, next: Offset) {
        match self {
            Self::Embedded(_) => {}
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.tell_position(projection, partition, next),
        }
    }

    /// Whether heartbeats may be appended to the partition.
    pub(crate) fn takes_heartbeats(&self, partition: PartitionId) -> bool {
        match self {
            Self::Embedded(_) => true,
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.takes_heartbeats(partition),
        }
    }

    /// Appends a heartbeat with `time` to `partition`, and waits until it is durable.
    pub(crate) async fn beat(
        &self,
        partition: PartitionId,
        time: Timestamp,
    ) -> Result<(), LogError> {
        let (done, appended) = oneshot::channel();
        let done = Box::new(move |result| {
            // The receiver is gone if the server stops; the event stays in the log.
            let _ = done.send(result);
        });
        match self {
            Self::Embedded(log) => match leading_to(log, partition, time) {
                Some(event) => log.append(event, done),
                None => return Err(LogError::NoPartition(partition)),
            },
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.append_to(partition, heartbeat(partition, time, 0), done),
        }
        appended.await.unwrap_or(Err(LogError::Closed)).map(|_| ())
    }
}

/// A heartbeat that the embedded log puts into `partition`: the name decides the
/// partition, so this searches for a name that leads there.
fn leading_to(log: &EmbeddedLog, partition: PartitionId, time: Timestamp) -> Option<Events> {
    (0..NAMES_MAX)
        .map(|name| heartbeat(partition, time, name))
        .find(|events| log.partition_of(&events.get(0)) == partition)
}

fn heartbeat(partition: PartitionId, time: Timestamp, name: u32) -> Events {
    let mut events = Events::new();
    events.push(&EventRef {
        id: &format!("{partition}/{time}/{name}"),
        source: SOURCE,
        kind: HEARTBEAT_TYPE,
        time,
        data: b"{}",
        ..EventRef::default()
    });
    events
}

#[cfg(test)]
mod tests {
    use lantern_log::LogConfig;

    use super::*;

    #[tokio::test]
    async fn a_heartbeat_lands_in_its_partition() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { partitions: 7, ..LogConfig::default() };
        let log = Arc::new(EmbeddedLog::open(dir.path().join("log.redb"), config).unwrap());
        let chosen = ChosenLog::Embedded(Arc::clone(&log));
        for partition in (0..7).map(PartitionId) {
            let before = log.bounds(partition).unwrap().end.0;
            chosen.beat(partition, Timestamp(5)).await.unwrap();
            assert_eq!(log.bounds(partition).unwrap().end.0, before + 1);
        }
    }
}
