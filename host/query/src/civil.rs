//! Converts calendar dates to numbers of days, and times to text. A *local* time is the number of
//! microseconds from 1970-01-01T00:00 on the clock of a zone.

pub(crate) const SECOND_US: i64 = 1_000_000;
pub(crate) const DAY_US: i64 = 86_400 * SECOND_US;

/// Returns the year, month and day that is `days` days after 1970-01-01, in the proleptic Gregorian
/// calendar. The calculation counts years from March, so the leap day is the last day of a year.
/// This is the inverse of [`days_since_1970`](lantern_core::days_since_1970).
pub(crate) fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `time_us` to `out` in RFC 3339. `offset_s` is the zone's offset from UTC in seconds.
pub(crate) fn write_time(time_us: i64, offset_s: i64, out: &mut Vec<u8>) {
    let local = time_us + offset_s * SECOND_US;
    let (year, month, day) = date_of(local.div_euclid(DAY_US));
    let us = local.rem_euclid(DAY_US);
    let (second, fraction) = (us / SECOND_US, us % SECOND_US);
    let (hours, minutes, seconds) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}");
    if fraction > 0 {
        let digits = format!("{fraction:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    if offset_s == 0 {
        text.push('Z');
    } else {
        let sign = if offset_s < 0 { '-' } else { '+' };
        let minutes = offset_s.abs() / 60;
        text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use lantern_core::days_since_1970;

    use super::*;

    #[test]
    fn dates_and_days_are_inverse() {
        assert_eq!(date_of(0), (1970, 1, 1));
        assert_eq!(date_of(days_since_1970(2024, 2, 29)), (2024, 2, 29));
        for days in (-800_000..3_000_000).step_by(37) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_since_1970(year, month, day), days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day), "{days}");
        }
    }

    #[test]
    fn times_are_written_with_their_offset() {
        let text = |us, offset| {
            let mut out = Vec::new();
            write_time(us, offset, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(-1, 0), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text(1_500_000, 19_800), "1970-01-01T05:30:01.5+05:30");
        assert_eq!(text(0, -3_600), "1969-12-31T23:00:00-01:00");
    }
}
