//! Implements views. A view is one committed state of a version with all its shards; readers get
//! their rows from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::row_source::ShardRows;
use crate::{
    Checkpoint, DecisionRecord, KeyRange, Log, Manifest, Offset, PartitionId, ReadStore, Row,
    RowSource, ShardMeta, ShardPoint, ShardProof, Space, StoreError, TableChanges, TableId,
    TableSpec, Timestamp, VersionId, merge_rows,
};

/// Opens views of projections.
pub trait Views: Send + Sync {
    /// Opens a view of the last committed state of the active version of `projection`.
    ///
    /// # Errors
    /// Returns [`ViewError`] if there is no view.
    fn view(&self, projection: &str) -> Result<View, ViewError>;

    /// Opens a view of one version, whether it is active or not.
    ///
    /// # Errors
    /// Returns [`ViewError`] if there is no view.
    fn view_version(&self, projection: &str, version: &VersionId) -> Result<View, ViewError>;

    /// Returns the reason if the active version cannot be read yet after a crash. `None` if it can
    /// be read, or if there is another reason. Does not block.
    fn recovering(&self, _projection: &str) -> Option<Recovering> {
        None
    }
}

/// Why a version cannot be read after a crash. The last commits before the crash were not durable,
/// and readers may have seen their results. So the version first folds the events of these commits
/// again, and only then its tables can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("projection `{projection}` recovers from a crash: {reason}")]
pub struct Recovering {
    /// The name of the projection.
    pub projection: String,
    /// How far the version has folded the events, or why it does not continue.
    pub reason: String,
    /// Whether the version continues only after an operator acts.
    pub stopped: bool,
}

impl Recovering {
    /// How long a read waits for a projection that recovers, unless the reader sets a longer limit.
    pub const WAIT: Duration = Duration::from_secs(10);
}

/// Why a view cannot be opened.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There is no projection with this name.
    #[error("there is no projection `{0}`")]
    NoProjection(String),
    /// The projection has no active version yet.
    #[error(
        "projection `{0}` serves no version yet: `lantern plugin status {0}` shows whether its first one is still catching up or has stopped"
    )]
    NotActive(String),
    /// The projection has no such version.
    #[error("projection `{0}` has no version `{1}`")]
    NoVersion(String, VersionId),
    /// After a crash, the version has not reached the state that readers may have seen before.
    #[error(transparent)]
    Recovering(#[from] Recovering),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One committed state of a version. The state of each shard is that of a single commit.
pub struct View {
    projection: String,
    version: VersionId,
    epoch: String,
    manifest: Arc<Manifest>,
    shards: Vec<(PartitionId, ShardMeta, Box<dyn ReadStore>)>,
    log: Option<Arc<dyn Log>>,
}

/// What [`View::changes_since`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesSince {
    /// The commits after the checkpoint, up to the view. The checkpoint belongs to the history of
    /// this view. Commits that changed no public table are left out. The commits of each shard are
    /// in order. The first commit after a crash may begin before the checkpoint.
    Commits(Vec<ShardChanges>),
    /// The change log does not contain all changes since the checkpoint.
    TooOld,
    /// The checkpoint belongs to another history than the view.
    OtherHistory,
}

/// The changes that one commit of a shard made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardChanges {
    /// The partition that the shard folds.
    pub partition: PartitionId,
    /// The number that the commit has in its shard.
    pub commit: u64,
    /// The point of the shard after the commit.
    pub point: ShardPoint,
    /// The tables that changed, with their changes.
    pub tables: Vec<TableChanges>,
}

impl View {
    /// Creates a view from one snapshot of each shard, in order of partition. It reads the
    /// [`ShardMeta`] of each shard from the snapshot.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the [`ShardMeta`] of a shard cannot be read.
    pub fn new(
        projection: String,
        version: VersionId,
        epoch: String,
        manifest: Arc<Manifest>,
        snapshots: Vec<(PartitionId, Box<dyn ReadStore>)>,
    ) -> Result<Self, StoreError> {
        let mut shards = Vec::with_capacity(snapshots.len());
        for (partition, store) in snapshots {
            let meta = ShardMeta::of(&*store)?;
            shards.push((partition, meta, store));
        }
        Ok(Self { projection, version, epoch, manifest, shards, log: None })
    }

    /// Sets the log from which the state was folded. The view then compares the incarnations in
    /// checkpoints with those in this log.
    #[must_use]
    pub fn of_log(mut self, log: Arc<dyn Log>) -> Self {
        self.log = Some(log);
        self
    }

    /// Returns the name of the projection that the view shows.
    #[must_use]
    pub fn projection(&self) -> &str {
        &self.projection
    }

    /// Returns the id of the version that the view shows.
    #[must_use]
    pub fn version(&self) -> &VersionId {
        &self.version
    }

    /// Returns the feed's epoch. Commits of different epochs cannot be compared.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Returns the manifest of the version that the view shows.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Returns the number of commits that the version has made, over all shards.
    #[must_use]
    pub fn pos(&self) -> u64 {
        self.shards.iter().map(|(_, meta, _)| meta.pos).sum()
    }

    /// Returns the checkpoint of this state.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::of(self.shards.iter().map(|(_, meta, _)| meta))
    }

    /// Returns the checkpoint of the last change of `table`. If it is the same in two states of one
    /// epoch, the table is the same in both.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn checkpoint_of(&self, table: TableId) -> Result<Checkpoint, StoreError> {
        let mut proven = Vec::with_capacity(self.shards.len());
        for (index, (_, meta, store)) in self.shards.iter().enumerate() {
            let stored = store.get(Space::Meta, &TableChanges::last_key(table))?;
            let point = match stored.as_deref().and_then(|bytes| bytes.try_into().ok()) {
                Some(point) => ShardPoint::from_key(point),
                // A shard that has no rows of this table does not affect the checkpoint.
                None if self.is_empty(&**store, table)? => {
                    proven.push((ShardPoint::default(), ShardProof::default()));
                    continue;
                }
                // An older release has written this state. It did not store the last change of each
                // table.
                None => ShardPoint::of(meta),
            };
            let proof = self.proof_at(index, &point)?;
            proven.push(proof.map_or_else(
                || (ShardPoint::of(meta), ShardProof::of(meta)),
                |proof| (point, proof),
            ));
        }
        Ok(Checkpoint::new(proven))
    }

    fn is_empty(&self, store: &dyn ReadStore, table: TableId) -> Result<bool, StoreError> {
        Ok(store.scan(Space::Table(table), &KeyRange::all(), 1, false)?.is_empty())
    }

    /// Returns the next offset of each partition: the first offset that the tables do not contain.
    #[must_use]
    pub fn offsets(&self) -> Vec<(PartitionId, Offset)> {
        self.shards.iter().map(|(partition, meta, _)| (*partition, meta.next)).collect()
    }

    /// Creates the checkpoint with these `points` (one for each shard) in the history of this view.
    /// `None` if the history does not contain the points, or if the view cannot prove that it does.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the records of retries and drops cannot be read.
    pub fn checkpoint_at(&self, points: &[ShardPoint]) -> Result<Option<Checkpoint>, StoreError> {
        if points.len() != self.shards.len() {
            return Ok(None);
        }
        let mut proven = Vec::with_capacity(points.len());
        for (index, point) in points.iter().enumerate() {
            let Some(proof) = self.proof_at(index, point)? else { return Ok(None) };
            proven.push((*point, proof));
        }
        Ok(Some(Checkpoint::new(proven)))
    }

    /// Returns whether `checkpoint` belongs to the history of this view. A checkpoint of the
    /// beginning belongs to every history.
    ///
    /// # Errors
    /// Returns the errors of [`View::checkpoint_at`].
    pub fn continues(&self, checkpoint: &Checkpoint) -> Result<bool, StoreError> {
        let proven = self.checkpoint_at(&checkpoint.points)?;
        Ok(proven.is_some_and(|proven| proven == *checkpoint))
    }

    fn proof_at(&self, index: usize, point: &ShardPoint) -> Result<Option<ShardProof>, StoreError> {
        let (partition, meta, store) = &self.shards[index];
        if !ShardPoint::of(meta).reaches(point) {
            return Ok(None);
        }
        let of_log = || self.log.as_ref()?.incarnation_at(*partition, point.next);
        let incarnation = match point.next {
            Offset(0) => 0,
            _ => of_log().unwrap_or(meta.incarnation),
        };
        let decided = match point.decisions {
            0 => 0,
            all if all == meta.decisions => meta.decided,
            some => match store.get(Space::Meta, &DecisionRecord::key(some - 1))? {
                Some(bytes) => {
                    DecisionRecord::decode(&bytes)
                        .ok_or_else(|| StoreError::Damaged("a record of a decision".into()))?
                        .digest
                }
                None => return Ok(None),
            },
        };
        Ok(Some(ShardProof { incarnation, decided }))
    }

    /// Returns the [`ShardMeta`] of each shard.
    pub fn shards(&self) -> impl Iterator<Item = (PartitionId, &ShardMeta)> {
        self.shards.iter().map(|(partition, meta, _)| (*partition, meta))
    }

    /// Returns the highest event time applied, without events too far in the future
    /// (`engine.ahead_max_s`).
    #[must_use]
    pub fn event_time(&self) -> Timestamp {
        self.shards.iter().map(|(_, meta, _)| meta.max_time).max().unwrap_or(Timestamp::MIN)
    }

    /// Returns the row under `key`. If several shards hold a row under this key, the rows are
    /// merged.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it cannot be read.
    pub fn get(&self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut held = Vec::new();
        for (index, (_, _, store)) in self.shards.iter().enumerate() {
            if let Some(value) = store.get(Space::Table(table), key.as_bytes())? {
                held.push((index, value));
            }
        }
        Ok((!held.is_empty()).then(|| self.merge(table, &held)))
    }

    /// Returns up to `limit` rows of `range` in key order; the last rows first if `reverse` is set.
    /// Rows of several shards under one key are merged.
    ///
    /// # Errors
    /// Returns [`StoreError`] if they cannot be read.
    pub fn scan(
        &self,
        table: TableId,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError> {
        // Each shard returns its first `limit` rows. These include all rows of all shards under the
        // first `limit` keys.
        let mut rows: BTreeMap<Vec<u8>, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for (index, (_, _, store)) in self.shards.iter().enumerate() {
            for (key, value) in store.scan(Space::Table(table), range, limit, reverse)? {
                rows.entry(key).or_default().push((index, value));
            }
        }
        let row = |(key, held): (Vec<u8>, Vec<(usize, Vec<u8>)>)| Row {
            key: String::from_utf8_lossy(&key).into_owned(),
            value: self.merge(table, &held),
        };
        Ok(if reverse {
            rows.into_iter().rev().take(limit).map(row).collect()
        } else {
            rows.into_iter().take(limit).map(row).collect()
        })
    }

    /// Reads the changes of the commits after `since` from the change log.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the change log cannot be read.
    pub fn changes_since(&self, since: &Checkpoint) -> Result<ChangesSince, StoreError> {
        if !self.continues(since)? {
            return Ok(ChangesSince::OtherHistory);
        }
        let mut commits = Vec::new();
        for (point, (partition, meta, store)) in since.points.iter().zip(&self.shards) {
            if *point < meta.changes_from {
                return Ok(ChangesSince::TooOld);
            }
            let range = KeyRange { start: TableChanges::key(*point, u64::MAX), end: None };
            for (key, value) in store.scan(Space::Changes, &range, usize::MAX, false)? {
                let index = TableChanges::parse_change_key(&key);
                let (Some((point, commit)), Some(tables)) = (index, TableChanges::decode(&value))
                else {
                    return Err(StoreError::Damaged("an entry of the change log".into()));
                };
                commits.push(ShardChanges { partition: *partition, commit, point, tables });
            }
        }
        Ok(ChangesSince::Commits(commits))
    }

    /// Returns the rows of `table`, for readers that need many rows.
    #[must_use]
    pub fn rows(&self, table: TableId) -> impl RowSource + '_ {
        ShardRows {
            table,
            spec: self.manifest.tables.get(table.0 as usize),
            stores: self.shards.iter().map(|(_, _, store)| &**store).collect(),
        }
    }

    fn merge(&self, table: TableId, held: &[(usize, Vec<u8>)]) -> Vec<u8> {
        if let [(_, only)] = held {
            return only.clone();
        }
        let rows: Vec<&[u8]> = held.iter().map(|(_, value)| value.as_slice()).collect();
        merged_value(self.manifest.tables.get(table.0 as usize), &rows)
    }
}

/// Merges the values that several shards hold under one key.
pub(crate) fn merged_value(table: Option<&TableSpec>, rows: &[&[u8]]) -> Vec<u8> {
    table.map_or_else(|| merge_rows(&TableSpec::default(), rows), |table| merge_rows(table, rows))
}
