//! Computes revenue by product and by minute, from `order.placed`.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use serde::Deserialize;

#[derive(Tables)]
struct Revenue {
    /// Revenue of each product.
    by_product: Table<Product>,
    /// Revenue of each minute of event time.
    by_minute: Table<Minute>,
}

#[derive(Row, Default)]
struct Product {
    product: String,
    #[row(merge = sum)]
    orders: u64,
    #[row(merge = sum)]
    quantity: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Row, Default)]
struct Minute {
    minute: Timestamp,
    #[row(merge = sum)]
    orders: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    product: Cow<'a, str>,
    quantity: u32,
    cents: i64,
}

impl Projection for Revenue {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["order.placed"]).on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let order: Order<'_> = event.data()?;
        let row = self.by_product.row_or(&order.product, || Product {
            product: order.product.to_string(),
            ..Product::default()
        })?;
        row.orders += 1;
        row.quantity += u64::from(order.quantity);
        row.cents += order.cents;

        let minute = event.time().minute();
        let row = self.by_minute.row(minute)?;
        row.minute = minute;
        row.orders += 1;
        row.cents += order.cents;
        Ok(())
    }
}

lantern_sdk::export!(Revenue);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use lantern_sdk::testing::{Harness, TestEvent, check_determinism, read_ndjson};
    use serde_json::{Value, json};

    use super::*;

    const EVENTS: &str = include_str!("../events.ndjson");

    fn order(product: &str, time: &str, quantity: u32, cents: i64) -> TestEvent {
        TestEvent::new("order.placed").at(time).json(&json!({
            "user": "u1", "product": product, "country": "DE", "quantity": quantity, "cents": cents,
        }))
    }

    #[test]
    fn orders_add_up_by_product_and_by_minute() {
        let mut host = Harness::<Revenue>::new();
        host.feed([
            order("p1", "2026-03-01T12:00:00.001Z", 1, 100),
            order("p2", "2026-03-01T12:00:59.999Z", 2, 250),
            order("p1", "2026-03-01T12:01:00Z", 3, 300),
            TestEvent::new("page.viewed"),
        ]);
        assert_eq!(
            host.row("by_product", "p1").unwrap(),
            json!({"product": "p1", "orders": 2, "quantity": 4, "cents": 400})
        );
        assert_eq!(
            host.row("by_minute", "2026-03-01T12:00:00Z").unwrap(),
            json!({"minute": "2026-03-01T12:00:00Z", "orders": 2, "cents": 350})
        );
        assert_eq!(host.rows("by_minute").len(), 2);
    }

    #[test]
    fn an_order_without_cents_is_parked_alone() {
        let mut host = Harness::<Revenue>::new();
        host.feed([
            order("p1", "2026-03-01T12:00:00Z", 1, 100),
            TestEvent::new("order.placed").data(r#"{"product": "p1", "quantity": 1}"#),
            order("p1", "2026-03-01T12:00:00Z", 1, 100),
        ]);
        assert_eq!(host.row("by_product", "p1").unwrap()["cents"], 200);
        assert_eq!(host.parked().len(), 1);
        assert!(host.parked()[0].reason.contains("missing field `cents`"));
    }

    /// Compares the sums with plain maps over the text of the sample.
    #[test]
    fn the_sample_agrees_with_an_independent_computation() {
        let mut products: BTreeMap<String, (u64, u64, i64)> = BTreeMap::new();
        let mut minutes: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for line in EVENTS.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["type"] != "order.placed" {
                continue;
            }
            let (quantity, cents) = (&event["data"]["quantity"], &event["data"]["cents"]);
            let (quantity, cents) = (quantity.as_u64().unwrap(), cents.as_i64().unwrap());
            let product = event["data"]["product"].as_str().unwrap();
            let row = products.entry(product.to_owned()).or_default();
            *row = (row.0 + 1, row.1 + quantity, row.2 + cents);
            let minute = format!("{}:00Z", &event["time"].as_str().unwrap()[..16]);
            let row = minutes.entry(minute).or_default();
            *row = (row.0 + 1, row.1 + cents);
        }
        assert!(products.len() > 5 && minutes.len() > 5);

        check_determinism::<Revenue>("", &read_ndjson(EVENTS));
        let mut host = Harness::<Revenue>::new();
        host.feed_ndjson(EVENTS);
        assert!(host.parked().is_empty());
        let products = products.into_iter().map(|(product, (orders, quantity, cents))| {
            let row =
                json!({"product": product, "orders": orders, "quantity": quantity, "cents": cents});
            (product, row)
        });
        assert_eq!(host.rows("by_product"), products.collect());
        let minutes = minutes.into_iter().map(|(minute, (orders, cents))| {
            let row = json!({"minute": minute, "orders": orders, "cents": cents});
            (minute, row)
        });
        assert_eq!(host.rows("by_minute"), minutes.collect());
    }
}
