//! Generates the events of a web shop, for the demo, benchmarks and tests.
//!
//! Event `i` depends only on the seed and on `i`. So any part of the sequence can be generated
//! again, in any order, without the events before it. The generator never reads a clock or a source
//! of randomness.
//!
//! The shop has 5,000 products and 100,000 users, who belong to 1,000 tenants in 40 countries. A
//! few of each are much busier than the others. 60 % of all events are `page.viewed`, 20 %
//! `cart.added` and 20 % `order.placed`. A `cart.added` usually follows a recent view of the same
//! user and product, and an `order.placed` follows a recent `cart.added`.

use lantern_core::{EventRef, Events, Timestamp};

/// The attribute `source` of every event that is generated.
pub const SOURCE: &str = "shop";
/// The number of products: `p0` to `p4999`.
pub const PRODUCTS: u64 = 5_000;
/// The number of users: `u0` to `u99999`.
pub const USERS: u64 = 100_000;
/// The number of tenants: `t0` to `t999`. A user belongs to one of them.
pub const TENANTS: u64 = 1_000;
/// How many events back the generator looks for an earlier event: for the view before an addition
/// to a cart, and for the addition before an order.
pub const LOOK_BACK: u64 = 500;

/// The codes (ISO 3166-1) of the users' countries, the busiest first.
pub const COUNTRIES: [&str; 40] = [
    "US", "DE", "GB", "FR", "IN", "BR", "JP", "CA", "IT", "ES", "NL", "PL", "MX", "AU", "SE", "CH",
    "AT", "BE", "TR", "KR", "ID", "PT", "DK", "NO", "FI", "CZ", "IE", "GR", "RO", "HU", "AR", "CL",
    "CO", "ZA", "EG", "NG", "KE", "SG", "TH", "NZ",
];

/// The number of bytes to reserve for a line that [`Shop::write_line`] writes.
pub const LINE_BYTES: usize = 256;

/// Options for a sequence of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed; another seed gives another sequence with other ids.
    pub seed: u64,
    /// The number of events within [`Options::span_ms`]. The sequence continues after them, with as
    /// many events per unit of event time.
    pub events: u64,
    /// The time of the first event, in whole milliseconds.
    pub start: Timestamp,
    /// The event time between the first and the last event, in milliseconds.
    pub span_ms: u64,
    /// How much older an event may be than an event before it in the sequence, in milliseconds.
    pub disorder_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            events: 100_000,
            start: Timestamp(1_767_225_600_000_000), // 2026-01-01T00:00:00Z
            span_ms: 6 * 60 * 60 * 1000,
            disorder_ms: 2_000,
        }
    }
}

/// What an event says about the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A user has viewed a product: `page.viewed`.
    PageViewed,
    /// A user has put a product into a cart: `cart.added`.
    CartAdded,
    /// A user has placed an order: `order.placed`.
    OrderPlaced,
}

impl Kind {
    /// Returns the attribute `type` of such events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PageViewed => "page.viewed",
            Self::CartAdded => "cart.added",
            Self::OrderPlaced => "order.placed",
        }
    }
}

/// One event, before it is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShopEvent {
    /// What has happened in the shop.
    pub kind: Kind,
    /// The number of the user, below [`USERS`]. It is the event's `subject`.
    pub user: u64,
    /// The number of the user's tenant, below [`TENANTS`].
    pub tenant: u64,
    /// The number of the product that was viewed or bought, below [`PRODUCTS`].
    pub product: u64,
    /// The country of the user who acts.
    pub country: &'static str,
    /// The number of items ordered; 1 if the event is not an order.
    pub quantity: u64,
    /// The price of all items, in cents.
    pub cents: u64,
    /// The time of the event, in milliseconds since 1970.
    pub time_ms: i64,
}

/// A sequence of events of the shop.
#[derive(Clone, Copy, Debug)]
pub struct Shop {
    options: Options,
}

impl Shop {
    /// Creates the sequence that `options` describe.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Event `index`, counted from 0.
    #[must_use]
    pub fn event(&self, index: u64) -> ShopEvent {
        let kind = self.kind(index);
        let (user, product) = self.visit(index, kind);
        let quantity = match kind {
            Kind::OrderPlaced => 1 + skewed(self.draw(index, RandomSource::Quantity), 5),
            Kind::PageViewed | Kind::CartAdded => 1,
        };
        ShopEvent {
            kind,
            user,
            tenant: user % TENANTS,
            product,
            country: country(user),
            quantity,
            cents: quantity * price_cents(product),
            time_ms: self.time_ms(index),
        }
    }

    /// Writes event `index` to `out` as one line: a CloudEvent as JSON and a
    /// line feed.
    pub fn write_line(&self, index: u64, out: &mut Vec<u8>) {
        self.write_line_at(index, self.time_ms(index), out);
    }

    /// Writes event `index` like [`Shop::write_line`], but with the time `time_ms` (milliseconds
    /// since 1970).
    pub fn write_line_at(&self, index: u64, time_ms: i64, out: &mut Vec<u8>) {
        let event = self.event(index);
        out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
        self.write_id(index, out);
        out.extend_from_slice(br#"","source":"shop","type":""#);
        out.extend_from_slice(event.kind.name().as_bytes());
        out.extend_from_slice(br#"","subject":"u"#);
        write_number(event.user, 1, out);
        out.extend_from_slice(br#"","tenant":"t"#);
        write_number(event.tenant, 1, out);
        out.extend_from_slice(br#"","time":""#);
        write_time(time_ms, out);
        out.extend_from_slice(br#"","data":"#);
        write_data(&event, out);
        out.extend_from_slice(b"}\n");
    }

    /// Adds the events in `range` to `events`, in columns. The result is the same as if a server
    /// had read their lines. `scratch` is overwritten; passing the same buffer again saves
    /// allocations.
    pub fn fill(&self, range: std::ops::Range<u64>, events: &mut Events, scratch: &mut Vec<u8>) {
        for index in range {
            let event = self.event(index);
            scratch.clear();
            self.write_id(index, scratch);
            let id = scratch.len();
            scratch.push(b'u');
            write_number(event.user, 1, scratch);
            let user = scratch.len();
            scratch.push(b't');
            write_number(event.tenant, 1, scratch);
            let tenant = scratch.len();
            write_data(&event, scratch);
            let text = std::str::from_utf8(scratch).expect("only ASCII is written");
            let pushed = events.push(&EventRef {
                id: &text[..id],
                source: SOURCE,
                kind: event.kind.name(),
                subject: &text[id..user],
                time: Timestamp(event.time_ms * 1000),
                tenant: &text[user..tenant],
                data: &text.as_bytes()[tenant..],
                ..EventRef::default()
            });
            debug_assert!(pushed, "there are three types");
        }
    }

    /// Returns the time of event `index`, in milliseconds since 1970. The times are spread evenly,
    /// and each event is delayed by up to [`Options::disorder_ms`].
    #[must_use]
    pub fn time_ms(&self, index: u64) -> i64 {
        let o = &self.options;
        let even = u128::from(index) * u128::from(o.span_ms) / u128::from(o.events.max(1));
        let late = match o.disorder_ms {
            0 => 0,
            most => self.draw(index, RandomSource::Disorder) % (most + 1),
        };
        let after = i64::try_from(even).unwrap_or(i64::MAX).saturating_add_unsigned(late);
        o.start.millis().saturating_add(after)
    }

    /// Returns the user and the product of event `index`.
    fn visit(&self, index: u64, kind: Kind) -> (u64, u64) {
        let followed = match kind {
            Kind::PageViewed => None,
            Kind::CartAdded => self.recent(index, Kind::PageViewed),
            Kind::OrderPlaced => self.recent(index, Kind::CartAdded),
        };
        match followed {
            // An order refers to an addition to a cart, and an addition to a view. So the recursion
            // has at most two levels.
            Some((before, kind)) => self.visit(before, kind),
            None => (
                skewed(self.draw(index, RandomSource::User), USERS),
                skewed(self.draw(index, RandomSource::Product), PRODUCTS),
            ),
        }
    }

    /// Returns a recent event of the kind `wanted` before `index`; `None` if a few tries find none.
    fn recent(&self, index: u64, wanted: Kind) -> Option<(u64, Kind)> {
        const TRIES: u64 = 8;
        let mut draw = self.draw(index, RandomSource::Before);
        for _ in 0..TRIES {
            let before = index.checked_sub(1 + draw % LOOK_BACK)?;
            let kind = self.kind(before);
            if kind == wanted {
                return Some((before, kind));
            }
            draw = mix(draw);
        }
        None
    }

    fn kind(&self, index: u64) -> Kind {
        match self.draw(index, RandomSource::Kind) % 10 {
            0..6 => Kind::PageViewed,
            6..8 => Kind::CartAdded,
            _ => Kind::OrderPlaced,
        }
    }

    fn draw(&self, index: u64, what: RandomSource) -> u64 {
        mix(mix(self.options.seed ^ ((what as u64) << 56)).wrapping_add(index))
    }

    fn write_id(&self, index: u64, out: &mut Vec<u8>) {
        out.push(b's');
        write_number(self.options.seed, 1, out);
        out.push(b'-');
        write_number(index, 10, out);
    }
}

/// What a random number is used for. Each use has its own sequence of random numbers.
#[derive(Clone, Copy)]
#[repr(u8)]
enum RandomSource {
    Kind = 1,
    User,
    Product,
    Quantity,
    Before,
    Disorder,
}

/// SplitMix64's output function: every bit of `x` affects every bit of the result.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns a number below `below`; small numbers are more likely. It is the cube of a uniform
/// number, so a hundredth of the range gets a fifth of the numbers.
fn skewed(draw: u64, below: u64) -> u64 {
    // The number has 21 bits, so its cube fits into 64 bits.
    let x = draw >> 43;
    let cube = u128::from(x * x * x);
    u64::try_from((cube * u128::from(below)) >> 63).expect("below `below`")
}

fn country(user: u64) -> &'static str {
    let place = skewed(mix(user ^ 0xC0), COUNTRIES.len() as u64);
    COUNTRIES[usize::try_from(place).expect("below 40")]
}

/// Returns the price of one item of `product`, in cents.
fn price_cents(product: u64) -> u64 {
    199 + mix(product ^ 0xCE) % 19_800
}

fn write_data(event: &ShopEvent, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"user":"u"#);
    write_number(event.user, 1, out);
    out.extend_from_slice(br#"","product":"p"#);
    write_number(event.product, 1, out);
    out.extend_from_slice(br#"","country":""#);
    out.extend_from_slice(event.country.as_bytes());
    out.push(b'"');
    if event.kind == Kind::OrderPlaced {
        out.extend_from_slice(br#","quantity":"#);
        write_number(event.quantity, 1, out);
    }
    if event.kind != Kind::PageViewed {
        out.extend_from_slice(br#","cents":"#);
        write_number(event.cents, 1, out);
    }
    out.push(b'}');
}

/// Writes `number` in decimal with at least `digits` digits (20 at most).
fn write_number(mut number: u64, digits: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut from = text.len();
    while number > 0 {
        from -= 1;
        text[from] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
    out.extend_from_slice(&text[from.min(text.len() - digits)..]);
}

/// Writes `time_ms` (milliseconds since 1970) as RFC 3339 with milliseconds.
fn write_time(time_ms: i64, out: &mut Vec<u8>) {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let (year, month, day) = civil(time_ms.div_euclid(DAY_MS));
    let ms = time_ms.rem_euclid(DAY_MS).unsigned_abs();
    write_number(year, 4, out);
    out.push(b'-');
    write_number(month, 2, out);
    out.push(b'-');
    write_number(day, 2, out);
    out.push(b'T');
    write_number(ms / 3_600_000, 2, out);
    out.push(b':');
    write_number(ms / 60_000 % 60, 2, out);
    out.push(b':');
    write_number(ms / 1_000 % 60, 2, out);
    out.push(b'.');
    write_number(ms % 1_000, 3, out);
    out.push(b'Z');
}

/// Returns the year, month and day that is `day` days after 1970-01-01, in the Gregorian calendar.
/// For dates before the year 0, the year is 0.
fn civil(day: i64) -> (u64, u64, u64) {
    // The calculation counts from 1 March of the year 0. So the leap day is at the end of a year.
    const TO_MARCH_OF_YEAR_0: i64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = u64::try_from(day.saturating_add(TO_MARCH_OF_YEAR_0)).unwrap_or(0);
    let era = days / DAYS_OF_400_YEARS;
    let in_era = days % DAYS_OF_400_YEARS;
    let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_in_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::collections::HashMap;

    fn lines(shop: &Shop, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        range.for_each(|i| shop.write_line(i, &mut out));
        out
    }

    #[test]
    fn a_stretch_is_the_same_whatever_was_made_before_it() {
        let shop = Shop::new(Options::default());
        let whole = lines(&shop, 0..2_000);
        let mut parts = lines(&Shop::new(Options::default()), 0..700);
        parts.extend(lines(&shop, 700..2_000));
        assert_eq!(whole, parts);
        let other = Shop::new(Options { seed: 2, ..Options::default() });
        assert_ne!(whole, lines(&other, 0..2_000));
    }

    #[test]
    fn the_mix_the_skew_and_the_size_are_as_promised() {
        let count = 200_000;
        let shop = Shop::new(Options { events: count, ..Options::default() });
        let (mut kinds, mut products) = (HashMap::new(), HashMap::new());
        for event in (0..count).map(|i| shop.event(i)) {
            *kinds.entry(event.kind.name()).or_insert(0_u64) += 1;
            *products.entry(event.product).or_insert(0_u64) += 1;
            assert!(event.user < USERS && event.product < PRODUCTS && event.tenant < TENANTS);
            assert!((1..=5).contains(&event.quantity));
        }
        for (kind, percent) in [("page.viewed", 60), ("cart.added", 20), ("order.placed", 20)] {
            let of_all = kinds[kind] * 1000 / count;
            assert!((percent * 10 - 5..=percent * 10 + 5).contains(&of_all), "{kind}: {of_all} ‰");
        }
        let busiest: u64 = (0..PRODUCTS / 100).filter_map(|p| products.get(&p)).sum();
        assert!((15..30).contains(&(busiest * 100 / count)), "{busiest} of {count}");
        let bytes = lines(&shop, 0..10_000).len() / 10_000;
        assert!((195..225).contains(&bytes), "{bytes} bytes an event");
    }

    #[test]
    fn event_time_spans_six_hours_and_never_runs_more_than_two_seconds_back() {
        let count = 50_000;
        let shop = Shop::new(Options { events: count, ..Options::default() });
        let (mut highest, mut disorder) = (i64::MIN, 0);
        for time in (0..count).map(|i| shop.time_ms(i)) {
            disorder = disorder.max(highest.saturating_sub(time));
            highest = highest.max(time);
        }
        assert!((1..=2_000).contains(&disorder), "{disorder} ms");
        let span = highest - Options::default().start.millis();
        assert!((6 * 3_600_000 - 1_000..6 * 3_600_000 + 2_000).contains(&span), "{span} ms");
    }

    #[test]
    fn carts_follow_on_views_and_orders_on_carts() {
        let shop = Shop::new(Options::default());
        let mut seen: HashMap<(u64, u64), Kind> = HashMap::new();
        let (mut followed, mut all) = (0, 0);
        for event in (0..20_000).map(|i| shop.event(i)) {
            let key = (event.user, event.product);
            if event.kind == Kind::CartAdded {
                all += 1;
                followed += u32::from(seen.contains_key(&key));
            }
            seen.insert(key, event.kind);
        }
        assert!(followed * 10 > all * 9, "{followed} of {all}");
    }

    #[test]
    fn a_line_is_a_cloud_event_and_its_time_reads_back() {
        let shop = Shop::new(Options::default());
        for (index, line) in lines(&shop, 0..300).split(|b| *b == b'\n').enumerate().take(300) {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            let event = shop.event(index as u64);
            assert_eq!(json["specversion"], "1.0");
            assert_eq!(json["type"], event.kind.name());
            assert_eq!(json["data"]["user"], format!("u{}", event.user));
            assert_eq!(json["data"].get("cents").is_some(), event.kind != Kind::PageViewed);
            let time: jiff::Timestamp = json["time"].as_str().unwrap().parse().unwrap();
            assert_eq!(time.as_millisecond(), event.time_ms);
        }
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for ms in [0, 951_782_399_999, 951_868_800_000, 1_767_225_600_000, 4_102_444_799_123, -1] {
            let mut out = Vec::new();
            write_time(ms, &mut out);
            let back: jiff::Timestamp = std::str::from_utf8(&out).unwrap().parse().unwrap();
            assert_eq!(back.as_millisecond(), ms);
        }
    }

    #[test]
    fn columns_hold_what_the_lines_say() {
        let shop = Shop::new(Options::default());
        let mut events = Events::new();
        shop.fill(10..60, &mut events, &mut Vec::new());
        for (event, line) in events.iter().zip(lines(&shop, 10..60).split(|b| *b == b'\n')) {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(json["id"], event.id);
            assert_eq!(json["subject"], event.subject);
            assert_eq!(json["tenant"], event.tenant);
            let data: serde_json::Value = serde_json::from_slice(event.data).unwrap();
            assert_eq!(json["data"], data);
        }
    }
}
