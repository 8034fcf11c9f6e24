//! Measures ingest over HTTP: acknowledged events per second, and the time to
//! acknowledge, for each form of sending and number of clients.
//!
//! Each client sends its next request as soon as the previous one is acknowledged. So the times are
//! measured under the highest load that this number of clients can cause.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use lantern_cli::generate::{Options as ShopOptions, Shop};

use crate::http_sender::{BATCH, NDJSON, SINGLE, Sender, check_log};
use crate::report::{Figures, Point, in_turn, print};
use crate::server::{self, Common};

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// How events are sent.
    #[arg(long, value_delimiter = ',', default_values = ["ndjson", "batch", "single"])]
    modes: Vec<Mode>,
    /// The number of clients that send at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    clients: Vec<usize>,
    /// The number of events sent as lines or in batches.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// The number of events each client sends one by one.
    #[arg(long, default_value_t = 5_000)]
    single_events: u64,
    /// The number of events per request, as lines or in a batch.
    #[arg(long, default_value_t = 1_000)]
    per_request: u64,
    /// How often each point is measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fold the events with a projection while they are sent.
    #[arg(long)]
    fold: bool,
    /// The folder of the guests.
    #[arg(long, default_value = "target/guests")]
    guests: std::path::PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Each request has several lines of JSON.
    Ndjson,
    /// Each request has a JSON array of several events.
    Batch,
    /// Each request has one event.
    Single,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Batch => "batch",
            Self::Single => "single",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => NDJSON,
            Self::Batch => BATCH,
            Self::Single => SINGLE,
        }
    }
}

/// Measures every point and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let modes = options.modes.iter();
    let points: Vec<(Mode, usize)> =
        modes.flat_map(|mode| options.clients.iter().map(|clients| (*mode, *clients))).collect();
    let name = |(mode, clients): &(Mode, usize)| format!("{}, {clients} clients", mode.name());
    let rounds = in_turn(options.rounds, &points, name, async |(mode, clients)| {
        measure(options, *mode, *clients).await
    })
    .await?;
    let lines = points.iter().zip(&rounds).map(|(&(mode, clients), rounds)| {
        let per_request = if mode == Mode::Single { 1 } else { options.per_request };
        Point::new(mode.name())
            .with("clients", clients)
            .with("events_per_request", per_request)
            .with_medians(rounds)
    });
    print("ingest", options.common.json, &lines.collect::<Vec<_>>());
    Ok(())
}

/// Creates the bodies of the requests that each client sends, before the measurement.
fn bodies(options: &Options, mode: Mode, clients: usize) -> Vec<Vec<Bytes>> {
    let shop = Shop::new(ShopOptions { events: options.events, ..ShopOptions::default() });
    let (each, per_request) = match mode {
        Mode::Single => (options.single_events, 1),
        Mode::Ndjson | Mode::Batch => (options.events / clients as u64, options.per_request.max(1)),
    };
    let of_client = |client: u64| {
        let (first, last) = (client * each, (client + 1) * each);
        let starts = (first..last).step_by(usize::try_from(per_request).unwrap_or(usize::MAX));
        let body = |start: u64| body(&shop, mode, start..(start + per_request).min(last));
        starts.map(body).collect()
    };
    (0..clients as u64).map(of_client).collect()
}

fn body(shop: &Shop, mode: Mode, range: std::ops::Range<u64>) -> Bytes {
    let mut body = Vec::new();
    if mode == Mode::Batch {
        body.push(b'[');
    }
    for index in range.clone() {
        shop.write_line(index, &mut body);
        // A line feed between the elements of a JSON array is only white space.
        if mode == Mode::Batch {
            body.push(if index + 1 == range.end { b']' } else { b',' });
        }
    }
    body.into()
}

async fn measure(options: &Options, mode: Mode, clients: usize) -> Result<Figures> {
    let bodies = bodies(options, mode, clients);
    let events = match mode {
        Mode::Single => options.single_events,
        Mode::Ndjson | Mode::Batch => options.events / clients as u64,
    } * clients as u64;
    let bytes: usize = bodies.iter().flatten().map(Bytes::len).sum();
    let server = options.common.start()?;
    if options.fold {
        let wasm = std::fs::read(server::guest(&options.guests, "w1")?)?;
        server::push(&server, "w1", &wasm, "", "").await?;
    }
    let mut tasks = Vec::new();
    for bodies in bodies {
        let mut sender = Sender::connect(&server.url).await?;
        tasks.push(async move {
            let mut took = times()?;
            for body in bodies {
                let sent = Instant::now();
                sender.events(mode.media_type(), body).await?;
                took.saturating_record(micros(sent.elapsed()));
            }
            anyhow::Ok(took)
        });
    }
    let (before, own) = (server::usage(&server)?, cpu_time::ProcessTime::now());
    let started = Instant::now();
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut took = times()?;
    for task in tasks {
        took.add(task.await??)?;
    }
    let wall = started.elapsed().as_secs_f64();
    let after = server::usage(&server)?;
    check_log(&server, events).await?;
    ensure!(!took.is_empty(), "nothing was sent");
    let million = events as f64 / 1e6;
    let ms = |quantile| took.value_at_quantile(quantile) as f64 / 1e3;
    Ok(vec![
        ("events_per_s", events as f64 / wall),
        ("mb_per_s", bytes as f64 / 1e6 / wall),
        ("ack_p50_ms", ms(0.5)),
        ("ack_p99_ms", ms(0.99)),
        ("ack_max_ms", took.max() as f64 / 1e3),
        ("cpu_s_per_million", (after.cpu_s - before.cpu_s) / million),
        ("load_cpu_s_per_million", own.elapsed().as_secs_f64() / million),
        ("peak_rss_mib", after.peak_rss_mib()),
        ("disk_bytes_per_event", server::bytes_below(server.folder())? as f64 / events as f64),
    ])
}

/// Creates a histogram of times up to ten minutes, in microseconds, with a precision of a
/// thousandth.
pub(crate) fn times() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(600_000_000, 3)?)
}

/// Converts a time to whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
