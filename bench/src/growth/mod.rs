//! Measures how the cost grows: a fold with more keys, wider rows, skew, smaller batches
//! and more partitions; more projections on one log, with and without matching
//! subscriptions; and a longer log.
//!
//! Every point uses a real server on a log that was written beforehand. `--only`
//! selects some of them.

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

/// The options of the growth benchmarks.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Which points; all if left out, which takes long.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Axis>,
    /// Axes `keys`, `live` and `skew`: the number of keys. The log first has one event for each
    /// key, and then the events that are measured.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000])]
    keys: Vec<u64>,
    /// Axis `interested`: the number of projections that subscribe to every event.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000])]
    interested: Vec<u64>,
    /// Axis `uninterested`: the number of projections that subscribe to none of the events,
    /// in addition to one that subscribes to all.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000])]
    uninterested: Vec<u64>,
    /// Axis `log`: the number of events in the log. 100 million events need about 15 GB of disk,
    /// and are measured only if this number is given.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    log_events: Vec<u64>,
    /// Axis `rows`: bytes of text in a row.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000, 10_000])]
    row_bytes: Vec<u64>,
    /// Axis `batch`: the maximum number of events in a call.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256, 4_096, 16_384])]
    batch_events: Vec<u64>,
    /// Axis `partitions`: the number of partitions of the log.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    partitions: Vec<u32>,
    /// The number of events measured at each point of folding.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Fold like a server that was stopped while the events arrived: the version is active and
    /// writes the feed's change log. Without this option, the version is pushed when the log
    /// already has the events, so the version folds as in a rebuild.
    #[arg(long)]
    restart: bool,
    /// How often each point is measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The folder for logs and states; the logs are kept between runs.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// The folder of the guests.
    #[arg(long, default_value = "target/guests")]
    guests: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// The parameter that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Axis {
    /// Keys of a table, all equally busy.
    Keys,
    /// A fold while the events are sent over HTTP. The time is measured from the first request
    /// until all events are acknowledged and in the table.
    Live,
    /// Keys of a table, a few of them much busier.
    Skew,
    /// The width of rows.
    Rows,
    /// Events in a call.
    Batch,
    /// Partitions of the log.
    Partitions,
    /// Projections that subscribe to every event.
    Interested,
    /// Projections that subscribe to none, in addition to one that subscribes to all.
    Uninterested,
    /// The log: start of the server, and seek by time.
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

/// Measures all selected points and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut points = Vec::new();
    for axis in AXES.into_iter().filter(|a| options.only.is_empty() || options.only.contains(a)) {
        points.extend(match axis {
            Axis::Keys => {
                fold::measure(options, &keys(options, "keys", false), native::next_to).await?
            }
            Axis::Live => {
                fold::measure(options, &keys(options, "keys, live", false), live::one).await?
            }
            Axis::Skew => {
                fold::measure(options, &keys(options, "skewed keys", true), native::next_to).await?
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
