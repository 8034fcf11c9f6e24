//! Defines the records that the catalogue and the file of a shard contain, apart from rows.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use crate::checkpoint::digest;
use crate::{
    Event, Manifest, Offset, ReadStore, ShardPoint, Space, StoreError, Timer, Timestamp,
    projection_key,
};

/// Identifies a version: the first 16 hexadecimal digits of a SHA-256 over the plugin's bytes, its
/// parameters and, if an interpreter runs it, its source code.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub String);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A projection's entry in the catalogue. A projection has a single record, so every change of it,
/// such as an activation, is a single write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRecord {
    /// The name of the projection.
    pub name: String,
    /// The tenant that the projection belongs to; empty if it belongs to all tenants. Names are
    /// unique within a tenant.
    #[serde(default)]
    pub tenant: String,
    /// The active version, whose tables readers see.
    pub active: Option<VersionId>,
    /// The previously active version, to which a rollback returns.
    pub previous: Option<VersionId>,
    /// The number of activations so far. The feed's epoch contains it.
    pub activations: u64,
    /// Whether an operator paused the projection.
    pub paused: bool,
    /// All versions of the projection, oldest first.
    pub versions: Vec<VersionRecord>,
}

impl ProjectionRecord {
    /// Returns the key of the projection; see [`projection_key`].
    #[must_use]
    pub fn key(&self) -> String {
        projection_key(&self.tenant, &self.name)
    }

    /// Returns the version with the id `id`.
    #[must_use]
    pub fn version(&self, id: &VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|v| v.id == *id)
    }

    /// Returns the feed's epoch of the active version; empty if no version is active. `born` is
    /// derived from [`ShardMeta::born`] of the version's shards.
    #[must_use]
    pub fn epoch(&self, born: u64) -> String {
        match self.active.as_ref().and_then(|id| self.version(id)) {
            Some(v) => format!("{}.{}.{}.{born:016x}", self.activations, v.id, v.rebuilds),
            None => String::new(),
        }
    }
}

/// The source code of a projection that an interpreter runs: a script or a declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSource {
    /// The name of the file with the source code, without folders.
    pub name: String,
    /// The SHA-256 of the source code, in hexadecimal.
    pub sha256: String,
    /// The text of the source code.
    pub text: String,
}

impl VersionSource {
    /// Creates a record of the source code `text` in a file named `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { name: name.into(), sha256: hex::encode(Sha256::digest(&text)), text }
    }
}

/// A version's entry in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The id of the version.
    pub id: VersionId,
    /// The SHA-256 of the plugin's bytes as uploaded, in hexadecimal.
    pub sha256: String,
    /// The parameters that are passed to `setup`.
    pub parameters: String,
    /// The source code, if the plugin is an interpreter that runs it.
    #[serde(default)]
    pub source: Option<VersionSource>,
    /// The manifest that the plugin's `setup` returned.
    pub manifest: Manifest,
    /// What the version is used for at present.
    pub state: VersionState,
    /// When the version was uploaded.
    pub created: Timestamp,
    /// How many times the version was rebuilt. Names of state folders contain this number.
    #[serde(default)]
    pub rebuilds: u64,
    /// Whether the version becomes active by itself once it has caught up with the log.
    pub activate_when_ready: bool,
    /// Whether the version becomes active by itself without the check of its parked events: even if
    /// it has parked events that the active version has applied.
    #[serde(default)]
    pub activate_forced: bool,
    /// The reason why the version was halted; `None` if it is not halted.
    #[serde(default)]
    pub halted: Option<String>,
    /// The result of the last completed verification, as JSON.
    #[serde(default)]
    pub verified: Option<String>,
    /// The reason why the version did not become active by itself when it had caught up.
    #[serde(default)]
    pub not_activated: Option<String>,
    /// For each partition, the offsets from which emitted events are appended to the log after a
    /// rebuild. What the version emitted before these offsets is already in the log.
    #[serde(default)]
    pub emit_from: Vec<EmitFrom>,
}

/// The offsets from which a shard's emitted events are appended to the log after a rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmitFrom {
    /// Events that the plugin emits for an event at or after this offset are appended.
    pub events: Offset,
    /// Events that the plugin emits for a timer are appended if the timer fires at or after this
    /// offset. The offset of a timer is the next offset at the time when it fires.
    pub timers: Offset,
    /// How many events the timers at the offset `timers` had already emitted when a fault
    /// interrupted these timers.
    #[serde(default)]
    pub timers_emitted: u64,
}

impl EmitFrom {
    /// Returns the offsets from which a rebuild must emit events; none is lower than in `self`.
    /// `meta` is the record of the state that is rebuilt. `ticked` tells whether all timers that
    /// are due at that state's next offset have fired.
    #[must_use]
    pub fn behind(self, meta: &ShardMeta, ticked: bool) -> Self {
        let timers = if ticked { meta.next.next() } else { meta.next };
        let (timers, timers_emitted) = match timers.cmp(&self.timers) {
            Ordering::Less => (self.timers, self.timers_emitted),
            Ordering::Equal => (timers, self.timers_emitted.max(meta.tick_emitted)),
            Ordering::Greater => (timers, meta.tick_emitted),
        };
        Self { events: self.events.max(meta.next), timers, timers_emitted }
    }
}

impl VersionRecord {
    /// Requests a rebuild: the version's tables are deleted and the log is folded from the
    /// beginning. `emit_from` is used only if the version is active, because only the active
    /// version's emitted events are appended to the log.
    pub fn rebuild(&mut self, emit_from: Vec<EmitFrom>) {
        self.rebuilds += 1;
        self.halted = None;
        self.not_activated = None;
        if self.state == VersionState::Active {
            self.emit_from = emit_from;
        } else {
            self.state = VersionState::Backfilling;
        }
    }

    /// Returns the prefix of the ids of events that this version emits. Each upload and each
    /// rebuild of a plugin has another prefix. With the same prefix, the log would take newly
    /// emitted events for duplicates of those that were emitted before.
    #[must_use]
    pub fn emits_as(&self) -> String {
        format!("{}.{:x}.{}", self.id, self.created.0, self.rebuilds)
    }
}

/// What a version is used for at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// The version folds the log from the beginning and serves no readers.
    #[default]
    Backfilling,
    /// The version has caught up with the log, follows the active version, and can be activated.
    Ready,
    /// The version serves readers.
    Active,
    /// The version was active before. It still folds the log, so that a rollback can activate it at
    /// once.
    Retired,
}

/// The record of a shard in its file. It is stored in the same transaction as the shard's rows.
// Long because it is one stored record: its members are the format of the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// The version of the state file's format.
    pub format: u32,
    /// The next offset: the first one that the shard has not applied yet.
    pub next: Offset,
    /// The number of commits that the shard has made.
    pub pos: u64,
    /// The number of events applied.
    pub applied: u64,
    /// The number of applied events that were late.
    pub late: u64,
    /// The number of events ever parked, including those that were retried or dropped.
    pub parked_total: u64,
    /// The number of events parked now, including waiting events.
    pub parked_now: u64,
    /// How many of the parked events wait behind an earlier parked event of their subject.
    #[serde(default)]
    pub waiting_now: u64,
    /// How many unreadable records of unknown type are parked now. They may belong to other
    /// projections, so they do not count towards `engine.parked_max`.
    #[serde(default)]
    pub unreadable_now: u64,
    /// How many unreadable records of unknown type were not parked, because too many of them were
    /// parked already.
    #[serde(default)]
    pub unreadable_left_out: u64,
    /// The greatest emit depth of an event that the shard has emitted; see
    /// [`crate::EventRef::depth`].
    #[serde(default)]
    pub emit_depth: u32,
    /// The number of events that the timers of the current tick had emitted when a fault
    /// interrupted the tick.
    #[serde(default)]
    pub tick_emitted: u64,
    /// Batches that were folded a second time, and the differences found. These numbers do not
    /// depend on the log alone.
    #[serde(default)]
    pub second_folds: SecondFolds,
    /// How many emitted events the log has refused permanently. They wait for an operator. This
    /// number does not depend on the log alone.
    #[serde(default)]
    pub refused_now: u64,
    /// The number of timers that have fired.
    pub timers_fired: u64,
    /// The number of rows deleted because their retention ended.
    pub expired: u64,
    /// The number of timers that are set now.
    pub timers_now: u64,
    /// The number of events that this shard has emitted, including those emitted while the version
    /// was not active. The ids of emitted events contain this number.
    pub emitted: u64,
    /// The number that the next event in the outbox gets.
    pub outbox_next: u64,
    /// The log time: the highest event time applied, without events that are too far in the future
    /// (see [`AheadEvents`]).
    pub max_time: Timestamp,
    /// Events that were too far ahead of their append time to move the watermark.
    #[serde(default)]
    pub ahead: AheadEvents,
    /// The watermark; [`Timestamp::MIN`] before the first tick.
    pub watermark: Timestamp,
    /// The oldest point from which clients can resume with the change log.
    pub changes_from: ShardPoint,
    /// The number of bytes in the change log.
    pub changes_bytes: u64,
    /// The number of retries and drops of parked events. Each of the first
    /// [`DecisionRecord::KEPT_MAX`] is stored as a [`DecisionRecord`].
    #[serde(default)]
    pub decisions: u64,
    /// A number that identifies the limits under which the shard has applied events; 0 if they are
    /// not known.
    #[serde(default)]
    pub limits: u64,
    /// Whether the limits that `limits` identifies were changed since the first event.
    #[serde(default)]
    pub limits_changed: bool,
    /// The rebuild in which the numbering of the outbox began at 0. A rebuild that can read the
    /// state that it replaces continues the numbering of that state.
    #[serde(default)]
    pub outbox_of: u64,
    /// The identity ([`crate::Log::identity`]) of the partition that was folded; `None` if the
    /// shard does not know it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<String>,
    /// A random number that identifies this state. It is drawn when the state is created, except if
    /// the state continues an earlier one. The feed's epoch contains it. It is 0 before the first
    /// commit.
    #[serde(default)]
    pub born: u64,
    /// The incarnation of the log ([`crate::Log::incarnation_at`]) at the offset `next`; 0 if no
    /// event was folded, or if the log does not know its incarnation.
    #[serde(default)]
    pub incarnation: u64,
    /// The digest ([`DecisionRecord::digest`]) of the last retry or drop of parked events; 0 if
    /// there was none.
    #[serde(default)]
    pub decided: u64,
    /// The upper bound for commits without a sync that follow the last durable commit. That commit
    /// has stored the bound. The bound depends not only on the log, but also on when commits
    /// happened.
    #[serde(default)]
    pub ceiling: Ceiling,
}

/// An upper bound for the commits without a sync that may follow a durable commit. The durable
/// commit stores it. After a crash, it tells the server how new the state may be that readers have
/// seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The highest next offset that a later commit without a sync may have.
    pub next: Offset,
    /// The highest number that a later commit without a sync may have.
    pub commit: u64,
}

/// Events whose time is further in the future than `engine.ahead_max_s` allows. They are applied
/// like all others, but do not move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvents {
    /// The number of these events.
    pub count: u64,
    /// The last of these events.
    pub last: Option<AheadEvent>,
    /// Events that are far ahead of the events before them, oldest first. They move the watermark
    /// only if enough later events are as far ahead. The list is used only if the log does not know
    /// append times.
    pub unconfirmed: Vec<AheadEvent>,
}

/// Counts the batches that a fresh instance has folded a second time over the same state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondFolds {
    /// The number of batches that were folded a second time.
    pub batches: u64,
    /// The number of batches whose second fold gave another result.
    pub differences: u64,
    /// The last difference that a second fold found.
    pub last: Option<FoldDifference>,
}

/// A difference between the two folds of a batch, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldDifference {
    /// The offset of the first event of the batch.
    pub offset: u64,
    /// What differs: `row in table ...`, `timer` or `emitted event`.
    pub what: String,
    /// The key of the row, timer or event that differs.
    pub key: String,
    /// The value that the first fold wrote; `null` if it wrote none.
    pub first: Option<String>,
    /// The value that the second fold wrote; `null` if it wrote none.
    pub second: Option<String>,
}

/// An event that is too far in the future to move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvent {
    /// The offset of the event.
    pub offset: Offset,
    /// The `id` of the event.
    pub id: String,
    /// The `source` of the event.
    pub source: String,
    /// The time of the event.
    pub time: Timestamp,
}

impl ShardMeta {
    /// The version of the format that this release writes.
    pub const FORMAT: u32 = 2;
    /// The key of the record in [`crate::Space::Meta`].
    pub const KEY: &'static [u8] = b"shard";

    /// Decodes the record in `bytes`. If there are no bytes, it returns the record of an empty
    /// shard.
    ///
    /// # Errors
    /// Fails if the bytes are damaged.
    pub fn decode(bytes: Option<&[u8]>) -> serde_json::Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), serde_json::from_slice)
    }

    /// Returns whether readers may have seen a later state than this one. This is possible after a
    /// crash, because then only the state of the last durable commit is left.
    #[must_use]
    pub fn may_be_behind(&self) -> bool {
        self.ceiling.next > self.next || self.ceiling.commit > self.pos
    }

    /// Returns the record in `store`. If there is none, the record of an empty shard.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] if the record is damaged, or another error of the store.
    pub fn of(store: &dyn ReadStore) -> Result<Self, StoreError> {
        let bytes = store.get(Space::Meta, Self::KEY)?;
        Self::decode(bytes.as_deref())
            .map_err(|e| StoreError::Damaged(format!("the shard's own record: {e}")))
    }
}

impl Default for ShardMeta {
    fn default() -> Self {
        Self {
            format: Self::FORMAT,
            next: Offset(0),
            pos: 0,
            applied: 0,
            late: 0,
            parked_total: 0,
            parked_now: 0,
            waiting_now: 0,
            unreadable_now: 0,
            unreadable_left_out: 0,
            emit_depth: 0,
            second_folds: SecondFolds::default(),
            refused_now: 0,
            timers_fired: 0,
            expired: 0,
            timers_now: 0,
            tick_emitted: 0,
            emitted: 0,
            outbox_next: 0,
            max_time: Timestamp::MIN,
            ahead: AheadEvents::default(),
            watermark: Timestamp::MIN,
            changes_from: ShardPoint::default(),
            changes_bytes: 0,
            decisions: 0,
            limits: 0,
            limits_changed: false,
            outbox_of: 0,
            folded: None,
            born: 0,
            incarnation: 0,
            decided: 0,
            ceiling: Ceiling::default(),
        }
    }
}

/// An operator's decision to retry or drop parked events. A shard's state depends on the log and on
/// these decisions. They are stored with the state, so that a fold from the beginning can repeat
/// them at the same offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The shard's next offset at the time of the decision.
    pub next: Offset,
    /// The shard's watermark at the time of the decision.
    pub watermark: Timestamp,
    /// Whether the events were retried (`true`) or dropped (`false`).
    pub retry: bool,
    /// Whether the decision selects all parked events.
    pub all: bool,
    /// The decision selects the events at these offsets.
    pub offsets: Vec<u64>,
    /// The decision selects only events of this tenant.
    pub tenant: Option<String>,
    /// The decision selects only the events of this subject.
    pub subject: Option<String>,
    /// How many events were retried or dropped because of the decision.
    pub handled: u64,
    /// The digest of this decision and of all decisions before it.
    pub digest: u64,
}

impl DecisionRecord {
    const FORMAT: u8 = 3;
    /// The maximum number of decisions that are stored for a shard. Further decisions are only
    /// counted.
    pub const KEPT_MAX: u64 = 100_000;

    /// Returns the key of decision `number` (counted from 0) in [`crate::Space::Meta`].
    #[must_use]
    pub fn key(number: u64) -> Vec<u8> {
        [b"decision/".as_slice(), &number.to_be_bytes()].concat()
    }

    /// Returns the decision with its digest, which also depends on `before`, the digest of the
    /// previous decision.
    #[must_use]
    pub fn after(&self, before: u64) -> Self {
        let mut record = Self { digest: before, ..self.clone() };
        record.digest = digest(Sha256::new().chain_update(record.encode()));
        record
    }

    /// Returns the record as bytes, in the form that a shard's file stores.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("strings and numbers always encode"));
        bytes
    }

    /// Returns the inverse of [`DecisionRecord::encode`]. Returns `None` if the bytes are damaged
    /// or have a later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}

/// An emitted event that is not in the log yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// The offset of the event that caused this event. If a timer caused it, the offset of the
    /// event that set the timer.
    pub cause: Offset,
    /// The type of the emitted event.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject of the emitted event.
    pub subject: String,
    /// The tenant of the emitted event.
    pub tenant: String,
    /// The event time of the emitted event.
    pub time: Timestamp,
    /// The payload of the emitted event, in JSON.
    pub data: Vec<u8>,
    /// The emit depth: one more than that of the event or timer that caused this event; see
    /// [`crate::EventRef::depth`].
    pub depth: u32,
}

/// What a parked record contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParkedKind {
    /// An event that could not be applied.
    Event,
    /// An event that was not tried yet, because it waits behind a parked event of its subject.
    Waiting,
    /// A timer that could not be fired.
    Timer(Timer),
}

/// A parked event or timer, as it is stored. The record contains the complete event, because the
/// log may delete its copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRecord {
    /// Whether the record contains an event or a timer.
    pub kind: ParkedKind,
    /// The offset of the event. For a timer, this is the shard's next offset when the timer was
    /// due.
    pub offset: Offset,
    /// The parked event. For a timer, the event is empty.
    pub event: Event,
    /// The watermark at which the event or timer was applied.
    pub watermark: Timestamp,
    /// Why the event or timer could not be applied; empty while an event waits behind another one.
    pub reason: String,
    /// The plugin's call stack; may be empty.
    pub backtrace: String,
    /// How many times the plugin was called with the event or timer.
    pub attempts: u32,
}

impl ParkedRecord {
    const FORMAT: u8 = 2;

    /// Returns the tenant of the event. For a timer, returns the part of the timer's key before
    /// U+0000.
    #[must_use]
    pub fn tenant(&self) -> &str {
        match &self.kind {
            ParkedKind::Timer(timer) => timer.key.split_once('\0').map_or("", |(tenant, _)| tenant),
            ParkedKind::Event | ParkedKind::Waiting => &self.event.tenant,
        }
    }

    /// Returns the record as bytes, in the form that a shard's file stores.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("strings and numbers always encode"));
        bytes
    }

    /// Returns the inverse of [`ParkedRecord::encode`]. Returns `None` if the bytes are damaged or
    /// have a later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}
