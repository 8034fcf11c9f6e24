//! Commits the next offsets of projections to consumer groups, so that Kafka's own
//! tools and lag exporters can show them. Lantern never reads these offsets back: the
//! offsets in the shards' state files are authoritative.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{Offset, PartitionId};
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, attend, consumer};
use crate::shared::Shared;

/// The most clients that are kept open, one per group.
const CLIENTS_MAX: usize = 16;
/// Prefetch memory of a consumer that reads no records, in bytes.
const NOTHING: usize = 64 << 10;

/// Commits next offsets to consumer groups.
pub(crate) struct Groups {
    told: Arc<(Mutex<Told>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Told {
    /// The next offsets that are not committed yet, by projection and partition.
    positions: BTreeMap<String, BTreeMap<u32, u64>>,
    closed: bool,
}

impl Groups {
    pub(crate) fn start(shared: &Arc<Shared>, context: &Context) -> std::io::Result<Self> {
        let told: Arc<(Mutex<Told>, Condvar)> = Arc::default();
        let mut worker = Worker {
            shared: Arc::clone(shared),
            context: context.clone(),
            told: Arc::clone(&told),
            clients: BTreeMap::new(),
            committed: BTreeMap::new(),
        };
        let thread =
            std::thread::Builder::new().name("kafka-groups".into()).spawn(move || worker.run())?;
        Ok(Self { told, thread: Mutex::new(Some(thread)) })
    }

    /// Notes `next` as the next offset of `projection` in `partition`.
    pub(crate) fn tell(&self, projection: &str, partition: PartitionId, next: Offset) {
        let mut told = self.told.0.lock();
        if !told.positions.contains_key(projection) {
            told.positions.insert(projection.to_owned(), BTreeMap::new());
        }
        if let Some(positions) = told.positions.get_mut(projection) {
            positions.insert(partition.0, next.0);
        }
    }

    /// Commits the remaining offsets, and ends the thread.
    pub(crate) fn close(&self) {
        self.told.0.lock().closed = true;
        self.told.1.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits offsets panicked");
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    context: Context,
    told: Arc<(Mutex<Told>, Condvar)>,
    clients: BTreeMap<String, (Instant, BaseConsumer<Context>)>,
    /// The offsets that were committed, so that they are not committed twice.
    committed: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl Worker {
    fn run(&mut self) {
        let every = Duration::from_millis(self.shared.config.commit_ms);
        loop {
            let (positions, closed) = {
                let mut told = self.told.0.lock();
                if !told.closed {
                    self.told.1.wait_for(&mut told, every);
                }
                (std::mem::take(&mut told.positions), told.closed)
            };
            for (projection, mut positions) in positions {
                let known = self.committed.entry(projection.clone()).or_default();
                positions.retain(|partition, next| known.get(partition) != Some(next));
                if positions.is_empty() {
                    continue;
                }
                if let Err(error) = self.commit(&projection, &positions) {
                    tracing::debug!(%error, projection, "offsets were not committed to the consumer group");
                    self.clients.remove(&projection);
                    self.keep(projection, positions);
                } else if let Some(known) = self.committed.get_mut(&projection) {
                    known.append(&mut positions);
                }
            }
            if closed {
                return;
            }
        }
    }

    /// Keeps offsets whose commit failed for the next attempt, unless newer ones are
    /// known.
    fn keep(&self, projection: String, positions: BTreeMap<u32, u64>) {
        let mut told = self.told.0.lock();
        let known = told.positions.entry(projection).or_default();
        for (partition, next) in positions {
            known.entry(partition).or_insert(next);
        }
    }

    fn commit(&mut self, projection: &str, positions: &BTreeMap<u32, u64>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, next) in positions {
            let Some(part) = self.shared.parts.get(*partition as usize) else { continue };
            let next = KafkaOffset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            list.add_partition_offset(&part.place.topic, part.place.partition, next)?;
        }
        let client = self.client(projection)?;
        // The client reads no records. Other events must not pile up in its queue.
        while client.poll(Duration::ZERO).is_some() {}
        client.commit(&list, CommitMode::Sync)
    }

    fn client(&mut self, projection: &str) -> KafkaResult<&BaseConsumer<Context>> {
        if !self.clients.contains_key(projection) {
            if self.clients.len() >= CLIENTS_MAX {
                let used: BTreeSet<_> =
                    self.clients.iter().map(|(name, (used, _))| (*used, name.clone())).collect();
                if let Some((_, oldest)) = used.first() {
                    self.clients.remove(oldest);
                }
            }
            let group = format!("{}{projection}", self.shared.config.group_prefix);
            let client = consumer(&self.shared.config, &group, NOTHING, &self.context)?;
            self.clients.insert(projection.to_owned(), (Instant::now(), client));
        }
        let now = Instant::now();
        let client = self.clients.get_mut(projection).map(|(used, client)| {
            *used = now;
            attend(&self.shared.config, |timeout| drop(client.poll(timeout)));
            &*client
        });
        client.ok_or(rdkafka::error::KafkaError::Canceled)
    }
}
