//! Implements the plain Rust fold with which folds of many keys are compared. It uses the data of
//! the same events, `serde_json` and one hash map, and stores no state on disk.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lantern_core::Events;
use serde::Deserialize;

use super::Options;
use super::fold::{self, Fold};
use crate::keyed::KeyedLog;
use crate::native::{Sums, add};
use crate::report::Figures;

/// The number of events that are generated at a time. The measurement leaves out the time for
/// generating.
const PART: u64 = 100_000;

#[derive(Deserialize)]
struct Data<'a> {
    key: &'a str,
    cents: i64,
}

/// Measures a fold by Lantern, and then the plain fold of the same events.
pub(super) async fn next_to(options: &Options, of: &Fold) -> Result<Figures> {
    let mut figures = fold::one(options, of).await?;
    figures.extend(fold(&of.log)?);
    Ok(figures)
}

/// Folds the events of `log`, without the first ones, which have each key once.
fn fold(log: &KeyedLog) -> Result<Figures> {
    let mut sums = Sums::default();
    fold_range(log, 0..log.fill(), &mut sums)?;
    let took = fold_range(log, log.fill()..log.total(), &mut sums)?;
    let counted: u64 = sums.values().map(|(count, _)| count).sum();
    ensure!(counted == log.total(), "the plain fold has {counted} events of {}", log.total());
    Ok(vec![("plain_fold_events_per_s", log.events as f64 / took.as_secs_f64())])
}

fn fold_range(log: &KeyedLog, range: std::ops::Range<u64>, sums: &mut Sums) -> Result<Duration> {
    let mut took = Duration::ZERO;
    let end = range.end;
    for first in range.step_by(usize::try_from(PART)?) {
        let mut events = Events::new();
        log.fill_events(first..(first + PART).min(end), &mut events)?;
        let began = Instant::now();
        for event in events.iter() {
            let data: Data<'_> = serde_json::from_slice(event.data)?;
            add(sums, data.key, data.cents);
        }
        took += began.elapsed();
    }
    Ok(took)
}
