//! RFC 3339 times, to the microsecond.

use jiff::Timestamp as Instant;
use lantern_core::Timestamp;

/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;
/// Seconds from 1970 to the first time that is taken, the beginning of the year
/// 0, and to the first that is not any more, 22:00 on the last day but one of
/// 9999.
const FIRST_S: i64 = -62_167_219_200;
const END_S: i64 = 253_402_207_200;

/// `text` as microseconds since 1970; `None` where it is not RFC 3339, or is in
/// UTC before the year 0 or in the last 26 hours of 9999 and later, which cannot
/// be written again in every zone. Digits below a microsecond are cut off, and a
/// leap second counts as the one before.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = i64::from(two(b, 0)?) * 100 + i64::from(two(b, 2)?);
    let (month, day) = (two(b, 5)?, two(b, 8)?);
    let (hour, minute, second) = (two(b, 11)?, two(b, 14)?, two(b, 17)?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_us, rest) = fraction(&b[19..])?;
    let offset_s = zone(rest)?;
    let seconds = days_since_1970(year, month, day) * 86_400
        + i64::from(hour) * 3_600
        + i64::from(minute) * 60
        + i64::from(second.min(59))
        - offset_s;
    if !(FIRST_S..END_S).contains(&seconds) {
        return None;
    }
    Some(Timestamp(seconds * SECOND_US + fraction_us))
}

/// RFC 3339 in UTC; the nearest time that can be written where `time` is none
/// that [`parse_time`] takes.
#[must_use]
pub fn format_time(time: Timestamp) -> String {
    let clamped = time.0.clamp(FIRST_S * SECOND_US, END_S * SECOND_US - 1);
    Instant::from_microsecond(clamped).expect("clamped into range").to_string()
}

/// The two digits at `at`.
fn two(b: &[u8], at: usize) -> Option<u8> {
    let (high, low) = (b[at].wrapping_sub(b'0'), b[at + 1].wrapping_sub(b'0'));
    (high < 10 && low < 10).then(|| high * 10 + low)
}

/// A fraction of a second in microseconds, where there is one, and what follows.
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    if b.first() != Some(&b'.') {
        return Some((0, b));
    }
    let digits = b[1..].iter().take_while(|d| d.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let us = (0..6).fold(0, |us, place| {
        let digit = if place < digits { i64::from(b[1 + place] - b'0') } else { 0 };
        us * 10 + digit
    });
    Some((us, &b[1 + digits..]))
}

/// A zone's offset from UTC in seconds.
fn zone(b: &[u8]) -> Option<i64> {
    match b {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(b, 1)?, two(b, 4)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours) * 3_600 + i64::from(minutes) * 60;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Counting years
/// from March puts the leap day at the end, so that a month's first day is a
/// linear function of the month.
fn days_since_1970(year: i64, month: u8, day: u8) -> i64 {
    let (year, month) =
        if month > 2 { (year, i64::from(month) - 3) } else { (year - 1, i64::from(month) + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    year * 365 + leap_days + day_of_year - 719_468
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
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-30T22:00:00Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
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
        fn every_time_comes_back_as_written(us in -62_167_219_200_000_000_i64..253_402_300_799_999_999) {
            prop_assert_eq!(parse_time(&format_time(Timestamp(us))), Some(Timestamp(us)));
        }
    }

    #[test]
    fn any_number_is_written_as_a_time_that_is_read_again() {
        for us in [i64::MIN, i64::MAX, FIRST_S * SECOND_US, END_S * SECOND_US - 1, 0] {
            let text = format_time(Timestamp(us));
            assert!(parse_time(&text).is_some(), "{us}: {text}");
        }
    }
}
