//! `cargo xtask bench`: builds for release and measures.

use std::process::Command;

use anyhow::Result;

use crate::artifacts::{self, Guests};
use crate::metadata::Workspace;
use crate::{kafka, shell};

/// What is built, always the same: another choice would have other features,
/// and build the large dependencies again.
const PACKAGES: [&str; 6] = ["-p", "lantern-bench", "-p", "lantern-server", "-p", "lantern-cli"];

/// Runs W1, from the embedded log or from Kafka.
pub(crate) fn w1(over_kafka: bool, events: u64, json: bool, args: &[String]) -> Result<()> {
    if over_kafka {
        kafka::fetch()?;
    }
    let mut bench = built(if over_kafka { "w1-kafka" } else { "w1" })?;
    if over_kafka {
        bench.arg("--libs").arg(kafka::libs());
    }
    bench.args(["--events", &events.to_string()]);
    bench.arg("--plugin").arg(Guests::Others.folder().join("w1.wasm"));
    bench.arg("--dir").arg(shell::target_dir().join("bench"));
    measure(&mut bench, json, args)
}

/// Runs a benchmark that needs no arguments, `what` by name.
pub(crate) fn run(what: &str, json: bool, args: &[String]) -> Result<()> {
    measure(&mut built(what)?, json, args)
}

/// Runs the micro-benchmarks whose names contain one of `args`; all where there
/// are none.
pub(crate) fn steps(args: &[String]) -> Result<()> {
    guests()?;
    let mut cargo = shell::cargo(["bench", "-p", "lantern-bench", "--bench", "steps", "--"]);
    cargo.env("LANTERN_GUESTS", Guests::Others.folder());
    shell::run(cargo.args(args))
}

/// The benchmarks, built, about to run `what`.
fn built(what: &str) -> Result<Command> {
    guests()?;
    shell::step("Building the benchmark and the server");
    shell::run(shell::cargo(["build", "--release"]).args(PACKAGES))?;
    let mut bench = Command::new(shell::target_dir().join("release/lantern-bench"));
    bench.current_dir(shell::root()).arg(what);
    bench.env("LANTERN_BIN", artifacts::lantern("release"));
    Ok(bench)
}

fn guests() -> Result<()> {
    artifacts::wasm_target()?;
    shell::step("Building the guests");
    artifacts::guests(&Workspace::load()?, &[Guests::Others])
}

fn measure(bench: &mut Command, json: bool, args: &[String]) -> Result<()> {
    shell::step("Measuring");
    if json {
        bench.arg("--json");
    }
    shell::run(bench.args(args))
}
