//! Implements the registry, which keeps all projections in memory, with their records, versions and
//! shards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_core::{
    Manifest, PartitionId, Plugin, ProjectionRecord, Recovering, ShardId, StoreError, TypeFilter,
    VersionId, VersionRecord, View, ViewError,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::batching::type_filter_of;
use crate::ports::Ports;
use crate::shard_handle::ShardHandle;
use crate::stop_reason::StopReason;
use crate::{EngineError, LogLine, VerifyStatus};

/// All projections, by the key that identifies them.
#[derive(Default)]
pub(crate) struct Registry(RwLock<BTreeMap<String, Projection>>);

/// Decides how a shard stops if its state cannot be opened: a damaged state needs an operator
/// (halt), other errors may be temporary (fault).
pub(crate) fn stop_of_open_error(error: StoreError) -> StopReason {
    match error {
        StoreError::Damaged(_) => {
            StopReason::Halt(format!("{error}; stop the server and run `lantern doctor`"))
        }
        error => StopReason::Fault(error.to_string()),
    }
}

pub(crate) struct Projection {
    pub(crate) record: ProjectionRecord,
    pub(crate) builds: BTreeMap<VersionId, Arc<VersionBuild>>,
    pub(crate) logs: Arc<Mutex<VecDeque<LogLine>>>,
    /// The last verification of the projection, running or ended.
    pub(crate) verified: Arc<Mutex<Option<VerifyStatus>>>,
}

impl Projection {
    /// Returns the feed's epoch; empty if no version is active.
    pub(crate) fn epoch(&self) -> String {
        let build = self.record.active.as_ref().and_then(|id| self.builds.get(id));
        build.map(|build| build.epoch(&self.record)).unwrap_or_default()
    }
}

/// The shards of a version, with their states since the last rebuild of the version. A rebuild
/// replaces this value by a new one.
pub(crate) struct VersionBuild {
    pub(crate) version: VersionRecord,
    pub(crate) manifest: Arc<Manifest>,
    /// The event types that the shards read.
    pub(crate) types: TypeFilter,
    pub(crate) plugin: Mutex<Option<Arc<dyn Plugin>>>,
    pub(crate) handles: Vec<Arc<ShardHandle>>,
}

impl VersionBuild {
    /// Returns a number that changes if the state of one of the shards is created again.
    pub(crate) fn born(&self) -> u64 {
        self.handles.iter().fold(0, |all, handle| all.rotate_left(7) ^ handle.born)
    }

    /// Returns the feed's epoch if these shards belong to the active version of `record`, otherwise
    /// an empty text.
    pub(crate) fn epoch(&self, record: &ProjectionRecord) -> String {
        record.epoch(self.born())
    }
}

impl Registry {
    /// Locks the projections for reading.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Projection>> {
        self.0.read()
    }

    /// Locks the projections for changes. The caller must hold the engine's `lifecycle`
    /// lock.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Projection>> {
        self.0.write()
    }

    /// Returns the record of a projection.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`].
    pub(crate) fn record(&self, projection: &str) -> Result<ProjectionRecord, EngineError> {
        self.with(projection, |entry| entry.record.clone())
    }

    /// Returns the shards of a version.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`], [`EngineError::NoVersion`].
    pub(crate) fn build(
        &self,
        projection: &str,
        version: &VersionId,
    ) -> Result<Arc<VersionBuild>, EngineError> {
        let build = self.with(projection, |entry| entry.builds.get(version).cloned())?;
        build.ok_or_else(|| EngineError::NoVersion(projection.into(), version.clone()))
    }

    /// Returns whether the projection has this version.
    pub(crate) fn has_version(&self, projection: &str, version: &VersionId) -> bool {
        self.build(projection, version).is_ok()
    }

    /// Returns the shards of all versions of a projection.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`].
    pub(crate) fn handles_of(
        &self,
        projection: &str,
    ) -> Result<Vec<Arc<ShardHandle>>, EngineError> {
        self.with(projection, |entry| {
            entry.builds.values().flat_map(|build| build.handles.iter().cloned()).collect()
        })
    }

    /// Calls `read` with a projection and returns its result.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`].
    pub(crate) fn with<T>(
        &self,
        projection: &str,
        read: impl FnOnce(&Projection) -> T,
    ) -> Result<T, EngineError> {
        let projections = self.read();
        let entry = projections.get(projection);
        entry.map(read).ok_or_else(|| EngineError::NoProjection(projection.into()))
    }

    /// Replaces the record of a projection in memory.
    pub(crate) fn set_record(&self, projection: &str, record: ProjectionRecord) {
        if let Some(entry) = self.write().get_mut(projection) {
            entry.record = record;
        }
    }

    /// Returns the handles of all shards.
    pub(crate) fn handles(&self) -> Vec<Arc<ShardHandle>> {
        let projections = self.read();
        let builds = projections.values().flat_map(|p| p.builds.values());
        builds.flat_map(|build| build.handles.iter().cloned()).collect()
    }

    /// Returns the leader of `handle`: the active version's shard on the same partition, which
    /// `handle` must not overtake. `None` if there is none.
    pub(crate) fn leader_of(&self, handle: &ShardHandle) -> Option<Arc<ShardHandle>> {
        if handle.active.load(Ordering::Acquire) {
            return None;
        }
        let projections = self.read();
        let projection = projections.get(&handle.id.projection)?;
        let active = projection.record.active.as_ref()?;
        if *active == handle.id.version {
            return None;
        }
        let leader = projection.builds.get(active)?.handles.get(handle.id.partition.0 as usize)?;
        // If a leader's state is unreadable, its offset is unknown. The follower then ignores the
        // leader.
        leader.store.is_some().then(|| leader.clone())
    }

    /// Returns the shards of other versions of the same projection and partition whose offsets are
    /// lower than that of `handle`.
    pub(crate) fn followers_of(&self, handle: &ShardHandle) -> Vec<Arc<ShardHandle>> {
        let projections = self.read();
        let Some(projection) = projections.get(&handle.id.projection) else {
            return Vec::new();
        };
        let others = projection.builds.iter().filter(|(version, _)| **version != handle.id.version);
        others
            .filter_map(|(_, build)| build.handles.get(handle.id.partition.0 as usize))
            .filter(|follower| follower.next() < handle.next())
            .cloned()
            .collect()
    }

    /// Returns the shards of the active version, and its epoch.
    ///
    /// # Errors
    /// Returns [`ViewError`] if there is no such projection, or none of its versions is active.
    pub(crate) fn active_build(
        &self,
        projection: &str,
    ) -> Result<(Arc<VersionBuild>, String), ViewError> {
        let projections = self.read();
        let entry = projections
            .get(projection)
            .ok_or_else(|| ViewError::NoProjection(projection.into()))?;
        let active = entry.record.active.as_ref();
        let build = active
            .and_then(|id| entry.builds.get(id))
            .ok_or_else(|| ViewError::NotActive(projection.into()))?;
        Ok((build.clone(), build.epoch(&entry.record)))
    }

    /// Returns the shards of a version, active or not, and the epoch under which the version's
    /// tables are read while it is not active.
    ///
    /// # Errors
    /// Returns [`ViewError`] if there is no such version.
    pub(crate) fn shadow_build(
        &self,
        projection: &str,
        version: &VersionId,
    ) -> Result<(Arc<VersionBuild>, String), ViewError> {
        let projections = self.read();
        let entry = projections
            .get(projection)
            .ok_or_else(|| ViewError::NoProjection(projection.into()))?;
        let build = entry
            .builds
            .get(version)
            .ok_or_else(|| ViewError::NoVersion(projection.into(), version.clone()))?;
        let rebuilds = build.version.rebuilds;
        let epoch = format!("shadow.{version}.{rebuilds}.{:016x}", build.born());
        Ok((build.clone(), epoch))
    }
}

impl Projection {
    /// Creates a projection from `record` and opens the state of every shard.
    pub(crate) fn open(ports: &Ports, record: ProjectionRecord) -> Self {
        let builds = record
            .versions
            .iter()
            .map(|version| {
                (version.id.clone(), Arc::new(VersionBuild::open(ports, &record, version)))
            })
            .collect();
        let active = record.active.as_ref().and_then(|id| record.version(id));
        let stored = active.and_then(|version| version.verified.as_deref());
        // Another release may have stored a result that this release cannot read.
        let verified = stored.and_then(|json| serde_json::from_str(json).ok());
        let verified = Arc::new(Mutex::new(verified));
        Self { record, builds, logs: Arc::default(), verified }
    }
}

impl VersionBuild {
    /// Creates a version of the projection `record`, and opens the state of every shard.
    pub(crate) fn open(ports: &Ports, record: &ProjectionRecord, version: &VersionRecord) -> Self {
        let active = record.active.as_ref() == Some(&version.id);
        let handles = (0..ports.log.partitions()).map(|partition| {
            let id = ShardId {
                projection: record.key(),
                version: version.id.clone(),
                rebuild: version.rebuilds,
                partition: PartitionId(partition),
            };
            let store = ports.stores.open(&id).map_err(stop_of_open_error);
            let handle = ShardHandle::new(id, store, &*ports.random);
            handle.active.store(active, Ordering::Release);
            handle.paused.store(record.paused, Ordering::Release);
            if let Some(reason) = &version.halted {
                handle.snapshot.lock().halted.get_or_insert_with(|| reason.clone());
            }
            Arc::new(handle)
        });
        VersionBuild {
            version: version.clone(),
            manifest: Arc::new(version.manifest.clone()),
            types: type_filter_of(&version.manifest),
            plugin: Mutex::default(),
            handles: handles.collect(),
        }
    }

    /// Returns the reason if the tables of the version cannot be read yet after a crash, otherwise
    /// `None`.
    pub(crate) fn recovering(&self, projection: &str) -> Option<Recovering> {
        let handle = self.handles.iter().find(|handle| handle.recovery.is_pending())?;
        let (activity, why) = handle.activity(true);
        let stopped = matches!(activity, "halted" | "paused");
        let partition = handle.id.partition;
        let reason = match (activity, why) {
            ("paused", _) => "it is paused: resume it".into(),
            ("halted" | "faulted", Some(why)) => {
                format!("it is {activity} on partition {partition}: {why}")
            }
            _ => format!(
                "partition {partition} is folded up to offset {}, and up to {} may have been shown",
                handle.next(),
                handle.recovery.target.offset()
            ),
        };
        Some(Recovering { projection: projection.into(), reason, stopped })
    }

    /// Opens a view of the version's tables.
    ///
    /// # Errors
    /// Returns [`ViewError`] if a state cannot be read.
    pub(crate) fn view(
        &self,
        ports: &Ports,
        projection: &str,
        epoch: String,
    ) -> Result<View, ViewError> {
        // This is checked before the snapshots are taken, so the snapshots are at least as new as
        // the state that was checked.
        if let Some(recovering) = self.recovering(projection) {
            return Err(recovering.into());
        }
        let mut snapshots = Vec::with_capacity(self.handles.len());
        for handle in &self.handles {
            let store = handle.store.as_ref();
            let store = store.ok_or_else(|| StoreError::Damaged(handle.halt_reason()))?;
            snapshots.push((handle.id.partition, store.snapshot()?));
        }
        let version = self.version.id.clone();
        let view = View::new(projection.into(), version, epoch, self.manifest.clone(), snapshots)?;
        Ok(view.of_log(ports.log.clone()))
    }
}
