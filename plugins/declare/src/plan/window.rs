//! Represents the windows of a table in a plan.

use std::time::Duration;

use lantern_sdk::Timestamp;
use lantern_sdk::window::{Window, WindowSet, Windows};
use lantern_sdk::zone::TimeZone;

use super::names::duration;
use crate::deserialize::Placed;
use crate::document::{Emit, Window as Declared};
use crate::expression::compile::unknown_zone;
use crate::problem::{Place, Problem};

/// The lateness that is used if the declaration states none.
const LATENESS: Duration = Duration::from_secs(60);
/// The maximum number of hopping windows in which an event may be.
const OVERLAP_MAX: u32 = 1_000;

/// How the rows of a table are divided by event time.
#[derive(Debug)]
pub(crate) enum WindowPlan {
    None,
    /// The table has a row for each window, which changes with every event.
    Updating {
        sizes: Sizes,
    },
    /// The table has a row for each window, which is written when the window has ended.
    Final {
        sizes: Sizes,
        length: Duration,
        lateness: Duration,
    },
    /// The table has a row for each session.
    Sessions {
        gap: Duration,
        lateness: Duration,
        is_final: bool,
    },
}

impl WindowPlan {
    /// Returns whether the table needs timers, and therefore event time.
    pub(crate) fn needs_timers(&self) -> bool {
        matches!(self, Self::Final { .. } | Self::Sessions { .. })
    }

    /// Returns the minimum length of a window.
    pub(crate) fn length(&self) -> Duration {
        match self {
            Self::Final { length, .. } => *length,
            Self::Sessions { gap, .. } => *gap,
            Self::None | Self::Updating { .. } => Duration::MAX,
        }
    }

    /// Returns how much older than the newest event an event may be before it is late.
    pub(crate) fn lateness(&self) -> Duration {
        match self {
            Self::Final { lateness, .. } | Self::Sessions { lateness, .. } => *lateness,
            Self::None | Self::Updating { .. } => Duration::ZERO,
        }
    }
}

/// The windows into which event time is divided.
#[derive(Debug)]
pub(crate) enum Sizes {
    Fixed(Windows),
    Calendar(TimeZone, Period),
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl WindowSet for &Sizes {
    fn containing(&self, time: Timestamp) -> impl Iterator<Item = Window> {
        let (fixed, calendar) = match self {
            Sizes::Fixed(windows) => (Some(windows.of(time)), None),
            Sizes::Calendar(zone, period) => {
                let window = match period {
                    Period::Hour => zone.hour(time),
                    Period::Day => zone.day(time),
                    Period::Week => zone.week(time),
                    Period::Month => zone.month(time),
                    Period::Year => zone.year(time),
                };
                (None, Some(window))
            }
        };
        fixed.into_iter().flatten().chain(calendar)
    }
}

/// Plans the windows of a table. `table` is the place of the table's name.
///
/// # Errors
/// Fails if keys of the declaration cannot be used together, or if a value is wrong.
pub(super) fn plan(declared: Option<&Declared>, table: Place) -> Result<WindowPlan, Problem> {
    let Some(declared) = declared else {
        return Ok(WindowPlan::None);
    };
    let is_final = declared.emit == Some(Emit::Final);
    let sizes = [&declared.tumbling, &declared.hopping, &declared.session];
    let given: Vec<&Placed> = sizes.into_iter().flatten().collect();
    let size = match given[..] {
        [size] => size,
        [] => {
            return Err(Problem::new(table, "the kind of window is missing")
                .help("add `tumbling: 1h`, `hopping: 1h` with `every: 15m`, or `session: 30m`"));
        }
        [_, second, ..] => {
            return Err(Problem::new(second.place, "a table has one kind of window").help(
                "keep one of `tumbling`, `hopping` and `session`; use a second table for another",
            ));
        }
    };
    if let (Some(every), None) = (&declared.every, &declared.hopping) {
        return Err(Problem::new(every.place, "`every` is only for hopping windows")
            .help("write `hopping` instead, or remove `every`"));
    }
    let stated = declared.lateness.as_ref().map(lateness_of).transpose()?;
    let lateness = stated.unwrap_or(LATENESS);
    let zone = declared.tz.as_ref();
    if let (Some(zone), None) = (zone, &declared.tumbling) {
        return Err(Problem::new(zone.place, "`tz` is only for tumbling windows")
            .help("remove it; hopping windows and sessions have a fixed length"));
    }
    if declared.session.is_some() {
        return Ok(WindowPlan::Sessions { gap: duration(size)?, lateness, is_final });
    }
    if let (Some(written), false) = (&declared.lateness, is_final) {
        return Err(Problem::new(written.place, "`lateness` has no effect without `emit: final`")
            .help(
                "add `emit: final`, or remove `lateness`: rows then change whenever an event comes",
            ));
    }
    let (sizes, length) = match &declared.hopping {
        Some(size) => hopping(size, declared.every.as_ref())?,
        None => tumbling(size, zone)?,
    };
    Ok(if is_final {
        WindowPlan::Final { sizes, length, lateness }
    } else {
        WindowPlan::Updating { sizes }
    })
}

/// Parses a lateness, which may be 0.
fn lateness_of(text: &Placed) -> Result<Duration, Problem> {
    if text.text.trim_end_matches(char::is_alphabetic).trim() == "0" {
        return Ok(Duration::ZERO);
    }
    duration(text)
}

fn hopping(size: &Placed, every: Option<&Placed>) -> Result<(Sizes, Duration), Problem> {
    let Some(every) = every else {
        return Err(Problem::new(size.place, "hopping windows need `every`")
            .help("add for example `every: 15m`, or write `tumbling`"));
    };
    let (length, hop) = (duration(size)?, duration(every)?);
    if hop > length {
        return Err(Problem::new(every.place, "`every` is longer than the window")
            .help("events between two windows would be lost; make `every` shorter"));
    }
    if length.as_micros() > hop.as_micros() * u128::from(OVERLAP_MAX) {
        let why = format!("an event would be in more than {OVERLAP_MAX} windows");
        return Err(Problem::new(every.place, why).help("make `every` longer"));
    }
    Ok((Sizes::Fixed(Windows::hopping(length, hop)), length))
}

fn tumbling(size: &Placed, zone: Option<&Placed>) -> Result<(Sizes, Duration), Problem> {
    const HOUR: u64 = 3_600;
    let period = match size.text.trim() {
        "1h" | "60m" | "hour" => Some((Period::Hour, HOUR)),
        "1d" | "24h" | "day" => Some((Period::Day, 24 * HOUR)),
        "1w" | "7d" | "week" => Some((Period::Week, 7 * 24 * HOUR)),
        "month" => Some((Period::Month, 28 * 24 * HOUR)),
        "year" => Some((Period::Year, 365 * 24 * HOUR)),
        _ => None,
    };
    let named = match zone {
        Some(name) => {
            let zone = TimeZone::named(&name.text);
            Some(zone.map_err(|_| unknown_zone(name.place, &name.text))?)
        }
        None => None,
    };
    match (period, named) {
        // In UTC these periods have a fixed length and are aligned to 1970-01-01.
        (Some((Period::Hour | Period::Day, seconds)), None) => {
            let length = Duration::from_secs(seconds);
            Ok((Sizes::Fixed(Windows::tumbling(length)), length))
        }
        (Some((period, seconds)), zone) => {
            let zone = zone.unwrap_or_else(TimeZone::utc);
            Ok((Sizes::Calendar(zone, period), Duration::from_secs(seconds)))
        }
        (None, None) => {
            let length = duration(size).map_err(|problem| match size.text.trim() {
                "1m" | "1M" | "months" | "1month" => problem.help("did you mean `month`?"),
                _ => problem,
            })?;
            Ok((Sizes::Fixed(Windows::tumbling(length)), length))
        }
        (None, Some(_)) => {
            duration(size)?;
            Err(Problem::new(size.place, "a window with `tz` is 1h, 1d, 1w, month or year")
                .help("remove `tz`, or choose one of these sizes"))
        }
    }
}
