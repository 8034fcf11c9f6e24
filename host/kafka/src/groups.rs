//! Commits the next offsets of projections to consumer groups, so that Kafka's own tools and lag
//! exporters can show them. Lantern never reads these offsets back: the offsets in the shards'
//! state files are authoritative.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lantern_core::{Offset, PartitionId};
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::client::{Context, consumer, poll_for_token};
use crate::shared::Shared;

/// The maximum number of clients that are kept open. Each client serves one group.
const CLIENTS_MAX: usize = 16;
/// The memory into which a consumer that reads no records may fetch records, in bytes.
const NOTHING: usize = 64 << 10;

/// Commits next offsets to consumer groups.
pub(crate) struct GroupOffsets {
    pending: Arc<(Mutex<PendingOffsets>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct PendingOffsets {
    /// The offsets that are not committed yet, by projection and partition.
    offsets: BTreeMap<String, BTreeMap<u32, u64>>,
    closed: bool,
}

impl GroupOffsets {
    pub(crate) fn start(shared: &Arc<Shared>, context: &Context) -> std::io::Result<Self> {
        let pending: Arc<(Mutex<PendingOffsets>, Condvar)> = Arc::default();
        let mut worker = OffsetCommitter {
            shared: Arc::clone(shared),
            context: context.clone(),
            pending: Arc::clone(&pending),
            clients: BTreeMap::new(),
            committed: BTreeMap::new(),
        };
        let thread =
            std::thread::Builder::new().name("kafka-groups".into()).spawn(move || worker.run())?;
        Ok(Self { pending, thread: Mutex::new(Some(thread)) })
    }

    /// Notes that `next` is the next offset of `projection` in `partition`.
    pub(crate) fn set_offset(&self, projection: &str, partition: PartitionId, next: Offset) {
        let mut pending = self.pending.0.lock();
        if !pending.offsets.contains_key(projection) {
            pending.offsets.insert(projection.to_owned(), BTreeMap::new());
        }
        if let Some(offsets) = pending.offsets.get_mut(projection) {
            offsets.insert(partition.0, next.0);
        }
    }

    /// Commits the remaining offsets, and ends the thread.
    pub(crate) fn close(&self) {
        self.pending.0.lock().closed = true;
        self.pending.1.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits offsets panicked");
        }
    }
}

struct OffsetCommitter {
    shared: Arc<Shared>,
    context: Context,
    pending: Arc<(Mutex<PendingOffsets>, Condvar)>,
    clients: BTreeMap<String, (Instant, BaseConsumer<Context>)>,
    /// The offsets that were committed last, so that none is committed twice.
    committed: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl OffsetCommitter {
    fn run(&mut self) {
        let every = Duration::from_millis(self.shared.config.commit_ms);
        loop {
            let (offsets, closed) = {
                let mut pending = self.pending.0.lock();
                if !pending.closed {
                    self.pending.1.wait_for(&mut pending, every);
                }
                (std::mem::take(&mut pending.offsets), pending.closed)
            };
            for (projection, mut offsets) in offsets {
                let known = self.committed.entry(projection.clone()).or_default();
                offsets.retain(|partition, next| known.get(partition) != Some(next));
                if offsets.is_empty() {
                    continue;
                }
                if let Err(error) = self.commit(&projection, &offsets) {
                    tracing::debug!(%error, projection, "offsets were not committed to the consumer group");
                    self.clients.remove(&projection);
                    self.keep_for_retry(projection, offsets);
                } else if let Some(known) = self.committed.get_mut(&projection) {
                    known.append(&mut offsets);
                }
            }
            if closed {
                return;
            }
        }
    }

    /// Keeps `offsets` for the next attempt after a commit has failed. If a partition already has a
    /// newer offset to commit, that one is kept instead.
    fn keep_for_retry(&self, projection: String, offsets: BTreeMap<u32, u64>) {
        let mut pending = self.pending.0.lock();
        let known = pending.offsets.entry(projection).or_default();
        for (partition, next) in offsets {
            known.entry(partition).or_insert(next);
        }
    }

    fn commit(&mut self, projection: &str, offsets: &BTreeMap<u32, u64>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, next) in offsets {
            let Some(part) = self.shared.parts.get(*partition as usize) else { continue };
            let next = KafkaOffset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            list.add_partition_offset(
                &part.topic_partition.topic,
                part.topic_partition.partition,
                next,
            )?;
        }
        let client = self.client(projection)?;
        // This client reads no records, but its queue also receives other events. It is polled to
        // remove these events, because the queue would grow otherwise.
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
            poll_for_token(&self.shared.config, |timeout| drop(client.poll(timeout)));
            &*client
        });
        client.ok_or(rdkafka::error::KafkaError::Canceled)
    }
}
