//! Tests invariant 9 of `docs/proof.md` with real sockets: the real server behind a proxy that cuts
//! connections at random bytes, and the real client.
//!
//! A second client, the *witness*, connects without the proxy and receives every change separately.
//! Every state that one of the two clients shows must be the fold of a prefix of the log; the
//! experiment computes this fold itself. A commit number must mean the same state in both clients,
//! and later commits must mean later states. The last states of both clients must equal the rows
//! that the server returns over HTTP.

use std::collections::BTreeMap;
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

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 9,
    name: "real-cuts",
    holds: "the real client shows only committed states of the real server, however it is cut",
    counts: Counts { ci: 60, longer: 5_000, of: "connections cut" },
    experiment: try_cuts,
};

/// The table that the clients watch. It has one row per subject.
const TABLE: &str = "rogue/seen";
/// The number of subjects that the events have.
const SUBJECTS: u64 = 23;
/// The number of cut connections after which the server is killed and started again.
const KILL_EVERY: u64 = 20;

/// The rows of the table as text, with their keys.
type Rows = BTreeMap<String, String>;

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
    let witnessed = Arc::new(Mutex::new(Vec::new()));
    let seen = tokio::spawn(witness_all(witness.0.changes(), witness.0.clone(), witnessed.clone()));
    let client = connect(&format!("ws://{proxy}/v1/feed"), &quick).await?;
    let table = client.table(TABLE);
    let shown = Arc::new(Mutex::new(Vec::new()));
    let watched = tokio::spawn(note_all(table.changes(), table.clone(), shown.clone()));

    let (mut sent, mut counted) = (0_u64, 0);
    while run.goes_on() {
        let lines: String = (0..rng.u64(1..6)).map(|n| line(sent + n)).collect();
        sent += lines.lines().count() as u64;
        server.events(lines).await?;
        // A pause lets the proxy and the client observe some of the changes.
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
    let rows: Rows =
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
    judge(run, [&witnessed.lock(), &shown.lock()])
}

/// Checks every state that the clients showed, in the order in which each showed them.
fn judge(run: &mut Run<'_>, shown: [&[Shown]; 2]) -> Result<()> {
    // The number of events that the rows contain at each commit.
    let mut commits: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for (who, states) in ["the witness", "the client"].into_iter().zip(shown) {
        let mut last: Option<&Shown> = None;
        for state in states {
            let Shown { epoch, commit, rows } = state;
            let applied = applied(rows)?;
            ensure!(
                *rows == fold(applied),
                "{who} shows a state that never was, at {epoch} {commit}: {rows:?}"
            );
            let known = *commits.entry((epoch, *commit)).or_insert(applied);
            ensure!(
                known == applied,
                "{who} shows {applied} events at {epoch} {commit}, which had {known}"
            );
            if let Some(last) = last.filter(|last| last.epoch == *epoch) {
                ensure!(last.commit <= *commit, "{who} went back from {} to {commit}", last.commit);
            }
            last = Some(state);
        }
    }
    let in_order = commits.iter().zip(commits.iter().skip(1));
    for (((epoch, before), had), ((then, after), has)) in in_order {
        ensure!(
            epoch != then || had <= has,
            "commit {after} of {epoch} has {has} events, and commit {before} had {had}"
        );
    }
    run.add("states shown", shown[1].len() as f64);
    run.add("commits seen", commits.len() as f64);
    ensure!(shown[1].len() > 3, "only {} states were shown", shown[1].len());
    Ok(())
}

/// Computes the number of events that `rows` contain.
fn applied(rows: &Rows) -> Result<u64> {
    let events = |row: &String| -> Result<u64> {
        let row: serde_json::Value = serde_json::from_str(row)?;
        row["events"].as_u64().with_context(|| format!("{row} has no number of events"))
    };
    rows.values().map(events).sum()
}

/// Computes the rows after the first `events` events of the log.
fn fold(events: u64) -> Rows {
    let last = |subject: u64| (0..events).rev().find(|n| n % SUBJECTS == subject);
    let row = |subject: u64| {
        let last = last(subject)?;
        let row = serde_json::json!({
            "events": last / SUBJECTS + 1, "calls": 0, "text": last.to_string()
        });
        Some((format!("s{subject}"), row.to_string()))
    };
    (0..SUBJECTS).filter_map(row).collect()
}

/// A state of the table that a client showed.
struct Shown {
    epoch: String,
    commit: u64,
    rows: Rows,
}

/// Computes the state after every change from the changes alone, and records all states.
async fn witness_all(
    mut changes: Changes,
    table: Table,
    shown: Arc<Mutex<Vec<Shown>>>,
) -> Result<()> {
    let (mut epoch, mut at) = (String::new(), None);
    let mut rows = Rows::new();
    while let Some(change) = changes.next().await {
        match change {
            Change::Snapshot { .. } => {
                // `table` has the rows of the newest change, which may be later than this snapshot.
                // So the changes that these rows already include are skipped below.
                (rows, at) = table.with(|rows, commit| (parsed(rows), commit));
                epoch = table.epoch().context("no epoch")?;
            }
            Change::Delta { from, to, up, del, .. } if Some(to) > at => {
                ensure!(Some(from) == at, "the witness has a gap: {from} after {at:?}");
                rows.extend(up.into_iter().map(|(key, row)| (key, value(&row))));
                del.iter().for_each(|key| drop(rows.remove(key)));
                at = Some(to);
            }
            Change::Resumed { commit } => at = Some(commit),
            Change::Tick { commit, .. } if Some(commit) > at => at = Some(commit),
            Change::Delta { .. } | Change::Tick { .. } => {}
            Change::Missed(count) => bail!("the witness missed {count} changes"),
            Change::Ended(error) => return Err(error.into()),
        }
        if let Some(commit) = at {
            shown.lock().push(Shown { epoch: epoch.clone(), commit, rows: rows.clone() });
        }
    }
    Ok(())
}

/// Records the client's state whenever something changes.
async fn note_all(mut changes: Changes, table: Table, all: Arc<Mutex<Vec<Shown>>>) -> Result<()> {
    while changes.next().await.is_some() {
        let before = table.epoch();
        let (rows, commit) = table.with(|rows, commit| (parsed(rows), commit));
        // The epoch and the rows are read separately. They belong together only if the epoch
        // did not change in between.
        if let (Some(epoch), Some(commit)) = (table.epoch(), commit)
            && before.as_ref() == Some(&epoch)
        {
            all.lock().push(Shown { epoch, commit, rows });
        }
    }
    Ok(())
}

/// Connects a client. It tries again, because the proxy may cut the connection before the welcome
/// message.
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

/// Forwards at most `left` bytes from one side to the other. Returns whether it then cut the
/// connection.
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

fn parsed(rows: &BTreeMap<String, Row>) -> Rows {
    rows.iter().map(|(key, row)| (key.clone(), value(row))).collect()
}

/// Converts a row to text as serde writes it, so that white space makes no difference.
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
