//! Folds six months of real flights from a topic with four partitions, and compares the
//! tables with SQLite's and with those of one partition.

use std::collections::{BTreeMap, BTreeSet};

use lantern_tests::{Server, guest, root, run, without};
use serde_json::Value;

use super::{no_kafka, over};
use crate::flights::{compare, independent};

/// The tables that are compared with those of SQLite.
const TABLES: [&str; 3] = ["by_carrier", "by_origin", "by_hour"];
/// The fields that all tables declare with `merge = sum`.
const SUMS: [&str; 4] = ["departures", "cancellations", "delays_known", "delay_min_sum"];

async fn folded(partitions: u32) -> Server {
    let (server, _) = over(partitions, &[]);
    server.project("flight-delays", &guest("flight-delays"), "").await.unwrap();
    let file = root().join("tests/data/flights-2013-h1.ndjson.zst");
    let import = ["events", "import", file.to_str().unwrap(), "--server", &server.url];
    let output = run(&import).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.caught_up("flight-delays").await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn six_months_of_flights_over_four_partitions_equal_sqlite_and_one_partition() {
    if no_kafka() || without("python3") {
        return;
    }
    let four = folded(4).await;
    let one = folded(1).await;
    // The partitions are folded in parallel. Each has a shard with its part of the state.
    let status = four.get("/v1/projections/flight-delays").await.unwrap();
    let shards = status["versions"][0]["shards"].as_array().unwrap();
    let applied: Vec<_> = shards.iter().map(|shard| shard["applied"].as_u64().unwrap()).collect();
    assert_eq!(applied.len(), 4, "{status:#}");
    assert_eq!(applied.iter().sum::<u64>(), 339_850, "{applied:?}");
    assert!(applied.iter().all(|of_partition| *of_partition > 0), "{applied:?}");
    let numbers: BTreeSet<_> = shards.iter().map(|s| s["partition"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..4).collect());

    let file = std::fs::File::open(root().join("tests/data/flights-2013-h1.ndjson.zst")).unwrap();
    let expected = independent("flights.py", &zstd::decode_all(file).unwrap());
    assert_eq!(expected["events"], 339_850);
    for table in TABLES {
        let name = format!("flight-delays/{table}");
        let (of_four, of_one) = (four.rows(&name).await.unwrap(), one.rows(&name).await.unwrap());
        compare(table, &of_four, &expected[table]);
        compare(table, &of_one, &expected[table]);
        let (four, one) = (sums(&of_four), sums(&of_one));
        assert!(four.len() > 2, "{table}");
        assert_eq!(four, one, "the sums of {table}");
    }
    for server in [four, one] {
        let parked = server.get("/v1/projections/flight-delays/parked").await.unwrap();
        assert_eq!(parked["total"], 0);
    }
}

/// Returns the values of the fields that are sums, by key.
fn sums<'a>(rows: &'a [(String, Value)]) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let of_row = |row: &'a Value| SUMS.iter().map(|field| &row[*field]).collect();
    rows.iter().map(|(key, row)| (key.as_str(), of_row(row))).collect()
}
