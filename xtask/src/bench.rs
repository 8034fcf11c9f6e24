//! Implements `cargo xtask bench`, which builds the benchmarks with the release profile and runs
//! them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::artifacts::{self, Guests};
use crate::metadata::Workspace;
use crate::suite::Summary;
use crate::{interpreters, kafka, page, shell};

/// The packages that are built for a benchmark. The list is the same for every benchmark: with
/// another list cargo would select other features of the dependencies and build the large ones
/// again.
const PACKAGES: [&str; 6] = ["-p", "lantern-bench", "-p", "lantern-server", "-p", "lantern-cli"];

/// The version of Go that builds plugins, as in the tests: the `go` command fetches it if it has
/// another one.
const GO_TOOLCHAIN: &str = "go1.26.8";

/// Runs the benchmark `what` with `args`. A `--` in `args` only separates arguments of xtask
/// from those of the benchmark, so it is dropped.
pub(crate) fn run(what: &str, mut args: Vec<String>) -> Result<()> {
    args.retain(|arg| arg != "--");
    match what {
        "steps" => return steps(&args),
        "page" => return web_page(&args),
        _ => {}
    }
    let mut bench = built(what)?;
    if what == "w1" {
        bench.arg("--simd").arg(simd()?);
    } else if what == "w1-kafka" {
        kafka::fetch()?;
        bench.arg("--libs").arg(kafka::libs());
    }
    let guest = |name| Guests::Others.folder().join(name);
    if what.starts_with("w1") {
        bench.arg("--plugin").arg(guest("w1.wasm"));
    } else if what == "w2" {
        bench.arg("--plugin").arg(guest("w2.wasm")).arg("--w1-plugin").arg(guest("w1.wasm"));
    }
    if what == "languages" {
        languages()?;
    } else if what == "dev" {
        artifacts::guests(&Workspace::load()?, &[Guests::Interpreters])?;
    }
    if what.starts_with('w') {
        bench.arg("--dir").arg(shell::target_dir().join("bench"));
    }
    shell::step("Measuring");
    shell::run(bench.args(args))
}

/// Builds W1 in C and Go, if the tools are installed. The benchmark skips components that are not
/// built.
fn languages() -> Result<()> {
    shell::step("Building W1 in C and Go");
    if shell::installed("make") && shell::installed("python3") {
        interpreters::c_compiler()?;
        let mut make = Command::new("make");
        shell::run(make.args(["--silent", "-C", "bench/w1/c"]).current_dir(shell::root()))?;
    }
    if shell::installed("go") {
        let mut build = Command::new(artifacts::lantern("release"));
        build.args(["build", "bench/w1/go"]).env("GOTOOLCHAIN", GO_TOOLCHAIN);
        shell::run(build.current_dir(shell::root()))?;
    }
    Ok(())
}

/// Runs the micro-benchmarks whose names contain one of `args`, or all of them if
/// `args` is empty.
fn steps(args: &[String]) -> Result<()> {
    guests()?;
    let mut cargo = shell::cargo(["bench", "-p", "lantern-bench", "--bench", "steps", "--"]);
    cargo.env("LANTERN_GUESTS", Guests::Others.folder());
    shell::run(cargo.args(args))
}

/// Measures the web page in Chromium, with the release build of the server.
fn web_page(args: &[String]) -> Result<()> {
    artifacts::wasm_target()?;
    artifacts::guests(&Workspace::load()?, &[Guests::Plugins])?;
    shell::step("Building the web page and the server");
    let mut summary = Summary::default();
    page::build(&mut summary)?;
    anyhow::ensure!(summary.skipped == 0, "the page cannot be measured without Node.js");
    shell::run(shell::cargo(["build", "--release"]).args(PACKAGES))?;
    shell::step("Measuring");
    let mut bench = shell::npm(page::SOURCES, &["run", "bench", "--"]);
    bench.env("LANTERN_BIN", artifacts::lantern("release"));
    bench.env("LANTERN_PLUGINS", Guests::Plugins.folder());
    shell::run(bench.args(args))
}

/// Builds `bench/simd`, the fold with a SIMD parser. It is not a member of the
/// workspace.
fn simd() -> Result<PathBuf> {
    shell::step("Building the fold with a SIMD parser");
    let target = shell::target_dir().join("simd");
    let mut cargo = shell::cargo(["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg("bench/simd/Cargo.toml").arg("--target-dir").arg(&target);
    shell::run(&mut cargo)?;
    Ok(target.join("release/lantern-bench-simd"))
}

/// Builds the benchmarks, and returns the command that runs the benchmark `what`.
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
