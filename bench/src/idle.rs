//! Measures the cost of idle projections, and of clients of the feed to which the server sends
//! nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use lantern_client::{Client, Options as ClientOptions, Status, Table};
use lantern_tests::Server;

use crate::process::{self, Usage};
use crate::report::{Figures, Point, print};
use crate::server::{self, Common};

/// The number of clients that connect at the same time.
const CONNECTING: usize = 64;
/// The number of files and connections that the process needs in addition to those of the clients.
const OTHER_FILES: u64 = 200;
/// The maximum time that a client may take to connect.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The number of projections; 0 skips them.
    #[arg(long, default_value_t = 1_000)]
    projections: u32,
    /// How many of the projections have a plugin of their own; all others share one plugin.
    #[arg(long, default_value_t = 0)]
    distinct: u32,
    /// The number of events that each has folded before.
    #[arg(long, default_value_t = 1_000)]
    events: u64,
    /// The number of WebSocket clients; 0 skips them. If the limit of open files does not allow
    /// this number, it is reduced.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// The number of clients with an event stream, in a server of their own; 0 skips them. Reduced
    /// like `clients`.
    #[arg(long, default_value_t = 0)]
    streams: usize,
    /// How long to wait before measuring, in seconds: files of shards are closed after
    /// a while.
    #[arg(long, default_value_t = 75)]
    rest: u64,
    /// How long to count CPU time, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The folder of the guests.
    #[arg(long, default_value = "target/guests")]
    guests: std::path::PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Measures idle projections and idle clients, and prints the results.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let files = process::raise_open_files()?;
    let mut points = Vec::new();
    if options.projections > 0 {
        points.push(projections(options).await?);
    }
    if options.clients > 0 {
        points.push(clients(options, files).await?);
    }
    if options.streams > 0 {
        points.push(streams(options, files).await?);
    }
    print("idle", options.common.json, &points);
    Ok(())
}

/// Starts a server that already has a log and one projection, so that the measurement contains only
/// the cost of further projections and clients.
async fn server(options: &Options) -> Result<(Server, Vec<u8>)> {
    let server = options.common.start()?;
    let wasm = std::fs::read(server::guest(&options.guests, "keyed")?)?;
    let mut lines = Vec::new();
    for index in 0..options.events.max(1) {
        lines.extend_from_slice(
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"{index}\",\"source\":\"idle\",\
                 \"type\":\"key.hit\",\"data\":{{\"key\":\"k{}\",\"cents\":1}}}}\n",
                index % 100
            )
            .as_bytes(),
        );
    }
    server.events(lines).await?;
    server::push(&server, "keyed", &wasm, "", "").await?;
    server::wait_until_at(&server, "keyed", options.events.max(1)).await?;
    Ok((server, wasm))
}

async fn projections(options: &Options) -> Result<Point> {
    let (mut server, wasm) = server(options).await?;
    rest(options.rest.min(5)).await;
    let before = server::usage(&server)?;
    let pushing = Instant::now();
    for index in 0..options.projections {
        let own = (index < options.distinct).then(|| server::marked(&wasm, index));
        let wasm = own.as_deref().unwrap_or(&wasm);
        server::push(&server, &format!("idle-{index}"), wasm, "", "").await?;
        if index % 100 == 99 {
            eprintln!("{} projections pushed", index + 1);
        }
    }
    let push_ms = pushing.elapsed().as_secs_f64() * 1e3 / f64::from(options.projections);
    for index in 0..options.projections {
        server::wait_until_at(&server, &format!("idle-{index}"), options.events.max(1)).await?;
    }
    let folded = server::usage(&server)?;
    let figures = idle_figures(options, &server, before, f64::from(options.projections)).await?;
    let stop_ms = server::stop(&mut server)?;
    let each = |kib: f64| (kib - before.rss_kib) / f64::from(options.projections);
    Ok(Point::new("projections")
        .with("count", options.projections)
        .with("distinct", options.distinct)
        .with_medians(&[figures])
        .with_medians(&[vec![
            ("kib_each_after_fold", each(folded.rss_kib)),
            ("push_ms", push_ms),
            ("stop_ms", stop_ms),
        ]]))
}

/// Returns how many of `wanted` clients can connect if a process may have `files` files open.
fn possible(wanted: usize, files: u64) -> usize {
    let most = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    if most < wanted {
        eprintln!("{most} clients instead of {wanted}: a process may have {files} files open");
    }
    wanted.min(most)
}

async fn clients(options: &Options, files: u64) -> Result<Point> {
    let clients = ("clients", possible(options.clients, files));
    connections(options, files, clients, connect, async |_, connected| {
        let live = connected.iter().filter(|(_, table)| table.status().is_live()).count();
        ensure!(live == connected.len(), "{live} of {} clients are still live", connected.len());
        Ok(())
    })
    .await
}

async fn streams(options: &Options, files: u64) -> Result<Point> {
    let streams = ("streams", possible(options.streams, files));
    let http = reqwest::Client::new();
    let open = async |server: &Server| open_stream(&http, server).await;
    connections(options, files, streams, open, async |server, open| {
        let listed = server.get("/v1/feed/clients?limit=1").await?;
        ensure!(listed["open"] == open.len() + 1, "{} streams are still open", listed["open"]);
        Ok(())
    })
    .await
}

/// Measures `count` idle connections, which `connect` opens. At the end, `check` checks that they
/// are still open.
async fn connections<C>(
    options: &Options,
    files: u64,
    (name, count): (&str, usize),
    connect: impl AsyncFn(&Server) -> Result<C>,
    check: impl AsyncFn(&Server, &[C]) -> Result<()>,
) -> Result<Point> {
    let (mut server, _) = server(options).await?;
    // The first client connects before the measurement, so that everything that the
    // server loads only once is already loaded.
    let first = connect(&server).await?;
    rest(options.rest.min(5)).await;
    let before = server::usage(&server)?;
    let connecting = Instant::now();
    let connected: Vec<_> = stream::iter(0..count)
        .map(|_| connect(&server))
        .buffer_unordered(CONNECTING)
        .try_collect()
        .await?;
    let connect_s = connecting.elapsed().as_secs_f64();
    let figures = idle_figures(options, &server, before, count as f64).await?;
    check(&server, &connected).await?;
    drop((connected, first));
    let stop_ms = server::stop(&mut server)?;
    Ok(Point::new(name)
        .with("count", count)
        .with("limit_of_files", files)
        .with_medians(&[figures])
        .with_medians(&[vec![("connects_per_s", count as f64 / connect_s), ("stop_ms", stop_ms)]]))
}

/// Opens an event stream and reads it until all rows of a table have arrived.
async fn open_stream(http: &reqwest::Client, server: &Server) -> Result<reqwest::Response> {
    let url = format!("{}/v1/feed/sse?sub=keyed/total", server.url);
    let read = async {
        let mut answer = http.get(url).send().await?.error_for_status()?;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("event: snap") || !text.ends_with(b"\n\n") {
            text.extend(answer.chunk().await?.context("the stream ended")?);
        }
        Ok(answer)
    };
    tokio::time::timeout(PATIENCE, read).await.context("a stream did not begin")?
}

/// Connects a client and waits until it has all rows of a table.
async fn connect(server: &Server) -> Result<(Client, Table)> {
    let url = format!("{}/v1/feed", server.url.replacen("http", "ws", 1));
    let options = ClientOptions { changes_buffer: 1, ..ClientOptions::default() };
    let client = Client::connect(&url, options).await?;
    let table = client.table("keyed/total");
    let live = table.wait_for_status(Status::is_live);
    tokio::time::timeout(PATIENCE, live).await.context("a client did not become live")?;
    Ok((client, table))
}

/// Measures the memory and CPU time of `count` projections or clients after nothing has happened
/// for a while.
async fn idle_figures(
    options: &Options,
    server: &Server,
    before: Usage,
    count: f64,
) -> Result<Figures> {
    eprintln!("resting for {} s, then counting for {} s", options.rest, options.seconds);
    rest(options.rest).await;
    let begun = server::usage(server)?;
    let started = Instant::now();
    rest(options.seconds.max(1)).await;
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let ended = server::usage(server)?;
    Ok(vec![
        ("kib_each", (ended.rss_kib - before.rss_kib) / count),
        ("anonymous_kib_each", (ended.anonymous_kib - before.anonymous_kib) / count),
        ("rss_mib", ended.rss_mib()),
        ("rss_mib_before", before.rss_mib()),
        ("cpu_s_per_minute", (ended.cpu_s - begun.cpu_s) / minutes),
        ("switches_per_s", (ended.switches - begun.switches) / (minutes * 60.0)),
        ("threads", ended.threads),
    ])
}

async fn rest(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
