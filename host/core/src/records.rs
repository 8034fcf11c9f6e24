//! The records that the catalogue and a shard's file contain, apart from rows.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use crate::checkpoint::digest;
use crate::{
    Event, Manifest, Offset, ReadStore, ShardPoint, Space, StoreError, Timer, Timestamp,
    projection_key,
};

/// Names a version: the first 16 hexadecimal digits of a SHA-256 over the
/// plugin's bytes, its parameters and, if it has one, its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub String);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A projection's entry in the catalogue. Each projection has only one record, so that each of
/// its changes, such as an activation, is one write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRecord {
    /// The name.
    pub name: String,
    /// The tenant that it belongs to; empty for all tenants. Names are unique within a
    /// tenant.
    #[serde(default)]
    pub tenant: String,
    /// The version that serves readers.
    pub active: Option<VersionId>,
    /// The previously active version, for a rollback.
    pub previous: Option<VersionId>,
    /// Counts activations; part of the feed's epoch.
    pub activations: u64,
    /// Whether an operator paused it.
    pub paused: bool,
    /// All its versions, oldest first.
    pub versions: Vec<VersionRecord>,
}

impl ProjectionRecord {
    /// The key of the projection; see [`projection_key`].
    #[must_use]
    pub fn key(&self) -> String {
        projection_key(&self.tenant, &self.name)
    }

    /// The version `id`.
    #[must_use]
    pub fn version(&self, id: &VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|v| v.id == *id)
    }

    /// The feed's epoch of the active version, where `born` comes from
    /// [`ShardMeta::born`] of its shards; empty if no version is active.
    #[must_use]
    pub fn epoch(&self, born: u64) -> String {
        match self.active.as_ref().and_then(|id| self.version(id)) {
            Some(v) => format!("{}.{}.{}.{born:016x}", self.activations, v.id, v.rebuilds),
            None => String::new(),
        }
    }
}

/// A script or declaration, which an interpreter runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSource {
    /// The name of its file, without folders.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// The text.
    pub text: String,
}

impl VersionSource {
    /// The source with this name and text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { name: name.into(), sha256: hex::encode(Sha256::digest(&text)), text }
    }
}

/// One version in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The name.
    pub id: VersionId,
    /// SHA-256 of the plugin's bytes as uploaded, in hexadecimal.
    pub sha256: String,
    /// The parameters that are passed to `setup`.
    pub parameters: String,
    /// The source that the plugin runs, if it is an interpreter.
    #[serde(default)]
    pub source: Option<VersionSource>,
    /// The manifest that `setup` returned.
    pub manifest: Manifest,
    /// The stage of its life.
    pub state: VersionState,
    /// When it was uploaded.
    pub created: Timestamp,
    /// How many times its state was deleted and folded from the beginning; part of the
    /// state folder's name.
    #[serde(default)]
    pub rebuilds: u64,
    /// Whether it becomes active by itself once it has caught up.
    pub activate_when_ready: bool,
    /// Whether the version becomes active by itself even if it has parked events that the
    /// active version has applied.
    #[serde(default)]
    pub activate_forced: bool,
    /// Why it was halted.
    #[serde(default)]
    pub halted: Option<String>,
    /// The last verification that had a result, as JSON.
    #[serde(default)]
    pub verified: Option<String>,
    /// Why it did not become active by itself once it had caught up.
    #[serde(default)]
    pub not_activated: Option<String>,
    /// After a rebuild: for each partition, the offsets from which emitted events are appended
    /// to the log. An earlier build has appended the events that were emitted before these
    /// offsets.
    #[serde(default)]
    pub emit_from: Vec<EmitFrom>,
}

/// The offsets from which emitted events of a shard are appended to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmitFrom {
    /// The offset for events that events emit.
    pub events: Offset,
    /// The offset for events that timers emit. Timers fire after an event, at the next
    /// offset.
    pub timers: Offset,
    /// A fault may have kept some timers from firing at the offset `timers`. This is how many
    /// events the other timers had emitted at this offset before the fault.
    #[serde(default)]
    pub timers_emitted: u64,
}

impl EmitFrom {
    /// The offsets for a rebuild of the state whose record is `meta`. None of them is before
    /// the same offset in `self`. `ticked` tells whether all timers had fired that are due at
    /// the state's next offset.
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
    /// Requests a rebuild: the state is folded from the beginning in a new build. `emit_from`
    /// is used only if the version is active, because emitted events are appended to the log
    /// only while their version is active.
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

    /// The prefix of the ids of events that this version emits. It differs for each
    /// upload and rebuild of the same plugin, because the log would otherwise take their
    /// events for duplicates.
    #[must_use]
    pub fn emits_as(&self) -> String {
        format!("{}.{:x}.{}", self.id, self.created.0, self.rebuilds)
    }
}

/// The stage of a version's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// It folds the log from the beginning and serves no readers.
    #[default]
    Backfilling,
    /// It has caught up, follows the active version, and can be activated.
    Ready,
    /// It serves readers.
    Active,
    /// It was active before. It is kept up to date for an instant rollback.
    Retired,
}

/// The record of a shard in its file; stored in the same transaction as its rows.
// Long because it is one stored record: its members are the format of the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// The version of the file's format.
    pub format: u32,
    /// The next offset.
    pub next: Offset,
    /// How many commits it has made.
    pub pos: u64,
    /// Events applied.
    pub applied: u64,
    /// The applied events that were late.
    pub late: u64,
    /// Events parked in total, including those that were retried or dropped.
    pub parked_total: u64,
    /// Events parked now, including waiting events.
    pub parked_now: u64,
    /// The parked events that wait behind a failed one of their subject.
    #[serde(default)]
    pub waiting_now: u64,
    /// How many of the events that are parked now are unreadable records of unknown type. They
    /// may belong to other projections, so they do not count for `engine.parked_max`.
    #[serde(default)]
    pub unreadable_now: u64,
    /// How many unreadable records of unknown type were skipped and not parked, because too
    /// many of them were parked already.
    #[serde(default)]
    pub unreadable_left_out: u64,
    /// The greatest depth of an emitted event; see [`crate::EventRef::depth`].
    #[serde(default)]
    pub emit_depth: u32,
    /// The number of events that timers had emitted in the current tick when a fault
    /// interrupted it.
    #[serde(default)]
    pub tick_emitted: u64,
    /// The second folds of batches, and their differences. Not a function of the log.
    #[serde(default)]
    pub second_folds: SecondFolds,
    /// How many emitted events the log has refused for good; they wait for an operator. Not a
    /// function of the log.
    #[serde(default)]
    pub refused_now: u64,
    /// Timers fired.
    pub timers_fired: u64,
    /// Rows deleted because their retention ended.
    pub expired: u64,
    /// Timers that are set now.
    pub timers_now: u64,
    /// How many events this shard has emitted in total, also while the version was not active.
    /// The ids of emitted events contain this number.
    pub emitted: u64,
    /// The number that the next event in the outbox gets.
    pub outbox_next: u64,
    /// The log's time: the highest event time that counts; see [`AheadEvents`].
    pub max_time: Timestamp,
    /// Events that were too far ahead of their append time to move the watermark.
    #[serde(default)]
    pub ahead: AheadEvents,
    /// The watermark; [`Timestamp::MIN`] before the first tick.
    pub watermark: Timestamp,
    /// The oldest point from which clients can resume with the change log.
    pub changes_from: ShardPoint,
    /// The bytes in the change log.
    pub changes_bytes: u64,
    /// How many retries and drops of parked events there were. The first
    /// [`DecisionRecord::KEPT_MAX`] of them are stored as a [`DecisionRecord`] each.
    #[serde(default)]
    pub decisions: u64,
    /// A number that identifies the limits under which events were applied; 0 if not
    /// known.
    #[serde(default)]
    pub limits: u64,
    /// Whether these limits were changed since the first event.
    #[serde(default)]
    pub limits_changed: bool,
    /// The number of the rebuild in which the numbers of the outbox began at 0. If a rebuild
    /// can read the state that it replaces, it continues the numbers of that state.
    #[serde(default)]
    pub outbox_of: u64,
    /// [`crate::Log::identity`] of the partition that was folded; `None` if it was not
    /// known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<String>,
    /// A random number that was drawn when this state began without a predecessor; part
    /// of the feed's epoch. 0 before the first commit.
    #[serde(default)]
    pub born: u64,
    /// [`crate::Log::incarnation_at`] of `next`; 0 if no event was folded, or if the log
    /// does not know its incarnation.
    #[serde(default)]
    pub incarnation: u64,
    /// [`DecisionRecord::digest`] of the last decision; 0 if there was none.
    #[serde(default)]
    pub decided: u64,
    /// As of the last durable commit. Not a function of the log.
    #[serde(default)]
    pub ceiling: Ceiling,
}

/// An upper bound of the commits without a sync that may follow a durable commit. The durable
/// commit stores it, so that after a crash the server knows what readers may have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The highest next offset of such a commit.
    pub next: Offset,
    /// The highest number of such a commit.
    pub commit: u64,
}

/// Events whose time is further ahead than `engine.ahead_max_s` allows. They are applied
/// like all others, but do not move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvents {
    /// How many there were.
    pub count: u64,
    /// The latest of them.
    pub last: Option<AheadEvent>,
    /// Only for a log that does not know append times: events that are far ahead of the
    /// events before them, oldest first. They move the watermark once later events are as
    /// far ahead.
    pub unconfirmed: Vec<AheadEvent>,
}

/// Second folds: batches that a fresh instance has folded again over the same state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondFolds {
    /// How many.
    pub batches: u64,
    /// How many of them gave another result.
    pub differences: u64,
    /// The last difference.
    pub last: Option<FoldDifference>,
}

/// A difference between two folds of a batch, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldDifference {
    /// The offset of the batch's first event.
    pub offset: u64,
    /// The kind of entry: `row in table ...`, `timer` or `emitted event`.
    pub what: String,
    /// The key.
    pub key: String,
    /// The value that the first fold wrote; `null` if it wrote none.
    pub first: Option<String>,
    /// The value that the second fold wrote; `null` if it wrote none.
    pub second: Option<String>,
}

/// An event that is too far ahead to move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvent {
    /// The offset.
    pub offset: Offset,
    /// The `id`.
    pub id: String,
    /// The `source`.
    pub source: String,
    /// The time.
    pub time: Timestamp,
}

impl ShardMeta {
    /// The format that this release writes.
    pub const FORMAT: u32 = 2;
    /// The key in [`crate::Space::Meta`].
    pub const KEY: &'static [u8] = b"shard";

    /// Decodes the record in `bytes`; without bytes, that of an empty shard.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(bytes: Option<&[u8]>) -> serde_json::Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), serde_json::from_slice)
    }

    /// After a crash: whether readers may have seen a later state than this one, which is the
    /// state of the last durable commit.
    #[must_use]
    pub fn may_be_behind(&self) -> bool {
        self.ceiling.next > self.next || self.ceiling.commit > self.pos
    }

    /// The record in `store`. If there is none, the record of an empty shard.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or another error of the store.
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

/// A retry or drop of parked events that an operator has decided. A shard's state depends
/// on the log and on these decisions, so they are stored with the state: a fold from the
/// beginning repeats them at the same offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The shard's next offset at that time.
    pub next: Offset,
    /// The watermark at that time.
    pub watermark: Timestamp,
    /// Whether the events were retried (`true`) or dropped (`false`).
    pub retry: bool,
    /// Whether all parked events were selected.
    pub all: bool,
    /// Selects the events at these offsets.
    pub offsets: Vec<u64>,
    /// Selects only events of this tenant.
    pub tenant: Option<String>,
    /// Selects the events of this subject.
    pub subject: Option<String>,
    /// How many events were retried or dropped before it ended.
    pub handled: u64,
    /// The digest of this decision and of all before it.
    pub digest: u64,
}

impl DecisionRecord {
    const FORMAT: u8 = 3;
    /// The most decisions that are stored for a shard; further ones are only counted.
    pub const KEPT_MAX: u64 = 100_000;

    /// The key of decision `number`, from 0, in [`crate::Space::Meta`].
    #[must_use]
    pub fn key(number: u64) -> Vec<u8> {
        [b"decision/".as_slice(), &number.to_be_bytes()].concat()
    }

    /// The same decision with the digest that it has if `before` is the digest of the previous
    /// decision.
    #[must_use]
    pub fn after(&self, before: u64) -> Self {
        let mut record = Self { digest: before, ..self.clone() };
        record.digest = digest(Sha256::new().chain_update(record.encode()));
        record
    }

    /// The record as a shard's file stores it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("strings and numbers always encode"));
        bytes
    }

    /// The inverse of [`DecisionRecord::encode`]; `None` if the bytes are damaged or have
    /// a later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}

/// An emitted event that is not in the log yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// The offset of the event that caused it; for an event of a timer, that of the event
    /// that set the timer.
    pub cause: Offset,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject.
    pub subject: String,
    /// The tenant.
    pub tenant: String,
    /// The time.
    pub time: Timestamp,
    /// The payload, JSON.
    pub data: Vec<u8>,
    /// One more than its cause's depth; see [`crate::EventRef::depth`].
    pub depth: u32,
}

/// The kind of a parked record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParkedKind {
    /// An event that could not be applied.
    Event,
    /// An event that waits behind a parked one of its subject, and was not tried yet.
    Waiting,
    /// A timer that could not be fired.
    Timer(Timer),
}

/// A complete parked event (or timer): the log may delete the original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRecord {
    /// The kind of the record.
    pub kind: ParkedKind,
    /// The event's offset; for a timer, the next offset when it was due.
    pub offset: Offset,
    /// The event; for a timer, an empty event.
    pub event: Event,
    /// The watermark at which it was applied.
    pub watermark: Timestamp,
    /// Why it could not be applied; empty while it waits.
    pub reason: String,
    /// The guest's stack; may be empty.
    pub backtrace: String,
    /// How many times it was tried.
    pub attempts: u32,
}

impl ParkedRecord {
    const FORMAT: u8 = 2;

    /// The event's tenant; for a timer, the part of its key before U+0000.
    #[must_use]
    pub fn tenant(&self) -> &str {
        match &self.kind {
            ParkedKind::Timer(timer) => timer.key.split_once('\0').map_or("", |(tenant, _)| tenant),
            ParkedKind::Event | ParkedKind::Waiting => &self.event.tenant,
        }
    }

    /// The record as a shard's file stores it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("strings and numbers always encode"));
        bytes
    }

    /// The inverse of [`ParkedRecord::encode`]; `None` if the bytes are damaged or have a
    /// later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}
