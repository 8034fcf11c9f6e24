//! Follows users from a page view to the cart to an order: how many users reach each step, and how
//! long they take, by country.
//!
//! A *journey* begins with a user's first `page.viewed`, continues with the first
//! `cart.added` after it, and ends with the first `order.placed` after that. Then the
//! next one may begin. Events count in the order of the log. An event that does not
//! continue a journey changes only `outside`; a view during a journey does not count
//! there, because people browse. An event without a user also counts in `outside`:
//! other programs may use the same types for other events, and one of their events must
//! not hold back a whole subject.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use serde::Deserialize;

const PARAMETERS: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "per": {
            "enum": ["user", "user_product"],
            "default": "user",
            "description": "whether a journey may include several products, or each product has journeys of its own"
        },
        "abandoned_after_s": {
            "type": "integer",
            "minimum": 1,
            "default": 86400,
            "description": "seconds without a step after which a journey counts as abandoned, noticed at the user's next event"
        }
    }
}"#;

#[derive(Tables)]
struct Funnel {
    /// Journeys by the country of their first view.
    by_country: Table<Country>,
    /// The journeys in progress.
    #[table(private)]
    journeys: Table<Journey>,
    #[table(skip)]
    settings: Settings,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    per: Per,
    abandoned_after_s: u64,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Per {
    User,
    UserProduct,
}

impl Default for Settings {
    fn default() -> Self {
        Self { per: Per::User, abandoned_after_s: 86_400 }
    }
}

/// Sums and counts, which can be added over partitions: the mean time to an order is
/// `to_order_ms_sum / orders`, the conversion rate `orders / views`.
#[derive(Row, Default)]
struct Country {
    country: String,
    #[row(merge = sum)]
    views: u64,
    #[row(merge = sum)]
    carts: u64,
    #[row(merge = sum)]
    orders: u64,
    #[row(merge = sum)]
    abandoned: u64,
    #[row(merge = sum)]
    outside: u64,
    #[row(unit = "ms", merge = sum)]
    to_cart_ms_sum: i64,
    /// From the first view to the order.
    #[row(unit = "ms", merge = sum)]
    to_order_ms_sum: i64,
    #[row(unit = "ms", merge = min)]
    to_order_ms_min: Option<i64>,
    #[row(unit = "ms", merge = max)]
    to_order_ms_max: Option<i64>,
    #[row(merge = sum)]
    orders_within_1m: u64,
    #[row(merge = sum)]
    orders_within_10m: u64,
    #[row(merge = sum)]
    orders_within_1h: u64,
    #[row(merge = sum)]
    orders_within_1d: u64,
    #[row(merge = sum)]
    orders_later: u64,
}

#[derive(Row, Clone)]
struct Journey {
    country: String,
    viewed: Timestamp,
    carted: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Step<'a> {
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    product: Option<Cow<'a, str>>,
    #[serde(borrow)]
    country: Option<Cow<'a, str>>,
}

/// The country of events that do not name one.
const UNKNOWN: &str = "unknown";

fn present<'a>(text: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Projection for Funnel {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.settings = parameters.parse()?;
        if self.settings.abandoned_after_s == 0 {
            return Err(Error::new("parameters: abandoned_after_s is 0, give at least 1"));
        }
        // A parked event of a subject holds back the subject's later events until it is
        // retried or dropped. That is right here, because a journey depends on the
        // order of events. It is also safe: `apply` accepts events in which a field is
        // missing, and fails only if a field has the wrong type.
        Ok(lantern_sdk::manifest!()
            .subscribe(["page.viewed", "cart.added", "order.placed"])
            .on_failure(OnFailure::ParkSubject)
            .parameters(PARAMETERS))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let step: Step<'_> = event.data()?;
        let country = present(&step.country).unwrap_or(UNKNOWN);
        let key = match (self.settings.per, present(&step.user), present(&step.product)) {
            (Per::User, Some(user), _) => user.to_key(),
            (Per::UserProduct, Some(user), Some(product)) => (user, product).to_key(),
            _ => {
                self.country(country)?.outside += 1;
                return Ok(());
            }
        };
        let now = event.time();
        let journey = self.under_way(&key, now)?;
        match (event.kind(), journey) {
            ("page.viewed", None) => {
                let journey = Journey { country: country.to_owned(), viewed: now, carted: None };
                self.journeys.put(&key, journey)?;
                self.country(country)?.view();
            }
            ("page.viewed", Some(_)) => {}
            ("cart.added", Some(journey)) if journey.carted.is_none() => {
                self.country(&journey.country)?.cart(now.millis_since(journey.viewed));
                let carted = Some(now);
                self.journeys.put(&key, Journey { carted, ..journey })?;
            }
            ("order.placed", Some(journey)) if journey.carted.is_some() => {
                self.country(&journey.country)?.order(now.millis_since(journey.viewed));
                self.journeys.delete(&key)?;
            }
            _ => self.country(country)?.outside += 1,
        }
        Ok(())
    }
}

impl Funnel {
    /// Returns the journey of `key`, unless it was abandoned.
    fn under_way(&mut self, key: &str, now: Timestamp) -> Result<Option<Journey>, Error> {
        let Some(journey) = self.journeys.get(key)?.cloned() else {
            return Ok(None);
        };
        let last_step = journey.carted.unwrap_or(journey.viewed);
        if now <= last_step + Duration::from_secs(self.settings.abandoned_after_s) {
            return Ok(Some(journey));
        }
        self.journeys.delete(key)?;
        self.country(&journey.country)?.abandoned += 1;
        Ok(None)
    }

    fn country(&mut self, country: &str) -> Result<&mut Country, Error> {
        self.by_country
            .row_or(country, || Country { country: country.to_owned(), ..Country::default() })
    }
}

impl Country {
    fn view(&mut self) {
        self.views += 1;
    }

    /// Events out of order may give a negative time; it counts as 0.
    fn cart(&mut self, ms: i64) {
        self.carts += 1;
        self.to_cart_ms_sum += ms.max(0);
    }

    fn order(&mut self, ms: i64) {
        let ms = ms.max(0);
        self.orders += 1;
        self.to_order_ms_sum += ms;
        self.to_order_ms_min = Some(self.to_order_ms_min.map_or(ms, |min| min.min(ms)));
        self.to_order_ms_max = Some(self.to_order_ms_max.map_or(ms, |max| max.max(ms)));
        *match ms {
            0..=60_000 => &mut self.orders_within_1m,
            60_001..=600_000 => &mut self.orders_within_10m,
            600_001..=3_600_000 => &mut self.orders_within_1h,
            3_600_001..=86_400_000 => &mut self.orders_within_1d,
            _ => &mut self.orders_later,
        } += 1;
    }
}

lantern_sdk::export!(Funnel);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use lantern_sdk::testing::{Harness, TestEvent, check_determinism, read_ndjson};
    use serde_json::{Value, json};

    use super::*;

    const EVENTS: &str = include_str!("../events.ndjson");

    fn step(kind: &str, product: &str, time: &str) -> TestEvent {
        let data = json!({"user": "u1", "product": product, "country": "DE"});
        TestEvent::new(kind).at(&format!("2026-03-01T{time}Z")).subject("u1").json(&data)
    }

    fn fold(parameters: &str, events: impl IntoIterator<Item = TestEvent>) -> Value {
        let mut host = Harness::<Funnel>::with_parameters(parameters);
        host.feed(events);
        assert!(host.parked().is_empty());
        host.row("by_country", "DE").unwrap()
    }

    #[test]
    fn a_journey_is_timed_from_first_view_to_order() {
        let row = fold(
            "",
            [
                step("page.viewed", "p1", "12:00:00"),
                step("page.viewed", "p2", "12:00:05"),
                step("cart.added", "p2", "12:00:10"),
                step("cart.added", "p3", "12:00:11"),
                step("order.placed", "p2", "12:02:00.500"),
                step("order.placed", "p2", "12:03:00"),
                step("page.viewed", "p1", "12:04:00"),
            ],
        );
        assert_eq!((&row["views"], &row["carts"]), (&json!(2), &json!(1)));
        assert_eq!((&row["orders"], &row["outside"]), (&json!(1), &json!(2)));
        assert_eq!(row["to_cart_ms_sum"], 10_000);
        assert_eq!(row["to_order_ms_sum"], 120_500);
        assert_eq!(row["to_order_ms_min"], row["to_order_ms_max"]);
        assert_eq!(row["orders_within_10m"], 1);
    }

    #[test]
    fn a_product_may_be_a_journey_of_its_own() {
        let events = || {
            [
                step("page.viewed", "p1", "12:00:00"),
                step("page.viewed", "p2", "12:00:00"),
                step("cart.added", "p1", "12:00:10"),
                step("order.placed", "p2", "12:00:20"),
            ]
        };
        let row = fold(r#"{"per": "user_product"}"#, events());
        assert_eq!((&row["views"], &row["orders"]), (&json!(2), &json!(0)));
        let row = fold("", events());
        assert_eq!((&row["views"], &row["orders"]), (&json!(1), &json!(1)));
    }

    #[test]
    fn a_journey_that_takes_too_long_is_abandoned() {
        let row = fold(
            r#"{"abandoned_after_s": 60}"#,
            [
                step("page.viewed", "p1", "12:00:00"),
                step("cart.added", "p1", "12:01:00"),
                step("order.placed", "p1", "12:02:01"),
                step("page.viewed", "p1", "12:02:02"),
            ],
        );
        assert_eq!((&row["abandoned"], &row["outside"]), (&json!(1), &json!(1)));
        assert_eq!((&row["views"], &row["orders"]), (&json!(2), &json!(0)));
    }

    #[test]
    fn an_event_without_a_user_parks_nothing_and_counts_outside() {
        let mut host = Harness::<Funnel>::new();
        host.feed([
            step("page.viewed", "p1", "12:00:00"),
            // Events of the same types by other programs, with the same subject.
            TestEvent::new("order.placed").subject("u1").json(&json!({"product": "p1"})),
            TestEvent::new("page.viewed").subject("u1").json(&json!({"user": "", "country": null})),
            TestEvent::new("cart.added").subject("u1").json(&json!({"country": "DE"})),
            step("cart.added", "p1", "12:00:10"),
            step("order.placed", "p1", "12:00:20"),
        ]);
        assert!(host.parked().is_empty());
        let row = host.row("by_country", "DE").unwrap();
        assert_eq!((&row["orders"], &row["outside"]), (&json!(1), &json!(1)));
        assert_eq!(host.row("by_country", "unknown").unwrap()["outside"], 2);
    }

    #[test]
    fn wrong_parameters_are_reported() {
        for (parameters, why) in [
            (r#"{"per": "shop"}"#, "unknown variant `shop`"),
            (r#"{"abandoned_after_s": 0}"#, "give at least 1"),
            (r#"{"abandoned": 1}"#, "unknown field `abandoned`"),
        ] {
            let error = Harness::<Funnel>::try_with_parameters(parameters).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }

    /// Milliseconds since the start of March 2026, computed from the digits.
    fn ms(time: &str) -> i64 {
        let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().unwrap();
        let minutes = (number(8..10) * 24 + number(11..13)) * 60 + number(14..16);
        (minutes * 60 + number(17..19)) * 1_000 + number(20..23)
    }

    /// Compares with plain vectors, user by user, over the text of the sample.
    #[test]
    fn the_sample_agrees_with_an_independent_computation() {
        let mut users: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in EVENTS.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let user = event["subject"].as_str().unwrap().to_owned();
            users.entry(user).or_default().push(event);
        }
        // Views, carts, outside; times to order.
        let mut expected: BTreeMap<String, ([u64; 3], Vec<i64>)> = BTreeMap::new();
        for events in users.values() {
            let country = events[0]["data"]["country"].as_str().unwrap().to_owned();
            let (counts, times) = expected.entry(country).or_default();
            let (mut stage, mut start) = (0, 0);
            for event in events {
                let time = ms(event["time"].as_str().unwrap());
                match (stage, event["type"].as_str().unwrap()) {
                    (0, "page.viewed") => {
                        (stage, start) = (1, time);
                        counts[0] += 1;
                    }
                    (_, "page.viewed") => {}
                    (1, "cart.added") => {
                        stage = 2;
                        counts[1] += 1;
                    }
                    (2, "order.placed") => {
                        stage = 0;
                        times.push(time - start);
                    }
                    _ => counts[2] += 1,
                }
            }
        }

        check_determinism::<Funnel>("", &read_ndjson(EVENTS));
        let mut host = Harness::<Funnel>::new();
        host.feed_ndjson(EVENTS);
        let rows = host.rows("by_country");
        assert!(rows.keys().eq(expected.keys()));
        for (country, (counts, times)) in expected {
            let row = &rows[&country];
            assert_eq!(json!(counts), json!([row["views"], row["carts"], row["outside"]]));
            assert_eq!(row["orders"], times.len());
            assert!(!times.is_empty(), "{country}");
            let sum: i64 = times.iter().sum();
            assert_eq!(row["to_order_ms_sum"], sum);
            assert_eq!(row["to_order_ms_min"], *times.iter().min().unwrap());
            assert_eq!(row["to_order_ms_max"], *times.iter().max().unwrap());
            let within = |from: i64, to: i64| {
                times.iter().filter(|ms| (from + 1..=to).contains(*ms)).count()
            };
            assert_eq!(row["orders_within_1h"], within(600_000, 3_600_000));
            assert_eq!(row["orders_within_1d"], within(3_600_000, 86_400_000));
        }
    }
}
