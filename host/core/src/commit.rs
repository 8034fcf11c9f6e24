//! Represents the changes of a commit, in the form in which the feed sends them and the change log
//! stores them.

use serde::{Deserialize, Serialize};

use crate::{Checkpoint, Offset, PartitionId, ShardPoint, TableId, Timestamp, VersionId};

/// One commit of one shard of an active version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCommit {
    /// The name of the projection whose tables changed.
    pub projection: String,
    /// The version whose tables changed.
    pub version: VersionId,
    /// The feed's epoch, which changes with the active version; see
    /// [`crate::View::epoch`].
    pub epoch: String,
    /// The partition of the shard that made the commit.
    pub partition: PartitionId,
    /// The number of commits that this shard has made, including this one. The `pos` of a version
    /// is the sum over its shards.
    pub pos: u64,
    /// The first offset that the shard's tables do not contain yet.
    pub next: Offset,
    /// The checkpoint of the shard after the commit.
    pub checkpoint: Checkpoint,
    /// The highest event time applied so far. Events too far in the future (`engine.ahead_max_s`)
    /// are left out.
    pub event_time: Timestamp,
    /// Whether the commit is durable. Readers also see commits that are not durable. But a
    /// commit may be reported to other programs, such as Kafka, only if it is durable.
    pub durable: bool,
    /// The public tables that changed; empty if only the offset moved.
    pub tables: Vec<TableChanges>,
}

/// The changes of one table in one commit. Each key occurs once, and the keys are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChanges {
    /// The table that changed.
    pub table: TableId,
    /// The rows that were written: key and value (a JSON object).
    pub up: Vec<(String, Vec<u8>)>,
    /// The keys of the rows that were deleted.
    pub del: Vec<String>,
}

impl TableChanges {
    /// Returns the key under which the change log stores a commit: the shard's point after the
    /// commit, then the number of the commit.
    #[must_use]
    pub fn key(point: ShardPoint, commit: u64) -> Vec<u8> {
        [point.to_key().as_slice(), &commit.to_be_bytes()].concat()
    }

    /// Returns the inverse of [`TableChanges::key`]; `None` if `key` has another form.
    #[must_use]
    pub fn parse_change_key(key: &[u8]) -> Option<(ShardPoint, u64)> {
        let (point, commit) = key.split_first_chunk::<{ ShardPoint::KEY_BYTES }>()?;
        Some((ShardPoint::from_key(point), u64::from_be_bytes(commit.try_into().ok()?)))
    }

    /// The key of a table's last change in [`crate::Space::Meta`]. Under this key, a shard stores
    /// its point (see [`ShardPoint::to_key`]) after the last commit that changed `table`.
    #[must_use]
    pub fn last_key(table: TableId) -> Vec<u8> {
        [b"changed/".as_slice(), &table.0.to_be_bytes()].concat()
    }

    /// A commit's changes as the change log stores them.
    #[must_use]
    pub fn encode(tables: &[Self]) -> Vec<u8> {
        postcard::to_stdvec(tables).expect("vectors of strings and bytes always encode")
    }

    /// Returns the inverse of [`TableChanges::encode`]; `None` if the bytes are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Vec<Self>> {
        postcard::from_bytes(bytes).ok()
    }
}
