//! States that are opened again: rebuilds, and states that could not be opened before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_core::{EmitFrom, ReadStore, ShardId, ShardMeta, VersionId};

use crate::lifecycle::retire;
use crate::outbox::carried_over;
use crate::registry::Build;
use crate::slot::read_meta;
use crate::state::watermark_due;
use crate::{Engine, EngineError};

impl Engine {
    /// Deletes a version's state and folds the log from the beginning. Readers of an
    /// active version get a reset and see its tables fill again; what it
    /// emitted is not emitted twice.
    ///
    /// # Errors
    /// [`EngineError::NoVersion`], or what the stores say.
    pub fn rebuild(&self, projection: &str, version: &VersionId) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        let build = self.registry.build(projection, version)?;
        let mut record = self.registry.record(projection)?;
        let guards = retire(&build);
        let goes_on = || {
            for slot in &build.slots {
                slot.fall_back();
                slot.deleted.store(false, Ordering::Release);
                self.scheduler.pool.wake(slot);
            }
        };
        if let Some(v) = record.versions.iter_mut().find(|v| v.id == *version) {
            let emit_from = self.carry_over(&build, &v.emit_from).inspect_err(|_| goes_on())?;
            v.rebuild(emit_from);
        }
        self.ports.catalog.save(&record).inspect_err(|_| goes_on())?;
        drop(guards);
        let fresh = record.version(version).expect("just changed").clone();
        let fresh = Arc::new(Build::open(&self.ports, &record, &fresh));
        fresh.plugin.lock().clone_from(&build.plugin.lock());
        // Both at once: the old tables must not be read under the new epoch.
        if let Some(p) = self.registry.write().get_mut(projection) {
            p.record = record.clone();
            p.builds.insert(version.clone(), fresh.clone());
        }
        self.forget_state(projection, &build);
        if record.active.as_ref() == Some(version) {
            self.ports.publish.activated(projection, Some(&fresh.epoch(&record)));
        }
        fresh.slots.iter().for_each(|slot| self.scheduler.pool.wake(slot));
        Ok(())
    }

    /// Prepares the states of `build`'s next rebuild: what it has emitted and the
    /// log has not yet is put there. Says from where on what the rebuild emits
    /// is new.
    fn carry_over(&self, build: &Build, before: &[EmitFrom]) -> Result<Vec<EmitFrom>, EngineError> {
        let mut froms = Vec::with_capacity(build.slots.len());
        for (place, slot) in build.slots.iter().enumerate() {
            let before = before.get(place).copied().unwrap_or_default();
            let id = ShardId { rebuild: slot.id.rebuild + 1, ..slot.id.clone() };
            if place == 0 {
                // An earlier try may have left some.
                self.ports.stores.remove(&id.projection, &id.version, id.rebuild)?;
            }
            let read = |store: &dyn ReadStore| {
                let meta = read_meta(store)?;
                let carried = carried_over(store, &meta).map_err(|e| e.to_string())?;
                Ok::<_, String>((meta, carried))
            };
            // A state that could not be opened at the start may be by now.
            let store = slot.store.clone().or_else(|| self.ports.stores.open(&slot.id).ok());
            // Twice, since an error of the disk may pass.
            let held = store.map(|store| read(&*store).or_else(|_| read(&*store)));
            let (meta, carried) = match held {
                Some(Ok(held)) => held,
                // A rebuild replaces a damaged state.
                lost => {
                    let reason = lost.and_then(Result::err).unwrap_or_default();
                    tracing::error!(
                        projection = %id.projection, version = %id.version,
                        partition = %id.partition, %reason,
                        "the state to be rebuilt cannot be read: what it emitted last may be missing in the log"
                    );
                    // Its next offset is unknown: better not to emit twice.
                    let end = self.ports.log.bounds(id.partition)?.end;
                    (ShardMeta { next: end, ..ShardMeta::default() }, None)
                }
            };
            if let Some(writes) = carried {
                self.ports.stores.open(&id)?.commit(&writes)?;
            }
            // Its timers have fired for its next offset, unless a fault prevented
            // that.
            let ticked = watermark_due(&build.manifest, &meta).is_none();
            froms.push(before.behind(&meta, ticked));
        }
        Ok(froms)
    }

    /// Opens the states that could not be opened before.
    pub(crate) fn open_again(&self, projection: &str) -> Result<(), EngineError> {
        let record = self.registry.record(projection)?;
        for version in &record.versions {
            let build = self.registry.build(projection, &version.id)?;
            if build.slots.iter().all(|slot| slot.store.is_some()) {
                continue;
            }
            drop(retire(&build));
            let fresh = Arc::new(Build::open(&self.ports, &record, version));
            fresh.plugin.lock().clone_from(&build.plugin.lock());
            if let Some(p) = self.registry.write().get_mut(projection) {
                p.builds.insert(version.id.clone(), fresh.clone());
            }
            // A state without a commit draws its epoch's random part again.
            let readable = fresh.slots.iter().all(|slot| slot.store.is_some());
            if readable && record.active.as_ref() == Some(&version.id) {
                self.ports.publish.activated(projection, Some(&fresh.epoch(&record)));
            }
        }
        Ok(())
    }
}
