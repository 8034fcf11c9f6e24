//! Rebuilds states, and opens states that could not be opened before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_core::{EmitFrom, ReadStore, ShardId, ShardMeta, StoreError, VersionId};

use crate::lifecycle::lock_and_close;
use crate::outbox::carried_over;
use crate::registry::VersionBuild;
use crate::shard_handle::read_meta;
use crate::state::watermark_due;
use crate::{Engine, EngineError};

impl Engine {
    /// Deletes a version's state and folds the log from the beginning. Events that the version has
    /// already emitted are not appended again. If the version is active, its readers get a reset
    /// and then see the tables fill again.
    ///
    /// # Errors
    /// Returns [`EngineError::NoVersion`], or the error of a store.
    pub fn rebuild(&self, projection: &str, version: &VersionId) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        let build = self.registry.build(projection, version)?;
        let mut record = self.registry.record(projection)?;
        let guards = lock_and_close(&build);
        let goes_on = || {
            for handle in &build.handles {
                handle.reset_to_stored();
                handle.deleted.store(false, Ordering::Release);
                self.scheduler.queues.wake(handle);
            }
        };
        if let Some(v) = record.versions.iter_mut().find(|v| v.id == *version) {
            let emit_from =
                self.unsent_of_previous_build(&build, &v.emit_from).inspect_err(|_| goes_on())?;
            v.rebuild(emit_from);
        }
        self.ports.catalog.save(&record).inspect_err(|_| goes_on())?;
        drop(guards);
        let fresh = record.version(version).expect("just changed").clone();
        let fresh = Arc::new(VersionBuild::open(&self.ports, &record, &fresh));
        fresh.plugin.lock().clone_from(&build.plugin.lock());
        // The projection's record and the version's shards are replaced under one lock. Otherwise a
        // reader could get the old tables with the new epoch.
        if let Some(p) = self.registry.write().get_mut(projection) {
            p.record = record.clone();
            p.builds.insert(version.clone(), fresh.clone());
        }
        self.delete_state(projection, &build);
        if record.active.as_ref() == Some(version) {
            self.ports.publish.activated(projection, Some(&fresh.epoch(&record)));
        }
        fresh.handles.iter().for_each(|handle| self.scheduler.queues.wake(handle));
        Ok(())
    }

    /// Prepares the states for the rebuild that replaces `build`. Events that `build` has emitted
    /// and that are not in the log yet are copied into these states. Returns the offsets from which
    /// the rebuild must emit events again.
    fn unsent_of_previous_build(
        &self,
        build: &VersionBuild,
        before: &[EmitFrom],
    ) -> Result<Vec<EmitFrom>, EngineError> {
        let mut froms = Vec::with_capacity(build.handles.len());
        for (index, handle) in build.handles.iter().enumerate() {
            let before = before.get(index).copied().unwrap_or_default();
            let id = ShardId { rebuild: handle.id.rebuild + 1, ..handle.id.clone() };
            if index == 0 {
                // An earlier attempt may have left files, which are removed here.
                self.ports.stores.remove(&id.projection, &id.version, id.rebuild)?;
            }
            let read = |store: &dyn ReadStore| {
                let meta = read_meta(store)?;
                let carried = carried_over(store, &meta)?;
                Ok((meta, carried))
            };
            // A state that could not be opened when the server started may be readable now.
            let store = handle.store.clone().or_else(|| self.ports.stores.open(&handle.id).ok());
            // The read is tried twice, because a disk error may be temporary.
            let held = store.map(|store| read(&*store).or_else(|_| read(&*store)));
            let (meta, carried) = match held {
                Some(Ok(held)) => held,
                // The state is damaged, and the rebuild replaces it.
                lost => {
                    let reason = lost.and_then(|read: Result<_, StoreError>| read.err());
                    let reason = reason.map(|error| error.to_string()).unwrap_or_default();
                    tracing::error!(
                        projection = %id.projection, version = %id.version,
                        partition = %id.partition, %reason,
                        "the state to be rebuilt cannot be read: its last emitted events may be missing in the log"
                    );
                    // The next offset of the damaged state is unknown, so the rebuild emits nothing
                    // for the events that are in the log now. A missing event is better than an
                    // event that is appended twice.
                    let end = self.ports.log.bounds(id.partition)?.end;
                    (ShardMeta { next: end, ..ShardMeta::default() }, None)
                }
            };
            if let Some(writes) = carried {
                self.ports.stores.open(&id)?.commit(&writes)?;
            }
            // The timers for the state's next offset have fired, unless a fault prevented it.
            let ticked = watermark_due(&build.manifest, &meta).is_none();
            froms.push(before.behind(&meta, ticked));
        }
        Ok(froms)
    }

    /// Opens the states of a projection that could not be opened before.
    pub(crate) fn open_again(&self, projection: &str) -> Result<(), EngineError> {
        let record = self.registry.record(projection)?;
        for version in &record.versions {
            let build = self.registry.build(projection, &version.id)?;
            if build.handles.iter().all(|handle| handle.store.is_some()) {
                continue;
            }
            drop(lock_and_close(&build));
            let fresh = Arc::new(VersionBuild::open(&self.ports, &record, version));
            fresh.plugin.lock().clone_from(&build.plugin.lock());
            if let Some(p) = self.registry.write().get_mut(projection) {
                p.builds.insert(version.id.clone(), fresh.clone());
            }
            // The random part of a state's epoch changes each time the state is opened, until its
            // first commit.
            let readable = fresh.handles.iter().all(|handle| handle.store.is_some());
            if readable && record.active.as_ref() == Some(&version.id) {
                self.ports.publish.activated(projection, Some(&fresh.epoch(&record)));
            }
        }
        Ok(())
    }
}
