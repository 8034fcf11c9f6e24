//! Measures how long a server takes to start, with one plugin and with many, and with and without
//! compiled code. It also measures the time from an upload to its first row.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lantern_cli::generate::{Options as ShopOptions, Shop};
use lantern_tests::Server;
use serde_json::Value;

use crate::report::{Figures, Point, print};
use crate::server::{self, Common};

/// The maximum time that a start may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The number of plugins, each with code of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100])]
    plugins: Vec<u32>,
    /// The number of events in the log.
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    /// The name of the plugin that is uploaded.
    #[arg(long, default_value = "w1")]
    plugin: String,
    /// The first table.
    #[arg(long, default_value = "product")]
    table: String,
    /// How often each start and each upload is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The folder of the guests.
    #[arg(long, default_value = "target/guests")]
    guests: std::path::PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Measures starts and uploads and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut points = Vec::new();
    for plugins in &options.plugins {
        points.extend(starts(options, *plugins).await?);
    }
    points.push(uploads(options).await?);
    print("start", options.common.json, &points);
    Ok(())
}

async fn with_events(options: &Options) -> Result<(Server, Vec<u8>)> {
    let server = options.common.start()?;
    let shop = Shop::new(ShopOptions::default());
    let mut lines = Vec::new();
    (0..options.events).for_each(|index| shop.write_line(index, &mut lines));
    server.events(lines).await?;
    let wasm = std::fs::read(server::guest(&options.guests, &options.plugin)?)?;
    Ok((server, wasm))
}

/// Starts the server with `plugins` plugins, alternately with and without their compiled
/// code.
async fn starts(options: &Options, plugins: u32) -> Result<Vec<Point>> {
    let (mut server, wasm) = with_events(options).await?;
    for index in 0..plugins {
        let wasm = server::marked(&wasm, index);
        server::push(&server, &format!("p-{index}"), &wasm, "", "?check=false").await?;
        server::wait_until_at(&server, &format!("p-{index}"), options.events).await?;
        if index % 25 == 24 {
            eprintln!("{} plugins pushed", index + 1);
        }
    }
    server::stop(&mut server)?;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for round in 0..options.rounds.max(1) {
        eprintln!("round {}: {plugins} plugins", round + 1);
        warm.push(start(&mut server, plugins).await?);
        // A start without compiled code and with many plugins takes long, and its result hardly
        // varies. So it is measured only once.
        if plugins < 10 || round == 0 {
            std::fs::remove_dir_all(server.folder().join("cache"))?;
            cold.push(start(&mut server, plugins).await?);
        }
    }
    let point = |cache: &str, rounds: &[Figures]| {
        Point::new("start").with("plugins", plugins).with("cache", cache).with_medians(rounds)
    };
    Ok(vec![point("warm", &warm), point("cold", &cold)])
}

/// Measures one start, until the server is ready and serves every table, and then its stop.
async fn start(server: &mut Server, plugins: u32) -> Result<Figures> {
    let started = Instant::now();
    server.restart()?;
    let listening_ms = ms(started);
    while server.get("/readyz").await.is_err() {
        patient(started)?;
    }
    let ready_ms = ms(started);
    let listed = loop {
        let all = server.get("/v1/projections").await?;
        let all = all["projections"].as_array().cloned().unwrap_or_default();
        if all.iter().all(|p| p["active"].is_string() && lantern_tests::folded(p)) {
            break all.len();
        }
        patient(started)?;
        // There is a pause between two checks, because with many plugins the checks could dominate
        // the measurement.
        let pause = (started.elapsed() / 20).max(Duration::from_millis(1));
        tokio::time::sleep(pause.min(Duration::from_millis(250))).await;
    };
    ensure!(listed == plugins as usize, "{listed} projections instead of {plugins}");
    let serving_ms = ms(started);
    let usage = server::usage(server)?;
    let stop_ms = server::stop(server)?;
    Ok(vec![
        ("listening_ms", listening_ms),
        ("ready_ms", ready_ms),
        ("serving_ms", serving_ms),
        ("cpu_s", usage.cpu_s),
        ("compile_cpu_s", usage.children_cpu_s),
        ("rss_mib", usage.rss_mib()),
        ("threads", usage.threads),
        ("stop_ms", stop_ms),
    ])
}

/// Uploads a plugin that was never compiled, and waits until its first row can be read.
async fn uploads(options: &Options) -> Result<Point> {
    let (server, wasm) = with_events(options).await?;
    let mut rounds = Vec::new();
    for round in 0..options.rounds.max(1) {
        eprintln!("round {}: upload", round + 1);
        let name = format!("new-{round}");
        let wasm = server::marked(&wasm, u32::try_from(round)?);
        let before = server::usage(&server)?;
        let started = Instant::now();
        server::push(&server, &name, &wasm, "", "").await?;
        let pushed_ms = ms(started);
        let path = format!("/v1/tables/{name}/{}?limit=1", options.table);
        loop {
            // The table does not exist before the version is active, so an error is expected at
            // first.
            let rows = server.get(&path).await.unwrap_or(Value::Null);
            if rows["rows"].as_object().is_some_and(|rows| !rows.is_empty()) {
                break;
            }
            patient(started)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let after = server::usage(&server)?;
        rounds.push(vec![
            ("pushed_ms", pushed_ms),
            ("first_row_ms", ms(started)),
            ("cpu_s", after.cpu_s - before.cpu_s),
            ("compile_cpu_s", after.children_cpu_s - before.children_cpu_s),
            ("wasm_kib", wasm.len() as f64 / 1024.0),
        ]);
    }
    Ok(Point::new("upload").with("plugin", options.plugin.as_str()).with_medians(&rounds))
}

fn patient(since: Instant) -> Result<()> {
    ensure!(since.elapsed() < PATIENCE, "it takes longer than {} s", PATIENCE.as_secs());
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
