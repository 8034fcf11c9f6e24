//! Implements the state of one shard: its record, rows, parked events and emitted events. A commit
//! writes the changes of all of them together. This module knows neither the plugin nor the log.

use std::sync::Arc;

use lantern_core::{
    Batch, KeyRange, Manifest, ParkedRecord, ShardId, ShardMeta, ShardStore, Space, StoreError,
    TableId, Timestamp,
};

use crate::EngineConfig;
use crate::call::CallHost;
use crate::outbox::Outbox;
use crate::parked_events::Parking;
use crate::row_watch::RowWatch;
use crate::stop_reason::StopReason;
use crate::timed_keys::{expiry_by_row, expiry_by_time, key_time, time_key};
use crate::write_buffer::WriteBuffer;

/// The state of one shard with all applied changes, whether they are committed or not.
pub(crate) struct ShardState {
    pub(crate) id: ShardId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) config: Arc<EngineConfig>,
    /// The feed's epoch if this version is active, otherwise `None`. A version that is not active
    /// publishes no commits, and its emitted events are not appended to the log.
    pub(crate) epoch: Option<String>,
    pub(crate) meta: ShardMeta,
    pub(crate) buffer: WriteBuffer,
    pub(crate) parking: Parking,
    pub(crate) outbox: Outbox,
    /// A time before which no timer and no expiry of a row is due.
    pub(crate) due_from: Timestamp,
    /// Records the changes of one row; only an explanation of a row sets it.
    pub(crate) watch: Option<Box<RowWatch>>,
}

impl ShardState {
    /// Opens the state in `store`.
    ///
    /// # Errors
    /// Returns [`StopReason`] if it cannot be read, is damaged or has another format.
    pub(crate) fn open(
        id: ShardId,
        manifest: Arc<Manifest>,
        store: Arc<dyn ShardStore>,
        config: Arc<EngineConfig>,
    ) -> Result<Self, StopReason> {
        let record = store.get(Space::Meta, ShardMeta::KEY)?;
        let fresh = record.is_none();
        let mut meta = ShardMeta::decode(record.as_deref())
            .map_err(|e| StopReason::Halt(format!("the shard's own record is damaged: {e}")))?;
        if meta.format != ShardMeta::FORMAT {
            return Err(StopReason::Halt(format!(
                "the shard's state has format {}, this release reads {}",
                meta.format,
                ShardMeta::FORMAT
            )));
        }
        let parking = Parking::open(&*store, manifest.on_failure)?;
        let limits = config.limits();
        if meta.pos == 0 {
            meta.limits = limits;
        } else if meta.limits != 0 && meta.limits != limits {
            (meta.limits, meta.limits_changed) = (limits, true);
        }
        if fresh {
            meta.outbox_of = id.rebuild;
        }
        let outbox = Outbox::open(&*store, &meta)?;
        let buffer = WriteBuffer::new(store);
        let due_from = Timestamp::MIN;
        let (epoch, watch) = (None, None);
        Ok(Self { id, manifest, config, epoch, meta, buffer, parking, outbox, due_from, watch })
    }

    /// Parks the event or timer in `record`.
    pub(crate) fn park(&mut self, record: &ParkedRecord) {
        self.parking.add(record, &mut self.meta, &mut self.buffer);
    }

    /// Removes the parked record under `key`.
    pub(crate) fn unpark(&mut self, key: &[u8], record: &ParkedRecord) {
        self.parking.remove(key, record, &mut self.meta, &mut self.buffer);
    }

    /// Returns the watermark at which the next batch must end, the earlier one of two times:
    ///
    /// * the time at which the first timer or expiry in the state is due;
    /// * the earliest time at which a row that the batch writes may expire.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the state cannot be read.
    pub(crate) fn next_due(&mut self) -> Result<Timestamp, StoreError> {
        if self.manifest.event_time.is_none() {
            return Ok(Timestamp::MAX);
        }
        self.due_from = self.earliest_due()?;
        let retention = self.manifest.tables.iter().filter_map(|table| table.retention_us).min();
        let retention = retention.and_then(|us| i64::try_from(us).ok()).unwrap_or(i64::MAX);
        Ok(self.due_from.min(self.meta.watermark.saturating_add(retention)))
    }

    /// Returns the time at which the first timer or the first expiry of a row is due;
    /// [`Timestamp::MAX`] if there is none.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the state cannot be read.
    pub(crate) fn earliest_due(&self) -> Result<Timestamp, StoreError> {
        // Nothing is due at or before the watermark. The read starts at `due_from`, so it also
        // skips keys of moved timers whose deletion is not committed yet.
        let from = time_key(self.due_from.max(self.meta.watermark.saturating_add(1)));
        let mut due = Timestamp::MAX;
        if self.meta.timers_now > 0 {
            let range = KeyRange { start: from.to_vec(), end: None };
            let first = self.buffer.scan(Space::TimersByTime, &range, 1, false)?;
            due = first.first().and_then(|(key, _)| due_in(key)).unwrap_or(due);
        }
        if self.manifest.tables.iter().any(|table| table.retention_us.is_some()) {
            let range = KeyRange {
                start: expiry_by_time(from, TableId(0), &[]),
                end: Some(expiry_by_row(TableId(0), &[])),
            };
            let first = self.buffer.scan(Space::Expiry, &range, 1, false)?;
            let first = first.first().and_then(|(key, _)| due_in(&key[1..]));
            due = due.min(first.unwrap_or(due));
        }
        Ok(due)
    }

    /// Prepares a call with `batch`. `dues` are the due times of the batch's timers.
    ///
    /// # Errors
    /// Returns [`StopReason::Fault`] if the state cannot be read.
    pub(crate) fn begin_call(
        &mut self,
        batch: &Arc<Batch>,
        dues: &[Timestamp],
    ) -> Result<CallHost, StopReason> {
        let lent = self.buffer.lend();
        let (manifest, config) = (self.manifest.clone(), self.config.clone());
        let mut call = CallHost::new(lent, manifest, config, batch.clone(), self.meta.timers_now);
        for (timer, due) in batch.timers.iter().zip(dues) {
            if let Err(error) = call.take_timer(*due, &timer.key) {
                self.buffer.take_back(std::mem::take(&mut call.applied));
                return Err(StopReason::Fault(error.to_string()));
            }
        }
        Ok(call)
    }

    /// Returns the watermark that follows from the events applied so far, or `None` if it is equal
    /// to the current watermark. If it is not equal, timers may still have to fire.
    pub(crate) fn watermark_due(&self) -> Option<Timestamp> {
        watermark_due(&self.manifest, &self.meta)
    }
}

/// Reads the time at the beginning of a key.
fn due_in(key: &[u8]) -> Option<Timestamp> {
    key.first_chunk::<8>().map(|time| key_time(*time))
}

/// Calculates the same as [`ShardState::watermark_due`] from the record of a state.
pub(crate) fn watermark_due(manifest: &Manifest, meta: &ShardMeta) -> Option<Timestamp> {
    let time = manifest.event_time?;
    let mark = meta.max_time.watermark(time.allowed_lateness_us, time.tick_us);
    (mark != meta.watermark).then_some(mark)
}
