//! Parses times in the format of RFC 3339, with a resolution of a microsecond.

use crate::Timestamp;

/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;
/// Parses `text` as an RFC 3339 time. Returns `None` if it is not one. Digits after the sixth
/// decimal are ignored, and a leap second counts as the second before it. The time may be outside
/// of the range of [`Timestamp::is_in_range`].
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
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
    let (fraction_us, zone_text) = fraction(&b[19..])?;
    let offset_s = zone(zone_text)?;
    let seconds = days_since_1970(year, month.into(), day.into()) * 86_400
        + i64::from(hour) * 3_600
        + i64::from(minute) * 60
        + i64::from(second.min(59))
        - offset_s;
    Some(Timestamp(seconds * SECOND_US + fraction_us))
}

/// Returns the number of the two digits at index `at`.
fn two(b: &[u8], at: usize) -> Option<u8> {
    let (high, low) = (b[at].wrapping_sub(b'0'), b[at + 1].wrapping_sub(b'0'));
    (high < 10 && low < 10).then(|| high * 10 + low)
}

/// Splits a fraction of a second from the text. Returns its value in microseconds (0 if there is no
/// fraction), and the text after it.
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    if b.first() != Some(&b'.') {
        return Some((0, b));
    }
    let digits = b[1..].iter().take_while(|d| d.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let us = (0..6).fold(0, |us, digit_index| {
        let digit = if digit_index < digits { i64::from(b[1 + digit_index] - b'0') } else { 0 };
        us * 10 + digit
    });
    Some((us, &b[1 + digits..]))
}

/// Returns the difference of a time zone from UTC, in seconds.
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

/// Returns the number of days from 1970-01-01 to this day in the proleptic Gregorian calendar. The
/// calculation counts years from March. This puts the leap day at the end of the year, so the first
/// day of a month is a linear function of the month.
#[must_use]
pub fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - 719_468
}
