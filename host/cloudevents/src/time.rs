//! Reads and writes RFC 3339 times, with a resolution of a microsecond.

use jiff::Timestamp as Instant;
use lantern_core::{Timestamp, parse_rfc3339};

use super::EventError;
use super::error::quote;

/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;
/// The earliest time that a number may mean: 1971-01-01T00:00:00Z. A present-day number of seconds
/// that is read as milliseconds is earlier than this, so it is refused.
const NUMBERS_FROM: Timestamp = Timestamp(31_536_000 * SECOND_US);
/// The time 2200-01-01T00:00:00Z. If a number is refused as a time, the error suggests another unit
/// only if the number, read in that unit, is a time before this one.
const PLAUSIBLE_BEFORE: Timestamp = Timestamp(7_258_118_400 * SECOND_US);

/// The unit of a time that is written as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// The number counts seconds.
    Seconds,
    /// The number counts milliseconds.
    Millis,
    /// The number counts microseconds.
    Micros,
    /// The number counts nanoseconds.
    Nanos,
}

impl TimeUnit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Millis, Self::Micros, Self::Nanos];

    /// Returns the name of the unit, for messages.
    fn label(self) -> &'static str {
        match self {
            Self::Seconds => "seconds (`s`)",
            Self::Millis => "milliseconds (`ms`)",
            Self::Micros => "microseconds (`us`)",
            Self::Nanos => "nanoseconds (`ns`)",
        }
    }

    /// Returns the time that `number` means in this unit, in microseconds since 1970; `None` if it
    /// does not fit an `i64`.
    fn micros(self, number: f64, whole: Option<i64>) -> Option<i64> {
        let (times, over) = match self {
            Self::Seconds => (1_000_000, 1),
            Self::Millis => (1_000, 1),
            Self::Micros => (1, 1),
            Self::Nanos => (1, 1_000),
        };
        if let Some(whole) = whole {
            return whole.div_euclid(over).checked_mul(times);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        let us = number * times as f64 / over as f64;
        #[expect(clippy::cast_possible_truncation, reason = "within bounds")]
        (us.is_finite() && us.abs() < 9e18).then_some(us as i64)
    }
}

/// Converts `number`, a JSON number as text, to the time that it means in `unit`.
///
/// Numbers for a time before 1971 or after [`Timestamp::LAST`] are refused. Nearly always such a
/// number is in another unit, or means "no time", as 0 and -1 do.
///
/// # Errors
/// Returns [`EventError::TimeNumber`] if the number is refused. It suggests a plausible unit.
pub fn time_of_number(number: &str, unit: TimeUnit) -> Result<Timestamp, EventError> {
    let value: f64 = number.parse().map_err(|_| not_a_time(number))?;
    let whole = number.parse().ok();
    let in_unit = |unit: TimeUnit| unit.micros(value, whole).map(Timestamp);
    match in_unit(unit) {
        Some(time) if (NUMBERS_FROM..=Timestamp::LAST).contains(&time) => Ok(time),
        time => {
            let was = match time.filter(|time| time.is_in_range()) {
                Some(time) => format_time(time),
                None => "out of range".into(),
            };
            let advice = match unit_that_fits(in_unit) {
                Some((unit, time)) => format!("in {} it is {}", unit.label(), format_time(time)),
                None => "it fits in no unit".into(),
            };
            Err(EventError::TimeNumber { value: quote(number), unit: unit.label(), was, advice })
        }
    }
}

/// Returns the unit in which the number is a plausible time, and the time in this unit.
fn unit_that_fits(
    in_unit: impl Fn(TimeUnit) -> Option<Timestamp>,
) -> Option<(TimeUnit, Timestamp)> {
    TimeUnit::ALL.into_iter().find_map(|unit| {
        let time = in_unit(unit)?;
        (NUMBERS_FROM..PLAUSIBLE_BEFORE).contains(&time).then_some((unit, time))
    })
}

/// Returns the error that `text` is not an RFC 3339 time. If `text` is a number, the error contains
/// the RFC 3339 text to write instead.
pub(super) fn not_a_time(text: &str) -> EventError {
    let unit = text.parse::<f64>().ok().and_then(|value| {
        let whole = text.parse().ok();
        unit_that_fits(|unit| unit.micros(value, whole).map(Timestamp))
    });
    let hint = unit.map_or_else(String::new, |(unit, time)| {
        format!("; if the number counts {}, that is `{}`", unit.label(), format_time(time))
    });
    EventError::Time { value: quote(text), hint }
}

/// Parses `text` as microseconds since 1970. Digits below a microsecond are cut off, and a leap
/// second counts as the second before it. `None` if `text` is not RFC 3339, or is not within
/// [`Timestamp::FIRST`] and [`Timestamp::LAST`].
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    parse_rfc3339(text).filter(|time| time.is_in_range())
}

/// Parses `text` like [`parse_time`], but returns the reason if it is not a time.
///
/// # Errors
/// Returns [`EventError::TimeRange`] if the time is out of range, and [`EventError::Time`] if
/// `text` is not a time.
pub fn read_time(text: &str) -> Result<Timestamp, EventError> {
    match parse_rfc3339(text) {
        Some(time) if time.is_in_range() => Ok(time),
        Some(_) => Err(EventError::TimeRange(quote(text))),
        None => Err(not_a_time(text)),
    }
}

/// Writes a time in RFC 3339 in UTC. If [`parse_time`] would not accept the time, it writes the
/// nearest time that is accepted.
#[must_use]
pub fn format_time(time: Timestamp) -> String {
    let clamped = time.clamp(Timestamp::FIRST, Timestamp::LAST);
    Instant::from_microsecond(clamped.0).expect("clamped into range").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_that_are_not_rfc_3339_are_refused() {
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T23:59:59",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T23:60:00Z",
            "2026-01-31T23:59:61Z",
            "2026-01-31T23:59:59.Z",
            "2026-01-31T23:59:59+1:00",
            "2026-01-31T23:59:59+24:00",
            "2026-01-31T23:59:59Zz",
            "2026/01/31T23:59:59Z",
            "２026-01-31T23:59:59Z",
            "1790000000",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-30T22:00:00Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_is_taken_in_its_unit() {
        for (number, unit, us) in [
            ("1767225600", TimeUnit::Seconds, 1_767_225_600_000_000),
            ("1767225600.5", TimeUnit::Seconds, 1_767_225_600_500_000),
            ("1.7672256e9", TimeUnit::Seconds, 1_767_225_600_000_000),
            ("1767225600001", TimeUnit::Millis, 1_767_225_600_001_000),
            ("1767225600000001", TimeUnit::Micros, 1_767_225_600_000_001),
            ("1767225600000001999", TimeUnit::Nanos, 1_767_225_600_000_001),
            ("31536000", TimeUnit::Seconds, 31_536_000_000_000),
            ("253402207199", TimeUnit::Seconds, 253_402_207_199_000_000),
        ] {
            assert_eq!(time_of_number(number, unit), Ok(Timestamp(us)), "{number}");
        }
    }

    #[test]
    fn a_number_of_another_unit_is_refused_with_the_unit_that_fits() {
        for (number, unit, words) in [
            ("1767225600", TimeUnit::Millis, "in seconds (`s`) it is 2026-01-01T00:00:00Z"),
            ("1767225600", TimeUnit::Micros, "in seconds (`s`) it is 2026-01-01T00:00:00Z"),
            (
                "1767225600000",
                TimeUnit::Seconds,
                "in milliseconds (`ms`) it is 2026-01-01T00:00:00Z",
            ),
            (
                "1767225600000000",
                TimeUnit::Millis,
                "in microseconds (`us`) it is 2026-01-01T00:00:00Z",
            ),
            (
                "1767225600000000000",
                TimeUnit::Micros,
                "in nanoseconds (`ns`) it is 2026-01-01T00:00:00Z",
            ),
            ("-1", TimeUnit::Millis, "fits in no unit"),
            ("0", TimeUnit::Seconds, "fits in no unit"),
            ("1e300", TimeUnit::Seconds, "fits in no unit"),
            ("999999999999999999999", TimeUnit::Nanos, "out of range"),
            ("253402207200", TimeUnit::Seconds, "out of range"),
        ] {
            let error = time_of_number(number, unit).expect_err(number).to_string();
            assert!(error.contains(words) && error.contains(unit.label()), "{number}: {error}");
        }
    }

    #[test]
    fn a_number_in_place_of_a_text_is_answered_with_the_text() {
        let error = read_time("1767225600").unwrap_err().to_string();
        assert!(error.contains("`2026-01-01T00:00:00Z`"), "{error}");
        let error = read_time("0000-01-01T00:00:00Z").unwrap_err();
        assert!(matches!(error, EventError::TimeRange(_)), "{error}");
    }

    #[test]
    fn zones_fractions_and_leap_seconds_are_understood() {
        for (text, us) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00.000001+01:00", 1),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),
            ("2000-02-29 12:00:00.5z", 951_825_600_500_000),
        ] {
            assert_eq!(parse_time(text), Some(Timestamp(us)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back_as_written(us in Timestamp::FIRST.0..=Timestamp::LAST.0) {
            prop_assert_eq!(parse_time(&format_time(Timestamp(us))), Some(Timestamp(us)));
        }
    }

    #[test]
    fn any_number_is_written_as_a_time_that_is_read_again() {
        for us in [i64::MIN, i64::MAX, Timestamp::FIRST.0, Timestamp::LAST.0, 0] {
            let text = format_time(Timestamp(us));
            assert!(parse_time(&text).is_some(), "{us}: {text}");
        }
    }
}
