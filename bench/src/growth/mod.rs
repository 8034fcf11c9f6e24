//! How things grow: folding with more keys, wider rows, skew, smaller batches
//! and more partitions; more projections on one log, with and without interest
//! in it; and a longer log.
//!
//! Every point is a real server on a log that was written beforehand. `--only`
//! takes some of them.

mod fold;
mod history;
mod live;
mod native;
mod projections;

use std::path::PathBuf;

use anyhow::Result;

use crate::report::print;
use crate::server::Common;
use fold::Fold;

/// What to measure.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Which points; all where left out, which takes long.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Axis>,
    /// Axes `keys`, `live` and `skew`: how many keys. The log has each once, and
    /// then the events that are measured.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000])]
    keys: Vec<u64>,
    /// Axis `interested`: how many projections that want every event.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000])]
    interested: Vec<u64>,
    /// Axis `uninterested`: how many that want none, beside one that wants all.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000])]
    uninterested: Vec<u64>,
    /// Axis `log`: how many events the log has; 100 million take some 15 GB of
    /// disk, and are measured only where named.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    log_events: Vec<u64>,
    /// Axis `rows`: bytes of text in a row.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000, 10_000])]
    row_bytes: Vec<u64>,
    /// Axis `batch`: the most events in a call.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256, 4_096, 16_384])]
    batch_events: Vec<u64>,
    /// Axis `partitions`: how many the log has.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    partitions: Vec<u32>,
    /// How many events are measured at each point of folding.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Fold as a server does that was away while the events came: the version
    /// is active, and keeps the feed's change log. Else it is pushed onto the
    /// log, as a rebuild is.
    #[arg(long)]
    restart: bool,
    /// How often each point is measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where logs and states are kept; the logs are kept between runs.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Where the guests lie.
    #[arg(long, default_value = "target/guests")]
    guests: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Axis {
    /// Keys of a table, all as busy as each other.
    Keys,
    /// The same, while the events are sent over HTTP: from the first request
    /// until all are acknowledged and in the table.
    Live,
    /// The same, a few far busier than the rest.
    Skew,
    /// The width of rows.
    Rows,
    /// Events in a call.
    Batch,
    /// Partitions of the log.
    Partitions,
    /// Projections that want every event.
    Interested,
    /// Projections that want none, beside one that wants all.
    Uninterested,
    /// The log: start of the server, seek by time.
    Log,
}

const AXES: [Axis; 9] = [
    Axis::Keys,
    Axis::Live,
    Axis::Skew,
    Axis::Rows,
    Axis::Batch,
    Axis::Partitions,
    Axis::Interested,
    Axis::Uninterested,
    Axis::Log,
];

/// Measures all points wanted and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut points = Vec::new();
    for axis in AXES.into_iter().filter(|a| options.only.is_empty() || options.only.contains(a)) {
        points.extend(match axis {
            Axis::Keys => {
                fold::measure(options, &keys(options, "keys", false), native::beside).await?
            }
            Axis::Live => {
                fold::measure(options, &keys(options, "keys, live", false), live::one).await?
            }
            Axis::Skew => {
                fold::measure(options, &keys(options, "skewed keys", true), native::beside).await?
            }
            Axis::Rows => fold::measure(options, &rows(options), fold::one).await?,
            Axis::Batch => fold::measure(options, &batches(options), fold::one).await?,
            Axis::Partitions => fold::measure(options, &partitions(options), fold::one).await?,
            Axis::Interested => projections::interested(options).await?,
            Axis::Uninterested => projections::uninterested(options).await?,
            Axis::Log => history::measure(options).await?,
        });
    }
    print("growth", options.common.json, &points);
    Ok(())
}

fn keys(options: &Options, name: &'static str, skewed: bool) -> Vec<Fold> {
    let of = |keys: &u64| {
        let mut fold = Fold::new(options, name, *keys);
        (fold.log.keys, fold.log.skewed) = (*keys, skewed);
        fold
    };
    options.keys.iter().map(of).collect()
}

fn rows(options: &Options) -> Vec<Fold> {
    let of = |bytes: &u64| Fold {
        parameters: format!(r#"{{"work":"wide","pad_bytes":{bytes}}}"#),
        ..Fold::new(options, "bytes a row", *bytes)
    };
    options.row_bytes.iter().map(of).collect()
}

fn batches(options: &Options) -> Vec<Fold> {
    let of = |events: &u64| Fold {
        settings: vec![format!("engine.batch_events_max={events}")],
        ..Fold::new(options, "events a call", *events)
    };
    options.batch_events.iter().map(of).collect()
}

fn partitions(options: &Options) -> Vec<Fold> {
    let of = |partitions: &u32| {
        let mut fold = Fold::new(options, "partitions", u64::from(*partitions));
        fold.log.partitions = *partitions;
        fold.settings = vec![format!("log.partitions={partitions}")];
        fold
    };
    options.partitions.iter().map(of).collect()
}
