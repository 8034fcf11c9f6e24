//! Represents dates and times of day, as the clocks of a time zone show them.

use std::fmt;

use super::span::{DAY_US, MICROS};
use crate::time::{date_of, day_of};

/// A date in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// The year of the date.
    pub year: i32,
    /// The month, from 1 to 12.
    pub month: u8,
    /// The day of the month, from 1 to 31.
    pub day: u8,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A date and a time of day in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime {
    /// The date in the time zone.
    pub date: Date,
    /// The hour, from 0 to 23.
    pub hour: u8,
    /// The minute, from 0 to 59.
    pub minute: u8,
    /// The second, from 0 to 59.
    pub second: u8,
}

impl Date {
    pub(super) fn of_days(days: i64) -> Self {
        let (year, month, day) = date_of(days);
        Self { year: year as i32, month: month as u8, day: day as u8 }
    }

    fn days(self) -> i64 {
        day_of(i64::from(self.year), i64::from(self.month), i64::from(self.day))
    }

    /// Returns the day of the week.
    #[must_use]
    pub fn weekday(self) -> Weekday {
        use Weekday as W;
        const DAYS: [Weekday; 7] =
            [W::Monday, W::Tuesday, W::Wednesday, W::Thursday, W::Friday, W::Saturday, W::Sunday];
        DAYS[(self.days() + 3).rem_euclid(7) as usize]
    }
}

/// Writes a date as `2026-03-29`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl LocalTime {
    /// Returns the date and time of day that the clocks show `local` microseconds after they showed
    /// 1970-01-01T00:00:00.
    pub(super) fn of(local: i64) -> Self {
        let second = local.rem_euclid(DAY_US) / MICROS;
        Self {
            date: Date::of_days(local.div_euclid(DAY_US)),
            hour: (second / 3_600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_follow_one_another() {
        assert_eq!(Date::of_days(0).weekday(), Weekday::Thursday);
        assert_eq!(Date { year: 2026, month: 3, day: 29 }.weekday(), Weekday::Sunday);
        assert_eq!(Date::of_days(-4).weekday(), Weekday::Sunday);
    }
}
