//! Compares the declarations in `plugins/declarations` with independent calculations.

use std::collections::{BTreeMap, BTreeSet};

use lantern_sdk::Timestamp;
use lantern_sdk::testing::{TestEvent, check_determinism, read_ndjson, set_source};
use serde_json::{Value, json};

use super::host;
use crate::Declare;

const EVENTS: &str = include_str!("../../../funnel/events.ndjson");
const REVENUE: &str = include_str!("../../../declarations/revenue-per-user.yaml");
const SESSIONS: &str = include_str!("../../../declarations/sessions.yaml");

fn parsed() -> Vec<Value> {
    EVENTS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn time(event: &Value) -> Timestamp {
    event["time"].as_str().unwrap().parse().unwrap()
}

#[test]
fn revenue_per_user_agrees_with_plain_maps() {
    set_source("revenue-per-user.yaml", REVENUE);
    check_determinism::<Declare>("", &read_ndjson(EVENTS));
    let mut host = host(REVENUE);
    host.feed_ndjson(EVENTS);
    assert!(host.parked().is_empty(), "{:?}", host.parked());

    let mut users: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in parsed() {
        if event["type"] == "order.placed" {
            users.entry(text(&event["data"]["user"])).or_default().push(event);
        }
    }
    assert!(users.len() > 3);
    let rows = host.rows("by_user");
    assert_eq!(rows.len(), users.len());
    for (user, orders) in &users {
        let row = &rows[user];
        let cents = || orders.iter().map(|it| it["data"]["cents"].as_i64().unwrap());
        let quantity = orders.iter().map(|it| it["data"]["quantity"].as_i64().unwrap_or(1));
        let products: BTreeSet<String> =
            orders.iter().map(|it| text(&it["data"]["product"])).collect();
        let newest = orders.iter().max_by_key(|it| time(it)).unwrap();
        assert_eq!(row["user"], json!(user));
        assert_eq!(row["orders"], json!(orders.len()));
        assert_eq!(row["quantity"], json!(quantity.sum::<i64>()));
        assert_eq!(row["cents"], json!(cents().sum::<i64>()));
        assert_eq!(row["largest"], json!(cents().max()));
        assert_eq!(row["products"]["estimate"], json!(products.len()));
        assert_eq!(row["country"], newest["data"]["country"]);
        assert_eq!(row["last_at"], json!(time(newest).to_string()));
    }

    let all: Vec<&Value> = users.values().flatten().collect();
    let days = host.rows("by_day");
    // The sample contains one day in Berlin, which begins at 23:00 UTC.
    let row = &days["2026-02-28T23:00:00Z"];
    assert_eq!((days.len(), &row["day"]), (1, &json!("2026-03-01")));
    assert_eq!(row["orders"], json!(all.len()));
    assert_eq!(row["users"]["estimate"], json!(users.len()));
    assert_eq!(row["order_cents"]["count"], json!(all.len()));
    let mut cents: Vec<i64> = all.iter().map(|it| it["data"]["cents"].as_i64().unwrap()).collect();
    cents.sort_unstable();
    assert_eq!(row["cents"], json!(cents.iter().sum::<i64>()));
    let rank = (cents.len() * 95).div_ceil(100);
    let (exact, shown) = (cents[rank - 1], row["order_cents"]["p95"].as_i64().unwrap());
    assert!((exact - shown).abs() * 128 <= exact, "{shown} is not near {exact}");
}

/// Divides the sorted events of each user into sessions, wherever 10 minutes pass without an event.
#[test]
fn sessions_agree_with_sorting_and_cutting() {
    set_source("sessions.yaml", SESSIONS);
    check_determinism::<Declare>("", &read_ndjson(EVENTS));
    let mut host = host(SESSIONS);
    host.feed_ndjson(EVENTS);
    let end: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    host.feed([TestEvent::new("page.viewed").subject("end").time(end)]);
    assert!(host.parked().is_empty() && host.timer_failures().is_empty());
    assert!(host.rows("late").is_empty(), "the sample has no late events");

    let mut users: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in parsed() {
        users.entry(text(&event["subject"])).or_default().push(event);
    }
    let gap = std::time::Duration::from_secs(600);
    let mut expected = BTreeMap::new();
    for (user, mut events) in users {
        events.sort_by_key(time);
        for visit in events.chunk_by(|a, b| time(b) < time(a) + gap) {
            let of = |kind: &str| visit.iter().filter(|it| it["type"] == kind).collect::<Vec<_>>();
            let (first, last) = (&visit[0], &visit[visit.len() - 1]);
            let cents = of("order.placed");
            let cents: i64 = cents.iter().map(|it| it["data"]["cents"].as_i64().unwrap()).sum();
            let row = json!({
                "user": user, "start": time(first).to_string(),
                "end": (time(last) + gap).to_string(),
                "events": visit.len(), "pages": of("page.viewed").len(),
                "orders": of("order.placed").len(), "cents": cents,
                "landing": first["data"]["product"], "exit": last["data"]["product"],
                "first_at": time(first).to_string(), "last_at": time(last).to_string(),
            });
            expected.insert(format!("{}/{user}", time(first)), row);
        }
    }
    assert!(expected.len() > 10);
    assert_eq!(host.rows("visits"), expected);
}
