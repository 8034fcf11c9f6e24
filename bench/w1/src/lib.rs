//! Implements the projection of the benchmark W1. Over shop events, it computes events and cents
//! per tenant and minute, and the revenue per product.
//!
//! Every event's data is parsed as JSON, even if it has no cents, because the plain Rust
//! fold for comparison does so too.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use serde::Deserialize;

#[derive(Tables)]
struct W1 {
    /// Events and cents per minute and tenant.
    tenant_minute: Table<TenantMinute>,
    /// Orders and revenue per product.
    product: Table<Product>,
    #[table(skip)]
    last_minute: LastMinute,
}

/// The minute that was last written as text. Keeping the text saves work, because most events have
/// the same minute as the event before. The text can be computed again from any event, so it may be
/// lost at any time.
#[derive(Default)]
struct LastMinute {
    minute: Timestamp,
    text: String,
}

impl LastMinute {
    fn text(&mut self, minute: Timestamp) -> &str {
        if self.minute != minute || self.text.is_empty() {
            self.minute = minute;
            self.text = minute.to_key();
        }
        &self.text
    }
}

#[derive(Row, Default)]
struct TenantMinute {
    #[row(merge = sum)]
    count: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Row, Default)]
struct Product {
    #[row(merge = sum)]
    orders: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    product: Cow<'a, str>,
    #[serde(default)]
    cents: i64,
}

impl Projection for W1 {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["page.viewed", "cart.added", "order.placed"])
            .attributes([Attribute::Tenant])
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let data: Data<'_> = event.data()?;
        // The minute comes first in the key, so that new rows are at the end of the table.
        let key = (self.last_minute.text(event.time().minute()), event.tenant()?);
        let row = self.tenant_minute.row(key)?;
        row.count += 1;
        row.cents += data.cents;
        if event.kind() == "order.placed" {
            let row = self.product.row(&data.product)?;
            row.orders += 1;
            row.cents += data.cents;
        }
        Ok(())
    }
}

lantern_sdk::export!(W1);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use lantern_sdk::testing::{Harness, check_determinism, read_ndjson};
    use serde_json::{Value, json};

    use super::*;

    const EVENTS: &str = include_str!("../events.ndjson");

    /// Compares the sums with those that plain maps compute from the text of the sample.
    #[test]
    fn the_sample_agrees_with_an_independent_computation() {
        let mut minutes: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        let mut products: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for line in EVENTS.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let cents = event["data"]["cents"].as_i64().unwrap_or_default();
            let minute = &event["time"].as_str().unwrap()[..16];
            let key = format!("{minute}:00Z/{}", event["tenant"].as_str().unwrap());
            let row = minutes.entry(key).or_default();
            *row = (row.0 + 1, row.1 + cents);
            if event["type"] == "order.placed" {
                let product = event["data"]["product"].as_str().unwrap();
                let row = products.entry(product.to_owned()).or_default();
                *row = (row.0 + 1, row.1 + cents);
            }
        }
        assert!(products.len() > 5 && minutes.len() > 20);

        check_determinism::<W1>("", &read_ndjson(EVENTS));
        let mut host = Harness::<W1>::new();
        host.feed_ndjson(EVENTS);
        assert!(host.parked().is_empty());
        let row = |(key, (count, cents))| (key, json!({"count": count, "cents": cents}));
        assert_eq!(host.rows("tenant_minute"), minutes.into_iter().map(row).collect());
        let row = |(key, (orders, cents))| (key, json!({"orders": orders, "cents": cents}));
        assert_eq!(host.rows("product"), products.into_iter().map(row).collect());
    }
}
