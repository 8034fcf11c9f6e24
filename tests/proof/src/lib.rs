//! What Lantern claims, as experiments that can be counted, repeated from a
//! seed, and made to fail by a planted bug.
//!
//! Each claim of [`CLAIMS`] is one invariant and a way of trying it. The tests
//! of this crate try every claim with its count for CI; `cargo xtask proof`
//! with that of the longer run.

pub mod damage;
pub mod echo;
pub mod engine;
pub mod export;
pub mod failed_sync;
pub mod feed;
pub mod full_disk;
pub mod histories;
pub mod hostile;
pub mod kafka;
pub mod kill;
pub mod late;
mod ledger;
pub mod meter;
pub mod mirror;
pub mod model;
pub mod parsers;
pub mod payloads;
pub mod planted;
pub mod power;
pub mod replay;
pub mod requests;
pub mod run;
pub mod teeth;
pub mod usage;

pub use run::{Claim, Counts, Failure, Outcome, Plan, Run};

/// Every claim, in the order of the invariants.
pub const CLAIMS: &[Claim] = &[
    power::CLAIM,
    power::REDB,
    kill::CLAIM,
    damage::CLAIM,
    failed_sync::CLAIM,
    full_disk::CLAIM,
    engine::CLAIM,
    replay::CLAIM,
    Claim {
        invariant: 7,
        name: "hostile-plugins",
        holds: "a hostile plugin harms nobody, and its author is told why it fails",
        counts: Counts { ci: hostile::Guest::COUNT, longer: 10_000, of: "hostile guests" },
        experiment: hostile::hostile_plugins,
    },
    Claim {
        invariant: 8,
        name: "malformed-uploads",
        holds: "malformed uploads are refused in words and harm nobody",
        counts: Counts { ci: 1_000, longer: 10_000, of: "uploads" },
        experiment: hostile::malformed_uploads,
    },
    parsers::CLAIM,
    requests::CLAIM,
    feed::CLAIM,
    feed::CUTS,
    kafka::CLAIM,
    payloads::CLAIM,
    histories::CLAIM,
    late::CLAIM,
    export::CLAIM,
    teeth::CLAIM,
];
