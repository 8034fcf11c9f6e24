//! What readers see: one committed state of a version, over all its shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::{
    KeyRange, Manifest, Offset, PartitionId, ReadStore, Row, ShardMeta, Space, StoreError,
    TableChanges, TableId, Timestamp, VersionId, merge_rows,
};

/// Opens views of projections.
pub trait Views: Send + Sync {
    /// The state of the active version of `projection`, as of its last commits.
    ///
    /// # Errors
    /// [`ViewError`].
    fn view(&self, projection: &str) -> Result<View, ViewError>;

    /// The state of one version, active or not.
    ///
    /// # Errors
    /// [`ViewError`].
    fn view_version(&self, projection: &str, version: &VersionId) -> Result<View, ViewError>;
}

/// Why there is no view.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// No projection of that name.
    #[error("there is no projection `{0}`")]
    NoProjection(String),
    /// It has no version that serves readers yet.
    #[error("projection `{0}` serves no version yet: its first one is still catching up")]
    NotActive(String),
    /// No version of that name.
    #[error("projection `{0}` has no version `{1}`")]
    NoVersion(String, VersionId),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One committed state of a version. Each shard's part is of one commit.
pub struct View {
    projection: String,
    version: VersionId,
    epoch: String,
    manifest: Arc<Manifest>,
    shards: Vec<(PartitionId, ShardMeta, Box<dyn ReadStore>)>,
}

/// What [`View::changes_since`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesSince {
    /// The commits after the positions asked for up to the view's, each shard's
    /// in order: partition, the shard's `pos` after it, and what it changed.
    Commits(Vec<(PartitionId, u64, Vec<TableChanges>)>),
    /// The change log does not reach back so far, or the positions are not of
    /// this state.
    TooOld,
}

impl View {
    /// A view over one snapshot a shard, in order of partition. Reads each
    /// shard's [`ShardMeta`] from its snapshot.
    ///
    /// # Errors
    /// [`StoreError`] where one cannot be read.
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
        Ok(Self { projection, version, epoch, manifest, shards })
    }

    /// The projection's name.
    #[must_use]
    pub fn projection(&self) -> &str {
        &self.projection
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> &VersionId {
        &self.version
    }

    /// The feed's epoch; positions of different epochs cannot be compared.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The version's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// How many commits the version has made, over all shards.
    #[must_use]
    pub fn pos(&self) -> u64 {
        self.shards.iter().map(|(_, meta, _)| meta.pos).sum()
    }

    /// Each shard's own commits, in order of partition.
    #[must_use]
    pub fn shard_pos(&self) -> Vec<u64> {
        self.shards.iter().map(|(_, meta, _)| meta.pos).collect()
    }

    /// Each shard's position in the log.
    #[must_use]
    pub fn log(&self) -> Vec<(PartitionId, Offset)> {
        self.shards.iter().map(|(partition, meta, _)| (*partition, meta.next)).collect()
    }

    /// Each shard's own record.
    pub fn shards(&self) -> impl Iterator<Item = (PartitionId, &ShardMeta)> {
        self.shards.iter().map(|(partition, meta, _)| (*partition, meta))
    }

    /// The highest event time applied.
    #[must_use]
    pub fn event_time(&self) -> Timestamp {
        self.shards.iter().map(|(_, meta, _)| meta.max_time).max().unwrap_or(Timestamp::MIN)
    }

    /// The row under `key`, merged over the shards that hold one.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read.
    pub fn get(&self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut held = Vec::new();
        for (place, (_, _, store)) in self.shards.iter().enumerate() {
            if let Some(value) = store.get(Space::Table(table), key.as_bytes())? {
                held.push((place, value));
            }
        }
        Ok((!held.is_empty()).then(|| self.merge(table, &held)))
    }

    /// At most `limit` rows of `range` in key order, last first where
    /// `reverse`; rows under one key are merged.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub fn scan(
        &self,
        table: TableId,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError> {
        // Each shard gives its first `limit` rows; the first `limit` keys of
        // their union are complete.
        let mut rows: BTreeMap<Vec<u8>, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for (place, (_, _, store)) in self.shards.iter().enumerate() {
            for (key, value) in store.scan(Space::Table(table), range, limit, reverse)? {
                rows.entry(key).or_default().push((place, value));
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

    /// The commits after each shard's position in `since`.
    ///
    /// # Errors
    /// [`StoreError`] where the change log cannot be read.
    pub fn changes_since(&self, since: &[u64]) -> Result<ChangesSince, StoreError> {
        if since.len() != self.shards.len() {
            return Ok(ChangesSince::TooOld);
        }
        let mut commits = Vec::new();
        for (&since, (partition, meta, store)) in since.iter().zip(&self.shards) {
            if since > meta.pos || since < meta.changes_from {
                return Ok(ChangesSince::TooOld);
            }
            let range = KeyRange { start: (since + 1).to_be_bytes().to_vec(), end: None };
            for (key, value) in store.scan(Space::Changes, &range, usize::MAX, false)? {
                let pos = key.try_into().map(u64::from_be_bytes);
                let (Ok(pos), Some(tables)) = (pos, TableChanges::decode(&value)) else {
                    return Err(StoreError::Damaged("an entry of the change log".into()));
                };
                commits.push((*partition, pos, tables));
            }
        }
        Ok(ChangesSince::Commits(commits))
    }

    fn merge(&self, table: TableId, held: &[(usize, Vec<u8>)]) -> Vec<u8> {
        if let [(_, only)] = held {
            return only.clone();
        }
        let newest =
            (0..held.len()).max_by_key(|&i| self.shards[held[i].0].1.max_time).unwrap_or_default();
        let rows: Vec<&[u8]> = held.iter().map(|(_, value)| value.as_slice()).collect();
        let fields = self.manifest.tables.get(table.0 as usize).map(|t| t.fields.as_slice());
        merge_rows(fields.unwrap_or_default(), &rows, newest)
    }
}
