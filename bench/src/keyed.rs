//! Generates events of type `key.hit`, each with a key, for the guest `keyed`, and logs of
//! such events.
//!
//! Event `i` is a pure function of the options and `i`. The first events have each key once, in no
//! particular order. So the table has all its rows before the measured events.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::Result;
use lantern_core::{CloseLog as _, EventRef, Events, Log as _, Timestamp};
use lantern_log::{EmbeddedLog, LogConfig};

/// The number of events that one append writes.
const APPEND_EVENTS: u64 = 10_000;
/// The number of appends that are in progress at the same time.
const APPENDS: usize = 4;
/// The step from one event's key number to the next. It has no common factor with a number
/// of keys whose only prime factors are 2 and 5, nor with most other numbers, so every key
/// occurs.
const STRIDE: u64 = 7_368_787;
/// The time between two successive events, in microseconds of event time.
const STEP_US: i64 = 4_320;
/// The time of the first event.
const FIRST: Timestamp = Timestamp(1_767_225_600_000_000); // 2026-01-01T00:00:00Z
/// Filler text in the data, so that an event has 212 bytes on the wire, like those of
/// W1.
const FILLER: &str = "abcdefghijklmno";

/// The options that determine the events of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyedLog {
    /// The number of different keys that the events have.
    pub(crate) keys: u64,
    /// Whether the log begins with one event of each key.
    pub(crate) filled: bool,
    /// The number of events after those with which the log begins.
    pub(crate) events: u64,
    /// Whether some keys have many more events than others: the n-th most frequent key has about
    /// 1/n of the events of the most frequent one. Otherwise all keys have equally many events.
    pub(crate) skewed: bool,
    pub(crate) partitions: u32,
}

impl KeyedLog {
    /// Returns the number of events with which the log begins, before the measured ones.
    pub(crate) fn fill(&self) -> u64 {
        if self.filled { self.keys } else { 0 }
    }

    /// Returns the total number of events in the log.
    pub(crate) fn total(&self) -> u64 {
        self.fill() + self.events
    }

    /// Computes the key of event `index`.
    pub(crate) fn key(&self, index: u64) -> u64 {
        if index < self.fill() {
            return (u128::from(index) * u128::from(STRIDE) % u128::from(self.keys)) as u64;
        }
        let draw = mix(index);
        if self.skewed {
            // The logarithm of the key's number is uniformly distributed.
            let share = (draw >> 11) as f64 / (1_u64 << 53) as f64;
            let key = (self.keys as f64).powf(share) as u64;
            return key.saturating_sub(1).min(self.keys - 1);
        }
        draw % self.keys
    }

    /// Computes the time of event `index`. Each event is a little later than the previous one.
    pub(crate) fn time(index: u64) -> Timestamp {
        let after = i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(STEP_US);
        Timestamp(FIRST.0.saturating_add(after))
    }

    /// Adds the events in `range` to `events`.
    pub(crate) fn fill_events(
        &self,
        range: std::ops::Range<u64>,
        events: &mut Events,
    ) -> Result<()> {
        let (mut id, mut subject, mut data) = (String::new(), String::new(), Vec::new());
        for index in range {
            use std::fmt::Write as _;
            let key = self.key(index);
            id.clear();
            write!(id, "k-{index}")?;
            subject.clear();
            write!(subject, "k{key:08}")?;
            data.clear();
            let cents = mix(index ^ 1) % 10_000;
            write!(data, r#"{{"key":"k{key:08}","note":"{FILLER}","cents":{cents}}}"#)?;
            anyhow::ensure!(
                events.push(&EventRef {
                    id: &id,
                    source: "keyed",
                    kind: "key.hit",
                    subject: &subject,
                    time: Self::time(index),
                    tenant: "t1",
                    data: &data,
                    ..EventRef::default()
                }),
                "there is one type"
            );
        }
        Ok(())
    }

    /// Formats the events in `range` as lines of CloudEvents in structured mode.
    pub(crate) fn lines(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let mut events = Events::new();
        self.fill_events(range, &mut events)?;
        let mut lines = Vec::new();
        for event in events.iter() {
            lantern_cloudevents::write_event(&event, &mut lines);
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// Returns the log's file in `dir`, and creates it if it does not exist.
    pub(crate) fn prepare(&self, dir: &Path) -> Result<PathBuf> {
        let Self { keys, filled, events, skewed, partitions } = self;
        let name = format!("keyed-{keys}-{filled}-{events}-{skewed}-{partitions}");
        let (path, done) = (dir.join(format!("{name}.redb")), dir.join(format!("{name}.done")));
        if done.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(dir)?;
        std::fs::remove_file(&path).ok();
        let started = Instant::now();
        let config = LogConfig { partitions: self.partitions, ..LogConfig::default() };
        let log = EmbeddedLog::open(&path, config)?;
        let (send, appended) = mpsc::channel();
        let mut under_way = 0;
        for first in (0..self.total()).step_by(usize::try_from(APPEND_EVENTS)?) {
            let mut events = Events::new();
            self.fill_events(first..(first + APPEND_EVENTS).min(self.total()), &mut events)?;
            let send = send.clone();
            log.append(events, Box::new(move |outcome| drop(send.send(outcome))));
            under_way += 1;
            if under_way == APPENDS {
                appended.recv()??;
                under_way -= 1;
            }
            if first % 1_000_000 == 0 {
                eprint!("\rpreparing {} million of {name}", first / 1_000_000);
                std::io::stderr().flush()?;
            }
        }
        for _ in 0..under_way {
            appended.recv()??;
        }
        log.close();
        eprintln!("\r{} events prepared in {:.1?}: {name}", self.total(), started.elapsed());
        std::fs::File::create(done)?;
        Ok(path)
    }
}

/// Mixes the bits of `n`, with the last step of the random generator SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_first_events_have_each_key_once() {
        for keys in [1, 1_000, 10_000] {
            let log = KeyedLog { keys, filled: true, events: 10, skewed: false, partitions: 1 };
            let seen: HashSet<_> = (0..keys).map(|index| log.key(index)).collect();
            assert_eq!(seen.len() as u64, keys);
            assert!(seen.iter().all(|key| *key < keys));
        }
    }

    #[test]
    fn a_skewed_log_has_busy_keys() {
        let log = KeyedLog { keys: 10_000, filled: false, events: 0, skewed: true, partitions: 1 };
        let busy = (0..100_000).filter(|index| log.key(*index) < 100).count();
        assert!((45_000..55_000).contains(&busy), "{busy}");
        assert!((0..100_000).all(|index| log.key(index) < 10_000));
    }
}
