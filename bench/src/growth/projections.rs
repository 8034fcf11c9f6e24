//! Measures many projections on one log: either all of them subscribe to its events, or only one
//! does.
//!
//! All projections are pushed while the log is empty. Then the server is restarted on a full log,
//! so that all of them begin at the same moment.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lantern_tests::Server;

use super::Options;
use super::fold::{empty, lay, settings, start};
use crate::keyed::KeyedLog;
use crate::report::{Figures, Point, in_turn};
use crate::server;

/// The subscription of a projection that receives no events.
const OTHERS: &str = r#"{"types":["nothing.of.that"]}"#;
/// The minimum number of events that each projection folds. The log is shortened if there are many
/// projections, but not below this number.
const EVENTS_MIN: u64 = 50_000;
/// The maximum time until all projections have folded the log.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Measures projections that all fold the whole log.
pub(super) async fn interested(options: &Options) -> Result<Vec<Point>> {
    let sizes: Vec<_> = options.interested.iter().map(|count| (*count, 0)).collect();
    // With many projections the log is shorter. Up to a hundred projections, it always has the same
    // length.
    let events = |count: u64| (options.events / count.max(1)).max(EVENTS_MIN);
    measure(options, "interested projections", &sizes, events).await
}

/// Measures one projection that folds the log, next to others that subscribe to none of its events.
pub(super) async fn uninterested(options: &Options) -> Result<Vec<Point>> {
    let sizes: Vec<_> = options.uninterested.iter().map(|count| (1, *count)).collect();
    measure(options, "uninterested projections", &sizes, |_| options.events).await
}

async fn measure(
    options: &Options,
    name: &'static str,
    sizes: &[(u64, u64)],
    events: impl Fn(u64) -> u64,
) -> Result<Vec<Point>> {
    let say = |(interested, others): &(u64, u64)| format!("{interested} interested, {others} not");
    let rounds = in_turn(options.rounds, sizes, say, async |&(interested, others)| {
        one(options, interested, others, events(interested)).await
    })
    .await?;
    let lines = sizes.iter().zip(&rounds).map(|(&(interested, others), rounds)| {
        Point::new(name)
            .with("size", if name.starts_with("un") { others } else { interested })
            .with("events", events(interested))
            .with_medians(rounds)
    });
    Ok(lines.collect())
}

async fn one(options: &Options, interested: u64, others: u64, events: u64) -> Result<Figures> {
    let log = KeyedLog { keys: 10_000, filled: false, events, skewed: false, partitions: 1 };
    let log = log.prepare(&options.dir)?;
    let wasm = std::fs::read(server::guest(&options.guests, "keyed")?)?;
    let (data, settings) = (options.dir.join("data"), settings(options, &[]));
    empty(&data)?;
    let mut server = start(&data, &settings)?;
    let pushing = Instant::now();
    for index in 0..others {
        server::push(&server, &format!("other-{index}"), &wasm, OTHERS, "").await?;
    }
    for index in 0..interested {
        server::push(&server, &format!("keyed-{index}"), &wasm, "", "").await?;
    }
    let push_ms = pushing.elapsed().as_secs_f64() * 1e3 / (interested + others) as f64;
    server::stop(&mut server)?;

    lay(&log, &data)?;
    let starting = Instant::now();
    let mut server = start(&data, &settings)?;
    let start_ms = starting.elapsed().as_secs_f64() * 1e3;
    let (before, begun) = (server::usage(&server)?, Instant::now());
    let position = position(&server, interested).await?;
    let folded = wait(&server, interested, interested * events).await?;
    let took = begun.elapsed().as_secs_f64();
    let after = server::usage(&server)?;
    ensure!(folded > position, "all was folded before it could be measured: raise `--events`");
    let million = (folded - position) as f64 / 1e6;
    let peak = after.peak_rss_mib();
    let stop_ms = server::stop(&mut server)?;
    Ok(vec![
        ("applied_per_s", million * 1e6 / took),
        ("cpu_s_per_million", (after.cpu_s - before.cpu_s) / million),
        ("switches_per_million", (after.switches - before.switches) / million),
        ("threads", after.threads),
        ("peak_rss_mib", peak),
        ("push_ms", push_ms),
        ("start_ms", start_ms),
        ("stop_ms", stop_ms),
    ])
}

/// Returns the sum of the next offsets of the projections that subscribe to the events. If there is
/// only one, its own status is requested, because the list of all projections is long.
async fn position(server: &Server, interested: u64) -> Result<u64> {
    let mut sum = 0;
    for index in 0..interested {
        sum += server::position(server, &format!("keyed-{index}")).await?;
    }
    Ok(sum)
}

async fn wait(server: &Server, interested: u64, wanted: u64) -> Result<u64> {
    let started = Instant::now();
    // There is a pause between two checks, because the checks must not dominate the measurement.
    let pause = Duration::from_millis(10.max(interested * 2));
    loop {
        // The last projection is checked first: until it has folded the log, not all have.
        let each = wanted / interested;
        if server::position(server, &format!("keyed-{}", interested - 1)).await? >= each {
            let sum = position(server, interested).await?;
            if sum >= wanted {
                return Ok(sum);
            }
        }
        ensure!(started.elapsed() < PATIENCE, "not all projections reached the end");
        tokio::time::sleep(pause).await;
    }
}
