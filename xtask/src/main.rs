//! Implements `cargo xtask`, which has a command for each task of a developer of Lantern.
//!
//! It depends on none of the host's crates. It uses the network only through cargo, rustup,
//! Maven, pip and npm.

mod artifacts;
mod bench;
mod check;
mod demo;
mod dist;
mod fresh;
mod interpreters;
mod kafka;
mod metadata;
mod page;
mod prerequisites;
mod proof;
mod sdk_packages;
mod shell;
mod suite;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// What a developer of Lantern does.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Task {
    /// Build everything, and run the server on real flights and generated shop events.
    ///
    /// Ctrl-C ends it cleanly. When it is started again, it continues where it stopped.
    Demo {
        /// Passed on to `lantern demo`: see `cargo xtask demo --help-demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
        /// Build with all optimizations first. This takes longer.
        #[arg(long)]
        release: bool,
        /// Print the options of `lantern demo`.
        #[arg(long)]
        help_demo: bool,
        /// Keep the events in a topic of a real Kafka broker, which is fetched and started.
        #[arg(long)]
        kafka: bool,
    },
    /// Run the Kafka broker that tests and the demo use, on loopback.
    ///
    /// Maven downloads Apache Kafka from Maven Central. Kafka needs a JDK 17 or newer.
    Kafka {
        /// Only fetch Kafka, and start no broker.
        #[arg(long)]
        fetch: bool,
        /// The port to listen on; 7492 if left out.
        #[arg(long)]
        port: Option<u16>,
    },
    /// Build the interpreters of scripts and declarations into target/interpreters.
    ///
    /// Builds only interpreters whose files have changed. Needs Python and Node.js, and
    /// downloads packages from PyPI and npm.
    Interpreters,
    /// Build the web page into target/web, from where the server's build takes it.
    ///
    /// Needs Node.js, and downloads packages from npm.
    Page,
    /// Build everything, run all tests and all checks.
    ///
    /// If a program is missing, the tests that need it are skipped; with CI=true that is a
    /// failure.
    Test {
        /// Run only tests whose names contain this text, and no checks.
        filter: Option<String>,
    },
    /// Check format, lints, documentation and the rules of the repository.
    Check {
        /// Check only the rules of the repository. This takes a second and builds nothing.
        #[arg(long)]
        rules: bool,
    },
    /// Print which file of a crate imports which, and the circles.
    Graph {
        /// The crate's folder: `host/kafka`, or `kafka`.
        folder: String,
    },
    /// Print the phrases to avoid in comments, documents and messages.
    Prose {
        /// Only in files whose path begins with this: `host/live`, `docs`.
        #[arg(default_value = "")]
        path: String,
    },
    /// Generate docs/errors, docs/config.md, its schema and the documents of the API again.
    Docs {
        /// Build nothing, and leave the schemas and the API documents as they are.
        #[arg(long)]
        no_build: bool,
    },
    /// Run benchmarks: Lantern compared with native code in one run, and the server
    /// measured from outside.
    ///
    /// `w1` and `w1-kafka`: count and sum per tenant and minute, and revenue per product.
    /// `w2`: hourly final windows and sessions over 90 days of event time. `ingest`:
    /// acknowledged events per second over HTTP. `latency`: the time from an event's
    /// acknowledgement until a WebSocket client has its change. `growth`: more keys, rows,
    /// projections and partitions. `idle`: memory and CPU time of projections and clients
    /// with nothing to do. `start`: start with one plugin and with many. `languages`: the
    /// same projection in each language, from the upload to CPU time. `guest`: fuel and
    /// time per event in a guest alone. `page`: the web page in Chromium. `steps`: a
    /// micro-benchmark for each hot step.
    ///
    /// Examples: `cargo xtask bench`, `cargo xtask bench w1 --json`,
    /// `cargo xtask bench growth -- --only keys --keys 10000,1000000`,
    /// `cargo xtask bench latency -- --help`.
    Bench {
        /// The benchmark.
        #[arg(default_value = "w1")]
        what: String,
        /// Passed on to the benchmark, for instance `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the experiments for Lantern's claims, with more cases than the tests run.
    ///
    /// Examples: `cargo xtask proof --list`, `cargo xtask proof --minutes 60 --json`,
    /// `cargo xtask proof power-loss --cases 1 --seed 7`; `--help-proof` lists all.
    Proof {
        /// Passed on to the experiments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
        /// Print the options of the experiments.
        #[arg(long)]
        help_proof: bool,
    },
    /// Write packages with the binary and its interpreters: an archive, a wheel for pip, a
    /// package for npm and one for Debian. Also write packages of the SDKs.
    ///
    /// They are written to target/dist. Nothing is published.
    Dist {
        /// Package this binary; without it, one is built with all optimizations.
        #[arg(long, value_name = "FILE")]
        binary: Option<std::path::PathBuf>,
    },
    /// Clone the last commit to a new folder, and see tests and demo run there.
    Fresh {
        /// Leave the tests out.
        #[arg(long)]
        demo_only: bool,
    },
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
    // These commands build little or nothing, so the prerequisites of a build are not
    // checked.
    if !matches!(
        task,
        Task::Check { rules: true }
            | Task::Docs { .. }
            | Task::Kafka { .. }
            | Task::Graph { .. }
            | Task::Prose { .. }
    ) {
        prerequisites::check()?;
    }
    match task {
        Task::Demo { help_demo: true, release, .. } => {
            demo::run(release, false, &["--help".into()])
        }
        Task::Demo { args, release, kafka, .. } => demo::run(release, kafka, &args),
        Task::Kafka { fetch: true, .. } => kafka::fetch(),
        Task::Kafka { port, .. } => kafka::run(port),
        Task::Interpreters => {
            artifacts::wasm_target()?;
            artifacts::guests(&metadata::Workspace::load()?, &[artifacts::Guests::Interpreters])?;
            let mut summary = suite::Summary::default();
            interpreters::build(&mut summary)?;
            println!("the interpreters are in {}", interpreters::folder().display());
            println!("start the server with LANTERN_PLUGIN__INTERPRETERS_DIR set to this folder");
            Ok(())
        }
        Task::Page => {
            let mut summary = suite::Summary::default();
            page::build(&mut summary)
        }
        Task::Test { filter } => suite::run(filter.as_deref()),
        Task::Check { rules } => check::run(rules)?.close(),
        Task::Graph { folder } => check::print_graph(&folder),
        Task::Prose { path } => check::print_prose(&path),
        Task::Docs { no_build } => {
            println!("{} files written", check::write_generated(no_build)?);
            Ok(())
        }
        Task::Bench { what, args } => bench::run(&what, args),
        Task::Proof { help_proof: true, .. } => proof::run(&["--help".into()]),
        Task::Proof { args, .. } => proof::run(&args),
        Task::Dist { binary } => dist::run(binary),
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
    fn arguments_after_demo_and_a_benchmark_are_passed_on() {
        let task = Task::try_parse_from(["xtask", "demo", "--release", "--speed", "60"]);
        assert!(
            matches!(task, Ok(Task::Demo { args, release: true, .. }) if args == ["--speed", "60"])
        );
        for line in ["bench idle --json", "bench idle -- --json", "bench w1 --events 5 -- --json"] {
            let task = Task::try_parse_from(["xtask"].into_iter().chain(line.split(' ')));
            let Ok(Task::Bench { what, args }) = task else { panic!("{line} is not parsed") };
            assert!(line.contains(&what) && args.contains(&"--json".into()), "{line}: {args:?}");
        }
    }
}
