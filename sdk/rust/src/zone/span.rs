//! A time with one offset from UTC, and the units of times.

pub(super) const MICROS: i64 = 1_000_000;
pub(super) const DAY_US: i64 = 86_400 * MICROS;

/// A time during which a zone has one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The start and end in microseconds; the minimum or maximum `i64` if there is no
    /// earlier or later change.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) offset_s: i32,
}
