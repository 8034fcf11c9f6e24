#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use lantern_sdk::testing::{Harness, TestEvent, check_determinism, read_ndjson};
use serde_json::{Value, json};

use super::*;

/// Ten generated minutes.
const EVENTS: &str = include_str!("../events.ndjson");

fn request(time: &str, duration_ms: Value) -> TestEvent {
    let data = json!({"service": "api", "duration_ms": duration_ms});
    TestEvent::new("request.completed").at(time).json(&data)
}

/// Returns the percentile of the sorted values: the smallest value such that at least `percent` per
/// cent of the values are not greater.
fn exact(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Compares every row with percentiles of the sorted durations, which are read from the text of the
/// sample. A percentile of a sketch may differ by 1/128 of its value.
fn check_sample(parameters: &str, length: usize, rest: &str) -> usize {
    let mut durations: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for line in EVENTS.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let start = &event["time"].as_str().unwrap()[..length];
        let key = format!("{start}{rest}/{}", event["data"]["service"].as_str().unwrap());
        // Whole microseconds, as text: 12.345 ms.
        let (ms, us) = line.split_once("\"duration_ms\":").unwrap().1.split_once('.').unwrap();
        let us: i64 = format!("{ms}{}", &us[..3]).parse().unwrap();
        durations.entry(key.clone()).or_default().push(us);
        *failures.entry(key).or_default() += u64::from(event["data"]["failed"] == true);
    }
    // The last window of each service is not over.
    let open = durations.keys().next_back().unwrap()[..20].to_owned();
    durations.retain(|key, _| !key.starts_with(&open));

    check_determinism::<LatencyPercentiles>(parameters, &read_ndjson(EVENTS));
    let mut host = Harness::<LatencyPercentiles>::with_parameters(parameters);
    host.feed_ndjson(EVENTS);
    assert!(host.parked().is_empty(), "{:?}", host.parked());
    assert!(host.rows("late").is_empty());
    let rows = host.rows("latencies");
    assert!(rows.keys().eq(durations.keys()), "{:?}", rows.keys());
    for (key, mut sorted) in durations {
        sorted.sort_unstable();
        let row = &rows[&key];
        assert_eq!(row["failures"], failures[&key], "{key}");
        let sketch = &row["duration"];
        assert_eq!(sketch["count"], sorted.len(), "{key}");
        assert_eq!(sketch["min"], sorted[0], "{key}");
        assert_eq!(sketch["max"], sorted[sorted.len() - 1], "{key}");
        for percent in [50, 95, 99] {
            let expected = exact(&sorted, percent);
            let found = sketch[format!("p{percent}")].as_i64().unwrap();
            let allowed = expected / 128;
            assert!(
                (found - expected).abs() <= allowed,
                "{key}: p{percent} is {found}, not {expected}"
            );
        }
    }
    rows.len()
}

#[test]
fn the_percentiles_of_each_minute_are_within_the_error_of_the_sorted_durations() {
    assert!(check_sample("{}", 16, ":00Z") > 36);
}

#[test]
fn the_percentiles_of_each_hour_are_within_the_error_of_the_sorted_durations() {
    assert_eq!(check_sample(r#"{"window": "hour"}"#, 13, ":00:00Z"), 4);
}

#[test]
fn a_window_is_written_once_and_later_requests_are_late() {
    let mut host = Harness::<LatencyPercentiles>::new();
    host.feed([
        request("2026-03-01T12:00:10Z", json!(10)),
        request("2026-03-01T12:01:05Z", json!(30)),
        // This request is in time: the newest one is less than 10 s past the end of its window.
        request("2026-03-01T12:00:59Z", json!(20)),
    ]);
    assert!(host.rows("latencies").is_empty());
    host.feed([request("2026-03-01T12:01:10Z", json!(40))]);
    let row = host.row("latencies", "2026-03-01T12:00:00Z/api").unwrap();
    assert_eq!((&row["duration"]["count"], &row["duration"]["max"]), (&json!(2), &json!(20_000)));
    host.feed([request("2026-03-01T12:00:59Z", json!(99))]);
    assert_eq!(host.row("latencies", "2026-03-01T12:00:00Z/api").unwrap(), row);
    assert_eq!(host.row("late", "api").unwrap()["requests"], 1);
}

#[test]
fn a_request_without_a_possible_duration_is_parked() {
    let mut host = Harness::<LatencyPercentiles>::new();
    for bad in [json!(-1), json!("fast"), json!(1e300), Value::Null] {
        host.feed([request("2026-03-01T12:00:10Z", bad)]);
    }
    host.feed([request("2026-03-01T12:00:20Z", json!(0.5))]);
    host.feed([request("2026-03-01T12:05:00Z", json!(1))]);
    assert_eq!(host.parked().len(), 4, "{:?}", host.parked());
    let row = host.row("latencies", "2026-03-01T12:00:00Z/api").unwrap();
    assert_eq!((&row["duration"]["count"], &row["duration"]["p50"]), (&json!(1), &json!(500)));
}

#[test]
fn parameters_that_are_not_possible_are_refused() {
    for (bad, words) in [
        (r#"{"window": "day"}"#, "day"),
        (r#"{"lateness_s": 86401}"#, "`lateness_s` is 86401"),
        (r#"{"windows": "hour"}"#, "windows"),
    ] {
        let error = Harness::<LatencyPercentiles>::try_with_parameters(bad).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}
