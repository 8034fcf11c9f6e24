//! Implements maintenance: work on shards that runs at intervals, independently of the shards'
//! steps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{KeyRange, PartitionId, Space, Timestamp};

use crate::Engine;
use crate::shard_handle::ShardHandle;

impl Engine {
    /// Drops the plugin instances of shards that were not used for `idle`. They are created again
    /// when there is work. Returns the number of instances dropped.
    pub fn drop_idle_instances(&self, idle: Duration) -> usize {
        let now = self.ports.clock.monotonic();
        let mut dropped = 0;
        for handle in self.registry.handles() {
            // A locked shard is running and therefore uses its instance.
            if let Some(mut guard) = handle.shard.try_lock()
                && let Some(shard) = guard.as_mut()
                && shard.drop_instance_unused(now, idle)
            {
                handle.snapshot.lock().usage = shard.runner.usage;
                dropped += 1;
            }
        }
        dropped
    }

    /// Commits the next offset of shards that have applied no event since their last durable
    /// commit, but have skipped at least `behind_min` offsets. Without these commits, the durable
    /// offsets of such shards would not advance: retention would keep the skipped events, and
    /// Kafka's consumer groups would show old offsets. Returns the number of shards that committed.
    pub fn commit_offsets(&self, behind_min: u64) -> usize {
        let now = self.ports.clock.monotonic();
        let mut committed = 0;
        for handle in self.registry.handles() {
            // A locked shard is running and commits its own offset.
            let Some(mut guard) = handle.shard.try_lock() else { continue };
            let deleted = handle.deleted.load(Ordering::Acquire);
            let Some(shard) = guard.as_mut().filter(|_| !deleted) else { continue };
            let behind = shard.state.meta.next.0.saturating_sub(shard.commits.sync.durable().0);
            if shard.is_dirty() || behind < behind_min.max(1) {
                continue;
            }
            match self.commit(shard, now) {
                Ok(()) => committed += 1,
                Err(error) => {
                    tracing::warn!(projection = %handle.id.projection, %error, "the next offset could not be committed to the log's consumer group");
                }
            }
            handle.record_step(shard, now);
        }
        committed
    }

    /// Returns whether a heartbeat with the event time `time` would fire a timer in a shard of
    /// `partition`, because it would move the watermark past the timer.
    #[must_use]
    pub fn heartbeat_due(&self, partition: PartitionId, time: Timestamp) -> bool {
        let projections = self.registry.read();
        projections.values().flat_map(|p| p.builds.values()).any(|build| {
            let Some(event_time) = build.manifest.event_time else {
                return false;
            };
            let Some(handle) = build.handles.get(partition.0 as usize) else {
                return false;
            };
            let mark = time.watermark(event_time.allowed_lateness_us, event_time.tick_us);
            let (timers, watermark) = {
                let snapshot = handle.snapshot.lock();
                (snapshot.meta.timers_now, snapshot.meta.watermark)
            };
            timers > 0 && mark > watermark && first_timer(handle).is_some_and(|due| due <= mark)
        })
    }
}

/// Returns the due time of the first timer in a shard's committed state.
fn first_timer(handle: &ShardHandle) -> Option<Timestamp> {
    let store = handle.store.as_ref()?;
    let all = KeyRange::all();
    let first = store.scan(Space::TimersByTime, &all, 1, false).ok()?;
    let due = first.first()?.0.first_chunk::<8>()?;
    Some(crate::timed_keys::key_time(*due))
}
