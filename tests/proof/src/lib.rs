//! Contains the experiments for Lantern's claims. Each experiment counts its cases and can be
//! repeated from a seed. For most of them, a planted bug shows that they can fail.
//!
//! Each claim of [`CLAIMS`] has an experiment, and the number of an invariant. Several claims can
//! belong to one invariant; `docs/proof.md` lists them. The tests of this crate run every
//! experiment with the number of cases for CI, and `cargo xtask proof` runs it with a larger
//! number.

pub mod damage;
pub mod echo;
pub mod engine;
pub mod export;
pub mod failed_sync;
pub mod feed;
mod forward_log;
pub mod full_disk;
pub mod histories;
pub mod hostile;
pub mod kafka;
pub mod kill;
pub mod late;
mod ledger;
pub mod model;
pub mod parsers;
pub mod payloads;
pub mod planted;
pub mod planted_bugs;
pub mod power;
pub mod reference_log;
pub mod replay;
pub mod requests;
pub mod run;
pub mod test_projection;
pub mod usage;

pub use run::{Claim, Counts, Failure, Outcome, Plan, Run};

/// All claims, in the order of the invariants.
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
        holds: "a hostile plugin does not affect other projections, and its author learns why it fails",
        counts: Counts { ci: hostile::Guest::COUNT, longer: 10_000, of: "hostile guests" },
        experiment: hostile::hostile_plugins,
    },
    Claim {
        invariant: 8,
        name: "malformed-uploads",
        holds: "a malformed upload is refused with a reason, and affects no other projection",
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
    planted_bugs::CLAIM,
];
