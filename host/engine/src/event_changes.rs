//! The rows that an event has changed: the log is folded again up to the event, in a scratch state.
//!
//! The live shard is only read. The event is folded alone, so that its changes are not mixed with
//! those of other events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::{Offset, PartitionId, VersionId};

use crate::event_lookup::event_at;
use crate::explain::{ExplainPace, ExplainProgress, failed};
use crate::reference_fold::ReferenceFold;
use crate::registry::VersionBuild;
use crate::row_change::RowChange;
use crate::row_watch::{RowWatch, Watched};
use crate::status_queries::halted;
use crate::{Engine, EngineError};

/// The event whose changes are wanted.
#[derive(Clone, Debug)]
pub struct EventChangesRequest {
    /// The projection.
    pub projection: String,
    /// The version; the active one if `None`.
    pub version: Option<VersionId>,
    /// The event's partition.
    pub partition: PartitionId,
    /// The event's offset.
    pub offset: Offset,
    /// The most rows that are returned.
    pub rows_max: usize,
    /// The most bytes of these rows.
    pub bytes_max: usize,
}

/// Prepared changes of an event: [`EventChanges::run`] does the work.
pub struct EventChanges {
    engine: Arc<Engine>,
    build: Arc<VersionBuild>,
    request: EventChangesRequest,
}

/// The rows that an event has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangedRows {
    /// Why the fold ended before the event was applied; `None` if it did not.
    pub incomplete: Option<String>,
    /// Offsets folded again.
    pub events: u64,
    /// Whether the version has applied the event.
    pub applied: bool,
    /// How many rows of public tables the event has changed.
    pub total: u64,
    /// The first of them, by table and key, each with the name of its table.
    pub rows: Vec<(String, RowChange)>,
}

impl Engine {
    /// Prepares the search for the rows that an event has changed; `None` if the log has no event
    /// at this offset.
    ///
    /// # Errors
    /// The error for a projection or version that does not exist, or an error of the log.
    pub fn event_changes(
        self: &Arc<Self>,
        request: EventChangesRequest,
    ) -> Result<Option<EventChanges>, EngineError> {
        let build = self.chosen(&request.projection, request.version.as_ref())?;
        if event_at(&*self.ports.log, request.partition, request.offset)?.is_none() {
            return Ok(None);
        }
        Ok(Some(EventChanges { engine: Arc::clone(self), build, request }))
    }
}

impl EventChanges {
    /// The version.
    #[must_use]
    pub fn version(&self) -> &VersionId {
        &self.build.version.id
    }

    /// Folds the event's partition until the event is applied. If it is parked, the fold continues
    /// until it was retried, at most up to the next offset of the live state. `pace` is called
    /// between steps. It may block, and ends the work with an error that gives the reason.
    ///
    /// # Errors
    /// [`EngineError::Plugin`] or [`EngineError::Host`] if the plugin cannot be loaded, or
    /// an error of the log or the store.
    pub fn run(&self, pace: ExplainPace<'_>) -> Result<ChangedRows, EngineError> {
        let EventChangesRequest { partition, offset, rows_max, bytes_max, .. } = self.request;
        let mut changed = ChangedRows::default();
        let Some(handle) = self.build.handles.get(partition.0 as usize) else {
            return Ok(changed);
        };
        let manifest = &self.build.manifest;
        let plugin = self.engine.plugin_of(&self.build)?;
        let live = handle.store.clone().ok_or_else(|| halted(handle))?;
        let applied = Arc::new(AtomicBool::new(false));
        let tables = manifest.public_tables().map(|(id, _)| id).collect();
        let watched = Watched::Event { offset, tables, applied: Arc::clone(&applied) };
        let watch = RowWatch::new(watched, rows_max, bytes_max);
        let scratch = self.engine.ports.stores.temporary()?;
        let opened = ReferenceFold::open(&self.engine, handle, &plugin, &scratch, Some(watch));
        let mut fold = opened.map_err(|ended| failed(handle, ended))?;
        let mut stopped = None;
        let followed = fold.follow(&live, &mut |step| {
            changed.events += step.events;
            if applied.load(Ordering::Relaxed) {
                return false;
            }
            let percent = percent(step.next, offset);
            stopped = pace(&ExplainProgress { events: changed.events, percent }).err();
            stopped.is_none()
        });
        changed.applied = applied.load(Ordering::Relaxed);
        if !changed.applied {
            changed.incomplete = followed.err().map(|ended| ended.reason(stopped));
        }
        let watch = fold.shard.state.watch.take();
        let (total, rows) = watch.map(|watch| watch.into_changes()).unwrap_or_default();
        let name = |row: &RowChange| manifest.tables[row.table.0 as usize].name.clone();
        changed.total = total;
        changed.rows = rows.into_iter().rev().map(|row| (name(&row), row)).collect();
        Ok(changed)
    }
}

/// How much is folded. After the event, the fold waits for its retry.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(next: u64, offset: Offset) -> f64 {
    (100.0 * next as f64 / (offset.0 + 1) as f64).min(100.0)
}
