//! Measures the time from an event's acknowledgement until a WebSocket client has its change, at a
//! fixed rate.
//!
//! The schedule is fixed beforehand and does not wait for the server. If an event becomes due while
//! a request is in progress, it is sent with the next request. Its time is measured from the
//! schedule, so it includes this wait, and a stall of the server counts for its whole duration.
//!
//! Events are distributed over lanes. Each lane has a connection and a product of its own,
//! and its events are acknowledged in order. The guest counts orders by product, so a row
//! with the count 17 shows that the client has the changes of the lane's first 17 events.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use lantern_client::{Change, Client, Options as ClientOptions};
use lantern_tests::Server;
use serde::Deserialize;
use tokio::time::{sleep_until, timeout};

use crate::http_sender::{BATCH, SINGLE, Sender, check_log};
use crate::ingest::{self, micros};
use crate::report::{Figures, Point, in_turn, print};
use crate::server::{self, Common};

/// The maximum time between the last acknowledgement and the arrival of the last change.
const PATIENCE: Duration = Duration::from_secs(30);
/// The maximum number of events in one request.
const PER_REQUEST: u64 = 1_000;

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Events per second.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    rates: Vec<u64>,
    /// The duration, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The time at the beginning that does not count, in seconds.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// The number of connections that send.
    #[arg(long, default_value_t = 4)]
    lanes: usize,
    /// The number of WebSocket clients that mirror the table; one of them is measured.
    #[arg(long, default_value_t = 1)]
    watchers: usize,
    /// How often each rate is measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The folder of the guests.
    #[arg(long, default_value = "target/guests")]
    guests: std::path::PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Measures every rate and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(options.warm_up < options.seconds, "the warm-up takes all of the time");
    let name = |rate: &u64| format!("{rate} events/s for {} s", options.seconds);
    let rounds =
        in_turn(options.rounds, &options.rates, name, async |rate| measure(options, *rate).await)
            .await?;
    let lines = options.rates.iter().zip(&rounds).map(|(rate, rounds)| {
        Point::new(&format!("{rate} events/s"))
            .with("rate", *rate)
            .with("watchers", options.watchers)
            .with_medians(rounds)
    });
    print("latency", options.common.json, &lines.collect::<Vec<_>>());
    Ok(())
}

/// The plan of a run: when each event is due.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: u64,
    lanes: u64,
    /// The number of events that each lane sends.
    events: u64,
}

impl Schedule {
    /// Computes when event `index` of `lane` is due.
    fn due(&self, lane: u64, index: u64) -> Instant {
        let nth = index * self.lanes + lane;
        self.start + Duration::from_nanos(nth * 1_000_000_000 / self.rate)
    }

    /// Computes how many events of `lane`, counted from its first, are due `now`; at most all of
    /// them.
    fn due_by(&self, lane: u64, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        let all = u64::try_from(passed * u128::from(self.rate) / 1_000_000_000);
        let all = all.unwrap_or(u64::MAX).saturating_add(1);
        (all.saturating_sub(lane).div_ceil(self.lanes)).min(self.events)
    }
}

async fn measure(options: &Options, rate: u64) -> Result<Figures> {
    let server = options.common.start()?;
    let wasm = std::fs::read(server::guest(&options.guests, "w1")?)?;
    server::push(&server, "w1", &wasm, "", "").await?;
    let lanes = options.lanes.max(1) as u64;
    let events = (rate * options.seconds / lanes).max(1);
    let mut senders = Vec::new();
    for lane in 0..lanes {
        let mut sender = Sender::connect(&server.url).await?;
        // Each lane sends one event before the schedule starts, so that its row exists.
        sender.events(SINGLE, body(lane, 0..1)).await?;
        senders.push(sender);
    }
    server::wait_until_at(&server, "w1", lanes).await?;
    let watched = watchers(&server, options.watchers.max(1)).await?;
    let schedule =
        Schedule { start: Instant::now() + Duration::from_millis(100), rate, lanes, events };
    let watch = tokio::spawn(watch(watched.first().context("no watcher")?.clone(), schedule));
    let (before, own) = (server::usage(&server)?, cpu_time::ProcessTime::now());
    let senders = senders.into_iter().zip(0..);
    let senders: Vec<_> =
        senders.map(|(sender, lane)| tokio::spawn(send(sender, lane, schedule))).collect();
    let mut acks = Vec::new();
    for sender in senders {
        acks.push(sender.await??);
    }
    let shown = timeout(PATIENCE, watch).await.context("not all changes arrived")???;
    let wall = schedule.start.elapsed().as_secs_f64();
    let (after, own) = (server::usage(&server)?, own.elapsed().as_secs_f64());
    check_log(&server, lanes * (events + 1)).await?;
    let warm = schedule.start + Duration::from_secs(options.warm_up);
    let mut figures = times(schedule, warm, &acks, &shown.at)?;
    let million = (lanes * events) as f64 / 1e6;
    figures.extend([
        ("deltas_per_s", shown.deltas as f64 / wall),
        ("server_cpu", (after.cpu_s - before.cpu_s) / wall),
        ("load_cpu", own / wall),
        ("cpu_s_per_million", (after.cpu_s - before.cpu_s) / million),
    ]);
    Ok(figures)
}

type LatencyTable = (Client, lantern_client::Table);

/// Connects clients, and waits until they have all existing rows.
async fn watchers(server: &Server, count: usize) -> Result<Vec<LatencyTable>> {
    let url = format!("{}/v1/feed", server.url.replacen("http", "ws", 1));
    let mut watchers = Vec::new();
    for _ in 0..count {
        let options = ClientOptions { changes_buffer: 1 << 16, ..ClientOptions::default() };
        let client = Client::connect(&url, options).await?;
        let table = client.table("w1/product");
        let live = table.wait_for_status(lantern_client::Status::is_live);
        timeout(PATIENCE, live).await.context("a client did not become live")?;
        watchers.push((client, table));
    }
    Ok(watchers)
}

/// Sends the events of `lane` when they are due. Returns when each was acknowledged.
async fn send(mut sender: Sender, lane: u64, schedule: Schedule) -> Result<Vec<Instant>> {
    let mut acks = Vec::with_capacity(usize::try_from(schedule.events)?);
    let mut next = 0;
    while next < schedule.events {
        sleep_until(schedule.due(lane, next).into()).await;
        let due = schedule.due_by(lane, Instant::now()).clamp(next + 1, next + PER_REQUEST);
        let media_type = if due == next + 1 { SINGLE } else { BATCH };
        // The first event of the lane was sent before the schedule started, so the numbers are
        // shifted by one.
        sender.events(media_type, body(lane, next + 1..due + 1)).await?;
        let now = Instant::now();
        (next..due).for_each(|_| acks.push(now));
        next = due;
    }
    Ok(acks)
}

/// Formats orders of a lane's product: a single event, or an array of events.
fn body(lane: u64, range: std::ops::Range<u64>) -> Bytes {
    let order = |index: u64| {
        format!(
            r#"{{"specversion":"1.0","id":"{lane}-{index}","source":"lane","type":"order.placed","subject":"u{index}","tenant":"t{lane}","data":{{"user":"u{index}","product":"lane{lane}","country":"DE","quantity":1,"cents":{index}}}}}"#
        )
    };
    match range.end - range.start {
        1 => order(range.start).into(),
        _ => format!("[{}]", range.map(order).collect::<Vec<_>>().join(",")).into(),
    }
}

/// The times at which a client showed the events of the lanes.
struct Shown {
    /// The times by lane, in the order of the lane's events.
    at: Vec<Vec<Instant>>,
    deltas: u64,
}

#[derive(Deserialize)]
struct Product {
    orders: u64,
}

/// Follows the table until it contains all events. Returns when each event was shown.
async fn watch((client, table): LatencyTable, schedule: Schedule) -> Result<Shown> {
    let mut changes = table.changes();
    let lanes = usize::try_from(schedule.lanes)?;
    let mut shown = Shown { at: vec![Vec::new(); lanes], deltas: 0 };
    let mut left = schedule.lanes * schedule.events;
    while left > 0 {
        match changes.next().await.context("the feed ended")? {
            Change::Delta { up, .. } => {
                let now = Instant::now();
                shown.deltas += 1;
                for (key, row) in up {
                    let lane = key.strip_prefix("lane").context("a row of no lane")?;
                    let at = &mut shown.at[lane.parse::<usize>()?];
                    let orders = row.read::<Product>()?.orders - 1;
                    let new = orders - at.len() as u64;
                    (0..new).for_each(|_| at.push(now));
                    left -= new;
                }
            }
            Change::Missed(missed) => anyhow::bail!("{missed} changes were missed"),
            Change::Ended(error) => return Err(error.into()),
            Change::Snapshot { .. } | Change::Resumed { .. } | Change::Tick { .. } => (),
        }
    }
    drop(client);
    Ok(shown)
}

/// Computes the times of all events that were due after the warm-up, in milliseconds.
fn times(
    schedule: Schedule,
    warm: Instant,
    acks: &[Vec<Instant>],
    shown: &[Vec<Instant>],
) -> Result<Figures> {
    let (mut after_ack, mut after_due, mut until_ack) =
        (ingest::times()?, ingest::times()?, ingest::times()?);
    for (lane, (acks, shown)) in acks.iter().zip(shown).enumerate() {
        for (index, (ack, shown)) in acks.iter().zip(shown).enumerate() {
            let due = schedule.due(lane as u64, index as u64);
            if due < warm {
                continue;
            }
            // A change may be shown before the acknowledgement arrives.
            after_ack.saturating_record(micros(shown.saturating_duration_since(*ack)));
            after_due.saturating_record(micros(shown.saturating_duration_since(due)));
            until_ack.saturating_record(micros(ack.saturating_duration_since(due)));
        }
    }
    ensure!(!after_ack.is_empty(), "nothing was due after the warm-up");
    let ms = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(vec![
        ("ack_to_shown_p50_ms", ms(&after_ack, 0.5)),
        ("ack_to_shown_p99_ms", ms(&after_ack, 0.99)),
        ("ack_to_shown_p999_ms", ms(&after_ack, 0.999)),
        ("ack_to_shown_max_ms", after_ack.max() as f64 / 1e3),
        ("due_to_ack_p50_ms", ms(&until_ack, 0.5)),
        ("due_to_ack_p99_ms", ms(&until_ack, 0.99)),
        ("due_to_shown_p50_ms", ms(&after_due, 0.5)),
        ("due_to_shown_p99_ms", ms(&after_due, 0.99)),
        ("due_to_shown_max_ms", after_due.max() as f64 / 1e3),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the two functions of a schedule against each other: at the due time of an event, that
    /// event and all events before it are due.
    #[test]
    fn the_schedule_agrees_with_itself() {
        for (rate, lanes) in [(100, 1), (1_000, 4), (10_000, 3)] {
            let start = Instant::now();
            let schedule = Schedule { start, rate, lanes, events: 500 };
            for lane in 0..lanes {
                for index in 0..500 {
                    let due = schedule.due(lane, index);
                    // The time is rounded down to whole nanoseconds.
                    let just_after = due + Duration::from_nanos(1);
                    assert_eq!(schedule.due_by(lane, just_after), index + 1);
                }
            }
            assert_eq!(schedule.due_by(0, start + Duration::from_secs(1_000)), 500);
        }
    }
}
