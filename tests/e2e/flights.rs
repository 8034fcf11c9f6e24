//! Folds six months of real flights, and compares the tables with those that SQLite
//! computes.

use std::io::Write;
use std::process::{Command, Stdio};

use lantern_tests::{Server, guest, root, run, without};
use serde_json::Value;

/// Returns the tables that the script `independent/flights.py` computes with SQLite from the same
/// lines.
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

/// Compares those fields of the rows that the independent computation also has.
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
    queries_equal_sqlite(&server, &independent("flight_queries.py", &lines)).await;
}

/// Compares the results of queries over HTTP, and of one query on the command line, with those
/// of SQLite. Results by buckets in time zones with daylight saving are compared with those of
/// Python's zoneinfo.
async fn queries_equal_sqlite(server: &Server, expected: &Value) {
    let table = |table: &str| format!("/v1/tables/flight-delays/{table}");
    let get = async |path: String| server.get(&path).await.unwrap()["rows"].take();
    let busiest = "by=carrier&agg=sum(departures)%20as%20departures,sum(delay_min_sum)%20as%20delay,distinct(hour)%20as%20hours&order=-departures&limit=5";
    let mut found = get(format!("{}?{busiest}", table("by_carrier_hour"))).await;
    for (found, expected) in
        found.as_array_mut().unwrap().iter_mut().zip(expected["busiest"].as_array().unwrap())
    {
        // A sketch counts exactly only up to 512 distinct values, and there are more hours than
        // that.
        let (hours, exact) =
            (found["hours"].as_f64().unwrap(), expected["hours"].as_f64().unwrap());
        assert!((hours - exact).abs() <= 0.07 * exact, "{hours} hours are {exact}");
        found["hours"] = expected["hours"].clone();
    }
    assert_eq!(found, expected["busiest"]);
    let body = r#"{"where":[["origin","in",["JFK","LGA"]]],"time":"hour","start":"2013-03-04",
        "end":"2013-03-11","tz":"America/New_York","by":["origin"],"order":"origin",
        "agg":{"departures":["sum","departures"],"cancellations":["sum","cancellations"]}}"#;
    let path = format!("{}/query", table("by_origin_hour"));
    let post = reqwest::Method::POST;
    let (_, found) = server.request(post, &path, "application/json", body.into()).await.unwrap();
    assert_eq!(found["rows"], expected["week"]);
    let found =
        get(format!("{}?order=-delay_min_sum&cols=hour,delay_min_sum&limit=10", table("by_hour")));
    let found: Vec<Value> =
        found.await.as_array().unwrap().iter().map(|row| row["value"].clone()).collect();
    assert_eq!(Value::from(found), expected["late"]);
    let spread = "agg=p50(departures)%20as%20p50,p95(departures)%20as%20p95,min(departures)%20as%20min,max(departures)%20as%20max";
    assert_eq!(get(format!("{}?{spread}", table("by_hour"))).await, expected["spread"]);
    let mut zones = 0;
    for (name, expected) in expected.as_object().unwrap() {
        let Some((zone, bucket)) = name.split_once(' ') else { continue };
        let query = format!(
            "bucket={bucket}&tz={zone}&agg=count()%20as%20n,sum(departures)%20as%20departures&limit=10000"
        );
        let mut found = get(format!("{}?{query}", table("by_hour"))).await;
        if zone == "UTC" {
            for row in found.as_array_mut().unwrap() {
                row["hour"] = row["hour"].as_str().unwrap().replace('Z', "+00:00").into();
            }
        }
        assert_eq!(found, *expected, "{name}");
        zones += 1;
    }
    assert_eq!(zones, 7);
    let args = [
        "query",
        "flight-delays/by_carrier_hour",
        "--by",
        "carrier",
        "--agg",
        "sum(departures) as departures",
        "--order=-departures",
        "--limit",
        "5",
        "--format",
        "csv",
        "--server",
        &server.url,
    ];
    let output = run(&args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let busiest = expected["busiest"].as_array().unwrap().iter();
    let lines =
        busiest.map(|row| format!("{},{}", row["carrier"].as_str().unwrap(), row["departures"]));
    let lines: Vec<String> =
        std::iter::once("carrier,departures".to_owned()).chain(lines).collect();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    named_query_equals(server, &lines);
}

/// Stores a query on the command line, and compares its result, as CSV and as a Parquet file, with
/// `lines` of CSV.
fn named_query_equals(server: &Server, lines: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let definition = r#"{"table":"flight-delays/by_carrier_hour",
        "parameters":{"least":{"kind":"integer","default":"0"}},
        "query":{"where":[["departures",">=","$least"]],"by":["carrier"],"order":"-departures",
                 "agg":{"departures":["sum","departures"]},"limit":5}}"#;
    std::fs::write(path("busiest.json"), definition).unwrap();
    let query = |arguments: &[&str]| {
        run(&[&["query"], arguments, &["--server", &server.url]].concat()).unwrap()
    };
    let ok = |arguments: &[&str]| {
        let output = query(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ok(&["save", "busiest", &path("busiest.json")]);
    assert!(ok(&["list"]).contains("flight-delays/by_carrier_hour"));
    let csv = ok(&["run", "busiest", "least=1", "--format", "csv"]);
    assert_eq!(csv.lines().collect::<Vec<_>>(), lines);
    assert_eq!(ok(&["run", "busiest", "--limit", "2", "--json"]).lines().count(), 2);
    assert!(ok(&["run", "busiest"]).contains("departures"));
    let file = path("busiest.parquet");
    ok(&["run", "busiest", "--format", "parquet", "--output", &file]);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let wrong = query(&["run", "busiest", "least=x"]);
    assert_eq!(wrong.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("write `least=10`"));
    ok(&["delete", "busiest"]);
    assert_eq!(query(&["show", "busiest"]).status.code(), Some(4));
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
