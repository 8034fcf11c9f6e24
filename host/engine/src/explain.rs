//! Explains a row: which events, timers and expiries have changed it.
//!
//! The log is folded again in a temporary state, as in a verification, and each change of the row
//! is recorded. The live shards are only read. The newest changes can be shown before that fold
//! ends, because the change log contains the commits that changed the row.

use std::collections::VecDeque;
use std::sync::Arc;

use lantern_core::{
    Event, KeyRange, LogError, Offset, PartitionId, Plugin, ReadStore, Space, StoreError,
    TableChanges, TableId, TableSpec, Timestamp, VersionId,
};

use crate::event_lookup::event_at;
use crate::reference_fold::{EndReason, FoldStep, ReferenceFold};
use crate::registry::VersionBuild;
use crate::row_change::{ChangeCause, RowChange};
use crate::row_watch::{RowWatch, Watched};
use crate::shard_handle::ShardHandle;
use crate::status_queries::halted;
use crate::{Engine, EngineError};

/// A change of a row, with the event that made it. The event is missing if the log has deleted it.
type ChangeWithEvent = (RowChange, Option<ExplainedEvent>);

/// The number of entries of the change log that are read at a time.
const CHANGES_PAGE: usize = 64;

/// The row to be explained.
#[derive(Clone, Debug)]
pub struct ExplainRequest {
    /// The projection.
    pub projection: String,
    /// The version; the active one if `None`.
    pub version: Option<VersionId>,
    /// The table, which must be public.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// The most changes that are returned.
    pub changes_max: usize,
    /// The maximum number of bytes of the rows in the returned changes.
    pub bytes_max: usize,
}

/// A prepared explanation: [`Explanation::run`] does the work.
pub struct Explanation {
    engine: Arc<Engine>,
    build: Arc<VersionBuild>,
    table: TableId,
    request: ExplainRequest,
}

/// How far an explanation is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExplainProgress {
    /// Offsets folded again.
    pub events: u64,
    /// How much is folded, 0 to 100.
    pub percent: f64,
}

/// The result of an explanation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplainedRow {
    /// Why the explanation is not complete; `None` if it is complete.
    pub incomplete: Option<String>,
    /// Offsets folded again.
    pub events: u64,
    /// One entry for each partition that was folded.
    pub partitions: Vec<ExplainedShard>,
    /// The newest changes of all partitions, newest first.
    pub changes: Vec<(RowChange, Option<ExplainedEvent>)>,
}

/// The row of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainedShard {
    /// The partition.
    pub partition: u32,
    /// The next offset up to which the partition was folded.
    pub next: u64,
    /// How often the row was changed.
    pub changes: u64,
    /// The row that the fold gives.
    pub row: Option<Vec<u8>>,
    /// Whether the table has the same row.
    pub agrees: bool,
}

/// The event that has changed a row. The payload is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedEvent {
    /// The event.
    pub event: Event,
    /// When the event was appended, if the log knows that.
    pub appended: Option<Timestamp>,
}

/// A commit that changed the row, from the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRow {
    /// The partition.
    pub partition: PartitionId,
    /// The commit's number.
    pub commit: u64,
    /// The next offset after the commit.
    pub next: Offset,
    /// The row after the commit; `None` if it was deleted.
    pub row: Option<Vec<u8>>,
}

/// A function that is called between the steps of a fold. If it returns an error, the fold ends
/// with this reason.
pub type ExplainPace<'a> = &'a mut dyn FnMut(&ExplainProgress) -> Result<(), String>;

impl Engine {
    /// Prepares the explanation of a row of a public table.
    ///
    /// # Errors
    /// [`EngineError::NoTable`], or the error for a projection or version that does not
    /// exist.
    pub fn explain(self: &Arc<Self>, request: ExplainRequest) -> Result<Explanation, EngineError> {
        let build = self.chosen(&request.projection, request.version.as_ref())?;
        let Some((table, _)) = build.manifest.public_table(&request.table) else {
            return Err(EngineError::NoTable(request.projection, request.table));
        };
        Ok(Explanation { engine: Arc::clone(self), build, table, request })
    }
}

impl Explanation {
    /// The version.
    #[must_use]
    pub fn version(&self) -> &VersionId {
        &self.build.version.id
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> Option<&TableSpec> {
        self.build.manifest.tables.get(self.table.0 as usize)
    }

    /// Returns the newest commits in the change log that changed the row: at most `limit` of each
    /// partition, newest first.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the change log cannot be read.
    pub fn commits(&self, limit: usize) -> Result<Vec<CommittedRow>, EngineError> {
        let mut commits = Vec::new();
        for handle in &self.build.handles {
            let Some(store) = &handle.store else { continue };
            let found = self.commits_of(handle.id.partition, &**store, limit)?;
            commits.extend(found);
        }
        Ok(commits)
    }

    fn commits_of(
        &self,
        partition: PartitionId,
        store: &dyn ReadStore,
        limit: usize,
    ) -> Result<Vec<CommittedRow>, StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut range = KeyRange::all();
        loop {
            let page = store.scan(Space::Changes, &range, CHANGES_PAGE, true)?;
            let last_page = page.len() < CHANGES_PAGE;
            range.end = page.last().map(|(key, _)| key.clone());
            for (key, value) in page {
                let entry = TableChanges::parse_change_key(&key);
                let (Some((point, commit)), Some(tables)) = (entry, TableChanges::decode(&value))
                else {
                    return Err(StoreError::Damaged("an entry of the change log".into()));
                };
                let Some(row) = tables.iter().find_map(|changes| self.changed(changes)) else {
                    continue;
                };
                bytes += row.as_ref().map_or(0, Vec::len);
                if found.len() == limit || bytes > self.request.bytes_max {
                    return Ok(found);
                }
                found.push(CommittedRow { partition, commit, next: point.next, row });
            }
            if last_page {
                return Ok(found);
            }
        }
    }

    /// The row's value in `changes`: `Some(None)` if it was deleted, `None` if it is not
    /// changed.
    fn changed(&self, changes: &TableChanges) -> Option<Option<Vec<u8>>> {
        if changes.table != self.table {
            return None;
        }
        let key = &self.request.key;
        if let Ok(index) = changes.up.binary_search_by(|(changed, _)| changed.cmp(key)) {
            return Some(Some(changes.up[index].1.clone()));
        }
        changes.del.binary_search(key).is_ok().then_some(None)
    }

    /// Folds every partition, and returns the newest changes of the row. `pace` is called between
    /// steps, and may block. If it returns an error, the fold ends. The result then contains the
    /// changes that were found so far, and the error as the reason.
    ///
    /// # Errors
    /// [`EngineError::Plugin`] or [`EngineError::Host`] if the plugin cannot be loaded, or an error
    /// of the log or the store.
    pub fn run(&self, pace: ExplainPace<'_>) -> Result<ExplainedRow, EngineError> {
        let plugin = self.engine.plugin_of(&self.build)?;
        let mut explained = ExplainedRow::default();
        let mut changes = Vec::new();
        for index in 0..self.build.handles.len() {
            let found = self.shard(index, &plugin, &mut explained, pace)?;
            changes.push(found);
            if explained.incomplete.is_some() {
                break;
            }
        }
        let events = explained.events;
        // If the fold has reached a limit, the changes before it are still returned.
        let is_limited = explained.incomplete.is_some();
        let mut pace = || match pace(&ExplainProgress { events, percent: 100.0 }) {
            Err(_) if is_limited => Ok(()),
            paced => paced,
        };
        let (newest, ended) = self.newest_first(changes, &mut pace)?;
        explained.changes = newest;
        explained.incomplete = explained.incomplete.or(ended);
        Ok(explained)
    }

    fn shard(
        &self,
        index: usize,
        plugin: &Arc<dyn Plugin>,
        explained: &mut ExplainedRow,
        pace: ExplainPace<'_>,
    ) -> Result<VecDeque<RowChange>, EngineError> {
        let handle = &self.build.handles[index];
        let live = handle.store.clone().ok_or_else(|| halted(handle))?;
        let ExplainRequest { key, changes_max, bytes_max, .. } = &self.request;
        let watched = Watched::Row { table: self.table, key: key.as_bytes().to_vec() };
        let watch = RowWatch::new(watched, *changes_max, *bytes_max);
        let scratch = self.engine.ports.stores.temporary()?;
        let opened = ReferenceFold::open(&self.engine, handle, plugin, &scratch, Some(watch));
        let mut fold = opened.map_err(|ended| failed(handle, ended))?;
        let (mut stopped, shards) = (None, self.build.handles.len());
        let followed = fold.follow(&live, &mut |step| {
            explained.events += step.events;
            let percent = percent(index, shards, step);
            let goes_on = pace(&ExplainProgress { events: explained.events, percent });
            stopped = goes_on.err();
            stopped.is_none()
        });
        let state = &mut fold.shard.state;
        let (space, next) = (Space::Table(self.table), state.meta.next.0);
        let row = state.buffer.get(space, key.as_bytes())?;
        let agrees = match followed {
            Ok(snapshot) => snapshot.get(space, key.as_bytes())? == row,
            Err(ended) => {
                explained.incomplete = Some(ended.reason(stopped));
                false
            }
        };
        let (changes, kept) =
            state.watch.take().map(|watch| watch.into_changes()).unwrap_or_default();
        let partition = handle.id.partition.0;
        explained.partitions.push(ExplainedShard { partition, next, changes, row, agrees });
        Ok(kept)
    }

    /// Merges the changes of all partitions by the append time of their events, and reads these
    /// events. `pace` is called before each read. If it returns an error, the merge ends. The
    /// result then contains the changes that were found so far, and the error as the reason.
    fn newest_first(
        &self,
        mut shards: Vec<VecDeque<RowChange>>,
        pace: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<(Vec<ChangeWithEvent>, Option<String>), EngineError> {
        let mut heads = Vec::with_capacity(shards.len());
        for changes in &mut shards {
            heads.push(self.next_newest(changes)?);
        }
        let mut merged = Vec::new();
        while merged.len() < self.request.changes_max {
            if let Err(reason) = pace() {
                return Ok((merged, Some(reason)));
            }
            let times = heads.iter().enumerate();
            let times = times.filter_map(|(index, head)| Some((head.as_ref()?.0, index)));
            let Some((_, index)) = times.max() else { break };
            let next = self.next_newest(&mut shards[index])?;
            if let Some((_, change, event)) = std::mem::replace(&mut heads[index], next) {
                merged.push((change, event));
            }
        }
        Ok((merged, None))
    }

    /// Returns the newest of `changes`, with its event and the time that orders changes of several
    /// partitions.
    fn next_newest(
        &self,
        changes: &mut VecDeque<RowChange>,
    ) -> Result<Option<(Timestamp, RowChange, Option<ExplainedEvent>)>, EngineError> {
        let Some(change) = changes.pop_back() else { return Ok(None) };
        let own = || self.event(change.partition, change.offset);
        let before = |next: Offset| self.event(change.partition, Offset(next.0.saturating_sub(1)));
        let time_of = |event: &Option<ExplainedEvent>| match event {
            Some(ExplainedEvent { event, appended }) => appended.unwrap_or(event.time),
            None => Timestamp::MIN,
        };
        let (time, event) = match change.cause {
            ChangeCause::Event => {
                let event = own()?;
                (time_of(&event), event)
            }
            ChangeCause::Retry { at } => (time_of(&before(at)?), own()?),
            // A timer or an expiry follows the event that has moved the watermark.
            ChangeCause::Timer { .. } | ChangeCause::Expiry => {
                (time_of(&before(change.offset)?), None)
            }
        };
        Ok(Some((time, change, event)))
    }

    /// The event at `offset` without its payload; `None` if retention has deleted it meanwhile.
    fn event(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<ExplainedEvent>, EngineError> {
        match event_at(&*self.engine.ports.log, partition, offset) {
            Ok(found) => Ok(found.map(|(event, appended)| ExplainedEvent { event, appended })),
            Err(LogError::OutOfRange { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The error of a fold that could not begin.
pub(crate) fn failed(handle: &ShardHandle, ended: EndReason) -> EngineError {
    match ended {
        EndReason::Verdict(_, reason) => EngineError::Host(reason),
        EndReason::Stopped => halted(handle),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(index: usize, shards: usize, step: &FoldStep) -> f64 {
    let part = if step.target == 0 { 1.0 } else { step.next as f64 / step.target as f64 };
    100.0 * (index as f64 + part.min(1.0)) / shards.max(1) as f64
}
