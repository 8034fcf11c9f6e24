//! Tests what declarations do. Each test has one claim.

use lantern_sdk::testing::{TestEvent, check_determinism, set_source};
use serde_json::json;

use super::{host, try_host};
use crate::Declare;

fn order(time: &str, data: serde_json::Value) -> TestEvent {
    TestEvent::new("order.placed").at(time).json(&data)
}

const REVENUE: &str = r#"
name: revenue
from: order.placed
where: data.country in ["DE", "FR"]
tables:
  by_product_hour:
    key: [data.product]
    window: { tumbling: 1h, tz: Europe/Berlin, lateness: 10m, emit: final }
    columns:
      orders: count()
      cents: sum(data.cents) unit EUR
      users: distinct(data.user)
      p95: percentile(data.latency_ms, 95)
"#;

#[test]
fn the_declaration_of_the_readme_sums_and_counts() {
    let mut host = host(REVENUE);
    let event = |time: &str, user: &str, country: &str, cents: i64| {
        order(
            time,
            json!({"product": "p/1", "user": user, "country": country, "cents": cents, "latency_ms": cents * 10}),
        )
    };
    host.feed([
        event("2026-03-01T12:00:00Z", "a", "DE", 100),
        event("2026-03-01T12:30:00Z", "b", "FR", 250),
        event("2026-03-01T12:31:00Z", "a", "US", 999),
        event("2026-03-01T12:59:59Z", "a", "DE", 50),
    ]);
    assert!(host.rows("by_product_hour").is_empty());
    host.advance_to("2026-03-01T13:12:00Z".parse().unwrap());
    let rows = host.rows("by_product_hour");
    let row = &rows["2026-03-01T12:00:00Z/p%2F1"];
    assert_eq!((&row["orders"], &row["cents"]), (&json!(3), &json!(400)));
    assert_eq!((&row["users"]["estimate"], &row["p95"]["max"]), (&json!(2), &json!(2500)));
    host.feed([event("2026-03-01T12:59:59Z", "a", "DE", 50)]);
    assert_eq!(host.row("late", "by_product_hour").unwrap(), json!({"events": 1}));
    assert!(host.parked().is_empty(), "{:?}", host.parked());
}

#[test]
fn rows_without_windows_change_with_every_event() {
    let source = r#"
name: totals
from: [order.placed, order.cancelled]
parameters: { least: 10 }
tables:
  by_user:
    key: { user: data.user }
    columns:
      orders: count() where type == "order.placed"
      cents: sum(if(type == "order.placed", data.cents, -data.cents)) unit cent
      big: count() where data.cents >= parameter.least
      highest: max(data.cents)
      first_time: min(time)
      product: last(data.product)
"#;
    let event = |kind: &str, second: i64, cents: i64, product: &str| {
        TestEvent::new(kind)
            .at(&format!("2026-03-01T12:00:{second:02}Z"))
            .json(&json!({"user": "u", "cents": cents, "product": product}))
    };
    let mut host = try_host(source, r#"{"least": 20}"#).unwrap();
    host.feed([
        event("order.placed", 5, 30, "b"),
        event("order.placed", 1, 15, "a"),
        event("order.cancelled", 6, 5, "c"),
        event("page.viewed", 7, 1_000, "d"),
    ]);
    assert_eq!(
        host.row("by_user", "u").unwrap(),
        json!({
            "user": "u", "orders": 2, "cents": 40, "big": 1, "highest": 30,
            "first_time": "2026-03-01T12:00:01Z", "product": "c", "last_at": "2026-03-01T12:00:06Z",
        })
    );
}

#[test]
fn sessions_join_and_close() {
    for emit in ["final", "none"] {
        let source = format!(
            r#"
name: visits
from: page.viewed
tables:
  visits:
    key: {{ user: subject }}
    window: {{ session: 10m, lateness: 30m, emit: {emit} }}
    columns:
      start: window.start
      end: window.end
      pages: count()
      landing: first(data.path)
      exit: last(data.path)
"#
        );
        let view = |minute: u32, path: &str| {
            TestEvent::new("page.viewed")
                .subject("ann")
                .at(&format!("2026-03-01T12:{minute:02}:00Z"))
                .json(&json!({"path": path}))
        };
        let events = [view(0, "/a"), view(16, "/c"), view(8, "/b"), view(45, "/d"), view(50, "/e")];
        set_source("test.yaml", &source);
        check_determinism::<Declare>("", &events);
        let mut host = host(&source);
        host.feed(events);
        host.advance_to("2026-03-01T14:00:00Z".parse().unwrap());
        let rows = host.rows("visits");
        let keys: Vec<_> = rows.keys().collect();
        assert_eq!(keys, ["2026-03-01T12:00:00Z/ann", "2026-03-01T12:45:00Z/ann"], "{emit}");
        let row = &rows["2026-03-01T12:00:00Z/ann"];
        assert_eq!(
            *row,
            json!({
                "user": "ann", "start": "2026-03-01T12:00:00Z", "end": "2026-03-01T12:26:00Z",
                "pages": 3, "landing": "/a", "exit": "/c",
                "first_at": "2026-03-01T12:00:00Z", "last_at": "2026-03-01T12:16:00Z",
            }),
            "{emit}"
        );
    }
}

#[test]
fn an_event_that_cannot_be_folded_is_parked_alone() {
    let source = r#"
name: totals
from: order.placed
tables:
  totals:
    columns:
      cents: sum(data.cents)
  by_user:
    key: [data.user]
    columns: { orders: count() }
"#;
    let mut host = host(source);
    let max = i64::MAX;
    host.feed([
        order("2026-03-01T12:00:00Z", json!({"user": "a", "cents": 5})),
        order("2026-03-01T12:00:00Z", json!({"user": "a", "cents": "many"})),
        order("2026-03-01T12:00:00Z", json!({"cents": 1})),
        order("2026-03-01T12:00:00Z", json!({"user": "a", "cents": max})),
        order("2026-03-01T12:00:00Z", json!({"user": "b"})),
    ]);
    assert_eq!(host.row("totals", "all").unwrap(), json!({"cents": 5}));
    assert_eq!(host.rows("by_user").len(), 2);
    let reasons: Vec<_> = host.parked().iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0].contains("`data.cents` is not an integer"), "{reasons:?}");
    assert!(reasons[1].contains("`data.user` has no value"), "{reasons:?}");
    assert!(reasons[2].contains("column `cents`: 5 + 9223372036854775807 is outside of 64 bits"));
}

#[test]
fn rows_of_tenants_are_separate() {
    let source = r#"
name: totals
from: order.placed
where: exists(tenant)
tables:
  hours:
    per-tenant: true
    key: [data.user]
    window: { hopping: 1h, every: 30m, emit: final, lateness: 0s }
    columns: { tenant: tenant, orders: count(), start: window.start }
  all:
    per-tenant: true
    columns: { orders: count() }
"#;
    let mut host = host(source);
    let event = |tenant: &str| order("2026-03-01T12:10:00Z", json!({"user": "a"})).tenant(tenant);
    host.feed([event("t1"), event("t2"), event("t1"), event("")]);
    host.advance_to("2026-03-01T14:00:00Z".parse().unwrap());
    assert_eq!(host.row("all", "t1\0all").unwrap(), json!({"orders": 2}));
    assert_eq!(
        host.row("hours", "t1\x002026-03-01T11:30:00Z/a").unwrap(),
        json!({"tenant": "t1", "orders": 2, "start": "2026-03-01T11:30:00Z"})
    );
    assert_eq!(host.rows("hours").len(), 4);
    assert!(host.parked().is_empty() && host.timer_failures().is_empty());
}

#[test]
fn nested_fields_extensions_and_attributes_are_read() {
    let source = r#"
name: totals
from: order.placed
tables:
  totals:
    key: [subject, extension.region, data.address.zip, "date(time, \"Europe/Berlin\")"]
    columns:
      lines: sum(data.cart.lines)
      newest: last(data["odd name"])
"#;
    let mut host = host(source);
    host.feed([order(
        "2026-03-01T23:10:00Z",
        json!({"address": {"zip": "12/3"}, "cart": {"lines": 3}, "odd name": "x"}),
    )
    .subject("s")
    .extensions(r#"{"region": "eu"}"#)]);
    let row = host.row("totals", "s/eu/12%2F3/2026-03-02").unwrap();
    assert_eq!(row, json!({"lines": 3, "newest": "x", "last_at": "2026-03-01T23:10:00Z"}));
}
