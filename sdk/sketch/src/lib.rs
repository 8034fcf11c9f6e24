//! Implements sketches that can be merged. [`Distinct`] counts distinct values, and [`Percentiles`]
//! computes percentiles. Both have a stated error and use bounded memory.
//!
//! A sketch depends only on the values that were added, and not on their order or grouping. If two
//! halves of the values are added to two sketches, merging these gives the sketch of all values,
//! byte by byte. All arithmetic uses integers, so the same values give the same bytes and the same
//! numbers on every machine and in every language. `docs/sketches.md` specifies the algorithms; SDK
//! and host share this crate.
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

/// Why bytes are not a sketch. The bytes may come from a sender that is not trusted, so decoding
/// allocates no more memory than the decoded sketch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not base64 in the form in which this crate writes it.
    Base64,
    /// The first byte does not name a form of this kind of sketch.
    Form,
    /// There are too few or too many bytes.
    Length,
    /// A value is out of its range, or values are not in order.
    Value,
    /// The numbers next to the sketch differ from the numbers that the sketch gives.
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
