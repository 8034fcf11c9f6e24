//! Invariant 9 with real sockets: the real server behind a proxy that cuts
//! connections at random bytes, and the real client.
//!
//! A second client is not cut and receives every change separately. Every state that
//! the first client shows must be one that the second one saw. The second client's
//! last state must equal the rows that the server returns over HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use futures_util::StreamExt as _;
use lantern_client::{Change, Changes, Client, Mode, Options, Row, Table, TableOptions};
use lantern_tests::{PATIENCE, Server, guest};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::{Claim, Counts, Run};

/// The claim.
pub const CLAIM: Claim = Claim {
    invariant: 9,
    name: "real-cuts",
    holds: "the real client shows only committed states of the real server, however it is cut",
    counts: Counts { ci: 60, longer: 5_000, of: "connections cut" },
    experiment: try_cuts,
};

/// The watched table. It has one row per subject.
const TABLE: &str = "rogue/seen";
/// The number of subjects.
const SUBJECTS: u64 = 23;
/// After this many cuts the server is killed and started again.
const KILL_EVERY: u64 = 20;

/// Each state that existed, by epoch and commit.
type States = HashMap<(String, u64), BTreeMap<String, String>>;

fn try_cuts(run: &mut Run<'_>) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(cut(run));
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}

async fn cut(run: &mut Run<'_>) -> Result<()> {
    let mut rng = Rng::with_seed(run.seed());
    let mut server = Server::start(&["live.heartbeat_ms=500", "live.tick_ms=50"])?;
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await?;
    let target = server.url.trim_start_matches("http://").to_owned();
    let cuts = Arc::new(AtomicU64::new(0));
    let proxy = proxy(target.clone(), cuts.clone(), rng.fork()).await?;
    let quick = Options {
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(30),
        changes_buffer: 1 << 16,
        ..Options::default()
    };
    let options = TableOptions { mode: Mode::Changes, ..TableOptions::default() };
    let witness = Client::connect(&format!("ws://{target}/v1/feed"), quick.clone()).await?;
    let witness = (witness.table_with(TABLE, options), witness);
    let states = Arc::new(Mutex::new(States::new()));
    let seen = tokio::spawn(witness_all(witness.0.changes(), witness.0.clone(), states.clone()));
    let client = connect(&format!("ws://{proxy}/v1/feed"), &quick).await?;
    let table = client.table(TABLE);
    let shown = Arc::new(Mutex::new(Vec::new()));
    let watched = tokio::spawn(note_all(table.changes(), table.clone(), shown.clone()));

    let (mut sent, mut counted) = (0_u64, 0);
    while run.goes_on() {
        let lines: String = (0..rng.u64(1..6)).map(|n| line(sent + n)).collect();
        sent += lines.lines().count() as u64;
        server.events(lines).await?;
        // A pause, so that the proxy and the client observe some of the changes.
        tokio::time::sleep(Duration::from_millis(rng.u64(..8))).await;
        let now = cuts.load(Ordering::SeqCst).min(run.requested_cases());
        if now / KILL_EVERY > counted / KILL_EVERY {
            server.kill()?;
            server.restart()?;
            run.add("server killed", 1.0);
        }
        run.count(now.saturating_sub(counted));
        counted = counted.max(now);
    }
    run.add("events", sent as f64);
    let status = server.caught_up("rogue").await?;
    let rows: BTreeMap<_, _> =
        server.rows(TABLE).await?.into_iter().map(|(key, row)| (key, row.to_string())).collect();
    ensure!(rows.len() as u64 == sent.min(SUBJECTS), "{} rows: {status}", rows.len());
    for (who, table) in [("the witness", &witness.0), ("the client", &table)] {
        let arrive = async {
            while parsed(&table.rows()) != rows {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, arrive)
            .await
            .with_context(|| format!("{who} does not get to the end"))?;
    }
    for task in [&seen, &watched] {
        ensure!(!task.is_finished(), "a stream of changes ended before its time");
    }
    seen.abort();
    watched.abort();
    judge(run, &shown.lock(), &states.lock())
}

/// Looks up every shown state among those that existed.
fn judge(run: &mut Run<'_>, shown: &[Shown], states: &States) -> Result<()> {
    let mut last: Option<&Shown> = None;
    for state in shown {
        let had = states.get(&(state.epoch.clone(), state.pos));
        let had = had.with_context(|| format!("never was at {} {}", state.epoch, state.pos))?;
        ensure!(*had == state.rows, "a state that never was, at {} {}", state.epoch, state.pos);
        if let Some(last) = last {
            let back = last.epoch == state.epoch && last.pos > state.pos;
            ensure!(!back, "went back from {} to {}", last.pos, state.pos);
        }
        last = Some(state);
    }
    run.add("states shown", shown.len() as f64);
    run.add("states there were", states.len() as f64);
    ensure!(shown.len() > 3, "only {} states were shown", shown.len());
    Ok(())
}

/// The state that the client showed at a moment.
struct Shown {
    epoch: String,
    pos: u64,
    rows: BTreeMap<String, String>,
}

/// Keeps the state after every change.
async fn witness_all(mut changes: Changes, table: Table, states: Arc<Mutex<States>>) -> Result<()> {
    let (mut epoch, mut at) = (String::new(), None);
    let mut rows = BTreeMap::new();
    while let Some(change) = changes.next().await {
        match change {
            Change::Snapshot { .. } => {
                // The rows are those of the newest change, which may be later than
                // this one. States between them are dropped below.
                let (now, pos) = table.with(|rows, pos| (parsed(rows), pos));
                (rows, at) = (now, pos);
                epoch = table.epoch().context("no epoch")?;
            }
            Change::Delta { from, to: pos, up, del, .. } if Some(pos) > at => {
                ensure!(Some(from) == at, "the witness has a gap: {from} after {at:?}");
                rows.extend(up.into_iter().map(|(key, row)| (key, value(&row))));
                del.iter().for_each(|key| drop(rows.remove(key)));
                at = Some(pos);
            }
            Change::Resumed { commit } => at = Some(commit),
            Change::Tick { commit: pos, .. } if Some(pos) > at => at = Some(pos),
            Change::Delta { .. } | Change::Tick { .. } => {}
            Change::Missed(count) => bail!("the witness missed {count} changes"),
            Change::Ended(error) => return Err(error.into()),
        }
        if let Some(pos) = at {
            states.lock().insert((epoch.clone(), pos), rows.clone());
        }
    }
    Ok(())
}

/// Keeps the client's state whenever something changes.
async fn note_all(mut changes: Changes, table: Table, all: Arc<Mutex<Vec<Shown>>>) -> Result<()> {
    while changes.next().await.is_some() {
        let before = table.epoch();
        let (rows, pos) = table.with(|rows, pos| (parsed(rows), pos));
        // Epoch and rows are read separately. They belong together only if the epoch
        // did not change.
        if let (Some(epoch), Some(pos)) = (table.epoch(), pos)
            && before.as_ref() == Some(&epoch)
        {
            all.lock().push(Shown { epoch, pos, rows });
        }
    }
    Ok(())
}

/// The proxy may cut the first connection before the welcome message.
async fn connect(url: &str, options: &Options) -> Result<Client> {
    for _ in 0..200 {
        if let Ok(client) = Client::connect(url, options.clone()).await {
            return Ok(client);
        }
    }
    bail!("no connection comes about at {url}")
}

/// Forwards connections to `target`, and cuts each after a random number of bytes in
/// one direction.
async fn proxy(target: String, cuts: Arc<AtomicU64>, mut rng: Rng) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (target, cuts) = (target.clone(), cuts.clone());
            // The handshake takes about 200 bytes to the client, and 250 from it.
            let most = 1 << rng.usize(6..16);
            let down = rng.usize(..most);
            let up = if rng.u8(..4) == 0 { rng.usize(..1_000) } else { usize::MAX };
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(target).await else { return };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let cut = tokio::select! {
                    cut = pass(from_server, to_client, down) => cut,
                    cut = pass(from_client, to_server, up) => cut,
                };
                cuts.fetch_add(u64::from(cut), Ordering::SeqCst);
            });
        }
    });
    Ok(address.to_string())
}

/// Forwards at most `left` bytes. Returns whether that cut the connection.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: usize) -> bool {
    let mut piece = [0; 1 << 12];
    while left > 0 {
        let most = left.min(piece.len());
        let read = match from.read(&mut piece[..most]).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => read,
        };
        if to.write_all(&piece[..read]).await.is_err() {
            return false;
        }
        left -= read;
    }
    true
}

fn parsed(rows: &BTreeMap<String, Row>) -> BTreeMap<String, String> {
    rows.iter().map(|(key, row)| (key.clone(), value(row))).collect()
}

/// A row as serde writes it, independent of white space.
fn value(row: &Row) -> String {
    row.read::<serde_json::Value>().map_or_else(|e| e.to_string(), |value| value.to_string())
}

fn line(n: u64) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"cuts\",\"type\":\"probe.sent\",\
         \"subject\":\"s{}\",\"data\":{{\"text\":\"{n}\"}}}}\n",
        n % SUBJECTS
    )
}
