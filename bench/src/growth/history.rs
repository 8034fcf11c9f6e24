//! Measures a server with a longer log: the time of a start, the time of a start after a kill, the
//! memory after the start, and the time of a seek by time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use lantern_tests::Server;

use super::Options;
use super::fold::{empty, is_ready, lay, settings, start};
use crate::ingest::{micros, times};
use crate::keyed::KeyedLog;
use crate::report::{Figures, Point, in_turn};
use crate::server;

/// The number of seeks by time that are measured.
const SEEKS: u64 = 1_000;

/// Measures one point for each length of the log.
pub(super) async fn measure(options: &Options) -> Result<Vec<Point>> {
    let lengths = &options.log_events;
    let name = |events: &u64| format!("a log of {events} events");
    let rounds =
        in_turn(options.rounds, lengths, name, async |events| one(options, *events).await).await?;
    let lines = lengths.iter().zip(&rounds);
    Ok(lines.map(|(n, rounds)| Point::new("log").with("size", *n).with_medians(rounds)).collect())
}

async fn one(options: &Options, events: u64) -> Result<Figures> {
    let log = KeyedLog { keys: 10_000, filled: false, events, skewed: false, partitions: 1 };
    let path = log.prepare(&options.dir)?;
    let bytes = std::fs::metadata(&path)?.len();
    let (data, settings) = (options.dir.join("data"), settings(options, &[]));
    empty(&data)?;
    lay(&path, &data)?;
    let (server, start_ms) = timed(&data, &settings).await?;
    let usage = server::usage(&server)?;
    let seeks = seeks(&server, events).await?;
    let mut server = server;
    server.kill()?;
    drop(server);
    let (mut server, killed_ms) = timed(&data, &settings).await?;
    server::stop(&mut server)?;
    let ms = |quantile| seeks.value_at_quantile(quantile) as f64 / 1e3;
    Ok(vec![
        ("start_ms", start_ms),
        ("start_after_kill_ms", killed_ms),
        ("rss_mib", usage.rss_mib()),
        ("seek_p50_ms", ms(0.5)),
        ("seek_p99_ms", ms(0.99)),
        ("log_bytes_per_event", bytes as f64 / events as f64),
    ])
}

/// Starts a server and waits until it is ready. Returns the server, and how long the start took, in
/// milliseconds.
async fn timed(data: &std::path::Path, settings: &[String]) -> Result<(Server, f64)> {
    let started = Instant::now();
    let server = start(data, settings)?;
    while !is_ready(&server).await {
        ensure!(started.elapsed() < Duration::from_secs(600), "the server is not ready");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok((server, started.elapsed().as_secs_f64() * 1e3))
}

/// Requests the first event at times spread over the log, and checks each answer.
async fn seeks(server: &Server, events: u64) -> Result<Histogram<u64>> {
    let mut took = times()?;
    for seek in 0..SEEKS {
        // The step between two requested offsets. It is so large that the sequence does not repeat.
        let offset = seek * 7_368_787 % events;
        let time = jiff::Timestamp::from_microsecond(KeyedLog::time(offset).0)?;
        let asked = Instant::now();
        let page = server.get(&format!("/v1/events?time={time}&limit=1")).await?;
        took.saturating_record(micros(asked.elapsed()));
        let found = page["events"][0]["offset"].as_u64().context("no event")?;
        ensure!(found == offset, "at {time} the event is {found} instead of {offset}");
    }
    Ok(took)
}
