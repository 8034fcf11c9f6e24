//! Defines points in the history of a version's shards, and proofs that a point belongs to this
//! history. Resume tokens, cursors and `ETag`s contain points and proofs.
//!
//! Points and proofs do not depend on where commits were made. A shard that folds the log again, on
//! this node or another one, passes the same points. So checkpoints that were issued before this
//! fold remain valid.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Offset, ShardMeta, Timestamp};

/// A point in a shard's history. Each change of the shard's tables increases at least one of its
/// numbers. The same events with the same retries and drops of parked events lead to the same
/// point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardPoint {
    /// The first offset that the tables do not contain yet.
    pub next: Offset,
    /// The watermark of the shard. When timers fire and rows expire, the watermark changes while
    /// the offset stays the same.
    #[serde(with = "short")]
    pub watermark: Timestamp,
    /// The number of events applied, events parked, timers fired and rows expired so far. When a
    /// parked event is applied, this number changes while offset and watermark stay the same.
    pub steps: u64,
    /// The number of retries and drops of parked events so far.
    pub decisions: u64,
}

impl Default for ShardPoint {
    /// Returns the point at which every shard begins: no event is folded.
    fn default() -> Self {
        Self { next: Offset(0), watermark: Timestamp::MIN, steps: 0, decisions: 0 }
    }
}

impl ShardPoint {
    /// The length of the bytes that [`ShardPoint::to_key`] returns.
    pub const KEY_BYTES: usize = 32;

    /// Returns the point of the shard whose record is `meta`.
    #[must_use]
    pub fn of(meta: &ShardMeta) -> Self {
        Self {
            next: meta.next,
            watermark: meta.watermark,
            steps: meta.applied + meta.parked_total + meta.timers_fired + meta.expired,
            decisions: meta.decisions,
        }
    }

    /// Returns the point as bytes. Two points compare as their bytes do.
    #[must_use]
    pub fn to_key(self) -> [u8; Self::KEY_BYTES] {
        let mut key = [0; Self::KEY_BYTES];
        // With its sign bit flipped, a signed number sorts like its big-endian bytes.
        let watermark = self.watermark.0.cast_unsigned() ^ (1 << 63);
        let numbers = [self.next.0, watermark, self.steps, self.decisions];
        for (index, number) in key.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *index = number.to_be_bytes();
        }
        key
    }

    /// Decodes a key that [`ShardPoint::to_key`] has encoded.
    #[must_use]
    pub fn from_key(key: &[u8; Self::KEY_BYTES]) -> Self {
        let number = |index: usize| u64::from_be_bytes(key.as_chunks::<8>().0[index]);
        Self {
            next: Offset(number(0)),
            watermark: Timestamp((number(1) ^ (1 << 63)).cast_signed()),
            steps: number(2),
            decisions: number(3),
        }
    }

    /// Returns whether each number in `self` is at least as high as in `other`.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        self.next >= other.next
            && self.watermark >= other.watermark
            && self.steps >= other.steps
            && self.decisions >= other.decisions
    }
}

/// Identifies a shard's history up to a point. If two histories have equal proofs, they have folded
/// the same events, with the same retries and drops of parked events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardProof {
    /// The incarnation of the log that wrote the last event before the point; see
    /// [`crate::Log::incarnation_at`].
    pub incarnation: u64,
    /// The digest of all retries and drops up to the point; see [`crate::DecisionRecord::digest`].
    pub decided: u64,
}

/// The points of all shards of a version, in order of partition, with the proof of their
/// history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The point of each shard, in order of partition.
    pub points: Vec<ShardPoint>,
    proof: u64,
}

impl Checkpoint {
    /// Creates a checkpoint from the point and the proof of each shard.
    #[must_use]
    pub fn new(shards: impl IntoIterator<Item = (ShardPoint, ShardProof)>) -> Self {
        let mut hash = Sha256::new();
        let mut points = Vec::new();
        for (point, proof) in shards {
            hash.update(proof.incarnation.to_le_bytes());
            hash.update(proof.decided.to_le_bytes());
            points.push(point);
        }
        Self { points, proof: digest(hash) }
    }

    /// Returns the checkpoint of the shards whose records are `metas`.
    #[must_use]
    pub fn of<'a>(metas: impl IntoIterator<Item = &'a ShardMeta>) -> Self {
        Self::new(metas.into_iter().map(|meta| (ShardPoint::of(meta), ShardProof::of(meta))))
    }

    /// Returns a copy whose points contain only the next offset and the number of retries and
    /// drops. The copy is shorter when it is encoded. It is for readers that do not resume from it.
    #[must_use]
    pub fn coarse(&self) -> Self {
        let coarse = |point: &ShardPoint| {
            let ShardPoint { next, decisions, .. } = *point;
            ShardPoint { next, decisions, ..ShardPoint::default() }
        };
        Self { points: self.points.iter().map(coarse).collect(), proof: self.proof }
    }

    /// For each partition, the first offset that the tables do not contain yet.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.points.iter().map(|point| point.next.0)
    }
}

/// Encodes a watermark so that [`Timestamp::MIN`] takes one byte. Every shard without event time
/// has this watermark.
mod short {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let folded = (time.0.cast_unsigned() << 1) ^ (time.0 >> 63).cast_unsigned();
        to.serialize_u64(folded.wrapping_add(1))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let folded = u64::deserialize(from)?.wrapping_sub(1);
        Ok(Timestamp((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()))
    }
}

impl ShardProof {
    /// Returns the proof of the shard whose record is `meta`.
    #[must_use]
    pub fn of(meta: &ShardMeta) -> Self {
        Self { incarnation: meta.incarnation, decided: meta.decided }
    }
}

/// Derives a number from the identity of a partition (see [`crate::Log::identity`]). If a log has
/// no incarnations, this number takes their place.
#[must_use]
pub fn incarnation_of(identity: &str) -> u64 {
    digest(Sha256::new().chain_update(identity))
}

/// Returns the first 8 bytes of a hash as a number.
pub(crate) fn digest(hash: Sha256) -> u64 {
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(digest.as_chunks().0[0])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn point(next: u64, watermark: i64, steps: u64, decisions: u64) -> ShardPoint {
        ShardPoint { next: Offset(next), watermark: Timestamp(watermark), steps, decisions }
    }

    #[test]
    fn a_shard_that_has_folded_nothing_is_at_the_first_point() {
        assert_eq!(ShardPoint::of(&ShardMeta::default()), ShardPoint::default());
        assert_eq!(ShardMeta::default().changes_from, ShardPoint::default());
    }

    #[test]
    fn keys_sort_as_points_do_and_come_back() {
        let rising = [
            point(0, i64::MIN, 0, 0),
            point(1, -5, 7, 0),
            point(1, 5, 7, 0),
            point(1, 5, 8, 0),
            point(1, 5, 8, 1),
            point(256, i64::MIN, 0, 0),
            point(u64::MAX, i64::MAX, u64::MAX, u64::MAX),
        ];
        for pair in rising.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_key() < pair[1].to_key(), "{pair:?}");
        }
        for point in rising {
            assert_eq!(ShardPoint::from_key(&point.to_key()), point);
            let bytes = postcard::to_stdvec(&point).unwrap();
            assert_eq!(postcard::from_bytes::<ShardPoint>(&bytes).unwrap(), point);
        }
        assert_eq!(postcard::to_stdvec(&ShardPoint::default()).unwrap().len(), 4);
    }

    #[test]
    fn another_incarnation_or_decision_gives_another_checkpoint() {
        let at = |incarnation, decided| {
            Checkpoint::new([(point(5, 0, 5, 1), ShardProof { incarnation, decided })])
        };
        assert_eq!(at(1, 2), at(1, 2));
        assert_ne!(at(1, 2), at(3, 2));
        assert_ne!(at(1, 2), at(1, 3));
        assert_ne!(at(1, 2), at(2, 1));
        assert_eq!(at(1, 2).coarse(), at(1, 2).coarse());
        assert_ne!(at(1, 2).coarse(), at(3, 2).coarse());
    }
}
