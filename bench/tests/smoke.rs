//! Runs every benchmark with about a hundredth of its events, and checks that it runs
//! and that its result is exact. The tests assert nothing about speed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use lantern_tests::{guest, interpreters, root, without};
use serde_json::Value;
use tempfile::TempDir;

/// Returns the folder that contains the guests.
fn guests() -> PathBuf {
    guest("w1").parent().map(Path::to_path_buf).unwrap()
}

/// Runs the benchmark `what` with `args`, and returns the last line of its output as
/// JSON.
fn bench(what: &str, args: &str, folders: &[(&str, &Path)]) -> Value {
    // The logs and states that the benchmark writes are deleted with this folder.
    let dir = TempDir::new().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_lantern-bench"));
    bench.current_dir(dir.path()).arg(what).args(args.split_whitespace());
    for (option, folder) in folders {
        bench.arg(option).arg(folder);
    }
    let output = bench.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} {args}: {}\n{printed}\n{errors}", output.status);
    serde_json::from_str(printed.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{what} printed no JSON: {error}\n{printed}"))
}

/// Returns the number of points that a benchmark of the server has measured.
fn points(result: &Value) -> usize {
    result["points"].as_array().unwrap().len()
}

#[test]
fn the_folds_of_w1_and_w2_are_exact() {
    let dir = TempDir::new().unwrap();
    let (w1, w2) = (guest("w1"), guest("w2"));
    let folders = [("--dir", dir.path()), ("--plugin", &w1)];
    let result = bench("w1", "--events 50000 --rounds 1 --json", &folders);
    assert_eq!(result["exact"], true, "{result}");
    let folders = [("--dir", dir.path()), ("--plugin", &w2), ("--w1-plugin", &w1)];
    for args in ["--tick 60", "--tick 1 --batch-ticks 1"] {
        let args = format!("--events 50000 --rounds 1 --json {args}");
        let result = bench("w2", &args, &folders);
        assert_eq!(result["exact"], true, "{result}");
        for field in ["cpu_s_per_million", "w1_cpu_s_per_million", "native_cpu_s_per_million"] {
            assert!(result[field].as_f64().unwrap() > 0.0, "{result}");
        }
        assert!(result["sessions"].as_u64() > Some(1_000), "{result}");
        let late = result["late_share"].as_f64().unwrap();
        assert!((0.04..0.06).contains(&late), "{result}");
    }
}

#[test]
fn a_guest_is_measured_alone() {
    let result = bench("guest", "--events 5000 --rounds 1", &[("--", &guest("w1"))]);
    assert!(result["fuel_per_event"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn the_server_is_measured_from_outside() {
    let ingest = "--clients 1,4 --events 10000 --single-events 50 --rounds 1 --json";
    assert_eq!(points(&bench("ingest", ingest, &[])), 6);
    let latency = "--rates 100 --seconds 2 --warm-up 1 --rounds 1 --json";
    assert_eq!(points(&bench("latency", latency, &[("--guests", &guests())])), 1);
}

#[test]
fn growth_idle_and_start_are_measured() {
    let guests = guests();
    let folders = [("--guests", guests.as_path())];
    let keys = "--only keys --keys 100,1000 --events 200000 --rounds 1 --json";
    assert_eq!(points(&bench("growth", keys, &folders)), 2);
    let idle = "--projections 4 --distinct 2 --events 10 --clients 4 --rest 1 --seconds 1 --json";
    assert_eq!(points(&bench("idle", idle, &folders)), 2);
    let start = "--plugins 1 --events 1000 --rounds 1 --json";
    assert!(points(&bench("start", start, &folders)) > 0);
}

#[test]
fn each_language_is_measured() {
    if without("python3") || without("npm") {
        return;
    }
    let w1 = root().join("bench/w1");
    let uploads = ["declaration.yaml", "w1.js", "w1.py"].map(|name| w1.join(name));
    let (guest, interpreters) = (guest("w1"), interpreters());
    let mut folders =
        vec![("--interpreters", interpreters.as_path()), ("--upload", guest.as_path())];
    folders.extend(uploads.iter().map(|upload| ("--upload", upload.as_path())));
    let result = bench("languages", "--events 2000 --rounds 1 --json", &folders);
    assert_eq!(points(&result), 4);
}

#[test]
fn the_fold_of_w1_from_kafka_is_exact() {
    if without("kafka") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let libs = std::env::var_os("LANTERN_KAFKA_LIBS").map(PathBuf::from);
    let libs = libs.unwrap_or_else(|| root().join("target/kafka/libs"));
    let plugin = guest("w1");
    let folders = [("--dir", dir.path()), ("--plugin", &plugin), ("--libs", &libs)];
    let result = bench("w1-kafka", "--events 50000 --rounds 1 --json", &folders);
    assert_eq!(result["exact"], true, "{result}");
}
