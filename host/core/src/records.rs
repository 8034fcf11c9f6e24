//! What the catalogue and a shard's file keep, apart from rows.

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

/// A projection's entry in the catalogue. One record a projection, so that
/// every change of it, the flip of the active version too, is one write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRecord {
    /// Its name.
    pub name: String,
    /// Whose it is; empty for all tenants. Names are unique within a tenant.
    #[serde(default)]
    pub tenant: String,
    /// The version that serves readers.
    pub active: Option<VersionId>,
    /// The one before, for rollback.
    pub previous: Option<VersionId>,
    /// Counts activations; part of the feed's epoch.
    pub activations: u64,
    /// Whether a person paused it.
    pub paused: bool,
    /// All its versions, oldest first.
    pub versions: Vec<VersionRecord>,
}

impl ProjectionRecord {
    /// What it is known by everywhere; see [`projection_key`].
    #[must_use]
    pub fn key(&self) -> String {
        projection_key(&self.tenant, &self.name)
    }

    /// The version `id`.
    #[must_use]
    pub fn version(&self, id: &VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|v| v.id == *id)
    }

    /// The feed's epoch of the active version, whose shards' states were born
    /// with `born`; empty if no version is active.
    #[must_use]
    pub fn epoch(&self, born: u64) -> String {
        match self.active.as_ref().and_then(|id| self.version(id)) {
            Some(v) => format!("{}.{}.{}.{born:016x}", self.activations, v.id, v.rebuilds),
            None => String::new(),
        }
    }
}

/// One version in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its name.
    pub id: VersionId,
    /// SHA-256 of the plugin's bytes as uploaded, in hexadecimal.
    pub sha256: String,
    /// What `setup` is given.
    pub parameters: String,
    /// The script that the plugin runs, if it is an interpreter.
    #[serde(default)]
    pub source: Option<String>,
    /// What `setup` answered.
    pub manifest: Manifest,
    /// Where in its life it is.
    pub state: VersionState,
    /// When it was uploaded.
    pub created: Timestamp,
    /// How often its state was deleted and folded from the beginning; part of the state
    /// folder's name.
    #[serde(default)]
    pub rebuilds: u64,
    /// Whether it becomes active by itself once it has caught up.
    pub activate_when_ready: bool,
    /// Whether it does so even if it has parked events that the active version has
    /// applied.
    #[serde(default)]
    pub activate_forced: bool,
    /// Why it was halted.
    #[serde(default)]
    pub halted: Option<String>,
    /// The last verification that came to an answer, as JSON.
    #[serde(default)]
    pub verified: Option<String>,
    /// Why it did not become active by itself once it had caught up.
    #[serde(default)]
    pub not_activated: Option<String>,
    /// After a rebuild in place: for each partition, from where on emitted
    /// events are appended; those before it were, the first time.
    #[serde(default)]
    pub emit_from: Vec<EmitFrom>,
}

/// From which position on what a shard emits goes into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmitFrom {
    /// What events emit.
    pub events: Offset,
    /// What timers emit: they fire after an event, at the next offset.
    pub timers: Offset,
    /// How many events timers had emitted at exactly that offset: a fault kept the
    /// others from firing.
    #[serde(default)]
    pub timers_emitted: u64,
}

impl EmitFrom {
    /// After a state with this record, whose timers had fired for its next offset
    /// (`ticked`) or not all of them; never before `self`.
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
    /// Has the version's state folded from the beginning, in a build of its own.
    /// `emit_from` counts only if the version serves readers: no other has emitted.
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

    /// What the ids of events begin with that this version emits: as long as
    /// the log remembers ids, another upload or rebuild of the same plugin must
    /// not be taken for this one.
    #[must_use]
    pub fn emits_as(&self) -> String {
        format!("{}.{:x}.{}", self.id, self.created.0, self.rebuilds)
    }
}

/// Where in its life a version is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Folds the log in the shadow.
    #[default]
    Backfilling,
    /// Has caught up, follows the active version, and waits to be activated.
    Ready,
    /// Serves readers.
    Active,
    /// Was active; kept, and kept up to date, for an instant rollback.
    Retired,
}

/// What a shard's file says of the shard itself; stored in the same
/// transaction as its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// The version of the file's layout.
    pub format: u32,
    /// The shard's position: the next offset to read.
    pub next: Offset,
    /// How many commits it has made.
    pub pos: u64,
    /// Events applied.
    pub applied: u64,
    /// Of them, events older than the watermark when they came.
    pub late: u64,
    /// Events parked, all told; retried and dropped ones included.
    pub parked_total: u64,
    /// Events parked now, those waiting behind another included.
    pub parked_now: u64,
    /// Of them, those that wait behind a failed one of their subject.
    #[serde(default)]
    pub waiting_now: u64,
    /// Of those parked, unreadable records of unknown type: they may concern other
    /// projections and do not count for `engine.parked_max`.
    #[serde(default)]
    pub unreadable_now: u64,
    /// Unreadable records of unknown type that were passed and not kept, because enough
    /// of them are parked.
    #[serde(default)]
    pub unreadable_left_out: u64,
    /// The deepest event emitted; see [`crate::EventRef::depth`].
    #[serde(default)]
    pub emit_depth: u32,
    /// Events that timers have emitted at the tick that is not finished, because of a
    /// fault.
    #[serde(default)]
    pub tick_emitted: u64,
    /// Batches that were folded a second time, and what differed. Not a function of
    /// the log.
    #[serde(default)]
    pub second_folds: SecondFolds,
    /// Emitted events that the log has refused for good and that wait for a person.
    /// Not a function of the log.
    #[serde(default)]
    pub refused_now: u64,
    /// Timers fired.
    pub timers_fired: u64,
    /// Rows deleted because their retention ended.
    pub expired: u64,
    /// Timers set now.
    pub timers_now: u64,
    /// Events emitted, all told, also those of a version that is not active;
    /// numbers their ids.
    pub emitted: u64,
    /// Of them, those put into the outbox since the version is active.
    pub outbox_next: u64,
    /// The highest event time that counts; see [`AheadEvents`].
    pub max_time: Timestamp,
    /// Events too far ahead of their append to move the watermark.
    #[serde(default)]
    pub ahead: AheadEvents,
    /// The watermark; [`Timestamp::MIN`] before the first tick.
    pub watermark: Timestamp,
    /// The oldest point that the change log can be resumed from.
    pub changes_from: ShardPoint,
    /// The bytes in the change log.
    pub changes_bytes: u64,
    /// Retries and drops of parked events so far; each is kept as a
    /// [`DecisionRecord`].
    #[serde(default)]
    pub decisions: u64,
    /// Names the limits under which events were judged; 0 where not known.
    #[serde(default)]
    pub limits: u64,
    /// Whether those limits were changed on the way.
    #[serde(default)]
    pub limits_changed: bool,
    /// Which rebuild began to number the outbox from 0: one that could read the
    /// state before it goes on with its numbers.
    #[serde(default)]
    pub outbox_of: u64,
    /// [`crate::Log::identity`] of the partition that was folded; `None` where it
    /// was not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<String>,
    /// A random number that was drawn when this state began without a
    /// predecessor; part of the feed's epoch. 0 before the first commit.
    #[serde(default)]
    pub born: u64,
    /// [`crate::Log::incarnation_at`] of `next`; 0 if no event was folded, or if
    /// the log cannot tell.
    #[serde(default)]
    pub incarnation: u64,
    /// [`DecisionRecord::digest`] of the last decision; 0 if there was none.
    #[serde(default)]
    pub decided: u64,
    /// As of the last durable commit. Not a function of the log.
    #[serde(default)]
    pub ceiling: Ceiling,
}

/// How far commits without a sync may go before the next durable one. A durable
/// commit stores it, so that after a crash it is known what readers may have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Their next offset is not after this one.
    pub next: Offset,
    /// Nor is their number.
    pub commit: u64,
}

/// Events whose time is further ahead than `engine.ahead_max_s` allows: they are
/// applied like all others, but do not move the watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvents {
    /// How many there were.
    pub count: u64,
    /// The latest of them.
    pub last: Option<AheadEvent>,
    /// Of a log that does not know when it took an event: the events that have
    /// jumped ahead and wait for later ones to confirm them, oldest first.
    pub unconfirmed: Vec<AheadEvent>,
}

/// Batches that were folded a second time, by a fresh instance over the same
/// state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondFolds {
    /// How many.
    pub batches: u64,
    /// How many of them came to something else.
    pub differences: u64,
    /// The last difference.
    pub last: Option<FoldDifference>,
}

/// What differed between two folds of a batch, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldDifference {
    /// The offset of the batch's first event.
    pub offset: u64,
    /// `row in table ...`, `timer`, `emitted event`.
    pub what: String,
    /// Its key.
    pub key: String,
    /// What the first fold wrote; `null` if nothing.
    pub first: Option<String>,
    /// What the second one wrote; `null` if nothing.
    pub second: Option<String>,
}

/// An event that is too far ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadEvent {
    /// Its offset.
    pub offset: Offset,
    /// Its `id`.
    pub id: String,
    /// Its `source`.
    pub source: String,
    /// Its time.
    pub time: Timestamp,
}

impl ShardMeta {
    /// The layout this release writes.
    pub const FORMAT: u32 = 2;
    /// Its key in [`crate::Space::Meta`].
    pub const KEY: &'static [u8] = b"shard";

    /// The record in `bytes`; that of an empty shard if there are
    /// none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(bytes: Option<&[u8]>) -> serde_json::Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), serde_json::from_slice)
    }

    /// Whether readers may have seen a later state than this one, if this is what a
    /// crash left.
    #[must_use]
    pub fn may_be_behind(&self) -> bool {
        self.ceiling.next > self.next || self.ceiling.commit > self.pos
    }

    /// The record in `store`; that of an empty shard if there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the store says.
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

/// What a person decided over parked events. Apart from the log it is the one thing
/// that a shard's state depends on, so it is kept with the state: to fold the log
/// again to the same state, the decisions are taken again at the same places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The shard's position then.
    pub next: Offset,
    /// The watermark then.
    pub watermark: Timestamp,
    /// Whether the events were tried again; dropped if not.
    pub retry: bool,
    /// Whether all parked events were meant.
    pub all: bool,
    /// Those at these offsets.
    pub offsets: Vec<u64>,
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Those of this subject.
    pub subject: Option<String>,
    /// How many were dealt with before it ended.
    pub handled: u64,
    /// The digest of this decision and of all before it.
    pub digest: u64,
}

impl DecisionRecord {
    const FORMAT: u8 = 3;
    /// The most that are kept of a shard; more are counted alone.
    pub const KEPT_MAX: u64 = 100_000;

    /// The key of the `number`th in [`crate::Space::Meta`], from 0.
    #[must_use]
    pub fn key(number: u64) -> Vec<u8> {
        [b"decision/".as_slice(), &number.to_be_bytes()].concat()
    }

    /// The same decision, taken after those whose digest is `before`.
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

    /// The inverse of [`DecisionRecord::encode`]; `None` where the bytes are
    /// damaged or of a later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}

/// An emitted event that is not in the log yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// The offset of the event that caused it; for a timer's, of the event that
    /// set the timer.
    pub cause: Offset,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its subject.
    pub subject: String,
    /// Its tenant.
    pub tenant: String,
    /// Its time.
    pub time: Timestamp,
    /// Its payload, JSON.
    pub data: Vec<u8>,
    /// One more than its cause's depth; see [`crate::EventRef::depth`].
    pub depth: u32,
}

/// What a parked record is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParkedKind {
    /// An event that could not be applied.
    Event,
    /// An event behind a parked one of its subject, not tried yet.
    Waiting,
    /// A timer that could not be fired.
    Timer(Timer),
}

/// A parked event (or timer), whole: the log may delete it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRecord {
    /// What it is.
    pub kind: ParkedKind,
    /// The event's offset; of a timer, the position at which it was due.
    pub offset: Offset,
    /// The event; of a timer, an empty one.
    pub event: Event,
    /// The watermark it met.
    pub watermark: Timestamp,
    /// Why it could not be applied; empty while it waits.
    pub reason: String,
    /// Where in the plugin; may be empty.
    pub backtrace: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl ParkedRecord {
    const FORMAT: u8 = 2;

    /// The event's tenant; of a timer, that in front of U+0000 in its key.
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

    /// The inverse of [`ParkedRecord::encode`]; `None` where the bytes are
    /// damaged or of a later format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&format, body) = bytes.split_first()?;
        (format == Self::FORMAT).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}
