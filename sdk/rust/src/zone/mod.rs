//! Computes days, hours, weeks and months of a time zone.
//!
//! A day in Berlin begins at midnight in Berlin, and has 23 or 25 hours when the clocks change. A
//! [`TimeZone`] knows when the clocks of a zone change, from the IANA time zone database. The SDK
//! contains the changes of all zones in a compact table, so a plugin needs no files and no other
//! crate.
//!
//! ```
//! # use lantern_sdk::prelude::*;
//! # use lantern_sdk::zone::TimeZone;
//! let berlin = TimeZone::named("Europe/Berlin")?;
//! let noon: Timestamp = "2026-03-29T12:00:00Z".parse()?;
//!
//! let day = berlin.day(noon);
//! assert_eq!(day.start.to_string(), "2026-03-28T23:00:00Z");
//! assert_eq!(day.end.to_string(), "2026-03-29T22:00:00Z");
//! assert_eq!(berlin.date(noon).to_string(), "2026-03-29");
//! assert_eq!(berlin.local(noon).hour, 14);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Sizes, measured in a plugin of 263 KB: [`TimeZone::named`] adds 59 KB, because it includes the
//! table of all zones. [`time_zone!`](crate::time_zone) adds 8 KB, because it includes only one
//! zone.

mod calendar;
mod names;
mod span;
mod table;

use serde::de::{self, Deserialize, Deserializer};

use crate::Timestamp;
use crate::error::Error;
use crate::key::Key;
use crate::time::{date_of, day_of};
use crate::window::{Window, WindowSet};

pub use calendar::{Date, LocalTime, Weekday};
use span::{DAY_US, MICROS, Span};
use table::{Rule, Spans};

/// The rules of one time zone. They give its offset from UTC at every time.
///
/// The offsets since 1970 are those of the IANA database. Times before 1970 have the offset of the
/// beginning of 1970. After the last change that the database lists, the zone's rule for the future
/// gives the offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone {
    spans: Spans,
    rule: Option<Rule>,
}

impl Default for TimeZone {
    fn default() -> Self {
        Self::utc()
    }
}

/// In parameters, a zone is written as its name.
impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).map_err(de::Error::custom)
    }
}

impl TimeZone {
    /// Returns the time zone UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self::fixed(0)
    }

    /// Returns a time zone whose clocks are always `seconds` ahead of UTC.
    #[must_use]
    pub fn fixed(seconds: i32) -> Self {
        Self { spans: Spans::fixed(seconds), rule: None }
    }

    /// Returns the time zone with this name in the IANA database, such as `Europe/Berlin`. Upper
    /// and lower case must match.
    ///
    /// # Errors
    /// Returns [`Error::Plugin`] if there is no zone with this name.
    pub fn named(name: &str) -> Result<Self, Error> {
        match table::find(name) {
            Some(bytes) => Ok(Self::decode(bytes)),
            None => Err(Error::new(format!(
                "{name:?} is not a time zone; give a name of the IANA database, such as `Europe/Berlin`"
            ))),
        }
    }

    /// Decodes the data that the table has for a zone.
    #[doc(hidden)]
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let (spans, rule) = table::decode(bytes);
        Self { spans, rule }
    }

    /// Returns how far the clocks of the zone are ahead of UTC at `time`, in seconds.
    #[must_use]
    pub fn offset_seconds(&self, time: Timestamp) -> i32 {
        self.span(time.micros()).offset_s
    }

    /// Returns the date in this zone at `time`.
    #[must_use]
    pub fn date(&self, time: Timestamp) -> Date {
        Date::of_days(self.local_days(time))
    }

    /// Returns the date and the time of day in this zone at `time`.
    #[must_use]
    pub fn local(&self, time: Timestamp) -> LocalTime {
        let local = self.local_micros(time);
        LocalTime::of(local)
    }

    /// Returns the hour that contains `time` on the clocks of the zone. If the clocks change within
    /// an hour, the hour ends at the change. So an hour may be shorter, and a day may have the same
    /// hour twice.
    #[must_use]
    pub fn hour(&self, time: Timestamp) -> Window {
        const HOUR_US: i64 = 3_600 * MICROS;
        let span = self.span(time.micros());
        let passed = self.local_micros(time).rem_euclid(HOUR_US);
        let start = time.micros().saturating_sub(passed);
        Window {
            start: Timestamp::from_micros(start.max(span.start)),
            end: Timestamp::from_micros(start.saturating_add(HOUR_US).min(span.end)),
        }
    }

    /// Returns the day that contains `time`, from midnight to midnight. It has 23, 24 or 25 hours.
    /// If the clocks skip midnight, the day begins at the change. If there are two midnights, it
    /// begins at the first.
    #[must_use]
    pub fn day(&self, time: Timestamp) -> Window {
        self.period(time, |days| days, |days| days + 1)
    }

    /// Returns the week that contains `time`, from Monday to Monday.
    #[must_use]
    pub fn week(&self, time: Timestamp) -> Window {
        // 1970-01-01 was a Thursday.
        let monday = |days: i64| days - (days + 3).rem_euclid(7);
        self.period(time, monday, |days| days + 7)
    }

    /// Returns the month that contains `time`.
    #[must_use]
    pub fn month(&self, time: Timestamp) -> Window {
        let first = |days| {
            let (year, month, _) = date_of(days);
            day_of(year, i64::from(month), 1)
        };
        self.period(time, first, |days| first(days + 31))
    }

    /// Returns the year that contains `time`.
    #[must_use]
    pub fn year(&self, time: Timestamp) -> Window {
        let first = |days| day_of(date_of(days).0, 1, 1);
        self.period(time, first, |days| first(days + 366))
    }

    /// Returns the hours of this zone, for [`OpenWindows::add`](crate::window::OpenWindows::add).
    #[must_use]
    pub fn hours(&self) -> ZoneWindows<'_> {
        ZoneWindows { zone: self, of: Self::hour }
    }

    /// Returns the days of this zone, for [`OpenWindows::add`](crate::window::OpenWindows::add).
    #[must_use]
    pub fn days(&self) -> ZoneWindows<'_> {
        ZoneWindows { zone: self, of: Self::day }
    }

    /// Returns the weeks of this zone, for [`OpenWindows::add`](crate::window::OpenWindows::add).
    #[must_use]
    pub fn weeks(&self) -> ZoneWindows<'_> {
        ZoneWindows { zone: self, of: Self::week }
    }

    /// Returns the months of this zone, for [`OpenWindows::add`](crate::window::OpenWindows::add).
    #[must_use]
    pub fn months(&self) -> ZoneWindows<'_> {
        ZoneWindows { zone: self, of: Self::month }
    }

    /// Returns the window around `time` that begins and ends at a midnight of the zone. `first`
    /// returns the first day of the period that contains a day. `next` returns the first day after
    /// the period that begins with a day.
    fn period(
        &self,
        time: Timestamp,
        first: impl Fn(i64) -> i64,
        next: impl Fn(i64) -> i64,
    ) -> Window {
        // If the clocks are put back over midnight, they show the previous date once more. But this
        // time belongs to the period that began at midnight.
        let mut day = next(first(self.local_days(time)));
        while self.midnight(day) > time.micros() {
            day = first(day - 1);
        }
        Window {
            start: Timestamp::from_micros(self.midnight(day)),
            end: Timestamp::from_micros(self.midnight(next(day))),
        }
    }

    /// Returns the first time at which the clocks of the zone show the midnight that begins a day,
    /// or a later time. `days` is the day, counted from 1970-01-01.
    fn midnight(&self, days: i64) -> i64 {
        let local = days.saturating_mul(DAY_US);
        // No offset is larger than a day, so the search begins a day earlier. The first span that
        // reaches the local midnight contains the time that is searched.
        let mut span = self.span(local.saturating_sub(DAY_US));
        loop {
            let at = local.saturating_sub(i64::from(span.offset_s) * MICROS).max(span.start);
            if at < span.end || span.end == i64::MAX {
                return at;
            }
            span = self.span(span.end);
        }
    }

    fn local_micros(&self, time: Timestamp) -> i64 {
        let offset = i64::from(self.span(time.micros()).offset_s) * MICROS;
        time.micros().saturating_add(offset)
    }

    fn local_days(&self, time: Timestamp) -> i64 {
        self.local_micros(time).div_euclid(DAY_US)
    }

    fn span(&self, micros: i64) -> Span {
        let listed = self.spans.at(micros);
        match &self.rule {
            Some(rule) if listed.end == i64::MAX => rule.at(micros, listed),
            _ => listed,
        }
    }
}

/// The hours, days, weeks or months of a time zone.
#[derive(Debug, Clone, Copy)]
pub struct ZoneWindows<'a> {
    zone: &'a TimeZone,
    of: fn(&TimeZone, Timestamp) -> Window,
}

impl WindowSet for ZoneWindows<'_> {
    fn containing(&self, time: Timestamp) -> impl Iterator<Item = Window> {
        std::iter::once((self.of)(self.zone, time))
    }
}

/// A date that is used as a key becomes its text: `2026-03-29`.
impl Key for Date {
    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let _ = write!(out, "{self}");
    }
}

/// The time zone with this name in the IANA database. The plugin then contains only the data of
/// this zone, and not the table of all zones.
///
/// ```
/// # use lantern_sdk::zone::TimeZone;
/// let berlin: TimeZone = lantern_sdk::time_zone!("Europe/Berlin");
/// assert_eq!(berlin, TimeZone::named("Europe/Berlin")?);
/// # Ok::<(), lantern_sdk::Error>(())
/// ```
#[macro_export]
macro_rules! time_zone {
    ($name:literal) => {
        $crate::zone::TimeZone::decode($crate::__private::zone_bytes!($name))
    };
}
