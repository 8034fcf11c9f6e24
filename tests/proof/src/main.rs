//! The program `lantern-proof` runs the experiments for Lantern's claims, for a given time. `cargo
//! xtask proof` builds and starts it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lantern_proof::{CLAIMS, Claim, Outcome, Plan};
use serde_json::json;

/// Test Lantern's claims: crashes, damage, hostile plugins, bad input.
#[derive(Parser)]
#[command(name = "cargo xtask proof", max_term_width = 100)]
struct Options {
    /// Only these claims, by name (`power-loss`) or by the number of their invariant.
    claims: Vec<String>,
    /// List the claims and exit.
    #[arg(long)]
    list: bool,
    /// Divide this time, in minutes, equally among the experiments. Time that one
    /// does not use goes to the next.
    #[arg(long)]
    minutes: Option<f64>,
    /// Number of cases of each experiment; by default that of the longer run.
    #[arg(long)]
    cases: Option<u64>,
    /// Run the number of cases that CI runs.
    #[arg(long, conflicts_with = "cases")]
    ci: bool,
    /// Seed of the first case; by default a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let claims = chosen(&options.claims)?;
    if options.list {
        for claim in claims {
            let Claim { invariant, name, holds, counts, .. } = claim;
            println!("{invariant:>2} {name:<18} {holds}");
            println!(
                "   {:<18} {} {} in CI, {} in the longer run",
                "", counts.ci, counts.of, counts.longer
            );
        }
        return Ok(true);
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    eprintln!("seed {seed}");
    // The experiments report each panic that is a failure, with its seed. All other panics come
    // from redb when it reads damaged files, and the host catches them. The panics print no
    // message, because these messages would fill the screen.
    std::panic::set_hook(Box::new(|_| ()));
    let end = options.minutes.map(|m| Instant::now() + Duration::from_secs_f64(m * 60.0));
    let mut outcomes = Vec::new();
    for (done, claim) in claims.iter().enumerate() {
        let left = u32::try_from(claims.len() - done)?;
        let deadline = end.map(|end| {
            let now = Instant::now();
            now + end.saturating_duration_since(now) / left
        });
        let cases = match (options.cases, options.ci) {
            (Some(cases), _) => cases,
            (None, true) => claim.counts.ci,
            (None, false) => claim.counts.longer,
        };
        outcomes.push((*claim, try_one(claim, Plan { cases, seed, deadline })?));
    }
    let failed = outcomes.iter().filter(|(_, outcome)| !outcome.failures.is_empty()).count();
    if options.json {
        println!("{}", summary(seed, &outcomes));
    } else {
        outcomes.iter().for_each(|(claim, outcome)| print(claim, outcome));
        println!("\n{} passed, {failed} failed", outcomes.len() - failed);
    }
    Ok(failed == 0)
}

/// Returns the claims that `wishes` names; all claims if it is empty.
fn chosen(wishes: &[String]) -> Result<Vec<&'static Claim>> {
    if wishes.is_empty() {
        return Ok(CLAIMS.iter().collect());
    }
    let mut chosen = Vec::new();
    for wish in wishes {
        let before = chosen.len();
        chosen.extend(CLAIMS.iter().filter(|c| c.name == wish || c.invariant.to_string() == *wish));
        if chosen.len() == before {
            let names: Vec<_> = CLAIMS.iter().map(|c| c.name).collect();
            bail!("there is no claim `{wish}`; there are {}", names.join(", "));
        }
    }
    Ok(chosen)
}

fn try_one(claim: &Claim, plan: Plan) -> Result<Outcome> {
    let progress = ProgressBar::new(plan.cases);
    let style = "{msg:<18} {bar:32} {human_pos}/{human_len} {elapsed} left {eta}";
    progress.set_style(ProgressStyle::with_template(style)?);
    progress.set_message(claim.name);
    progress.enable_steady_tick(Duration::from_millis(500));
    let outcome = claim.try_out(plan, &progress);
    progress.finish();
    Ok(outcome)
}

fn print(claim: &Claim, outcome: &Outcome) {
    let Outcome { cases, failures, figures, seconds } = outcome;
    let verdict = if failures.is_empty() { "holds" } else { "FAILED" };
    let Claim { invariant, name, counts, .. } = claim;
    println!("{invariant:>2} {name:<18} {verdict:<6} {cases} {} in {seconds:.1} s", counts.of);
    for (figure, value) in figures {
        println!("   {figure}: {value}");
    }
    for failure in failures {
        println!("   seed {}: {}", failure.seed, failure.what);
        println!("   again: cargo xtask proof {name} --cases 1 --seed {}", failure.seed);
    }
}

fn summary(seed: u64, outcomes: &[(&Claim, Outcome)]) -> serde_json::Value {
    let claims: Vec<_> = outcomes
        .iter()
        .map(|(claim, outcome)| {
            json!({
                "invariant": claim.invariant,
                "name": claim.name,
                "of": claim.counts.of,
                "cases": outcome.cases,
                "failed": outcome.failures.len(),
                "failures": outcome.failures,
                "figures": outcome.figures,
                "seconds": outcome.seconds,
            })
        })
        .collect();
    json!({ "seed": seed, "claims": claims })
}
