//! Tests all functions that build keys: different values give different keys, keys sort as their
//! values do, and U+0000 is refused.

use std::collections::BTreeMap;

use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, TestEvent, check_determinism};
use lantern_sdk::window::{OpenSessions, OpenWindows, Recent, Windows};
use lantern_sdk::{Narrow, key_part};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Counts events by the text of their data, once in each kind of table; the event's
/// type selects the table.
#[derive(Tables)]
struct Everywhere {
    #[table(private)]
    plain: Table<u64>,
    #[table(private)]
    parts: Table<u64>,
    #[table(private, per_tenant)]
    of_tenants: Table<u64>,
    #[table(private)]
    open: OpenWindows<u64>,
    #[table(private)]
    sessions: OpenSessions<u64>,
    #[table(private)]
    recent: Recent<u64>,
    /// The results of windows and timers: source, tenant, text.
    #[table(private)]
    out: Table<u64>,
}

impl Projection for Everywhere {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["*"])
            .attributes([Attribute::Tenant])
            .event_time(Duration::ZERO, Duration::from_secs(60))
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let text: String = event.data()?;
        let (tenant, minute) = (event.tenant()?, event.time().minute());
        let hours = Windows::tumbling(HOUR);
        match (event.kind(), tenant) {
            ("plain", _) => *self.plain.row(&text)? += 1,
            ("parts", _) => *self.parts.row((minute, tenant, &text))? += 1,
            ("of_tenants", _) => *self.of_tenants.row(InTenant(tenant, &text))? += 1,
            ("open", "") => drop(self.open.add(event, hours, &text, |sum| *sum += 1)?),
            ("open", _) => {
                self.open.add(event, hours, InTenant(tenant, &text), |sum| *sum += 1)?;
            }
            ("sessions", "") => {
                self.sessions.add(event, HOUR, &text, |sum| *sum += 1)?;
            }
            ("sessions", _) => {
                self.sessions.add(event, HOUR, InTenant(tenant, &text), |sum| *sum += 1)?;
            }
            ("recent", "") => {
                self.recent.add(event, HOUR, &text, 1)?;
            }
            ("recent", _) => {
                self.recent.add(event, HOUR, InTenant(tenant, &text), 1)?;
            }
            ("timers", "") => event.set_timer(event.time() + HOUR, &text)?,
            ("timers", _) => event.set_timer(event.time() + HOUR, InTenant(tenant, &text))?,
            _ => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open.close(timer)? {
            self.out.put(("open", &closed.tenant, &closed.key), closed.value)?;
        }
        for closed in self.sessions.close(timer)? {
            self.out.put(("sessions", &closed.tenant, &closed.key), closed.value)?;
        }
        if let Some(advanced) = self.recent.advance(timer)? {
            let sum = advanced.settled().last().map_or(0, |slide| slide.values().sum());
            if sum > 0 {
                self.out.put(("recent", &advanced.tenant, &advanced.key), sum)?;
            }
        }
        if !timer.key().starts_with('\u{1}') {
            *self.out.row(("timers", timer.tenant(), timer.key()))? += 1;
        }
        Ok(())
    }
}

const KINDS: [&str; 7] = ["plain", "parts", "of_tenants", "open", "sessions", "recent", "timers"];

fn texts() -> impl Strategy<Value = Vec<(&'static str, String, usize)>> {
    let text = prop::collection::vec(
        prop::sample::select(vec!["\0", "/", "%", "%2F", "a", "b", "ü", "\u{10ffff}"]),
        1..4,
    );
    let tenant = prop::sample::select(vec!["", "a", "b", "a/b", "%"]);
    let event = (tenant, text, 0..KINDS.len());
    prop::collection::vec(
        event.prop_map(|(tenant, text, kind)| (tenant, text.concat(), kind)),
        1..60,
    )
}

/// Splits the keys of the rows into their parts.
fn by_parts(rows: BTreeMap<String, Vec<u8>>) -> BTreeMap<Vec<String>, u64> {
    rows.into_iter()
        .map(|(key, row)| {
            let parts = key.split('/').map(|part| key_part(part).into_owned()).collect();
            (parts, String::from_utf8(row).unwrap().parse().unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_two_keys_become_one_and_none_has_a_nul(log in texts()) {
        let mut events: Vec<TestEvent> = log
            .iter()
            .map(|(tenant, text, kind)| {
                let event = TestEvent::new(KINDS[*kind]).tenant(*tenant).at("2026-03-01T12:00:00Z");
                event.json(&text)
            })
            .collect();
        events.push(TestEvent::new("end").at("2026-03-02T00:00:00Z").json(&""));
        check_determinism::<Everywhere>("", &events);
        let mut host = Harness::<Everywhere>::new();
        host.feed(events);
        prop_assert!(host.timer_failures().is_empty());

        let mut counts: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        let mut parked = 0;
        for (tenant, text, kind) in &log {
            let kind = KINDS[*kind];
            if text.contains('\0') || (kind, *tenant) == ("of_tenants", "") {
                parked += 1;
                continue;
            }
            let tenant = if kind == "plain" { "" } else { tenant };
            let key = [kind, tenant, text].map(str::to_owned).to_vec();
            let count = counts.entry(key).or_default();
            *count = if kind == "timers" { 1 } else { *count + 1 };
        }
        prop_assert_eq!(host.parked().len(), parked);
        for parked in host.parked() {
            let expected = ["U+0000 cannot be part of a key", "the tenant is empty"];
            prop_assert!(expected.iter().any(|why| parked.reason.contains(why)), "{}", parked.reason);
        }

        let mut found = by_parts(host.raw_rows("out"));
        for (mut parts, count) in by_parts(host.raw_rows("parts")) {
            parts[0] = "parts".to_owned();
            found.insert(parts, count);
        }
        for table in ["plain", "of_tenants"] {
            for (key, count) in host.typed_rows::<u64>(table) {
                let InTenant(tenant, text) = InTenant::from_key(&key).unwrap_or(InTenant("", &key));
                found.insert([table, tenant, text].map(str::to_owned).to_vec(), count);
            }
        }
        prop_assert_eq!(found, counts);
    }

    #[test]
    fn narrow_integers_order_as_integers_and_are_read_back(
        a in prop_oneof![any::<i64>(), -1_100..1_100_i64],
        b in prop_oneof![any::<i64>(), -1_100..1_100_i64],
        text in "[A-Za-z][0-9]{0,3}",
    ) {
        let key = |number: i64| Narrow(number).to_key();
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        prop_assert_eq!((Narrow(a), "x").to_key().cmp(&(Narrow(b), "x").to_key()), a.cmp(&b));
        prop_assert_eq!(Narrow::parse(&key(a)), Some(Narrow(a)));
        prop_assert!(key(a).len() <= 20);
        if let Some(number) = Narrow::parse(&text) {
            prop_assert_eq!(number.to_key(), text);
        }
    }

    #[test]
    fn keys_of_times_and_numbers_order_as_these_do(
        a in (0..1_000_i64, any::<u16>(), any::<i64>()),
        b in (0..1_000_i64, any::<u16>(), any::<i64>()),
    ) {
        let key = |(second, short, long): (i64, u16, i64)| {
            (Timestamp::from_seconds(second), short, Narrow(long)).to_key()
        };
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }
}

#[test]
fn integers_at_the_ends_have_keys() {
    let numbers = [i64::MIN, i64::MIN + 1, -10, -9, -1, 0, 9, 10, i64::MAX];
    let keys = numbers.map(|number| Narrow(number).to_key());
    assert!(keys.is_sorted());
    for (number, key) in numbers.iter().zip(&keys) {
        assert_eq!(Narrow::parse(key), Some(Narrow(*number)));
    }
    for text in ["", "a", "a+1", "b07", "aü", "ü1", "Z", "Y8", "Z9", "s9223372036854775808"] {
        assert_eq!(Narrow::parse(text), None, "{text}");
    }
}
