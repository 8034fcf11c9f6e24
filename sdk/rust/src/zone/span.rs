//! Defines spans of time with a constant offset from UTC, and the units of times.

pub(super) const MICROS: i64 = 1_000_000;
pub(super) const DAY_US: i64 = 86_400 * MICROS;

/// A span of time in which the offset of a zone does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The start and the end in microseconds. They are the minimum or maximum `i64` if there is no
    /// earlier or later change.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) offset_s: i32,
}
