//! Computes buckets of time: the start of the bucket that contains a time, in a time zone.
//!
//! Buckets follow the clock of the time zone: days begin at midnight, weeks on Monday. So a day on
//! which the clock changes has 23 or 25 hours. Buckets of several units are counted from
//! 1970-01-01T00:00, and buckets of several weeks from the Monday before that day.
//!
//! If the clock is put back, it may show the start of a bucket twice. A bucket begins each time, so
//! an hour that occurs twice has two buckets. If the clock skips the start of a bucket, the bucket
//! begins with the first time after the gap.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use lantern_core::{days_since_1970, parse_rfc3339};

use crate::civil::{DAY_US, SECOND_US, date_of};

/// The maximum number of units in the length of a bucket.
const UNITS_MAX: i64 = 10_000;
/// The Monday before 1970-01-01 (1969-12-29), in days from 1970-01-01.
const MONDAY: i64 = -3;

/// The length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketLength {
    /// A number of microseconds on the clock. The first bucket begins at `origin`.
    Micros { length: i64, origin: i64 },
    /// A number of calendar months.
    Months(i64),
}

impl BucketLength {
    /// Parses the length of a bucket: a number and a unit, which is `s`, `m`, `h`, `d`, `w`, `mo`
    /// or `y`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(unit_at);
        let number: i64 = if number.is_empty() { 1 } else { number.parse().ok()? };
        if !(1..=UNITS_MAX).contains(&number) {
            return None;
        }
        let micros = |unit_us: i64| Self::Micros { length: number * unit_us, origin: 0 };
        Some(match unit {
            "s" => micros(SECOND_US),
            "m" => micros(60 * SECOND_US),
            "h" => micros(3_600 * SECOND_US),
            "d" => micros(DAY_US),
            "w" => Self::Micros { length: number * 7 * DAY_US, origin: MONDAY * DAY_US },
            "mo" => Self::Months(number),
            "y" => Self::Months(12 * number),
            _ => return None,
        })
    }

    /// Returns the start of the bucket that contains `local`. Both are times as the clock shows
    /// them.
    fn floor(self, local: i64) -> i64 {
        match self {
            Self::Micros { length, origin } => {
                (local - origin).div_euclid(length) * length + origin
            }
            Self::Months(length) => {
                let (year, month, _) = date_of(local.div_euclid(DAY_US));
                let months = (year - 1970) * 12 + month - 1;
                month_start(months.div_euclid(length) * length)
            }
        }
    }

    /// Returns the start of the bucket after the bucket that starts at `start`. Both are times as
    /// the clock shows them.
    fn after(self, start: i64) -> i64 {
        match self {
            Self::Micros { length, .. } => start + length,
            Self::Months(length) => {
                let (year, month, _) = date_of(start.div_euclid(DAY_US));
                month_start((year - 1970) * 12 + month - 1 + length)
            }
        }
    }
}

/// Returns the local time at which a month begins. Months are counted from January 1970.
fn month_start(months: i64) -> i64 {
    days_since_1970(1970 + months.div_euclid(12), months.rem_euclid(12) + 1, 1) * DAY_US
}

/// A time zone in which a query counts its buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    /// The zone in the library's form; `None` is UTC.
    zone: Option<TimeZone>,
    /// The period that was looked up last.
    last: Option<Period>,
}

/// A period in which a zone's offset from UTC does not change.
#[derive(Clone, Copy, Debug)]
struct Period {
    from: i64,
    /// The first time after the period.
    to: i64,
    offset_us: i64,
}

impl Zone {
    /// Returns the time zone with this name in the IANA database.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("UTC") {
            return Some(Self::default());
        }
        TimeZone::get(name).ok().map(|zone| Self { zone: Some(zone), last: None })
    }

    /// Returns the zone's offset from UTC at `time`, in seconds.
    pub(crate) fn offset_s(&mut self, time: i64) -> i64 {
        self.period(time).offset_us / SECOND_US
    }

    fn period(&mut self, time: i64) -> Period {
        if let Some(last) = self.last
            && (last.from..last.to).contains(&time)
        {
            return last;
        }
        let period = self.find(time);
        self.last = Some(period);
        period
    }

    fn find(&self, time: i64) -> Period {
        let all = Period { from: i64::MIN, to: i64::MAX, offset_us: 0 };
        let Some(zone) = &self.zone else { return all };
        let at = timestamp(time);
        let from = zone.preceding(timestamp(time.saturating_add(1))).next();
        let to = zone.following(at).next();
        Period {
            from: from.map_or(i64::MIN, |change| change.timestamp().as_microsecond()),
            to: to.map_or(i64::MAX, |change| change.timestamp().as_microsecond()),
            offset_us: i64::from(zone.to_offset(at).seconds()) * SECOND_US,
        }
    }

    /// Returns the start of the bucket that contains `time`.
    pub(crate) fn bucket(&mut self, length: BucketLength, time: i64) -> i64 {
        let mut period = self.period(time);
        let local = length.floor(time + period.offset_us);
        loop {
            let start = local - period.offset_us;
            if start >= period.from {
                return start;
            }
            let change = period.from;
            period = self.find(change - 1);
            // The clock skips the start of the bucket, so the bucket begins after the gap.
            if local - period.offset_us >= change {
                return change;
            }
        }
    }

    /// Returns the start of the bucket after the one that starts at `start`.
    pub(crate) fn next_bucket(&mut self, length: BucketLength, start: i64) -> i64 {
        let mut period = self.period(start);
        // `start` is rounded down first: if the clock skips the start of a bucket, the bucket
        // starts later than its regular start.
        let next = length.after(length.floor(start + period.offset_us));
        loop {
            let end = next - period.offset_us;
            if end < period.to {
                return end;
            }
            let change = period.to;
            if self.bucket(length, change) != start {
                return change;
            }
            period = self.find(change);
        }
    }

    /// Parses a time: RFC 3339, or a date with or without a time of day. A date means the time that
    /// the zone's clock shows.
    pub(crate) fn parse(&self, text: &str) -> Option<i64> {
        if let Some(time) = parse_rfc3339(text) {
            return Some(time.0);
        }
        let civil: DateTime = match text.parse::<jiff::civil::Date>() {
            Ok(date) if text.len() == 10 => date.to_datetime(jiff::civil::Time::midnight()),
            _ => text.parse().ok()?,
        };
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        Some(zone.to_zoned(civil).ok()?.timestamp().as_microsecond())
    }
}

/// `time` in the type of the library jiff. It is limited to the last time that jiff supports.
fn timestamp(time: i64) -> Timestamp {
    let bounded = time.clamp(Timestamp::MIN.as_microsecond(), Timestamp::MAX.as_microsecond());
    Timestamp::from_microsecond(bounded).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::civil::write_time;

    /// Returns the start of the bucket that contains `time`, and the start of the next bucket.
    fn bucket(zone: &str, length: &str, time: &str) -> (String, String) {
        let mut zone = Zone::named(zone).unwrap();
        let length = BucketLength::parse(length).unwrap();
        let start = zone.bucket(length, parse_rfc3339(time).unwrap().0);
        let next = zone.next_bucket(length, start);
        let mut text = |time| {
            let mut out = Vec::new();
            write_time(time, zone.offset_s(time), &mut out);
            String::from_utf8(out).unwrap()
        };
        (text(start), text(next))
    }

    #[test]
    fn buckets_begin_on_the_clock_of_the_zone() {
        for (zone, length, time, start, next) in [
            ("UTC", "5m", "2026-03-01T12:07:01Z", "2026-03-01T12:05:00Z", "2026-03-01T12:10:00Z"),
            ("UTC", "1w", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"),
            ("UTC", "mo", "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("UTC", "1y", "1969-02-03T00:00:00Z", "1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("UTC", "3mo", "2026-12-31T00:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (
                "Asia/Kolkata",
                "1h",
                "2026-03-01T12:00:00Z",
                "2026-03-01T17:00:00+05:30",
                "2026-03-01T18:00:00+05:30",
            ),
            // The clock is set forward on March 29.
            (
                "Europe/Berlin",
                "1d",
                "2026-03-29T12:00:00Z",
                "2026-03-29T00:00:00+01:00",
                "2026-03-30T00:00:00+02:00",
            ),
            // The clock shows 2:00 to 2:59 twice on October 25.
            (
                "Europe/Berlin",
                "1h",
                "2026-10-25T00:30:00Z",
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:00:00+01:00",
            ),
            (
                "Europe/Berlin",
                "1h",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T03:00:00+01:00",
            ),
            (
                "Europe/Berlin",
                "4h",
                "2026-10-25T02:30:00Z",
                "2026-10-25T00:00:00+02:00",
                "2026-10-25T04:00:00+01:00",
            ),
            // The clock is set forward at midnight.
            (
                "America/Asuncion",
                "1d",
                "2023-10-01T12:00:00Z",
                "2023-10-01T01:00:00-03:00",
                "2023-10-02T00:00:00-03:00",
            ),
            // The clock is set back by half an hour.
            (
                "Australia/Lord_Howe",
                "1h",
                "2026-04-04T15:10:00Z",
                "2026-04-05T01:00:00+11:00",
                "2026-04-05T02:00:00+10:30",
            ),
        ] {
            let expected = (start.to_owned(), next.to_owned());
            assert_eq!(bucket(zone, length, time), expected, "{length} in {zone} at {time}");
        }
    }

    #[test]
    fn buckets_follow_one_another_without_gap() {
        for zone in
            ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Asuncion", "Pacific/Apia"]
        {
            for length in ["30m", "1h", "7h", "1d", "1w", "1mo"] {
                let mut zone = Zone::named(zone).unwrap();
                let length = BucketLength::parse(length).unwrap();
                let mut start =
                    zone.bucket(length, parse_rfc3339("2011-01-05T00:00:00Z").unwrap().0);
                for _ in 0..3_000 {
                    let next = zone.next_bucket(length, start);
                    assert!(next > start);
                    for time in [start, start + (next - start) / 2, next - 1] {
                        assert_eq!(zone.bucket(length, time), start, "{zone:?} {length:?} {time}");
                    }
                    assert_eq!(zone.bucket(length, next), next);
                    start = next;
                }
            }
        }
    }

    #[test]
    fn what_is_no_bucket_or_zone_is_refused() {
        for bad in ["", "5", "0m", "-1m", "1x", "10001s", "1 m", "99999999999999999999s"] {
            assert_eq!(BucketLength::parse(bad), None, "{bad}");
        }
        assert!(Zone::named("Europe/Atlantis").is_none());
    }

    #[test]
    fn dates_are_those_of_the_zone() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let time = |text| parse_rfc3339(text).map(|time| time.0);
        assert_eq!(berlin.parse("2026-03-01"), time("2026-02-28T23:00:00Z"));
        assert_eq!(berlin.parse("2026-03-01T10:00"), time("2026-03-01T09:00:00Z"));
        assert_eq!(berlin.parse("2026-03-01T10:00:00Z"), time("2026-03-01T10:00:00Z"));
        assert_eq!(Zone::default().parse("2026-03-01"), time("2026-03-01T00:00:00Z"));
        assert_eq!(Zone::default().parse("yesterday"), None);
        // These are the first and the last time that rows can have.
        for text in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            let mut zone = berlin.clone();
            let length = BucketLength::parse("1d").unwrap();
            let at = time(text).unwrap();
            assert!(zone.bucket(length, at) <= at);
        }
    }
}
