//! Implements the operations on projections: upload, activate, roll back, pause, resume, rebuild,
//! delete. Every change of the catalogue is one durable write. The registry in memory is changed
//! after that write.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_core::{
    Manifest, ManifestError, Plugin, ProjectionRecord, ShardId, VersionId, VersionRecord,
    VersionSource, VersionState,
};
use parking_lot::MutexGuard;
use sha2::{Digest, Sha256};

use crate::outbox::has_unsent;
use crate::registry::{Projection, VersionBuild};
use crate::sample_check::sample_warnings;
use crate::shard::{Shard, StepLimits, StepOutcome};
use crate::shard_handle::ShardHandle;
use crate::stop_reason::StopReason;
use crate::{Activation, Engine, EngineError, Uploaded, activation, determinism_check};

/// The maximum number of versions that a projection may have.
const VERSIONS_MAX: usize = 32;

/// A plugin to be uploaded as a version.
pub struct Upload {
    /// The plugin, after compilation and `setup` with its parameters.
    pub plugin: Arc<dyn Plugin>,
    /// The SHA-256 of the plugin's bytes as uploaded, in hexadecimal.
    pub sha256: String,
    /// The parameters that were passed to `setup`.
    pub parameters: String,
    /// The source code that the plugin runs, if it is an interpreter.
    pub source: Option<VersionSource>,
    /// The name of the projection; `None` to use the name in the manifest.
    pub name: Option<String>,
    /// Whether the version becomes active by itself once it has caught up.
    pub activate: Activation,
    /// Whether the determinism check runs first. It folds a sample of the log several times, and
    /// refuses the plugin if the results differ.
    pub check: bool,
}

impl Upload {
    /// Creates an upload without parameters and under the manifest's name. The determinism check
    /// runs. The version becomes active unless it has parked events that the active version has
    /// applied.
    #[must_use]
    pub fn new(plugin: Arc<dyn Plugin>, sha256: impl Into<String>) -> Self {
        let (sha256, parameters, name) = (sha256.into(), String::new(), None);
        let (activate, check) = (Activation::Checked, true);
        Self { plugin, sha256, parameters, source: None, name, activate, check }
    }
}

/// Returns the id of the version that consists of a plugin, its parameters and, if the plugin is an
/// interpreter, the source code that it runs; see [`VersionId`].
#[must_use]
pub fn version_id(sha256: &str, parameters: &str, source: Option<&VersionSource>) -> VersionId {
    let mut hash = Sha256::new();
    if let Some(VersionSource { name, text, .. }) = source {
        // No SHA-256 in hexadecimal begins with the text `source`. So this id differs from the ids
        // of all versions without source code.
        hash.update(format!("source {} {} ", name.len(), text.len()));
        hash.update(name);
        hash.update(text);
    }
    hash.update(sha256.as_bytes());
    hash.update([0]);
    hash.update(parameters.as_bytes());
    VersionId(hex::encode(&hash.finalize()[..8]))
}

impl Engine {
    /// Returns the record of the projection `name`, or a new record. Returns an error if the
    /// projection already has the maximum number of versions.
    pub(crate) fn record_with_room(&self, name: &str) -> Result<ProjectionRecord, EngineError> {
        let record = match self.registry.read().get(name) {
            Some(projection) => projection.record.clone(),
            None => ProjectionRecord { name: name.to_owned(), ..ProjectionRecord::default() },
        };
        if record.versions.len() >= VERSIONS_MAX {
            let (what, count) = ("versions; delete old ones", record.versions.len() + 1);
            return Err(ManifestError::TooMany { what, count, limit: VERSIONS_MAX }.into());
        }
        Ok(record)
    }

    /// Creates a version from `upload` and folds the log with it in the background. Meanwhile the
    /// active version continues to serve readers.
    ///
    /// The same plugin with the same parameters and the same source code is the same version. If
    /// this version exists already, nothing changes, with one exception: [`Activation::Forced`]
    /// activates a version whose activation was refused, and one that has not caught up yet as soon
    /// as it has.
    ///
    /// # Errors
    /// Returns [`EngineError::Manifest`], [`EngineError::Nondeterministic`],
    /// [`EngineError::Plugin`], or the error of a store. On an error nothing is kept.
    pub fn upload(&self, upload: Upload) -> Result<Uploaded, EngineError> {
        let manifest = upload.plugin.manifest().clone();
        let name = upload.name.clone().unwrap_or_else(|| manifest.name.clone());
        check_upload(&name, &manifest)?;
        let id = version_id(&upload.sha256, &upload.parameters, upload.source.as_ref());
        let mut uploaded = Uploaded {
            projection: name.clone(),
            version: id.0.clone(),
            existed: true,
            checked_events: 0,
            warnings: Vec::new(),
        };
        if self.registry.has_version(&name, &id) {
            self.force_existing(&name, &id, upload.activate)?;
            return Ok(uploaded);
        }
        self.check_cycles(&name, &manifest, true)?;
        if upload.check {
            let sample = determinism_check::sample(&manifest, &*self.ports.log, &self.config)?;
            let (plugin, stores) = (&upload.plugin, &*self.ports.stores);
            uploaded.checked_events =
                determinism_check::determinism(plugin, &sample, stores, &self.config)?;
            uploaded.warnings = sample_warnings(&manifest, &sample);
        }
        let lifecycle = self.lifecycle.lock();
        if self.registry.has_version(&name, &id) {
            drop(lifecycle);
            self.force_existing(&name, &id, upload.activate)?;
            return Ok(uploaded);
        }
        // Another version may have been uploaded while the determinism check ran.
        self.check_cycles(&name, &manifest, true)?;
        uploaded.existed = false;
        let mut record = self.record_with_room(&name)?;
        if upload.activate != Activation::Never {
            // If several versions backfill, only the one that was uploaded last becomes active by
            // itself.
            record.versions.iter_mut().for_each(|v| v.activate_when_ready = false);
        }
        let version = VersionRecord {
            id: id.clone(),
            sha256: upload.sha256,
            parameters: upload.parameters,
            source: upload.source,
            manifest,
            state: VersionState::Backfilling,
            created: self.ports.clock.wall(),
            activate_when_ready: upload.activate != Activation::Never,
            activate_forced: upload.activate == Activation::Forced,
            ..VersionRecord::default()
        };
        // An earlier version with this id may have left a state, which is deleted here.
        self.ports.stores.remove(&name, &id, 0)?;
        record.versions.push(version.clone());
        self.ports.catalog.save(&record)?;
        let build = Arc::new(VersionBuild::open(&self.ports, &record, &version));
        *build.plugin.lock() = Some(upload.plugin);
        let mut projections = self.registry.write();
        let projection = projections.entry(name).or_insert_with(|| Projection {
            record: record.clone(),
            builds: std::collections::BTreeMap::new(),
            logs: Arc::default(),
            verified: Arc::default(),
        });
        projection.record = record;
        projection.builds.insert(id, build.clone());
        drop(projections);
        build.handles.iter().for_each(|handle| self.scheduler.queues.wake(handle));
        Ok(uploaded)
    }

    /// Activates `version`. First `version` folds events up to the next offset of the active
    /// version. Then readers are switched to it in one step. With `force`, it is activated even if
    /// it has parked events that the active version has applied.
    ///
    /// # Errors
    /// Returns [`EngineError::NotReady`] if `version` has not caught up,
    /// [`EngineError::AppliesLess`], [`EngineError::Halted`], or the error of a store. On an error,
    /// the active version stays active.
    pub fn activate(
        &self,
        projection: &str,
        version: &VersionId,
        force: bool,
    ) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        let build = self.registry.build(projection, version)?;
        self.check_cycles(projection, &build.manifest, false)?;
        self.flip(projection, version, force)
    }

    /// Activates the previously active version again, even if it has parked events that
    /// the active version has applied: a rollback must always be possible at once.
    ///
    /// # Errors
    /// Returns [`EngineError::NoPrevious`], or an error of [`Engine::activate`].
    pub fn rollback(&self, projection: &str) -> Result<VersionId, EngineError> {
        let _lifecycle = self.lifecycle.lock();
        let previous = self.registry.record(projection)?.previous;
        let previous = previous.ok_or_else(|| EngineError::NoPrevious(projection.into()))?;
        self.flip(projection, &previous, true)?;
        Ok(previous)
    }

    /// Stops the folds of all versions of a projection until [`Engine::resume`]. Readers
    /// still see the tables.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`], or the error of the catalogue.
    pub fn pause(&self, projection: &str) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        self.change(projection, |record| record.paused = true)?;
        for handle in self.registry.handles_of(projection)? {
            handle.paused.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Continues the folds of all versions of a projection. Halted versions try again at the offset
    /// at which they stopped.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`], or the error of the catalogue.
    pub fn resume(&self, projection: &str) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        self.change(projection, |record| {
            record.paused = false;
            record.versions.iter_mut().for_each(|v| v.halted = None);
        })?;
        self.open_again(projection)?;
        for handle in self.registry.handles_of(projection)? {
            handle.paused.store(false, Ordering::Release);
            if handle.store.is_some() {
                let mut shard = handle.shard.lock();
                handle.snapshot.lock().halted = None;
                if let Some(shard) = shard.as_mut() {
                    shard.state.parking.end_row();
                }
            }
            self.scheduler.queues.wake(&handle);
        }
        Ok(())
    }

    /// Deletes a version that does not serve readers, with its tables.
    ///
    /// # Errors
    /// Returns [`EngineError::IsActive`], [`EngineError::NoVersion`], [`EngineError::Unsent`], or
    /// the error of the catalogue.
    pub fn delete_version(&self, projection: &str, version: &VersionId) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        let build = self.registry.build(projection, version)?;
        if self.registry.record(projection)?.active.as_ref() == Some(version) {
            return Err(EngineError::IsActive(projection.into(), version.clone()));
        }
        for handle in &build.handles {
            let waiting = || {
                // A state that could not be opened when the server started may be readable now.
                let store =
                    handle.store.clone().map_or_else(|| self.ports.stores.open(&handle.id), Ok);
                has_unsent(&*store?)
            };
            // A version with unsent events is not deleted. If the first read of the state fails,
            // the state is read once more, because a disk error may be temporary. If that read
            // fails too, the version is deleted: its unsent events cannot be read any more.
            if waiting().or_else(|_| waiting()).is_ok_and(|waiting| waiting) {
                return Err(EngineError::Unsent(projection.into(), version.clone()));
            }
        }
        self.change(projection, |record| {
            record.versions.retain(|v| v.id != *version);
            if record.previous.as_ref() == Some(version) {
                record.previous = None;
            }
        })?;
        drop(lock_and_close(&build));
        if let Some(p) = self.registry.write().get_mut(projection) {
            p.builds.remove(version);
        }
        self.delete_state(projection, &build);
        self.delete_unused_plugins(std::slice::from_ref(&build.version.sha256));
        Ok(())
    }

    /// Deletes a projection with all versions and tables.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`], or the error of the catalogue.
    pub fn delete(&self, projection: &str) -> Result<(), EngineError> {
        let _lifecycle = self.lifecycle.lock();
        self.registry.record(projection)?;
        self.ports.catalog.delete(projection)?;
        let removed = self.registry.write().remove(projection);
        self.emit_quotas.lock().remove(projection);
        let builds = removed.map(|p| p.builds).unwrap_or_default();
        let mut plugins = Vec::new();
        for build in builds.values() {
            drop(lock_and_close(build));
            self.delete_state(projection, build);
            plugins.push(build.version.sha256.clone());
        }
        self.delete_unused_plugins(&plugins);
        self.ports.publish.activated(projection, None);
        Ok(())
    }

    /// Reports that a shard of a version that is not active has caught up for the first time. Once
    /// all shards of the version have caught up, the version becomes ready or active. Returns
    /// `false` if the caller must try again later.
    pub(crate) fn caught_up(&self, handle: &ShardHandle) -> bool {
        let _lifecycle = self.lifecycle.lock();
        let id = &handle.id;
        let Ok(build) = self.registry.build(&id.projection, &id.version) else {
            return true;
        };
        let all = build.handles.iter().all(|handle| handle.caught_up.load(Ordering::Acquire));
        let Ok(record) = self.registry.record(&id.projection) else {
            return true;
        };
        let Some(version) = record.version(&id.version) else {
            return true;
        };
        if !all || version.state != VersionState::Backfilling {
            return true;
        }
        let outcome = if version.activate_when_ready {
            match self.flip(&id.projection, &id.version, version.activate_forced) {
                Err(EngineError::AppliesLess(less)) => {
                    tracing::error!(projection = %id.projection, version = %id.version, %less, "a version was not activated");
                    self.ready(id, Some(less.to_string()))
                }
                flipped => flipped,
            }
        } else {
            self.ready(id, None)
        };
        if let Err(error) = outcome {
            tracing::warn!(projection = %id.projection, version = %id.version, %error, "a version could not be activated; the engine tries again");
            handle.caught_up.store(false, Ordering::Release);
            return false;
        }
        true
    }

    /// Marks a version that has caught up as ready, so that [`Engine::activate`] can activate it.
    /// `refused` is the reason why it did not become active by itself.
    fn ready(&self, id: &ShardId, refused: Option<String>) -> Result<(), EngineError> {
        let ready = |record: &mut ProjectionRecord| {
            set_state(record, &id.version, VersionState::Ready);
            if let Some(v) = record.versions.iter_mut().find(|v| v.id == id.version) {
                v.not_activated = refused;
            }
        };
        self.change(&id.projection, ready).map(drop)
    }

    /// Stores the result of a verification in the catalogue, so that it is kept when the server
    /// restarts.
    pub(crate) fn keep_verified(&self, projection: &str, status: &crate::VerifyStatus) {
        let _lifecycle = self.lifecycle.lock();
        let json = serde_json::to_string(status).expect("texts and numbers always encode");
        let saved = self.change(projection, |record| {
            if let Some(v) = record.versions.iter_mut().find(|v| v.id.0 == status.version) {
                v.verified = Some(json);
            }
        });
        if let Err(error) = saved {
            tracing::warn!(projection, %error, "the result of a verification could not be stored in the catalogue");
        }
    }

    /// Stores the reason for a halt in the catalogue.
    pub(crate) fn note_halt(&self, id: &ShardId, reason: String) {
        let _lifecycle = self.lifecycle.lock();
        let halted = self.change(&id.projection, |record| {
            if let Some(v) = record.versions.iter_mut().find(|v| v.id == id.version) {
                v.halted = Some(reason);
            }
        });
        if let Err(error) = halted {
            tracing::warn!(projection = %id.projection, %error, "a halt could not be stored in the catalogue");
        }
    }

    fn flip(&self, projection: &str, version: &VersionId, force: bool) -> Result<(), EngineError> {
        let record = self.registry.record(projection)?;
        let new = self.registry.build(projection, version)?;
        if record.active.as_ref() == Some(version) {
            return Ok(());
        }
        let old = match &record.active {
            Some(id) => Some(self.registry.build(projection, id)?),
            None => None,
        };
        // The shards of the old version are locked before those of the new one, both in order of
        // partition. All code that locks more than one shard must use this order.
        let old_handles: &[Arc<ShardHandle>] = old.as_ref().map_or(&[], |build| &build.handles);
        let mut old_guards: Vec<_> = old_handles.iter().map(|handle| handle.shard.lock()).collect();
        let mut new_guards: Vec<_> = new.handles.iter().map(|handle| handle.shard.lock()).collect();
        let now = self.ports.clock.monotonic();
        for (index, handle) in new.handles.iter().enumerate() {
            let leader = old_handles.get(index).zip(old_guards.get_mut(index));
            self.level(handle, &mut new_guards[index], leader, now)?;
        }
        if let Some(old) = old.as_ref().filter(|_| !force) {
            activation::check(projection, (old, &old_guards), (&new, &new_guards))?;
        }
        let mut flipped = record;
        if let Some(old) = &old {
            set_state(&mut flipped, &old.version.id, VersionState::Retired);
            flipped.previous = Some(old.version.id.clone());
        }
        transfer_unsent(&mut flipped, old.as_deref(), version, &mut new_guards);
        set_state(&mut flipped, version, VersionState::Active);
        flipped.active = Some(version.clone());
        flipped.activations += 1;
        let epoch = new.epoch(&flipped);
        // A version that is not active makes no commits without a sync.
        for shard in old_guards.iter_mut().filter_map(|guard| guard.as_mut()) {
            shard.close(now)?;
            self.publish_commits(shard);
        }
        let started = new_guards.iter_mut().try_for_each(|guard| match guard.as_mut() {
            Some(shard) => shard.set_epoch(Some(epoch.clone()), now),
            None => Ok(()),
        });
        // This write activates the version. If the process dies before it, the old version stays
        // active; if the process dies after it, the new version is active.
        if let Err(error) = started.and_then(|()| self.ports.catalog.save(&flipped)) {
            for shard in new_guards.iter_mut().filter_map(|guard| guard.as_mut()) {
                shard.state.epoch = None;
            }
            return Err(error.into());
        }
        for (handle, guard) in old_handles.iter().zip(&mut old_guards) {
            handle.active.store(false, Ordering::Release);
            handle.caught_up.store(true, Ordering::Release);
            if let Some(shard) = guard.as_mut() {
                shard.state.epoch = None;
            }
        }
        for (handle, guard) in new.handles.iter().zip(&new_guards) {
            handle.active.store(true, Ordering::Release);
            if let Some(shard) = guard.as_ref() {
                handle.record_step(shard, now);
            }
        }
        self.registry.set_record(projection, flipped);
        self.ports.publish.activated(projection, Some(&epoch));
        tracing::info!(projection, %version, %epoch, "a version was activated");
        drop((old_guards, new_guards));
        new.handles.iter().for_each(|handle| self.scheduler.queues.wake(handle));
        Ok(())
    }

    /// Folds a shard up to the next offset of its leader, and no further.
    pub(crate) fn level(
        &self,
        handle: &Arc<ShardHandle>,
        guard: &mut Option<Shard>,
        leader: Option<(&Arc<ShardHandle>, &mut MutexGuard<'_, Option<Shard>>)>,
        now: std::time::Duration,
    ) -> Result<(), EngineError> {
        if let Some(reason) = handle.snapshot.lock().halted.clone() {
            return Err(EngineError::Halted(
                handle.id.projection.clone(),
                handle.id.version.clone(),
                reason,
            ));
        }
        let stopped = |stop: StopReason| match stop {
            StopReason::Fault(reason) | StopReason::Halt(reason) => {
                EngineError::Halted(handle.id.projection.clone(), handle.id.version.clone(), reason)
            }
        };
        if guard.is_none() {
            *guard = Some(self.open_shard(handle).map_err(stopped)?);
        }
        let shard = guard.as_mut().expect("just opened");
        // If the state of the leader (the active version's shard) cannot be read, the shard has no
        // leader.
        let leader = leader.filter(|(ahead, _)| ahead.store.is_some());
        let Some((ahead, leading)) = leader else {
            let ticked = shard.state.watermark_due().is_none();
            return if handle.caught_up.load(Ordering::Acquire) && ticked {
                Ok(())
            } else {
                Err(self.not_ready(handle))
            };
        };
        // Before the switch, the old version's timers for its next offset must have fired.
        // Afterwards the events that these timers emit would not be appended to the log, because
        // only the active version's emitted events are.
        let halted = ahead.snapshot.lock().halted.is_some();
        let ticks = leading.as_ref().is_some_and(|leading| leading.state.watermark_due().is_some());
        if ticks && !halted {
            return Err(self.not_ready(handle));
        }
        if let Some(leading) = leading.as_mut().filter(|leading| leading.is_dirty()) {
            self.commit(leading, now)?;
            ahead.record_step(leading, now);
        }
        let target = ahead.next();
        // If the shard is far behind, folding the events up to `target` would block the active
        // version for too long.
        let far = target.0.saturating_sub(shard.state.meta.next.0)
            > self.config.batch_events_max as u64 * 4;
        if far || shard.state.meta.next > target {
            return Err(self.not_ready(handle));
        }
        let limits = StepLimits { now, before: Some(target), batch_events: None };
        while shard.state.meta.next < target || shard.state.watermark_due().is_some() {
            let outcome = shard.step(&*self.ports.log, &limits);
            if outcome.map_err(stopped)? == StepOutcome::Idle && shard.state.meta.next < target {
                return Err(self.not_ready(handle));
            }
        }
        Ok(())
    }

    pub(crate) fn not_ready(&self, handle: &ShardHandle) -> EngineError {
        EngineError::NotReady {
            projection: handle.id.projection.clone(),
            version: handle.id.version.clone(),
            percent: self.percent(handle),
        }
    }

    /// Changes the record of a projection, first in the catalogue and then in memory.
    pub(crate) fn change(
        &self,
        projection: &str,
        change: impl FnOnce(&mut ProjectionRecord),
    ) -> Result<ProjectionRecord, EngineError> {
        let mut record = self.registry.record(projection)?;
        change(&mut record);
        self.ports.catalog.save(&record)?;
        self.registry.set_record(projection, record.clone());
        Ok(record)
    }

    pub(crate) fn delete_state(&self, projection: &str, build: &VersionBuild) {
        let version = &build.version;
        if let Err(error) = self.ports.stores.remove(projection, &version.id, version.rebuilds) {
            tracing::warn!(projection, version = %version.id, %error, "the files of an old state could not be deleted");
        }
    }

    fn delete_unused_plugins(&self, candidates: &[String]) {
        let projections = self.registry.read();
        for sha256 in candidates {
            let mut versions = projections.values().flat_map(|p| &p.record.versions);
            if !versions.any(|v| v.sha256 == *sha256) {
                self.ports.plugins.forget(sha256);
            }
        }
    }
}

/// Stops the shards of `build` permanently. It waits for their steps to end, and drops the shards.
pub(crate) fn lock_and_close(build: &VersionBuild) -> Vec<MutexGuard<'_, Option<Shard>>> {
    build.handles.iter().for_each(|handle| handle.deleted.store(true, Ordering::Release));
    let mut guards: Vec<_> = build.handles.iter().map(|handle| handle.shard.lock()).collect();
    guards.iter_mut().for_each(|guard| **guard = None);
    guards
}

/// Copies to the new version the offsets from which the old version sends its emitted events. If
/// the old version was rebuilt, it may not have reached these offsets yet: the events that it
/// emitted before them are already in the log.
fn transfer_unsent(
    record: &mut ProjectionRecord,
    old: Option<&VersionBuild>,
    new: &VersionId,
    shards: &mut [MutexGuard<'_, Option<Shard>>],
) {
    let old = old.and_then(|old| record.version(&old.version.id));
    let emit_from = old.map(|old| old.emit_from.clone()).unwrap_or_default();
    for (index, guard) in shards.iter_mut().enumerate() {
        if let Some(shard) = guard.as_mut() {
            shard.state.outbox.emit_from = emit_from.get(index).copied().unwrap_or_default();
        }
    }
    if let Some(new) = record.versions.iter_mut().find(|v| v.id == *new) {
        new.emit_from = emit_from;
    }
}

fn set_state(record: &mut ProjectionRecord, version: &VersionId, state: VersionState) {
    if let Some(v) = record.versions.iter_mut().find(|v| v.id == *version) {
        v.state = state;
        v.not_activated = None;
    }
}

/// Checks the rules for a version with the manifest `manifest` and the name `name`.
pub(crate) fn check_upload(name: &str, manifest: &Manifest) -> Result<(), EngineError> {
    Manifest { name: name.to_owned(), ..manifest.clone() }.check()?;
    Ok(())
}
