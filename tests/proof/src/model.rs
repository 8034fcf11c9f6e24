//! What the meter's state must be: the same rules as the engine's and the
//! meter's, written once more, event by event and with plain maps, from the
//! contract. Knows nothing of batches, chunks, commits, instances or crashes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use lantern_core::{
    Event, HEARTBEAT_TYPE, KeyRange, Offset, ParkedKind, ParkedRecord, ReadStore, ShardMeta, Space,
    TableId, Timer, Timestamp,
};

use crate::meter::{
    self, Kind, LATENESS, Policy, READ, RECENT, RETENTION, Reading, SECOND, TOTALS, WINDOWS,
};

/// What an operator chooses of the parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All.
    All,
    /// Those of a subject.
    Subject(String),
    /// Those at an offset.
    Offset(u64),
}

/// A parked event or timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// What it is.
    pub kind: ParkedKind,
    /// The event's subject; empty for a timer.
    pub subject: String,
    /// The event's time.
    time: Timestamp,
    reading: Reading,
    attempts: u32,
}

/// An event that the meter emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Whether it goes into the log.
    pub live: bool,
    /// Its subject.
    pub subject: String,
    /// Its data.
    pub data: String,
}

/// One shard's state.
#[derive(Clone, Debug)]
pub struct Model {
    kind: Kind,
    /// The next offset to read.
    pub next: Offset,
    max_time: Timestamp,
    watermark: Timestamp,
    totals: BTreeMap<String, (i64, i64)>,
    windows: BTreeMap<String, usize>,
    recent: BTreeMap<String, (i64, Timestamp)>,
    /// When each timer is due, and as it was set, by key.
    timers: BTreeMap<String, (Timestamp, Timer)>,
    /// By offset and a number that tells timers apart.
    pub parked: BTreeMap<(u64, u64), Parked>,
    /// All it emitted, in order.
    pub emitted: Vec<Emitted>,
    applied: u64,
    late: u64,
    parked_total: u64,
    timers_fired: u64,
    /// Whether the version serves readers, so that what it emits counts.
    live: bool,
    /// From which positions on it will, or will not.
    switches: VecDeque<(Offset, bool)>,
    /// Where after a rebuild it begins to emit what it did not before.
    pub emit_from: Offset,
    /// A person has it retry a parked event.
    retrying: bool,
}

impl Model {
    /// The state before the first event.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            next: Offset(0),
            max_time: Timestamp::MIN,
            watermark: Timestamp::MIN,
            totals: BTreeMap::new(),
            windows: BTreeMap::new(),
            recent: BTreeMap::new(),
            timers: BTreeMap::new(),
            parked: BTreeMap::new(),
            emitted: Vec::new(),
            applied: 0,
            late: 0,
            parked_total: 0,
            timers_fired: 0,
            live: false,
            switches: VecDeque::new(),
            emit_from: Offset(0),
            retrying: false,
        }
    }

    /// Folds `events` (a partition's, from its start, without gaps) up to `next`.
    ///
    /// # Errors
    /// Where the log ends before, or the model is past that.
    pub fn advance(&mut self, events: &[Event], next: Offset) -> Result<()> {
        ensure!(self.next <= next, "the position went back from {} to {next}", self.next);
        while self.next < next {
            let place = usize::try_from(self.next.0)?;
            let event = events.get(place).context("the position is past the log's end")?;
            self.step(event);
        }
        Ok(())
    }

    /// From position `from` on, the version serves readers or not.
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
        if event.kind == READ {
            let reading = Reading::of(&event.data);
            let waits = self.kind.on_failure == Policy::ParkSubject && self.blocked(&event.subject);
            if waits {
                self.park(offset, 0, parked(ParkedKind::Waiting, event, reading, 0));
            } else if reading.fits(self.kind, self.count(&event.subject)) {
                self.apply(offset, &event.subject, event.time, reading);
                self.applied += 1;
                self.late += u64::from(event.time < self.watermark);
            } else {
                self.park(offset, 0, parked(ParkedKind::Event, event, reading, 1));
            }
        }
        self.next = offset.next();
        if event.kind == READ || event.kind == HEARTBEAT_TYPE {
            self.max_time = self.max_time.max(event.time);
            self.tick();
        }
    }

    /// How many events of `subject` were applied.
    fn count(&self, subject: &str) -> i64 {
        self.totals.get(subject).map_or(0, |(n, _)| *n)
    }

    /// Whether events of `subject` must wait.
    fn blocked(&self, subject: &str) -> bool {
        !subject.is_empty() && self.parked.values().any(|p| p.subject == subject && !timer(&p.kind))
    }

    fn park(&mut self, offset: Offset, number: u64, what: Parked) {
        self.parked.insert((offset.0, number), what);
        self.parked_total += 1;
    }

    fn apply(&mut self, offset: Offset, subject: &str, time: Timestamp, reading: Reading) {
        let now = match self.watermark {
            Timestamp::MIN => mark(time),
            watermark => watermark,
        };
        let (n, sum) = self.totals.get(subject).copied().unwrap_or_default();
        let (n, sum) = (n + 1, sum + meter::value_of(self.kind, reading));
        self.totals.insert(subject.into(), (n, sum));
        if sum % 7 == 0 {
            self.recent.remove(subject);
        } else {
            self.recent.insert(subject.into(), (sum, Timestamp(now.0 + RETENTION)));
        }
        let (end, key) = meter::window(subject, time, reading);
        *self.windows.entry(key.clone()).or_default() += 1;
        if sum % 11 == 0 {
            self.timers.remove(&key);
        } else if self.timers.get(&key).is_none_or(|(_, timer)| timer.at != end) {
            let due = end.max(Timestamp(self.watermark.0.saturating_add(1)));
            self.timers.insert(key.clone(), (due, Timer { at: end, key, offset, depth: 0 }));
        }
    }

    /// Fires what is due and lets go of what has had its time.
    fn tick(&mut self) {
        let target = mark(self.max_time);
        if target <= self.watermark {
            return;
        }
        let due = self.timers.iter().filter(|(_, (due, _))| *due <= target);
        let mut due: Vec<_> = due.map(|(_, timer)| timer.clone()).collect();
        due.sort_by(|(a_due, a), (b_due, b)| (a_due, &a.key).cmp(&(b_due, &b.key)));
        for (_, timer) in due {
            self.timers.remove(&timer.key);
            self.timers_fired += 1;
            if self.fires(&timer.key) {
                self.close(&timer.key);
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

    fn fires(&self, key: &str) -> bool {
        self.kind.mended || !key.ends_with('!')
    }

    fn close(&mut self, key: &str) {
        let count = self.windows.remove(key).unwrap_or_default();
        let data = count.to_string();
        let live = self.live && (self.retrying || self.next > self.emit_from);
        self.emitted.push(Emitted { live, subject: key.into(), data });
    }

    /// Retries what `choice` names; says how many were applied.
    pub fn retry(&mut self, choice: &Choice) -> u64 {
        self.switch();
        let mut stuck = BTreeSet::new();
        let mut done = 0;
        let all: Vec<_> = self.parked.keys().copied().collect();
        for place in all {
            let what = self.parked[&place].clone();
            let ordered = self.kind.on_failure == Policy::ParkSubject
                && !timer(&what.kind)
                && !what.subject.is_empty();
            let chosen = chosen(choice, place.0, &what);
            let waits = ordered && stuck.contains(&what.subject);
            if chosen && !waits && self.retry_one(Offset(place.0), &what) {
                self.parked.remove(&place);
                done += 1;
                continue;
            }
            if chosen && !waits {
                let held = self.parked.get_mut(&place).expect("just read");
                held.attempts += 1;
                if held.kind == ParkedKind::Waiting {
                    held.kind = ParkedKind::Event;
                }
            }
            if ordered {
                stuck.insert(what.subject);
            }
        }
        done
    }

    fn retry_one(&mut self, offset: Offset, what: &Parked) -> bool {
        if let ParkedKind::Timer(Timer { key, .. }) = &what.kind {
            let fires = self.fires(key);
            if fires {
                self.retrying = true;
                self.close(key);
                self.retrying = false;
            }
            return fires;
        }
        if !what.reading.fits(self.kind, self.count(&what.subject)) {
            return false;
        }
        self.apply(offset, &what.subject, what.time, what.reading);
        self.applied += 1;
        true
    }

    /// Lets go of what `choice` names; says how many there were.
    pub fn discard(&mut self, choice: &Choice) -> u64 {
        let before = self.parked.len();
        self.parked.retain(|place, what| !chosen(choice, place.0, what));
        (before - self.parked.len()) as u64
    }

    /// Whether a state with this record has a tick to do before it is one of
    /// the model's.
    #[must_use]
    pub fn in_between(meta: &ShardMeta) -> bool {
        mark(meta.max_time) > meta.watermark
    }

    /// Compares with what `store` holds.
    ///
    /// # Errors
    /// What differs first.
    pub fn compare(&self, store: &dyn ReadStore, meta: &ShardMeta) -> Result<()> {
        let ours = [
            ("applied", self.applied, meta.applied),
            ("late", self.late, meta.late),
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
        let totals = self.totals.iter().map(|(k, (n, sum))| (k.clone(), meter::total(*n, *sum)));
        same("totals", totals, rows(store, TOTALS)?)?;
        let windows = self.windows.iter().map(|(k, n)| (k.clone(), "x".repeat(*n)));
        same("windows", windows, rows(store, WINDOWS)?)?;
        let recent = self.recent.iter().map(|(k, (v, _))| (k.clone(), meter::recent(*v)));
        same("recent", recent, rows(store, RECENT)?)?;
        let timers =
            self.timers.iter().map(|(k, (due, timer))| (k.clone(), told_timer(*due, timer)));
        same("timers", timers, stored_timers(store)?)?;
        let expected = self.parked.iter().map(|((offset, number), what)| {
            (format!("{offset:08}/{number}"), told(&what.kind, &what.subject, what.attempts))
        });
        same("parked", expected, stored_parked(store)?)
    }
}

/// The watermark that the highest time makes.
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
    Parked { kind, subject: event.subject.clone(), time: event.time, reading, attempts }
}

fn chosen(choice: &Choice, offset: u64, what: &Parked) -> bool {
    match choice {
        Choice::All => true,
        Choice::Subject(subject) => what.subject == *subject,
        Choice::Offset(chosen) => offset == *chosen,
    }
}

fn told(kind: &ParkedKind, subject: &str, attempts: u32) -> String {
    format!("{kind:?} of `{subject}` tried {attempts} times")
}

fn told_timer(due: Timestamp, timer: &Timer) -> String {
    format!("set by offset {} for {}, due at {}", timer.offset, timer.at.0, due.0)
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
        timers.insert(key, told_timer(Timestamp(due.cast_signed()), &timer));
    }
    Ok(timers)
}

fn stored_parked(store: &dyn ReadStore) -> Result<BTreeMap<String, String>> {
    let mut parked = BTreeMap::new();
    for (key, value) in store.scan(Space::Parked, &KeyRange::all(), usize::MAX, false)? {
        let record = ParkedRecord::decode(&value).context("a parked record cannot be read")?;
        let number = u64::from_be_bytes(key[8..].try_into()?);
        let told = told(&record.kind, &record.event.subject, record.attempts);
        parked.insert(format!("{:08}/{number}", record.offset.0), told);
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

/// What a shard's file says of it.
///
/// # Errors
/// Where it cannot be read.
pub fn meta_of(store: &dyn ReadStore) -> Result<ShardMeta> {
    Ok(ShardMeta::of(store)?)
}
