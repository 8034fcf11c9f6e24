#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use lantern_sdk::testing::{Harness, TestEvent, check_determinism, read_ndjson};
use serde_json::{Value, json};

use super::*;

const EVENTS: &str = include_str!("../events.ndjson");

/// Ten-second windows, compared with three before.
const SMALL: &str = r#"{"window_s": 10, "lookback": 3, "lateness_s": 0, "z": null}"#;

fn orders(times: impl IntoIterator<Item = i64>) -> Vec<TestEvent> {
    let order = |time| TestEvent::new("order.placed").time(Timestamp::from_seconds(time));
    times.into_iter().map(order).collect()
}

fn view(time: i64) -> TestEvent {
    TestEvent::new("page.viewed").time(Timestamp::from_seconds(time))
}

fn alerts(host: &Harness<RateAlerts>) -> Vec<(String, Value, Value)> {
    let rows = host.rows("alerts").into_iter();
    rows.map(|(window, row)| (window, row["kind"].clone(), row["count"].clone())).collect()
}

fn second(second: i64) -> String {
    Timestamp::from_seconds(second).to_string()
}

#[test]
fn a_drop_is_raised_as_an_event_once() {
    let mut host = Harness::<RateAlerts>::with_parameters(SMALL);
    // Three windows have four events each, the next one has two, and the one after that four again.
    host.feed(orders((0..30).step_by(5).flat_map(|time| [time, time])));
    host.feed(orders([31, 32, 41, 42, 43, 44, 52]));
    assert_eq!(alerts(&host), [(second(30), json!("drop"), json!(2))]);
    let [alert] = &host.emitted()[..] else { panic!("{:?}", host.emitted()) };
    assert_eq!((&*alert.kind, &*alert.subject), ("alert.raised", "order.placed"));
    assert_eq!(alert.time, Timestamp::from_seconds(40));
    assert_eq!(alert.data["mean"], 4.0);
    assert_eq!(alert.data["window"], second(30));
}

#[test]
fn silence_is_a_drop_if_a_clock_goes_on() {
    let mut host = Harness::<RateAlerts>::with_parameters(SMALL);
    host.feed(orders(0..30));
    assert_eq!(alerts(&host), []);
    host.feed((30..100).map(view));
    // After three empty windows there is nothing left to compare with, so there is no fourth alert.
    let raised = alerts(&host);
    let expected = [30, 40, 50].map(|time| (second(time), json!("drop"), json!(0)));
    assert_eq!(raised, expected);
    assert!(host.timers().is_empty());

    // The next event starts the comparison again. The windows without events before it raise no
    // alert.
    host.feed(orders([205]));
    host.feed([view(210)]);
    assert_eq!(alerts(&host).len(), 3);
    assert_eq!(host.row("rates", &second(200)).unwrap()["count"], 1);
}

#[test]
fn windows_long_after_each_other_are_judged_in_one_tick() {
    let mut host = Harness::<RateAlerts>::with_parameters(SMALL);
    host.feed(orders([0, 1_000, 2_000]));
    host.feed([view(3_000)]);
    for time in [0, 1_000, 2_000] {
        assert_eq!(host.row("rates", &second(time)).unwrap()["count"], 1, "{time}");
    }
    assert!(host.timers().is_empty());
    assert!(host.raw_rows("open").is_empty());
}

#[test]
fn late_events_are_reported_next_to_the_count() {
    let mut host = Harness::<RateAlerts>::with_parameters(SMALL);
    host.feed(orders([1, 2, 25, 3]));
    let row = host.row("rates", &second(0)).unwrap();
    assert_eq!((&row["count"], &row["late"]), (&json!(2), &json!(1)));
}

#[test]
fn wrong_parameters_are_reported() {
    for (parameters, why) in [
        (r#"{"window_s": 0}"#, "`window_s` is 0; give 1 to 86400"),
        (r#"{"lookback": 1}"#, "`lookback` is 1; give 2 to 1000"),
        (r#"{"drop_pct": 120}"#, "`drop_pct` is 120; give more than 0 and at most 100"),
        (r#"{"z": -1}"#, "`z` is -1; give more than 0"),
        (r#"{"z": null, "drop_pct": null}"#, "nothing is ever raised"),
        (r#"{"type": "order.*"}"#, "`order.*`; give one exact event type"),
        (r#"{"type": "alert.raised"}"#, "alerts about alerts"),
        (r#"{"clock": [""]}"#, "give one exact event type"),
        (r#"{"lateness_s": 100000}"#, "give at most 86400"),
        (r#"{"windows": 3}"#, "unknown field `windows`"),
        ("[", "EOF"),
    ] {
        let error = Harness::<RateAlerts>::try_with_parameters(parameters).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
    assert!(serde_json::from_str::<Value>(settings::SCHEMA).is_ok());
}

/// Counts the events of each minute in the text of the sample, and compares each count with the
/// ten counts before it by the formulas of a textbook.
#[test]
fn the_sample_agrees_with_an_independent_computation() {
    let mut minutes: BTreeMap<String, u64> = BTreeMap::new();
    for line in EVENTS.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let minute = format!("{}:00Z", &event["time"].as_str().unwrap()[..16]);
        *minutes.entry(minute).or_default() += u64::from(event["type"] == "order.placed");
    }
    // The last minute is not over.
    minutes.pop_last();
    let counts: Vec<f64> = minutes.values().map(|count| *count as f64).collect();

    let outcome = check_determinism::<RateAlerts>("", &read_ndjson(EVENTS));
    let mut host = Harness::<RateAlerts>::new();
    host.feed_ndjson(EVENTS);
    let rates = host.rows("rates");
    assert!(rates.keys().eq(minutes.keys()));
    let mut raised = Vec::new();
    for (place, (minute, row)) in rates.iter().enumerate() {
        assert_eq!(row["count"].as_f64(), Some(counts[place]));
        let Some(first) = place.checked_sub(10) else {
            assert_eq!(row["mean"], Value::Null);
            continue;
        };
        let before = &counts[first..place];
        let mean = before.iter().sum::<f64>() / 10.0;
        let variance = before.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 10.0;
        let z = (counts[place] - mean) / variance.sqrt();
        for (name, expected) in [("mean", mean), ("stddev", variance.sqrt()), ("z", z)] {
            let value = row[name].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{minute} {name}: {value}, not {expected}");
        }
        if counts[place] <= mean / 2.0 || z.abs() >= 3.0 {
            raised.push(minute.clone());
        }
    }
    assert_eq!(host.rows("alerts").into_keys().collect::<Vec<_>>(), raised);
    assert_eq!(raised, ["2026-03-01T12:14:00Z", "2026-03-01T12:17:00Z"]);
    assert_eq!(outcome.emitted.len(), 2);
}
