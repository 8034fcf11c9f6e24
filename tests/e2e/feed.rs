//! Tests that a client of the feed keeps its rows correct while its connection is cut and the
//! server is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lantern_client::{Change, Changes, Client, Options, Row, Status};
use lantern_tests::{PATIENCE, Server, guest};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::{line, random};

/// How many times connections are cut, and how many times the server is killed.
const CUTS: u64 = 25;
const KILLS: u64 = 3;

/// Forwards connections to `target`, and cuts all of them when `cuts` changes.
async fn proxy(target: String, cuts: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (target, cuts) = (target.clone(), cuts.clone());
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let before = cuts.load(Ordering::SeqCst);
                let cut = async {
                    while cuts.load(Ordering::SeqCst) == before {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    () = cut => {}
                }
            });
        }
    });
    address.to_string()
}

/// Reads changes until the row with the key `last` arrives, and checks that each change begins at
/// the commit at which the previous change ended. The argument `last` is the epoch and the commit
/// at which the first change begins. Returns the numbers of snapshots and deltas.
async fn watch_until_last(mut changes: Changes, mut last: (String, u64)) -> (u64, u64) {
    let (mut snapshots, mut deltas, mut done) = (0_u64, 0_u64, false);
    while !done {
        match changes.next().await.expect("the client lives") {
            Change::Snapshot { commit: pos, epoch } => {
                assert!(epoch != last.0 || pos >= last.1, "{pos} after {last:?}");
                last = (epoch, pos);
                snapshots += 1;
            }
            Change::Delta { from, to: pos, up, .. } => {
                assert_eq!(from, last.1, "no gap and no repeat");
                last.1 = pos;
                deltas += 1;
                done = up.iter().any(|(key, _)| key == "last");
            }
            Change::Tick { commit: pos, .. } => {
                assert!(pos >= last.1, "{pos} after {last:?}");
                last.1 = pos;
            }
            Change::Resumed { commit } => last.1 = commit,
            Change::Missed(count) => panic!("the watcher keeps up, but missed {count}"),
            Change::Ended(error) => panic!("{error}"),
        }
    }
    (snapshots, deltas)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_ends_with_exactly_the_tables_rows() {
    let mut random = random();
    let mut server = Server::start(&["live.heartbeat_ms=1000"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let cuts = Arc::new(AtomicU64::new(0));
    let target = server.url.trim_start_matches("http://").to_owned();
    let url = format!("ws://{}/v1/feed", proxy(target, cuts.clone()).await);
    let options = Options {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(100),
        ..Options::default()
    };
    let client = Client::connect(&url, options).await.unwrap();
    let table = client.table("rogue/seen");

    // A stream of the table's changes makes two checks. Commits must never go back within an epoch,
    // and each change must begin at the commit at which the previous one ended. The stream begins
    // with the rows that the table shows now.
    tokio::time::timeout(PATIENCE, table.wait_for_status(Status::is_live)).await.unwrap();
    let changes = table.changes();
    let last = (table.epoch().unwrap(), table.commit().unwrap());
    let watcher = tokio::spawn(watch_until_last(changes, last));

    let mut number = 0;
    for round in 0..CUTS {
        for _ in 0..random.u64(1..8) {
            let lines: String = (0..random.u64(1..40))
                .map(|_| {
                    number += 1;
                    let subject = format!("s{}", random.u64(0..20));
                    line(number, "probe.sent", &subject, &format!("{{\"text\":\"{number}\"}}"))
                })
                .collect();
            server.events(lines).await.unwrap();
        }
        cuts.fetch_add(1, Ordering::SeqCst);
        if round % (CUTS / KILLS) == 3 {
            server.kill().unwrap();
            server.restart().unwrap();
        }
    }
    // The test waits until the client is connected again, so that the last change arrives as a
    // delta.
    table.wait_for_status(|status| status.is_live()).await;
    server.events(line("last", "probe.sent", "last", "{}")).await.unwrap();
    let status = server.caught_up("rogue").await.unwrap();
    let next = status["versions"][0]["shards"][0]["next"].as_u64().unwrap();
    tokio::time::timeout(PATIENCE, table.wait_for(0, next - 1)).await.unwrap().unwrap();
    let expected: BTreeMap<_, _> = server.rows("rogue/seen").await.unwrap().into_iter().collect();
    let read = |rows: &BTreeMap<String, Row>| -> BTreeMap<String, serde_json::Value> {
        rows.iter().map(|(key, row)| (key.clone(), row.read().unwrap())).collect()
    };
    assert_eq!(read(&table.rows()), expected);
    let (snapshots, deltas) = tokio::time::timeout(PATIENCE, watcher).await.unwrap().unwrap();
    // All changes that happen while the client is disconnected arrive as one delta.
    assert!(deltas > KILLS, "{deltas} deltas");
    assert_eq!(snapshots, 1, "a connection that comes back goes on where it was");
}
