//! Runs the benchmarks. W1 and W2 compare Lantern's pipeline with plain Rust on the same events, in
//! one run. The others measure the real server from outside: ingest, latency, growth, idle cost,
//! start. `cargo xtask bench` builds and starts this program.
//!
//! Each phase of W1 and W2 runs in a separate process, so that CPU time and peak memory
//! are those of the phase.

mod dev;
mod folding;
mod growth;
mod guest;
mod http_sender;
mod idle;
mod ingest;
mod keyed;
mod languages;
mod latency;
mod native;
mod process;
mod report;
mod server;
mod start;
mod w1;
mod w1_kafka;
mod w2;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of Lantern next to native code.
#[derive(Parser)]
#[command(
    after_help = "examples:\n  cargo xtask bench w1\n  cargo xtask bench w1 --events 500000 --json\n  \
                  cargo xtask bench latency -- --rates 10000 --seconds 60"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Fold count and sum per tenant and minute, and revenue per product, from the embedded
    /// log, compared with a plain Rust fold of the same events.
    W1(w1::W1Options),
    /// Fold the same from a topic with four partitions of a real Kafka broker, compared
    /// with a plain fold with librdkafka.
    W1Kafka(w1_kafka::KafkaOptions),
    /// Fold hourly final windows per group and sessions per key, over 90 days of event time.
    /// Compared with W1, and with a plain Rust computation of the same results.
    W2(w2::W2Options),
    /// Measure fuel and time per event in a guest alone, of one guest or of several in
    /// turn.
    Guest(guest::Options),
    /// Measure acknowledged events per second over HTTP, and the time of an
    /// acknowledgement.
    Ingest(ingest::Options),
    /// Measure the time from an event's acknowledgement until a WebSocket client has its
    /// change, at fixed rates.
    Latency(latency::Options),
    /// Measure the cost of more keys, wider rows, skew, smaller batches, more partitions,
    /// more projections and longer logs.
    Growth(growth::Options),
    /// Memory and CPU time of projections and clients with nothing to do.
    Idle(idle::Options),
    /// Measure the start with one plugin and with many, compiled or not, and the time from
    /// an upload to its first row.
    Start(start::Options),
    /// The same projection in each language: size, upload to first row, CPU time per
    /// event, memory.
    Languages(languages::Options),
    /// The time from saving a file to the changed rows of `lantern dev`: a declaration,
    /// scripts, and a project in Rust.
    Dev(dev::Options),
    /// One phase of a benchmark, in this process.
    #[command(hide = true)]
    Phase {
        /// The phase to run.
        phase: w1::Phase,
        #[command(flatten)]
        options: Options,
    },
    /// One phase of a benchmark over Kafka, in this process.
    #[command(hide = true)]
    KafkaPhase {
        /// The phase to run.
        phase: w1_kafka::Phase,
        #[command(flatten)]
        options: w1_kafka::KafkaOptions,
    },
    /// One phase of W2, in this process.
    #[command(hide = true)]
    W2Phase {
        /// The phase to run.
        phase: w2::Phase,
        #[command(flatten)]
        options: w2::W2Options,
    },
    /// The child process that compiles plugins.
    #[command(hide = true, name = "__compile")]
    Compile,
}

/// The options of the benchmarks W1 and W2.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The number of events to fold.
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) events: u64,
    /// How often each side is measured, in turn.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// The folder for logs and states; the generated events are kept between runs.
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// The guest, a core module or a component.
    #[arg(long, default_value = "target/wasm32-unknown-unknown/guest/w1.wasm")]
    pub(crate) plugin: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn main() -> Result<std::process::ExitCode> {
    lantern_cli::memory::without_huge_pages();
    if std::env::args().nth(1).as_deref() == Some("__compile") {
        return Ok(lantern_plugin::compile_child_main());
    }
    match Arguments::parse().what {
        What::W1(options) => w1::run(&options)?,
        What::W1Kafka(options) => w1_kafka::run(&options)?,
        What::KafkaPhase { phase, options } => w1_kafka::phase(phase, &options)?,
        What::W2(options) => w2::run(&options)?,
        What::W2Phase { phase, options } => w2::phase(phase, &options)?,
        What::Guest(options) => guest::run(&options)?,
        What::Phase { phase, options } => w1::phase(phase, &options)?,
        What::Compile => unreachable!("handled before the arguments are parsed"),
        outside => return from_outside(outside),
    }
    Ok(std::process::ExitCode::SUCCESS)
}

/// Runs a benchmark that measures a separate server process.
fn from_outside(what: What) -> Result<std::process::ExitCode> {
    if let Some(code) = server::again_with_binary()? {
        return Ok(code);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match what {
            What::Ingest(options) => ingest::run(&options).await,
            What::Latency(options) => latency::run(&options).await,
            What::Growth(options) => growth::run(&options).await,
            What::Idle(options) => idle::run(&options).await,
            What::Start(options) => start::run(&options).await,
            What::Languages(options) => languages::run(&options).await,
            What::Dev(options) => dev::run(&options),
            What::W1(_)
            | What::W1Kafka(_)
            | What::KafkaPhase { .. }
            | What::W2(_)
            | What::W2Phase { .. }
            | What::Guest(_)
            | What::Phase { .. }
            | What::Compile => unreachable!("measured without a server"),
        }
    })?;
    Ok(std::process::ExitCode::SUCCESS)
}
