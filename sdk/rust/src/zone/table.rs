//! Reads the changes of a time zone from the table of all time zones.
//!
//! `zones.bin` begins with the names, in order. Each name is stored as a byte with its length, its
//! text, and two numbers of two bytes: the start and the length of the zone's data, counted in the
//! part after the names. Several names may have the same data. A zero byte separates the names from
//! the data.
//!
//! The data of a zone consists of integers of variable length (LEB128; signed ones in zigzag form).
//! All times and offsets are in seconds. The integers are:
//!
//! 1. the number `n` of offsets, and each offset;
//! 2. the number of changes, and for each change the integer `d · n + i`: the change is `d`
//!    units of 30 seconds after the change before it (the first change: after 1970), and begins
//!    offset `i`. Before the first change, offset 0 applies;
//! 3. the rule after the last change: 0 if the offset no longer changes; otherwise 1, the
//!    offsets of standard and summer time, and the begin and end of summer time in each year:
//!    month, week (5 is the last), day of the week (0 is Sunday), and the time by the clock
//!    before the change.

use super::span::{DAY_US, MICROS, Span};
use crate::time::{date_of, day_of};

/// The content of `zones.bin`, which the test `the_table_is_that_of_the_database` writes.
static ZONES: &[u8] = include_bytes!("../../zones.bin");

/// The year before which changes that follow a rule are listed in memory.
const LISTED_UNTIL: i64 = 2101;

/// The unit in which the times of changes are stored, in seconds.
const UNIT_S: i64 = 30;

/// The changes of a zone's offset that are listed in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spans {
    first_offset_s: i32,
    /// The start of each span in microseconds, with its offset.
    changes: Vec<(i64, i32)>,
}

impl Spans {
    pub(super) const fn fixed(offset_s: i32) -> Self {
        Self { first_offset_s: offset_s, changes: Vec::new() }
    }

    pub(super) fn at(&self, micros: i64) -> Span {
        let next = self.changes.partition_point(|(start, _)| *start <= micros);
        let (start, offset_s) = match next.checked_sub(1) {
            Some(index) => self.changes[index],
            None => (i64::MIN, self.first_offset_s),
        };
        Span { start, end: self.changes.get(next).map_or(i64::MAX, |change| change.0), offset_s }
    }
}

/// The rule for summer time, which is the same in every year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    standard_s: i32,
    summer_s: i32,
    begins: Day,
    ends: Day,
}

/// A day that occurs in each year, such as the last Sunday in March, with a time of day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Day {
    month: i64,
    week: i64,
    weekday: i64,
    /// The time of day by the clock before the change. It may be on an earlier or later day.
    time_s: i64,
}

impl Day {
    /// Returns the time of the day in the year `year`, in seconds since 1970 by the clock before
    /// the change.
    fn of(&self, year: i64) -> i64 {
        let first = day_of(year, self.month, 1);
        // 1970-01-01 was a Thursday.
        let ahead = (self.weekday - (first + 4)).rem_euclid(7);
        let mut day = first + ahead + (self.week - 1) * 7;
        while i64::from(date_of(day).1) != self.month {
            day -= 7;
        }
        day * 86_400 + self.time_s
    }
}

impl Rule {
    /// Returns the span that contains `micros`, which must be after the last listed change. `last`
    /// is the span of that change.
    pub(super) fn at(&self, micros: i64, last: Span) -> Span {
        let (year, ..) = date_of(micros.div_euclid(DAY_US));
        let mut span = last;
        let changes = (year - 1..=year + 1).flat_map(|year| self.changes(year));
        for (start, offset_s) in changes.filter(|(start, _)| *start > last.start) {
            if start > micros {
                span.end = start;
                return span;
            }
            span = Span { start, end: i64::MAX, offset_s };
        }
        span
    }

    /// Returns the two changes of a year, in order.
    fn changes(&self, year: i64) -> [(i64, i32); 2] {
        let at = |day: &Day, before: i32| {
            day.of(year).saturating_sub(i64::from(before)).saturating_mul(MICROS)
        };
        let begins = (at(&self.begins, self.standard_s), self.summer_s);
        let ends = (at(&self.ends, self.summer_s), self.standard_s);
        if begins < ends { [begins, ends] } else { [ends, begins] }
    }
}

/// Returns the data of the zone `name`; `None` if there is no such zone.
pub(super) fn find(name: &str) -> Option<&'static [u8]> {
    super::names::find(ZONES, name)
}

/// Decodes the data of a zone. It is a part of the SDK, so it is not checked: missing values are
/// read as 0.
pub(super) fn decode(bytes: &[u8]) -> (Spans, Option<Rule>) {
    let mut reader = Reader(bytes);
    let count = reader.natural().max(1);
    let offsets: Vec<i32> = (0..count).map(|_| reader.signed() as i32).collect();
    let mut at_s = 0;
    let changes = (0..reader.natural()).map(|_| {
        let change = reader.natural();
        at_s += change / count * UNIT_S;
        (at_s * MICROS, offsets[(change % count) as usize])
    });
    let mut changes: Vec<_> = changes.collect();
    let rule = (reader.natural() == 1).then(|| Rule {
        standard_s: reader.signed() as i32,
        summer_s: reader.signed() as i32,
        begins: reader.day(),
        ends: reader.day(),
    });
    if let Some(rule) = &rule {
        // To find a listed change, a few comparisons are enough. To use the rule takes hundreds of
        // steps.
        let last = changes.last().map_or(0, |(start, _)| *start);
        let (year, ..) = date_of(last.div_euclid(DAY_US));
        let years = (year..LISTED_UNTIL).flat_map(|year| rule.changes(year));
        changes.extend(years.filter(|(start, _)| *start > last));
    }
    (Spans { first_offset_s: offsets[0], changes }, rule)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn natural(&mut self) -> i64 {
        let (mut value, mut shift) = (0, 0);
        while let Some((byte, remaining)) = self.0.split_first() {
            self.0 = remaining;
            value |= i64::from(byte & 0x7f) << shift;
            shift = (shift + 7).min(56);
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn signed(&mut self) -> i64 {
        let value = self.natural();
        (value >> 1) ^ -(value & 1)
    }

    fn day(&mut self) -> Day {
        Day {
            month: self.natural().clamp(1, 12),
            week: self.natural().clamp(1, 5),
            weekday: self.natural(),
            time_s: self.signed(),
        }
    }
}
