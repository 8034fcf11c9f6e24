//! Every claim, tried as often as CI does. `LANTERN_SEED` chooses the seed.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod ways_out;

use indicatif::ProgressBar;
use lantern_proof::{CLAIMS, Plan};

/// Tries one claim with its count for CI.
fn holds(name: &str) {
    let claim = CLAIMS.iter().find(|claim| claim.name == name);
    let claim = claim.unwrap_or_else(|| panic!("there is no claim `{name}`"));
    let seed = std::env::var("LANTERN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let plan = Plan { cases: claim.counts.ci, seed, deadline: None };
    let outcome = claim.try_out(plan, &ProgressBar::hidden());
    println!("{name}: seed {seed}, {outcome:?}");
    assert!(outcome.failures.is_empty(), "{name} fails at seed {seed}: {:?}", outcome.failures);
    assert_eq!(outcome.cases, claim.counts.ci, "{name} did not try all");
}

/// One test for each claim; a claim without a test fails this list.
macro_rules! claims {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { holds($name); })*

        #[test]
        fn every_claim_has_a_test() {
            let tested: &[&str] = &[$($name),*];
            let named: Vec<_> = CLAIMS.iter().map(|claim| claim.name).collect();
            assert_eq!(named, tested);
        }
    };
}

claims! {
    damage_is_refused: "damage",
}
