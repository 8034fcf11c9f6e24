//! Answers status queries of projections, and retries and drops parked events.

use lantern_core::{
    KeyRange, ParkedRecord, PartitionBounds, PartitionId, Space, VersionId, VersionRecord,
    VersionSource, VersionState,
};

use crate::outbox::refused_of;
use crate::outbox_writer;
use crate::parked_actions::status_of;
use crate::parked_events::{after, committed_page};
use crate::registry::{Projection, VersionBuild};
use crate::shard_handle::ShardHandle;
use crate::status::FieldStatus;
use crate::stop_reason::StopReason;
use crate::{
    Engine, EngineError, LogLine, ParkedOutcome, ParkedPage, ParkedSelection, ParkedStatus,
    ProjectionStatus, ShardStatus, SourceStatus, TableStatus, Verdict, VerifyStatus, VersionStatus,
};

/// The maximum number of parked events in one page of a list.
const PAGE_MAX: usize = 1_000;

impl Engine {
    /// Returns the status of all projections, sorted by name.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.registry.read().values().map(|p| self.status_of_projection(p)).collect()
    }

    /// Returns the status of one projection.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`] if there is no such projection.
    pub fn status_of(&self, projection: &str) -> Result<ProjectionStatus, EngineError> {
        let projections = self.registry.read();
        let entry = projections.get(projection);
        entry
            .map(|p| self.status_of_projection(p))
            .ok_or_else(|| EngineError::NoProjection(projection.into()))
    }

    /// Returns the source code that a version runs; `None` if its plugin is not an interpreter.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`], [`EngineError::NoVersion`].
    pub fn source_of(
        &self,
        projection: &str,
        version: &VersionId,
    ) -> Result<Option<VersionSource>, EngineError> {
        let source =
            |entry: &Projection| entry.record.version(version).map(|found| found.source.clone());
        let found = self.registry.with(projection, source)?;
        found.ok_or_else(|| EngineError::NoVersion(projection.into(), version.clone()))
    }

    /// Returns how far the active version is behind the log, in events and in milliseconds of event
    /// time; `None` if that is unknown.
    #[must_use]
    pub fn lag(&self, projection: &str) -> Option<(u64, u64)> {
        let projections = self.registry.read();
        let entry = projections.get(projection)?;
        let build = entry.builds.get(entry.record.active.as_ref()?)?;
        let now = self.ports.clock.monotonic();
        let shards = build.handles.iter().map(|handle| handle.status(now, self.bounds(handle)));
        shards.map(|s| Some((s.lag_events?, s.lag_ms?))).try_fold((0, 0), |(events, ms), lag| {
            lag.map(|(more, behind)| (events + more, ms.max(behind)))
        })
    }

    /// Returns the number of retries and drops of parked events that the states of all shards
    /// contain. A fold of the same log on another server does not repeat them.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        let projections = self.registry.read();
        let builds = projections.values().flat_map(|projection| projection.builds.values());
        let handles = builds.flat_map(|build| &build.handles);
        handles.map(|handle| handle.snapshot.lock().meta.decisions).sum()
    }

    /// Returns the newest messages that the plugins of a projection logged, the newest last.
    ///
    /// # Errors
    /// Returns [`EngineError::NoProjection`] if there is no such projection.
    pub fn logs(&self, projection: &str, limit: usize) -> Result<Vec<LogLine>, EngineError> {
        let projections = self.registry.read();
        let entry = projections
            .get(projection)
            .ok_or_else(|| EngineError::NoProjection(projection.into()))?;
        let lines = entry.logs.lock();
        Ok(lines.iter().skip(lines.len().saturating_sub(limit)).cloned().collect())
    }

    /// Returns the parked records of the active version on one partition that come after the key
    /// `key`. They have their keys, and are in the order of the keys.
    ///
    /// # Errors
    /// Returns [`EngineError`] if there is no active version, or if its state cannot be read.
    pub fn parked_after(
        &self,
        projection: &str,
        partition: u32,
        key: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ParkedRecord)>, EngineError> {
        let build = self.chosen(projection, None)?;
        let Some(handle) = build.handles.get(partition as usize) else { return Ok(Vec::new()) };
        let store = handle.store.as_ref().ok_or_else(|| halted(handle))?;
        let mut from = key.map(after).unwrap_or_default();
        Ok(committed_page(&**store, &mut from, limit)?)
    }

    /// Returns the parked events of a version, ordered by partition and offset. If no version is
    /// given, the parked events of the active version are returned. If `subject` is given, only
    /// events of this subject are returned. `cursor` is the `next` of the previous page.
    ///
    /// # Errors
    /// Returns [`EngineError`] if there is no such version, or if its state cannot be read.
    pub fn parked(
        &self,
        projection: &str,
        version: Option<&VersionId>,
        subject: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<ParkedPage, EngineError> {
        let selects = |record: &ParkedRecord| subject.is_none_or(|s| record.event.subject == s);
        self.parked_where(projection, version, selects, cursor, limit)
    }

    /// Lists parked events like [`Engine::parked`], but only those that `selects` accepts.
    ///
    /// # Errors
    /// Returns the errors of [`Engine::parked`].
    pub fn parked_where(
        &self,
        projection: &str,
        version: Option<&VersionId>,
        selects: impl Fn(&ParkedRecord) -> bool,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<ParkedPage, EngineError> {
        let build = self.chosen(projection, version)?;
        let limit = limit.clamp(1, PAGE_MAX);
        let (mut index, mut from) = match cursor {
            Some(cursor) => decode_cursor(cursor)?,
            None => (0, Vec::new()),
        };
        let parked = |handle: &ShardHandle| {
            let snapshot = handle.snapshot.lock();
            snapshot.meta.parked_now + snapshot.meta.refused_now
        };
        let total = build.handles.iter().map(|handle| parked(handle)).sum();
        let waiting =
            build.handles.iter().map(|handle| handle.snapshot.lock().meta.waiting_now).sum();
        let mut page = ParkedPage { total, waiting, parked: Vec::new(), next: None };
        while let Some(handle) = build.handles.get(index) {
            let range = KeyRange { start: std::mem::take(&mut from), end: None };
            let store = handle.store.as_ref().ok_or_else(|| halted(handle))?;
            let pairs = store.scan(Space::Parked, &range, PAGE_MAX, false)?;
            let more = pairs.len() == PAGE_MAX;
            for (key, value) in pairs {
                from = after(&key);
                let record = ParkedRecord::decode(&value)
                    .ok_or_else(|| lantern_core::StoreError::Damaged("a parked event".into()))?;
                if selects(&record) {
                    page.parked.push(status_of(handle.id.partition.0, record));
                }
                if page.parked.len() == limit {
                    page.next = Some(format!("{index}.{}", hex::encode(&from)));
                    return Ok(page);
                }
            }
            if !more {
                index += 1;
                from.clear();
            }
        }
        // The page lists the emitted events that the log has refused after all parked events.
        for handle in &build.handles {
            let store = handle.store.as_ref().ok_or_else(|| halted(handle))?;
            let refused = refused_of(&**store, PAGE_MAX)?.into_iter().filter(|r| selects(r));
            page.parked.extend(refused.map(|record| ParkedStatus {
                kind: "emitted".into(),
                ..status_of(handle.id.partition.0, record)
            }));
        }
        Ok(page)
    }

    /// Applies the selected parked events again, in order.
    ///
    /// # Errors
    /// Returns [`EngineError`] if the work could not be completed. Events applied before the error
    /// stay applied.
    pub fn retry(
        &self,
        projection: &str,
        version: Option<&VersionId>,
        which: &ParkedSelection,
    ) -> Result<ParkedOutcome, EngineError> {
        self.with_parked(projection, version, which, true)
    }

    /// Deletes the selected parked events without applying them.
    ///
    /// # Errors
    /// Returns [`EngineError`] if the work could not be completed.
    pub fn drop_parked(
        &self,
        projection: &str,
        version: Option<&VersionId>,
        which: &ParkedSelection,
    ) -> Result<ParkedOutcome, EngineError> {
        self.with_parked(projection, version, which, false)
    }

    fn with_parked(
        &self,
        projection: &str,
        version: Option<&VersionId>,
        which: &ParkedSelection,
        retry: bool,
    ) -> Result<ParkedOutcome, EngineError> {
        let by_name = which.subject.is_some() || which.tenant.is_some();
        if !which.all && which.offsets.is_empty() && !by_name {
            return Err(EngineError::NoSelection);
        }
        let build = self.chosen(projection, version)?;
        let by_offset = !which.all && !which.offsets.is_empty() && which.subject.is_none();
        let mut sum = ParkedOutcome::default();
        for handle in &build.handles {
            if by_offset && handle.id.partition != PartitionId(which.partition) {
                continue;
            }
            let mut guard = handle.shard.lock();
            if guard.is_none() {
                let opened = self.open_shard(handle).map_err(|stop| stopped(handle, stop))?;
                *guard = Some(opened);
            }
            let shard = guard.as_mut().expect("just opened");
            let (outcome, ended) = shard.decider().decide(which, retry);
            let refused = outbox_writer::decide_refused(&mut shard.state, which, retry);
            let now = self.ports.clock.monotonic();
            if shard.is_dirty() {
                self.commit(shard, now)?;
            }
            handle.record_step(shard, now);
            drop(guard);
            self.scheduler.queues.wake(handle);
            ended.map_err(|stop| stopped(handle, stop))?;
            let refused = refused.map_err(|stop| stopped(handle, stop))?;
            sum.selected += refused;
            sum.done += refused;
            sum.selected += outcome.selected;
            sum.done += outcome.done;
            sum.failed += outcome.failed;
            sum.waiting += outcome.waiting;
        }
        Ok(sum)
    }

    pub(crate) fn chosen(
        &self,
        projection: &str,
        version: Option<&VersionId>,
    ) -> Result<std::sync::Arc<VersionBuild>, EngineError> {
        let record = self.registry.record(projection)?;
        // If no version is active yet, the newest one is used.
        let newest = record.versions.last().map(|v| &v.id);
        let version = version.or(record.active.as_ref()).or(newest);
        let version = version.ok_or_else(|| EngineError::NotActive(projection.into()))?;
        self.registry.build(projection, version)
    }

    /// Returns the bounds of the partition that the shard of `handle` folds, if they are known.
    fn bounds(&self, handle: &ShardHandle) -> Option<PartitionBounds> {
        self.ports.log.bounds(handle.id.partition).ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    pub(crate) fn percent(&self, handle: &ShardHandle) -> f64 {
        let bounds = self.bounds(handle).unwrap_or_default();
        let (start, end) = (bounds.start.0, bounds.end.0);
        let done = handle.next().0.saturating_sub(start);
        let all = end.saturating_sub(start);
        if done >= all { 100.0 } else { done as f64 * 100.0 / all as f64 }
    }

    fn status_of_projection(&self, projection: &Projection) -> ProjectionStatus {
        let record = &projection.record;
        let id = |id: &VersionId| id.0.clone();
        let versions = record.versions.iter().filter_map(|version| {
            let build = projection.builds.get(&version.id)?;
            Some(self.status_of_version(build, version))
        });
        ProjectionStatus {
            name: record.name.clone(),
            paused: record.paused,
            active: record.active.as_ref().map(id),
            previous: record.previous.as_ref().map(id),
            epoch: projection.epoch(),
            versions: versions.collect(),
            verified: projection.verified.lock().clone(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "estimates for people")]
    fn status_of_version(&self, build: &VersionBuild, record: &VersionRecord) -> VersionStatus {
        let now = self.ports.clock.monotonic();
        let shards: Vec<_> =
            build.handles.iter().map(|handle| handle.status(now, self.bounds(handle))).collect();
        let percents = build.handles.iter().map(|handle| self.percent(handle));
        let percent = percents.fold(100.0, f64::min);
        let rate: f64 =
            build.handles.iter().map(|handle| handle.snapshot.lock().rate.per_s(now)).sum();
        let intake: f64 = self.intake.iter().map(|rate| rate.lock().per_s(now)).sum();
        let lag: Option<u64> = shards.iter().map(|s| s.lag_events).sum();
        let worst = ["halted", "faulted", "paused", "running", "idle"]
            .iter()
            .find(|activity| shards.iter().any(|s| s.activity == **activity));
        let version = &build.version;
        VersionStatus {
            id: version.id.0.clone(),
            sha256: version.sha256.clone(),
            parameters: version.parameters.clone(),
            source: version.source.as_ref().map(|source| SourceStatus {
                name: source.name.clone(),
                bytes: source.text.len() as u64,
                sha256: source.sha256.clone(),
            }),
            plugin_version: version.manifest.version.clone(),
            description: version.manifest.description.clone(),
            state: state_name(record.state).into(),
            activity: worst.copied().unwrap_or("idle").into(),
            reason: shards.iter().find_map(|s| s.reason.clone()),
            created_us: version.created.0,
            percent,
            events_per_s: rate,
            intake_per_s: intake,
            eta_s: lag.and_then(|lag| match lag {
                0 => Some(0.0),
                // The version has caught up. It folds newer events in a moment.
                _ if worst == Some(&"idle") => Some(0.0),
                lag => (rate > intake).then(|| lag as f64 / (rate - intake)),
            }),
            parked: shards.iter().map(|s| s.parked).sum(),
            waiting: shards.iter().map(|s| s.waiting).sum(),
            late: shards.iter().map(|s| s.late).sum(),
            not_activated: record.not_activated.clone(),
            differs: differs(record, &shards),
            tables: version.manifest.tables.iter().map(table_status).collect(),
            subscribes: version.manifest.subscribes.clone(),
            shards,
        }
    }
}

/// Describes the differences that second folds of batches and the last verification have found.
fn differs(record: &VersionRecord, shards: &[ShardStatus]) -> Vec<String> {
    let batch = shards
        .iter()
        .find_map(|shard| shard.second_fold_last.as_ref())
        .map(|why| format!("it is not deterministic, the plugin is the first suspect: {why}"));
    // Another release may have stored a result that this release cannot read. Such a result is
    // ignored.
    let verified = record.verified.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let verified = verified.filter(|found: &VerifyStatus| found.verdict == Verdict::Differs);
    let verified = verified.map(|found| {
        let why = found.reason.as_deref().unwrap_or("see `lantern verify`");
        format!(
            "it differs from a second fold of the log in {} places: {why}; verify it again to clear this",
            found.differences
        )
    });
    batch.into_iter().chain(verified).collect()
}

fn table_status(table: &lantern_core::TableSpec) -> TableStatus {
    TableStatus {
        name: table.name.clone(),
        description: table.description.clone(),
        public: table.public,
        per_tenant: table.per_tenant,
        fields: table
            .fields
            .iter()
            .map(|field| FieldStatus {
                name: field.name.clone(),
                kind: field.kind.name().into(),
                unit: field.unit.clone(),
            })
            .collect(),
    }
}

fn decode_cursor(cursor: &str) -> Result<(usize, Vec<u8>), EngineError> {
    let bad = || EngineError::Cursor(cursor.to_owned());
    let (index, key) = cursor.split_once('.').ok_or_else(bad)?;
    Ok((index.parse().map_err(|_| bad())?, hex::decode(key).map_err(|_| bad())?))
}

fn stopped(handle: &ShardHandle, stop: StopReason) -> EngineError {
    let (StopReason::Fault(reason) | StopReason::Halt(reason)) = stop;
    EngineError::Halted(handle.id.projection.clone(), handle.id.version.clone(), reason)
}

pub(crate) fn halted(handle: &ShardHandle) -> EngineError {
    let id = &handle.id;
    EngineError::Halted(id.projection.clone(), id.version.clone(), handle.halt_reason())
}

/// The name of a stage of a version's life in the API.
pub(crate) fn state_name(state: VersionState) -> &'static str {
    match state {
        VersionState::Backfilling => "backfilling",
        VersionState::Ready => "ready",
        VersionState::Active => "active",
        VersionState::Retired => "retired",
    }
}
