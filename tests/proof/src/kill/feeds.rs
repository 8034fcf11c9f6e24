//! Implements clients of the feed that run during all crashes. They resume with their tokens, must
//! miss and repeat nothing, and must end with the rows of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt as _;
use lantern_client::{Change, Changes, Client, Options, Table};
use lantern_tests::{PATIENCE, Server};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

/// The number of changes by which a watcher may be behind.
const CHANGES_BUFFER: usize = 65_536;

/// Clients that subscribe to some tables.
pub(crate) struct Feeds {
    tables: Vec<WatchedTable>,
    // The connection ends when this client is dropped.
    _client: Client,
}

struct WatchedTable {
    table: Table,
    seen: Arc<Mutex<AcknowledgedState>>,
    watcher: JoinHandle<()>,
}

/// The counts of changes that a watcher has received, and the first error that it found.
#[derive(Default)]
struct AcknowledgedState {
    deltas: u64,
    snapshots: u64,
    wrong: Option<String>,
}

impl Drop for WatchedTable {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Feeds {
    /// Subscribes to the tables with these names.
    pub(crate) async fn new(server: &Server, tables: &[&str]) -> Result<Self> {
        let url = format!("ws{}/v1/feed", server.url.trim_start_matches("http"));
        let options = Options {
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(20),
            changes_buffer: CHANGES_BUFFER,
            ..Options::default()
        };
        let client = Client::connect(&url, options).await?;
        let watch = |name: &&str| {
            let table = client.table(name);
            let seen = Arc::new(Mutex::new(AcknowledgedState::default()));
            let watcher = tokio::spawn(watch(table.changes(), Arc::clone(&seen)));
            WatchedTable { table, seen, watcher }
        };
        Ok(Self { tables: tables.iter().map(watch).collect(), _client: client })
    }

    /// Checks that each client ends with exactly the rows that the server returns. Returns the
    /// number of changes and the number of snapshots so far.
    pub(crate) async fn check(&self, server: &Server) -> Result<(u64, u64)> {
        let mut counts = (0, 0);
        for WatchedTable { table, seen, watcher } in &self.tables {
            let started = Instant::now();
            loop {
                let expected: BTreeMap<_, _> =
                    server.rows(table.name()).await?.into_iter().collect();
                let shown = rows_of(table)?;
                if table.status().is_live() && shown == expected {
                    break;
                }
                if started.elapsed() > PATIENCE {
                    let (name, status) = (table.name(), table.status());
                    bail!(
                        "the feed of `{name}` ({status:?}) shows {shown:?}, and the table has {expected:?}"
                    );
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            let seen = seen.lock();
            if let Some(wrong) = &seen.wrong {
                bail!("the feed of `{}`: {wrong}", table.name());
            }
            ensure!(!watcher.is_finished(), "the feed of `{}` ended", table.name());
            counts = (counts.0 + seen.deltas, counts.1 + seen.snapshots);
        }
        Ok(counts)
    }
}

fn rows_of(table: &Table) -> Result<BTreeMap<String, Value>> {
    let rows = table.rows();
    rows.iter().map(|(key, row)| Ok((key.clone(), row.read().context("a row")?))).collect()
}

/// Checks that within an epoch no change goes back to an earlier commit, leaves a gap
/// or is repeated.
async fn watch(mut changes: Changes, seen: Arc<Mutex<AcknowledgedState>>) {
    let mut last: Option<(Option<String>, u64)> = None;
    while let Some(change) = changes.next().await {
        let mut seen = seen.lock();
        let before = last.clone();
        let wrong = match (&change, &mut last) {
            (Change::Snapshot { commit: pos, epoch }, last) => {
                seen.snapshots += 1;
                let back = last
                    .as_ref()
                    .is_some_and(|(known, at)| known.as_ref() == Some(epoch) && pos < at);
                *last = Some((Some(epoch.clone()), *pos));
                back
            }
            (Change::Delta { from, to: pos, .. }, Some((_, at))) => {
                seen.deltas += 1;
                let gap = from != at;
                *at = *pos;
                gap
            }
            (Change::Tick { commit: pos, .. }, Some((_, at))) => {
                let back = *pos < *at;
                *at = *pos;
                back
            }
            (Change::Delta { to: pos, .. } | Change::Tick { commit: pos, .. }, last) => {
                *last = Some((None, *pos));
                false
            }
            // The client resumed: its rows stay the same, and have another commit number.
            (Change::Resumed { commit }, Some((_, at))) => {
                *at = *commit;
                false
            }
            (Change::Resumed { .. } | Change::Missed(_) | Change::Ended(_), _) => true,
        };
        if wrong && seen.wrong.is_none() {
            seen.wrong = Some(format!("{change:?} after {before:?}"));
        }
    }
}
