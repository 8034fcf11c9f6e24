//! What Lantern claims, as experiments that can be counted, repeated from a
//! seed, and made to fail by a planted bug.
//!
//! Each claim of [`CLAIMS`] is one invariant and a way of trying it. The tests
//! of this crate try every claim with its count for CI; `cargo xtask proof`
//! with that of the longer run.

pub mod hostile;
pub mod run;

pub use run::{Claim, Counts, Failure, Outcome, Plan, Run};

/// Every claim, in the order of the invariants.
pub const CLAIMS: &[Claim] = &[
    Claim {
        invariant: 7,
        name: "hostile-plugins",
        holds: "a hostile plugin harms nobody, and its author is told why it fails",
        counts: Counts { ci: hostile::Guest::COUNT, longer: 40_000, of: "hostile guests" },
        experiment: hostile::hostile_plugins,
    },
    Claim {
        invariant: 8,
        name: "malformed-uploads",
        holds: "malformed uploads are refused in words and harm nobody",
        counts: Counts { ci: 1_000, longer: 10_000, of: "uploads" },
        experiment: hostile::malformed_uploads,
    },
];
