//! `cargo xtask bench`: builds for release and measures.

use anyhow::Result;

use crate::artifacts::{self, Guests};
use crate::metadata::Workspace;
use crate::{kafka, shell};

/// Runs W1, from the embedded log or from Kafka.
pub(crate) fn w1(over_kafka: bool, events: u64, json: bool, args: &[String]) -> Result<()> {
    if over_kafka {
        kafka::fetch()?;
    }
    artifacts::wasm_target()?;
    shell::step("Building the guest");
    artifacts::guests(&Workspace::load()?, &[Guests::Others])?;
    shell::step("Building the benchmark");
    shell::run(&mut shell::cargo(["build", "--release", "-p", "lantern-bench"]))?;
    shell::step("Measuring");
    let mut bench = std::process::Command::new(shell::target_dir().join("release/lantern-bench"));
    bench
        .current_dir(shell::root())
        .arg(if over_kafka { "w1-kafka" } else { "w1" })
        .args(["--events", &events.to_string()]);
    bench.arg("--plugin").arg(Guests::Others.folder().join("w1.wasm"));
    bench.arg("--dir").arg(shell::target_dir().join("bench"));
    if over_kafka {
        bench.arg("--libs").arg(kafka::libs());
    }
    if json {
        bench.arg("--json");
    }
    shell::run(bench.args(args))
}
