//! Defines types for the integers that crates pass to each other, such as offsets and times.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of an event in its partition. Offsets of the embedded log start at 0 and
/// have no gaps; those of a Kafka topic may have gaps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A partition of the log, counted from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// A number that identifies a table: its index in the manifest of its projection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TableId(pub u32);

/// The timer or event on whose behalf a plugin acts: it writes a row, sets or cancels a timer,
/// emits an event or logs a message. The number is an index into the batch of the call, where the
/// timers come first and then the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause(pub u32);

/// A time in microseconds since 1970-01-01T00:00:00Z; negative before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A time before that of every event.
    pub const MIN: Self = Self(i64::MIN);
    /// The first time that an event may have: 0001-01-01T00:00:00Z.
    ///
    /// From [`Self::FIRST`] to [`Self::LAST`], years have four digits in every time zone. So RFC
    /// 3339 texts in UTC sort by time, and every time can be written in every time zone.
    pub const FIRST: Self = Self(-62_135_596_800_000_000);
    /// The last time that an event may have: 9999-12-30T21:59:59.999999Z.
    pub const LAST: Self = Self(253_402_207_199_999_999);

    /// A time after that of every event.
    pub const MAX: Self = Self(i64::MAX);

    /// This time plus `us` microseconds, limited to [`Self::MIN`] and [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Returns whether an event may have this time, from [`Self::FIRST`] to [`Self::LAST`].
    #[must_use]
    pub fn is_in_range(self) -> bool {
        (Self::FIRST..=Self::LAST).contains(&self)
    }

    /// Returns the watermark for this time as the highest event time. The watermark is this time
    /// minus `lateness_us`, rounded down to a multiple of `tick_us` (0 counts as 1). Both are in
    /// microseconds.
    #[must_use]
    pub fn watermark(self, lateness_us: u64, tick_us: u64) -> Self {
        if self == Self::MIN {
            return self;
        }
        let tick = i64::try_from(tick_us.max(1)).unwrap_or(i64::MAX);
        let late = self.0.saturating_sub(i64::try_from(lateness_us).unwrap_or(i64::MAX));
        Self(late.div_euclid(tick).saturating_mul(tick))
    }

    /// Milliseconds since 1970, rounded down.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

macro_rules! display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display!(Offset, PartitionId, TableId, Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermark_is_cut_down_to_a_tick_also_before_1970() {
        assert_eq!(Timestamp(125).watermark(20, 10), Timestamp(100));
        assert_eq!(Timestamp(-5).watermark(0, 10), Timestamp(-10));
        assert_eq!(Timestamp::MIN.watermark(5, 10), Timestamp::MIN);
    }
}
