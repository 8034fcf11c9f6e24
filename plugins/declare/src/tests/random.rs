//! Compares random declarations with an independent computation. The events are random too, are
//! divided into random batches, and are in random partitions.
//!
//! The computation shares no code with the plugin: it folds JSON values with plain maps
//! and 128-bit sums, and computes each column from the list of a row's events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lantern_sdk::testing::{Harness, TestEvent, set_source};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::Declare;

/// A condition, as text and as a function of the data. Its result is true, false or null.
#[derive(Debug, Clone)]
enum Condition {
    CountryIn(Vec<&'static str>),
    CentsAbove(i64),
    Type(&'static str),
    HasUser,
    Not(Box<Condition>),
    Both(Box<Condition>, Box<Condition>),
    Either(Box<Condition>, Box<Condition>),
}

/// An expression with an integer, as text and as a function of the data.
#[derive(Debug, Clone)]
enum Integer {
    Cents,
    Nested,
    Literal(i64),
    Or(Box<Integer>, i64),
    Add(Box<Integer>, Box<Integer>),
    Times(Box<Integer>, i64),
    Rest(Box<Integer>, i64),
    Choose(Condition, Box<Integer>, Box<Integer>),
    Hundredths,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    User,
    Country,
    Minute,
    Bucket,
}

#[derive(Debug, Clone)]
enum Aggregate {
    Count,
    Sum(Integer),
    Min(Integer),
    Max(Integer),
    Last(Integer),
    Distinct,
    Percentile(Integer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Windowed {
    No,
    Tumbling { final_: bool },
    Hopping,
    BerlinHours,
}

#[derive(Debug, Clone)]
struct Table {
    filter: Option<Condition>,
    key: BTreeSet<Part>,
    windowed: Windowed,
    columns: Vec<(Aggregate, Option<Condition>)>,
}

/// The values from which an event is created.
#[derive(Debug, Clone)]
struct Facts {
    kind: &'static str,
    second: i64,
    user: Option<String>,
    country: Option<&'static str>,
    cents: Option<i64>,
    price: Option<i64>,
    nested: Option<i64>,
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        prop::sample::subsequence(vec!["DE", "FR", "IT"], 1..=3).prop_map(Condition::CountryIn),
        (-20..100_i64).prop_map(Condition::CentsAbove),
        prop_oneof![Just("a.b"), Just("a.c")].prop_map(Condition::Type),
        Just(Condition::HasUser),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|it| Condition::Not(Box::new(it))),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| Condition::Both(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Condition::Either(Box::new(a), Box::new(b))),
        ]
    })
}

fn integer() -> impl Strategy<Value = Integer> {
    let leaf = prop_oneof![
        3 => Just(Integer::Cents),
        1 => Just(Integer::Nested),
        1 => Just(Integer::Hundredths),
        1 => (-5..5_i64).prop_map(Integer::Literal),
    ];
    leaf.prop_recursive(3, 10, 2, |inner| {
        prop_oneof![
            (inner.clone(), -5..5_i64).prop_map(|(a, b)| Integer::Or(Box::new(a), b)),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| Integer::Add(Box::new(a), Box::new(b))),
            (inner.clone(), -5..5_i64).prop_map(|(a, b)| Integer::Times(Box::new(a), b)),
            (inner.clone(), 1..7_i64).prop_map(|(a, b)| Integer::Rest(Box::new(a), b)),
            (condition(), inner.clone(), inner).prop_map(|(c, a, b)| Integer::Choose(
                c,
                Box::new(a),
                Box::new(b)
            )),
        ]
    })
}

fn aggregate() -> impl Strategy<Value = Aggregate> {
    prop_oneof![
        Just(Aggregate::Count),
        integer().prop_map(Aggregate::Sum),
        integer().prop_map(Aggregate::Min),
        integer().prop_map(Aggregate::Max),
        integer().prop_map(Aggregate::Last),
        Just(Aggregate::Distinct),
        integer().prop_map(Aggregate::Percentile),
    ]
}

fn table() -> impl Strategy<Value = Table> {
    let parts = vec![Part::User, Part::Country, Part::Minute, Part::Bucket];
    let windowed = prop_oneof![
        Just(Windowed::No),
        any::<bool>().prop_map(|final_| Windowed::Tumbling { final_ }),
        Just(Windowed::Hopping),
        Just(Windowed::BerlinHours),
    ];
    (
        prop::option::of(condition()),
        prop::sample::subsequence(parts, 0..=3),
        windowed,
        prop::collection::vec((aggregate(), prop::option::of(condition())), 1..5),
    )
        .prop_map(|(filter, key, windowed, columns)| Table {
            filter,
            key: key.into_iter().collect(),
            windowed,
            columns: columns
                .into_iter()
                .map(|(it, filter)| match it {
                    // All columns of a row with the aggregate `last` must have the value of the
                    // same event, so they get no filter of their own.
                    Aggregate::Last(_) => (it, None),
                    it => (it, filter),
                })
                .collect(),
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    (
        prop_oneof![Just("a.b"), Just("a.c")],
        0..20_000_i64,
        prop::option::weighted(0.9, "[a-c/%ü]{1,2}"),
        prop::option::weighted(0.8, prop_oneof![Just("DE"), Just("FR"), Just("US")]),
        prop::option::weighted(0.9, -50..200_i64),
        prop::option::weighted(0.9, 0..5_000_i64),
        prop::option::weighted(0.5, 0..10_i64),
    )
        .prop_map(|(kind, second, user, country, cents, price, nested)| Facts {
            kind,
            second,
            user,
            country,
            cents,
            price,
            nested,
        })
}

impl Condition {
    fn text(&self) -> String {
        match self {
            Self::CountryIn(list) => format!("data.country in {}", json!(list)),
            Self::CentsAbove(least) => format!("data.cents > {least}"),
            Self::Type(kind) => format!("type == \"{kind}\""),
            Self::HasUser => "exists(data.user)".to_owned(),
            Self::Not(inner) => format!("not ({})", inner.text()),
            Self::Both(a, b) => format!("({} and {})", a.text(), b.text()),
            Self::Either(a, b) => format!("({} or {})", a.text(), b.text()),
        }
    }

    fn value(&self, facts: &Facts) -> Option<bool> {
        match self {
            Self::CountryIn(list) => facts.country.map(|it| list.contains(&it)),
            Self::CentsAbove(least) => facts.cents.map(|it| it > *least),
            Self::Type(kind) => Some(facts.kind == *kind),
            Self::HasUser => Some(facts.user.is_some()),
            Self::Not(inner) => inner.value(facts).map(|it| !it),
            Self::Both(a, b) => match (a.value(facts), b.value(facts)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Either(a, b) => match (a.value(facts), b.value(facts)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    fn holds(filter: Option<&Self>, facts: &Facts) -> bool {
        filter.is_none_or(|it| it.value(facts) == Some(true))
    }
}

impl Integer {
    fn text(&self) -> String {
        match self {
            Self::Cents => "data.cents".to_owned(),
            Self::Nested => "data.cart.items".to_owned(),
            Self::Literal(value) => format!("({value})"),
            Self::Or(inner, other) => format!("default({}, {other})", inner.text()),
            Self::Add(a, b) => format!("({} + {})", a.text(), b.text()),
            Self::Times(a, b) => format!("({} * {b})", a.text()),
            Self::Rest(a, b) => format!("({} % {b})", a.text()),
            Self::Choose(c, a, b) => format!("if({}, {}, {})", c.text(), a.text(), b.text()),
            Self::Hundredths => "scaled(data.price, 2)".to_owned(),
        }
    }

    fn value(&self, facts: &Facts) -> Option<i64> {
        match self {
            Self::Cents => facts.cents,
            Self::Nested => facts.nested,
            Self::Literal(value) => Some(*value),
            Self::Or(inner, other) => Some(inner.value(facts).unwrap_or(*other)),
            Self::Add(a, b) => Some(a.value(facts)? + b.value(facts)?),
            Self::Times(a, b) => Some(a.value(facts)? * b),
            Self::Rest(a, b) => Some(a.value(facts)?.rem_euclid(*b)),
            Self::Choose(c, a, b) => {
                if c.value(facts) == Some(true) {
                    a.value(facts)
                } else {
                    b.value(facts)
                }
            }
            Self::Hundredths => facts.price,
        }
    }
}

impl Part {
    fn text(self) -> &'static str {
        match self {
            Self::User => "data.user",
            Self::Country => "default(data.country, \"none\")",
            Self::Minute => "minute(time)",
            Self::Bucket => "floor_to(default(data.cents, 0), 50)",
        }
    }

    fn value(self, facts: &Facts) -> Option<String> {
        Some(match self {
            Self::User => facts.user.clone()?,
            Self::Country => facts.country.unwrap_or("none").to_owned(),
            Self::Minute => clock(facts.second - facts.second % 60),
            Self::Bucket => (facts.cents.unwrap_or(0).div_euclid(50) * 50).to_string(),
        })
    }
}

/// Returns a time on 2026-03-01, in RFC 3339.
fn clock(second: i64) -> String {
    format!("2026-03-01T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

impl Aggregate {
    fn text(&self) -> String {
        match self {
            Self::Count => "count()".to_owned(),
            Self::Sum(it) => format!("sum({})", it.text()),
            Self::Min(it) => format!("min({})", it.text()),
            Self::Max(it) => format!("max({})", it.text()),
            Self::Last(it) => format!("last({})", it.text()),
            Self::Distinct => "distinct(data.user)".to_owned(),
            Self::Percentile(it) => format!("percentile({}, 95)", it.text()),
        }
    }

    /// Returns the value of the column for the events of a row, which are in the order of the log.
    fn value(&self, events: &[&Facts]) -> Value {
        let values = |it: &Integer| -> Vec<i64> {
            events.iter().filter_map(|facts| it.value(facts)).collect()
        };
        match self {
            Self::Count => json!(events.len()),
            Self::Sum(it) => json!(values(it).iter().sum::<i64>()),
            Self::Min(it) => json!(values(it).iter().min()),
            Self::Max(it) => json!(values(it).iter().max()),
            Self::Last(it) => {
                json!(events.iter().max_by_key(|it| it.second).and_then(|facts| it.value(facts)))
            }
            Self::Distinct => {
                let users: BTreeSet<_> = events.iter().filter_map(|it| it.user.clone()).collect();
                json!({"estimate": users.len()})
            }
            Self::Percentile(it) => {
                let values = values(it);
                json!({"count": values.len(), "min": values.iter().min(), "max": values.iter().max()})
            }
        }
    }
}

impl Table {
    fn write(&self, name: &str, out: &mut String) {
        let quoted = |text: String| serde_json::to_string(&text).unwrap();
        let _ = writeln!(out, "  {name}:");
        if let Some(filter) = &self.filter {
            let _ = writeln!(out, "    where: {}", quoted(filter.text()));
        }
        let key: Vec<_> = self.key.iter().map(|part| quoted(part.text().to_owned())).collect();
        let _ = writeln!(out, "    key: [{}]", key.join(", "));
        let window = match self.windowed {
            Windowed::No => "",
            Windowed::Tumbling { final_: true } => "{ tumbling: 10m, emit: final, lateness: 1d }",
            Windowed::Tumbling { final_: false } => "{ tumbling: 10m }",
            Windowed::Hopping => "{ hopping: 1h, every: 30m }",
            Windowed::BerlinHours => "{ tumbling: 1h, tz: Europe/Berlin, emit: none }",
        };
        if !window.is_empty() {
            let _ = writeln!(out, "    window: {window}");
        }
        let _ = writeln!(out, "    columns:");
        for (index, (aggregate, filter)) in self.columns.iter().enumerate() {
            let mut text = aggregate.text();
            if let Some(filter) = filter {
                let _ = write!(text, " where {}", filter.text());
            }
            let _ = writeln!(out, "      c{index}: {}", quoted(text));
        }
    }

    fn windows(&self, second: i64) -> Vec<Option<i64>> {
        match self.windowed {
            Windowed::No => vec![None],
            Windowed::Tumbling { .. } => vec![Some(second - second % 600)],
            Windowed::BerlinHours => vec![Some(second - second % 3_600)],
            Windowed::Hopping => {
                let newest = second - second % 1_800;
                vec![Some(newest - 1_800), Some(newest)]
            }
        }
    }

    /// Returns the rows by the independent computation. It leaves out events that must be parked.
    fn rows(&self, events: &[&Facts]) -> BTreeMap<String, Value> {
        let mut rows: BTreeMap<String, Vec<&Facts>> = BTreeMap::new();
        for facts in events {
            if !Condition::holds(self.filter.as_ref(), facts) {
                continue;
            }
            let parts: Vec<String> =
                self.key.iter().map(|part| part.value(facts).unwrap()).collect();
            for window in self.windows(facts.second) {
                let mut whole: Vec<String> = window
                    .map(|start| {
                        // The first hopping window begins on the previous day.
                        if start < 0 { "2026-02-28T23:30:00Z".to_owned() } else { clock(start) }
                    })
                    .into_iter()
                    .collect();
                whole.extend(parts.iter().cloned());
                let key = match &whole[..] {
                    [] => "all".to_owned(),
                    [one] => one.clone(),
                    many => many
                        .iter()
                        .map(|it| it.replace('%', "%25").replace('/', "%2F"))
                        .collect::<Vec<_>>()
                        .join("/"),
                };
                rows.entry(key).or_default().push(facts);
            }
        }
        let row = |events: Vec<&Facts>| {
            let mut row = Map::new();
            for (index, (aggregate, filter)) in self.columns.iter().enumerate() {
                let counted: Vec<&Facts> = events
                    .iter()
                    .copied()
                    .filter(|facts| Condition::holds(filter.as_ref(), facts))
                    .collect();
                row.insert(format!("c{index}"), aggregate.value(&counted));
            }
            Value::Object(row)
        };
        rows.into_iter().map(|(key, events)| (key, row(events))).collect()
    }

    /// Returns whether the event is not parked: it does not pass the filter, or it has a value for
    /// each part of the key.
    fn accepts(&self, facts: &Facts) -> bool {
        !Condition::holds(self.filter.as_ref(), facts)
            || self.key.iter().all(|part| part.value(facts).is_some())
    }
}

impl Facts {
    fn event(&self) -> TestEvent {
        let mut data = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            data.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("user", self.user.as_ref().map(|it| json!(it)));
        set("country", self.country.map(|it| json!(it)));
        set("cents", self.cents.map(|it| json!(it)));
        set("price", self.price.map(|it| json!(it as f64 / 100.0)));
        set("cart", self.nested.map(|it| json!({"items": it})));
        TestEvent::new(self.kind).at(&clock(self.second)).json(&data)
    }
}

/// Removes what the independent computation does not have: the bytes of sketches and the
/// percentiles, and the columns that `last` adds.
fn without_sketches(mut row: Value) -> Value {
    let members = row.as_object_mut().unwrap();
    members.remove("last_at");
    for value in members.values_mut() {
        if let Value::Object(sketch) = value {
            sketch.retain(|name, _| matches!(name.as_str(), "estimate" | "count" | "min" | "max"));
        }
    }
    row
}

fn fold(source: &str, events: &[&Facts], batch: usize, drop_instances: bool) -> Harness<Declare> {
    set_source("random.yaml", source);
    let host = Harness::<Declare>::try_with_parameters("");
    let mut host = host
        .unwrap_or_else(|error| panic!("{error}\n{source}"))
        .batch_size(batch)
        .drop_instances(drop_instances);
    host.feed(events.iter().map(|facts| facts.event()));
    host.advance_to("2026-03-05T00:00:00Z".parse().unwrap());
    host
}

/// Merges the values that two partitions have in a column, as `docs/guide/tables.md` describes.
fn merged(aggregate: &Aggregate, a: &Value, b: &Value, newest_is_b: bool) -> Value {
    let least = |pick: fn(i64, i64) -> i64| match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => json!(pick(a, b)),
        (a, b) => json!(a.or(b)),
    };
    match aggregate {
        Aggregate::Count | Aggregate::Sum(_) => least(|a, b| a + b),
        Aggregate::Min(_) => least(std::cmp::min),
        Aggregate::Max(_) => least(std::cmp::max),
        Aggregate::Last(_) => {
            if newest_is_b {
                b.clone()
            } else {
                a.clone()
            }
        }
        Aggregate::Distinct => {
            let mut all: lantern_sdk::Distinct = serde_json::from_value(a.clone()).unwrap();
            all.merge(&serde_json::from_value(b.clone()).unwrap());
            serde_json::to_value(all).unwrap()
        }
        Aggregate::Percentile(_) => {
            let mut all: lantern_sdk::Percentiles = serde_json::from_value(a.clone()).unwrap();
            all.merge(&serde_json::from_value(b.clone()).unwrap());
            serde_json::to_value(all).unwrap()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tables_are_those_of_an_independent_computation(
        tables in prop::collection::vec(table(), 1..4),
        filter in prop::option::of(condition()),
        facts in prop::collection::vec(facts(), 1..60),
        batch in 1..20_usize,
        cut in any::<u64>(),
    ) {
        // The times are distinct, so that `last` does not depend on the partitions.
        let mut facts = facts;
        let mut seen = BTreeSet::new();
        facts.retain(|it| seen.insert(it.second));
        let mut source = String::from("name: random\nfrom: a.*\n");
        if let Some(filter) = &filter {
            let _ = writeln!(source, "where: {}", json!(filter.text()));
        }
        source.push_str("tables:\n");
        for (index, table) in tables.iter().enumerate() {
            table.write(&format!("t{index}"), &mut source);
        }
        // `last(data.cents)` alone would not determine the kind.
        let stated = [("data.cents", "integer"), ("data.cart.items", "integer")];
        let stated: Vec<String> = stated
            .iter()
            .filter(|(field, _)| source.contains(field))
            .map(|(field, kind)| format!("{field}: {kind}"))
            .collect();
        let _ = writeln!(source, "fields: {{ {} }}", stated.join(", "));
        let all: Vec<&Facts> = facts.iter().collect();
        let kept: Vec<&Facts> = all
            .iter()
            .copied()
            .filter(|it| Condition::holds(filter.as_ref(), it))
            .filter(|it| tables.iter().all(|table| table.accepts(it)))
            .collect();
        let refused = all
            .iter()
            .filter(|it| Condition::holds(filter.as_ref(), it))
            .filter(|it| !tables.iter().all(|table| table.accepts(it)))
            .count();

        let host = fold(&source, &all, 1_000, false);
        prop_assert_eq!(host.parked().len(), refused, "{}\n{:?}", source, host.parked());
        prop_assert!(host.timer_failures().is_empty());
        for (index, table) in tables.iter().enumerate() {
            let rows = host.rows(&format!("t{index}"));
            let rows: BTreeMap<_, _> =
                rows.into_iter().map(|(key, row)| (key, without_sketches(row))).collect();
            prop_assert_eq!(rows, table.rows(&kept), "{}", source);
        }

        // The rows must be the same, byte by byte, however the events are divided into batches.
        for drop_instances in [false, true] {
            let other = fold(&source, &all, batch, drop_instances);
            prop_assert_eq!(other.outcome().tables, host.outcome().tables, "{}", source);
        }

        // Two partitions must give the same rows after they are merged by the rules of the
        // manifest.
        let side = |facts: &Facts| cut >> (facts.second % 64) & 1;
        let parts = [0, 1].map(|wanted| {
            let part: Vec<&Facts> = all.iter().copied().filter(|it| side(it) == wanted).collect();
            fold(&source, &part, batch, false)
        });
        for (index, table) in tables.iter().enumerate() {
            let name = format!("t{index}");
            let [mut rows, others] = [0, 1].map(|part| parts[part].rows(&name));
            for (key, other) in others {
                let Some(row) = rows.get_mut(&key) else {
                    rows.insert(key, other);
                    continue;
                };
                let newest_is_b = other.get("last_at").and_then(Value::as_str)
                    >= row.get("last_at").and_then(Value::as_str);
                for (column, (aggregate, _)) in table.columns.iter().enumerate() {
                    let column = format!("c{column}");
                    row[&column] = merged(aggregate, &row[&column], &other[&column], newest_is_b);
                }
                if newest_is_b && let Some(at) = other.get("last_at") {
                    row["last_at"] = at.clone();
                }
            }
            prop_assert_eq!(rows, host.rows(&name), "{}", source);
        }
    }
}
