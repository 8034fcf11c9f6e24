//! Mergeable sketches: [`Distinct`] counts distinct values, [`Percentiles`] computes
//! percentiles, each with a stated error and in bounded memory.
//!
//! A sketch is a function of the values that were added, in any order and grouping:
//! adding two halves separately and merging them gives the sketch of the whole, byte by
//! byte. All arithmetic uses integers, so the same values give the same bytes and the
//! same numbers on every machine and in every language. `docs/sketches.md` specifies
//! the algorithms; SDK and host share this crate.
//!
//! ```
//! use lantern_sketch::{Distinct, Percentiles};
//!
//! let mut users = Distinct::new();
//! for user in ["ann", "bob", "ann"] {
//!     users.add(user);
//! }
//! assert_eq!(users.estimate(), 2);
//!
//! let mut delays = Percentiles::new();
//! for minutes in 1..=100 {
//!     delays.add(minutes);
//! }
//! assert_eq!((delays.min(), delays.percentile(50), delays.max()), (Some(1), Some(50), Some(100)));
//! ```
#![no_std]

extern crate alloc;

mod distinct;
mod json;
mod percentiles;

pub use distinct::{DISTINCT_EXACT_MAX, Distinct};
pub use percentiles::{PERCENTILES_BUCKETS_MAX, Percentiles, round_scaled};

use core::fmt;

/// Why bytes are not a sketch. Bytes may come from an untrusted sender, so decoding allocates
/// no more memory than the decoded sketch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not base64 as this crate writes it.
    Base64,
    /// The first byte is not a form of this kind of sketch.
    Form,
    /// The bytes end too early or too late.
    Length,
    /// A value is outside of its range, or out of order.
    Value,
    /// The numbers next to the sketch are not those of the sketch.
    Summary,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "the sketch is not base64 with padding",
            Self::Form => "the sketch is of another kind or a later form",
            Self::Length => "the sketch has too few or too many bytes",
            Self::Value => "the sketch has a value out of range or out of order",
            Self::Summary => "the numbers are not those of the sketch next to them",
        })
    }
}

impl core::error::Error for DecodeError {}
