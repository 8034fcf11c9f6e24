//! Views of two versions of a projection at the same offsets, to compare their tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_core::{VersionId, View, Views as _};

use crate::registry::VersionBuild;
use crate::{Engine, EngineError};

impl Engine {
    /// Returns the tables of two versions at the same next offsets. A version that follows the
    /// active one is at most a few batches behind it. If the offsets differ, the function locks the
    /// shards and folds those that are behind up to the offset of the active version.
    ///
    /// # Errors
    /// [`EngineError::NotReady`] if a version has not caught up, [`EngineError::NotAligned`] if the
    /// projection is paused, or the error for a version that cannot be read.
    pub fn aligned_views(
        &self,
        projection: &str,
        versions: [&VersionId; 2],
    ) -> Result<[View; 2], EngineError> {
        let views = self.views(projection, versions)?;
        if is_aligned(&views) {
            return Ok(views);
        }
        let _lifecycle = self.lifecycle.lock();
        let record = self.registry.record(projection)?;
        if record.paused {
            return Err(EngineError::NotAligned(projection.into()));
        }
        let active = record.active.as_ref().map(|id| self.registry.build(projection, id));
        let active = active.transpose()?;
        let mut followers: Vec<Arc<VersionBuild>> = Vec::new();
        for version in versions {
            let build = self.registry.build(projection, version)?;
            let is_known = followers.iter().any(|known| known.version.id == *version);
            if record.active.as_ref() != Some(version) && !is_known {
                followers.push(build);
            }
        }
        self.level_all(active.as_deref(), &followers, || self.views(projection, versions))
    }

    /// Folds the shards of `followers` up to the offsets of `leader`, and then calls `read`. All
    /// these shards stay locked until `read` returns. The caller must hold the lock `lifecycle`.
    fn level_all(
        &self,
        leader: Option<&VersionBuild>,
        followers: &[Arc<VersionBuild>],
        read: impl FnOnce() -> Result<[View; 2], EngineError>,
    ) -> Result<[View; 2], EngineError> {
        let leading = leader.map_or(&[][..], |build| &build.handles);
        let mut leading_guards: Vec<_> = leading.iter().map(|handle| handle.shard.lock()).collect();
        let mut guards = Vec::new();
        for build in followers {
            let locked: Vec<_> = build.handles.iter().map(|handle| handle.shard.lock()).collect();
            guards.push(locked);
        }
        let now = self.ports.clock.monotonic();
        for (build, guards) in followers.iter().zip(&mut guards) {
            for (index, handle) in build.handles.iter().enumerate() {
                let ahead = leading.get(index).zip(leading_guards.get_mut(index));
                self.level(handle, &mut guards[index], ahead, now)?;
                if let Some(shard) = guards[index].as_mut() {
                    if shard.is_dirty() {
                        self.commit(shard, now)?;
                    }
                    handle.record_step(shard, now);
                }
            }
        }
        // A shard that has no instance in memory has committed everything.
        for (handle, guard) in leading.iter().zip(&mut leading_guards) {
            if let Some(shard) = guard.as_mut().filter(|shard| shard.is_dirty()) {
                self.commit(shard, now)?;
                handle.record_step(shard, now);
            }
        }
        let views = read()?;
        drop((leading_guards, guards));
        let handles = followers.iter().flat_map(|build| &build.handles).chain(leading);
        handles.for_each(|handle| self.scheduler.queues.wake(handle));
        match is_aligned(&views) {
            true => Ok(views),
            false => {
                let behind = followers
                    .iter()
                    .flat_map(|build| &build.handles)
                    .min_by_key(|it| it.next.load(Ordering::Acquire));
                Err(behind.map_or(EngineError::Closed, |handle| self.not_ready(handle)))
            }
        }
    }

    fn views(
        &self,
        projection: &str,
        [left, right]: [&VersionId; 2],
    ) -> Result<[View; 2], EngineError> {
        Ok([self.view_version(projection, left)?, self.view_version(projection, right)?])
    }
}

fn is_aligned([left, right]: &[View; 2]) -> bool {
    left.offsets() == right.offsets()
}
