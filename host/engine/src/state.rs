//! The state of one shard: its record, its rows, what is parked and what is
//! emitted. Everything here changes in one commit. Knows nothing of plugins and
//! of the log.

use std::sync::Arc;

use lantern_core::{Manifest, ParkedRecord, ShardId, ShardMeta, ShardStore, Space, Timestamp};

use crate::EngineConfig;
use crate::outbox::Outbox;
use crate::parking::Parking;
use crate::shard::Stop;
use crate::write_buffer::WriteBuffer;

/// One shard's state, as of what is applied, committed or not.
pub(crate) struct ShardState {
    pub(crate) id: ShardId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) config: Arc<EngineConfig>,
    /// The feed's epoch while this version is active; `None` while it is not: then
    /// nothing is published and nothing emitted.
    pub(crate) epoch: Option<String>,
    pub(crate) meta: ShardMeta,
    pub(crate) buffer: WriteBuffer,
    pub(crate) parking: Parking,
    pub(crate) outbox: Outbox,
}

impl ShardState {
    /// The state in `store`.
    ///
    /// # Errors
    /// [`Stop`] if it cannot be read, is damaged or has another format.
    pub(crate) fn open(
        id: ShardId,
        manifest: Arc<Manifest>,
        store: Arc<dyn ShardStore>,
        config: Arc<EngineConfig>,
    ) -> Result<Self, Stop> {
        let record = store.get(Space::Meta, ShardMeta::KEY)?;
        let fresh = record.is_none();
        let mut meta = ShardMeta::decode(record.as_deref())
            .map_err(|e| Stop::Halt(format!("the shard's own record is damaged: {e}")))?;
        if meta.format != ShardMeta::FORMAT {
            return Err(Stop::Halt(format!(
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
        Ok(Self { id, manifest, config, epoch: None, meta, buffer, parking, outbox })
    }

    /// Parks `record`.
    pub(crate) fn park(&mut self, record: &ParkedRecord) {
        self.parking.add(record, &mut self.meta, &mut self.buffer);
    }

    /// Removes the parked record under `key`.
    pub(crate) fn unpark(&mut self, key: &[u8], record: &ParkedRecord) {
        self.parking.remove(key, record, &mut self.meta, &mut self.buffer);
    }

    /// The watermark that follows from the events seen, if that is not the present
    /// one: timers have still to fire.
    pub(crate) fn watermark_due(&self) -> Option<Timestamp> {
        watermark_due(&self.manifest, &self.meta)
    }
}

/// As [`ShardState::watermark_due`], of a state's record.
pub(crate) fn watermark_due(manifest: &Manifest, meta: &ShardMeta) -> Option<Timestamp> {
    let time = manifest.event_time?;
    let mark = meta.max_time.watermark(time.allowed_lateness_us, time.tick_us);
    (mark != meta.watermark).then_some(mark)
}
