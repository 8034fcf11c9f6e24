//! `cargo xtask`: what a developer of Lantern does, each with one command.
//!
//! It depends on none of the host's crates, and never on the network but
//! through cargo and rustup.

mod artifacts;
mod bench;
mod check;
mod configuration;
mod demo;
mod fresh;
mod kafka;
mod lex;
mod metadata;
mod prerequisites;
mod proof;
mod shell;
mod suite;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What a developer of Lantern does.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Task {
    /// Build everything, and run the server on real flights and made-up shop events.
    ///
    /// Ctrl-C ends it cleanly; started again, it goes on where it was.
    Demo {
        /// Passed on to `lantern demo`: see `cargo xtask demo --help-demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
        /// Build with all optimizations first; takes longer.
        #[arg(long)]
        release: bool,
        /// Print what `lantern demo` takes.
        #[arg(long)]
        help_demo: bool,
        /// Keep the events in a topic of a real Kafka broker, which is fetched and started.
        #[arg(long)]
        kafka: bool,
    },
    /// Run a Kafka broker on loopback, with what tests and the demo use.
    ///
    /// Apache Kafka comes from Maven Central, by Maven, and needs a JDK 17 or newer.
    Kafka {
        /// Only fetch it.
        #[arg(long)]
        fetch: bool,
        /// Where it listens; 7492 where nothing is said.
        #[arg(long)]
        port: Option<u16>,
    },
    /// Build everything, run all tests and all checks.
    ///
    /// With CI=true a missing program is a failure; else what needs it is skipped.
    Test {
        /// Only tests whose name contains this, and no checks.
        filter: Option<String>,
    },
    /// Check format, lints, documentation and the rules of the repository.
    Check {
        /// Only the rules of the repository: takes a second, and builds nothing.
        #[arg(long)]
        rules: bool,
    },
    /// Make the generated documents anew: docs/errors and docs/config.md.
    Docs,
    /// Measure Lantern: beside native code in one run, and the server from outside.
    ///
    /// Examples: `cargo xtask bench`, `cargo xtask bench w1 --json`,
    /// `cargo xtask bench growth -- --only keys --keys 10000,1000000`,
    /// `cargo xtask bench latency -- --help`.
    Bench {
        #[command(subcommand)]
        what: Option<Benchmark>,
    },
    /// Try what Lantern claims, with the counts of the longer run.
    ///
    /// Examples: `cargo xtask proof --list`, `cargo xtask proof --minutes 60 --json`,
    /// `cargo xtask proof power-loss --cases 1 --seed 7`; `--help-proof` lists all.
    Proof {
        /// Passed on to the experiments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
        /// Print what the experiments take.
        #[arg(long)]
        help_proof: bool,
    },
    /// Clone the last commit to a new folder, and see tests and demo run there.
    Fresh {
        /// Leave the tests out.
        #[arg(long)]
        demo_only: bool,
    },
}

#[derive(Clone, Subcommand)]
enum Benchmark {
    /// Count and sum per tenant and minute, and revenue per product.
    W1 {
        /// How many events.
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Passed on to the benchmark.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// W1 from a topic with four partitions of a real Kafka broker.
    W1Kafka {
        /// How many events.
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Passed on to the benchmark.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Acknowledged events a second over HTTP, and how long an acknowledgement takes.
    Ingest(Passed),
    /// From an event's acknowledgement to its change with a WebSocket client.
    Latency(Passed),
    /// More keys, rows, projections and partitions, smaller batches, longer logs.
    Growth(Passed),
    /// Memory and CPU time of projections and clients with nothing to do.
    Idle(Passed),
    /// Start with one plugin and with many; upload to first row.
    Start(Passed),
    /// Fuel and time an event in guests alone.
    Guest {
        /// The guests, and other arguments of the benchmark.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// A micro-benchmark for each hot step.
    Steps {
        /// Passed on to the benchmark: part of a step's name.
        #[arg(last = true)]
        args: Vec<String>,
    },
}

/// What all benchmarks of the server take.
#[derive(Clone, clap::Args)]
struct Passed {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Passed on to the benchmark.
    #[arg(last = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    // The rules and the documents are read, not built.
    if !matches!(task, Task::Check { rules: true } | Task::Docs | Task::Kafka { .. }) {
        prerequisites::check()?;
    }
    match task {
        Task::Demo { help_demo: true, release, .. } => {
            demo::run(release, false, &["--help".into()])
        }
        Task::Demo { args, release, kafka, .. } => demo::run(release, kafka, &args),
        Task::Kafka { fetch: true, .. } => kafka::fetch(),
        Task::Kafka { port, .. } => kafka::run(port),
        Task::Test { filter } => suite::run(filter.as_deref()),
        Task::Check { rules } => check::run(rules)?.close(),
        Task::Docs => {
            println!("{} files written", check::write_generated()?);
            Ok(())
        }
        Task::Bench { what } => {
            let default = Benchmark::W1 { events: 5_000_000, json: false, args: Vec::new() };
            match what.unwrap_or(default) {
                Benchmark::W1 { events, json, args } => bench::w1(false, events, json, &args),
                Benchmark::W1Kafka { events, json, args } => bench::w1(true, events, json, &args),
                Benchmark::Ingest(Passed { json, args }) => bench::run("ingest", json, &args),
                Benchmark::Latency(Passed { json, args }) => bench::run("latency", json, &args),
                Benchmark::Growth(Passed { json, args }) => bench::run("growth", json, &args),
                Benchmark::Idle(Passed { json, args }) => bench::run("idle", json, &args),
                Benchmark::Start(Passed { json, args }) => bench::run("start", json, &args),
                Benchmark::Guest { args } => bench::run("guest", false, &args),
                Benchmark::Steps { args } => bench::steps(&args),
            }
        }
        Task::Proof { help_proof: true, .. } => proof::run(&["--help".into()]),
        Task::Proof { args, .. } => proof::run(&args),
        Task::Fresh { demo_only } => fresh::run(demo_only),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Task::command().debug_assert();
    }

    #[test]
    fn what_follows_demo_is_passed_on() {
        let task = Task::try_parse_from(["xtask", "demo", "--release", "--speed", "60"]);
        assert!(
            matches!(task, Ok(Task::Demo { args, release: true, .. }) if args == ["--speed", "60"])
        );
    }
}
