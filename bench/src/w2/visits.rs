//! Generates the events of W2: visits of 30 steps each, 20 visits at a time. Some keys
//! are much more frequent than others.
//!
//! Event `i` is a pure function of `i`. Visits that run at the same time begin within a
//! few minutes, so that a session or an hour ends at about a third of the ticks of 60
//! s. One event in twenty is late by 6 minutes to 2 hours.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use lantern_core::{EventRef, Events, Timestamp};

use crate::keyed::mix;

/// The number of keys from which the key of a visit is drawn.
pub(crate) const KEYS: u64 = 100_000;
/// The number of groups of keys.
pub(crate) const GROUPS: u64 = 300;
/// Event time between two events, in microseconds: 5 million events take 90 days.
const STEP_US: i64 = 1_555_200;
/// The time of the first event. It is in the past, so that no event is ahead of its
/// append time.
const FIRST: Timestamp = Timestamp(1_735_689_600_000_000); // 2025-01-01T00:00:00Z
/// The number of visits that run at the same time.
const VISITS: u64 = 20;
/// The number of events that a visit has.
const STEPS: u64 = 30;
/// Visits that run at the same time begin within this many steps.
const STEPS_APART: u64 = 6;
/// One event in this many arrives late.
const LATE_EVERY: u64 = 20;
const MINUTE_US: u64 = 60_000_000;
/// Filler text in the data, so that an event is about as long as one of W1.
const FILLER: &str = "abcdefghi";

/// An event of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) time: Timestamp,
    /// The number of the key, less than [`KEYS`].
    pub(crate) key: u64,
    pub(crate) cents: u64,
}

impl Step {
    /// Computes event number `index`.
    pub(crate) fn of(index: u64) -> Self {
        let lane = index % VISITS;
        let visit = (index / VISITS + STEPS - lane * STEPS_APART / VISITS) / STEPS;
        // The key comes from the third power of a uniformly distributed number, so that the 1,000
        // most frequent keys have about a fifth of the visits.
        let share = (mix(visit * VISITS + lane) >> 11) as f64 / (1_u64 << 53) as f64;
        let key = ((KEYS as f64 * share.powi(3)) as u64).min(KEYS - 1);
        let draw = mix(index ^ (1 << 40));
        let late = if draw.is_multiple_of(LATE_EVERY) {
            6 * MINUTE_US + (draw >> 20) % (114 * MINUTE_US)
        } else {
            0
        };
        let after = i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(STEP_US);
        let time = FIRST.0.saturating_add(after).saturating_sub_unsigned(late);
        // The time is rounded down to milliseconds, which keeps its text short.
        let time = Timestamp(time - time.rem_euclid(1_000));
        Self { time, key, cents: mix(index ^ 1) % 10_000 }
    }
}

/// Adds the events in `range` to `events`, and their lines to `lines`.
pub(crate) fn fill(
    range: std::ops::Range<u64>,
    events: &mut Events,
    lines: &mut Vec<u8>,
) -> Result<()> {
    let (mut id, mut subject, mut data) = (String::new(), String::new(), String::new());
    for index in range {
        let Step { time, key, cents } = Step::of(index);
        id.clear();
        write!(id, "v-{index}")?;
        subject.clear();
        write!(subject, "k{key:08}")?;
        data.clear();
        let group = key % GROUPS;
        write!(
            data,
            r#"{{"key":"{subject}","group":"g{group:03}","note":"{FILLER}","cents":{cents}}}"#
        )?;
        let event = EventRef {
            id: &id,
            source: "visits",
            kind: "visit.step",
            subject: &subject,
            time,
            tenant: "t1",
            data: data.as_bytes(),
            ..EventRef::default()
        };
        lantern_cloudevents::write_event(&event, lines);
        lines.push(b'\n');
        ensure!(events.push(&event), "there is one type");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn visits_have_thirty_steps_of_one_key_and_a_twentieth_is_late() {
        let steps: Vec<Step> = (0..200_000).map(Step::of).collect();
        let lane: Vec<u64> = steps.iter().step_by(20).map(|step| step.key).collect();
        let mut visits = lane.chunks(30);
        assert!(visits.all(|visit| visit.iter().all(|key| *key == visit[0])), "{lane:?}");
        let expected = |index: usize| Timestamp(FIRST.0 + index as i64 * STEP_US);
        let late = steps.iter().enumerate().filter(|(index, step)| {
            let behind = expected(*index).0 - step.time.0;
            assert!((0..120 * 60_000_000 + 1_000).contains(&behind), "{behind}");
            behind > 1_000
        });
        let late = late.count();
        assert!((9_500..10_500).contains(&late), "{late}");
    }

    #[test]
    fn a_few_keys_are_busier_than_the_rest() {
        let mut visits: HashMap<u64, u64> = HashMap::new();
        for index in (0..5_000_000).step_by(30 * 7) {
            *visits.entry(Step::of(index).key).or_default() += 1;
        }
        let all: u64 = visits.values().sum();
        let busy: u64 = visits.iter().filter(|(key, _)| **key < KEYS / 100).map(|(_, n)| n).sum();
        assert!((all * 18 / 100..all * 26 / 100).contains(&busy), "{busy} of {all}");
        assert!(visits.keys().all(|key| *key < KEYS));
    }
}
