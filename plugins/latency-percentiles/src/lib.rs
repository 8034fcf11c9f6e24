//! Computes percentiles of the durations of requests, by service and by minute or hour.
//!
//! A row is written once, when its window is over, and does not change afterwards. It
//! contains a sketch of the durations instead of a few percentiles, because percentiles
//! of several partitions cannot be merged, but sketches can.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::time::Duration;

use lantern_sdk::prelude::*;
use lantern_sdk::window::{OpenWindows, Windows};
use serde::Deserialize;

const PARAMETERS: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "window": {
            "enum": ["minute", "hour"], "default": "minute",
            "description": "the length of a window"
        },
        "lateness_s": {
            "type": "integer", "minimum": 0, "maximum": 86400, "default": 10,
            "description": "how many seconds a request may be older than the newest one without being late"
        }
    }
}"#;

/// The most seconds of lateness.
const LATENESS_S_MAX: u64 = 86_400;
/// The watermark advances in steps of this part of a window.
const TICKS_PER_WINDOW: u32 = 60;
/// Durations are counted in microseconds, and events state them in milliseconds.
const US_PER_MS: u32 = 1_000;

#[derive(Tables)]
struct LatencyPercentiles {
    /// The requests of each window that is over, by its start and by service.
    latencies: Table<Latency>,
    /// Requests that arrived after their window was over, by service.
    late: Table<Late>,
    /// Windows that are not over yet.
    #[table(private)]
    open: OpenWindows<Open>,
    #[table(skip)]
    settings: Settings,
}

#[derive(Row, Default)]
struct Latency {
    window: Timestamp,
    service: String,
    #[row(merge = sum)]
    failures: u64,
    /// The durations of all requests, failed ones too.
    #[row(unit = "us")]
    duration: Percentiles,
}

#[derive(Row, Default)]
struct Late {
    service: String,
    #[row(merge = sum)]
    requests: u64,
}

#[derive(Row, Default)]
struct Open {
    failures: u64,
    duration: Percentiles,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    window: Length,
    lateness_s: Option<u64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Length {
    #[default]
    Minute,
    Hour,
}

impl Length {
    fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    service: Cow<'a, str>,
    duration_ms: f64,
    #[serde(default)]
    failed: bool,
}

impl Projection for LatencyPercentiles {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.settings = parameters.parse()?;
        let lateness_s = self.settings.lateness_s.unwrap_or(10);
        if lateness_s > LATENESS_S_MAX {
            return Err(Error::new(format!(
                "parameters: `lateness_s` is {lateness_s}, give at most {LATENESS_S_MAX}"
            )));
        }
        let tick = self.settings.window.duration() / TICKS_PER_WINDOW;
        Ok(lantern_sdk::manifest!()
            .subscribe(["request.completed"])
            .event_time(Duration::from_secs(lateness_s), tick)
            .on_failure(OnFailure::ParkEvent)
            .parameters(PARAMETERS))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let Request { service, duration_ms, failed } = event.data()?;
        if duration_ms < 0.0 {
            return Err(Error::new(format!("`duration_ms` is {duration_ms}, less than 0")));
        }
        let windows = Windows::tumbling(self.settings.window.duration());
        let mut fits = true;
        let late = self.open.add(event, windows, &service, |open| {
            open.failures += u64::from(failed);
            fits &= open.duration.add_number(duration_ms, US_PER_MS);
        })?;
        if !fits {
            return Err(Error::new(format!("`duration_ms` is {duration_ms}, which is too large")));
        }
        if late > 0 {
            let new = || Late { service: service.to_string(), requests: 0 };
            self.late.row_or(&service, new)?.requests += 1;
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open.close(timer)? {
            let (window, service) = (closed.window.start, closed.key);
            let Open { failures, duration } = closed.value;
            let key = (window, &service).to_key();
            self.latencies.put(&key, Latency { window, service, failures, duration })?;
        }
        Ok(())
    }
}

lantern_sdk::export!(LatencyPercentiles);

#[cfg(test)]
mod tests;
