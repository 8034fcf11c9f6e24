//! Represents times of events, and converts them to text and back.
//!
//! A plugin has no clock. It knows only the times of events.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
///
/// It is displayed, stored in rows and read from JSON as RFC 3339 in UTC, with a
/// fraction of three or six digits only if there is one.
///
/// ```
/// # use lantern_sdk::Timestamp;
/// let at: Timestamp = "2026-03-01T13:07:42.5+01:00".parse()?;
/// assert_eq!(at.to_string(), "2026-03-01T12:07:42.500Z");
/// assert_eq!(at.minute().to_string(), "2026-03-01T12:07:00Z");
/// # Ok::<(), lantern_sdk::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A time before every event. It is the watermark before the first event.
    pub const MIN: Self = Self(i64::MIN);
    /// A time after every event.
    pub const MAX: Self = Self(i64::MAX);

    /// Returns the time `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the time `millis` milliseconds after 1970-01-01T00:00:00Z, at most [`Self::MAX`].
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Returns the time `seconds` seconds after 1970-01-01T00:00:00Z, at most [`Self::MAX`].
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns the last multiple of `step` at or before this time. If `step` is less than a
    /// microsecond, it is this time.
    #[must_use]
    pub fn floor(self, step: Duration) -> Self {
        match micros_of(step) {
            0 => self,
            step => Self(self.0.saturating_sub(self.0.rem_euclid(step))),
        }
    }

    /// Returns the start of the second that contains this time, in UTC.
    #[must_use]
    pub fn second(self) -> Self {
        self.floor(Duration::from_secs(1))
    }

    /// Returns the start of the minute that contains this time, in UTC.
    #[must_use]
    pub fn minute(self) -> Self {
        self.floor(Duration::from_secs(60))
    }

    /// Returns the start of the hour that contains this time, in UTC.
    #[must_use]
    pub fn hour(self) -> Self {
        self.floor(Duration::from_secs(3_600))
    }

    /// Returns the start of the day that contains this time, in UTC.
    #[must_use]
    pub fn day(self) -> Self {
        self.floor(Duration::from_secs(86_400))
    }

    /// Returns the number of microseconds from `earlier` to this time; negative if `earlier` is
    /// later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the number of whole milliseconds from `earlier` to this time, rounded towards zero.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.micros_since(earlier) / 1_000
    }

    /// Appends this time to `out` in RFC 3339. The text is the same as with
    /// [`Display`](fmt::Display), but no formatter is used.
    pub(crate) fn write_to(self, out: &mut String) {
        let mut text = [0; 32];
        let length = self.render(&mut text);
        out.push_str(ascii(&text[..length]));
    }

    fn render(self, text: &mut [u8; 32]) -> usize {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND) as u32;
        let second = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        let (year, month, day) = date_of(seconds.div_euclid(SECONDS_PER_DAY));
        let mut out = Writer { text, length: 0 };
        if (0..=9_999).contains(&year) {
            out.digits(year as u32, 4);
        } else {
            // RFC 3339 ends with the year 9999. ISO 8601 allows later years with a sign.
            out.push(if year < 0 { b'-' } else { b'+' });
            out.digits(year.unsigned_abs() as u32, 6);
        }
        out.push(b'-');
        out.digits(month, 2);
        out.push(b'-');
        out.digits(day, 2);
        out.push(b'T');
        out.digits(second / 3_600, 2);
        out.push(b':');
        out.digits(second / 60 % 60, 2);
        out.push(b':');
        out.digits(second % 60, 2);
        if micros != 0 {
            out.push(b'.');
            if micros.is_multiple_of(1_000) {
                out.digits(micros / 1_000, 3);
            } else {
                out.digits(micros, 6);
            }
        }
        out.push(b'Z');
        out.length
    }
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("digits and punctuation are ASCII")
}

struct Writer<'a> {
    text: &'a mut [u8; 32],
    length: usize,
}

impl Writer<'_> {
    fn push(&mut self, byte: u8) {
        self.text[self.length] = byte;
        self.length += 1;
    }

    fn digits(&mut self, mut number: u32, width: usize) {
        for place in (self.length..self.length + width).rev() {
            self.text[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.length += width;
    }
}

/// Returns the number of microseconds in `duration`, limited to the range of a timestamp.
pub(crate) fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Returns the year, month and day that is `day` days after 1970-01-01, in the proleptic Gregorian
/// calendar. The calculation begins years in March, so that the leap day is the last day of a year,
/// and counts them in eras of 400 years.
pub(crate) fn date_of(day: i64) -> (i64, u32, u32) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day = day.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// Returns the number of days from 1970-01-01 to a date. It is the inverse of [`date_of`].
pub(crate) fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        let length = self.render(&mut text);
        f.pad(ascii(&text[..length]))
    }
}

/// The error for a text that is not a timestamp in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not an RFC 3339 timestamp like 2026-03-01T12:00:00Z")]
pub struct ParseTimestampError(String);

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.as_bytes()).ok_or_else(|| ParseTimestampError(text.chars().take(64).collect()))
    }
}

/// Parses a timestamp in RFC 3339. Digits after the sixth of a fraction are cut off, and a leap
/// second counts as the last second of its minute.
fn parse(text: &[u8]) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range)?.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let is =
        |place: usize, allowed: &[u8]| text.get(place).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = day_of(year, month, day);
    if !(1..=12).contains(&month)
        || date_of(days) != (year, month as u32, day as u32)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut place = 19;
    let mut micros = 0;
    if is(place, b".") {
        place += 1;
        let digits = text[place..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for at in 0..6 {
            let digit = if at < digits { text[place + at] - b'0' } else { 0 };
            micros = micros * 10 + i64::from(digit);
        }
        place += digits;
    }
    let offset = match text.get(place)? {
        b'Z' | b'z' if text.len() == place + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == place + 6 && is(place + 3, b":") => {
            let (hours, minutes) = (number(place + 1..place + 3)?, number(place + 4..place + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second.min(59) - offset;
    Some(Timestamp(seconds * MICROS_PER_SECOND + micros))
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 timestamp")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Returns the time that is `later` after this time, but at most [`Timestamp::MAX`].
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(later)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Returns the time that is `earlier` before this time, but at least [`Timestamp::MIN`].
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(earlier)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (1_356_998_400_000_000, "2013-01-01T00:00:00Z"),
            (1_709_164_800_001_000, "2024-02-29T00:00:00.001Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
        ] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(at.to_string(), text);
            assert_eq!(text.parse(), Ok(at));
        }
        assert_eq!(Timestamp::MAX.to_string(), "+294247-01-10T04:00:54.775807Z");
        assert_eq!(Timestamp::MIN.to_string(), "-290308-12-21T19:59:05.224192Z");
    }

    #[test]
    fn offsets_and_long_fractions_are_read() {
        for (text, same) in [
            ("2013-01-01T01:00:00+01:00", "2013-01-01T00:00:00Z"),
            ("2012-12-31t19:00:00.5-05:00", "2013-01-01T00:00:00.500Z"),
            ("2013-01-01 00:00:00.1234567Z", "2013-01-01T00:00:00.123456Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(at.to_string(), same, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_refused() {
        for text in [
            "",
            "2013-01-01",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-01-00T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T00:00:00",
            "2013-01-01T00:00:00.Z",
            "2013-01-01T00:00:00Zulu",
            "2013-01-01T00:00:00+1:00",
            "2013-1-01T00:00:00Z",
            "٢٠١٣-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn floor_goes_down_also_before_1970() {
        let at = Timestamp::from_micros(-1);
        assert_eq!(at.minute().to_string(), "1969-12-31T23:59:00Z");
        assert_eq!(at.floor(Duration::ZERO), at);
    }

    proptest! {
        #[test]
        fn agrees_with_another_calendar(micros in -62_167_219_200_000_000_i64..253_402_300_799_000_000) {
            let at = Timestamp::from_micros(micros);
            let other = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(at.to_string().parse::<jiff::Timestamp>().unwrap(), other);
            prop_assert_eq!(other.to_string().parse::<Timestamp>().unwrap(), at);
        }
    }
}
