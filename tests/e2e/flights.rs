//! Folds six months of real flights, and compares the tables with those that SQLite
//! computes.

use std::io::Write;
use std::process::{Command, Stdio};

use lantern_tests::{Server, guest, root, run, without};
use serde_json::Value;

/// The tables that `independent/flights.py` computes with SQLite from the same lines.
pub(crate) fn independent(script: &str, lines: &[u8]) -> Value {
    let mut python = Command::new("python3")
        .arg(root().join("tests/independent").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut stdin = python.stdin.take().unwrap();
    let lines = lines.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&lines).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Compares the fields that the independent computation has, row by row.
pub(crate) fn compare(table: &str, found: &[(String, Value)], expected: &Value) {
    let expected = expected.as_object().unwrap();
    assert_eq!(found.len(), expected.len(), "rows of {table}");
    for (key, row) in found {
        let wanted = expected.get(key).unwrap_or_else(|| panic!("{table}: row `{key}` is extra"));
        for (field, value) in wanted.as_object().unwrap() {
            let same = match (row[field].as_f64(), value.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                _ => row[field] == *value,
            };
            assert!(same, "{table}/{key}: {field} is {}, SQLite says {value}", row[field]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_months_of_flights_equal_sqlite_row_by_row() {
    if without("python3") {
        println!("skipped: no Python");
        return;
    }
    let server = Server::start(&[]).unwrap();
    let file = root().join("tests/data/flights-2013-h1.ndjson.zst");
    server.project("flight-delays", &guest("flight-delays"), "").await.unwrap();
    let file_name = file.to_str().unwrap();
    let output = run(&["events", "import", file_name, "--server", &server.url]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.caught_up("flight-delays").await.unwrap();
    let lines = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let expected = independent("flights.py", &lines);
    for table in ["by_carrier", "by_origin", "by_hour"] {
        let found = server.rows(&format!("flight-delays/{table}")).await.unwrap();
        compare(table, &found, &expected[table]);
    }
    assert_eq!(expected["events"], 339_850);
    let parked = server.get("/v1/projections/flight-delays/parked").await.unwrap();
    assert_eq!(parked["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn revenue_and_funnel_of_a_shop_equal_sqlite_row_by_row() {
    if without("python3") {
        println!("skipped: no Python");
        return;
    }
    let server = Server::start(&[]).unwrap();
    let shop = lantern_cli::generate::Shop::new(lantern_cli::generate::Options {
        events: 50_000,
        ..lantern_cli::generate::Options::default()
    });
    let mut lines = Vec::new();
    (0..50_000).for_each(|index| shop.write_line(index, &mut lines));
    server.events(lines.clone()).await.unwrap();
    for (name, script) in [("revenue", "revenue.py"), ("funnel", "funnel.py")] {
        server.project(name, &guest(name), "").await.unwrap();
        let expected = independent(script, &lines);
        for (table, expected) in expected.as_object().unwrap() {
            let found = server.rows(&format!("{name}/{table}")).await.unwrap();
            compare(table, &found, expected);
        }
    }
}
