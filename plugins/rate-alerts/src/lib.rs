//! Raises an alert, as an event in the log, when the rate of one type of event drops or
//! is unusual.
//!
//! The rate is the number of events in a tumbling window. When the watermark has passed
//! a window's end, the window is compared with those before it; a window without events
//! counts like any other. After `lookback` empty windows in a row there is nothing left
//! to compare with, and nothing happens until the next event.
#![forbid(unsafe_code)]

mod rate;
mod settings;

use lantern_sdk::prelude::*;
use lantern_sdk::window::Windows;
use serde::Serialize;

use rate::{Baseline, Verdict};
use settings::Settings;

#[derive(Tables)]
struct RateAlerts {
    /// The rate in every window, compared with the windows before it.
    #[table(newest_by = "window")]
    rates: Table<Rate>,
    /// The windows that raised an alert.
    alerts: Table<Alert>,
    /// Events in windows that are not over yet.
    #[table(private)]
    open: Table<u64>,
    /// The counts with which the next window is compared.
    #[table(private)]
    series: Table<Series>,
    #[table(skip)]
    settings: Settings,
}

#[derive(Row, Default)]
struct Rate {
    window: Timestamp,
    #[row(merge = sum)]
    count: u64,
    #[row(merge = newest)]
    mean: Option<f64>,
    #[row(merge = newest)]
    stddev: Option<f64>,
    #[row(merge = newest)]
    z: Option<f64>,
    /// Events that arrived after the window was compared; not in `count`.
    #[row(merge = sum)]
    late: u64,
}

#[derive(Row, Default, Serialize)]
struct Alert {
    window: Timestamp,
    event_type: String,
    /// `drop`, `high` or `low`.
    kind: String,
    count: u64,
    mean: f64,
    stddev: f64,
    z: Option<f64>,
}

#[derive(Row, Default)]
struct Series {
    /// The counts of the windows before the next one, oldest first.
    counts: Vec<u64>,
    /// When the next window ends, if there is one.
    next_end: Option<Timestamp>,
}

/// The key of the only row of `series`, and of its timer.
const SERIES: &str = "series";

impl Projection for RateAlerts {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        let settings: Settings = parameters.parse()?;
        settings.check()?;
        let manifest = lantern_sdk::manifest!()
            .subscribe(settings.subscribes())
            .event_time(settings.lateness(), settings.tick())
            .emits([settings::ALERT_TYPE])
            .on_failure(OnFailure::ParkEvent)
            .parameters(settings::SCHEMA);
        self.settings = settings;
        Ok(manifest)
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        if event.kind() != self.settings.event_type {
            // This event only advances event time.
            return Ok(());
        }
        for window in Windows::tumbling(self.settings.window()).of(event.time()) {
            if window.end <= event.watermark() {
                let row = self.rates.row(window)?;
                row.window = window.start;
                row.late += 1;
                continue;
            }
            *self.open.row(window)? += 1;
            let series = self.series.row(SERIES)?;
            if series.next_end.is_none_or(|next| window.end < next) {
                series.next_end = Some(window.end);
                event.set_timer(window.end, SERIES)?;
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        let lookback = self.settings.lookback;
        loop {
            let series = self.series.row(SERIES)?;
            let Some(end) = series.next_end else {
                return Ok(());
            };
            if end > timer.watermark() {
                return timer.set_timer(end, SERIES);
            }
            let quiet = series.counts.len() == lookback && series.counts.iter().all(|it| *it == 0);
            let start = end - self.settings.window();
            let count = self.open.take(start)?;
            if quiet && count.is_none() {
                // A later window may have events.
                series.next_end = match self.open.scan(&Scan::all().limit(1))?.first() {
                    Some((key, _)) => Some(key.parse::<Timestamp>()? + self.settings.window()),
                    None => None,
                };
                continue;
            }
            let count = count.unwrap_or_default();
            let baseline = (series.counts.len() == lookback).then(|| Baseline::of(&series.counts));
            if series.counts.len() == lookback {
                series.counts.remove(0);
            }
            series.counts.push(count);
            series.next_end = Some(end + self.settings.window());
            self.judge(timer, start, count, baseline)?;
        }
    }
}

impl RateAlerts {
    fn judge(
        &mut self,
        timer: &Timer<'_>,
        window: Timestamp,
        count: u64,
        baseline: Option<Baseline>,
    ) -> Result<(), Error> {
        let row = Rate {
            window,
            count,
            mean: baseline.map(|baseline| baseline.mean),
            stddev: baseline.map(|baseline| baseline.stddev),
            z: baseline.and_then(|baseline| baseline.z(count)),
            late: 0,
        };
        self.rates.put(window, row)?;
        let Some(baseline) = baseline else {
            return Ok(());
        };
        let kind = match baseline.judge(count, &self.settings) {
            Verdict::Ordinary => return Ok(()),
            Verdict::Drop => "drop",
            Verdict::High => "high",
            Verdict::Low => "low",
        };
        let alert = Alert {
            window,
            event_type: self.settings.event_type.clone(),
            kind: kind.to_owned(),
            count,
            mean: baseline.mean,
            stddev: baseline.stddev,
            z: baseline.z(count),
        };
        let event = NewEvent::new(settings::ALERT_TYPE, &alert)?
            .subject(&self.settings.event_type)
            .time(window + self.settings.window());
        self.alerts.put(window, alert)?;
        timer.emit(event)
    }
}

lantern_sdk::export!(RateAlerts);

#[cfg(test)]
mod tests;
