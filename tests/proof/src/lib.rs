//! What Lantern claims, as experiments that can be counted, repeated from a
//! seed, and made to fail by a planted bug.
//!
//! Each claim of [`CLAIMS`] is one invariant and a way of trying it. The tests
//! of this crate try every claim with its count for CI; `cargo xtask proof`
//! with that of the longer run.

pub mod engine;
pub mod failed_sync;
pub mod feed;
pub mod full_disk;
pub mod kill;
mod ledger;
pub mod meter;
pub mod mirror;
pub mod model;
pub mod parsers;
pub mod planted;
pub mod power;
pub mod requests;
pub mod run;

pub use run::{Claim, Counts, Failure, Outcome, Plan, Run};

/// Every claim, in the order of the invariants.
pub const CLAIMS: &[Claim] = &[
    power::CLAIM,
    power::REDB,
    kill::CLAIM,
    failed_sync::CLAIM,
    full_disk::CLAIM,
    engine::CLAIM,
    parsers::CLAIM,
    requests::CLAIM,
    feed::CLAIM,
    feed::CUTS,
];
