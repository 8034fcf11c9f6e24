//! Computes the state that the projection `meter` must have. This model follows the same rules as
//! the engine and the meter, but it is a separate implementation: it processes one event after
//! another and uses plain maps. It has no batches, chunks, commits or instances, and no crashes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use lantern_core::{
    Event, HEARTBEAT_TYPE, KeyRange, Offset, ParkedKind, ParkedRecord, ReadStore, ShardMeta, Space,
    TableId, Timer, Timestamp, UNREADABLE_KIND, UNREADABLE_TYPE,
};

use crate::test_projection::{
    self, AHEAD_S, Kind, LATENESS, OWNED, Policy, READ, RECENT, RETENTION, Reading, SECOND, TOTALS,
    WINDOWS,
};

/// The parked events that an operator chooses to retry or to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All parked events.
    All,
    /// The parked events of one subject of one tenant.
    Subject(String, String),
    /// The parked events at one offset.
    Offset(u64),
}

/// A parked event or timer in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Whether it is an event or a timer.
    pub kind: ParkedKind,
    /// The event's tenant; empty for a timer.
    pub tenant: String,
    /// The event's subject; empty for a timer.
    pub subject: String,
    /// Whether the parked event is a record that cannot be decoded as an event.
    unreadable: bool,
    /// The event's time.
    time: Timestamp,
    reading: Reading,
    /// The number of emitted events in the chain that led to the parked event.
    depth: u32,
    attempts: u32,
}

/// An event that the meter emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Whether the event goes into the log, because its version serves readers.
    pub live: bool,
    /// The offset of the event that caused it, or that set the timer.
    pub cause: u64,
    /// The number of emitted events in the chain that led to this event, this one included.
    pub depth: u32,
    /// The tenant of the event; empty if it has none, like events that timers emit here.
    pub tenant: String,
    /// The subject of the event.
    pub subject: String,
    /// The data of the event.
    pub data: String,
}

/// The model of one shard's state.
#[derive(Clone, Debug)]
pub struct Model {
    kind: Kind,
    /// The greatest depth of emitted events that the host allows.
    depth_max: u32,
    /// The offset of the next event to read.
    pub next: Offset,
    max_time: Timestamp,
    watermark: Timestamp,
    totals: BTreeMap<String, (i64, i64)>,
    owned: BTreeMap<String, i64>,
    windows: BTreeMap<String, usize>,
    recent: BTreeMap<String, (i64, Timestamp)>,
    /// For each key, the time at which the timer is due, and the timer as it was set.
    timers: BTreeMap<String, (Timestamp, Timer)>,
    /// The parked events and timers, by offset and by a number that distinguishes timers.
    pub parked: BTreeMap<(u64, u64), Parked>,
    /// All events that the shard emitted, in order.
    pub emitted: Vec<Emitted>,
    applied: u64,
    late: u64,
    ahead: u64,
    parked_total: u64,
    timers_fired: u64,
    /// Whether the version serves readers, so that its emitted events go into the log.
    live: bool,
    /// The offsets at which the version begins or stops to serve readers.
    switches: VecDeque<(Offset, bool)>,
    /// After a rebuild, the offset from which the version emits events again. It emitted the
    /// earlier ones before the rebuild.
    pub emit_from: Offset,
    /// The number of events that timers at `emit_from` had emitted before the rebuild, if only some
    /// of these timers had fired by then.
    pub tick_sent: Option<u64>,
    /// The same as `tick_sent`, at the moment when the next rebuild replaces these tables.
    pub half_tick: Option<u64>,
    /// How many events the timers of the current tick have emitted.
    in_tick: u64,
    /// Whether an operator's retry of a parked event is running.
    retrying: bool,
    /// The bug that is planted in the model.
    flaw: Option<Flaw>,
    /// Only a planted bug uses this field: the end of the current batch, and the subjects that had
    /// parked events when it started.
    batch: (Offset, BTreeSet<(String, String)>),
}

/// A host's bug, planted in the model instead of the host. If an experiment finds the difference
/// between a correct host and the model with this bug, it also finds the difference between a host
/// with this bug and the correct model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The model decides which subjects are parked only at the start of each batch of this many
    /// events, and not at each event.
    ParkedAsOfBatch(u64),
    /// An unreadable record also parks the subject that its key names.
    UnreadableBlocks,
    /// A parked subject of one tenant counts as parked for all tenants.
    SubjectOfAllTenants,
    /// An event moves the watermark even if its time is too far ahead.
    AheadMoves,
    /// Projections may cause each other's events without a limit.
    EndlessLoop,
}

impl Model {
    /// Creates the model of a state before the first event.
    #[must_use]
    pub fn new(kind: Kind, depth_max: u32) -> Self {
        Self {
            kind,
            depth_max,
            next: Offset(0),
            max_time: Timestamp::MIN,
            watermark: Timestamp::MIN,
            totals: BTreeMap::new(),
            owned: BTreeMap::new(),
            windows: BTreeMap::new(),
            recent: BTreeMap::new(),
            timers: BTreeMap::new(),
            parked: BTreeMap::new(),
            emitted: Vec::new(),
            applied: 0,
            late: 0,
            ahead: 0,
            parked_total: 0,
            timers_fired: 0,
            live: false,
            switches: VecDeque::new(),
            emit_from: Offset(0),
            tick_sent: None,
            half_tick: None,
            in_tick: 0,
            retrying: false,
            flaw: None,
            batch: (Offset(0), BTreeSet::new()),
        }
    }

    /// Returns the same model with a planted bug.
    #[must_use]
    pub fn with(self, flaw: Option<Flaw>) -> Self {
        Self { flaw, ..self }
    }

    /// Folds `events`, which are all events of a partition from its start, up to `next`.
    ///
    /// # Errors
    /// Fails if the log ends before `next`, or the model is already past it.
    pub fn advance(&mut self, events: &[Event], next: Offset) -> Result<()> {
        ensure!(self.next <= next, "the position went back from {} to {next}", self.next);
        while self.next < next {
            let index = usize::try_from(self.next.0)?;
            let event = events.get(index).context("the position is past the log's end")?;
            self.step(event);
        }
        Ok(())
    }

    /// From the offset `from` on, the version serves readers or does not.
    pub fn serve(&mut self, from: Offset, serves: bool) {
        self.switches.push_back((from, serves));
    }

    fn switch(&mut self) {
        while let Some((_, serves)) = self.switches.pop_front_if(|(from, _)| *from <= self.next) {
            self.live = serves;
        }
    }

    fn step(&mut self, event: &Event) {
        self.switch();
        let offset = self.next;
        if let Some(Flaw::ParkedAsOfBatch(events)) = self.flaw
            && self.batch.0 <= offset
        {
            let parked = self.parked.values().filter(|p| !timer(&p.kind));
            let parked = parked.map(|p| (p.tenant.clone(), p.subject.clone())).collect();
            self.batch = (Offset(offset.0 + events), parked);
        }
        if event.kind == UNREADABLE_TYPE && is_subscribed(event) {
            // The record has no subject, so only the record itself is parked.
            let mut record = parked(ParkedKind::Event, event, Reading::Poison, 0);
            if self.flaw == Some(Flaw::UnreadableBlocks) {
                (record.tenant, record.subject) = ("a".into(), "s0".into());
            }
            self.park(offset, 0, record);
        } else if event.kind == READ {
            let reading = Reading::of(&event.data);
            let waits = self.kind.on_failure == Policy::ParkSubject && self.blocked(event);
            let one = parked(ParkedKind::Waiting, event, reading, 0);
            if waits {
                self.park(offset, 0, one);
            } else if self.fits(&one) {
                self.apply(offset, &one, bounded(event));
                self.applied += 1;
                self.late += u64::from(event.time < self.watermark);
            } else {
                self.park(offset, 0, parked(ParkedKind::Event, event, reading, 1));
            }
        }
        self.next = offset.next();
        if event.kind == READ || event.kind == HEARTBEAT_TYPE {
            self.take_time(event);
            self.tick();
        }
    }

    /// Advances the log's event time, unless the event is too far ahead of its append time.
    /// A heartbeat advances it at most to the heartbeat's append time.
    fn take_time(&mut self, event: &Event) {
        let Some(appended) = appended(event) else {
            self.max_time = self.max_time.max(event.time);
            return;
        };
        let latest = Timestamp(appended.0 + AHEAD_S.cast_signed() * SECOND);
        let time = match event.kind == HEARTBEAT_TYPE {
            true => event.time.min(appended),
            false => event.time,
        };
        if time > latest && self.flaw != Some(Flaw::AheadMoves) {
            self.ahead += 1;
        } else {
            self.max_time = self.max_time.max(time);
        }
    }

    /// Returns how many events of a tenant's subject were applied.
    fn count(&self, tenant: &str, subject: &str) -> i64 {
        self.totals.get(&test_projection::who(tenant, subject)).map_or(0, |(n, _)| *n)
    }

    /// Returns whether an event must wait because an earlier event of the same tenant and subject
    /// is parked.
    fn blocked(&self, event: &Event) -> bool {
        let any_tenant = self.flaw == Some(Flaw::SubjectOfAllTenants);
        let same = |tenant: &str, subject: &str| {
            subject == event.subject && (any_tenant || tenant == event.tenant)
        };
        if event.subject.is_empty() {
            return false;
        }
        match self.flaw {
            Some(Flaw::ParkedAsOfBatch(_)) => self.batch.1.iter().any(|(t, s)| same(t, s)),
            _ => self.parked.values().any(|p| same(&p.tenant, &p.subject) && !timer(&p.kind)),
        }
    }

    fn park(&mut self, offset: Offset, number: u64, what: Parked) {
        self.parked.insert((offset.0, number), what);
        self.parked_total += 1;
    }

    /// Returns whether the plugin can apply an event now.
    fn fits(&self, event: &Parked) -> bool {
        let Parked { tenant, subject, reading, depth, unreadable, .. } = event;
        let emits_too_deep = reading.emitted().is_some() && self.is_too_deep(*depth);
        !unreadable && !emits_too_deep && reading.fits(self.kind, self.count(tenant, subject))
    }

    /// Returns whether the host refuses events that an event or timer of this depth emits.
    fn is_too_deep(&self, depth: u32) -> bool {
        depth + 1 > self.depth_max && self.flaw != Some(Flaw::EndlessLoop)
    }

    /// Applies `event`. If there is no watermark yet, it is computed from `first`.
    fn apply(&mut self, offset: Offset, event: &Parked, first: Timestamp) {
        let Parked { tenant, subject, time, reading, depth, .. } = event;
        let (time, reading, depth) = (*time, *reading, *depth);
        let who = test_projection::who(tenant, subject);
        let now = match self.watermark {
            Timestamp::MIN => mark(first),
            watermark => watermark,
        };
        let (n, sum) = self.totals.get(&who).copied().unwrap_or_default();
        let (n, sum) = (n + 1, sum + test_projection::value_of(self.kind, reading));
        self.totals.insert(who.clone(), (n, sum));
        let owner = test_projection::owner(self.kind, tenant, reading);
        if !owner.is_empty() {
            self.owned.insert(format!("{owner}\0{subject}"), n);
        }
        if sum % 7 == 0 {
            self.recent.remove(&who);
        } else {
            self.recent.insert(who.clone(), (sum, Timestamp(now.0 + RETENTION)));
        }
        let (end, key) = test_projection::window(&who, time, reading);
        *self.windows.entry(key.clone()).or_default() += 1;
        if sum % 11 == 0 {
            self.timers.remove(&key);
        } else if self.timers.get(&key).is_none_or(|(_, timer)| timer.at != end) {
            let due = end.max(self.watermark.saturating_add(1));
            self.timers.insert(key.clone(), (due, Timer { at: end, key, offset, depth }));
        }
        if let Some(data) = reading.emitted() {
            let live = self.live && (self.retrying || offset >= self.emit_from);
            self.emitted.push(Emitted {
                live,
                cause: offset.0,
                depth: depth + 1,
                tenant: tenant.clone(),
                subject: subject.clone(),
                data: data.to_owned(),
            });
        }
    }

    /// Fires the timers that are due, and deletes the rows that have expired.
    fn tick(&mut self) {
        let target = mark(self.max_time);
        if target <= self.watermark {
            return;
        }
        let due = self.timers.iter().filter(|(_, (due, _))| *due <= target);
        let mut due: Vec<_> = due.map(|(_, timer)| timer.clone()).collect();
        self.in_tick = 0;
        due.sort_by(|(a_due, a), (b_due, b)| (a_due, &a.key).cmp(&(b_due, &b.key)));
        for (_, timer) in due {
            self.timers.remove(&timer.key);
            self.timers_fired += 1;
            if self.fires(&timer) {
                self.close(&timer);
            } else {
                let number = self.timers_fired;
                let kind = ParkedKind::Timer(timer);
                let what = parked(kind, &Event::default(), Reading::Value(0), 1);
                self.park(self.next, number, what);
            }
        }
        self.recent.retain(|_, (_, until)| *until > target);
        self.watermark = target;
    }

    fn fires(&self, timer: &Timer) -> bool {
        (self.kind.mended || !timer.key.ends_with('!')) && !self.is_too_deep(timer.depth)
    }

    fn close(&mut self, Timer { key, offset, depth, .. }: &Timer) {
        let count = self.windows.remove(key).unwrap_or_default();
        let data = count.to_string();
        let rest =
            self.next == self.emit_from && self.tick_sent.is_some_and(|sent| self.in_tick >= sent);
        let live = self.live && (self.retrying || self.next > self.emit_from || rest);
        self.in_tick += 1;
        let (cause, depth, subject) = (offset.0, depth + 1, key.clone());
        self.emitted.push(Emitted { live, cause, depth, tenant: String::new(), subject, data });
    }

    /// Retries the parked events of `choice`. Returns how many were applied.
    pub fn retry(&mut self, choice: &Choice) -> u64 {
        self.switch();
        let mut stuck = BTreeSet::new();
        let mut done = 0;
        let all: Vec<_> = self.parked.keys().copied().collect();
        for key in all {
            let what = self.parked[&key].clone();
            let ordered = self.kind.on_failure == Policy::ParkSubject
                && !timer(&what.kind)
                && !what.subject.is_empty();
            let of = (what.tenant.clone(), what.subject.clone());
            let chosen = chosen(choice, key.0, &what);
            let waits = ordered && stuck.contains(&of);
            if chosen && !waits && self.retry_one(Offset(key.0), &what) {
                self.parked.remove(&key);
                done += 1;
                continue;
            }
            if chosen && !waits {
                let held = self.parked.get_mut(&key).expect("just read");
                held.attempts += 1;
                if held.kind == ParkedKind::Waiting {
                    held.kind = ParkedKind::Event;
                }
            }
            if ordered {
                stuck.insert(of);
            }
        }
        done
    }

    fn retry_one(&mut self, offset: Offset, what: &Parked) -> bool {
        if let ParkedKind::Timer(timer) = &what.kind {
            let fires = self.fires(timer);
            if fires {
                self.retrying = true;
                self.close(timer);
                self.retrying = false;
            }
            return fires;
        }
        if !self.fits(what) {
            return false;
        }
        self.retrying = true;
        self.apply(offset, what, what.time);
        self.retrying = false;
        self.applied += 1;
        true
    }

    /// Drops the parked events of `choice`. Returns how many there were.
    pub fn discard(&mut self, choice: &Choice) -> u64 {
        let before = self.parked.len();
        self.parked.retain(|key, what| !chosen(choice, key.0, what));
        (before - self.parked.len()) as u64
    }

    /// Returns whether a state with this record is in the middle of a tick, with some timers fired
    /// and others not. The model has no such states.
    #[must_use]
    pub fn in_between(meta: &ShardMeta) -> bool {
        mark(meta.max_time) > meta.watermark
    }

    /// Compares the model with the contents of `store`.
    ///
    /// # Errors
    /// The error describes the first difference.
    pub fn compare(&self, store: &dyn ReadStore, meta: &ShardMeta) -> Result<()> {
        let ours = [
            ("applied", self.applied, meta.applied),
            ("late", self.late, meta.late),
            ("ahead", self.ahead, meta.ahead.count),
            ("parked_total", self.parked_total, meta.parked_total),
            ("parked_now", self.parked.len() as u64, meta.parked_now),
            ("timers_fired", self.timers_fired, meta.timers_fired),
            ("timers_now", self.timers.len() as u64, meta.timers_now),
            ("emitted", self.emitted.len() as u64, meta.emitted),
        ];
        for (name, expected, found) in ours {
            ensure!(expected == found, "{name} is {found}, and should be {expected}");
        }
        ensure!(self.max_time == meta.max_time, "max_time is {}", meta.max_time);
        ensure!(self.watermark == meta.watermark, "the watermark is {}", meta.watermark);
        let totals =
            self.totals.iter().map(|(k, (n, sum))| (k.clone(), test_projection::total(*n, *sum)));
        same("totals", totals, rows(store, TOTALS)?)?;
        let owned = self.owned.iter().map(|(k, n)| (k.clone(), test_projection::owned(*n)));
        same("owned", owned, rows(store, OWNED)?)?;
        let windows = self.windows.iter().map(|(k, n)| (k.clone(), "x".repeat(*n)));
        same("windows", windows, rows(store, WINDOWS)?)?;
        let recent = self.recent.iter().map(|(k, (v, _))| (k.clone(), test_projection::recent(*v)));
        same("recent", recent, rows(store, RECENT)?)?;
        let timers =
            self.timers.iter().map(|(k, (due, timer))| (k.clone(), describe_timer(*due, timer)));
        same("timers", timers, stored_timers(store)?)?;
        let expected = self.parked.iter().map(|((offset, number), what)| {
            (
                format!("{offset:08}/{number}"),
                describe_parked(&what.kind, &what.tenant, &what.subject, what.attempts),
            )
        });
        same("parked", expected, stored_parked(store)?)
    }
}

/// Returns the event's time, limited to the allowed distance ahead of its append time.
fn bounded(event: &Event) -> Timestamp {
    let latest = |at: Timestamp| Timestamp(at.0 + AHEAD_S.cast_signed() * SECOND);
    appended(event).map_or(event.time, |at| event.time.min(latest(at)))
}

/// Returns the time at which the log accepted an event, if the experiment recorded it.
fn appended(event: &Event) -> Option<Timestamp> {
    let members: serde_json::Value = serde_json::from_str(&event.extensions).ok()?;
    members[test_projection::APPENDED].as_i64().map(Timestamp)
}

/// Returns whether the projection `meter` must park this unreadable record. It must if the record's
/// type is unknown, or if `meter` subscribes to this type.
fn is_subscribed(record: &Event) -> bool {
    let members: serde_json::Value = serde_json::from_str(&record.extensions).unwrap_or_default();
    members[UNREADABLE_KIND].as_str().is_none_or(|kind| kind.starts_with("m."))
}

/// Computes the watermark that follows from the highest event time.
fn mark(max_time: Timestamp) -> Timestamp {
    if max_time == Timestamp::MIN {
        return max_time;
    }
    Timestamp((max_time.0 - LATENESS).div_euclid(SECOND) * SECOND)
}

fn timer(kind: &ParkedKind) -> bool {
    matches!(kind, ParkedKind::Timer(..))
}

fn parked(kind: ParkedKind, event: &Event, reading: Reading, attempts: u32) -> Parked {
    Parked {
        kind,
        tenant: event.tenant.clone(),
        subject: event.subject.clone(),
        unreadable: event.kind == UNREADABLE_TYPE,
        time: event.time,
        reading,
        depth: event.as_ref().depth(),
        attempts,
    }
}

fn chosen(choice: &Choice, offset: u64, what: &Parked) -> bool {
    match choice {
        Choice::All => true,
        Choice::Subject(tenant, subject) => what.tenant == *tenant && what.subject == *subject,
        Choice::Offset(chosen) => offset == *chosen,
    }
}

fn describe_parked(kind: &ParkedKind, tenant: &str, subject: &str, attempts: u32) -> String {
    format!("{kind:?} of `{tenant}/{subject}` tried {attempts} times")
}

fn describe_timer(due: Timestamp, timer: &Timer) -> String {
    let Timer { at, offset, depth, .. } = timer;
    format!("set by offset {offset} of depth {depth} for {}, due at {}", at.0, due.0)
}

fn rows(store: &dyn ReadStore, table: TableId) -> Result<BTreeMap<String, String>> {
    let rows = store.scan(Space::Table(table), &KeyRange::all(), usize::MAX, false)?;
    rows.into_iter().map(|(k, v)| Ok((String::from_utf8(k)?, String::from_utf8(v)?))).collect()
}

fn stored_timers(store: &dyn ReadStore) -> Result<BTreeMap<String, String>> {
    let by_key = store.scan(Space::TimersByKey, &KeyRange::all(), usize::MAX, false)?;
    let by_time = store.scan(Space::TimersByTime, &KeyRange::all(), usize::MAX, false)?;
    ensure!(by_key.len() == by_time.len(), "timers by key and by time differ in number");
    let mut timers = BTreeMap::new();
    for (key, due) in by_key {
        let set = by_time.iter().find(|(k, _)| *k == [due.as_slice(), &key].concat());
        let (_, set) = set.context("a timer by key is missing by time")?;
        let due = u64::from_be_bytes(due.as_slice().try_into()?) ^ (1 << 63);
        let (at, offset) = set.split_first_chunk::<8>().context("a timer is cut short")?;
        let (offset, depth) = offset.split_first_chunk::<8>().context("a timer is cut short")?;
        let key = String::from_utf8(key)?;
        let timer = Timer {
            at: Timestamp(i64::from_be_bytes(*at)),
            key: key.clone(),
            offset: Offset(u64::from_be_bytes(*offset)),
            depth: u32::from_be_bytes(depth.try_into()?),
        };
        timers.insert(key, describe_timer(Timestamp(due.cast_signed()), &timer));
    }
    Ok(timers)
}

fn stored_parked(store: &dyn ReadStore) -> Result<BTreeMap<String, String>> {
    let mut parked = BTreeMap::new();
    for (key, value) in store.scan(Space::Parked, &KeyRange::all(), usize::MAX, false)? {
        let record = ParkedRecord::decode(&value).context("a parked record cannot be read")?;
        let number = u64::from_be_bytes(key[8..].try_into()?);
        let event = &record.event;
        let description =
            describe_parked(&record.kind, &event.tenant, &event.subject, record.attempts);
        parked.insert(format!("{:08}/{number}", record.offset.0), description);
    }
    Ok(parked)
}

fn same(
    what: &str,
    expected: impl Iterator<Item = (String, String)>,
    found: BTreeMap<String, String>,
) -> Result<()> {
    let expected: BTreeMap<_, _> = expected.collect();
    if expected == found {
        return Ok(());
    }
    for (key, value) in &expected {
        match found.get(key) {
            Some(other) if other == value => (),
            other => bail!("{what}: `{key}` is {other:?}, and should be {value:?}"),
        }
    }
    let extra = found.keys().find(|key| !expected.contains_key(*key));
    bail!("{what}: {extra:?} should not be there")
}

/// Returns the shard's record about itself (its next offset, watermark and counters), as its state
/// contains it.
///
/// # Errors
/// Fails if it cannot be read.
pub fn meta_of(store: &dyn ReadStore) -> Result<ShardMeta> {
    Ok(ShardMeta::of(store)?)
}
