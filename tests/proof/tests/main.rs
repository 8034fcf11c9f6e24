//! Tests every claim with CI's number of cases. `LANTERN_SEED` sets the seed.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod cuts;
mod recovery;

use indicatif::ProgressBar;
use lantern_proof::{CLAIMS, Plan};

/// Runs the experiment of one claim with CI's number of cases.
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

/// Defines one test per claim. It fails if a claim has no test.
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
    what_was_acknowledged_survives_power_loss: "power-loss",
    redb_keeps_what_it_acknowledged: "redb",
    acknowledged_events_survive_the_process: "kill",
    damage_is_refused: "damage",
    a_failed_sync_is_never_an_acknowledgement: "failed-sync",
    a_full_disk_refuses_and_recovers: "full-disk",
    state_is_the_fold_of_the_log_up_to_the_position: "fold",
    replay_is_byte_identical: "replay",
    a_hostile_plugin_harms_nobody: "hostile-plugins",
    malformed_uploads_harm_nobody: "malformed-uploads",
    malformed_requests_are_refused: "malformed-requests",
    malformed_http_harms_nobody: "malformed-http",
    a_feed_misses_and_repeats_nothing: "feed",
    a_feed_survives_real_cuts: "real-cuts",
    over_kafka_every_event_has_its_effect_once: "kafka",
    an_accepted_payload_is_the_same_value_everywhere: "payloads",
    a_history_is_never_taken_for_another: "histories",
    late_nondeterminism_is_found: "late",
    an_exported_log_gives_the_same_states: "export",
    every_planted_bug_is_found: "teeth",
}

/// Adds every parser's seeds to the corpora with which fuzz targets begin. Run it by
/// hand: `cargo test -p lantern-proof -- --ignored write_the_seeds`.
#[test]
#[ignore = "writes files"]
fn write_the_seeds() {
    for parser in lantern_proof::parsers::PARSERS {
        let folder = lantern_proof::parsers::corpus_folder(parser.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (index, seed) in (parser.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index:02}")), seed).unwrap();
        }
    }
}

#[test]
fn every_parser_has_a_fuzz_target() {
    let targets = lantern_tests::root().join("tests/fuzz");
    let manifest = std::fs::read_to_string(targets.join("Cargo.toml")).unwrap();
    for parser in lantern_proof::parsers::PARSERS {
        let name = parser.name;
        let target = targets.join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(&target).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(text.contains(&format!("parsers::{name}(")), "{text}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in Cargo.toml");
    }
}
