//! What Lantern claims, as experiments that can be counted, repeated from a
//! seed, and made to fail by a planted bug.
//!
//! Each claim of [`CLAIMS`] is one invariant and a way of trying it. The tests
//! of this crate try every claim with its count for CI; `cargo xtask proof`
//! with that of the longer run.

pub mod damage;
pub mod run;

pub use run::{Claim, Counts, Failure, Outcome, Plan, Run};

/// Every claim, in the order of the invariants.
pub const CLAIMS: &[Claim] = &[damage::CLAIM];
