//! Implements the plain Rust computation with which W2 is compared. It reads lines of JSON from a
//! file with `serde_json`, and uses hash maps, and a heap for the ends of sessions. It stores no
//! state on disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;
const GAP_US: i64 = 1_800 * SECOND_US;
const LATENESS_US: i64 = 300 * SECOND_US;

/// The number of events, and the sum of their cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) events: u64,
    pub(crate) cents: i64,
}

/// The number of events that arrived after their window or session had been closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) windows: u64,
    pub(crate) sessions: u64,
}

/// The expected rows of W2's tables. Times are in microseconds.
#[derive(Default)]
pub(crate) struct Tables {
    /// The sums of each hour and group.
    pub(crate) group_hour: HashMap<(i64, String), Sums>,
    /// The end and the sums of each session, by its start and key.
    pub(crate) sessions: HashMap<(i64, String), (i64, Sums)>,
    /// The late events of each group.
    pub(crate) late: HashMap<String, Late>,
}

/// Counts that describe the events of the benchmark.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// The number of events whose time is before the watermark.
    pub(crate) late: u64,
    /// The number of times that the watermark moved.
    pub(crate) ticks: u64,
    /// The number of times that a window or session was due when the watermark moved.
    pub(crate) due_ticks: u64,
}

/// A session that is still open.
#[derive(Clone, Copy)]
struct Session {
    start: i64,
    end: i64,
    sums: Sums,
}

/// The open sessions of a key, the oldest first.
#[derive(Default)]
struct Open {
    sessions: Vec<Session>,
    /// The time of the key's valid entry in the heap. Entries with other times are
    /// ignored.
    next: i64,
}

/// The state of the computation.
pub(crate) struct Computation {
    tick_us: i64,
    newest: i64,
    watermark: i64,
    hours: BTreeMap<i64, HashMap<String, Sums>>,
    open: HashMap<String, Open>,
    ends: BinaryHeap<Reverse<(i64, String)>>,
    pub(crate) tables: Tables,
    pub(crate) counts: Counts,
}

#[derive(Deserialize)]
struct Line<'a> {
    time: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    key: &'a str,
    group: &'a str,
    cents: i64,
}

/// Folds the events in the file `path`, one per line.
pub(crate) fn fold(path: &Path, tick_s: u32) -> Result<Computation> {
    let mut computation = Computation::new(tick_s);
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(computation);
        }
        let event: Line<'_> = serde_json::from_slice(&line)?;
        let time = event.time.parse::<jiff::Timestamp>()?.as_microsecond();
        let Data { key, group, cents } = event.data;
        computation.add(time, key, group, cents);
    }
}

impl Computation {
    fn new(tick_s: u32) -> Self {
        Self {
            tick_us: i64::from(tick_s) * SECOND_US,
            newest: i64::MIN,
            watermark: i64::MIN,
            hours: BTreeMap::new(),
            open: HashMap::new(),
            ends: BinaryHeap::new(),
            tables: Tables::default(),
            counts: Counts::default(),
        }
    }

    fn add(&mut self, time: i64, key: &str, group: &str, cents: i64) {
        self.counts.late += u64::from(time < self.watermark);
        let end = (time.div_euclid(HOUR_US) + 1) * HOUR_US;
        if end > self.watermark {
            let groups = self.hours.entry(end).or_default();
            entry(groups, group).add(cents);
        } else {
            entry(&mut self.tables.late, group).windows += 1;
        }
        if !self.add_to_session(time, key, cents) {
            entry(&mut self.tables.late, group).sessions += 1;
        }
        self.newest = self.newest.max(time);
        let watermark = (self.newest - LATENESS_US).div_euclid(self.tick_us) * self.tick_us;
        if watermark != self.watermark {
            self.watermark = watermark;
            let due = self.close_hours() | self.close_sessions();
            self.counts.ticks += 1;
            self.counts.due_ticks += u64::from(due);
        }
    }

    /// Adds an event to the session of its key. Returns `false` if the event is too
    /// late.
    fn add_to_session(&mut self, time: i64, key: &str, cents: i64) -> bool {
        let mut joined = Session { start: time, end: time + GAP_US, sums: Sums::default() };
        let known = self.open.get_mut(key);
        if joined.end <= self.watermark {
            let holds = |it: &Session| it.start <= time && time < it.end;
            if !known.as_ref().is_some_and(|open| open.sessions.iter().any(holds)) {
                return false;
            }
        }
        joined.sums.add(cents);
        let open = match known {
            Some(open) => open,
            None => {
                let open = Open { sessions: Vec::new(), next: i64::MAX };
                self.open.entry(key.to_owned()).or_insert(open)
            }
        };
        open.sessions.retain(|it| {
            let apart = it.end <= time || it.start >= time + GAP_US;
            if !apart {
                joined.start = joined.start.min(it.start);
                joined.end = joined.end.max(it.end);
                joined.sums.events += it.sums.events;
                joined.sums.cents += it.sums.cents;
            }
            apart
        });
        let index = open.sessions.partition_point(|it| it.start < joined.start);
        open.sessions.insert(index, joined);
        if joined.end < open.next {
            open.next = joined.end;
            self.ends.push(Reverse((joined.end, key.to_owned())));
        }
        true
    }

    /// Closes the hours that end at or before the watermark. Returns whether there were
    /// any.
    fn close_hours(&mut self) -> bool {
        let mut any = false;
        while let Some(hour) = self.hours.first_entry().filter(|it| *it.key() <= self.watermark) {
            let (end, groups) = hour.remove_entry();
            let rows = groups.into_iter().map(|(group, sums)| ((end - HOUR_US, group), sums));
            self.tables.group_hour.extend(rows);
            any = true;
        }
        any
    }

    /// Closes the sessions that end at or before the watermark. Returns whether a key was due. If
    /// the session of a due key was prolonged in the meantime, it is not closed.
    fn close_sessions(&mut self) -> bool {
        let mut any = false;
        while self.ends.peek().is_some_and(|Reverse((end, _))| *end <= self.watermark) {
            let Some(Reverse((end, key))) = self.ends.pop() else { break };
            let Some(open) = self.open.get_mut(&key).filter(|open| open.next == end) else {
                continue;
            };
            any = true;
            let over = open.sessions.partition_point(|it| it.end <= self.watermark);
            for Session { start, end, sums } in open.sessions.drain(..over) {
                self.tables.sessions.insert((start, key.clone()), (end, sums));
            }
            match open.sessions.first() {
                Some(next) => {
                    open.next = next.end;
                    self.ends.push(Reverse((next.end, key)));
                }
                None => drop(self.open.remove(&key)),
            }
        }
        any
    }
}

impl Sums {
    fn add(&mut self, cents: i64) {
        self.events += 1;
        self.cents += cents;
    }
}

/// Returns the value under `key`. The key is copied only if the map does not contain it yet.
fn entry<'a, V: Default>(map: &'a mut HashMap<String, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("it was inserted if it was missing")
}
