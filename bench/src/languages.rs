//! Measures the same projection in each language, as a component, a script or a declaration: the
//! size of the upload, the time from the upload to the first row, CPU time per event, and the
//! memory of an instance.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lantern_cli::generate::{Options as ShopOptions, Shop};
use lantern_plugin::source_media_type;
use lantern_tests::Server;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::report::{Figures, Point, in_turn, median, print};
use crate::server::{self, Common};

/// The name of the projection in every language.
const PROJECTION: &str = "w1";
/// The name of the table whose first row is awaited.
const TABLE: &str = "product";
/// The number of events in the log when the time to the first row is measured.
const FEW_EVENTS: u64 = 1_000;
/// The number of shop events in the generated sequence. This benchmark uses only the first ones.
/// The number is the same as in W1, because it determines how many events share a row.
const SHOP_EVENTS: u64 = 5_000_000;
/// The maximum time that an upload may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// How many of W1's five million events are folded.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// How often each upload is measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The folder with `python.wasm`, `javascript.wasm` and `declare.wasm`.
    #[arg(long, default_value = "target/interpreters")]
    interpreters: PathBuf,
    /// What is uploaded: W1 as a component, a script or a declaration; may be repeated. CPU
    /// time is compared with the first [default: W1 in each language for which it is built].
    #[arg(long = "upload")]
    uploads: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What is uploaded by default. `cargo xtask bench` builds the components in C and Go if their
/// tools are installed.
const UPLOADS: [&str; 6] = [
    "target/wasm32-unknown-unknown/guest/w1.wasm",
    "bench/w1/declaration.yaml",
    "bench/w1/c/build/w1.wasm",
    "bench/w1/go/build/w1.wasm",
    "bench/w1/w1.js",
    "bench/w1/w1.py",
];

/// Returns the default uploads that exist. Names the others.
fn built_uploads() -> Vec<PathBuf> {
    let (built, missing): (Vec<_>, Vec<_>) =
        UPLOADS.iter().map(PathBuf::from).partition(|upload| upload.is_file());
    for upload in missing {
        eprintln!("skipped: {} is not built", upload.display());
    }
    built
}

/// Measures all uploads in turn and prints them.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if options.uploads.is_empty() {
        options.uploads = built_uploads();
    }
    let options = &options;
    let interpreters = std::path::absolute(&options.interpreters)?;
    let name = |upload: &PathBuf| upload.display().to_string();
    let figures = in_turn(options.rounds, &options.uploads, name, async |upload| {
        measure(options, &interpreters, upload).await
    })
    .await?;
    let cpu = |rounds: &[Figures]| {
        let all = rounds.iter().flatten().filter(|(name, _)| *name == "cpu_us_per_event");
        median(all.map(|(_, value)| *value).collect())
    };
    let first = figures.first().map(|rounds| cpu(rounds)).context("nothing is measured")?;
    let point = |(upload, rounds): (&PathBuf, &Vec<Figures>)| {
        // The components of several languages have the same file name.
        let ratio = (cpu(rounds) / first * 100.0).round() / 100.0;
        Point::new(&upload.display().to_string()).with("cpu_ratio", ratio).with_medians(rounds)
    };
    let points: Vec<_> = options.uploads.iter().zip(&figures).map(point).collect();
    print("languages", options.common.json, &points);
    Ok(())
}

async fn measure(options: &Options, interpreters: &Path, upload: &Path) -> Result<Figures> {
    let cache = TempDir::new()?;
    let start = || {
        let mut common = options.common.clone();
        common.set.push(format!("plugin.interpreters_dir={}", interpreters.display()));
        common.set.push(format!("plugin.cache_dir={}", cache.path().display()));
        common.start()
    };
    // The second server finds the compiled code that the first server stored.
    let mut to_first_row = [0.0; 2];
    for ms in &mut to_first_row {
        let mut server = start()?;
        server.events(lines(0..FEW_EVENTS, FEW_EVENTS)).await?;
        *ms = push(&server, upload, FEW_EVENTS).await?.as_secs_f64() * 1e3;
        server::stop(&mut server)?;
    }
    let mut server = start()?;
    for first in (0..options.events).step_by(100_000) {
        let events = first..(first + 100_000).min(options.events);
        server.events(lines(events, SHOP_EVENTS)).await?;
    }
    let before = server::usage(&server)?;
    push(&server, upload, options.events).await?;
    let after = server::usage(&server)?;
    let status = server.get(&format!("/v1/projections/{PROJECTION}")).await?;
    let memory = status["versions"][0]["shards"][0]["memory_bytes"].as_f64();
    server::stop(&mut server)?;
    Ok(vec![
        ("cpu_us_per_event", (after.cpu_s - before.cpu_s) * 1e6 / options.events as f64),
        ("cold_ms", to_first_row[0]),
        ("warm_ms", to_first_row[1]),
        ("upload_bytes", std::fs::metadata(upload)?.len() as f64),
        ("instance_mib", memory.context("no memory in the status")? / f64::from(1 << 20)),
    ])
}

fn lines(events: std::ops::Range<u64>, all: u64) -> Vec<u8> {
    let shop = Shop::new(ShopOptions { events: all, ..ShopOptions::default() });
    let mut lines = Vec::new();
    events.for_each(|index| shop.write_line(index, &mut lines));
    lines
}

/// Uploads a component or a source, and waits until it serves rows and has folded `events`.
/// Returns how long the first row took.
async fn push(server: &Server, upload: &Path, events: u64) -> Result<Duration> {
    let bytes = std::fs::read(upload).with_context(|| format!("`{}`", upload.display()))?;
    let name = upload.file_name().and_then(|name| name.to_str()).context("a name is no text")?;
    let started = Instant::now();
    match source_media_type(name) {
        None => server::push(server, PROJECTION, &bytes, "", "?check=false").await?,
        Some(media) => {
            let path = format!("/v1/versions?check=false&source_name={name}");
            let (status, answer) = server.request(Method::POST, &path, media, bytes).await?;
            ensure!((200..300).contains(&status), "pushing `{name}`: {status}: {answer}");
        }
    }
    let path = format!("/v1/tables/{PROJECTION}/{TABLE}?limit=1");
    loop {
        // The table does not exist before the version is active, so an error is expected at first.
        let rows = server.get(&path).await.unwrap_or(Value::Null);
        if rows["rows"].as_object().is_some_and(|rows| !rows.is_empty()) {
            break;
        }
        ensure!(started.elapsed() < PATIENCE, "`{name}` has no row");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first_row = started.elapsed();
    server::wait_until_at(server, PROJECTION, events).await?;
    Ok(first_row)
}
